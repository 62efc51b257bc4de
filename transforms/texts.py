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
_PLACE_BYTES = 20  # to know where a text stands


class _Room:
    """What is kept, and how many bytes of memory are left for more."""

    def __init__(self, most_bytes: int) -> None:
        self._free = most_bytes
        self._counting = threading.Lock()
        # By the path of a split's facts, which names all that decides its content.
        self.kept: dict[str, ChunkedTexts] = {}

    def take(self, size: int) -> bool:
        with self._counting:
            fits = size <= self._free
            self._free -= size if fits else 0
        return fits

    def give_back(self, size: int) -> None:
        with self._counting:
            self._free += size

    def close(self) -> None:
        with self._counting:
            self._free = 0


_room = _Room(0)


def keep_texts(most_bytes: int) -> None:
    """Let go of all texts kept in memory, and keep at most so many bytes of those read from now on."""
    global _room
    _room = _Room(most_bytes)


def keep_no_more_texts() -> None:
    """Those read from now on are not kept: not all of them would be, and some alone save little."""
    _room.close()


class Keeper:
    """Takes the texts of one split as they are read; keeps all of them or none."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._room = _room
        self._texts: list[pa.Array] = []
        self._taken = 0
        self._keeps = True

    def add(self, texts: pa.Array) -> None:
        """Those of the next rows of the split's facts."""
        size = texts.nbytes + _PLACE_BYTES * len(texts)
        if self._keeps and self._room.take(size):
            self._taken += size
            self._texts.append(texts)
        else:
            self._give_up()

    def _give_up(self) -> None:
        self._keeps = False
        self._texts.clear()
        self._room.give_back(self._taken)
        self._taken = 0

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        """All were added, unless reading them failed."""
        if failed:
            self._give_up()
        if self._texts:
            self._room.kept[self._split.facts] = ChunkedTexts.of(self._texts)


def kept_texts(facts: str) -> ChunkedTexts | None:
    """The texts of a split, by the path of its facts and row for row beside them, if they are kept."""
    return _room.kept.get(facts)


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
