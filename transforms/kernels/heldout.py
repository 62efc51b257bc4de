"""Held-out texts, looked for in other texts: the same by digest, near ones by exact sets of shingles, none missed.

Two sets with a Jaccard of at least p/q share at least that part of the larger one. So of a held-out text with n
shingles any n - ceil(n p/q) + 1 will do: a text that has none of them is not near it. Those that fewest other held-out
texts have are the ones looked for, and only what has one of them is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from transforms.kernels import dedup, minhash
from transforms.kernels.hashing import text_digests
from transforms.kernels.schemas import DIGEST_BYTES
from transforms.kernels.text import split_words

MOST_SHINGLES = 1 << 24
"""Of held-out texts that near ones are looked for: some 100 MB of text, half a gigabyte while they are made ready."""

_BITS_PER_SHINGLE = 32  # of the bit map that most shingles of other texts end at
_LEAST_BITS = 16
_PAIRS_AT_ONCE = 1 << 20

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


class Matches(NamedTuple):
    """Rows of a batch, and the held-out text that each is like; exact Jaccard as two integers, both 0 for the same."""

    rows: I64
    texts: I64
    shared: I64
    union: I64


@dataclass(frozen=True)
class HeldOutTexts:
    """Held-out texts, numbered in the order in which they were given."""

    threshold: Fraction
    shingle: int
    count: int
    order: I64  # the texts by rising digest
    words: U64  # their digests in that order, as four numbers each
    near: _Sets | None  # None where there is too much text

    @classmethod
    def of(
        cls, batches: Iterable[pa.Array], shingle: int, threshold: Fraction, most: int = MOST_SHINGLES
    ) -> HeldOutTexts:
        digests = [np.empty((0, DIGEST_BYTES), np.uint8)]
        sets = [minhash.Shingles(np.empty(0, np.uint64), np.zeros(1, np.int64))]
        shingles = 0
        for texts in batches:
            digests.append(text_digests(texts))
            if shingles <= most:
                sets.append(minhash.sorted_sets(minhash.shingle_hashes(split_words(texts), shingle)))
                shingles += len(sets[-1].hashes)
            else:
                sets.clear()
        words = _digest_words(np.concatenate(digests))
        order = np.lexsort(words.T[::-1])
        near = _Sets.of(sets, threshold) if shingles <= most else None
        return cls(threshold, shingle, len(words), order, words[order], near)

    def same_as(self, digests: npt.NDArray[np.uint8]) -> Matches:
        """Which texts are the same as a held-out one, by their digests."""
        wanted = _digest_words(digests)
        rows, at = _find(self.words, wanted)
        none = np.zeros(len(rows), np.int64)
        return Matches(rows, self.order[at], none, none)

    def near_to(self, texts: pa.Array) -> Matches:
        """Which texts have the threshold's Jaccard with a held-out one, equal ones too; a pair may come up twice."""
        found = [Matches(*(np.empty(0, np.int64) for _ in Matches._fields))]
        if self.near is not None:
            shingles = minhash.shingle_hashes(split_words(texts), self.shingle)
            found += self.near.compare(shingles, self.threshold)
        return Matches(*(np.concatenate(column) for column in zip(*found, strict=True)))


@dataclass(frozen=True)
class _Sets:
    """The shingles of all texts, and the chosen ones of each in rising order beside the texts they are of."""

    hashes: U64
    offsets: I64
    chosen: U64
    owners: I64
    bits: npt.NDArray[np.uint8]
    shift: int

    @classmethod
    def of(cls, sets: list[minhash.Shingles], threshold: Fraction) -> _Sets:
        hashes = np.concatenate([part.hashes for part in sets])
        sizes = np.concatenate([np.diff(part.offsets) for part in sets])
        offsets = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        _, number, holders = np.unique(hashes, return_inverse=True, return_counts=True)
        places = _rarest(holders[number.reshape(-1)], offsets, threshold.numerator, threshold.denominator)
        order = np.argsort(hashes[places], kind="stable")
        chosen = hashes[places][order]
        owners = np.searchsorted(offsets, places[order], side="right").astype(np.int64) - 1
        width = max(_LEAST_BITS, (len(chosen) * _BITS_PER_SHINGLE).bit_length())
        bits = np.zeros(1 << (width - 3), np.uint8)
        _note(chosen, bits, 64 - width)
        return cls(hashes, offsets, chosen, owners, bits, 64 - width)

    def compare(self, shingles: minhash.Shingles, threshold: Fraction) -> Iterator[Matches]:
        rows, hits = _probe(shingles.hashes, shingles.offsets, self.bits, self.shift)
        first = np.searchsorted(self.chosen, hits, "left")
        several = np.searchsorted(self.chosen, hits, "right") - first
        ends = np.cumsum(several)
        start = 0
        while start < len(rows):
            end = max(start + 1, int(np.searchsorted(ends, ends[start] + _PAIRS_AT_ONCE)))
            yield self._compare(shingles, threshold, rows[start:end], first[start:end], several[start:end])
            start = end

    def _compare(self, shingles: minhash.Shingles, threshold: Fraction, rows: I64, first: I64, several: I64) -> Matches:
        at = np.repeat(first - np.cumsum(several) + several, several) + np.arange(several.sum())
        left, right = dedup.distinct_pairs(
            np.repeat(rows, several).astype(np.uint64), self.owners[at].astype(np.uint64)
        )
        mine, of_row = np.unique(left.astype(np.int64), return_inverse=True)
        theirs, of_text = np.unique(right.astype(np.int64), return_inverse=True)
        raw, sizes = dedup.take_sets(mine, shingles.hashes, shingles.offsets)
        own = minhash.sorted_sets(minhash.Shingles(raw, _offsets(sizes)))
        held_out, held_out_sizes = dedup.take_sets(theirs, self.hashes, self.offsets)
        of_row, of_text = of_row.reshape(-1), of_text.reshape(-1)
        sizes = np.diff(own.offsets)
        smaller = np.minimum(sizes[of_row], held_out_sizes[of_text])
        larger = np.maximum(sizes[of_row], held_out_sizes[of_text])
        possible = np.flatnonzero(smaller * threshold.denominator >= threshold.numerator * larger)
        shared, union = dedup.shared_and_union(
            of_row[possible],
            len(mine) + of_text[possible],
            np.concatenate([own.hashes, held_out]),
            _offsets(np.concatenate([sizes, held_out_sizes])),
        )
        near = shared * threshold.denominator >= threshold.numerator * union
        pairs = possible[near]
        return Matches(mine[of_row[pairs]], theirs[of_text[pairs]], shared[near], union[near])


def _offsets(sizes: I64) -> I64:
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def _digest_words(digests: npt.NDArray[np.uint8]) -> U64:
    """Whole digests as four integers each, which compare as the bytes do."""
    return np.ascontiguousarray(digests).view(">u8").astype(np.uint64).reshape(-1, DIGEST_BYTES // 8)


def _find(words: U64, wanted: U64) -> tuple[I64, I64]:
    """Rows of `wanted` that stand among the sorted `words`, and where."""
    at = np.full(len(wanted), -1, np.int64)
    _search(np.ascontiguousarray(words), np.ascontiguousarray(wanted), at)
    rows = np.flatnonzero(at >= 0)
    return rows, at[rows]


@njit(nogil=True, cache=True)
def _search(words: Any, wanted: Any, at: Any) -> None:
    for row in range(len(wanted)):
        low, high = 0, len(words)
        while low < high:
            middle = (low + high) // 2
            if _is_less(words[middle], wanted[row]):
                low = middle + 1
            else:
                high = middle
        if low < len(words) and not _is_less(wanted[row], words[low]):
            at[row] = low


@njit(nogil=True, cache=True)
def _is_less(one: Any, other: Any) -> bool:
    for k in range(len(one)):
        if one[k] != other[k]:
            return bool(one[k] < other[k])
    return False


@njit(nogil=True, cache=True)
def _rarest(holders: Any, offsets: Any, numerator: int, denominator: int) -> Any:
    """Places of the shingles of each text that fewest texts hold, as many as cannot all be missing from a near one."""
    places = np.empty(len(holders), np.int64)
    filled = 0
    for text in range(len(offsets) - 1):
        start, stop = offsets[text], offsets[text + 1]
        size = stop - start
        if size == 0:
            continue
        wanted = size - (size * numerator + denominator - 1) // denominator + 1
        by_rarity = np.argsort(holders[start:stop], kind="mergesort")
        for k in range(min(wanted, size)):
            places[filled] = start + by_rarity[k]
            filled += 1
    return places[:filled].copy()


@njit(nogil=True, cache=True)
def _note(hashes: Any, bits: Any, shift: int) -> None:
    for k in range(len(hashes)):
        bit = hashes[k] >> np.uint64(shift)
        bits[bit >> np.uint64(3)] |= np.uint8(1 << (bit & np.uint64(7)))


@njit(nogil=True, cache=True)
def _probe(hashes: Any, offsets: Any, bits: Any, shift: int) -> Any:
    """Hashes whose bit is set, beside their documents: all that were noted, and few others."""
    found = 0
    for k in range(len(hashes)):
        found += _is_noted(hashes[k], bits, shift)
    rows = np.empty(found, np.int64)
    hits = np.empty(found, np.uint64)
    if found:
        found = 0
        for row in range(len(offsets) - 1):
            for k in range(offsets[row], offsets[row + 1]):
                if _is_noted(hashes[k], bits, shift):
                    rows[found] = row
                    hits[found] = hashes[k]
                    found += 1
    return rows, hits


@njit(inline="always")
def _is_noted(value: np.uint64, bits: Any, shift: int) -> int:
    bit = value >> np.uint64(shift)
    return (bits[bit >> np.uint64(3)] >> np.uint8(bit & np.uint64(7))) & 1
