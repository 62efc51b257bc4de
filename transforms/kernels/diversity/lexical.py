"""How soon words return within a document: MATTR and MTLD, added up over documents as integers.

Both ask of each word only where it stood last in its document. A word is new in a window, or in a stretch that has run
since some place, exactly if it stood last before that; so one pass finds the last places, and two more do the rest.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from transforms.kernels.diversity.encoding import Column, Columns
from transforms.kernels.diversity.metric import Documents, Metric, rounded
from transforms.kernels.diversity.table import Ints, UInts

__all__ = ["MATTR_WINDOW", "MTLD_METHOD", "Lexical"]

MATTR_WINDOW = 50

MTLD_PERCENT = 72
MTLD_METHOD = "exact, factors end at ttr <= 0.72"

FRACTION_BITS = 40
"""Of a factor that its document leaves unfinished: rounded once for each document, to 1e-12."""
_ONE = 1 << FRACTION_BITS

MOST_WORDS = 1 << 20
"""A longer document is read in pieces of so many words, so that memory is bounded."""

_WINDOWS, _DISTINCT, _WORDS, _FORWARD, _FORWARD_PART, _BACKWARD, _BACKWARD_PART = range(7)


class Lexical:
    """A monoid of seven integers: windows and the distinct words in them, words, and factors in either direction."""

    def __init__(self) -> None:
        self._sums: Ints = np.zeros(7, np.int64)

    def add(self, documents: Documents) -> None:
        longest = min(MOST_WORDS, int(documents.lengths().max(initial=0)))
        slots = np.zeros((2 << longest.bit_length(), 2), np.uint64)
        places = np.empty(longest, np.int64), np.empty(longest, np.int64)
        words, numbers = documents.words, documents.numbers
        _read_documents(words.hashes, words.offsets, numbers, slots, *places, self._sums)

    def merge(self, other: Lexical) -> None:
        self._sums += other._sums
        for part in (_FORWARD_PART, _BACKWARD_PART):
            self._sums[part - 1] += self._sums[part] >> FRACTION_BITS
            self._sums[part] &= _ONE - 1

    def columns(self) -> list[Column]:
        return [self._sums]

    def read(self, columns: Columns) -> None:
        self._sums[:] = columns.take()

    def values(self) -> list[Metric]:
        windows, distinct, words, *factors = self._sums.tolist()
        metrics = []
        if windows:
            metrics.append(Metric("mattr_50", rounded(distinct / (MATTR_WINDOW * windows)), windows, "exact"))
        forward, backward = ((whole << FRACTION_BITS) + part for whole, part in (factors[:2], factors[2:]))
        if forward and backward:
            lengths = [(words << FRACTION_BITS) / direction for direction in (forward, backward)]
            metrics.append(Metric("mtld", rounded(sum(lengths) / 2), words, MTLD_METHOD))
        return metrics


@njit(nogil=True, cache=True, _nrt=False)
def _read_documents(
    words: UInts, offsets: Ints, documents: Ints, slots: UInts, previous: Ints, following: Ints, sums: Ints
) -> None:
    read = 0
    for document in documents:
        for start in range(offsets[document], offsets[document + 1], MOST_WORDS):
            length = min(MOST_WORDS, offsets[document + 1] - start)
            _find_places(words, start, length, read, slots, previous, following)
            read += length
            sums[_WORDS] += length
            _count_windows(previous, length, sums)
            _count_factors(previous, following, length, sums)


@njit(nogil=True, cache=True, _nrt=False)
def _find_places(
    words: UInts, start: int, length: int, read: int, slots: UInts, previous: Ints, following: Ints
) -> None:
    """Where each word stands before, or -1, and next, or the length.

    A slot holds a word and its last place, counted from 1 and through all documents: places up to `read` are of earlier
    ones, whose slots are free again.
    """
    stamp, mask = uint64(read), 1
    while mask < 2 * length:
        mask *= 2
    mask -= 1
    for at in range(length):
        key = words[start + at]
        slot = key & uint64(mask)
        while slots[slot, 1] > stamp and slots[slot, 0] != key:
            slot = (slot + uint64(1)) & uint64(mask)
        before = np.int64(slots[slot, 1] - stamp) - 1 if slots[slot, 1] > stamp else -1
        slots[slot, 0], slots[slot, 1] = key, stamp + uint64(at + 1)
        previous[at], following[at] = before, length
        if before >= 0:
            following[before] = at


@njit(nogil=True, cache=True, _nrt=False)
def _count_windows(previous: Ints, length: int, sums: Ints) -> None:
    last_window = length - MATTR_WINDOW
    if last_window < 0:
        return
    sums[_WINDOWS] += last_window + 1
    # A word is the first of its kind in the windows that hold it and begin after it stood before.
    distinct = 0
    for at in range(length):
        first = max(previous[at] + 1, at - MATTR_WINDOW + 1)
        distinct += max(0, min(at, last_window) - first + 1)
    sums[_DISTINCT] += distinct


@njit(nogil=True, cache=True, _nrt=False)
def _count_factors(previous: Ints, following: Ints, length: int, sums: Ints) -> None:
    """A factor ends with the word that brings its share of distinct words down to 0.72, in either direction."""
    since, distinct = 0, 0
    for at in range(length):
        distinct += int(previous[at] < since)
        if 100 * distinct <= MTLD_PERCENT * (at + 1 - since):
            sums[_FORWARD] += 1
            since, distinct = at + 1, 0
    _add_part(sums, _FORWARD, distinct, length - since)
    since, distinct = length, 0
    for at in range(length - 1, -1, -1):
        distinct += int(following[at] >= since)
        if 100 * distinct <= MTLD_PERCENT * (since - at):
            sums[_BACKWARD] += 1
            since, distinct = at, 0
    _add_part(sums, _BACKWARD, distinct, since)


@njit(inline="always")
def _add_part(sums: Ints, whole: int, distinct: int, words: int) -> None:
    """Add the share of a factor that a document ends in the middle of: (1 - ttr) / (1 - 0.72)."""
    if words > 0:
        share = 100.0 * (words - distinct) / ((100.0 - MTLD_PERCENT) * words)
        sums[whole + 1] += np.int64(share * _ONE + 0.5)
        sums[whole] += sums[whole + 1] >> FRACTION_BITS
        sums[whole + 1] &= _ONE - 1
