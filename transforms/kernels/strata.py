"""Which stratum and which hash-rank bucket each document falls into, and the totals of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

BUCKET_BITS = 12
BUCKETS = 1 << BUCKET_BITS
"""A plan takes whole buckets: 1/4096 of a large stratum, single documents of a small one."""

I64 = npt.NDArray[np.int64]


def buckets(draws: npt.NDArray[np.uint64]) -> I64:
    """The bucket of each document: the top bits of its draw, so buckets are taken in the order of draws."""
    return (draws >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)


def distinct_rows(columns: Sequence[pa.Array | pa.ChunkedArray]) -> tuple[I64, list[tuple[Any, ...]]]:
    """Number the distinct combinations of values: a code per row, and the values behind each code, sorted."""
    codes: I64 = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        encoded = column.dictionary_encode(null_encoding="encode")
        # Renumber after every column, so that the product of dictionary sizes cannot overflow.
        _, codes = np.unique(
            codes * (len(encoded.dictionary) + 1) + encoded.indices.to_numpy().astype(np.int64), return_inverse=True
        )
    if len(codes) == 0:
        return codes, []
    _, first = np.unique(codes, return_index=True)
    values = [tuple(row) for row in zip(*(column.take(pa.array(first)).to_pylist() for column in columns), strict=True)]
    by_value = sorted(range(len(values)), key=lambda code: [(value is not None, value) for value in values[code]])
    renumbered = np.empty(len(values), np.int64)
    renumbered[by_value] = np.arange(len(values))
    return renumbered[codes], [values[code] for code in by_value]


class CellTotals(NamedTuple):
    """Totals of nonempty (stratum, bucket) cells, sorted by both."""

    stratum: I64
    bucket: I64
    documents: I64
    tokens: I64
    bytes: I64


def cell_totals(stratum: I64, bucket: I64, documents: I64, tokens: I64, size: I64) -> CellTotals:
    """Add up rows of equal (stratum, bucket), in integers."""
    order = np.lexsort((bucket, stratum))
    stratum, bucket = stratum[order], bucket[order]
    if len(order) == 0:
        return CellTotals(stratum, bucket, documents, tokens, size)
    starts = np.flatnonzero(np.r_[True, (stratum[1:] != stratum[:-1]) | (bucket[1:] != bucket[:-1])])
    summed = [np.add.reduceat(column[order].astype(np.int64), starts) for column in (documents, tokens, size)]
    return CellTotals(stratum[starts], bucket[starts], *summed)
