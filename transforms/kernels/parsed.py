"""Batches of PARSED rows: status and problem of each document, and the bounds of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.kernels.columns import Keys, Located
from transforms.kernels.hashing import byte_spans
from transforms.kernels.origins import origin_column
from transforms.kernels.recognisers import Voice
from transforms.kernels.schemas import KEEP_PREFIX, SCORE_PREFIX, Status, parsed_schema
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
    located: Located,
    values: Mapping[Keys, pa.Array],
    kept: tuple[str, ...],
    limits: Limits,
    broken: pa.Array | None = None,
) -> pa.RecordBatch:
    """The documents of the rows from `first_row` on, out of the raw values of their columns.

    `broken` says of each row why it could not be parsed at all, and is null where it could.
    """
    names = [".".join(keys) for keys in located.text]
    text, problem, voices, owner, part = compose(located.form, names, [values[keys] for keys in located.text], broken)
    problem = first_problem(problem, _unfit(names, text, limits.max_document))
    count = len(text)

    def of_documents(column: pa.Array) -> pa.Array:
        return column if owner is None else column.take(pa.array(owner))

    counts = None
    if (counted_in := located.fields.get("n_tokens")) is not None:
        # Where rows hold several texts, the driver refuses a column that counts rows, once all is read.
        counts, wrong = map(of_documents, as_count(".".join(counted_in), values[counted_in]))
        needless = pa.array(blank(text.view(pa.large_string())))
        problem = first_problem(problem, pc.if_else(needless, pa.scalar(None, pa.string()), wrong))
    status = np.zeros(count, np.uint8)
    if problem is None:
        problem = pa.nulls(count, pa.string())
    elif problem.null_count < count:
        text = pc.if_else(problem.is_null(), text, pa.scalar(None, text.type))
    text = text.view(pa.large_string())
    status[blank(text)] = Status.EMPTY
    status[problem.is_valid().to_numpy(zero_copy_only=False)] = Status.BAD_RECORD
    rows = np.arange(count) if owner is None else owner
    if voices is None:
        voices = np.full(count, located.voice, np.uint8)

    columns = {
        "row": pa.array(first_row + rows),
        "part": pa.array(np.zeros(count, np.int32) if part is None else part),
        "text": text,
        "n_tokens": pa.nulls(count, pa.int64()) if counts is None else counts,
        "status": pa.array(status),
        "problem": problem,
        "origin": origin_column(
            located, {keys: of_documents(as_text(values[keys])) for keys in located.told()}, voices
        ),
    }
    scores = tuple(name.removeprefix(SCORE_PREFIX) for name in located.fields if name.startswith(SCORE_PREFIX))
    schema = parsed_schema(kept, scores)
    for field in schema:
        if field.name in columns:
            continue
        keys = located.fields.get(field.name)
        if keys is None:
            columns[field.name] = pa.nulls(count, field.type)
        else:
            columns[field.name] = of_documents(as_text(values[keys]))
    # A row may name a model that wrote only its other half, or that only answers what a user says.
    if (by_people := voices == np.uint8(Voice.HUMAN)).any():
        columns["generator"] = pc.if_else(pa.array(by_people), pa.scalar(None, pa.string()), columns["generator"])
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


def _unfit(names: list[str], text: pa.Array, max_document: int) -> pa.Array | None:
    """Of documents that are too long or not UTF-8: why."""
    _, starts, stops = byte_spans(text)
    sizes = stops - starts
    valid = valid_utf8(text)
    unfit = np.flatnonzero((sizes > max_document) | ~valid)
    if not len(unfit):
        return None
    name = " or ".join(names) if len(names) > 1 else names[0]
    problems: list[str | None] = [None] * len(text)
    for row in unfit.tolist():
        if sizes[row] > max_document:
            problems[row] = f"{name} has {sizes[row]} bytes, expected at most {max_document}"
        else:
            problems[row] = utf8_problem(name, text[row].as_py())
    return pa.array(problems, pa.string())
