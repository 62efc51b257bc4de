"""Parquet to raw columns: row group by row group, only the leaves that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from transforms.kernels.columns import ColumnMap, Keys, Located, OnLocated, Tree, locate
from transforms.kernels.parsed import Limits, parsed_batch
from transforms.kernels.streams import UnreadableFile, reading

__all__ = ["RowGroup", "groups_of", "read_parquet", "tree_of"]


class RowGroup(NamedTuple):
    """What splitting a file needs to know of one row group."""

    rows: int
    bytes: int  # uncompressed


def groups_of(source: Any, path: str) -> list[RowGroup]:
    metadata = _open(source, path).metadata
    with reading(path, "the Parquet footer is damaged"):
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        return [RowGroup(group.num_rows, group.total_byte_size) for group in groups]


def tree_of(source: Any, path: str) -> Tree:
    return _schema_tree(_schema(_open(source, path), path))


def read_parquet(
    source: Any,
    path: str,
    columns: ColumnMap,
    limits: Limits,
    first_row: int,
    row_groups: tuple[int, int] | None,
    wanted: Callable[[int, int], bool],
    on_located: OnLocated,
) -> Iterator[pa.RecordBatch]:
    """PARSED rows of the row groups from row_groups[0] up to, not including, row_groups[1]."""
    file = _open(source, path)
    count = file.metadata.num_row_groups
    start, stop = row_groups or (0, count)
    if not 0 <= start <= stop <= count:
        raise UnreadableFile(path, f"row groups {start} to {stop} were asked for, but it has {count}: it has changed")
    located: Located | None = None
    for index in range(start, stop):
        with reading(path, f"the Parquet footer is damaged at row group {index}"):
            group = file.metadata.row_group(index)
            rows = group.num_rows
        if rows < 0:
            raise UnreadableFile(path, f"row group {index} claims {rows} rows")
        if not rows or not wanted(first_row, rows):
            first_row += rows
            continue
        if located is None:
            located = locate(columns, _schema_tree(_schema(file, path)), path)
            if located.unseen:
                raise located.unseen[0]
            on_located(located)
        row = first_row
        for batch in _group_batches(file, path, index, group, located, limits):
            values = {keys: _extract(batch, keys) for keys in located.columns()}
            yield parsed_batch(row, located, values, columns.kept, limits)
            row += batch.num_rows
        if row - first_row != rows:
            raise UnreadableFile(path, f"row group {index} holds {row - first_row} rows, its footer says {rows}")
        first_row = row


def _open(source: Any, path: str) -> pq.ParquetFile:
    with reading(path, "is not a readable Parquet file"):
        return pq.ParquetFile(source, pre_buffer=True, page_checksum_verification=True)


def _schema(file: pq.ParquetFile, path: str) -> pa.Schema:
    with reading(path, "has a Parquet schema that cannot be read"):
        return file.schema_arrow


def _schema_tree(schema: Any) -> Tree:
    tree: Tree = {}
    for field in schema:
        tree.setdefault(field.name, _schema_tree(field.type) if pt.is_struct(field.type) else {})
    return tree


def _group_batches(
    file: pq.ParquetFile, path: str, index: int, group: Any, located: Located, limits: Limits
) -> Iterator[pa.RecordBatch]:
    leaves = sorted(".".join(keys) for keys in located.columns())
    with reading(path, f"row group {index} cannot be read"):
        rows = _rows_per_batch(group, limits)
        batches = file.iter_batches(rows, row_groups=[index], columns=leaves, use_threads=False)
    while True:
        with reading(path, f"row group {index} cannot be read"):
            batch = next(batches, None)
            if batch is not None:
                batch.validate()
        if batch is None:
            return
        yield batch


def _rows_per_batch(group: Any, limits: Limits) -> int:
    """So many rows that all their columns have about `batch_bytes`.

    Counting the wanted columns alone would come closer, but pyarrow ends the process when it is asked for the
    metadata of a column whose size statistics are damaged.
    """
    fitting = limits.batch_bytes * group.num_rows // max(1, group.total_byte_size)
    return int(max(1, min(limits.batch_rows, fitting)))


def _extract(batch: pa.RecordBatch, keys: Keys) -> pa.Array:
    # Two columns may share a name; the first one counts, as it did when the columns were located.
    values = batch.column(batch.schema.get_all_field_indices(keys[0])[0])
    for key in keys[1:]:
        values = pc.struct_field(values, [values.type.get_all_field_indices(key)[0]])
    return values
