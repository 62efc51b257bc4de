"""Against held-out text: equal to plain definitions, and a null under which human works rarely differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import binom, false_discovery_control

from transforms.kernels.diversity import Accumulator, DiversityParams, language_key
from transforms.kernels.diversity.baseline import (
    LEAST_SIZE,
    LEAST_WORKS,
    MEASURES,
    Against,
    NoBaseline,
    Null,
    Shape,
    adjusted,
    largest_size,
    measures_of,
)
from transforms.kernels.diversity.equal_size import Drawn, draw, in_pieces, joined, usual_length, word_pairs
from transforms.kernels.diversity.held_out import HeldOut
from transforms.kernels.diversity.reference import RARE_BANDS, Reference
from transforms.kernels.diversity.sample import SampledTexts
from transforms.kernels.text import Words

unhurried = settings(deadline=None)

documents_of = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=9), min_size=1, max_size=8)


def scattered(ids: Sequence[int]) -> np.ndarray:
    mixed = (np.array(ids, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(29))


def accumulated(documents: Sequence[Sequence[int]], params: DiversityParams | None = None) -> Accumulator:
    total = Accumulator.zero(params)
    lengths = np.array([len(document) for document in documents], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    total.add(Words(scattered([word for document in documents for word in document]), offsets, lengths))
    return total


def texts_of(documents: Sequence[Sequence[int]]) -> SampledTexts:
    return accumulated(documents).sample.texts(0)


def reference_of(works: Sequence[Sequence[Sequence[int]]], params: DiversityParams | None = None) -> Reference:
    parts = [(f"work-{number:03d}", "", accumulated(work, params)) for number, work in enumerate(works)]
    return Reference.of(lambda: iter(parts), 0)


def work(draws: np.random.Generator, words: int = 1600, length: int = 80, vocabulary: int = 40_000) -> list[list[int]]:
    """A human work: words of a law of its own, with topics of its own among the frequent ones."""
    ranks = np.arange(1, vocabulary + 1)
    weights = 1 / (ranks + 2.0) ** draws.normal(1.0, 0.03)
    weights[draws.integers(100, vocabulary, 60)] += weights[100]
    ids = draws.choice(vocabulary, words, p=weights / weights.sum())
    return [ids[start : start + length].tolist() for start in range(0, words, length)]


def resampled(documents: list[list[int]], generations: int, draws: np.random.Generator) -> list[list[int]]:
    pool = np.concatenate([np.array(document) for document in documents])
    for _ in range(generations):
        pool = draws.choice(pool, len(pool))
    ends = np.cumsum([0, *map(len, documents)])
    return [pool[start:end].tolist() for start, end in pairwise(ends.tolist())]


# At equal size


@unhurried
@given(documents_of, st.integers(1, 60), st.randoms())
def test_a_draw_is_whole_documents_but_for_the_last(documents: list[list[int]], size: int, random: object) -> None:
    texts = texts_of(documents)
    held = [tuple(texts.words[start:end].tolist()) for start, end in pairwise(texts.offsets.tolist())]
    order = np.random.default_rng(size).permutation(len(held))
    drawn = draw(texts, size, order)
    found = [tuple(drawn.words[start:end].tolist()) for start, end in pairwise(drawn.offsets.tolist())]
    wanted = [held[place] for place in order]
    assert found[:-1] == wanted[: len(found) - 1]
    assert found[-1] == wanted[len(found) - 1][: len(found[-1])]
    assert len(drawn.words) == min(size, len(texts.words))


@unhurried
@given(documents_of, st.integers(1, 5))
def test_pieces_are_all_of_the_text(documents: list[list[int]], longest: int) -> None:
    texts = texts_of(documents)
    pieces = in_pieces(texts, longest)
    lengths = np.diff(pieces.offsets)
    assert lengths.max() <= longest
    assert lengths.min() >= 1
    assert set(texts.offsets.tolist()) <= set(pieces.offsets.tolist())
    both = joined([texts, pieces])
    assert len(both.words) == 2 * len(texts.words)
    assert np.diff(both.offsets).tolist() == [*np.diff(texts.offsets).tolist(), *lengths.tolist()]
    assert usual_length(pieces) <= longest


def test_pairs_do_not_cross_documents() -> None:
    drawn = Drawn(np.array([1, 2, 3, 4], np.uint32), np.array([0, 2, 4]))
    assert word_pairs(drawn).tolist() == [1 << 32 | 2, 3 << 32 | 4]
    assert drawn.repeated(2) == (0, 2)
    assert Drawn(np.array([1, 2, 1, 2, 1], np.uint32), np.array([0, 5])).repeated(2) == (2, 4)


@unhurried
@given(documents_of)
def test_measures_equal_their_definitions(documents: list[list[int]]) -> None:
    texts = texts_of(documents)
    drawn = draw(texts, len(texts.words))
    reference = reference_of([[[0, 1, 2, 2, 2, 50]]])
    values = dict(zip((m.name for m in MEASURES), measures_of(drawn, [reference]), strict=True))
    kept = {tuple(document) for document in documents}  # copies count once
    counts = Counter(word for document in kept for word in document)
    total, spectrum = counts.total(), Counter(counts.values())
    shares = np.array(list(counts.values())) / total
    assert values["types"] == len(counts)
    assert values["hapaxes"] == spectrum[1]
    assert values["chao1"] == len(counts) + spectrum[1] * max(0, spectrum[1] - 1) / (2 * (spectrum[2] + 1))
    assert values["entropy_1"] == pytest.approx(-(shares * np.log2(shares)).sum())
    if total > 1:
        assert values["simpson"] == pytest.approx(sum(c * (c - 1) for c in counts.values()) / (total * (total - 1)))
    pairs = [pair for document in kept for pair in pairwise(document)]
    assert values["distinct_2"] == pytest.approx(len(set(pairs)) / len(pairs) if pairs else 1)
    assert values["tail_coverage"] == pytest.approx(len({0, 1, 2, 50} & set(counts)) / 4)


@pytest.mark.parametrize(("words", "most", "size"), [(0, 8, 0), (1, 8, 1), (1023, 4096, 512), (9999, 4096, 4096)])
def test_sizes_are_powers_of_two(words: int, most: int, size: int) -> None:
    assert largest_size(words, most) == size


# Against the words of a reference


@unhurried
@given(documents_of, documents_of)
def test_divergence_and_coverage_equal_their_definitions(held_out: list[list[int]], documents: list[list[int]]) -> None:
    reference = reference_of([held_out])
    texts = texts_of(documents)
    met = reference.meet(draw(texts, len(texts.words)).counted())
    there = Counter(word for document in held_out for word in document)
    here = Counter(word for document in {tuple(document) for document in documents} for word in document)
    p, q = ([counts[word] / counts.total() for word in range(13)] for counts in (here, there))
    assert reference.divergence(met) == pytest.approx(jensenshannon(p, q, base=2) ** 2, abs=1e-12)
    coverage = reference.coverage(met)
    for place, (first, last) in enumerate(RARE_BANDS):
        band = {word for word, count in there.items() if first <= count <= last}
        assert coverage.types[place] == len(band)
        assert coverage.seen[place] == len(band & set(here))


def test_beyond_the_table_divergence_and_coverage_are_estimated_without_bias() -> None:
    """Of 24 hash functions, a table of 1,024 words for 20,000: means within four standard errors of the truth."""
    draws = np.random.default_rng(5)
    held_out, text = work(draws, 60_000, 100), work(draws, 4_000, 100)
    exact = reference_of([held_out], DiversityParams(words=1 << 17))
    assert exact.level == 0
    truth_met = exact.meet(draw(texts_of(text), 4000).counted())
    divergence, coverage = exact.divergence(truth_met), exact.coverage(truth_met).share
    small = DiversityParams(words=1 << 10, bins=1 << 12)
    found = []
    for shift in range(24):
        moved = [[[word + shift * 1_000_003 for word in document] for document in of] for of in (held_out, text)]
        reference = reference_of([moved[0]], small)
        assert reference.level > 2
        assert "bins-4096+sample-1024" in reference.method(4096)
        met = reference.meet(draw(texts_of(moved[1]), 4000).counted())
        found.append((reference.divergence(met), reference.coverage(met).share))
    values = np.array(found)
    errors = values.std(axis=0, ddof=1)
    assert (np.abs(values.mean(axis=0) - [divergence, coverage]) < 4 * errors / np.sqrt(24)).all()
    assert errors[0] < 0.05 * divergence
    assert errors[1] < 0.25 * coverage


@pytest.mark.parametrize("params", [DiversityParams(), DiversityParams(words=64, bins=32)])
def test_a_reference_without_a_work_is_that_of_the_others(params: DiversityParams) -> None:
    draws = np.random.default_rng(2)
    works = [work(draws, 400, 40, 300) for _ in range(5)]
    whole = reference_of(works, params)
    less = whole.without([1, 3])
    others = reference_of([works[0], works[2], works[4]], params)
    met = whole.meet(draw(texts_of(works[1]), 400).counted())
    assert less.tokens == others.tokens
    assert less.bins.tolist() == others.bins.tolist()
    if others.level == less.level:
        met_others = others.meet(draw(texts_of(works[1]), 400).counted())
        assert less.divergence(met) == pytest.approx(others.divergence(met_others), abs=1e-12)
        assert less.coverage(met).seen.tolist() == others.coverage(met_others).seen.tolist()


# The null


@pytest.fixture(scope="module")
def against() -> Against:
    draws = np.random.default_rng(11)
    return Against(reference_of([work(draws) for _ in range(40)]))


def test_human_works_rarely_differ_and_resampled_ones_do(against: Against) -> None:
    """Of 60 works like those of the reference, at most as many reach 5% as 99.9% of all sets of 60 would."""
    draws = np.random.default_rng(12)
    works = [work(draws) for _ in range(60)]
    found = [against.compare(texts_of(one), None, 1) for one in works]
    assert sum(one.p <= 0.05 for one in found) <= binom.ppf(0.999, 60, 0.05)
    assert {one.shape for one in found} == {Shape(1024, 64, 1)}
    for generations, least in ((2, 0.2), (5, 0.95)):
        differ = [against.compare(texts_of(resampled(one, generations, draws)), None, 1) for one in works[:20]]
        q = adjusted([one.p for one in (*differ, *found)])[:20]
        assert np.mean([value <= 0.05 and one.is_large for value, one in zip(q, differ, strict=True)]) >= least
        assert {MEASURES[one.driver].group for one in differ} <= {"tails", "shape"}


def test_a_mixture_of_works_is_held_against_mixtures(against: Against) -> None:
    draws = np.random.default_rng(13)
    mixed = [document for _ in range(5) for document in work(draws)]
    found = against.compare(texts_of(mixed), None, 5)
    assert found.shape.works == 40 // LEAST_WORKS
    assert found.shape.size == 4096
    assert found.p > 0.05


def test_what_a_text_lacks_is_named(against: Against) -> None:
    draws = np.random.default_rng(14)
    without = [[word for word in document if word != 3] for document in work(draws, 2000)]
    found = against.compare(texts_of(without), None, 1)
    assert int(scattered([3])[0] >> np.uint64(32)) in found.absent
    assert found.common > len(found.absent) > 0


def test_the_same_null_for_the_same_shape_whatever_was_asked_before(against: Against) -> None:
    text = texts_of(work(np.random.default_rng(15)))
    works = tuple(range(40))
    again = Null(against.reference, None, Shape(1024, 64, 1), works).judge(draw(text, 1024), against.reference)
    assert against.compare(text, None, 1) == again


def test_nothing_to_compare_with_is_said() -> None:
    draws = np.random.default_rng(16)
    text = texts_of(work(draws))
    few = Against(reference_of([work(draws) for _ in range(LEAST_WORKS - 1)]))
    with pytest.raises(NoBaseline, match="the reference has 7 files of this language, and a comparison needs 8"):
        few.compare(text, None, 1)
    with pytest.raises(NoBaseline, match="the reference has 0 files in press/"):
        few.compare(text, "press", 1)
    small = Against(reference_of([work(draws, LEAST_SIZE - 100) for _ in range(LEAST_WORKS)]))
    with pytest.raises(NoBaseline, match="files of the reference are too small"):
        small.compare(text, None, 1)
    with pytest.raises(NoBaseline, match="fewer than 1,024 words"):
        small.compare(texts_of(work(draws, 800)), None, 1)
    short = Against(reference_of([work(draws, length=5) for _ in range(LEAST_WORKS)]))
    with pytest.raises(
        NoBaseline, match="fewer than 8 files of the reference have documents at least a quarter as long"
    ):
        short.compare(text, None, 1)


def test_works_that_are_all_the_same_make_no_division_by_zero() -> None:
    one = work(np.random.default_rng(17))
    found = Against(reference_of([one] * LEAST_WORKS)).compare(texts_of(one), None, 1)
    assert 0 < found.p <= 1


@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=30))
def test_false_discoveries_as_scipy_has_them(p: list[float]) -> None:
    assert adjusted(p) == pytest.approx(false_discovery_control(p), rel=1e-3)


# All languages


def test_a_source_is_held_against_its_own_domain() -> None:
    draws = np.random.default_rng(19)
    domains = ["press"] * LEAST_WORKS + [""] * (LEAST_WORKS + 1) + ["law"]
    parts = [(f"work-{number}", domain, accumulated(work(draws))) for number, domain in enumerate(domains)]
    held_out = HeldOut({"": Reference.of(lambda: iter(parts), 0)})
    total = accumulated(work(draws))
    found = {source: held_out.standing(total, source, 1) for source in ("press", "law", "web", None)}
    assert [found[source].get("works") for source in found] == [8, None, 9, 18]
    assert found["law"]["none"] == "the reference has 1 file in law/, and a comparison needs 8"
    undivided = [(name, "", part) for name, _, part in parts]
    assert HeldOut({"": Reference.of(lambda: iter(undivided), 0)}).standing(total, "press", 1)["works"] == 18


def test_held_out_text_as_bytes() -> None:
    draws = np.random.default_rng(18)
    references = {"en": reference_of([work(draws) for _ in range(9)]), "": reference_of([work(draws)])}
    held_out = HeldOut(references)
    again = HeldOut.from_bytes(held_out.to_bytes())
    assert again.to_bytes() == held_out.to_bytes()
    total = accumulated(work(draws))
    assert again.metrics(total) == held_out.metrics(total) != []
    assert again.standing(total, "press", 1) == held_out.standing(total, "press", 1)
    assert (
        again.standing(total, None, 1)["none"] == "the reference has 1 file of this language, and a comparison needs 8"
    )
    unknown = Accumulator.zero()
    words = scattered(list(range(2000)))
    key = np.full(1, language_key("xx"), np.uint64)
    unknown.add(Words(words, np.array([0, 2000]), np.array([2000])), None, None, key)
    told = held_out.standing(unknown, None, 1)
    assert told == {"language": language_key("xx"), "of_words": 1.0, "none": "language", "unstated": True}
    assert held_out.metrics(unknown) == []
    assert held_out.metrics(Accumulator.zero()) == []
