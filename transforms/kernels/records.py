"""One input file to batches of PARSED rows: Parquet, JSON lines, CSV; every broken row keeps its place.

A row that cannot be read is a row with a problem; a file that cannot be read to its end is an UnreadableFile, whatever
was yielded before. Rows are numbered as they stand in the file, broken ones counted, from `first_row` on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.kernels.columns import (
    AUTO,
    Column,
    ColumnMap,
    Join,
    Located,
    Messages,
    MissingColumn,
    OnLocated,
    TextColumn,
    missing,
)
from transforms.kernels.columns import paths_of as _paths_of
from transforms.kernels.parsed import Limits, bounded
from transforms.kernels.records_csv import csv_tree, read_csv
from transforms.kernels.records_jsonl import jsonl_tree, read_jsonl
from transforms.kernels.records_parquet import RowGroup, groups_of, read_parquet, tree_of
from transforms.kernels.schemas import PARSED, parsed_schema
from transforms.kernels.streams import Opener, UnreadableFile, decompressed, opened

__all__ = [
    "AUTO",
    "Column",
    "ColumnMap",
    "FileFormat",
    "Join",
    "Messages",
    "MissingColumn",
    "RowGroup",
    "TextColumn",
    "UnreadableFile",
    "detect_format",
    "missing_columns",
    "peek",
    "read_records",
    "read_texts_at",
    "row_groups",
]

BATCH_BYTES = 8 << 20
BATCH_ROWS = 4096
MAX_DOCUMENT = 64 << 20

TEXTS = pa.schema([PARSED.field(name) for name in ("row", "part", "text")])

Kind = Literal["parquet", "jsonl", "csv"]
Compression = Literal["none", "gz", "zst"]

_KINDS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst"}


@dataclass(frozen=True)
class FileFormat:
    """How the bytes of a file are to be read."""

    kind: Kind
    compression: Compression = "none"


def detect_format(path: str) -> FileFormat:
    """The format that a file's name states, in any case of letters."""
    stem, compression = _without_compression(path)
    kind = next((kind for suffix, kind in _KINDS.items() if stem.endswith(suffix)), None)
    if kind is None:
        raise ValueError(
            f"{path}: the name does not say which format it has; valid endings are {', '.join(_KINDS)}, all but "
            f"Parquet's with {' or '.join(_COMPRESSIONS)} behind them. Rename the file, or narrow the glob"
        )
    if kind == "parquet" and compression != "none":
        raise ValueError(
            f"{path}: a Parquet file inside .{compression} cannot be read in parts; unpack it, it is compressed inside"
        )
    return FileFormat(kind, compression)


def _ignore(located: Located) -> None:
    pass


def row_groups(opener: Opener, path: str = "the file") -> list[RowGroup]:
    """Rows and uncompressed bytes of every row group of a Parquet file."""
    with opened(opener, path) as source:
        return groups_of(source, path)


def read_records(
    opener: Opener,
    path: str,
    fmt: FileFormat,
    columns: ColumnMap,
    *,
    row_groups: tuple[int, int] | None = None,
    first_row: int = 0,
    batch_bytes: int = BATCH_BYTES,
    batch_rows: int = BATCH_ROWS,
    max_document: int = MAX_DOCUMENT,
    on_located: OnLocated = _ignore,
) -> Iterator[pa.RecordBatch]:
    """All rows, or those of row groups row_groups[0] to row_groups[1] - 1, as batches of `parsed_schema(kept)`.

    A batch has at most `batch_rows` documents and `batch_bytes` of text and kept values, or exactly one document.
    `on_located` is told how the file is read, before the first batch; of a file without rows nothing is told.

    Raises:
        UnreadableFile: the file cannot be read to its end.
        MissingColumn: a named column, or any text column, is not in a file that has rows. In JSON lines a named column
            may first appear anywhere, so its absence is known at the end only.
    """
    limits = Limits(batch_bytes, batch_rows, max_document)
    yield from _read(opener, path, fmt, columns, limits, row_groups, first_row, lambda first, rows: True, on_located)


def read_texts_at(
    opener: Opener,
    path: str,
    fmt: FileFormat,
    columns: ColumnMap,
    rows: NDArray[np.int64],
    parts: NDArray[Any] | None = None,
    *,
    row_groups: tuple[int, int] | None = None,
    first_row: int = 0,
    batch_bytes: int = BATCH_BYTES,
    batch_rows: int = BATCH_ROWS,
    max_document: int = MAX_DOCUMENT,
) -> Iterator[pa.RecordBatch]:
    """Row, part and text of documents of the shard; bounded as `read_records` is.

    With `parts` exactly the documents (rows[i], parts[i]), which ascend and of which a row may have several; without,
    all documents of the given rows, which ascend too, each one once. Row groups, and blocks of lines, without such a
    row are passed over, and nothing behind the last one is read.

    Raises:
        UnreadableFile: also if the file no longer has such a document.
    """
    if not len(rows):
        return
    wanted_keys = _document_keys(rows, np.zeros(len(rows), np.int64) if parts is None else parts)
    if (np.diff(wanted_keys) <= 0).any():
        raise ValueError("rows, or rows and parts, must ascend, each one once; sort them before reading")
    limits = Limits(batch_bytes, batch_rows, max_document)
    done = 0  # documents, or without `parts` rows, that were found

    def wanted(first: int, count: int) -> bool:
        low, high = np.searchsorted(rows, [first, first + count])
        return bool(low < high)

    several = False  # documents a row

    def look(located: Located) -> None:
        nonlocal several
        several = located.makes_parts

    for batch in _read(opener, path, fmt, columns.text_only(), limits, row_groups, first_row, wanted, look):
        if batch["row"][0].as_py() > rows[-1]:
            break
        keys = _document_keys(batch["row"].to_numpy(), batch["part"].to_numpy() if parts is not None else 0)
        first, stop = np.searchsorted(wanted_keys, [keys[0], keys[-1] + 1])
        found = np.isin(keys, wanted_keys[first:stop])
        if parts is not None and found.sum() < stop - first:
            break
        done = max(done, int(stop))
        if found.any():
            chosen = batch.select(TEXTS.names)
            yield chosen if found.all() else chosen.filter(pa.array(found))
        if done == len(rows) and (parts is not None or not several):
            return
    if done < len(rows):
        which = f"row {rows[done]}" + ("" if parts is None else f", part {parts[done]},")
        raise UnreadableFile(path, f"{which} was asked for, but is not there: the file has changed")


def _document_keys(rows: NDArray[np.int64], parts: NDArray[Any] | int) -> NDArray[np.int64]:
    """(row, part) as one number; parts are numbers of 31 bits."""
    return (np.asarray(rows, np.int64) << 31) | np.asarray(parts, np.int64)


def peek(
    opener: Opener, path: str, fmt: FileFormat, columns: ColumnMap, n: int = 3, on_located: OnLocated = _ignore
) -> tuple[list[str], pa.RecordBatch]:
    """The paths of all columns, nested ones dotted, and all documents of the first n rows.

    JSON lines have the columns of their first records.
    """
    names = list(_paths_of(_tree(opener, path, fmt)))
    schema = parsed_schema(columns.kept)
    found: list[pa.RecordBatch] = []
    for batch in read_records(opener, path, fmt, columns, batch_rows=n, on_located=on_located):
        found.append(batch)
        if batch["row"][-1].as_py() - found[0]["row"][0].as_py() >= n - 1:
            break
    if not found:
        return names, pa.RecordBatch.from_pylist([], schema)
    rows = pa.Table.from_batches(found).combine_chunks().to_batches()[0]
    return names, rows.filter(pc.less(rows["row"], found[0]["row"][0].as_py() + n))


def missing_columns(opener: Opener, path: str, fmt: FileFormat, columns: ColumnMap) -> list[MissingColumn]:
    """What `read_records` would raise, for every column at once, from the schema or the first records alone.

    In JSON lines a column that first appears further down is listed too.
    """
    found = missing(columns, _tree(opener, path, fmt), path)
    if found:
        try:
            if next(read_records(opener, path, fmt, columns, batch_rows=1), None) is None:
                return []  # a file without rows misses nothing
        except MissingColumn:
            pass
    return found


def _without_compression(path: str) -> tuple[str, Compression]:
    name = path.lower()
    for suffix, compression in _COMPRESSIONS.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), compression
    return name, "none"


def _delimiter(path: str) -> str:
    return "\t" if _without_compression(path)[0].endswith(".tsv") else ","


def _tree(opener: Opener, path: str, fmt: FileFormat) -> dict[str, Any]:
    limits = Limits(BATCH_BYTES, BATCH_ROWS, MAX_DOCUMENT)
    with opened(opener, path) as source:
        if fmt.kind == "parquet":
            return tree_of(source, path)
        pieces = decompressed(source, path, fmt.compression)
        if fmt.kind == "jsonl":
            return jsonl_tree(pieces, limits)
        return csv_tree(pieces, path, _delimiter(path), limits)


def _read(
    opener: Opener,
    path: str,
    fmt: FileFormat,
    columns: ColumnMap,
    limits: Limits,
    groups: tuple[int, int] | None,
    first_row: int,
    wanted: Callable[[int, int], bool],
    on_located: OnLocated,
) -> Iterator[pa.RecordBatch]:
    with opened(opener, path) as source:
        if fmt.kind == "parquet":
            batches = read_parquet(source, path, columns, limits, first_row, groups, wanted, on_located)
        else:
            pieces = decompressed(source, path, fmt.compression)
            if fmt.kind == "jsonl":
                batches = read_jsonl(pieces, path, columns, limits, first_row, wanted, on_located)
            else:
                batches = read_csv(pieces, path, _delimiter(path), columns, limits, first_row, wanted, on_located)
        for batch in batches:
            yield from bounded(batch, limits)
