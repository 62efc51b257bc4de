"""A sample of distinct hashes, each with its exact count, and bins that count all of them.

Word and n-gram frequencies do not fit in memory for a large corpus, so each n-gram size keeps a sample of its
distinct n-grams, each with its exact count: those whose hash lies below 2^(64 - level), at the least level that
leaves at most a fixed number of them. That is a monoid without any loss: whatever is below the final limit was below
every earlier one, so union, sum and "raise the level while there are too many" give one answer in any order. At level
0 everything is kept and every metric exact; at level j the sample holds each distinct n-gram with a chance of 1/2^j.

A sample of distinct words misses most of the few frequent ones, which carry repetition. From level 1 on, words are
therefore also counted in bins by other bits of the same hash; the complete table of level 0 fills them first. Two very
frequent words in one bin would spoil what is read from the bins, so there are three rows of them, and the median of
three estimates counts. `spectrum` has the estimates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from transforms.kernels.diversity.encoding import Column, Columns

__all__ = [
    "BIN_BITS",
    "BIN_ROWS",
    "COUNT",
    "KEY",
    "LEVEL",
    "Bools",
    "Floats",
    "Ints",
    "Table",
    "UInts",
    "add_to_bins",
    "count_admitted",
    "greatest_of",
]

UInts = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FIRST_CAPACITY = 16

BIN_ROWS = 3
BIN_BITS = 16
"""Row r bins by bits 16r to 16r + 15 of a hash. The topmost bits decide what is sampled, and stay apart."""

_WHOLE_RANGE = np.uint64(0xFFFFFFFFFFFFFFFF)

KEY, COUNT = 0, 1
_USED, LEVEL, _SHIFT, _KEEP = range(4)


# Without _nrt=False numba counts references to the arrays atomically around every inlined call, which is most of the
# time. So these kernels allocate nothing, and their callers bring the space they need.
#
# A table is an open-addressing array of (hash, count) rows, a count of 0 marking a free slot, beside its state. Slots
# are chosen by the highest bits that still vary: a table is almost sorted, and reading one into another walks both
# from end to end instead of jumping about.


@njit(inline="always")
def _home_of(state: Ints, key: Any) -> Any:
    return (key << uint64(state[LEVEL])) >> uint64(state[_SHIFT])


@njit(inline="always")
def _add_to(slots: UInts, state: Ints, key: Any, count: Any) -> None:
    mask = uint64(slots.shape[0] - 1)
    slot = _home_of(state, key)
    while slots[slot, COUNT] != 0 and slots[slot, KEY] != key:
        slot = (slot + uint64(1)) & mask
    if slots[slot, COUNT] == 0:
        slots[slot, KEY] = key
        state[_USED] += 1
    slots[slot, COUNT] += count


@njit(inline="always")
def add_to_bins(bins: Ints, key: Any, count: Any) -> None:
    mask = uint64(bins.shape[1] - 1)
    for row in range(BIN_ROWS):
        bins[row, (key >> uint64(BIN_BITS * row)) & mask] += count


@njit(inline="always")
def greatest_of(state: Ints) -> Any:
    """The greatest hash that the table's level admits."""
    return _WHOLE_RANGE >> uint64(state[LEVEL])


@njit(nogil=True, cache=True, _nrt=False)
def _raise_level(slots: UInts, state: Ints, bins: Ints, entries: UInts, least: int) -> None:
    """Raise the level to `least`, and further while too many hashes remain. Leaving level 0, fill the bins."""
    size = 0
    for slot in range(slots.shape[0]):
        if slots[slot, COUNT] != 0:
            entries[size, KEY], entries[size, COUNT] = slots[slot, KEY], slots[slot, COUNT]
            size += 1
    if state[LEVEL] == 0 and bins.shape[1] > 0:
        for entry in range(size):
            add_to_bins(bins, entries[entry, KEY], np.int64(entries[entry, COUNT]))
    state[LEVEL] = max(least - 1, state[LEVEL])
    while state[LEVEL] < least or size > state[_KEEP]:
        state[LEVEL] += 1
        greatest = greatest_of(state)
        held = size
        size = 0
        for entry in range(held):
            if entries[entry, KEY] <= greatest:
                entries[size, KEY], entries[size, COUNT] = entries[entry, KEY], entries[entry, COUNT]
                size += 1
    for slot in range(slots.shape[0]):
        slots[slot, COUNT] = uint64(0)
    state[_USED] = 0
    for entry in range(size):
        _add_to(slots, state, entries[entry, KEY], entries[entry, COUNT])


@njit(inline="always")
def count_admitted(slots: UInts, state: Ints, bins: Ints, scratch: UInts, key: Any, count: Any) -> Any:
    """Count a hash that the level admits; returns the greatest hash admitted from now on."""
    _add_to(slots, state, key, count)
    if state[_USED] > state[_KEEP]:
        _raise_level(slots, state, bins, scratch, state[LEVEL] + 1)
    return greatest_of(state)


@njit(nogil=True, cache=True, _nrt=False)
def _count_entries(
    slots: UInts, state: Ints, bins: Ints, scratch: UInts, entries: UInts, level: int, entry_bins: Ints
) -> None:
    """Add the rows of another table, its level and its bins; there must be room for all of them."""
    if level > state[LEVEL]:
        _raise_level(slots, state, bins, scratch, level)
    if level > 0:
        for row in range(entry_bins.shape[0]):
            for index in range(entry_bins.shape[1]):
                bins[row, index] += entry_bins[row, index]
    greatest = greatest_of(state)
    for entry in range(entries.shape[0]):
        count = entries[entry, COUNT]
        if count != 0:
            key = entries[entry, KEY]
            if level == 0 and state[LEVEL] > 0 and bins.shape[1] > 0:
                add_to_bins(bins, key, np.int64(count))
            if key <= greatest:
                greatest = count_admitted(slots, state, bins, scratch, key, count)


@njit(nogil=True, cache=True, _nrt=False)
def _rehash(entries: UInts, slots: UInts, state: Ints) -> None:
    state[_USED] = 0
    for entry in range(entries.shape[0]):
        if entries[entry, COUNT] != 0:
            _add_to(slots, state, entries[entry, KEY], entries[entry, COUNT])


@njit(nogil=True, cache=True, _nrt=False)
def _sort_entries(slots: UInts, state: Ints, entries: UInts) -> None:
    """Fill `entries` with the rows in use, sorted by hash: by insertion, since hardly a row is far from its place."""
    size = 0
    # Clusters at the end of the table go on at its start; their rows stand before their home, and come last.
    for wrapped in (False, True):
        for slot in range(slots.shape[0]):
            key, count = slots[slot, KEY], slots[slot, COUNT]
            if count == 0:
                if wrapped:
                    break
                continue
            if (_home_of(state, key) > uint64(slot)) != wrapped:
                continue
            at = size
            while at > 0 and entries[at - 1, KEY] > key:
                entries[at, KEY], entries[at, COUNT] = entries[at - 1, KEY], entries[at - 1, COUNT]
                at -= 1
            entries[at, KEY], entries[at, COUNT] = key, count
            size += 1


class Table:
    """The sampled hashes of one n-gram size with their exact counts, and the bins.

    Slots are at least twice the hashes in use and at most twice `keep`, however many documents are added. With
    `n_bins` a row, if any, bins hold the counts of *all* hashes from level 1 on; they mean nothing at level 0.
    """

    def __init__(self, keep: int, n_bins: int) -> None:
        self.n_bins = n_bins
        self.bins: Ints = np.zeros((BIN_ROWS, 0), np.int64)
        self.state: Ints = np.zeros(4, np.int64)
        self.state[_KEEP] = keep
        self._resize(FIRST_CAPACITY)

    @property
    def used(self) -> int:
        return int(self.state[_USED])

    @property
    def level(self) -> int:
        return int(self.state[LEVEL])

    @property
    def keep(self) -> int:
        return int(self.state[_KEEP])

    @property
    def exact(self) -> bool:
        return self.level == 0

    @property
    def method(self) -> str:
        return "exact" if self.exact else f"sample-{self.keep}"

    @property
    def types(self) -> int:
        """Distinct n-grams, of which each had a chance of 1 / 2^level to be in the table."""
        return self.used << self.level

    def make_room(self, arrivals: int) -> None:
        """Before as many hashes come in, so that no loop over documents ever has to stop and grow a table."""
        most = self.used + arrivals
        capacity = 2 << (min(self.keep, most) - 1).bit_length() if most else FIRST_CAPACITY
        if capacity > len(self.slots):
            entries = self.slots
            self._resize(capacity)
            _rehash(entries, self.slots, self.state)
        if most > self.keep:
            self._need_bins()

    def merge(self, other: Table) -> None:
        self.merge_entries(other.slots, other.used, other.level, other.bins)

    def merge_entries(self, entries: UInts, used: int, level: int, bins: Ints) -> None:
        self.make_room(used)
        if level:
            self._need_bins()
        _count_entries(self.slots, self.state, self.bins, self.scratch(), entries, level, bins)

    def columns(self) -> list[Column]:
        entries = self.entries()
        bins = self.bins if self.level else self.bins[:, :0]
        return [np.array([self.level]), entries[:, KEY], entries[:, COUNT], bins.ravel()]

    def read(self, columns: Columns) -> None:
        """Fill an empty table."""
        level = int(columns.take()[0])
        keys = columns.take()
        entries = np.empty((len(keys), 2), np.uint64)
        entries[:, KEY], entries[:, COUNT] = keys, columns.take()
        bins = columns.take().astype(np.int64).reshape(BIN_ROWS, -1)
        self.merge_entries(entries, len(entries), level, bins)

    def entries(self) -> UInts:
        entries = np.empty((self.used, 2), np.uint64)
        _sort_entries(self.slots, self.state, entries)
        return entries

    def scratch(self) -> UInts:
        """Space for all entries, while the level rises."""
        return np.empty((len(self.slots) // 2 + 1, 2), np.uint64)

    def _need_bins(self) -> None:
        if self.bins.shape[1] != self.n_bins:
            self.bins = np.zeros((BIN_ROWS, self.n_bins), np.int64)

    def _resize(self, capacity: int) -> None:
        self.slots: UInts = np.zeros((capacity, 2), np.uint64)
        self.state[_SHIFT] = 65 - capacity.bit_length()
