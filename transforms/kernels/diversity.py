"""Diversity of a set of documents, as one mergeable accumulator of integers.

Word and n-gram frequencies do not fit in memory for a large corpus, so each n-gram size keeps a sample of its
distinct n-grams, each with its exact count: those whose hash lies below 2^(64 - level), at the least level that
leaves at most a fixed number of them. That is a monoid without any loss: whatever is below the final limit was below
every earlier one, so union, sum and "raise the level while there are too many" give one answer in any order. At level
0 everything is kept and every metric exact; at level j the sample holds each distinct n-gram with a chance of 1/2^j.

A sample of distinct words misses most of the few frequent ones, which carry repetition. From level 1 on, words are
therefore also counted in bins by other bits of the same hash; the complete table of level 0 fills them first. Sums of
squares come from the bins alone, less the collisions that are expected of them. Entropy comes from the chain rule
H(word) = H(bin) + H(word | bin): the first part is exact, and the sample estimates only the second, to which a
frequent word, nearly alone in its bin, contributes next to nothing. Two very frequent words in one bin would spoil
both, so there are three rows of bins, and the median of three estimates counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
from numba import njit, uint64

from transforms.kernels.text import Words

__all__ = ["NGRAM_SIZES", "Accumulator", "DiversityParams", "Metric"]

UInts = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

NGRAM_SIZES = (1, 2, 3, 4)

SIGNIFICANT_DIGITS = 9
"""Beyond what the mathematical libraries of two machines may disagree on."""

MAGIC = b"DIV2"
CHECKSUM_BYTES = 8

SUB_BITS = 5
"""Lengths below 2 * 32 have a bucket each; above, every power of two is cut into 32, so a midpoint is within 1/64."""
SUB_BUCKETS = 1 << SUB_BITS
LENGTH_BUCKETS = SUB_BUCKETS * (64 - SUB_BITS)
LENGTH_QUANTILES = (10, 50, 90)

FIRST_CAPACITY = 16
WORDS_AT_ONCE = 1024

BIN_ROWS = 3
BIN_BITS = 16
"""Row r bins by bits 16r to 16r + 15 of a hash. The topmost bits decide what is sampled, and stay apart."""

_WHOLE_RANGE = np.uint64(0xFFFFFFFFFFFFFFFF)
_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)
_SQUARED = np.uint64(0x9FB21C651E98DF25**2 % 2**64)
_CUBED = np.uint64(0x9FB21C651E98DF25**3 % 2**64)
"""Word hashes are spread evenly, so sums of their multiples are, too: an n-gram needs no further mixing."""

_KEY, _COUNT = 0, 1
_USED, _LEVEL, _SHIFT, _KEEP = range(4)


class Metric(NamedTuple):
    """One number about a set of documents."""

    name: str
    value: float
    n: int  # how many observations it rests on: documents, words or n-grams
    method: str  # `exact`, or the sketch it was estimated from: `sample-16384`, `bins-3x8192`, `buckets-32` ...


@dataclass(frozen=True)
class DiversityParams:
    """Sizes of the sketches. Accumulators merge only with equals.

    `words` and `ngrams` are the most distinct items kept for n = 1 and for each n above; their estimates err by about
    1.2/sqrt(size) (0.9% and 1.9% with these defaults). `bins` are the bins of a row; they bear on words only.
    """

    words: int = 1 << 14
    ngrams: int = 1 << 12
    bins: int = 1 << 13

    def __post_init__(self) -> None:
        for name, most in (("words", 1 << 24), ("ngrams", 1 << 24), ("bins", 1 << BIN_BITS)):
            size = getattr(self, name)
            if size < 2 or size > most or size & (size - 1):
                raise ValueError(
                    f"DiversityParams.{name} is {size}; it must be a power of two from 2 to {most}. "
                    "Leave it out for the default."
                )


# Without _nrt=False numba counts references to the arrays atomically around every inlined call, which is most of the
# time. So these kernels allocate nothing, and their callers bring the space they need.
#
# A table is an open-addressing array of (hash, count) rows, a count of 0 marking a free slot, beside its state. Slots
# are chosen by the highest bits that still vary: a table is almost sorted, and reading one into another walks both
# from end to end instead of jumping about.


@njit(inline="always")
def _home_of(state: Ints, key: Any) -> Any:
    return (key << uint64(state[_LEVEL])) >> uint64(state[_SHIFT])


@njit(inline="always")
def _add_to(slots: UInts, state: Ints, key: Any, count: Any) -> None:
    mask = uint64(slots.shape[0] - 1)
    slot = _home_of(state, key)
    while slots[slot, _COUNT] != 0 and slots[slot, _KEY] != key:
        slot = (slot + uint64(1)) & mask
    if slots[slot, _COUNT] == 0:
        slots[slot, _KEY] = key
        state[_USED] += 1
    slots[slot, _COUNT] += count


@njit(inline="always")
def _add_to_bins(bins: Ints, key: Any, count: Any) -> None:
    mask = uint64(bins.shape[1] - 1)
    for row in range(BIN_ROWS):
        bins[row, (key >> uint64(BIN_BITS * row)) & mask] += count


@njit(inline="always")
def _greatest(state: Ints) -> Any:
    """The greatest hash that the table's level admits."""
    return _WHOLE_RANGE >> uint64(state[_LEVEL])


@njit(nogil=True, cache=True, _nrt=False)
def _raise_level(slots: UInts, state: Ints, bins: Ints, entries: UInts, least: int) -> None:
    """Raise the level to `least`, and further while too many hashes remain. Leaving level 0, fill the bins."""
    size = 0
    for slot in range(slots.shape[0]):
        if slots[slot, _COUNT] != 0:
            entries[size, _KEY], entries[size, _COUNT] = slots[slot, _KEY], slots[slot, _COUNT]
            size += 1
    if state[_LEVEL] == 0 and bins.shape[1] > 0:
        for entry in range(size):
            _add_to_bins(bins, entries[entry, _KEY], np.int64(entries[entry, _COUNT]))
    state[_LEVEL] = max(least - 1, state[_LEVEL])
    while state[_LEVEL] < least or size > state[_KEEP]:
        state[_LEVEL] += 1
        greatest = _greatest(state)
        held = size
        size = 0
        for entry in range(held):
            if entries[entry, _KEY] <= greatest:
                entries[size, _KEY], entries[size, _COUNT] = entries[entry, _KEY], entries[entry, _COUNT]
                size += 1
    for slot in range(slots.shape[0]):
        slots[slot, _COUNT] = uint64(0)
    state[_USED] = 0
    for entry in range(size):
        _add_to(slots, state, entries[entry, _KEY], entries[entry, _COUNT])


@njit(inline="always")
def _count_admitted(slots: UInts, state: Ints, bins: Ints, scratch: UInts, key: Any, count: Any) -> Any:
    """Count a hash that the level admits; returns the greatest hash admitted from now on."""
    _add_to(slots, state, key, count)
    if state[_USED] > state[_KEEP]:
        _raise_level(slots, state, bins, scratch, state[_LEVEL] + 1)
    return _greatest(state)


@njit(nogil=True, cache=True, _nrt=False)
def _count_single_words(
    words: UInts, start: int, end: int, slots: UInts, state: Ints, bins: Ints, scratch: UInts, admitted: UInts
) -> None:
    """Count words as such: in the table, and above level 0 in the bins.

    Which words a level admits cannot be foreseen by a processor, so they are first picked without a branch.
    """
    greatest = _greatest(state)
    while start < end and state[_LEVEL] == 0:
        greatest = _count_admitted(slots, state, bins, scratch, words[start], uint64(1))
        start += 1
    while start < end:
        stop = min(start + admitted.shape[0], end)
        size = 0
        for at in range(start, stop):
            word = words[at]
            _add_to_bins(bins, word, 1)
            admitted[size] = word
            size += int(word <= greatest)
        for index in range(size):
            if admitted[index] <= greatest:
                greatest = _count_admitted(slots, state, bins, scratch, admitted[index], uint64(1))
        start = stop


@njit(nogil=True, cache=True, _nrt=False)
def _count_words(
    words: UInts,
    offsets: Ints,
    documents: Ints,
    lengths: Ints,
    totals: Ints,
    bins: Ints,
    no_bins: Ints,
    scratch: UInts,
    admitted: UInts,
    slots_1: UInts,
    state_1: Ints,
    slots_2: UInts,
    state_2: Ints,
    slots_3: UInts,
    state_3: Ints,
    slots_4: UInts,
    state_4: Ints,
) -> None:
    """Count lengths, words and n-grams of the documents in one pass; tables must have room for all of them."""
    one = uint64(1)
    greatest_2, greatest_3, greatest_4 = _greatest(state_2), _greatest(state_3), _greatest(state_4)
    for document in documents:
        start, end = offsets[document], offsets[document + 1]
        length = end - start
        for index in range(totals.shape[0]):
            totals[index] += max(0, length - index)
        octave = 0
        while length >> octave >= 2 * SUB_BUCKETS:
            octave += 1
        lengths[octave * SUB_BUCKETS + (length >> octave)] += 1

        _count_single_words(words, start, end, slots_1, state_1, bins, scratch, admitted)
        last, last_but_one, last_but_two = uint64(0), uint64(0), uint64(0)
        for at in range(start, end):
            word = words[at]
            key = last * _MULTIPLIER + word
            if key <= greatest_2 and at >= start + 1:
                greatest_2 = _count_admitted(slots_2, state_2, no_bins, scratch, key, one)
            key += last_but_one * _SQUARED
            if key <= greatest_3 and at >= start + 2:
                greatest_3 = _count_admitted(slots_3, state_3, no_bins, scratch, key, one)
            key += last_but_two * _CUBED
            if key <= greatest_4 and at >= start + 3:
                greatest_4 = _count_admitted(slots_4, state_4, no_bins, scratch, key, one)
            last_but_two, last_but_one, last = last_but_one, last, word


@njit(nogil=True, cache=True, _nrt=False)
def _count_entries(
    slots: UInts, state: Ints, bins: Ints, scratch: UInts, entries: UInts, level: int, entry_bins: Ints
) -> None:
    """Add the rows of another table, its level and its bins; there must be room for all of them."""
    if level > state[_LEVEL]:
        _raise_level(slots, state, bins, scratch, level)
    if level > 0:
        for row in range(entry_bins.shape[0]):
            for index in range(entry_bins.shape[1]):
                bins[row, index] += entry_bins[row, index]
    greatest = _greatest(state)
    for entry in range(entries.shape[0]):
        count = entries[entry, _COUNT]
        if count != 0:
            key = entries[entry, _KEY]
            if level == 0 and state[_LEVEL] > 0 and bins.shape[1] > 0:
                _add_to_bins(bins, key, np.int64(count))
            if key <= greatest:
                greatest = _count_admitted(slots, state, bins, scratch, key, count)


@njit(nogil=True, cache=True, _nrt=False)
def _rehash(entries: UInts, slots: UInts, state: Ints) -> None:
    state[_USED] = 0
    for entry in range(entries.shape[0]):
        if entries[entry, _COUNT] != 0:
            _add_to(slots, state, entries[entry, _KEY], entries[entry, _COUNT])


@njit(nogil=True, cache=True, _nrt=False)
def _sort_entries(slots: UInts, state: Ints, entries: UInts) -> None:
    """Fill `entries` with the rows in use, sorted by hash: by insertion, since hardly a row is far from its place."""
    size = 0
    # Clusters at the end of the table go on at its start; their rows stand before their home, and come last.
    for wrapped in (False, True):
        for slot in range(slots.shape[0]):
            key, count = slots[slot, _KEY], slots[slot, _COUNT]
            if count == 0:
                if wrapped:
                    break
                continue
            if (_home_of(state, key) > uint64(slot)) != wrapped:
                continue
            at = size
            while at > 0 and entries[at - 1, _KEY] > key:
                entries[at, _KEY], entries[at, _COUNT] = entries[at - 1, _KEY], entries[at - 1, _COUNT]
                at -= 1
            entries[at, _KEY], entries[at, _COUNT] = key, count
            size += 1


@njit(nogil=True, cache=True, _nrt=False)
def _sum_over_bins(bins: Ints, sums: Floats) -> None:
    """Fill `sums`, for each row, with the sums over its bins of total * log2(total) and of total * total."""
    for row in range(bins.shape[0]):
        for index in range(bins.shape[1]):
            total = bins[row, index]
            if total > 0:
                sums[row, 0] += total * math.log2(total)
                sums[row, 1] += float(total) * float(total)


@njit(nogil=True, cache=True, _nrt=False)
def _sum_within_bins(entries: UInts, bins: Ints, sums: Floats) -> None:
    """Fill `sums`, for each row, with the sum over the entries of count * log2(total of its bin / count)."""
    mask = uint64(bins.shape[1] - 1)
    for row in range(bins.shape[0]):
        for entry in range(entries.shape[0]):
            key, count = entries[entry, _KEY], float(entries[entry, _COUNT])
            total = bins[row, (key >> uint64(BIN_BITS * row)) & mask]
            sums[row] += count * math.log2(total / count)


class _Table:
    """The sampled hashes of one n-gram size with their exact counts, and for words the bins.

    Slots are at least twice the hashes in use and at most twice `keep`, however many documents are added. With
    `n_bins` a row, bins hold the counts of *all* hashes from level 1 on; they mean nothing at level 0.
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
        return int(self.state[_LEVEL])

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

    def merge(self, other: _Table) -> None:
        self.merge_entries(other.slots, other.used, other.level, other.bins)

    def merge_entries(self, entries: UInts, used: int, level: int, bins: Ints) -> None:
        self.make_room(used)
        if level:
            self._need_bins()
        _count_entries(self.slots, self.state, self.bins, self.scratch(), entries, level, bins)

    def entries(self) -> UInts:
        entries = np.empty((self.used, 2), np.uint64)
        _sort_entries(self.slots, self.state, entries)
        return entries

    def scratch(self) -> UInts:
        """Space for all entries, while the level rises."""
        return np.empty((len(self.slots) // 2 + 1, 2), np.uint64)

    def copy(self) -> _Table:
        twin = _Table(self.keep, self.n_bins)
        twin.slots, twin.state, twin.bins = self.slots.copy(), self.state.copy(), self.bins.copy()
        return twin

    def _need_bins(self) -> None:
        if self.bins.shape[1] != self.n_bins:
            self.bins = np.zeros((BIN_ROWS, self.n_bins), np.int64)

    def _resize(self, capacity: int) -> None:
        self.slots: UInts = np.zeros((capacity, 2), np.uint64)
        self.state[_SHIFT] = 65 - capacity.bit_length()


class Accumulator:
    """Everything the core metrics need to know about a set of documents; a commutative monoid.

    `zero()` is the identity, `add` and `merge` change it in place, `+` does not. Equal sets of documents have equal
    bytes, however they were split, ordered and merged. It grows with its content up to 1.1 MiB. Not to be shared
    between threads that add.
    """

    def __init__(self, params: DiversityParams | None = None) -> None:
        self.params = params or DiversityParams()
        self._documents = 0
        self._totals: Ints = np.zeros(len(NGRAM_SIZES), np.int64)
        self._lengths: Ints = np.zeros(LENGTH_BUCKETS, np.int64)
        self._tables = [_Table(self.params.words, self.params.bins)]
        self._tables += [_Table(self.params.ngrams, 0) for _ in NGRAM_SIZES[1:]]

    @classmethod
    def zero(cls, params: DiversityParams | None = None) -> Accumulator:
        return cls(params)

    def add(self, words: Words, select: Bools | Ints | None = None) -> None:
        """Count the documents, or those that `select` marks or numbers. N-grams do not cross documents.

        Numbers cost time for the numbered documents only: the way to share out one batch to many accumulators.
        """
        documents = _chosen(select, len(words.offsets) - 1)
        arrivals = int((words.offsets[documents + 1] - words.offsets[documents]).sum())
        for table in self._tables:
            table.make_room(arrivals)
        tables = [array for table in self._tables for array in (table.slots, table.state)]
        bins, no_bins = self._tables[0].bins, self._tables[1].bins
        scratch = max((table.scratch() for table in self._tables), key=len)
        admitted = np.empty(WORDS_AT_ONCE, np.uint64)
        _count_words(
            *(words.hashes, words.offsets, documents, self._lengths, self._totals),
            *(bins, no_bins, scratch, admitted, *tables),
        )
        self._documents += len(documents)

    def merge(self, other: Accumulator) -> None:
        if self.params != other.params:
            raise ValueError(
                f"cannot merge diversity measured with {other.params} into {self.params}: "
                "measure both again with the same sizes."
            )
        self._documents += other._documents
        self._totals += other._totals
        self._lengths += other._lengths
        for table, other_table in zip(self._tables, other._tables, strict=True):
            table.merge(other_table)

    def __add__(self, other: Accumulator) -> Accumulator:
        total = Accumulator(self.params)
        total._documents = self._documents
        total._totals, total._lengths = self._totals.copy(), self._lengths.copy()
        total._tables = [table.copy() for table in self._tables]
        total.merge(other)
        return total

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Accumulator) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Accumulator(documents={self._documents}, tokens={self._totals[0]})"

    def __reduce__(self) -> tuple[Callable[[bytes], Accumulator], tuple[bytes]]:
        return Accumulator.from_bytes, (self.to_bytes(),)

    def to_bytes(self) -> bytes:
        """The content in its one encoding: equal content, equal bytes."""
        filled = np.flatnonzero(self._lengths)
        sizes = (self.params.words, self.params.ngrams, self.params.bins)
        states = [number for table in self._tables for number in (table.used, table.level)]
        columns = [
            np.array([*sizes, self._documents, *self._totals, len(filled), *states]),
            filled,
            self._lengths[filled],
        ]
        for table in self._tables:
            entries = table.entries()
            columns += [entries[:, _KEY], entries[:, _COUNT]]
            if not table.exact:
                columns.append(table.bins.ravel())
        body = b"".join(map(_encoded, columns))
        return MAGIC + xxhash.xxh3_64_digest(body) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Accumulator:
        take = _Columns(data).take
        n_states = 2 * len(NGRAM_SIZES)
        words, ngrams, bins, documents, *numbers = take(4 + len(NGRAM_SIZES) + 1 + n_states).tolist()
        totals, (filled, *states) = numbers[: len(NGRAM_SIZES)], numbers[len(NGRAM_SIZES) :]
        accumulator = cls(DiversityParams(words, ngrams, bins))
        accumulator._documents = documents
        accumulator._totals[:] = totals
        buckets = take(filled)
        accumulator._lengths[buckets] = take(filled)
        for table, used, level in zip(accumulator._tables, states[::2], states[1::2], strict=True):
            entries = np.empty((used, 2), np.uint64)
            entries[:, _KEY], entries[:, _COUNT] = take(used), take(used)
            filled_bins = take(BIN_ROWS * table.n_bins) if level else np.empty(0)
            table.merge_entries(entries, used, level, filled_bins.astype(np.int64).reshape(BIN_ROWS, -1))
        return accumulator

    def values(self) -> list[Metric]:
        """All metrics that are defined, in a fixed order."""
        documents, tokens = self._documents, int(self._totals[0])
        metrics = [
            Metric("documents", float(documents), documents, "exact"),
            Metric("tokens", float(tokens), tokens, "exact"),
        ]
        words = self._tables[0]
        entries = words.entries()
        spectrum = _spectrum(entries)
        metrics += _tail_metrics(words, spectrum, tokens)
        for size, total, table in zip(NGRAM_SIZES, self._totals.tolist(), self._tables, strict=True):
            if total:
                distinct = min(1.0, table.types / total)
                metrics.append(Metric(f"distinct_{size}", _rounded(distinct), total, table.method))
        metrics += _concentration_metrics(words, entries, spectrum, tokens)
        return metrics + _length_metrics(self._lengths, documents)


def _chosen(select: Bools | Ints | None, documents: int) -> Ints:
    """The numbers of the selected documents."""
    if select is None:
        return np.arange(documents)
    if select.dtype == np.bool_ and select.shape == (documents,):
        return np.flatnonzero(select)
    if select.dtype == np.int64 and select.ndim == 1:
        outside = select[(select < 0) | (select >= documents)]
        if len(outside):
            raise ValueError(
                f"select numbers document {outside[0]}, the batch has {documents} documents: "
                "number them from 0, in the order of the batch."
            )
        return select.astype(np.int64, copy=False)
    raise ValueError(
        f"select has dtype {select.dtype} and shape {select.shape}, the batch has {documents} documents: "
        "pass one bool for each document, int64 numbers of documents, or None for all."
    )


def _encoded(column: npt.NDArray[Any]) -> bytes:
    """One byte that says how wide the numbers are, then the numbers, as narrow as the greatest of them allows."""
    greatest = int(column.max()) if len(column) else 0
    width = next(width for width in (1, 2, 4, 8) if greatest < 1 << 8 * width)
    return bytes([width]) + column.astype(f"<u{width}").tobytes()


class _Columns:
    """The columns of one encoded accumulator, taken in order."""

    def __init__(self, data: bytes) -> None:
        start = len(MAGIC) + CHECKSUM_BYTES
        magic, checksum, self._body = data[: len(MAGIC)], data[len(MAGIC) : start], data[start:]
        if magic != MAGIC:
            raise ValueError(
                f"not a diversity accumulator of this version: it starts with {magic!r}, not {MAGIC!r}. "
                "Measure the documents again."
            )
        if checksum != xxhash.xxh3_64_digest(self._body):
            raise ValueError(
                f"the diversity accumulator of {len(data)} bytes is damaged: its checksum does not match. "
                "Measure the documents again."
            )
        self._at = 0

    def take(self, size: int) -> npt.NDArray[Any]:
        width = self._body[self._at]
        column = np.frombuffer(self._body, f"<u{width}", size, self._at + 1)
        self._at += 1 + size * width
        return column


def _spectrum(entries: UInts) -> dict[int, int]:
    """How many of the entries have which count, by count."""
    counts, types = np.unique(entries[:, _COUNT], return_counts=True)
    return dict(zip(counts.tolist(), types.tolist(), strict=True))


def _tail_metrics(words: _Table, spectrum: dict[int, int], tokens: int) -> list[Metric]:
    types = min(words.types, tokens)
    once, twice = (spectrum.get(times, 0) << words.level for times in (1, 2))
    once = min(once, types)
    metrics = [
        Metric("types", float(types), tokens, words.method),
        Metric("hapaxes", float(once), tokens, words.method),
    ]
    if tokens:
        unseen = once * max(0, once - 1) / (2 * (twice + 1))
        metrics += [
            Metric("good_turing", _rounded(once / tokens), tokens, words.method),
            Metric("chao1", _rounded(types + unseen), tokens, words.method),
        ]
    return metrics


def _concentration_metrics(words: _Table, entries: UInts, spectrum: dict[int, int], tokens: int) -> list[Metric]:
    if not tokens:
        return []
    if words.exact:
        squares_method = entropy_method = words.method
        surprise, squares = _exact_concentration(spectrum)
    else:
        squares_method = f"bins-{BIN_ROWS}x{words.n_bins}"
        entropy_method = f"{squares_method}+{words.method}"
        surprise, squares = _binned_concentration(words, entries, tokens)
    entropy = min(max(0.0, math.log2(tokens) - surprise / tokens), math.log2(tokens))
    repeated = max(0.0, squares - tokens)
    metrics = [Metric("entropy_1", _rounded(entropy), tokens, entropy_method)]
    if tokens > 1:
        metrics.append(Metric("simpson", _rounded(repeated / (tokens * (tokens - 1))), tokens, squares_method))
    metrics.append(Metric("yule_k", _rounded(1e4 * repeated / tokens**2), tokens, squares_method))
    return metrics


def _exact_concentration(spectrum: dict[int, int]) -> tuple[float, float]:
    """The sums over all words of count * log2(count) and of count * count."""
    surprise = math.fsum(types * count * math.log2(count) for count, types in spectrum.items())
    return surprise, sum(types * count * count for count, types in spectrum.items())


def _binned_concentration(words: _Table, entries: UInts, tokens: int) -> tuple[float, float]:
    """The same sums, estimated: for each the median over the rows of bins."""
    surprises, squares = [], []
    sums, within = np.zeros((BIN_ROWS, 2)), np.zeros(BIN_ROWS)
    _sum_over_bins(words.bins, sums)
    _sum_within_bins(entries, words.bins, within)
    for (surprise, met), surprise_within in zip(sums.tolist(), within.tolist(), strict=True):
        surprises.append(surprise - surprise_within * 2.0**words.level)
        # Of all ordered pairs of tokens that are different words, one in n_bins meets in a bin by chance.
        squares.append((met * words.n_bins - tokens * tokens) / (words.n_bins - 1))
    return statistics.median(surprises), statistics.median(squares)


def _length_metrics(lengths: Ints, documents: int) -> list[Metric]:
    """Nearest-rank quantiles: the least length that at least that share of the documents does not exceed."""
    metrics = []
    if documents:
        reached = np.cumsum(lengths)
        for percent in LENGTH_QUANTILES:
            rank = -(-percent * documents // 100)
            bucket = int(np.searchsorted(reached, rank))
            octave = max(0, bucket // SUB_BUCKETS - 1)
            least = (bucket - octave * SUB_BUCKETS) << octave
            middle = least + ((1 << octave) - 1) / 2
            method = "exact" if octave == 0 else f"buckets-{SUB_BUCKETS}"
            metrics.append(Metric(f"length_p{percent}", middle, documents, method))
    return metrics


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
