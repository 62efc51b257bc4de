"""Signatures against datasketch, shingles and sets against Python, bands against the arithmetic they rest on."""

from __future__ import annotations

import re
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transforms.kernels.bands import told_bands
from transforms.kernels.minhash import (
    SAMPLED_FROM,
    Bands,
    MinHashParams,
    Shingles,
    band_hashes,
    candidate_probability,
    choose_bands,
    fold32,
    shingle_hashes,
    signatures,
    sketches,
    sorted_sets,
)
from transforms.kernels.text import Words, split_words

TEXTS = st.lists(
    st.none() | st.text(st.sampled_from("abcdeéд漢字 ..."), max_size=120) | st.text(max_size=60), max_size=6
)


def words_of(texts: list[str | None]) -> Words:
    return split_words(pa.array(texts, pa.string()))


def owned(values: Words | Shingles) -> list[list[int]]:
    offsets = values.offsets.tolist()
    return [values.hashes[a:b].tolist() for a, b in pairwise(offsets)]


def plain_shingles(words: list[int], size: int) -> list[int]:
    mask = (1 << 64) - 1
    shingles = []
    for start in range(max(len(words) - size + 1, min(len(words), 1))):
        value = 0
        for word in words[start : start + size]:
            value = value * 0x9E3779B97F4A7C15 + word & mask
        for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            value = (value ^ value >> 33) * multiplier & mask
        shingles.append(value ^ value >> 33)
    return shingles


@given(TEXTS, st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_shingles_are_every_run_of_words_in_order(texts: list[str | None], size: int) -> None:
    words = words_of(texts)
    shingles = shingle_hashes(words, size)
    assert owned(shingles) == [plain_shingles(document, size) for document in owned(words)]


def test_short_documents_are_one_shingle_and_those_without_words_none() -> None:
    shingles = shingle_hashes(words_of(["one", "one two", "one two three", "?!", "", None, "a b c d"]), 3)
    assert np.diff(shingles.offsets).tolist() == [1, 1, 1, 0, 0, 0, 2]
    assert len(set(shingles.hashes.tolist())) == 5


def test_a_shingle_depends_on_the_order_of_its_words_and_on_nothing_around_it() -> None:
    first, second, longer = owned(shingle_hashes(words_of(["a b c", "c b a", "x a B, c. y"]), 3))
    assert first != second
    assert first[0] == longer[1]


def reference(shingles: list[int], params: MinHashParams) -> np.ndarray:
    sketch = MinHash(num_perm=params.permutations, seed=params.seed, hashfunc=int)
    if shingles:
        sketch.update_batch(fold32(np.array(shingles, np.uint64)).tolist())
    return sketch.hashvalues


PARAMS = st.builds(
    MinHashParams,
    permutations=st.sampled_from([1, 3, 16, 100, 128, 256]),
    shingle=st.integers(1, 7),
    seed=st.integers(0, 2**32 - 1),
)


@given(TEXTS, PARAMS)
@settings(max_examples=200, deadline=None)
def test_signatures_are_bit_identical_to_datasketch(texts: list[str | None], params: MinHashParams) -> None:
    words = words_of(texts)
    found, n_shingles = signatures(words, params)
    shingles = owned(shingle_hashes(words, params.shingle))
    assert (found.dtype, found.shape) == (np.uint32, (len(texts), params.permutations))
    assert (n_shingles.dtype, n_shingles.tolist()) == (np.int32, [len(document) for document in shingles])
    for row, document in zip(found, shingles, strict=True):
        assert np.array_equal(row, reference(document, params))


@given(TEXTS, PARAMS)
@settings(max_examples=100, deadline=None)
def test_samples_are_the_distinct_shingles_whose_hash_is_small(texts: list[str | None], params: MinHashParams) -> None:
    words = words_of(texts)
    sketched = sketches(words, params)
    assert np.array_equal(sketched.signatures, signatures(words, params)[0])
    for found, document in zip(owned(sketched.samples), owned(shingle_hashes(words, params.shingle)), strict=True):
        small = {shingle for shingle in map(int, document) if shingle < 2**64 // SAMPLED_FROM}
        assert list(map(int, found)) == sorted({shingle % 2**32 for shingle in small})


def test_many_shingles_are_sampled() -> None:
    text = " ".join(f"w{i * 7919}" for i in range(20_000))
    taken = sketches(words_of([text, text]), MinHashParams()).samples
    assert 0.9 < len(taken.hashes) / 2 / (20_000 / SAMPLED_FROM) < 1.1
    assert np.array_equal(*owned(taken))


def test_signatures_of_documents_of_every_length_around_a_block() -> None:
    params = MinHashParams(shingle=2)
    texts: list[str | None] = [" ".join(f"w{i * 7919}" for i in range(n)) for n in range(40)]
    found, _ = signatures(words_of(texts), params)
    for row, document in zip(found, owned(shingle_hashes(words_of(texts), 2)), strict=True):
        assert np.array_equal(row, reference(document, params))
    assert (found[0] == 2**32 - 1).all()


def test_signatures_estimate_the_exact_similarity() -> None:
    rng = np.random.default_rng(5)
    names = [f"w{i}" for i in rng.integers(0, 10**6, 3000)]
    texts: list[str | None] = [" ".join(names[:2000]), " ".join(names[500:2500])]
    words = words_of(texts)
    found, _ = signatures(words, MinHashParams(permutations=2048))
    one, other = (set(document) for document in owned(shingle_hashes(words, 5)))
    assert (found[0] == found[1]).mean() == pytest.approx(len(one & other) / len(one | other), abs=0.04)


def test_fold32_takes_scalars_and_arrays() -> None:
    assert fold32(np.uint64(0x1234567890ABCDEF)) == 0x12345678
    folded = fold32(np.array([1 << 32, 5], np.uint64))
    assert (folded.dtype, folded.tolist()) == (np.uint32, [1, 0])


def test_parameters_say_what_is_valid() -> None:
    for wrong, message in (
        ({"permutations": 0}, r"permutations must be a whole number from 1 to 4096, got 0"),
        ({"shingle": 65}, r"shingle must be a whole number from 1 to 64, got 65"),
        ({"seed": -1}, r"seed must be a whole number from 0"),
        ({"shingle": 5.0}, r"got 5.0"),
        ({"seed": True}, r"got True"),
    ):
        with pytest.raises(ValueError, match=message):
            MinHashParams(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1 word, got 0"):
        shingle_hashes(words_of(["a"]), 0)


def test_the_default_threshold_gets_eighteen_bands_of_seven() -> None:
    assert choose_bands(0.8, 128) == Bands(bands=18, rows=7)
    assert candidate_probability(Bands(16, 8), 0.85) == pytest.approx(0.9938, abs=1e-4)
    assert candidate_probability(Bands(18, 7), 0.85) == pytest.approx(0.9990, abs=1e-4)


@given(st.floats(0.2, 1.0), st.integers(64, 512))
def test_bands_fit_reach_the_recall_and_cannot_be_more_selective(threshold: float, permutations: int) -> None:
    bands = choose_bands(threshold, permutations)
    assert bands.bands * bands.rows <= permutations
    assert candidate_probability(bands, min(threshold + 0.05, 1.0)) >= 0.995
    similarity = min(threshold + 0.05, (1 + threshold) / 2)
    for rows in range(bands.rows + 1, permutations + 1):
        assert candidate_probability(Bands(permutations // rows, rows), similarity) < 0.995


@given(st.floats(0.001, 1.0), st.integers(16, 1024))
@example(0.8, 128)
@example(1.0, 16)
def test_every_threshold_reaches_the_recall_or_says_what_would(threshold: float, permutations: int) -> None:
    """Of all that a config may ask for."""
    try:
        bands = choose_bands(threshold, permutations)
    except ValueError as error:
        (needed,) = map(int, re.findall(r"at least (\d+) permutations", str(error)))
        bands = choose_bands(threshold, needed)
        assert permutations < bands.bands * bands.rows <= 1024
    assert candidate_probability(bands, min(threshold + 0.05, 1.0)) >= 0.995
    told = told_bands(threshold, bands.bands * bands.rows)
    assert float(told["at_sought"]) >= 0.995
    curve = [float(probability) for probability in told["curve"].values()]
    assert curve == sorted(curve)
    assert {"0.1", "0.5", "0.9", told["threshold"], told["sought"]} <= told["curve"].keys()


def test_the_default_bands_as_they_are_told() -> None:
    told = told_bands(0.8, 128)
    assert (told["bands"], told["rows"], told["threshold"], told["sought"]) == (18, 7, "0.8", "0.85")
    # 1 - (1 - s^7)^18, by hand: .8^7 = .2097152, .85^7 = .3205771
    assert (told["at_threshold"], told["at_sought"]) == ("0.985542", "0.999048")
    assert told["curve"]["0.5"] == "0.131664"


def test_bands_that_cannot_be_chosen_say_what_would_do() -> None:
    with pytest.raises(ValueError, match=r"16 permutations cannot find 99.5%.*at least 33 permutations"):
        choose_bands(0.1, 16)
    assert choose_bands(0.1, 33) == Bands(33, 1)
    for threshold in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            choose_bands(threshold, 128)


def test_band_hashes_are_equal_exactly_where_whole_bands_are() -> None:
    rng = np.random.default_rng(3)
    found = rng.integers(0, 3, (200, 12), dtype=np.uint32)
    hashes = band_hashes(found, Bands(5, 2))
    assert (hashes.dtype, hashes.shape) == (np.uint64, (200, 5))
    bands = found[:, :10].reshape(200, 5, 2)
    keys = {(band, *bands[i, band].tolist()): hashes[i, band] for i in range(200) for band in range(5)}
    assert len(set(keys.values())) == len(keys) == 5 * 9
    assert all(keys[band, *bands[i, band].tolist()] == hashes[i, band] for i in range(200) for band in range(5))


def test_band_hashes_see_the_order_of_rows() -> None:
    one, other = band_hashes(np.array([[1, 2], [2, 1]], np.uint32), Bands(1, 2)).ravel().tolist()
    assert one != other


def test_band_hashes_refuse_signatures_that_are_too_short() -> None:
    with pytest.raises(ValueError, match="18 bands of 7 rows need 126 slots"):
        band_hashes(np.zeros((3, 64), np.uint32), Bands(18, 7))


HASHES = st.lists(
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5) | st.integers(2**64 - 3, 2**64 - 1), max_size=200),
    max_size=5,
)


@given(HASHES, st.integers(1, 300))
@settings(max_examples=150, deadline=None)
def test_sets_are_sorted_and_unique_per_document(documents: list[list[int]], repeats: int) -> None:
    documents = [*documents, [7, 2**63, 1] * repeats]
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    shingles = Shingles(np.array(list(chain(*documents)), np.uint64), offsets)
    before = shingles.hashes.copy()
    assert owned(sorted_sets(shingles)) == [sorted(set(document)) for document in documents]
    assert np.array_equal(shingles.hashes, before)


def test_batches_of_no_documents() -> None:
    words = words_of([])
    shingles = shingle_hashes(words, 5)
    found, n_shingles = signatures(words, MinHashParams())
    assert (found.shape, n_shingles.shape) == ((0, 128), (0,))
    assert band_hashes(found, Bands(18, 7)).shape == (0, 18)
    assert shingles.offsets.tolist() == sorted_sets(shingles).offsets.tolist() == [0]


def test_what_is_stored_never_changes() -> None:
    found, _ = signatures(
        words_of(["It was a bright cold day in April, and the clocks were striking."]), MinHashParams()
    )
    assert found[0, :3].tolist() == PINNED_SLOTS
    assert f"{int(band_hashes(found, Bands(18, 7))[0, 17]):016x}" == PINNED_BAND


PINNED_SLOTS = [105990369, 68680229, 18564814]
PINNED_BAND = "74c602b4eac2223c"
