"""Held-out human text of one language: its works, its words, and what of them a text of any size has.

A work is one file of the reference. What a work itself says of the others is measured against the reference without
it: subtracting it is exact, because a sample of words that is kept in the end was kept in every part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from transforms.kernels.diversity.accumulator import Accumulator
from transforms.kernels.diversity.encoding import Column, Columns
from transforms.kernels.diversity.equal_size import WordCounts, is_in, usual_length
from transforms.kernels.diversity.sample import HalfHashes, SampledTexts, halves_of
from transforms.kernels.diversity.table import BIN_BITS, COUNT, KEY, Floats, Ints, Table, UInts

__all__ = ["MOST_WORKS", "RARE_BANDS", "Coverage", "Reference", "Work", "band_name"]

RARE_BANDS = ((1, 1), (2, 3), (4, 7), (8, 15))
"""Words are rare that the reference has so often."""
MOST_WORKS = 256
"""Of one domain whose texts are kept: enough for a null, and bounded."""

_BIN_ROW = 32 // BIN_BITS
"""The row of bins that is chosen by the low bits of the high half of a hash."""


class Work(NamedTuple):
    """One file of the reference, as far as it is in one language."""

    name: str
    domain: str
    texts: SampledTexts
    tokens: int
    counts: Ints  # of the reference's words
    bins: Ints


class Coverage(NamedTuple):
    """By band, the distinct rare words that the reference has, and those of them that were seen."""

    types: Ints
    seen: Ints

    @property
    def share(self) -> float:
        return float(self.seen.sum() / self.types.sum()) if self.types.sum() else 0.0


def band_name(band: tuple[int, int]) -> str:
    first, last = band
    return str(first) if first == last else f"{first}_{last}"


class Met(NamedTuple):
    """A text beside the words of a reference, in shares of the text."""

    shared: Floats  # of each word of the reference
    alone: float  # of all words that the reference does not list
    bins: Floats
    new_shares: Floats  # of those words that it would list if it had them
    new_places: Ints  # their bins


class Reference:
    """The words of one language's reference, and its works."""

    def __init__(
        self,
        words: HalfHashes,
        counts: Ints,
        level: int,
        keep: int,
        bins: Ints,
        tokens: int,
        works: Sequence[Work],
    ) -> None:
        self.words = words
        self.counts = counts
        self.level = level
        self.keep = keep
        self.bins = bins
        self.tokens = tokens
        self.works = tuple(works)
        self.usual_lengths = [usual_length(work.texts) for work in self.works]

    @classmethod
    def of(cls, read: Callable[[], Iterator[tuple[str, str, Accumulator]]], language: int) -> Reference:
        """From (name, domain, accumulator) of each file, of one language; they are read twice, one at a time."""
        total: Table | None = None
        tokens = 0
        chosen: dict[str, list[tuple[int, str]]] = {}
        for name, domain, accumulator in read():
            total = total or Table(accumulator.params.words, accumulator.params.bins)
            total.merge(accumulator.words)
            tokens += accumulator.tokens
            chosen.setdefault(domain, []).append((_place(name), name))
        if total is None:
            raise ValueError("a reference needs a file at least; leave out what has none.")
        kept = {name for works in chosen.values() for _, name in sorted(works)[:MOST_WORKS]}
        entries = total.entries()
        works = []
        for name, domain, accumulator in read():
            if name in kept:
                texts = accumulator.sample.texts(language)
                counts = _counts_of(accumulator.words, entries[:, KEY])
                works.append(
                    Work(name, domain, texts, accumulator.tokens, counts, _bins_of(accumulator.words, total.n_bins))
                )
        words = halves_of(entries[:, KEY])
        return cls(
            words,
            entries[:, COUNT].astype(np.int64),
            total.level,
            total.keep,
            _bins_of(total, total.n_bins),
            tokens,
            works,
        )

    def without(self, works: Sequence[int]) -> Reference:
        """What is left of the words when these works are taken out."""
        if not works:
            return self
        counts, bins, tokens = self.counts.copy(), self.bins.copy(), self.tokens
        for number in works:
            work = self.works[number]
            counts -= work.counts
            bins -= work.bins
            tokens -= work.tokens
        return Reference(self.words, counts, self.level, self.keep, bins, tokens, ())

    def method(self, size: int) -> str:
        """How what a text of so many words has in common with all of these was found."""
        return f"words-{size}" + (f"+bins-{len(self.bins)}+sample-{self.keep}" if self.level else "")

    def meet(self, counted: WordCounts) -> Met:
        """A text's words beside the reference's; what is left of the reference without some works has the same."""
        shares: Floats = counted.counts / counted.total
        is_new = ~is_in(counted.words, self.words)
        places = counted.words.astype(np.int64) & (len(self.bins) - 1)
        admitted = counted.words <= np.uint32((1 << 32 - self.level) - 1)
        return Met(
            shared=_counts_at(self.words, counted) / counted.total,
            alone=float(shares[is_new].sum()),
            bins=np.bincount(places, weights=shares, minlength=len(self.bins)).astype(np.float64),
            new_shares=shares[is_new & admitted],
            new_places=places[is_new & admitted],
        )

    def coverage(self, met: Met) -> Coverage:
        """How many of the rare words, by band, occur in a text."""
        is_seen = met.shared > 0
        in_bands = [(self.counts >= first) & (self.counts <= last) for first, last in RARE_BANDS]
        types = [int(band.sum()) << self.level for band in in_bands]
        seen = [int((band & is_seen).sum()) << self.level for band in in_bands]
        return Coverage(np.array(types, np.int64), np.array(seen, np.int64))

    def divergence(self, met: Met) -> float:
        """The Jensen-Shannon divergence of two distributions of words, to base 2: from 0 to 1.

        Above level 0 the reference's words are known by bins, and by a sample. The divergence of the bins, less what
        the words of a bin diverge differently from the bin, which the sample estimates.
        """
        there: Floats = self.counts / self.tokens
        of_words = _diverging(met.shared, there)
        if self.level == 0:
            return float(of_words.sum() + met.alone / 2)
        of_bins: Floats = self.bins / self.tokens
        diverging = _diverging(met.bins, of_bins)
        share = np.divide(diverging, met.bins + of_bins, out=np.zeros_like(diverging), where=diverging > 0)
        known = self.words.astype(np.int64) & (len(self.bins) - 1)
        more = float((of_words - share[known] * (met.shared + there)).sum())
        more += float((met.new_shares * (1 / 2 - share[met.new_places])).sum())
        return min(max(0.0, float(diverging.sum()) + more * 2.0**self.level), 1.0)

    def columns(self) -> list[Column]:
        found: list[Column] = [
            self.words,
            self.counts,
            np.array([self.level, self.keep, self.tokens, len(self.works)]),
            self.bins,
        ]
        for work in self.works:
            names = np.frombuffer(f"{work.domain}\0{work.name}".encode(), np.uint8)
            found += [names, work.texts.words, work.texts.offsets, np.array([work.tokens]), work.counts, work.bins]
        return found

    @classmethod
    def read(cls, columns: Columns) -> Reference:
        words, counts = columns.take().astype("<u4"), columns.take().astype(np.int64)
        level, keep, tokens, n_works = columns.take().tolist()
        bins = columns.take().astype(np.int64)
        works = []
        for _ in range(n_works):
            domain, name = columns.take().tobytes().decode().split("\0", 1)
            texts = SampledTexts(columns.take().astype("<u4"), columns.take().astype(np.int64))
            own = int(columns.take()[0])
            works.append(
                Work(name, domain, texts, own, columns.take().astype(np.int64), columns.take().astype(np.int64))
            )
        return cls(words, counts, level, keep, bins, tokens, works)


def _place(name: str) -> int:
    """Which works are kept where they are too many: as good as any, and the same every time."""
    return xxhash.xxh3_64_intdigest(name.encode())


def _counts_of(table: Table, words: UInts) -> Ints:
    """How often a part of the reference has each of the reference's words."""
    entries = table.entries()
    counts = np.zeros(len(words), np.int64)
    entries = entries[is_in(entries[:, KEY], words)]
    counts[np.searchsorted(words, entries[:, KEY])] = entries[:, COUNT]
    return counts


def _bins_of(table: Table, n_bins: int) -> Ints:
    if table.level:
        return table.bins[_BIN_ROW].copy()
    entries = table.entries()
    places = halves_of(entries[:, KEY]).astype(np.int64) & (n_bins - 1)
    return np.bincount(places, weights=entries[:, COUNT], minlength=n_bins).astype(np.int64)


def _counts_at(words: HalfHashes, counted: WordCounts) -> Ints:
    places = np.minimum(np.searchsorted(counted.words, words), max(0, len(counted.words) - 1))
    return np.where(counted.words[places] == words, counted.counts[places], 0)


def _diverging(p: Floats, q: Floats) -> Floats:
    """What a word, or a bin of words, of these two shares adds to the divergence."""
    return (_surprise(p, q) + _surprise(q, p)) / 2


def _surprise(p: Floats, q: Floats) -> Floats:
    return p * np.log2(np.divide(2 * p, p + q, out=np.ones_like(p), where=p > 0))
