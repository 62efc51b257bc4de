"""The sample of whole documents: one answer in any order, equal to its definition, and a fair draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels.diversity import Accumulator, DiversityParams, language_key
from transforms.kernels.diversity.encoding import Columns, encode_columns
from transforms.kernels.diversity.keys import document_keys
from transforms.kernels.diversity.metric import Documents
from transforms.kernels.diversity.sample import MOST_DOCUMENTS, PARTS, Sample, most_sample_bytes
from transforms.kernels.text import Words

unhurried = settings(deadline=None)

Text = tuple[int, tuple[int, ...]]
"""A language and words."""

texts_of = st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 9), max_size=9).map(tuple)), max_size=12)
sizes = st.sampled_from([2, 4, 16, 64])


def scattered(ids: Sequence[int]) -> np.ndarray:
    return (np.array(ids, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)


def batch_of(texts: Sequence[Text]) -> Documents:
    words = scattered([word for _, text in texts for word in text])
    offsets = np.cumsum([0, *(len(text) for _, text in texts)])
    languages = np.array([language for language, _ in texts], np.uint64)
    return Documents(Words(words, offsets, np.diff(offsets)), np.arange(len(texts)), None, languages)


def sampled(texts: Sequence[Text], most: int) -> Sample:
    sample = Sample(most)
    sample.add(batch_of(texts))
    return sample


def content(sample: Sample) -> bytes:
    return encode_columns(sample.columns())


def high_halves(words: Sequence[int]) -> tuple[int, ...]:
    return tuple((scattered(words) >> np.uint64(32)).tolist())


def held(sample: Sample) -> dict[int, list[tuple[int, tuple[int, ...]]]]:
    """By key, the language and words of each document."""
    found: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    documents, ends = sample._held, np.cumsum(sample._held.sizes)
    for key, language, end, size in zip(documents.keys, documents.languages, ends, documents.sizes, strict=True):
        words = tuple(documents.words[end - size : end].tolist())
        found.setdefault(int(key), []).append((int(language), words))
    return found


@unhurried
@given(texts_of, texts_of, texts_of, sizes)
def test_any_order_and_any_split_give_one_sample(a: list[Text], b: list[Text], c: list[Text], most: int) -> None:
    left, right, swapped = sampled(a, most), sampled(b, most), sampled(c, most)
    left.merge(sampled(b, most))
    left.merge(sampled(c, most))
    right.merge(sampled(c, most))
    right.merge(sampled(a, most))
    swapped.merge(sampled(a + b, most))
    assert content(left) == content(right) == content(swapped) == content(sampled(a + b + c, most))
    left.merge(sampled(a, most))
    assert content(left) == content(right), "copies count once"


@unhurried
@given(texts_of, sizes)
def test_the_sample_is_the_shortest_beginning_of_all_texts_that_fills_it(texts: list[Text], most: int) -> None:
    batch = batch_of(texts)
    keys = document_keys(batch.words, batch.numbers).tolist()
    longest = max(1, most // PARTS)
    distinct = {(key, language, words) for key, (language, words) in zip(keys, texts, strict=True) if words}
    by_key: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for key, language, words in sorted(distinct):
        by_key.setdefault(key, []).append((language, high_halves(words)[:longest]))
    found = held(sampled(texts, most))
    size = 0
    for key, documents in sorted(by_key.items()):
        inside = found.pop(key, [])
        missing = Counter(documents) - Counter(inside)
        assert not Counter(inside) - Counter(documents)
        # Texts of one key come in the order of another hash: where the sample fills up, some may be left out.
        size += sum(len(words) for _, words in inside)
        assert not missing if size < most else not inside or sum(len(words) for _, words in inside) >= size - most
    assert not found
    whole = sum(len(words) for documents in by_key.values() for _, words in documents)
    assert size == sum(sampled(texts, most).words_by_language().values())
    assert size >= min(most, whole)
    assert size - longest < most


@unhurried
@given(texts_of, sizes)
def test_bytes_round_trip(texts: list[Text], most: int) -> None:
    sample, again = sampled(texts, most), Sample(most)
    again.read(Columns(encode_columns(sample.columns())))
    assert content(again) == content(sample)
    again.merge(sampled(texts, most))
    assert content(again) == content(sample)


def test_every_document_has_the_same_chance() -> None:
    """Of 2,000 documents, half of them short, 40 samples hold about as many short ones as there are."""
    draws = np.random.default_rng(3)
    shares = []
    for _ in range(40):
        lengths = np.where(np.arange(2000) % 2, 5, 50)
        words = draws.integers(0, 1 << 62, lengths.sum()).astype(np.uint64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        sample = Sample(2048)
        sample.add(Documents(Words(words, offsets, lengths), np.arange(2000)))
        kept = np.diff(sample.texts(0).offsets)
        shares.append((kept == 5).mean())
    assert abs(np.mean(shares) - 0.5) < 5 * 0.5 / np.sqrt(40 * 74)  # five standard errors of 40 samples of 74


def test_long_documents_are_cut_and_short_ones_bounded() -> None:
    sample = sampled([(0, tuple(range(100))), (0, tuple(range(200, 203)))], 64)
    assert sorted(np.diff(sample.texts(0).offsets).tolist()) == [3, 64 // PARTS]
    many = Sample(1 << 15)
    words = np.arange(MOST_DOCUMENTS + 50, dtype=np.uint64)
    many.add(Documents(Words(words, np.arange(len(words) + 1), np.ones(len(words), np.int64)), np.arange(len(words))))
    assert len(many.texts(0).offsets) == MOST_DOCUMENTS + 1


def test_languages_stay_apart() -> None:
    accumulator = Accumulator.zero(DiversityParams())
    batch = batch_of([(0, (1, 2, 3)), (0, (4, 5))])
    languages = np.array([language_key("en"), language_key("de")], np.uint64)
    accumulator.add(batch.words, None, None, languages)
    again = Accumulator.from_bytes(accumulator.to_bytes())
    assert again.sample.words_by_language() == {language_key("en"): 3, language_key("de"): 2}
    assert language_key("") == language_key(None) == 0


def test_memory_is_bounded() -> None:
    sample = Sample(1 << 15)
    lengths = np.full(3000, 40)
    for seed in range(3):
        words = np.random.default_rng(seed).integers(0, 1 << 62, lengths.sum()).astype(np.uint64)
        sample.add(Documents(Words(words, np.concatenate([[0], np.cumsum(lengths)]), lengths), np.arange(3000)))
    used = sum(column.nbytes for column in sample._held)
    assert 1 << 17 < used < most_sample_bytes(1 << 15)
    assert len(content(sample)) < (1 << 17) + 16 * 1024


@pytest.mark.parametrize("sample", [0, 3, 1 << 25])
def test_sizes_that_cannot_be_are_refused(sample: int) -> None:
    with pytest.raises(ValueError, match=r"DiversityParams\.sample is"):
        DiversityParams(sample=sample)
