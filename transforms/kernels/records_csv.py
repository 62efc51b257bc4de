"""CSV and TSV to raw columns: one compiled pass finds the fields, a second one copies those that are wanted.

The first record is the header. A field in double quotes may hold delimiters, newlines and doubled quotes; a quote
inside a bare field is an ordinary character. Blank lines are no records, an empty field is null, all else is text.
Where a quote is never closed nobody can tell the records behind it, so such a file is unreadable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.columns import ColumnMap, Located, OnLocated, Tree, locate
from transforms.kernels.parsed import Limits, parsed_batch
from transforms.kernels.streams import UnreadableFile

__all__ = ["csv_tree", "read_csv"]

BLOCK_BYTES = 4 << 20
_MAX_COLUMNS = 10_000

_OUTSIDE, _BARE, _QUOTED, _CLOSED = range(4)  # where in a field a byte stands
_FINE, _AFTER_QUOTE = range(2)  # what may be wrong with a record, its number of fields aside

Fields = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8], int, int, int]
"""starts, stops (negative where quotes are doubled) by wanted column, fields per record, faults, records, bytes, and
where the quote stands that is open at the end, or -1."""


def csv_tree(pieces: Iterator[bytes], path: str, delimiter: str, limits: Limits) -> Tree:
    names = _Records(pieces, path, delimiter, limits).header()
    return {name: {} for name in names}


def read_csv(
    pieces: Iterator[bytes],
    path: str,
    delimiter: str,
    columns: ColumnMap,
    limits: Limits,
    first_row: int,
    wanted: Callable[[int, int], bool],
    on_located: OnLocated,
) -> Iterator[pa.RecordBatch]:
    """PARSED rows of the whole file."""
    records = _Records(pieces, path, delimiter, limits)
    names = records.header()
    located: Located | None = None
    keys: list[tuple[str, ...]] = []
    row = first_row
    places = np.empty(0, np.int64)
    while records.more():
        if located is None:
            located = locate(columns, {name: {} for name in names}, path)
            if located.unseen:
                raise located.unseen[0]
            on_located(located)
            keys = sorted(located.columns())
            places = np.array([names.index(key[0]) for key in keys], np.int64)
        block, fields = records.take(places)
        starts, stops, counts, faults, rows, _, _ = fields
        if rows and wanted(row, rows):
            broken = _problems(counts[:rows], faults[:rows], len(names))
            sound = np.ones(rows, np.bool_) if broken is None else ~broken.is_valid().to_numpy(zero_copy_only=False)
            values = {
                key: _gather(block, starts[:rows, place], stops[:rows, place], sound) for place, key in enumerate(keys)
            }
            yield parsed_batch(row, located, values, columns.kept, limits, broken)
        row += rows


class _Records:
    """Takes whole records off a stream of bytes."""

    def __init__(self, pieces: Iterator[bytes], path: str, delimiter: str, limits: Limits) -> None:
        self._pieces = pieces
        self._path = path
        self._delimiter = ord(delimiter)
        self._limits = limits
        self._held = b""
        self._lines = 0  # before what is held
        self._ended = False

    def header(self) -> list[str]:
        """The names of the columns; none in an empty file."""
        if not self.more():
            return []
        block, fields = self.take(np.arange(_MAX_COLUMNS), limit=1)
        starts, stops, counts, faults, rows, _, _ = fields
        if not rows:
            return []
        width = int(counts[0])
        if faults[0] or width > _MAX_COLUMNS:
            raise UnreadableFile(self._path, "the header is broken: a stray quote, or too many columns")
        columns = [_gather(block, starts[:1, place], stops[:1, place], np.ones(1, np.bool_)) for place in range(width)]
        names = [(column[0].as_py() or b"").decode(errors="replace") for column in columns]
        if any("\r" in name for name in names):
            raise UnreadableFile(self._path, "lines end with a bare carriage return; convert them to newlines")
        return names

    def more(self) -> bool:
        """Whether bytes are left."""
        self._fill(1)
        return bool(self._held)

    def take(self, places: NDArray[np.int64], limit: int = 0) -> tuple[NDArray[np.uint8], Fields]:
        """The next records that are whole, `limit` of them or about a block, and the fields at `places`."""
        size = BLOCK_BYTES
        while True:
            self._fill(size)
            block = np.frombuffer(self._held, np.uint8)
            lines = _newlines(block)
            fields = _find_fields(block, self._delimiter, places, limit or lines + 1, self._ended)
            consumed, quote = fields[-2:]
            if quote >= 0 and self._ended:
                raise self._never_closed(block, quote, "")
            if consumed:
                self._held = self._held[consumed:]
                self._lines += lines - _newlines(block[consumed:])
                return block, fields
            if size >= self._limits.max_record:
                if quote >= 0:
                    raise self._never_closed(block, quote, f" within {size} bytes, the most a record may have")
                raise UnreadableFile(
                    self._path, f"the record on line {self._lines + 1} has more than {size} bytes, the most it may have"
                )
            size = min(2 * size, self._limits.max_record)

    def _never_closed(self, block: NDArray[np.uint8], quote: int, within: str) -> UnreadableFile:
        line = self._lines + _newlines(block[:quote]) + 1
        return UnreadableFile(
            self._path,
            f"a quote opened on line {line} is never closed{within}; close it, or, if it belongs to the text, put the "
            "field in quotes and double it",
        )

    def _fill(self, size: int) -> None:
        parts = [self._held]
        length = len(self._held)
        while length < size and not self._ended:
            piece = next(self._pieces, None)
            self._ended = piece is None
            parts.append(piece or b"")
            length += len(parts[-1])
        self._held = b"".join(parts)


def _newlines(block: NDArray[np.uint8]) -> int:
    return int(np.count_nonzero(block == ord("\n")))


@njit(nogil=True, cache=True)
def _find_fields(data: NDArray[np.uint8], delimiter: int, places: NDArray[np.int64], most: int, final: bool) -> Fields:
    slots = np.full(places.max() + 1 if len(places) else 0, -1, np.int64)
    for slot in range(len(places)):
        slots[places[slot]] = slot
    starts = np.zeros((most, len(places)), np.int32)
    stops = np.zeros((most, len(places)), np.int32)
    counts = np.zeros(most, np.int32)
    faults = np.zeros(most, np.uint8)
    record, field, start, consumed = 0, 0, 0, 0
    doubled = False
    closed = 0
    state = _OUTSIDE
    position = 0
    length = len(data)
    while record < most:
        at_end = position == length
        if at_end and (not final or consumed == length or state == _QUOTED):
            break
        if state == _QUOTED:
            while position < length and data[position] != 34:
                position += 1
            if position == length:
                continue
            if position + 1 < length and data[position + 1] == 34:
                doubled = True
                position += 1
            elif position + 1 == length and not final:
                break
            else:
                state = _CLOSED
                closed = position
            position += 1
            continue
        byte = data[position] if not at_end else 10
        if byte == delimiter or byte == 10:
            stop = position
            if state == _CLOSED:
                stop = closed
            elif byte == 10 and stop > start and data[stop - 1] == 13:
                stop -= 1
            if byte == 10 and field == 0 and state != _CLOSED and stop == start:
                consumed = min(position + 1, length)  # a blank line
            else:
                if field < len(slots) and slots[field] >= 0:
                    starts[record, slots[field]] = start
                    stops[record, slots[field]] = -stop if doubled else stop
                field += 1
                if byte == 10:
                    counts[record] = field
                    record += 1
                    field = 0
                    consumed = min(position + 1, length)
            if at_end:
                break
            start = position + 1
            doubled = False
            state = _OUTSIDE
        elif state == _OUTSIDE and byte == 34:
            state = _QUOTED
            start = position + 1
        elif state == _CLOSED:
            # What follows a closing quote can only be the end of the field.
            if byte != 13 or (position + 1 < length and data[position + 1] != 10):
                faults[record] = _AFTER_QUOTE
        elif state == _OUTSIDE:
            state = _BARE
        position += 1
    return starts, stops, counts, faults, record, consumed, start - 1 if state == _QUOTED else -1


@njit(nogil=True, cache=True)
def _copy_fields(
    data: NDArray[np.uint8],
    starts: NDArray[np.int32],
    stops: NDArray[np.int32],
    sound: NDArray[np.bool_],
    offsets: NDArray[np.int64],
) -> NDArray[np.uint8]:
    size = 0
    for row in range(len(starts)):
        size += max(0, abs(stops[row]) - starts[row]) if sound[row] else 0
    out = np.empty(size, np.uint8)
    end = 0
    for row in range(len(starts)):
        offsets[row] = end
        if sound[row]:
            position = int(starts[row])
            stop = int(abs(stops[row]))
            if stops[row] >= 0:
                out[end : end + stop - position] = data[position:stop]
                end += stop - position
            else:
                while position < stop:
                    out[end] = data[position]
                    end += 1
                    position += 2 if data[position] == 34 else 1
    offsets[len(starts)] = end
    return out[:end]


def _gather(
    block: NDArray[np.uint8], starts: NDArray[np.int32], stops: NDArray[np.int32], sound: NDArray[np.bool_]
) -> pa.Array:
    """One column of the sound records; empty and unsound ones are null."""
    offsets = np.empty(len(starts) + 1, np.int64)
    content = _copy_fields(block, np.ascontiguousarray(starts), np.ascontiguousarray(stops), sound, offsets)
    present = np.packbits(np.diff(offsets) > 0, bitorder="little")
    buffers = [pa.py_buffer(present), pa.py_buffer(offsets), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.large_binary(), len(starts), buffers)


def _problems(counts: NDArray[np.int32], faults: NDArray[np.uint8], width: int) -> pa.Array | None:
    broken = np.flatnonzero((counts != width) | (faults != _FINE))
    if not len(broken):
        return None
    problems: list[str | None] = [None] * len(counts)
    for row in broken.tolist():
        if faults[row] == _AFTER_QUOTE:
            problems[row] = "the record has text after a closing quote, expected a delimiter or the end of the line"
        else:
            problems[row] = f"the record has {counts[row]} fields, expected {width} as in the header"
    return pa.array(problems, pa.string())
