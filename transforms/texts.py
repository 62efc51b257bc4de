"""Texts of indexed documents: read again from their file, or kept from the stage that read it first.

FACTS reads every text, EDGES those that may be duplicates, MIX those that it writes. Reading three times keeps memory
flat however large the input is. Input that fits in memory beside the rest is read once instead, where one process does
all the work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.batches import Split
from transforms.kernels.gather import ChunkedTexts
from transforms.kernels.hashing import text_digests
from transforms.kernels.records import ColumnMap, read_texts_at
from transforms.sidecars import digests_of, file_format, opener

MOST_KEPT_BYTES = 256 << 20

_room = 0
_kept: dict[str, ChunkedTexts] = {}  # by the path of a split's facts, which names all that decides its content
_counting = threading.Lock()


def keep_texts(most_bytes: int) -> None:
    """Let go of all texts kept in memory, and keep at most so many bytes of those read from now on."""
    global _room
    with _counting:
        _kept.clear()
        _room = most_bytes


class Keeper:
    """Takes the texts of one split as they are read; keeps all of them or none."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._texts: list[pa.Array] | None = []
        self._bytes = 0

    def add(self, texts: pa.Array) -> None:
        """Those of the next rows of the split's facts."""
        if self._texts is None:
            return
        self._bytes += texts.nbytes
        self._texts.append(texts)
        if self._bytes > _room:
            self._texts = None

    def keep(self) -> None:
        """All were added."""
        global _room
        with _counting:
            if self._texts is not None and self._bytes <= _room:
                _kept[self._split.facts] = ChunkedTexts.of(self._texts)
                _room -= self._bytes


def kept_texts(facts: str) -> ChunkedTexts | None:
    """The texts of a split, by the path of its facts and row for row beside them, if they are kept."""
    return _kept.get(facts)


def texts_at(split: Split, columns: ColumnMap, facts: pa.Table, places: npt.NDArray[np.int64]) -> Iterator[pa.Array]:
    """The texts of the documents at these places of a split's facts, up to the first that is not what was indexed.

    Args:
        facts: with row, part and digest.
    """
    kept = kept_texts(split.facts)
    if kept is not None:  # what was indexed itself
        kept = kept.at(places)
        for start, end in kept.runs():  # the batches that reading would give
            yield kept.take(np.arange(start, end))
        return
    rows, parts = (facts[name].to_numpy()[places] for name in ("row", "part"))
    digests = digests_of(facts)[places]
    read = 0
    for batch in read_texts_at(
        opener(split),
        split.path,
        file_format(split),
        columns,
        rows,
        parts,
        row_groups=split.row_groups,
        first_row=split.first_row,
    ):
        if not np.array_equal(text_digests(batch["text"]), digests[read : read + batch.num_rows]):
            return
        read += batch.num_rows
        yield batch["text"]
