"""Words to shingles, MinHash signatures and LSH bands.

Signatures equal, bit for bit, what `datasketch.MinHash(num_perm, seed)` of datasketch 2 (its scheme "affine32")
holds after being fed fold32 of every shingle hash. Candidates found by them are to be verified on the 64-bit hashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable
from numpy.typing import NDArray

from transforms.kernels.bands import Bands, candidate_probability, choose_bands
from transforms.kernels.hashing import mix64
from transforms.kernels.text import Words

__all__ = [
    "Bands",
    "MinHashParams",
    "Shingles",
    "Sketches",
    "band_hashes",
    "candidate_probability",
    "choose_bands",
    "fold32",
    "joined_bands",
    "shingle_hashes",
    "signatures",
    "sketches",
    "sorted_sets",
]

SAMPLED_FROM = 16
_SAMPLE_SHIFT = np.uint64(60)  # of a 64-bit hash: leaves the four bits that are zero once in SAMPLED_FROM

_EMPTY_SLOT = np.uint32(0xFFFFFFFF)
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_ROLL = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 8
_RADIX = 256
_BYTE = np.uint64(0xFF)
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class MinHashParams:
    """What signatures depend on. Signatures made with different parameters must never be compared."""

    permutations: int = 128
    """Slots of a signature: the estimate's standard error is about 1 / (2 * sqrt(permutations)) at worst."""
    shingle: int = 5
    """Words a shingle: fewer find looser paraphrases and more templates."""
    seed: int = 1
    """Of datasketch's permutations; 1 is its own default."""

    def __post_init__(self) -> None:
        for name, least, most in (("permutations", 1, 4096), ("shingle", 1, 64), ("seed", 0, _MAX_SEED)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r}")


class Shingles(NamedTuple):
    """The shingle hashes of a batch: document i owns hashes[offsets[i]:offsets[i + 1]]."""

    hashes: NDArray[np.uint64]
    offsets: NDArray[np.int64]


@register_jitable
def fold32(hashes: np.uint64) -> np.uint32:
    """A 64-bit shingle hash, or an array of them, as the 32-bit value that MinHash is fed."""
    return np.uint32(hashes >> _HALF)


@njit(inline="always")
def _count_shingles(n_words: int, size: int) -> int:
    """A document of at least one word is at least one shingle, so short documents can be told apart."""
    return n_words - size + 1 if n_words >= size else min(n_words, 1)


def shingle_hashes(words: Words, size: int) -> Shingles:
    """Hashes each run of `size` words, in order, repeats kept. Fewer words than that are one shingle, none are none."""
    if size < 1:
        raise ValueError(f"a shingle must have at least 1 word, got {size}")
    return Shingles(*_shingle(words.hashes, words.offsets, size))


@njit(inline="always")
def _roll_power(size: int) -> np.uint64:
    """What the oldest word of a window has been multiplied by when it leaves."""
    power = np.uint64(1)
    for _ in range(size):
        power *= _ROLL
    return power


@njit(nogil=True, cache=True)
def _shingle(
    words: NDArray[np.uint64], word_offsets: NDArray[np.int64], size: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    offsets = np.zeros_like(word_offsets)
    for document in range(offsets.size - 1):
        n_words = word_offsets[document + 1] - word_offsets[document]
        offsets[document + 1] = offsets[document] + _count_shingles(n_words, size)
    hashes = np.empty(offsets[-1], np.uint64)
    power = _roll_power(size)
    for document in range(offsets.size - 1):
        start, stop = word_offsets[document], word_offsets[document + 1]
        rolled = np.uint64(0)
        place = offsets[document]
        for i in range(start, stop):
            rolled = rolled * _ROLL + words[i]
            if i >= start + size:
                rolled -= words[i - size] * power
            if i >= start + size - 1 or i == stop - 1:
                hashes[place] = mix64(rolled)
                place += 1
    return hashes, offsets


@lru_cache(maxsize=8)
def _permutations(permutations: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Odd factors and summands, drawn as `datasketch.MinHash` draws them for "affine32".

    From numpy's frozen generator and not from datasketch, which loads half of SciPy: a third of a second of every run.
    """
    draws = np.random.RandomState(seed)
    factors = draws.randint(0, 1 << 31, permutations, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, draws.randint(0, 1 << 32, permutations, dtype=np.uint32)


class Sketches(NamedTuple):
    """What is kept of the shingles of a batch."""

    signatures: NDArray[np.uint32]
    """The MinHash of every document's shingles, one row each.

    A document without shingles has a row of all ones, as an empty `datasketch.MinHash` does: keep it from the bands, or
    all of them become candidates of each other.
    """
    n_shingles: NDArray[np.int32]
    """How many shingles each document has, repeats counted."""
    samples: Shingles
    """One in SAMPLED_FROM of each document's distinct shingles, the same ones in every document, as 32-bit numbers.

    A MinHash cannot tell that a long document holds a short one. These can: the share of the short one's sample that
    stands in the long one's estimates the share of its shingles.
    """


def sketches(words: Words, params: MinHashParams) -> Sketches:
    """Signatures and samples, in one pass over the shingles."""
    factors, summands = _permutations(params.permutations, params.seed)
    signed, n_shingles, taken, offsets = _sketch(words.hashes, words.offsets, params.shingle, factors, summands)
    return Sketches(signed, n_shingles, Shingles(taken, offsets))


def signatures(words: Words, params: MinHashParams) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """The signatures alone, and how many shingles each document has."""
    return sketches(words, params)[:2]


@njit(inline="always")
def _premix32(value: np.uint32) -> np.uint32:
    """What datasketch does to a hash once, before the permutations. Casts keep the products at 32 bits."""
    value = np.uint32(value ^ (value >> np.uint32(16)))
    value = np.uint32(value * np.uint32(0x85EBCA6B))
    value = np.uint32(value ^ (value >> np.uint32(13)))
    value = np.uint32(value * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> np.uint32(16)))


@njit(nogil=True, cache=True)
def _sketch(
    words: NDArray[np.uint64],
    word_offsets: NDArray[np.int64],
    size: int,
    factors: NDArray[np.uint32],
    summands: NDArray[np.uint32],
) -> tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.uint32], NDArray[np.int64]]:
    n_documents = word_offsets.size - 1
    minima = np.full((n_documents, factors.size), _EMPTY_SLOT, np.uint32)
    n_shingles = np.zeros(n_documents, np.int32)
    taken = np.empty(words.size, np.uint32)  # what stays unused of it is never backed by memory
    offsets = np.zeros_like(word_offsets)
    n_taken = 0
    power = _roll_power(size)
    block = np.zeros(_BLOCK, np.uint32)
    for document in range(n_documents):
        start, stop = word_offsets[document], word_offsets[document + 1]
        n_shingles[document] = _count_shingles(stop - start, size)
        rolled = np.uint64(0)
        waiting = 0
        for i in range(start, stop):
            rolled = rolled * _ROLL + words[i]
            if i >= start + size:
                rolled -= words[i - size] * power
            if i >= start + size - 1 or i == stop - 1:
                hashed = mix64(rolled)
                if hashed >> _SAMPLE_SHIFT == np.uint64(0):
                    taken[n_taken] = np.uint32(hashed & _LOW_HALF)
                    n_taken += 1
                block[waiting] = _premix32(fold32(hashed))
                waiting += 1
                if waiting == _BLOCK:
                    _lower(minima[document], block, factors, summands)
                    waiting = 0
        if waiting > 0:
            # Minima do not mind repeats, so the last block is filled up with one of its own.
            block[waiting:] = block[0]
            _lower(minima[document], block, factors, summands)
        n_taken = _unite(taken, offsets[document], n_taken)
        offsets[document + 1] = n_taken
    return minima, n_shingles, taken[:n_taken].copy(), offsets


@njit(nogil=True, cache=True)
def _unite(taken: NDArray[np.uint32], first: int, stop: int) -> int:
    """Sorts what was taken of one document and drops repeats; where the next one's begins."""
    taken[first:stop].sort()
    kept = first
    for i in range(first, stop):
        if i == first or taken[i] != taken[kept - 1]:
            taken[kept] = taken[i]
            kept += 1
    return kept


@njit(nogil=True, cache=True)
def _lower(
    minima: NDArray[np.uint32],
    block: NDArray[np.uint32],
    factors: NDArray[np.uint32],
    summands: NDArray[np.uint32],
) -> None:
    """Takes a block of hashes into the minima: one load and store of each slot for eight hashes.

    Written out, because only a loop without an inner one becomes SIMD; the casts keep its lanes at 32 bits.
    """
    x0, x1, x2, x3 = block[0], block[1], block[2], block[3]
    x4, x5, x6, x7 = block[4], block[5], block[6], block[7]
    for slot in range(minima.size):
        factor, summand = factors[slot], summands[slot]
        low = min(np.uint32(factor * x0 + summand), np.uint32(factor * x1 + summand))
        low = min(low, min(np.uint32(factor * x2 + summand), np.uint32(factor * x3 + summand)))
        low = min(low, min(np.uint32(factor * x4 + summand), np.uint32(factor * x5 + summand)))
        low = min(low, min(np.uint32(factor * x6 + summand), np.uint32(factor * x7 + summand)))
        minima[slot] = min(minima[slot], low)


def band_hashes(signatures: NDArray[np.uint32], bands: Bands) -> NDArray[np.uint64]:
    """One hash per document and band, of the band's number and slots: equal hashes mean a shared band."""
    if signatures.ndim != 2 or signatures.shape[1] < bands.bands * bands.rows:
        raise ValueError(
            f"{bands.bands} bands of {bands.rows} rows need {bands.bands * bands.rows} slots a signature, "
            f"got an array of shape {signatures.shape}; choose the bands for these permutations"
        )
    return _hash_bands(np.ascontiguousarray(signatures, np.uint32), bands.bands, bands.rows)


def joined_bands(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of two band hashes: equal where both bands are shared."""
    return _join(one, other)


@njit(nogil=True, cache=True)
def _join(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint64]:
    joined = np.empty(one.size, np.uint64)
    for i in range(one.size):
        joined[i] = mix64(one[i] + _ROLL * other[i])
    return joined


@njit(nogil=True, cache=True)
def _hash_bands(signatures: NDArray[np.uint32], n_bands: int, rows: int) -> NDArray[np.uint64]:
    hashes = np.empty((signatures.shape[0], n_bands), np.uint64)
    for document in range(signatures.shape[0]):
        for band in range(n_bands):
            state = mix64(np.uint64(band + 1))
            for slot in range(band * rows, (band + 1) * rows):
                state = mix64(state + _ROLL + np.uint64(signatures[document, slot]))
            hashes[document, band] = state
    return hashes


def sorted_sets(shingles: Shingles) -> Shingles:
    """Each document's shingles as a set: sorted, every hash once."""
    return Shingles(*_sort_and_unite(shingles.hashes, shingles.offsets))


@njit(nogil=True, cache=True)
def _sort_and_unite(
    hashes: NDArray[np.uint64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    sorted_hashes = hashes.copy()
    spare = np.empty_like(hashes)
    counts = np.empty((8, _RADIX), np.int64)
    set_offsets = np.zeros_like(offsets)
    n_kept = 0
    for document in range(offsets.size - 1):
        start, stop = offsets[document], offsets[document + 1]
        _radix_sort(sorted_hashes[start:stop], spare[start:stop], counts)
        for i in range(start, stop):
            # What is kept moves forward only, so it never overwrites what is still to be read.
            if i == start or sorted_hashes[i] != sorted_hashes[n_kept - 1]:
                sorted_hashes[n_kept] = sorted_hashes[i]
                n_kept += 1
        set_offsets[document + 1] = n_kept
    return sorted_hashes[:n_kept].copy(), set_offsets


@njit(nogil=True, cache=True)
def _radix_sort(values: NDArray[np.uint64], spare: NDArray[np.uint64], counts: NDArray[np.int64]) -> None:
    """Sorts in place, byte by byte from the lowest: linear whatever the values are, so no text can make it slow."""
    if values.size < 64:
        for i in range(1, values.size):
            value = values[i]
            j = i
            while j > 0 and values[j - 1] > value:
                values[j] = values[j - 1]
                j -= 1
            values[j] = value
        return
    counts[:] = 0
    for i in range(values.size):
        value = values[i]
        for digit in range(8):
            counts[digit, (value >> np.uint64(8 * digit)) & _BYTE] += 1
    for digit in range(8):
        shift = np.uint64(8 * digit)
        place = 0
        for byte in range(_RADIX):
            count = counts[digit, byte]
            counts[digit, byte] = place
            place += count
        # Eight passes, so the last one ends where the first began.
        for i in range(values.size):
            value = values[i]
            byte_of_value = (value >> shift) & _BYTE
            spare[counts[digit, byte_of_value]] = value
            counts[digit, byte_of_value] += 1
        values, spare = spare, values
