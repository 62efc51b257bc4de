"""What is measured at equal size: the same number of words from each side, as whole documents drawn without
replacement."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.kernels.diversity.sample import HalfHashes, SampledTexts
from transforms.kernels.diversity.table import Ints, UInts

__all__ = ["Drawn", "WordCounts", "distinct", "draw", "in_pieces", "is_in", "joined", "usual_length", "word_pairs"]

_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)


class WordCounts(NamedTuple):
    words: HalfHashes  # distinct, ascending
    counts: Ints

    @property
    def total(self) -> int:
        return int(self.counts.sum())


class Drawn(NamedTuple):
    """Documents that hold a fixed number of words together; the last one may be cut."""

    words: HalfHashes
    offsets: Ints

    def counted(self) -> WordCounts:
        ordered = np.sort(self.words)
        starts = np.flatnonzero(_is_first(ordered))
        return WordCounts(ordered[starts], np.diff(starts, append=len(ordered)))

    def repeated(self, size: int) -> tuple[int, int]:
        """N-grams that are not the first of their kind, and all n-grams; none crosses documents."""
        keys = _ngrams(self, size)
        return len(keys) - int(_is_first(np.sort(keys)).sum()), len(keys)


def draw(texts: SampledTexts, size: int, order: Ints | None = None) -> Drawn:
    """The first `size` words of the documents in this order; as they come, which is a random one."""
    lengths = np.diff(texts.offsets)
    order = np.arange(len(lengths)) if order is None else order
    reached = np.cumsum(lengths[order])
    taken = order[: int(np.searchsorted(reached, size)) + 1]
    sizes = lengths[taken].copy()
    sizes[-1] -= max(0, int(sizes.sum()) - size)
    before = np.cumsum(sizes) - sizes
    places = np.repeat(texts.offsets[taken] - before, sizes) + np.arange(int(sizes.sum()))
    return Drawn(texts.words[places], np.concatenate([[0], np.cumsum(sizes)]))


def in_pieces(texts: SampledTexts, longest: int) -> SampledTexts:
    """Documents cut into pieces of at most so many words."""
    lengths = np.diff(texts.offsets)
    pieces = -(-lengths // longest)
    number = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = np.repeat(texts.offsets[:-1], pieces) + number * longest
    return SampledTexts(texts.words, np.concatenate([starts, texts.offsets[-1:]]))


def joined(parts: list[SampledTexts]) -> SampledTexts:
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0, *(len(part.words) for part in parts)])
    offsets = [part.offsets[:-1] + start for part, start in zip(parts, before.tolist(), strict=False)]
    return SampledTexts(np.concatenate([part.words for part in parts]), np.concatenate([*offsets, before[-1:]]))


def usual_length(texts: SampledTexts) -> float:
    """Of the document that a word stands in."""
    lengths = np.diff(texts.offsets)
    return float(np.square(lengths, dtype=np.float64).sum() / lengths.sum()) if len(texts.words) else 0.0


def word_pairs(drawn: Drawn) -> UInts:
    """The distinct pairs of words that follow each other, both halves readable."""
    first, second = drawn.words[:-1].astype(np.uint64), drawn.words[1:].astype(np.uint64)
    inside = np.ones(len(first), np.bool_)
    inside[drawn.offsets[1:-1] - 1] = False
    return distinct((first << np.uint64(32) | second)[inside])


def distinct(hashes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Ascending. Sorting some ten thousand takes a tenth of the time of `np.unique`, which fills a hash table."""
    ordered = np.sort(hashes)
    return ordered[_is_first(ordered)]


def is_in(hashes: npt.NDArray[Any], ascending: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(hashes), np.bool_)
    places = np.minimum(np.searchsorted(ascending, hashes), len(ascending) - 1)
    return np.asarray(ascending[places] == hashes)


def _is_first(ordered: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return first


def _ngrams(drawn: Drawn, size: int) -> npt.NDArray[np.uint64]:
    positions = np.arange(max(0, len(drawn.words) - size + 1))
    ends = np.repeat(drawn.offsets[1:], np.diff(drawn.offsets))[: len(positions)]
    keys = np.zeros(len(positions), np.uint64)
    for at in range(size):
        keys = keys * _MULTIPLIER + drawn.words[at : at + len(positions)].astype(np.uint64)
    return keys[positions + size <= ends]
