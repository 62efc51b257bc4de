"""Texts of many arrays brought into another order, without one copy of all of them first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.copying import copy_items
from transforms.kernels.hashing import byte_spans

__all__ = ["ChunkedTexts"]


_MOST_TAKEN = 2**31 - 1
_NO_CHUNKS = np.empty(0, np.int32)
_NO_PLACES = np.empty(0, np.int64)


class ChunkedTexts:
    """Texts where they came, each known by the array it stands in and its place there.

    Arrow's own `take` makes its chunks one before it takes: once a call, or once for all in memory that was never
    touched before, which costs more than the taking.
    """

    def __init__(
        self,
        chunks: Sequence[NDArray[np.uint8]],
        chunk_of: NDArray[np.int32],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
    ) -> None:
        self._chunks = chunks
        self._chunk_of = chunk_of
        self._starts = starts
        self._stops = stops

    @classmethod
    def of(cls, arrays: Sequence[pa.Array]) -> ChunkedTexts:
        """All values of string arrays, one after the other."""
        found = [byte_spans(array) for array in arrays]
        for data, starts, stops in found:  # Arrow does not look at offsets that come out of a file; copying trusts them
            if ((starts < 0) | (stops < starts) | (stops > data.size)).any():
                raise ValueError("texts stand outside of their array: the packet that brought them is damaged")
        return cls.joined([cls([s.data], np.zeros(len(s.starts), np.int32), s.starts, s.stops) for s in found])

    @classmethod
    def joined(cls, parts: Sequence[ChunkedTexts]) -> ChunkedTexts:
        """The texts of several, one after the other."""
        before = np.cumsum([0, *(len(part._chunks) for part in parts)], dtype=np.int32)
        return cls(
            [chunk for part in parts for chunk in part._chunks],
            np.concatenate([_NO_CHUNKS, *(p._chunk_of + first for p, first in zip(parts, before, strict=False))]),
            np.concatenate([_NO_PLACES, *(part._starts for part in parts)]),
            np.concatenate([_NO_PLACES, *(part._stops for part in parts)]),
        )

    def __len__(self) -> int:
        return len(self._starts)

    def runs(self) -> list[tuple[int, int]]:
        """Half-open ranges of neighbouring rows whose texts stand in one array."""
        cuts = np.flatnonzero(np.diff(self._chunk_of)) + 1
        bounds = [0, *cuts.tolist(), len(self)] if len(self) else []
        return list(pairwise(bounds))

    def at(self, rows: NDArray[np.int64]) -> ChunkedTexts:
        """These rows; no text is copied."""
        return ChunkedTexts(self._chunks, self._chunk_of[rows], self._starts[rows], self._stops[rows])

    def take(self, rows: NDArray[np.int64], room: pa.Buffer | None = None) -> pa.Array:
        """These rows as one array; below 2 GiB, as a row group is.

        Args:
            room: memory to put them in if they fit, which must be left alone for as long as the array is used.
        """
        starts, stops, chunk_of = self._starts[rows], self._stops[rows], self._chunk_of[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(stops - starts, out=offsets[1:])
        if offsets[-1] > _MOST_TAKEN:
            raise ValueError(f"{offsets[-1]} bytes of text are more than one array can hold: {_MOST_TAKEN}")
        if room is None or room.size < offsets[-1]:
            room = pa.allocate_buffer(int(offsets[-1]))
        target = np.frombuffer(room, np.uint8)
        by_chunk = np.argsort(chunk_of, kind="stable")
        ends = np.searchsorted(chunk_of[by_chunk], np.arange(len(self._chunks)), side="right").tolist()
        start = 0
        for chunk, end in zip(self._chunks, ends, strict=True):
            if end > start:
                places = by_chunk[start:end]
                _copy(chunk, starts[places], stops[places], target, offsets[places])
            start = end
        return pa.StringArray.from_buffers(len(rows), pa.py_buffer(offsets.astype(np.int32)), room)


@njit(nogil=True, cache=True)
def _copy(
    source: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    target: NDArray[np.uint8],
    places: NDArray[np.int64],
) -> None:
    for i in range(starts.size):
        copy_items(target, places[i], source, starts[i], stops[i] - starts[i])
