"""Arrow columns of any type to text: documents as they are, metadata by one rule for every file format.

Metadata becomes text so: strings stay, with U+FFFD for every byte or surrogate that is not UTF-8; integers are decimal;
booleans are `true` and `false`; a floating-point number that is whole (below 2**53) is written as an integer, because
tables with gaps turn integers into floats, others in the shortest form that reads back the same; NaN is null; dates and
times are ISO 8601; nested values are compact JSON with sorted keys.
"""

from __future__ import annotations

import json
import re
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from transforms.kernels.columns import Explode, Join, Messages, ReadColumn
from transforms.kernels.hashing import byte_spans
from transforms.kernels.recognisers import HUMAN_ROLES, MODEL_ROLES, Voice
from transforms.kernels.schemas import MOST_TOKENS
from transforms.kernels.text import valid_utf8

__all__ = [
    "Composed",
    "as_count",
    "as_text",
    "compact_json",
    "compose",
    "first_problem",
    "scrub",
    "utf8_problem",
]

Documents = tuple[pa.Array, pa.Array | None]
"""Text as large_binary, not yet known to be UTF-8, and what is wrong with each value, if anything is."""

LARGEST_EXACT = 2.0**53
_SURROGATES = re.compile("[\ud800-\udfff]")
_SHOWN = 40  # characters of a value in a problem
_ROLE = ("role", "from")
_CONTENT = ("content", "value")


class Composed(NamedTuple):
    """The documents that the rows of a batch make. What is None is one document a row."""

    text: pa.Array  # large_binary, not yet known to be UTF-8
    problem: pa.Array | None  # what is wrong with each document, if anything is
    voices: NDArray[np.uint8] | None = None  # who speaks in each document, where its place or its messages say so
    owner: NDArray[np.int64] | None = None  # the row of each document, ascending
    part: NDArray[np.int32] | None = None  # and its place among those of the row


def compose(form: ReadColumn, names: list[str], values: list[pa.Array], broken: pa.Array | None = None) -> Composed:
    """The documents that the text columns of a batch make. Rows that are `broken` make one without text each."""
    if isinstance(form, Explode):
        return _exploded(form, names, values, broken)
    if isinstance(form, Messages):
        text, problem, voices = _conversations(form, names[0], values[0])
        return Composed(text, first_problem(broken, problem), voices)
    parts = [_documents(name, array) for name, array in zip(names, values, strict=True)]
    problem = broken
    for _, wrong in parts:
        problem = first_problem(problem, wrong)
    if not isinstance(form, Join):
        return Composed(parts[0][0], problem)
    filled = [_null_where(pc.equal(pc.binary_length(part), 0), part) for part, _ in parts]
    return Composed(reduce(lambda text, part: _joined(text, part, form.separator), filled), problem)


def first_problem(first: pa.Array | None, second: pa.Array | None) -> pa.Array | None:
    if first is None or second is None:
        return second if first is None else first
    return pc.coalesce(first, second)


def utf8_problem(name: str, value: bytes) -> str:
    """What is wrong with bytes that are not UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"{name} is not valid UTF-8 (byte 0x{value[error.start]:02x} at offset {error.start})"
    raise ValueError(f"{name} is valid UTF-8; ask only about values that are not")


def scrub(value: str) -> str:
    """The same without surrogates, which no UTF-8 can hold."""
    return _SURROGATES.sub("\ufffd", value)


def as_text(values: pa.Array) -> pa.Array:
    """Any column as valid strings, by the rule above."""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return as_text(values.storage)
    if pt.is_null(kind):
        return pa.nulls(len(values), pa.string())
    if pt.is_dictionary(kind):
        return as_text(values.dictionary_decode())
    if _is_bytes(kind):
        return _repaired(values.cast(pa.large_binary()))
    if pt.is_floating(kind):
        return _floats(values)
    if pt.is_timestamp(kind):
        return _timestamps(values)
    if pt.is_nested(kind):
        return pa.array([None if value is None else compact_json(value) for value in _plain(values)], pa.string())
    try:
        return values.cast(pa.string())
    except pa.ArrowNotImplementedError:
        return pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())


def as_count(name: str, values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Any column as int64, null where a value is not a count from 0 to `MOST_TOKENS`; and there, what it is."""
    texts = as_text(values)
    digits = pc.match_substring_regex(texts, "^[0-9]{1,18}$")
    counts = pc.if_else(digits, texts, pa.scalar(None, pa.string())).cast(pa.int64())
    counts = _null_where(pc.fill_null(pc.greater(counts, MOST_TOKENS), False), counts)
    shown = pc.fill_null(pc.utf8_slice_codeunits(texts, 0, _SHOWN), "null")
    expected = f", expected a whole number from 0 to {MOST_TOKENS}"
    problem = pc.binary_join_element_wise(f"no token count: {name} (tokens.column) is ", shown, expected, "")
    return counts, _null_where(counts.is_valid(), problem)


def compact_json(value: Any) -> str:
    return scrub(json.dumps(_finite(value), ensure_ascii=False, sort_keys=True, separators=(",", ":")))


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinities."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return value


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pt.is_string, pt.is_large_string, pt.is_string_view, pt.is_binary, pt.is_large_binary)
    return any(test(kind) for test in tests) or pt.is_binary_view(kind) or pt.is_fixed_size_binary(kind)


def _joined(first: pa.Array, second: pa.Array, separator: str) -> pa.Array:
    """Both with the separator between, or the one that is there. (Arrow's null_handling="skip" loses all-null rows.)"""
    between = pa.scalar(separator.encode(), pa.large_binary())
    return pc.coalesce(pc.binary_join_element_wise(first, second, between), first, second)


def _null_where(mask: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(mask, pa.scalar(None, values.type), values)


def _repaired(values: pa.Array) -> pa.Array:
    valid = valid_utf8(values)
    if not valid.all():
        broken = [scrub(value.decode(errors="surrogateescape")).encode() for value in values.filter(~valid).to_pylist()]
        values = pc.replace_with_mask(values, pa.array(~valid), pa.array(broken, pa.large_binary()))
    return values.view(pa.large_string()).cast(pa.string())


def _floats(values: pa.Array) -> pa.Array:
    wide = values.cast(pa.float64())
    whole = pc.and_(pc.equal(pc.floor(wide), wide), pc.less(pc.abs(wide), LARGEST_EXACT))
    texts = pc.if_else(whole, wide.cast(pa.int64(), safe=False).cast(pa.string()), values.cast(pa.string()))
    return _null_where(pc.is_nan(wide), texts)


def _timestamps(values: pa.Array) -> pa.Array:
    # The cast of a zoned timestamp needs a time zone database; its instant does not.
    naive = values.view(pa.timestamp(values.type.unit)).cast(pa.string())
    texts = pc.replace_substring_regex(naive, r"^([-0-9]+) ([:0-9]+)(\.[0-9]*[1-9])?\.?0*$", r"\1T\2\3")
    return texts if values.type.tz is None else pc.binary_join_element_wise(texts, pa.scalar("Z"), "")


def _plain(values: pa.Array) -> list[Any]:
    """A column as what JSON can hold. (`to_pylist` stumbles over broken UTF-8 and nanoseconds.)"""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return _plain(values.storage)
    if pt.is_dictionary(kind):
        return _plain(values.dictionary_decode())
    if pt.is_boolean(kind) or pt.is_integer(kind) or pt.is_floating(kind):
        return list(values.to_pylist())
    present = values.is_valid().to_pylist()
    if pt.is_struct(kind):
        names = [kind.field(index).name for index in range(kind.num_fields)]
        members = zip(*(_plain(pc.struct_field(values, [index])) for index in range(len(names))), strict=True)
        rows = [dict(zip(names, row, strict=True)) for row in members] if names else [{} for _ in present]
        return [row if there else None for row, there in zip(rows, present, strict=True)]
    if pt.is_map(kind):
        values = values.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
        kind = values.type
    if pt.is_nested(kind):
        items = iter(_plain(values.flatten()))
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_pylist()
        lists = [[next(items) for _ in range(length)] for length in lengths]
        return [value if there else None for value, there in zip(lists, present, strict=True)]
    return list(as_text(values).to_pylist())


def _documents(name: str, values: pa.Array) -> Documents:
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return _documents(name, values.storage)
    if pt.is_dictionary(kind):
        return _documents(name, values.dictionary_decode())
    if pt.is_null(kind):
        return pa.nulls(len(values), pa.large_binary()), None
    if _is_bytes(kind):
        return values.cast(pa.large_binary()), None
    return _refused(name, values, "a string")


def _refused(name: str, values: pa.Array, expected: str) -> Documents:
    """Every value that is there is of the wrong type."""
    kind = values.type
    if pt.is_nested(kind):
        what = "an object" if pt.is_struct(kind) or pt.is_map(kind) else "a list"
        problem = pa.array([f"{name} is {what}, expected {expected}"] * len(values), pa.string())
    else:
        what = "a number" if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) else f"a {kind}"
        shown = pc.fill_null(pc.utf8_slice_codeunits(as_text(values), 0, _SHOWN), "nan")
        problem = pc.binary_join_element_wise(f"{name} is {what} (", shown, f"), expected {expected}", "")
    return pa.nulls(len(values), pa.large_binary()), _null_where(values.is_null(), problem)


def _exploded(form: Explode, names: list[str], values: list[pa.Array], broken: pa.Array | None) -> Composed:
    """One document for each text of a row, in the order of the columns; one without text for a row that has none."""
    pieces = [_pieces(name, array) for name, array in zip(names, values, strict=True)]
    problem = broken
    for piece in pieces:
        problem = first_problem(problem, piece.problem)
    rows = len(values[0])
    sound = np.ones(rows, np.bool_) if problem is None else problem.is_null().to_numpy(zero_copy_only=False)
    counts = [np.where(sound, piece.counts, 0) for piece in pieces]
    sizes = np.maximum(np.sum(counts, axis=0), 1).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    owner = np.repeat(np.arange(rows), sizes)
    chosen = np.full(len(owner), -1, np.int64)
    voices = np.zeros(len(owner), np.uint8)
    behind, before = np.zeros(rows, np.int64), 0
    for piece, count, voice in zip(pieces, counts, form.voices, strict=True):
        items = np.cumsum(piece.counts) - piece.counts + before  # of each row, the first among all pieces
        at = _ranges(starts + behind, count)
        chosen[at] = _ranges(items, count)
        voices[at] = voice
        behind += count
        before += len(piece.texts)
    texts = pa.concat_arrays([piece.texts for piece in pieces]).take(pa.array(chosen, mask=chosen < 0))
    told = None if problem is None else problem.take(pa.array(owner))
    return Composed(texts, told, voices, owner, (np.arange(len(owner)) - starts[owner]).astype(np.int32))


def _ranges(first: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """first[i], first[i] + 1, ... counts[i] of them, for each i in turn."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - counts), counts)


class _Pieces(NamedTuple):
    texts: pa.Array
    counts: NDArray[np.int64]  # of each row
    problem: pa.Array | None  # of each row


def _pieces(name: str, values: pa.Array) -> _Pieces:
    """The texts of a column that holds one text, or a list of them, in each row."""
    kind = values.type
    if not (pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)):
        texts, problem = _documents(name, values)
        return _Pieces(texts, np.ones(len(values), np.int64), problem)
    texts, problem = _documents(name, values.flatten())
    if problem is not None:
        texts, problem = _refused(name, values, "a list of strings")
        return _Pieces(texts, np.ones(len(values), np.int64), problem)
    counts = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    return _Pieces(texts, counts.astype(np.int64), None)


def _conversations(
    column: Messages, name: str, values: pa.Array
) -> tuple[pa.Array, pa.Array | None, NDArray[np.uint8] | None]:
    kind = values.type
    if pt.is_null(kind):
        return pa.nulls(len(values), pa.large_binary()), None, None
    parts = _message_parts(values)
    if parts is None:
        return *_refused(name, values, "a list of messages with role and content as strings"), None
    role, content = parts
    chosen = pc.greater(pc.fill_null(pc.binary_length(content), 0), 0)
    if column.count:
        counted = pa.array([word.encode() for word in column.count], pa.large_binary())
        chosen = pc.and_(chosen, pc.is_in(role, counted))
    mask = chosen.to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    owner = np.repeat(np.arange(len(values)), lengths)[mask]
    role = role.filter(chosen)
    lines = _joined(role, content.filter(chosen), ": ")
    # Every line but a conversation's first brings its newline along, so a conversation is one run of the buffer.
    leads = pc.if_else(pa.array(np.diff(owner, prepend=-1) > 0), b"", b"\n").cast(pa.large_binary())
    lines = pc.binary_join_element_wise(leads, lines, pa.scalar(b"", pa.large_binary()))
    data, starts, stops = byte_spans(lines)
    bounds = np.append(starts, stops[-1:] if len(stops) else [0])
    offsets = bounds[np.searchsorted(owner, np.arange(len(values) + 1))]
    texts = pa.Array.from_buffers(pa.large_binary(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    voices = np.zeros(len(values), np.uint8)
    for roles, voice in ((HUMAN_ROLES, Voice.HUMAN), (MODEL_ROLES, Voice.MODEL)):
        voices[owner[_is_role(role, roles)]] |= np.uint8(voice)
    return (_null_where(values.is_null(), texts) if values.null_count else texts), None, voices


def _is_role(role: pa.Array, names: tuple[str, ...]) -> NDArray[np.bool_]:
    spelled = [form.encode() for name in names for form in (name, name.title(), name.upper())]
    return pc.is_in(role, pa.array(spelled, pa.large_binary())).to_numpy(zero_copy_only=False)


def _message_parts(values: pa.Array) -> tuple[pa.Array, pa.Array] | None:
    """Role and content of all messages in a row, or None if the type cannot hold messages."""
    kind = values.type
    if not pt.is_nested(kind) or pt.is_struct(kind) or pt.is_map(kind) or not pt.is_struct(kind.value_type):
        return None
    messages = values.flatten()
    parts = []
    for spellings in (_ROLE, _CONTENT):
        part = pa.nulls(len(messages), pa.large_binary())
        for spelling in spellings:
            if messages.type.get_field_index(spelling) >= 0:
                found, wrong = _documents(spelling, pc.struct_field(messages, [spelling]))
                if wrong is not None:
                    return None
                part = pc.coalesce(part, found)
        parts.append(part)
    return parts[0], parts[1]
