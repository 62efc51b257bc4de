"""Lengths of documents in buckets: quantiles that are exact for short documents and within 1/64 for all others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from transforms.kernels.diversity.encoding import Column, Columns
from transforms.kernels.diversity.metric import Documents, Metric

__all__ = ["Lengths"]

Ints = npt.NDArray[np.int64]

SUB_BITS = 5
"""Lengths below 2 * 32 have a bucket each; above, every power of two is cut into 32, so a midpoint is within 1/64."""
SUB_BUCKETS = 1 << SUB_BITS
LENGTH_BUCKETS = SUB_BUCKETS * (64 - SUB_BITS)
LENGTH_QUANTILES = (10, 50, 90)


class Lengths:
    """A monoid of counts: documents, in total and by bucket of their length in words."""

    def __init__(self) -> None:
        self.documents = 0
        self._buckets: Ints = np.zeros(LENGTH_BUCKETS, np.int64)

    def add(self, documents: Documents) -> None:
        self.documents += len(documents.numbers)
        _count_lengths(documents.lengths(), self._buckets)

    def merge(self, other: Lengths) -> None:
        self.documents += other.documents
        self._buckets += other._buckets

    def columns(self) -> list[Column]:
        filled = np.flatnonzero(self._buckets)
        return [np.array([self.documents]), filled, self._buckets[filled]]

    def read(self, columns: Columns) -> None:
        self.documents = int(columns.take()[0])
        filled = columns.take()
        self._buckets[filled] = columns.take()

    def values(self) -> list[Metric]:
        """Nearest-rank quantiles: the least length that at least that share of the documents does not exceed."""
        metrics = [Metric("documents", float(self.documents), self.documents, "exact")]
        if self.documents:
            reached = np.cumsum(self._buckets)
            for percent in LENGTH_QUANTILES:
                rank = -(-percent * self.documents // 100)
                bucket = int(np.searchsorted(reached, rank))
                octave = max(0, bucket // SUB_BUCKETS - 1)
                least = (bucket - octave * SUB_BUCKETS) << octave
                middle = least + ((1 << octave) - 1) / 2
                method = "exact" if octave == 0 else f"buckets-{SUB_BUCKETS}"
                metrics.append(Metric(f"length_p{percent}", middle, self.documents, method))
        return metrics


@njit(nogil=True, cache=True, _nrt=False)
def _count_lengths(lengths: Ints, buckets: Ints) -> None:
    for length in lengths:
        octave = 0
        while length >> octave >= 2 * SUB_BUCKETS:
            octave += 1
        buckets[octave * SUB_BUCKETS + (length >> octave)] += 1
