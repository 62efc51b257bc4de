"""JSON lines to raw columns: clean blocks through Arrow's parser, all others line by line.

Both ways give the same rows. Arrow parses a whole block or refuses it; a block is also refused where Arrow would be
more lenient than one object per line, or would lose the difference between two values. Line by line, a line that
Python refuses (NaN spelled differently, nesting beyond its stack) is offered to Arrow once more, so what a record is
does not depend on the records around it.

Blank lines are no records. Of a name that stands twice in one object the last value counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.types as pt
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.columns import (
    ColumnMap,
    Explode,
    Keys,
    Located,
    Messages,
    MissingColumn,
    OnLocated,
    Tree,
    locate,
)
from transforms.kernels.parsed import Limits, parsed_batch
from transforms.kernels.streams import line_blocks
from transforms.kernels.text import valid_utf8
from transforms.kernels.values import LARGEST_EXACT, as_text, compact_json, scrub, utf8_problem

__all__ = ["jsonl_tree", "read_jsonl"]

# What is recognised, and which fast types are tried first, depends on the first block: its size is part of the format.
BLOCK_BYTES = 4 << 20
HEAD_RECORDS = 100
_TREE_DEPTH = 16
_INT_DIGITS = 4000  # Python refuses to convert longer ones
_SHOWN = 40

_TEXT = pa.large_string()
_MESSAGE_NAMES = ("role", "from", "content", "value")
_TEXTS = pa.list_(_TEXT)
_MESSAGES = pa.list_(pa.struct([(name, _TEXT) for name in _MESSAGE_NAMES]))
_FAST_TYPES = {str: _TEXT, int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_ABSENT = object()

Spans = tuple[NDArray[np.int64], NDArray[np.int64]]


def jsonl_tree(pieces: Iterator[bytes], limits: Limits) -> Tree:
    """The columns of the first records, nested ones included."""
    for block in line_blocks(pieces, BLOCK_BYTES, limits.max_record):
        if block is not None and (head := _head(block, _line_spans(block))):
            return _tree(head)
    return {}


def read_jsonl(
    pieces: Iterator[bytes],
    path: str,
    columns: ColumnMap,
    limits: Limits,
    first_row: int,
    wanted: Callable[[int, int], bool],
    on_located: OnLocated,
) -> Iterator[pa.RecordBatch]:
    """PARSED rows of the whole file.

    A named column may first appear anywhere, so one that never does is known, and raised, at the end.
    """
    reader = _Reader(path, columns, on_located)
    row = first_row
    for block in line_blocks(pieces, BLOCK_BYTES, limits.max_record):
        parsed: _Parsed | None
        if block is None:
            parsed = reader.unparsed([f"the line has more than {limits.max_record} bytes"])
            spans: Spans = (np.zeros(1, np.int64), np.zeros(1, np.int64))
        else:
            spans = _line_spans(block)
            if not len(spans[0]):
                continue
            reader.look_at(block, spans)
            parsed = reader.parse(block, spans) if wanted(row, len(spans[0])) else None
        if parsed is not None:
            yield parsed_batch(row, reader.located, parsed.values, columns.kept, limits, parsed.broken)
        row += len(spans[0])
    reader.check_all_seen()


class _Parsed(NamedTuple):
    values: dict[Keys, pa.Array]
    broken: pa.Array | None  # why a row could not be parsed, null where it could


class _Reader:
    """What is known of the file so far: where the columns are, and of which type."""

    def __init__(self, path: str, columns: ColumnMap, on_located: OnLocated) -> None:
        self._path = path
        self._columns = columns
        self._on_located = on_located
        self._settled = False
        # Until a well-formed record is met every row is broken, so text may stand anywhere.
        self.located = Located("text", (("text",),), {})
        self._lists: set[Keys] = set()  # texts that stand in lists
        self._kinds: dict[Keys, type] = {}
        self._unseen: dict[Keys, MissingColumn] = {}

    def look_at(self, block: bytes, spans: Spans) -> None:
        """Locates the columns, by the first block that holds a well-formed record."""
        if self._settled:
            return
        if head := _head(block, spans):
            self._settled = True
            self.located = locate(self._columns, _tree(head), self._path, may_grow=True)
            self._unseen = {tuple((error.wanted or "").split(".")): error for error in self.located.unseen}
            self._lists = {keys for keys in self.located.text if any(type(_walk(r, keys)) is list for r in head)}
            self._learn(head)
            self._on_located(self.located)

    def parse(self, block: bytes, spans: Spans) -> _Parsed:
        values = self._fast(block, spans)
        if values is not None and self._may_hold_unseen(block, values):
            values = None
        return self._by_line(block, spans) if values is None else _Parsed(values, None)

    def unparsed(self, problems: list[str]) -> _Parsed:
        rows = len(problems)
        nulls = {keys: pa.nulls(rows, self._type(keys)) for keys in self.located.columns()}
        return _Parsed(nulls, pa.array(problems, pa.string()))

    def check_all_seen(self) -> None:
        for error in self._unseen.values():
            raise error

    def _type(self, keys: Keys) -> pa.DataType:
        if keys in self.located.text:
            if isinstance(self.located.form, Explode):
                return _TEXTS if keys in self._lists else _TEXT
            return _MESSAGES if isinstance(self.located.form, Messages) else _TEXT
        return _FAST_TYPES[self._kinds.get(keys, str)]

    def _learn(self, records: Iterable[dict[str, Any]]) -> None:
        for record in records:
            for keys in self.located.columns() - set(self.located.text):
                value = _walk(record, keys)
                if value is not None and value is not _ABSENT:
                    self._kinds[keys] = type(value)

    def _fast(self, block: bytes, spans: Spans) -> dict[Keys, pa.Array] | None:
        """The values of a block in which Arrow finds nothing amiss."""
        if not self._settled or any(kind not in _FAST_TYPES for kind in self._kinds.values()):
            return None
        return _arrow_values(block, spans, {keys: self._type(keys) for keys in self.located.columns()})

    def _may_hold_unseen(self, block: bytes, values: dict[Keys, pa.Array]) -> bool:
        """Whether a column not met so far may be in the block as nulls, which Arrow does not tell from absence."""
        for keys in list(self._unseen):
            if values[keys].null_count < len(values[keys]):
                del self._unseen[keys]
        return any(json.dumps(keys[-1]).encode() in block for keys in self._unseen)

    def _by_line(self, block: bytes, spans: Spans) -> _Parsed:
        rows: dict[Keys, list[Any]] = {keys: [] for keys in self.located.columns()}
        broken: list[str | None] = []
        records: list[dict[str, Any]] = []
        for start, stop in zip(*(bounds.tolist() for bounds in spans), strict=True):
            line = block[start:stop]
            try:
                record = _load(line)
                row = {keys: self._value(record, keys) for keys in rows}
            except (_Broken, RecursionError) as error:
                wrong = "the line is nested too deeply" if isinstance(error, RecursionError) else str(error)
                rescued = None if type(error) is _Broken else self._rescued(line)
                row = rescued or dict.fromkeys(rows)
                broken.append(None if rescued else wrong)
            else:
                records.append(record)
                broken.append(None)
            for keys, value in row.items():
                rows[keys].append(value)
        for keys in [keys for keys in self._unseen if any(_walk(record, keys) is not _ABSENT for record in records)]:
            del self._unseen[keys]
        self._kinds.clear()
        self._learn(islice(records, HEAD_RECORDS))
        text = set(self.located.text)
        values = {
            keys: pa.array(column, self._type(keys)) if keys in text else _spelled(column)
            for keys, column in rows.items()
        }
        return _Parsed(values, pa.array(broken, pa.string()))

    def _rescued(self, line: bytes) -> dict[Keys, Any] | None:
        """The values of a line that Arrow accepts and Python does not, as they are line by line."""
        if not self._settled:
            return None
        spans = np.zeros(1, np.int64), np.array([len(line)])
        text = set(self.located.text)
        found = _arrow_values(line, spans, {keys: self._type(keys) for keys in text})
        if found is None:
            return None
        row = {keys: values[0].as_py() for keys, values in found.items()}
        for keys in self.located.columns() - text:
            tried = (_arrow_values(line, spans, {keys: kind}) for kind in _FAST_TYPES.values())
            row[keys] = next((as_text(values[keys])[0].as_py() for values in tried if values), None)
        return row

    def _value(self, record: dict[str, Any], keys: Keys) -> Any:
        value = _walk(record, keys)
        if keys not in self.located.text:
            return None if value is _ABSENT else _metadata_text(value)
        name = ".".join(keys)
        if value is _ABSENT:
            _expect_objects(record, keys)
            return None
        if isinstance(self.located.form, Messages):
            return _messages(name, value)
        if keys in self._lists and isinstance(self.located.form, Explode):
            return _texts(name, value)
        return _document(name, value)


class _Broken(Exception):
    """Why a line, or its text, cannot be read."""


class _Malformed(_Broken):
    """What Python takes for broken syntax."""


def _line_spans(block: bytes) -> Spans:
    """Where the lines that are not blank start and stop, without the white space around them."""
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.empty(len(ends), np.int64)
    stops = np.empty(len(ends), np.int64)
    count = _trim(data, ends, starts, stops)
    return starts[:count], stops[:count]


@njit(nogil=True, cache=True)
def _trim(data: NDArray[np.uint8], ends: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> int:
    count = 0
    start = 0
    for end in ends:
        stop = end
        while start < stop and (data[start] == 32 or data[start] == 13 or data[start] == 9):
            start += 1
        while start < stop and (data[stop - 1] == 32 or data[stop - 1] == 13 or data[stop - 1] == 9):
            stop -= 1
        if start < stop:
            starts[count] = start
            stops[count] = stop
            count += 1
        start = end + 1
    return count


def _one_object_each(block: bytes, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> bool:
    """Whether every line runs from { to }.

    Then no object spans lines, for { cannot follow } inside one, and as many objects as lines are one object each.
    """
    data = np.frombuffer(block, np.uint8)
    return bool((data[starts] == ord("{")).all() and (data[stops - 1] == ord("}")).all())


def _load(line: bytes) -> dict[str, Any]:
    try:
        # Bytes that are not UTF-8 only matter in the columns that are read.
        record = _DECODER.decode(line.decode(errors="surrogateescape"))
    except json.JSONDecodeError as error:
        raise _Malformed(
            f"the line is not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
        ) from None
    if not isinstance(record, dict):
        raise _Broken(f"the line is {_described(record)}, expected an object")
    return record


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT_DIGITS else float(digits)


_DECODER = json.JSONDecoder(parse_int=_integer)


def _head(block: bytes, spans: Spans) -> list[dict[str, Any]]:
    return list(islice(_well_formed(block, spans), HEAD_RECORDS))


def _well_formed(block: bytes, spans: Spans) -> Iterator[dict[str, Any]]:
    for start, stop in zip(*spans, strict=True):
        try:
            yield _load(block[start:stop])
        except (_Broken, RecursionError):
            continue


def _tree(records: list[dict[str, Any]], depth: int = _TREE_DEPTH) -> Tree:
    nested: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        for name, value in record.items():
            below = nested.setdefault(name, [])
            if isinstance(value, dict) and depth:
                below.append(value)
    return {scrub(name): _tree(below, depth - 1) for name, below in nested.items()}


def _walk(record: dict[str, Any], keys: Keys) -> Any:
    value: Any = record
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _expect_objects(record: dict[str, Any], keys: Keys) -> None:
    """Raises if the way to an absent text leads through something that is no object."""
    value: Any = record
    for depth, key in enumerate(keys):
        if value is None:
            return
        if not isinstance(value, dict):
            raise _Broken(f"{'.'.join(keys[:depth])} is {_described(value)}, expected an object with {key}")
        value = value.get(key)


def _described(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return f"a boolean ({str(value).lower()})"
        case int() | float():
            return f"a number ({str(value)[:_SHOWN]})"
        case str():
            return f"a string ({scrub(value[:_SHOWN])!r})"
        case list():
            return "a list"
    return "an object"


def _document(name: str, value: Any, expected: str = "a string") -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _Broken(f"{name} is {_described(value)}, expected {expected}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _Broken(_surrogate_problem(name, value, error.start)) from None
    return value


def _texts(name: str, value: Any) -> list[str | None] | None:
    """A list of texts; one that stands alone is a list of its own."""
    if value is None:
        return None
    if not isinstance(value, list):
        return [_document(name, value, "a string, or a list of strings")]
    return [_document(f"{name}[{place}]", item) for place, item in enumerate(value)]


def _surrogate_problem(name: str, value: str, position: int) -> str:
    escaped = ord(value[position]) - 0xDC00
    if 0x80 <= escaped <= 0xFF:
        return utf8_problem(name, value[:position].encode() + bytes([escaped]))
    return f"{name} is not Unicode text (a lone surrogate \\u{ord(value[position]):04x} at character {position})"


def _messages(name: str, value: Any) -> list[dict[str, str | None] | None] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _Broken(f"{name} is {_described(value)}, expected a list of messages")
    return [_message(f"{name}[{place}]", message) for place, message in enumerate(value)]


def _message(name: str, message: Any) -> dict[str, str | None] | None:
    if message is None:
        return None
    if not isinstance(message, dict):
        raise _Broken(f"{name} is {_described(message)}, expected an object with role and content")
    return {key: _document(f"{name}.{key}", message.get(key)) for key in _MESSAGE_NAMES}


def _metadata_text(value: Any) -> str | float | None:
    """Text by the rule of every format, but for floats, which `_spelled` turns into text together."""
    match value:
        case None | float():
            return value
        case str():
            return scrub(value)
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
    return compact_json(value)


def _spelled(column: list[str | float | None]) -> pa.Array:
    places = [place for place, value in enumerate(column) if isinstance(value, float)]
    if places:
        # Arrow's spelling, as on the fast path: Python writes exponents differently.
        spelled = as_text(pa.array([column[place] for place in places], pa.float64())).to_pylist()
        for place, text in zip(places, spelled, strict=True):
            column[place] = text
    return pa.array(column, pa.string())


def _arrow_values(block: bytes, spans: Spans, types: dict[Keys, pa.DataType]) -> dict[Keys, pa.Array] | None:
    """The columns of a block of lines, or None if it is not clean, or not of these types."""
    schema = _nested_schema(types)
    if schema is None or not _one_object_each(block, *spans):
        return None
    try:
        table = pj.read_json(
            pa.BufferReader(block),
            # One block, and not the smallest: Arrow looks for the end of a record before it knows the input's end.
            pj.ReadOptions(use_threads=False, block_size=len(block) + 1024),
            pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowException, OSError):
        return None
    if table.num_rows != len(spans[0]):
        return None
    batch = table.combine_chunks().to_batches()[0]
    values = {keys: _extract(batch, keys) for keys in types}
    return values if all(map(_faithful, values.values())) else None


def _nested_schema(types: dict[Keys, pa.DataType]) -> pa.Schema | None:
    """Fields for Arrow to read, or None where one is wanted both whole and in parts."""
    tree: dict[str, Any] = {}
    for keys, kind in sorted(types.items(), key=lambda item: (len(item[0]), item[0])):
        level = tree
        for key in keys[:-1]:
            level = level.setdefault(key, {})
            if not isinstance(level, dict):
                return None
        level[keys[-1]] = kind
    return pa.schema(_fields(tree))


def _fields(tree: dict[str, Any]) -> list[pa.Field]:
    return [
        pa.field(name, pa.struct(_fields(below)) if isinstance(below, dict) else below) for name, below in tree.items()
    ]


def _extract(batch: pa.RecordBatch, keys: Keys) -> pa.Array:
    values = batch.column(batch.schema.get_field_index(keys[0]))
    return pc.struct_field(values, list(keys[1:])) if len(keys) > 1 else values


def _faithful(values: pa.Array) -> bool:
    """Whether Arrow's values are valid and tell apart whatever Python's would."""
    if pt.is_large_string(values.type):
        return bool(valid_utf8(values.cast(pa.large_binary())).all())
    if pt.is_floating(values.type):
        finite = pc.is_finite(values)
        return bool(pc.all(pc.or_(pc.less(pc.abs(values), LARGEST_EXACT), pc.invert(finite)), min_count=0).as_py())
    if values.type == _TEXTS:
        return _faithful(values.flatten())
    if pt.is_list(values.type):
        return all(_faithful(pc.struct_field(values.flatten(), [name])) for name in _MESSAGE_NAMES)
    return True
