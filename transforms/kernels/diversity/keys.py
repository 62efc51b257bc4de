"""Names of documents and languages as hashes: the order in which samples take documents."""

from __future__ import annotations

import numpy as np
import xxhash
from numba import njit, uint64

from transforms.kernels.diversity.table import Ints, UInts
from transforms.kernels.hashing import mix64
from transforms.kernels.text import Words

__all__ = ["document_keys", "language_key"]


def document_keys(words: Words, numbers: Ints) -> UInts:
    """One for each numbered document: a sum of hashes, because it is fast. Documents of the same words in another order
    have the same key, and whoever keeps them tells them apart by what they hold."""
    keys = np.empty(len(numbers), np.uint64)
    _make_keys(words.hashes, words.offsets, numbers, keys)
    return keys


def language_key(name: str | None) -> int:
    """0 where a document does not say its language."""
    return xxhash.xxh3_64_intdigest(name.encode()) if name else 0


@njit(nogil=True, cache=True, _nrt=False)
def _make_keys(words: UInts, offsets: Ints, documents: Ints, keys: UInts) -> None:
    for index in range(documents.shape[0]):
        document = documents[index]
        # Places without a sign: numba would ask of each whether it counts from the end, and add one word at a time.
        start, end = uint64(offsets[document]), uint64(offsets[document + 1])
        total = end - start
        for at in range(start, end):
            total += words[at]
        keys[index] = mix64(total)
