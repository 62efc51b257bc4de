"""The word model against its definition, generations against theory, and what holds for every text.

Statistical tests use fixed seeds and allow five standard errors a number (one in 1.7 million by chance), or a chance of
one in a million for a whole test, so that they fail for a reason.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels.diversity import Accumulator
from transforms.kernels.language_model import BOUNDARY, MOST_ORDER, find, sample, train
from transforms.kernels.simulation import (
    BANDS,
    Generation,
    Pool,
    SimulationParams,
    expected_kept,
    expected_simpson,
    simulate,
)
from transforms.kernels.text import Words, split_words

STANDARD_ERRORS = 5
BY_CHANCE = 1e-6
VOCABULARY = 20

documents = st.lists(st.lists(st.integers(1, 6), max_size=8), min_size=1, max_size=6).filter(any)
shares = st.fractions(0, 1, max_denominator=12)


def text_of(documents: list[list[int]]) -> np.ndarray:
    return np.array([BOUNDARY, *(word for d in documents if d for word in (*d, BOUNDARY))], np.int32)


def pool_of(documents: list[list[int]]) -> Pool:
    hashes = np.array([word for document in documents for word in document], np.uint64)
    lengths = np.array([len(document) for document in documents])
    return Pool.of(Words(hashes, np.concatenate([[0], np.cumsum(lengths)]), lengths))


def zipf_pool(words: int, vocabulary: int, document: int) -> Pool:
    """Words drawn one by one from Zipf's law, in documents of one length."""
    rng = np.random.default_rng(7)
    weights = 1 / np.arange(1, vocabulary + 1)
    hashes = rng.integers(0, 2**64, vocabulary, np.uint64)[rng.choice(vocabulary, words, p=weights / weights.sum())]
    offsets = np.arange(0, words + 1, document)
    return Pool.of(Words(hashes, offsets, np.diff(offsets)))


def chain(pool: Pool, human: Fraction | int, generations: int, order: int = 1, seed: int = 0) -> list[Generation]:
    return list(simulate(pool, Fraction(human), SimulationParams(generations, order), seed))


# The model


class Plain:
    """Witten-Bell smoothing as the books have it, with dictionaries; contexts never reach beyond a boundary."""

    def __init__(self, text: np.ndarray, order: int) -> None:
        self.order = order
        self.counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for place in range(1, len(text)):
            for size in {len(self.context(text[:place], size)) for size in range(order)}:
                self.counts[self.context(text[:place], size)][int(text[place])] += 1

    @staticmethod
    def context(before: np.ndarray, size: int) -> tuple[int, ...]:
        """The last words, from the last boundary on."""
        found: list[int] = []
        for word in before[::-1]:
            if len(found) == size:
                break
            found.append(int(word))
            if word == BOUNDARY:
                break
        return tuple(found[::-1])

    def probability(self, word: int, before: np.ndarray) -> float:
        probability = 0.0
        for size in range(self.order):
            counts = self.counts.get(self.context(before, size))
            if counts is None:
                break
            if size == 0:
                probability = counts[word] / counts.total()
            else:
                novel = len(counts)
                probability = (counts[word] + novel * probability) / (counts.total() + novel)
        return probability


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_model_draws_words_by_witten_bell(order: int) -> None:
    rng = np.random.default_rng(order)
    text = text_of([rng.integers(1, VOCABULARY, rng.integers(1, 12)).tolist() for _ in range(12)])
    plain = Plain(text, order)
    drawn = sample(train(text, order), 80_000, key=3)
    seen: dict[tuple[tuple[int, ...], bool], Counter[int]] = defaultdict(Counter)
    for place in range(1, len(drawn) - 1):  # what the last boundary stands behind was cut
        context = plain.context(drawn[max(0, place - order) : place], order - 1)
        seen[context, drawn[place - 1] == BOUNDARY][int(drawn[place])] += 1
    statistic = freedom = 0.0
    for (context, is_start), counts in seen.items():
        before = np.array(context, np.int32)
        weights = np.array([plain.probability(word, before) for word in range(VOCABULARY)])
        if is_start:
            weights[BOUNDARY] = 0  # no document is empty
        expected = weights / weights.sum() * counts.total()
        assert not [word for word in counts if expected[word] == 0], (context, counts)
        found = np.array([counts[word] for word in range(VOCABULARY)])
        rare = expected < 5  # too few for a normal law: taken together
        cells = [(found[~rare], expected[~rare])]
        if expected[rare].sum() >= 5:
            cells.append((found[rare].sum(keepdims=True), expected[rare].sum(keepdims=True)))
        statistic += sum(float(((seen - wanted) ** 2 / wanted).sum()) for seen, wanted in cells)
        freedom += max(0, sum(len(seen) for seen, _ in cells) - 1)
    assert freedom > VOCABULARY - 5
    assert scipy.stats.chi2.sf(statistic, freedom) > BY_CHANCE


@given(documents, st.integers(1, MOST_ORDER), st.integers(1, 200), st.integers(0, 2**64 - 1))
def test_a_sample_is_documents_of_known_words(found: list[list[int]], order: int, words: int, key: int) -> None:
    text = text_of(found)
    model = train(text, order)
    drawn = sample(model, words, key)
    assert (drawn != BOUNDARY).sum() == words
    assert drawn[0] == drawn[-1] == BOUNDARY
    assert not ((drawn[1:] == BOUNDARY) & (drawn[:-1] == BOUNDARY)).any(), "an empty document"
    assert set(drawn.tolist()) <= set(text.tolist())
    assert (sample(model, words, key) == drawn).all()


@given(documents, st.integers(1, MOST_ORDER))
def test_the_model_lists_every_place_of_every_context(found: list[list[int]], order: int) -> None:
    text = text_of(found)
    model = train(text, order)
    for size in range(order):
        places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place in range(1, len(text)):
            places[Plain.context(text[:place], size)].append(place)
        for context, expected in places.items():
            number = 0 if size == 0 else int(model.grams[expected[0] - 1, size - 1])
            listed = model.places[size, model.starts[size, number] : model.starts[size, number + 1]].tolist()
            assert sorted(listed) == expected, context
            followers = [int(text[place]) for place in listed]
            assert followers == sorted(followers)
            assert model.followers[size, number] == len(set(followers))
            for word in range(8):
                place = find(model.grams, model.places, model.starts, size, number, word)
                assert place in expected if word in followers else place == -1
                assert place == -1 or text[place] == word


def test_what_is_no_training_text_is_refused() -> None:
    for wrong in ([], [BOUNDARY, BOUNDARY], [1, 2, BOUNDARY], [BOUNDARY, 1]):
        with pytest.raises(ValueError, match="boundary before and after"):
            train(np.array(wrong, np.int32), 2)
    with pytest.raises(ValueError, match="order is 6; it must be from 1 to 5"):
        train(text_of([[1]]), 6)
    with pytest.raises(ValueError, match="generations is 0; it must be from 1 to 100"):
        SimulationParams(0)


# Theory


def plain_survival(count: int, generations: int) -> float:
    """1 - q_k^c, with q_0 = 0 and q_k = exp(q_(k-1) - 1)."""
    lost = 0.0
    for _ in range(generations):
        lost = math.exp(lost - 1)
    return 1 - lost**count


@given(st.integers(1, 40), st.integers(1, 30))
def test_the_expectation_without_human_text_is_the_closed_form(count: int, generations: int) -> None:
    expected = expected_kept(pool_of([[1] * count]), Fraction(0), generations)
    assert [row[0] for row in expected[1:]] == pytest.approx(
        [plain_survival(count, number) for number in range(1, generations + 1)]
    )
    assert expected_kept(pool_of([[1]]), Fraction(0), 1)[1][0] == pytest.approx(1 - 1 / math.e)


@pytest.mark.parametrize("human", ["0", "1/10", "1/2", "9/10"])
def test_single_words_survive_as_theory_says(human: str) -> None:
    """Every band of every generation. Losses of words are all but independent, so the binomial law gives the error."""
    pool = zipf_pool(words=200_000, vocabulary=40_000, document=50)
    found = chain(pool, Fraction(human), 10)
    expected = expected_kept(pool, Fraction(human), 10)
    for generation, (everything, *bands) in zip(found[1:], expected[1:], strict=True):
        for share, theory, band in zip(generation.kept, bands, pool.bands(), strict=True):
            assert share is not None
            error = math.sqrt(max(theory * (1 - theory), 1e-4) / band.sum())
            assert abs(share - theory) < STANDARD_ERRORS * error, (generation.number, theory, share)
        assert abs(generation.types_kept - everything) < STANDARD_ERRORS * 0.5 / math.sqrt((pool.counts > 0).sum())


def test_the_chain_of_the_literature() -> None:
    """A Zipf chain of 100,000 words and 20,000 types without human text, computed elsewhere: after 1, 5 and 10
    generations .808, .498 and .353 of the types and .635, .275 and .160 of the words seen once are left."""
    found = chain(zipf_pool(words=100_000, vocabulary=20_000, document=100), 0, 10)
    assert [found[at].types_kept for at in (1, 5, 10)] == pytest.approx([0.808, 0.498, 0.353], abs=0.02)
    assert [found[at].kept[0] for at in (1, 5, 10)] == pytest.approx([0.635, 0.275, 0.160], abs=0.02)
    first, last = found[0].metrics, found[10].metrics
    assert 0.92 < last["entropy_1"] / first["entropy_1"] < 0.95, "entropy moves last"


def test_repetition_rises_as_theory_says() -> None:
    """The mean of 1 - simpson over chains against (1 - 1/n)^k (1 - S_0)."""
    pool = zipf_pool(words=1000, vocabulary=100, document=10)
    chains = [chain(pool, 0, 8, seed=seed) for seed in range(60)]
    expected = expected_simpson(pool, 8)
    assert expected[0] == pytest.approx(chains[0][0].metrics["simpson"])
    for number in range(1, 9):
        values = np.array([found[number].metrics["simpson"] for found in chains])
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert abs(values.mean() - expected[number]) < STANDARD_ERRORS * error
    assert expected[8] == pytest.approx(1 - (1 - 1 / 1000) ** 8 * (1 - expected[0]))


# What holds for every text


@settings(max_examples=30)
@given(documents, st.integers(1, 3), st.integers(0, 9))
def test_with_human_text_alone_nothing_is_lost(found: list[list[int]], order: int, seed: int) -> None:
    pool = pool_of(found)
    first, *others = chain(pool, 1, 3, order, seed)
    assert first.types_kept == 1
    for generation in others:
        assert (generation.types_kept, generation.kept, generation.metrics) == (1, first.kept, first.metrics)


@settings(max_examples=30)
@given(documents, st.integers(1, 3), st.integers(0, 9))
def test_without_human_text_nothing_returns(found: list[list[int]], order: int, seed: int) -> None:
    kept = [generation.types_kept for generation in chain(pool_of(found), 0, 5, order, seed)]
    assert kept == sorted(kept, reverse=True)


@settings(max_examples=40)
@given(documents, shares, st.integers(1, 3), st.integers(0, 9))
def test_every_generation_has_the_same_size(found: list[list[int]], human: Fraction, order: int, seed: int) -> None:
    pool = pool_of(found)
    generations = chain(pool, human, 2, order, seed)
    sizes = {round(g.metrics["types"] / g.metrics["distinct_1"]) for g in generations}
    assert sizes == {pool.words} == {sum(map(len, found))}
    assert generations == chain(pool, human, 2, order, seed)


@given(st.integers(1, 60), shares, st.integers(0, 9))
def test_human_documents_are_drawn_once_at_most(documents: int, human: Fraction, seed: int) -> None:
    """Where every word stands once, in a document of its own, what is drawn without replacement is all different."""
    pool = pool_of([[place] for place in range(documents)])
    drawn = documents * human.numerator // human.denominator
    (_, generation) = chain(pool, human, 1, seed=seed)
    assert generation.metrics["types"] >= drawn
    if human == 1:
        assert generation.metrics["types"] == documents


def test_other_seeds_and_shares_draw_other_texts() -> None:
    pool = zipf_pool(words=5000, vocabulary=2000, document=50)
    found = [chain(pool, human, 3, order=2, seed=seed)[1:] for human in ("0", "1/2", "50/101") for seed in (0, 1)]
    assert len({repr(generations) for generations in found}) == len(found)


def test_a_pool_numbers_the_words_of_the_metrics() -> None:
    words = split_words(pa.array(["A rose is a rose.", "", "IS 它是", "..."]))
    pool = Pool.of(words)
    assert (pool.documents, pool.words) == (2, 8)
    # Numbers follow hashes, which say nothing of where a word stands.
    spelled = ["a", "rose", "is", "a", "rose", BOUNDARY, "is", "它", "是"]
    assert len(set(zip(spelled, pool.text[1:-1].tolist(), strict=True))) == len(set(spelled))
    accumulator = Accumulator()
    accumulator.add(words)
    wanted = {metric.name: metric.value for metric in accumulator.values()}
    (first, _) = chain(pool, 0, 1)
    assert first.metrics == {name: wanted[name] for name in first.metrics}
    assert [int(band.sum()) for band in pool.bands()] == [2, 3, 0, 0, 0]
    assert first.kept == (1, 1, *[None] * (len(BANDS) - 2))


def test_there_must_be_a_word() -> None:
    with pytest.raises(ValueError, match="no word"):
        Pool.of(split_words(pa.array(["", "..."])))
