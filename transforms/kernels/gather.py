"""Texts of many chunks brought into another order, without one copy of all of them first."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.hashing import byte_spans

__all__ = ["ChunkedTexts"]


class ChunkedTexts:
    """A text column as it came. Arrow's own `take` makes its chunks one before it takes: once a call, or once for all
    in memory that was never touched before, which costs more than the taking."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = [byte_spans(chunk) for chunk in column.chunks]
        self._ends = np.cumsum([len(chunk.starts) for chunk in self._chunks], dtype=np.int64)
        sizes = [chunk.stops - chunk.starts for chunk in self._chunks]
        self._sizes = np.concatenate(sizes) if sizes else np.empty(0, np.int64)

    def take(self, rows: NDArray[np.int64]) -> pa.Array:
        """These rows as one array; below 2 GiB, as a row group is."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(self._sizes[rows], out=offsets[1:])
        texts = pa.allocate_buffer(int(offsets[-1]))
        target = np.frombuffer(texts, np.uint8)
        chunk_of = np.searchsorted(self._ends, rows, side="right")
        by_chunk = np.argsort(chunk_of, kind="stable")
        ends = np.searchsorted(chunk_of[by_chunk], np.arange(len(self._chunks)), side="right").tolist()
        start = 0
        for number, end in enumerate(ends):
            if end > start:
                chunk = self._chunks[number]
                places = by_chunk[start:end]
                local = rows[places] - (self._ends[number] - len(chunk.starts))
                _copy(chunk.data, chunk.starts[local], chunk.stops[local], target, offsets[places])
            start = end
        return pa.StringArray.from_buffers(len(rows), pa.py_buffer(offsets.astype(np.int32)), texts)


@njit(nogil=True, cache=True)
def _copy(
    source: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    target: NDArray[np.uint8],
    places: NDArray[np.int64],
) -> None:
    for i in range(starts.size):
        first, place = starts[i], places[i]
        for byte in range(stops[i] - first):
            target[place + byte] = source[first + byte]
