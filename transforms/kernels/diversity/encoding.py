"""Columns of integers as bytes: equal columns, equal bytes; damaged bytes are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

__all__ = ["Columns", "encode_columns", "unzigzag", "zigzag"]

MAGIC = b"DIV4"
CHECKSUM_BYTES = 8

Column = npt.NDArray[Any]


def encode_columns(columns: list[Column]) -> bytes:
    body = b"".join(map(_encoded, columns))
    return MAGIC + xxhash.xxh3_64_digest(body) + body


def _encoded(column: Column) -> bytes:
    """A byte that says how wide the numbers are, how many there are, then the numbers, as narrow as the greatest of
    them allows. The length is as narrow as can be, too, and the high half of the first byte says how wide it is."""
    greatest = int(column.max()) if len(column) else 0
    width, length_width = _width(greatest), _width(len(column))
    head = bytes([length_width << 4 | width]) + len(column).to_bytes(length_width, "little")
    return head + column.astype(f"<u{width}").tobytes()


def _width(greatest: int) -> int:
    return next(width for width in (1, 2, 4, 8) if greatest < 1 << 8 * width)


class Columns:
    """The columns of one encoded accumulator, taken in order."""

    def __init__(self, data: bytes) -> None:
        start = len(MAGIC) + CHECKSUM_BYTES
        magic, checksum, self._body = data[: len(MAGIC)], data[len(MAGIC) : start], data[start:]
        if magic != MAGIC:
            raise ValueError(
                f"not a diversity accumulator of this version: it starts with {magic!r}, not {MAGIC!r}. "
                "Measure the documents again."
            )
        if checksum != xxhash.xxh3_64_digest(self._body):
            raise ValueError(
                f"the diversity accumulator of {len(data)} bytes is damaged: its checksum does not match. "
                "Measure the documents again."
            )
        self._at = 0

    def take(self) -> Column:
        """The next column, as narrow unsigned integers."""
        width, length_width = self._body[self._at] & 15, self._body[self._at] >> 4
        start = self._at + 1 + length_width
        size = int.from_bytes(self._body[self._at + 1 : start], "little")
        self._at = start + size * width
        return np.frombuffer(self._body, f"<u{width}", size, start)


def zigzag(signed: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Numbers near zero, of either sign, as small numbers without one."""
    return (signed << 1 ^ signed >> 63).view(np.uint64)


def unzigzag(column: Column) -> npt.NDArray[np.int64]:
    unsigned = column.astype(np.uint64)
    return (unsigned >> np.uint64(1)).view(np.int64) ^ -(unsigned & np.uint64(1)).view(np.int64)
