"""Batches of PARSED rows: status and problem of each document, and the bounds of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.kernels.columns import Keys, Located, TextColumn
from transforms.kernels.hashing import byte_spans
from transforms.kernels.schemas import KEEP_PREFIX, Status, parsed_schema
from transforms.kernels.text import blank, valid_utf8
from transforms.kernels.values import as_count, as_text, compose, first_problem, utf8_problem

__all__ = ["Limits", "bounded", "parsed_batch"]


@dataclass(frozen=True)
class Limits:
    batch_bytes: int
    batch_rows: int
    max_document: int  # bytes; longer ones are bad records

    @property
    def max_record(self) -> int:
        """Bytes of one JSON line or CSV record: escapes make Cyrillic text three times as long as it is."""
        return 4 * self.max_document


def parsed_batch(
    first_row: int,
    column: TextColumn,
    located: Located,
    values: Mapping[Keys, pa.Array],
    kept: tuple[str, ...],
    limits: Limits,
    broken: pa.Array | None = None,
) -> pa.RecordBatch:
    """The rows from `first_row` on, out of the raw values of their columns.

    `broken` says of each row why it could not be parsed at all, and is null where it could.
    """
    names = [".".join(keys) for keys in located.text]
    text, problem = compose(column, names, [values[keys] for keys in located.text])
    problem = first_problem(broken, problem)
    problem = first_problem(problem, _unfit(names[0], text, limits.max_document))
    rows = len(text)
    status = np.zeros(rows, np.uint8)
    if problem is None:
        problem = pa.nulls(rows, pa.string())
    elif problem.null_count < rows:
        text = pc.if_else(problem.is_null(), text, pa.scalar(None, text.type))
    text = text.view(pa.large_string())
    status[blank(text)] = Status.EMPTY
    status[problem.is_valid().to_numpy(zero_copy_only=False)] = Status.BAD_RECORD
    columns = {
        "row": pa.array(np.arange(first_row, first_row + rows)),
        "part": pa.array(np.zeros(rows, np.int32)),
        "text": text,
        "status": pa.array(status),
        "problem": problem,
    }
    schema = parsed_schema(kept)
    for field in list(schema)[len(columns) :]:
        keys = located.fields.get(field.name)
        if keys is None:
            columns[field.name] = pa.nulls(rows, field.type)
        else:
            columns[field.name] = (as_count if field.name == "n_tokens" else as_text)(values[keys])
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def bounded(batch: pa.RecordBatch, limits: Limits) -> Iterator[pa.RecordBatch]:
    """Slices of at most `batch_rows` rows and `batch_bytes` of text and kept values, or of one document."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for name in batch.schema.names:
        if (name == "text" or name.startswith(KEEP_PREFIX)) and batch[name].null_count < batch.num_rows:
            _, starts, stops = byte_spans(batch[name])
            sizes += stops - starts
    ends = np.cumsum(sizes)
    start = 0
    while start < batch.num_rows:
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + limits.batch_bytes, side="right"))
        stop = max(start + 1, min(stop, start + limits.batch_rows))
        yield batch.slice(start, stop - start)
        start = stop


def _unfit(name: str, text: pa.Array, max_document: int) -> pa.Array | None:
    """Of documents that are too long or not UTF-8: why."""
    _, starts, stops = byte_spans(text)
    sizes = stops - starts
    valid = valid_utf8(text)
    unfit = np.flatnonzero((sizes > max_document) | ~valid)
    if not len(unfit):
        return None
    problems: list[str | None] = [None] * len(text)
    for row in unfit.tolist():
        if sizes[row] > max_document:
            problems[row] = f"{name} has {sizes[row]} bytes, expected at most {max_document}"
        else:
            problems[row] = utf8_problem(name, text[row].as_py())
    return pa.array(problems, pa.string())
