"""How often words and n-grams occur: exact totals, and a table for each n-gram size."""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from transforms.kernels.diversity.encoding import Column, Columns
from transforms.kernels.diversity.metric import Documents, Metric
from transforms.kernels.diversity.params import DiversityParams
from transforms.kernels.diversity.spectrum import (
    Spectrum,
    concentration_metrics,
    distinct_metric,
    entropy_metric,
    hdd_metric,
    tail_metrics,
)
from transforms.kernels.diversity.table import LEVEL, Ints, Table, UInts, add_to_bins, count_admitted, greatest_of
from transforms.kernels.text import Words

__all__ = ["NGRAM_SIZES", "Frequencies", "ngram_hashes"]

NGRAM_SIZES = (1, 2, 3, 4)

WORDS_AT_ONCE = 1024

_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)
_SQUARED = np.uint64(0x9FB21C651E98DF25**2 % 2**64)
_CUBED = np.uint64(0x9FB21C651E98DF25**3 % 2**64)
"""Word hashes are spread evenly, so sums of their multiples are, too: an n-gram needs no further mixing."""


class Frequencies:
    """A monoid: the number of n-grams of each size, and of their distinct hashes what a `Table` keeps."""

    def __init__(self, params: DiversityParams) -> None:
        self._full = params.full
        self.totals: Ints = np.zeros(len(NGRAM_SIZES), np.int64)
        self.tables = [Table(params.words, params.bins)]
        self.tables += [Table(params.ngrams, params.bins if params.full else 0) for _ in NGRAM_SIZES[1:]]

    def add(self, documents: Documents) -> None:
        words, numbers, lengths = documents.words, documents.numbers, documents.lengths()
        for place, size in enumerate(NGRAM_SIZES):
            self.totals[place] += np.maximum(0, lengths - (size - 1)).sum()
        for table in self.tables:
            table.make_room(int(lengths.sum()))
        scratch = max((table.scratch() for table in self.tables), key=len)
        admitted = np.empty(WORDS_AT_ONCE, np.uint64)
        if self._full:
            keys = np.empty(WORDS_AT_ONCE, np.uint64)
            for size, table in zip(NGRAM_SIZES, self.tables, strict=True):
                space = (table.slots, table.state, table.bins, scratch, admitted, keys)
                _count_in_bins(words.hashes, words.offsets, numbers, size, *space)
            return
        tables = [array for table in self.tables for array in (table.slots, table.state)]
        bins = self.tables[0].bins, self.tables[1].bins
        _count_words(words.hashes, words.offsets, numbers, *bins, scratch, admitted, *tables)

    def merge(self, other: Frequencies) -> None:
        self.totals += other.totals
        for table, other_table in zip(self.tables, other.tables, strict=True):
            table.merge(other_table)

    def columns(self) -> list[Column]:
        return [self.totals, *(column for table in self.tables for column in table.columns())]

    def read(self, columns: Columns) -> None:
        self.totals[:] = columns.take()
        for table in self.tables:
            table.read(columns)

    def values(self) -> list[Metric]:
        words, totals = Spectrum(self.tables[0]), self.totals.tolist()
        metrics = [Metric("tokens", float(totals[0]), totals[0], "exact")]
        metrics += tail_metrics(words, totals[0])
        for size, total, table in zip(NGRAM_SIZES, totals, self.tables, strict=True):
            metrics += distinct_metric(f"distinct_{size}", table, total)
        metrics += entropy_metric("entropy_1", words, totals[0])
        metrics += concentration_metrics(words, totals[0])
        if self._full:
            for size, total, table in zip(NGRAM_SIZES[1:], totals[1:], self.tables[1:], strict=True):
                metrics += entropy_metric(f"entropy_{size}", Spectrum(table), total)
            metrics += hdd_metric(words, totals[0])
        return metrics


def ngram_hashes(words: Words, size: int) -> tuple[UInts, Ints]:
    """Hashes of the n-grams of a few documents, and the document each one stands in; any size."""
    positions = np.arange(max(0, len(words.hashes) - size + 1))
    documents = np.repeat(np.arange(len(words.offsets) - 1), np.diff(words.offsets))[: len(positions)]
    whole = positions + size <= words.offsets[documents + 1]
    hashes = np.zeros(len(positions), np.uint64)
    for at in range(size):
        hashes = hashes * _MULTIPLIER + words.hashes[at : at + len(positions)]
    return hashes[whole], documents[whole]


@njit(nogil=True, cache=True, _nrt=False)
def _count_hashes(
    hashes: UInts, start: int, end: int, slots: UInts, state: Ints, bins: Ints, scratch: UInts, admitted: UInts
) -> None:
    """Count in the table, and above level 0 in the bins.

    Which hashes a level admits cannot be foreseen by a processor, so they are first picked without a branch.
    """
    greatest = greatest_of(state)
    while start < end and state[LEVEL] == 0:
        greatest = count_admitted(slots, state, bins, scratch, hashes[start], uint64(1))
        start += 1
    while start < end:
        stop = min(start + admitted.shape[0], end)
        size = 0
        for at in range(start, stop):
            key = hashes[at]
            add_to_bins(bins, key, 1)
            admitted[size] = key
            size += int(key <= greatest)
        for index in range(size):
            if admitted[index] <= greatest:
                greatest = count_admitted(slots, state, bins, scratch, admitted[index], uint64(1))
        start = stop


@njit(nogil=True, cache=True, _nrt=False)
def _count_words(
    words: UInts,
    offsets: Ints,
    documents: Ints,
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
    """Count words and n-grams of the documents in one pass; tables must have room for all of them."""
    one = uint64(1)
    greatest_2, greatest_3, greatest_4 = greatest_of(state_2), greatest_of(state_3), greatest_of(state_4)
    for document in documents:
        start, end = offsets[document], offsets[document + 1]
        _count_hashes(words, start, end, slots_1, state_1, bins, scratch, admitted)
        last, last_but_one, last_but_two = uint64(0), uint64(0), uint64(0)
        for at in range(start, end):
            word = words[at]
            key = last * _MULTIPLIER + word
            if key <= greatest_2 and at >= start + 1:
                greatest_2 = count_admitted(slots_2, state_2, no_bins, scratch, key, one)
            key += last_but_one * _SQUARED
            if key <= greatest_3 and at >= start + 2:
                greatest_3 = count_admitted(slots_3, state_3, no_bins, scratch, key, one)
            key += last_but_two * _CUBED
            if key <= greatest_4 and at >= start + 3:
                greatest_4 = count_admitted(slots_4, state_4, no_bins, scratch, key, one)
            last_but_two, last_but_one, last = last_but_one, last, word


@njit(nogil=True, cache=True, _nrt=False)
def _count_in_bins(
    words: UInts,
    offsets: Ints,
    documents: Ints,
    size: int,
    slots: UInts,
    state: Ints,
    bins: Ints,
    scratch: UInts,
    admitted: UInts,
    keys: UInts,
) -> None:
    """Count the n-grams of one size, in bins as well."""
    by_last = _MULTIPLIER if size >= 2 else uint64(0)
    by_last_but_one = _SQUARED if size >= 3 else uint64(0)
    by_last_but_two = _CUBED if size >= 4 else uint64(0)
    for document in documents:
        start, end = offsets[document], offsets[document + 1]
        last, last_but_one, last_but_two = uint64(0), uint64(0), uint64(0)
        at = start
        while at < end:
            stop = min(at + keys.shape[0], end)
            made = 0
            while at < stop:
                word = words[at]
                keys[made] = word + last * by_last + last_but_one * by_last_but_one + last_but_two * by_last_but_two
                made += int(at >= start + size - 1)
                last_but_two, last_but_one, last = last_but_one, last, word
                at += 1
            _count_hashes(keys, 0, made, slots, state, bins, scratch, admitted)
