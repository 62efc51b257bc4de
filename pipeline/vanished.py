"""What a set of documents lacks, in words: text for hashes, found again in the held-out text they come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline.comparison import printable
from transforms.batches import Split
from transforms.kernels.columns import ColumnMap, MissingColumn
from transforms.kernels.diversity.equal_size import Drawn, word_pairs
from transforms.kernels.diversity.sample import halves_of
from transforms.kernels.records import UnreadableFile, read_records
from transforms.kernels.text import split_words
from transforms.sidecars import file_format, opener

__all__ = ["spelled"]

_MOST_BYTES = 64 << 20
"""Of text that is looked through: what three in four draws of the reference have stands early in it."""
_LONGEST = 40

_RUN = re.compile(r"(?:[^\W_]|[\u0300-\u036f\u0483-\u0489\u064b-\u065f\u0900-\u0dff\u0e00-\u109f\u1ab0-\u1aff])+")
"""Runs that may be words; whether they are, and which, their hashes say."""


def spelled(splits: Sequence[Split], columns: ColumnMap, wanted: Iterable[str]) -> dict[str, str]:
    """Words, and pairs of words, by the hexadecimal halves of their hashes; what is not found again is left out."""
    missing = {int(key, 16): key for key in wanted}
    pairs = np.array(sorted(key for key, told in missing.items() if len(told) > 8), np.uint64)
    words = np.array(sorted(key for key, told in missing.items() if len(told) <= 8), np.uint32)
    found: dict[str, str] = {}
    for texts in _texts(splits, columns):
        if len(found) == len(missing):
            break
        for text in _holding(texts, words, pairs):
            runs = [match.group() for match in _RUN.finditer(text)]
            candidates = {*runs, *(char for run in runs if not run.isascii() for char in run)}
            candidates |= {f"{first} {second}" for first, second in pairwise(runs)}
            for key, spelling in _keys(sorted(candidates)):
                if key in missing:
                    found.setdefault(missing[key], printable(spelling[:_LONGEST].casefold()))
    return found


def _texts(splits: Sequence[Split], columns: ColumnMap) -> Iterator[pa.Array]:
    read = 0
    for split in splits:
        try:
            for batch in read_records(
                opener(split),
                split.path,
                file_format(split),
                columns,
                row_groups=split.row_groups,
                first_row=split.first_row,
            ):
                yield batch["text"]
                read += batch["text"].nbytes
                if read > _MOST_BYTES:
                    return
        except (UnreadableFile, MissingColumn, OSError):
            continue  # it was readable when it was indexed; examples are worth no failure


def _holding(texts: pa.Array, words: np.ndarray, pairs: np.ndarray) -> Iterator[str]:
    """The documents that have something that is looked for."""
    split = split_words(texts)
    halves = halves_of(split.hashes)
    places = np.flatnonzero(np.isin(halves, words))
    documents = set(np.searchsorted(split.offsets, places, side="right").tolist())
    keys = halves[:-1].astype(np.uint64) << np.uint64(32) | halves[1:].astype(np.uint64)
    documents |= set(np.searchsorted(split.offsets, np.flatnonzero(np.isin(keys, pairs)), side="right").tolist())
    for number in sorted(documents):
        text = texts[number - 1].as_py()
        if text is not None:
            yield text


def _keys(candidates: Sequence[str]) -> Iterator[tuple[int, str]]:
    split = split_words(pa.array(candidates, pa.string()))
    halves = halves_of(split.hashes)
    for spelling, (start, end) in zip(candidates, pairwise(split.offsets.tolist()), strict=True):
        if end - start == 1:
            yield int(halves[start]), spelling
        elif end - start == 2:
            yield int(word_pairs(Drawn(halves[start:end], np.array([0, 2])))[0]), spelling
