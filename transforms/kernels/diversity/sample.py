"""A sample of whole documents, as the hashes of their words: what sets of any size are compared by at equal size.

How many words, rare words and repeated phrases a text has depends on how much of it there is, and drawing words one by
one, or with replacement, would lose what tells texts apart. So every accumulator keeps the documents with the least
keys, until these hold a fixed number of words. A key is a hash, which has nothing to do with what is measured, so
any beginning of the sample is a random set of whole documents, drawn without replacement.

A text counts once, however often it was added: copies are what deduplication is about, and would fill the sample.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from transforms.kernels.diversity.encoding import Column, Columns
from transforms.kernels.diversity.keys import document_keys
from transforms.kernels.diversity.metric import Documents, Metric
from transforms.kernels.diversity.table import Bools, Ints, UInts
from transforms.kernels.hashing import mix64

__all__ = ["MOST_DOCUMENTS", "PARTS", "HalfHashes", "Sample", "SampledTexts", "halves_of", "most_sample_bytes"]

MOST_DOCUMENTS = 1 << 11
"""Beyond, short documents would cost more by their number than by their words."""
PARTS = 4
"""Of a document longer than a quarter of the sample only so much is kept: a sample holds several."""

_DOCUMENT_BYTES = 32
_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)

HalfHashes = npt.NDArray[np.uint32]
"""The high halves of the hashes of words: enough to tell some ten thousand apart, they say what a `Table` of any level
admits, and hold all bits of its last row of bins."""


class SampledTexts(NamedTuple):
    """Documents in the order of their keys: document i owns words[offsets[i]:offsets[i + 1]]."""

    words: HalfHashes
    offsets: Ints


class _Documents(NamedTuple):
    keys: UInts
    languages: UInts
    orders: UInts  # hashes of the words in their order, which keys do not know
    sizes: Ints
    words: HalfHashes

    def and_then(self, more: _Documents) -> _Documents:
        return _Documents(
            np.concatenate([self.keys, more.keys]),
            np.concatenate([self.languages, more.languages]),
            np.concatenate([self.orders, more.orders]),
            np.concatenate([self.sizes, more.sizes]),
            np.concatenate([self.words, more.words]),
        )

    def take(self, places: Ints | Bools) -> _Documents:
        starts = np.cumsum(self.sizes) - self.sizes
        starts, sizes = starts[places], self.sizes[places]
        words = self.words[_positions(starts, sizes)]
        return _Documents(self.keys[places], self.languages[places], self.orders[places], sizes, words)


_NOTHING = _Documents(
    np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, "<u4")
)


class Sample:
    """A monoid: the distinct documents with words that have the least keys, until they hold `most` words."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = _NOTHING

    def add(self, documents: Documents) -> None:
        words, numbers = documents.words, documents.numbers[documents.lengths() > 0]
        sizes = np.minimum(np.diff(words.offsets)[numbers], self._most_of_one)
        keys = document_keys(words, numbers)
        places = self._eligible(keys, sizes)
        if not len(places):
            return
        numbers, sizes = numbers[places], sizes[places]
        taken = halves_of(words.hashes[_positions(words.offsets[numbers], sizes)])
        codes = documents.languages
        languages = np.zeros(len(places), np.uint64) if codes is None else codes[numbers]
        self._take(_Documents(keys[places], languages, _orders(taken, sizes), sizes, taken))

    def _eligible(self, keys: UInts, sizes: Ints) -> Ints:
        """Which documents of a batch may come into the sample, so that only their words are looked at."""
        places = np.arange(len(keys))
        if self._is_cut:
            places = np.flatnonzero(keys <= self._held.keys[-1])
        places = places[np.argsort(keys[places], kind="stable")]
        ordered = keys[places]
        is_new = np.ones(len(ordered), np.bool_)
        is_new[1:] = ordered[1:] != ordered[:-1]  # documents of the same key may be copies, which do not count
        enough = self._enough(np.where(is_new, sizes[places], 0), is_new)
        return places[: np.searchsorted(ordered, ordered[enough - 1], side="right")] if enough else places

    def merge(self, other: Sample) -> None:
        self._take(other._held)

    def _take(self, more: _Documents) -> None:
        """Keep the shortest beginning of the ordered union that holds enough words or documents."""
        held = self._held.and_then(more)
        order = np.lexsort((held.orders, held.languages, held.keys))
        is_new = np.zeros(len(order), np.bool_)
        is_new[:1] = True
        for column in (held.keys[order], held.languages[order], held.orders[order]):
            is_new[1:] |= column[1:] != column[:-1]
        order = order[is_new]
        self._held = held.take(order[: self._enough(held.sizes[order], np.ones(len(order), np.bool_))])

    def _enough(self, sizes: Ints, counts: Bools) -> int:
        """How long the shortest beginning is that fills the sample."""
        by_words = int(np.searchsorted(np.cumsum(sizes), self._most)) + 1
        by_documents = int(np.searchsorted(np.cumsum(counts), MOST_DOCUMENTS)) + 1
        return min(by_words, by_documents, len(sizes))

    @property
    def _most_of_one(self) -> int:
        return max(1, self._most // PARTS)

    @property
    def _is_cut(self) -> bool:
        return len(self._held.sizes) >= MOST_DOCUMENTS or int(self._held.sizes.sum()) >= self._most

    def columns(self) -> list[Column]:
        names, languages = np.unique(self._held.languages, return_inverse=True)
        return [self._held.keys, names, languages, self._held.sizes, self._held.words]

    def read(self, columns: Columns) -> None:
        keys, names, languages = columns.take().astype(np.uint64), columns.take().astype(np.uint64), columns.take()
        sizes, words = columns.take().astype(np.int64), columns.take().astype("<u4")
        self._held = _Documents(keys, names[languages], _orders(words, sizes), sizes, words)

    def values(self) -> list[Metric]:
        return []

    def words_by_language(self) -> dict[int, int]:
        """The words of each language's sampled documents, by `language_key`."""
        names, places = np.unique(self._held.languages, return_inverse=True)
        words = np.bincount(places, weights=self._held.sizes, minlength=len(names)).astype(np.int64)
        return dict(zip(names.tolist(), words.tolist(), strict=True))

    def texts(self, language: int) -> SampledTexts:
        """The sampled documents of one language: a sample of all of them that were added."""
        mine = self._held.take(self._held.languages == np.uint64(language))
        return SampledTexts(mine.words, np.concatenate([[0], np.cumsum(mine.sizes)]))


def halves_of(hashes: UInts) -> HalfHashes:
    return (hashes >> np.uint64(32)).astype("<u4")


def most_sample_bytes(most: int) -> int:
    """Bound on the memory of a sample: its words, the last document, and what each document has beside words."""
    return 4 * (most + most // PARTS) + _DOCUMENT_BYTES * MOST_DOCUMENTS


def _positions(starts: Ints, sizes: Ints) -> Ints:
    """The places of the words of documents that begin at `starts`."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))


def _orders(words: HalfHashes, sizes: Ints) -> UInts:
    orders = np.empty(len(sizes), np.uint64)
    _hash_in_order(words, sizes, orders)
    return orders


@njit(nogil=True, cache=True, _nrt=False)
def _hash_in_order(words: HalfHashes, sizes: Ints, orders: UInts) -> None:
    at = 0
    for index in range(sizes.shape[0]):
        total = uint64(sizes[index])
        for _ in range(sizes[index]):
            total = total * _MULTIPLIER + uint64(words[at])
            at += 1
        orders[index] = mix64(total)
