"""Diversity of a set of documents, as one mergeable accumulator of integers.

Word and n-gram frequencies do not fit in memory for a large corpus, so each n-gram size keeps its `keep` smallest
hashes, each with its exact count. That is a monoid without any loss: a hash among the smallest of the whole was among
the smallest of every part it occurred in, so union, sum and "keep the smallest" give one answer in any order. Fewer
distinct n-grams than `keep` make every metric exact; more make the table a uniform sample of the distinct n-grams
(their hashes are uniform), to be scaled by the share of the hash range it covers.

A sample of distinct words misses most of the few frequent ones, which carry repetition. Words are therefore also
counted in bins by other bits of the same hash. Sums of squares come from the bins alone, less the collisions that
are expected of them. Entropy comes from the chain rule H(word) = H(bin) + H(word | bin): the first part is exact, and
the sample estimates only the second, to which a frequent word, nearly alone in its bin, contributes next to nothing.
Two very frequent words in one bin would spoil both, so there are three rows of bins, and the median of three
estimates counts.
"""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from transforms.kernels.hashing import mix64
from transforms.kernels.text import Words

__all__ = ["NGRAM_SIZES", "Accumulator", "DiversityParams", "Metric"]

UInts = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NGRAM_SIZES = (1, 2, 3, 4)

HASH_RANGE = 1 << 64
SIGNIFICANT_DIGITS = 9
"""Beyond what the mathematical libraries of two machines may disagree on."""

MAGIC = b"DIV1"
CHECKSUM_BYTES = 4

SUB_BITS = 5
"""Lengths below 2 * 32 have a bucket each; above, every power of two is cut into 32, so a midpoint is within 1/64."""
SUB_BUCKETS = 1 << SUB_BITS
LENGTH_BUCKETS = SUB_BUCKETS * (64 - SUB_BITS)
LENGTH_QUANTILES = (10, 50, 90)

FIRST_CAPACITY = 64

BIN_ROWS = 3
BIN_BITS = 16
"""Row r bins by bits 16r to 16r + 15 of a hash. The topmost 16 bits decide what the table keeps, and stay apart."""

_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)
_SALT = np.uint64(0x9E3779B97F4A7C15)
_NO_THRESHOLD = np.uint64(HASH_RANGE - 1)
_KEY, _COUNT = 0, 1


class Metric(NamedTuple):
    """One number about a set of documents."""

    name: str
    value: float
    n: int  # how many observations it rests on: documents, words or n-grams
    method: str  # `exact`, or the sketch it was estimated from: `bottom-65536`, `bins-3x65536`, `buckets-32` ...


@dataclass(frozen=True)
class DiversityParams:
    """Sizes of the sketches. Accumulators merge only with equals.

    `words` and `ngrams` are the distinct items kept for n = 1 and for each n above; their estimates err by about
    1/sqrt(size) (0.4% and 0.8% with these defaults). `bins` are the bins of a row; they bear on words only.
    """

    words: int = 1 << 16
    ngrams: int = 1 << 14
    bins: int = 1 << 16

    def __post_init__(self) -> None:
        for name, most in (("words", 1 << 24), ("ngrams", 1 << 24), ("bins", 1 << BIN_BITS)):
            size = getattr(self, name)
            if size < 2 or size > most or size & (size - 1):
                raise ValueError(
                    f"DiversityParams.{name} is {size}; it must be a power of two from 2 to {most}. "
                    "Leave it out for the default."
                )


@njit(inline="always")
def _slot_of(slots: UInts, key: Any) -> Any:
    """Where `key` is, or the free slot where it belongs. Low bits choose, since kept hashes share their high bits."""
    mask = uint64(slots.shape[0] - 1)
    slot = key & mask
    while slots[slot, _COUNT] != 0 and slots[slot, _KEY] != key:
        slot = (slot + uint64(1)) & mask
    return slot


@njit(inline="always")
def _bin_of(bins: Ints, row: int, key: Any) -> Any:
    return (key >> uint64(BIN_BITS * row)) & uint64(bins.shape[1] - 1)


@njit(nogil=True, cache=True)
def _tally_ngrams(
    slots: UInts,
    used: int,
    limit: int,
    threshold: Any,
    bins: Ints,
    words: UInts,
    offsets: Ints,
    select: Bools,
    size: int,
    document: int,
    last: int,
) -> tuple[int, int, int]:
    """Count n-grams from the one in `document` whose last word is `last`, until the end or until the table is full.

    Returns where to go on, and the number of slots in use.
    """
    salt = uint64(size) * _SALT
    leading = uint64(1)
    for _ in range(size - 1):
        leading *= _MULTIPLIER
    while document < offsets.shape[0] - 1:
        end = offsets[document + 1]
        last = max(last, offsets[document] + size - 1)
        if not select[document] or last >= end:
            document += 1
            continue
        polynomial = uint64(0)
        for position in range(last - size + 1, last):
            polynomial = polynomial * _MULTIPLIER + words[position]
        while last < end:
            polynomial = polynomial * _MULTIPLIER + words[last]
            key = mix64(polynomial + salt)
            if key <= threshold:
                slot = _slot_of(slots, key)
                if slots[slot, _COUNT] == 0:
                    if used == limit:
                        return document, last, used
                    slots[slot, _KEY] = key
                    used += 1
                slots[slot, _COUNT] += uint64(1)
            for row in range(bins.shape[0]):
                bins[row, _bin_of(bins, row, key)] += 1
            polynomial -= words[last - size + 1] * leading
            last += 1
        document += 1
    return document, last, used


@njit(nogil=True, cache=True)
def _tally_entries(slots: UInts, used: int, limit: int, threshold: Any, entries: UInts, start: int) -> tuple[int, int]:
    """Add counted hashes (rows without a count are free slots) from row `start` on, until all or until full."""
    for row in range(start, entries.shape[0]):
        count = entries[row, _COUNT]
        key = entries[row, _KEY]
        if count == 0 or key > threshold:
            continue
        slot = _slot_of(slots, key)
        if slots[slot, _COUNT] == 0:
            if used == limit:
                return row, used
            slots[slot, _KEY] = key
            used += 1
        slots[slot, _COUNT] += count
    return entries.shape[0], used


@njit(nogil=True, cache=True)
def _bin_entries(entries: UInts, bins: Ints) -> None:
    for entry in range(entries.shape[0]):
        for row in range(bins.shape[0]):
            bins[row, _bin_of(bins, row, entries[entry, _KEY])] += np.int64(entries[entry, _COUNT])


@njit(nogil=True, cache=True)
def _bins_of_entries(entries: UInts, bins: Ints) -> Ints:
    """For each row of bins and each entry, the total of its bin."""
    totals = np.empty((bins.shape[0], entries.shape[0]), np.int64)
    for entry in range(entries.shape[0]):
        for row in range(bins.shape[0]):
            totals[row, entry] = bins[row, _bin_of(bins, row, entries[entry, _KEY])]
    return totals


@njit(nogil=True, cache=True)
def _measure_lengths(offsets: Ints, select: Bools, buckets: Ints, totals: Ints) -> int:
    """Add the lengths of the selected documents to the buckets and their n-grams to the totals; count them."""
    documents = 0
    for document in range(offsets.shape[0] - 1):
        if not select[document]:
            continue
        documents += 1
        length = offsets[document + 1] - offsets[document]
        for index in range(totals.shape[0]):
            totals[index] += max(0, length - index)
        octave = 0
        while length >> octave >= 2 * SUB_BUCKETS:
            octave += 1
        buckets[octave * SUB_BUCKETS + (length >> octave)] += 1
    return documents


@njit(nogil=True, cache=True)
def _pack(numbers: UInts) -> npt.NDArray[np.uint8]:
    """Little-endian groups of seven bits, the eighth saying that more follow: one encoding for each number."""
    packed = np.empty(10 * numbers.shape[0], np.uint8)
    size = 0
    for number in numbers:
        while number >= uint64(128):
            packed[size] = np.uint8(number & uint64(127)) | np.uint8(128)
            number >>= uint64(7)
            size += 1
        packed[size] = np.uint8(number)
        size += 1
    return packed[:size].copy()


@njit(nogil=True, cache=True)
def _unpack(packed: npt.NDArray[np.uint8]) -> UInts:
    numbers = np.empty(packed.shape[0], np.uint64)
    size = 0
    number = uint64(0)
    shift = uint64(0)
    for byte in packed:
        number |= uint64(byte & np.uint8(127)) << shift
        shift += uint64(7)
        if byte < 128:
            numbers[size] = number
            size += 1
            number = uint64(0)
            shift = uint64(0)
    return numbers[:size].copy()


class _SmallestHashes:
    """The smallest hashes of one n-gram size with their exact counts, in an open-addressing table.

    The table doubles up to `2 * keep` slots, then is cut back to the `keep` smallest whenever three quarters are
    used. `threshold` is the greatest hash that can still matter: one compare turns most n-grams of a large corpus
    away. With `n_bins` a row, bins hold the count of *all* hashes from before the first cut on.
    """

    def __init__(self, keep: int, n_bins: int) -> None:
        self.keep = keep
        self.n_bins = n_bins
        self.threshold = _NO_THRESHOLD
        self.bins: Ints = np.zeros((0, n_bins), np.int64)
        self.slots: UInts
        self.used: int
        self._resize(min(FIRST_CAPACITY, 2 * keep))

    @property
    def limit(self) -> int:
        return 3 * len(self.slots) // 4

    @property
    def truncated(self) -> bool:
        """Whether the table may lack hashes that occurred. Meaningful once settled."""
        return self.used >= self.keep

    def tally(self, words: Words, select: Bools, size: int) -> None:
        document, last = 0, 0
        while True:
            document, last, self.used = _tally_ngrams(
                self.slots,
                self.used,
                self.limit,
                self.threshold,
                self.bins,
                words.hashes,
                words.offsets,
                select,
                size,
                document,
                last,
            )
            if document >= len(words.offsets) - 1:
                return
            self._make_room()

    def merge(self, other: _SmallestHashes) -> None:
        if self.n_bins and self.used + other.used >= self.keep:
            # Decided before the first insertion: an entry dropped on the way must be in the bins.
            self.bins = self.binned() + other.binned()
        self.threshold = min(self.threshold, other.threshold)
        self._insert(other.slots)

    def binned(self) -> Ints:
        """Counts of all hashes by bin: as recorded, or from the table while that is complete."""
        if len(self.bins):
            return self.bins
        bins = np.zeros((BIN_ROWS, self.n_bins), np.int64)
        _bin_entries(self.slots, bins)
        return bins

    def settle(self) -> UInts:
        """The `keep` smallest entries, sorted by hash."""
        if self.used >= self.keep:
            self._truncate()
        entries = self._entries()
        return entries[np.argsort(entries[:, _KEY])]

    def load(self, entries: UInts, bins: Ints) -> None:
        """Take over what `settle` and `binned` gave."""
        self.bins = bins
        if len(entries) == self.keep:
            self.threshold = entries[-1, _KEY]
        self._insert(entries)

    def copy(self) -> _SmallestHashes:
        twin = _SmallestHashes(self.keep, self.n_bins)
        twin.slots, twin.used, twin.threshold = self.slots.copy(), self.used, self.threshold
        twin.bins = self.bins.copy()
        return twin

    def _entries(self) -> UInts:
        return self.slots[self.slots[:, _COUNT] > 0]

    def _insert(self, entries: UInts) -> None:
        start = 0
        while True:
            start, self.used = _tally_entries(self.slots, self.used, self.limit, self.threshold, entries, start)
            if start == len(entries):
                return
            self._make_room()

    def _make_room(self) -> None:
        if len(self.slots) < 2 * self.keep:
            entries = self._entries()
            self._resize(2 * len(self.slots))
            self._insert(entries)
        else:
            self._truncate()

    def _truncate(self) -> None:
        if self.n_bins and not len(self.bins):
            self.bins = self.binned()
        entries = self._entries()
        self.threshold = np.partition(entries[:, _KEY], self.keep - 1)[self.keep - 1]
        self._resize(len(self.slots))
        self._insert(entries)

    def _resize(self, capacity: int) -> None:
        self.slots = np.zeros((capacity, 2), np.uint64)
        self.used = 0


class Accumulator:
    """Everything the core metrics need to know about a set of documents; a commutative monoid.

    `zero()` is the identity, `add` and `merge` change it in place, `+` does not. Equal sets of documents have equal
    bytes, however they were split, ordered and merged. It grows with its content up to 5 MiB, for a moment twice that
    while a table is cut. Not to be shared between threads that add.
    """

    def __init__(self, params: DiversityParams | None = None) -> None:
        self.params = params or DiversityParams()
        self._documents = 0
        self._totals: Ints = np.zeros(len(NGRAM_SIZES), np.int64)
        self._lengths: Ints = np.zeros(LENGTH_BUCKETS, np.int64)
        self._tables = [_SmallestHashes(self.params.words, self.params.bins)]
        self._tables += [_SmallestHashes(self.params.ngrams, 0) for _ in NGRAM_SIZES[1:]]

    @classmethod
    def zero(cls, params: DiversityParams | None = None) -> Accumulator:
        return cls(params)

    def add(self, words: Words, select: Bools | None = None) -> None:
        """Count the documents, or those that `select` marks. N-grams do not cross documents."""
        documents = len(words.offsets) - 1
        if select is None:
            select = np.ones(documents, np.bool_)
        elif select.shape != (documents,) or select.dtype != np.bool_:
            raise ValueError(
                f"select has dtype {select.dtype} and shape {select.shape}, the batch has {documents} documents: "
                "pass one bool for each document, or None for all."
            )
        self._documents += _measure_lengths(words.offsets, select, self._lengths, self._totals)
        for size, table in zip(NGRAM_SIZES, self._tables, strict=True):
            table.tally(words, select, size)

    def merge(self, other: Accumulator) -> None:
        if self.params != other.params:
            raise ValueError(
                f"cannot merge diversity measured with {other.params} into {self.params}: "
                "measure both again with the same sizes."
            )
        self._documents += other._documents
        self._totals = self._totals + other._totals
        self._lengths = self._lengths + other._lengths
        for table, other_table in zip(self._tables, other._tables, strict=True):
            table.merge(other_table)

    def __add__(self, other: Accumulator) -> Accumulator:
        total = Accumulator(self.params)
        total._documents, total._totals, total._lengths = self._documents, self._totals, self._lengths
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
        sizes = (self.params.words, self.params.ngrams, self.params.bins)
        filled = np.flatnonzero(self._lengths)
        parts = [
            np.array([*sizes, self._documents, *self._totals, len(filled)], np.uint64),
            filled,
            self._lengths[filled],
        ]
        for table in self._tables:
            entries = table.settle()
            steps = np.diff(entries[:, _KEY], prepend=np.uint64(0))
            parts += [np.array([len(entries)]), steps, entries[:, _COUNT]]
            if table.truncated and table.n_bins:
                parts.append(table.binned().ravel())
        packed = _pack(np.concatenate([part.astype(np.uint64) for part in parts])).tobytes()
        return MAGIC + _checksum(packed) + packed

    @classmethod
    def from_bytes(cls, data: bytes) -> Accumulator:
        reader = _Reader(data)
        words, ngrams, bins, documents, *totals, filled = reader.take(5 + len(NGRAM_SIZES)).tolist()
        accumulator = cls(DiversityParams(words, ngrams, bins))
        accumulator._documents = documents
        accumulator._totals = np.array(totals, np.int64)
        buckets = reader.take(filled)
        accumulator._lengths[buckets] = reader.take(filled)
        for table in accumulator._tables:
            (size,) = reader.take(1).tolist()
            keys = np.cumsum(reader.take(size), dtype=np.uint64)
            entries = np.column_stack([keys, reader.take(size)])
            rows = BIN_ROWS if table.n_bins and size == table.keep else 0
            bins = reader.take(rows * table.n_bins).astype(np.int64)
            table.load(entries, bins.reshape(rows, table.n_bins))
        return accumulator

    def values(self) -> list[Metric]:
        """All metrics that are defined, in a fixed order."""
        documents, tokens = self._documents, int(self._totals[0])
        metrics = [
            Metric("documents", float(documents), documents, "exact"),
            Metric("tokens", float(tokens), tokens, "exact"),
        ]
        spectra = [_Spectrum.of(table) for table in self._tables]
        metrics += _tail_metrics(spectra[0], tokens)
        for size, total, spectrum in zip(NGRAM_SIZES, self._totals.tolist(), spectra, strict=True):
            if total:
                distinct = min(1.0, spectrum.types / total)
                metrics.append(Metric(f"distinct_{size}", _rounded(distinct), total, spectrum.method))
        metrics += _concentration_metrics(spectra[0], self._tables[0], tokens)
        return metrics + _length_metrics(self._lengths, documents)


class _Reader:
    """The numbers of one encoded accumulator, taken in order."""

    def __init__(self, data: bytes) -> None:
        start = len(MAGIC) + CHECKSUM_BYTES
        magic, checksum, packed = data[: len(MAGIC)], data[len(MAGIC) : start], data[start:]
        if magic != MAGIC:
            raise ValueError(
                f"not a diversity accumulator of this version: it starts with {magic!r}, not {MAGIC!r}. "
                "Measure the documents again."
            )
        if checksum != _checksum(packed):
            raise ValueError(
                f"the diversity accumulator of {len(data)} bytes is damaged: its checksum does not match. "
                "Measure the documents again."
            )
        self._numbers = _unpack(np.frombuffer(packed, np.uint8))
        self._at = 0

    def take(self, size: int) -> UInts:
        start, self._at = self._at, self._at + size
        return self._numbers[start : self._at]


def _checksum(packed: bytes) -> bytes:
    return zlib.crc32(packed).to_bytes(CHECKSUM_BYTES, "little")


@dataclass(frozen=True)
class _Spectrum:
    """How many n-grams occur how often, from the kept entries scaled to all."""

    entries: UInts  # the sample: all of the table, or all below the hash that closes it
    share: float  # of the distinct n-grams that the sample holds, on average
    method: str

    @classmethod
    def of(cls, table: _SmallestHashes) -> _Spectrum:
        entries = table.settle()
        if not table.truncated:
            return cls(entries, 1.0, "exact")
        return cls(entries[:-1], int(entries[-1, _KEY]) / HASH_RANGE, f"bottom-{table.keep}")

    @property
    def exact(self) -> bool:
        return self.method == "exact"

    @property
    def types(self) -> float:
        return len(self.entries) / self.share

    def occurring(self, times: int) -> float:
        return float(np.count_nonzero(self.entries[:, _COUNT] == times)) / self.share

    def weighted_counts(self) -> list[tuple[int, int]]:
        """(count, how many sampled n-grams have it), by count."""
        counts, types = np.unique(self.entries[:, _COUNT], return_counts=True)
        return list(zip(counts.tolist(), types.tolist(), strict=True))


def _tail_metrics(words: _Spectrum, tokens: int) -> list[Metric]:
    types = min(words.types, float(tokens))
    once = min(words.occurring(1), types)
    metrics = [
        Metric("types", float(round(types)), tokens, words.method),
        Metric("hapaxes", float(round(once)), tokens, words.method),
    ]
    if tokens:
        unseen = max(0.0, once * (once - 1)) / (2 * (words.occurring(2) + 1))
        metrics += [
            Metric("good_turing", _rounded(once / tokens), tokens, words.method),
            Metric("chao1", _rounded(types + unseen), tokens, words.method),
        ]
    return metrics


def _concentration_metrics(words: _Spectrum, table: _SmallestHashes, tokens: int) -> list[Metric]:
    if not tokens:
        return []
    if words.exact:
        squares_method = entropy_method = words.method
        surprise, squares = _exact_concentration(words)
    else:
        squares_method = f"bins-{BIN_ROWS}x{table.n_bins}"
        entropy_method = f"{squares_method}+{words.method}"
        surprise, squares = _binned_concentration(words, table.binned(), tokens)
    entropy = min(max(0.0, math.log2(tokens) - surprise / tokens), math.log2(tokens))
    repeated = max(0.0, squares - tokens)
    metrics = [Metric("entropy_1", _rounded(entropy), tokens, entropy_method)]
    if tokens > 1:
        metrics.append(Metric("simpson", _rounded(repeated / (tokens * (tokens - 1))), tokens, squares_method))
    metrics.append(Metric("yule_k", _rounded(1e4 * repeated / tokens**2), tokens, squares_method))
    return metrics


def _exact_concentration(words: _Spectrum) -> tuple[float, float]:
    """The sums over all words of count * log2(count) and of count * count."""
    spectrum = words.weighted_counts()
    surprise = math.fsum(types * count * math.log2(count) for count, types in spectrum)
    return surprise, sum(types * count * count for count, types in spectrum)


def _binned_concentration(words: _Spectrum, bins: Ints, tokens: int) -> tuple[float, float]:
    """The same sums, estimated: for each the median over the rows of bins."""
    counts = words.entries[:, _COUNT].tolist()
    surprises, squares = [], []
    for row, in_bin in zip(bins, _bins_of_entries(words.entries, bins).tolist(), strict=True):
        totals = [total for total in row.tolist() if total]
        within = math.fsum(count * math.log2(total / count) for count, total in zip(counts, in_bin, strict=True))
        surprises.append(math.fsum(total * math.log2(total) for total in totals) - within / words.share)
        # Of all ordered pairs of tokens that are different words, one in len(row) meets in a bin by chance.
        met = sum(total * total for total in totals)
        squares.append((met * len(row) - tokens * tokens) / (len(row) - 1))
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
