"""What can only be said with the texts at hand, of a sample of them: compression, self-repetition, templates.

The sample is the documents of the least keys, until they hold enough text. A key is a hash of the words, so it has
nothing to do with what is measured, and copies of a text go together. Whatever is in the sample of a union is in the
sample of its part, so cutting the union of two samples gives one answer in any order.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import pyarrow as pa

from transforms.kernels.diversity.encoding import Column, Columns
from transforms.kernels.diversity.frequencies import ngram_hashes
from transforms.kernels.diversity.keys import document_keys
from transforms.kernels.diversity.metric import Documents, Metric, rounded
from transforms.kernels.diversity.table import Ints, UInts
from transforms.kernels.hashing import byte_spans
from transforms.kernels.text import Words, split_words

__all__ = ["BLOCK_BYTES", "MOST_TEXTS", "MOST_TEXT_BYTES", "Texts"]

MOST_TEXTS = 4096
"""Documents of a sample: beyond, short ones would cost more by their number than by their bytes."""
MOST_TEXT_BYTES = 1 << 18
"""Of one document: what it has beyond is left out, so that a sample holds several."""
BLOCK_BYTES = 1 << 16
ZLIB_LEVEL = 6

REPEATED_WORDS = 4
TEMPLATE_WORDS = 8
TEMPLATE_DOCUMENTS = 3
TEMPLATE_PERCENT = 1

Sampled = tuple[int, bytes]


class Texts:
    """A monoid: documents with words and their bytes in all, and the texts of the least keys, copies included."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.documents = 0
        self._bytes = 0
        self._sample: list[Sampled] = []

    def add(self, documents: Documents) -> None:
        words, numbers = documents.words, documents.numbers[documents.lengths() > 0]
        data, starts, stops = byte_spans(documents.texts)
        starts, stops = starts[numbers], stops[numbers]
        self.documents += len(numbers)
        self._bytes += int((stops - starts).sum())
        keys = document_keys(words, numbers)
        places = self._eligible(keys, stops - starts)
        view = data.data
        spans = zip(keys[places].tolist(), starts[places].tolist(), stops[places].tolist(), strict=True)
        self._take([(key, _cut(bytes(view[start:stop]))) for key, start, stop in spans])

    def _eligible(self, keys: UInts, sizes: Ints) -> Ints:
        """Which documents of a batch may come into the sample, so that only their texts are looked at."""
        places = np.argsort(keys, kind="stable")
        if self._is_cut:
            places = places[: np.searchsorted(keys[places], np.uint64(self._sample[-1][0]), side="right")]
        certain = np.where(sizes > MOST_TEXT_BYTES, MOST_TEXT_BYTES - 3, sizes)  # of a long text, up to a character
        enough = int(np.searchsorted(np.cumsum(certain[places]), self._most_bytes)) + 1
        enough = min(enough, MOST_TEXTS, len(places))
        # Which documents of the same key stay is decided by their text.
        return places[: np.searchsorted(keys[places], keys[places[enough - 1]], side="right")] if enough else places

    def merge(self, other: Texts) -> None:
        self.documents += other.documents
        self._bytes += other._bytes
        self._take(other._sample)

    def _take(self, more: list[Sampled]) -> None:
        """Keep the shortest beginning of the ordered union that holds enough bytes or documents."""
        sample = sorted(self._sample + more)
        held, size = 0, 0
        for _, text in sample[:MOST_TEXTS]:
            if size >= self._most_bytes:
                break
            size += len(text)
            held += 1
        self._sample = sample[:held]

    @property
    def _is_cut(self) -> bool:
        return len(self._sample) >= MOST_TEXTS or sum(len(text) for _, text in self._sample) >= self._most_bytes

    def columns(self) -> list[Column]:
        joined = b"".join(text for _, text in self._sample)
        packed = pa.compress(joined, codec="zstd", asbytes=True) if joined else b""
        return [
            np.array([self.documents, self._bytes, len(joined)]),
            np.array([key for key, _ in self._sample], np.uint64),
            np.array([len(text) for _, text in self._sample], np.int64),
            np.frombuffer(packed, np.uint8),
        ]

    def read(self, columns: Columns) -> None:
        self.documents, self._bytes, size = columns.take().tolist()
        keys, sizes, packed = columns.take(), columns.take(), columns.take().tobytes()
        joined = pa.decompress(packed, size, codec="zstd", asbytes=True) if size else b""
        ends = np.cumsum(sizes, dtype=np.int64)
        self._sample = [
            (key, joined[end - length : end])
            for key, end, length in zip(keys.tolist(), ends.tolist(), sizes.tolist(), strict=True)
        ]

    def values(self) -> list[Metric]:
        if not self._sample:
            return []
        texts = [text for _, text in self._sample]
        is_whole = sum(map(len, texts)) == self._bytes and len(texts) == self.documents
        method = "exact" if is_whole else f"texts-{self._most_bytes}"
        words = split_words(pa.array(texts, pa.binary()).cast(pa.string()))
        return [
            Metric(name, rounded(value), len(texts), method)
            for name, value in (
                ("self_repetition_4", _self_repetition(words)),
                ("compression_ratio", _compression_ratio(texts)),
                ("template_rate", _template_rate(words)),
            )
        ]


def _cut(text: bytes) -> bytes:
    """The beginning of a long text, up to the end of a character."""
    if len(text) <= MOST_TEXT_BYTES:
        return text
    end = MOST_TEXT_BYTES
    while text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]


def _compression_ratio(texts: list[bytes]) -> float:
    """Bytes before and after DEFLATE, in blocks of the texts in order of their keys: what repeats across 64 KiB is not
    seen, so that the ratio does not depend on how much text there is."""
    joined = b"\n".join(texts)
    blocks = [joined[start : start + BLOCK_BYTES] for start in range(0, len(joined), BLOCK_BYTES)]
    return len(joined) / sum(len(zlib.compress(block, ZLIB_LEVEL)) for block in blocks)


def _self_repetition(words: Words) -> float:
    """The mean over documents of ln(1 + sum over their distinct 4-grams of the other documents that hold them)."""
    gram_documents, grams = _distinct_ngrams(words, REPEATED_WORDS)
    n_documents = len(words.offsets) - 1
    if not len(grams):
        return 0.0
    others = np.bincount(grams)[grams] - 1
    met = np.bincount(gram_documents, weights=others, minlength=n_documents)
    return math.fsum(np.log1p(met)) / n_documents


def _template_rate(words: Words) -> float:
    """The share of documents that hold a run of 8 words which stands in 1% of them, and in three at least."""
    gram_documents, grams = _distinct_ngrams(words, TEMPLATE_WORDS)
    n_documents = len(words.offsets) - 1
    if not len(grams):
        return 0.0
    enough = max(TEMPLATE_DOCUMENTS, -(-TEMPLATE_PERCENT * n_documents // 100))
    templates = np.bincount(grams)[grams] >= enough
    return len(np.unique(gram_documents[templates])) / n_documents


def _distinct_ngrams(words: Words, size: int) -> tuple[Ints, Ints]:
    """For each document and each n-gram that it holds, once: the document, and a number for the n-gram."""
    hashes, documents = ngram_hashes(words, size)
    order = np.lexsort((documents, hashes))
    hashes, documents = hashes[order], documents[order]
    is_new = np.ones(len(hashes), np.bool_)
    is_new[1:] = hashes[1:] != hashes[:-1]
    numbers = np.cumsum(is_new) - 1
    is_first = is_new.copy()
    is_first[1:] |= documents[1:] != documents[:-1]
    return documents[is_first], numbers[is_first]
