"""What travels between workers: splits, document addresses, packets, and how big any of them may be.

Beam moves a few hundred thousand elements a second whatever their size, so an element is never one document: it is
a task (a `Split`) or a packet of thousands of records, packed as plain little-endian arrays.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_BATCH_BYTES = 8 << 20  # of text in one batch, unless the batch is one document
MAX_BATCH_ROWS = 4096
MAX_PACKET_BYTES = 16 << 20  # engines reject or choke on larger elements; one document may exceed it
MAX_DOCUMENT_BYTES = 64 << 20  # longer documents are bad records

PLACE_BITS = 32
"""An address is `split << PLACE_BITS | place`: it sorts as (source, shard, row, part) does."""
PLACE_MASK = np.uint64((1 << PLACE_BITS) - 1)


@dataclass(frozen=True)
class Split:
    """A part of one input file that one worker reads, and where its facts are kept."""

    index: int  # position among all splits of the index, in the order (source, shard, first row)
    source: str
    shard: str
    path: str
    kind: str  # parquet | jsonl | csv
    compression: str  # none | gz | zst
    row_groups: tuple[int, int] | None  # half-open range; None: the whole file
    first_row: int
    weight: int  # bytes of work, so that the largest start first
    facts: str  # path of the facts sidecar
    whole: bool  # also digests the file: true for the first split of each shard

    @property
    def facts_name(self) -> str:
        """Where its facts are inside any index: shard key and row groups."""
        return "/".join(self.facts.removesuffix(".parquet").rsplit("/", 2)[1:])

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Split:
        return cls.of(json.loads(bytes(data)))

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Split:
        if fields["row_groups"] is not None:
            fields["row_groups"] = tuple(fields["row_groups"])
        return cls(**fields)


class Origin(IntEnum):
    """Which index a document of dedup belongs to, and what it does to new documents that are like it."""

    OWN = 0
    EARLIER_IF_NO_WORSE = 1  # removes those of no better provenance; `keep: best`
    EARLIER = 2  # removes them; `keep: earlier`
    KNOWN = 3  # of text known to be synthetic: removes nothing, marks what is like it
    REFERENCE = 4  # held out: what is like it stays out of the mix


@dataclass(frozen=True)
class DedupTask:
    """A split whose documents take part in dedup: of this index, the kept ones of an earlier index, known synthetic or
    held out.

    Splits are numbered in that order, so an address tells whose a document is.
    """

    split: Split
    origin: Origin = Origin.OWN
    fates: str | None = None  # of an earlier split: path of its fates,
    index: str | None = None  # its index,
    number: int = 0  # and its number there

    @property
    def settings(self) -> str:
        """The name under which stages find how this split's text is read: sources of two indexes may share a name."""
        return self.split.source if self.origin == Origin.OWN else f"{self.split.index}:{self.split.source}"

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> DedupTask:
        fields = json.loads(bytes(data))
        return cls(**{**fields, "split": Split.of(fields["split"]), "origin": Origin(fields["origin"])})


def addresses(split: int, places: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """The addresses of documents at `places` of a split."""
    return (np.uint64(split) << np.uint64(PLACE_BITS)) | places.astype(np.uint64)


def split_of(documents: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    return (documents >> np.uint64(PLACE_BITS)).astype(np.int64)


def place_of(documents: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    return (documents & PLACE_MASK).astype(np.int64)


def spread(documents: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Addresses as well-mixed numbers: neighbours must not all go to one partition."""
    return (documents * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)


_COUNT = struct.Struct("<I")
_ARRAY = struct.Struct("<4sIQ")  # dtype, width (0: one-dimensional), rows


def pack(*arrays: npt.NDArray[Any]) -> bytes:
    """Arrays of one or two dimensions as one buffer; `unpack` gives them back without copying."""
    parts = [_COUNT.pack(len(arrays))]
    for array in arrays:
        width = array.shape[1] if array.ndim == 2 else 0
        little = array.dtype.newbyteorder("<")
        parts.append(_ARRAY.pack(little.str.lstrip("<|=").encode(), width, array.shape[0]))
        parts.append(np.ascontiguousarray(array, little).tobytes())
    return b"".join(parts)


def unpack(data: bytes | memoryview) -> list[npt.NDArray[Any]]:
    (count,) = _COUNT.unpack_from(data)
    offset = _COUNT.size
    arrays: list[npt.NDArray[Any]] = []
    for _ in range(count):
        name, width, rows = _ARRAY.unpack_from(data, offset)
        offset += _ARRAY.size
        dtype = np.dtype("<" + name.rstrip(b"\0").decode())
        items = rows * (width or 1)
        array = np.frombuffer(data, dtype, items, offset)
        offset += items * dtype.itemsize
        arrays.append(array.reshape(rows, width) if width else array)
    return arrays


def unpack_all(packets: Iterable[bytes | memoryview]) -> list[npt.NDArray[Any]]:
    """Packets of the same layout, each array joined over all of them; an empty list if there is no packet."""
    columns = list(zip(*map(unpack, packets), strict=True))
    return [np.concatenate(column) if len(column) > 1 else column[0] for column in columns]


def groups(keys: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], list[tuple[int, int, int]]]:
    """A stable order that sorts `keys`, and (key, start, end) of each run in it: one pass per regrouping."""
    order = np.argsort(keys, kind="stable")
    if len(order) == 0:
        return order, []
    in_order = keys[order]
    starts = np.flatnonzero(np.r_[True, in_order[1:] != in_order[:-1]])
    ends = np.r_[starts[1:], len(order)]
    return order, [
        (int(key), int(start), int(end)) for key, start, end in zip(in_order[starts], starts, ends, strict=True)
    ]


def chunks_of_bytes(sizes: npt.NDArray[np.int64], most: int = MAX_PACKET_BYTES) -> Sequence[tuple[int, int]]:
    """Half-open ranges of consecutive items that weigh at most `most` together, or hold exactly one item."""
    ends = np.cumsum(sizes)
    ranges = []
    start = 0
    while start < len(sizes):
        base = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, base + most, side="right")))
        ranges.append((start, end))
        start = end
    return ranges
