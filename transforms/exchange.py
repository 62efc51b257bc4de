"""The one way records change hands: packets to partitions, and small results to the driver.

A packet is `(partition, bytes)` whose bytes start with an order key, so that a receiver can put its packets into an
order that does not depend on arrival. Two carriers give receivers the same packets:

* run files: packets are appended to a file of the sending attempt's own, and only (path, offsets) travel through the
  runner's grouping. The local runner's GroupByKey would hold several times the data in memory. What a failed or
  abandoned attempt wrote is never referred to, so it does no harm.
* the runner's own shuffle: the packets themselves travel. Right on an engine, whose workers share no disk.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy.typing as npt
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from transforms import files
from transforms.batches import MAX_PACKET_BYTES, groups, pack

ORDER = struct.Struct(">QQ")  # big-endian: bytes compare as the two numbers do
_FRAME = struct.Struct("<16sQQ")  # order, offset in the run file, length
_INLINE, _STORED = b"\0", b"\1"
_SPILL_BYTES = 32 << 20  # held by one sender before it writes; bounds both memory and the number of run-file regions


def packet(body: bytes | memoryview, major: int, minor: int = 0) -> bytes:
    """A body with its order key. Two packets to one partition must differ in (major, minor), or be interchangeable."""
    return b"".join((ORDER.pack(major, minor), body))


Packets = Iterator[tuple[int, bytes]]


def send(partition: npt.NDArray[Any], arrays: Sequence[npt.NDArray[Any]], major: int, tag: bytes = b"") -> Packets:
    """Rows of parallel arrays as packets to their partitions, none above the bound."""
    row_bytes = sum(array.itemsize * (array.shape[1] if array.ndim == 2 else 1) for array in arrays)
    most = max(1, MAX_PACKET_BYTES // row_bytes)
    order, runs = groups(partition)
    for key, start, end in runs:
        for minor, first in enumerate(range(start, end, most)):
            rows = order[first : min(end, first + most)]
            yield key, packet(tag + pack(*(array[rows] for array in arrays)), major, minor)


def received(values: Iterable[bytes]) -> Iterator[memoryview]:
    """The bodies of a partition's packets, in key order; those in run files are mapped, not copied."""
    frames: list[tuple[bytes, str | None, int, int, bytes]] = []
    for value in values:
        if value[:1] == _INLINE:
            frames.append((value[1 : 1 + ORDER.size], None, 0, 0, value))
        else:
            run_file, entries = _open_reference(value)
            frames.extend((order, run_file, offset, length, b"") for order, offset, length in entries)
    frames.sort(key=lambda frame: frame[0])
    opened: dict[str, Any] = {}
    try:
        for _, path, offset, length, value in frames:
            if path is None:
                yield memoryview(value)[1 + ORDER.size :]
                continue
            if path not in opened:
                opened[path] = files.open_input(path)
            opened[path].seek(offset)
            yield files.read_view(opened[path], length)
    finally:
        for source in opened.values():
            source.close()


def _open_reference(value: bytes) -> tuple[str, list[tuple[bytes, int, int]]]:
    (length,) = struct.unpack_from("<I", value, 1)
    path = value[5 : 5 + length].decode()
    return path, list(_FRAME.iter_unpack(value[5 + length :]))


@dataclass
class Exchange(beam.PTransform):
    """Regroup packets by partition: of one collection, or of several that meet here.

    Several are joined after they were spilled: the local runner holds in memory what passes a Flatten.

    Args:
        scratch: folder for run files, shared by all workers, removed by the driver after the pipeline; None to send
            the packets through the runner's shuffle.
    """

    scratch: str | None = None

    def expand(self, packets: Any) -> Any:
        if not isinstance(packets, tuple):
            return self._carried(packets, "") | "Group" >> beam.GroupByKey()
        carried = tuple(self._carried(part, str(number)) for number, part in enumerate(packets))
        return carried | "Join" >> beam.Flatten() | "Group" >> beam.GroupByKey()

    def _carried(self, packets: Any, label: str) -> Any:
        if self.scratch is None:
            return packets | f"Inline{label}" >> beam.MapTuple(_inline).with_output_types(tuple[int, bytes])
        return packets | f"Spill{label}" >> beam.ParDo(_Spill(self.scratch)).with_output_types(tuple[int, bytes])


def _inline(partition: int, value: bytes) -> tuple[int, bytes]:
    return partition, _INLINE + value


class _Spill(beam.DoFn):
    """Appends packets to a run file of this attempt's own and emits where they are, grouped by partition."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch

    def start_bundle(self) -> None:
        self._path = files.join(self._scratch, f"{uuid.uuid4().hex}.run")
        self._sink: Any = None
        self._offset = 0
        self._held: dict[int, list[bytes]] = {}
        self._held_bytes = 0

    def process(self, element: tuple[int, bytes]) -> Iterator[tuple[int, bytes]]:
        partition, value = element
        self._held.setdefault(partition, []).append(value)
        self._held_bytes += len(value)
        if self._held_bytes >= _SPILL_BYTES:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for reference in self._flush():
            yield WindowedValue(reference, window.max_timestamp(), [window])
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def _flush(self) -> Iterator[tuple[int, bytes]]:
        if not self._held:
            return
        if self._sink is None:
            files.make_folder(self._scratch)
            self._sink = open(self._path, "wb")  # noqa: SIM115 - closed when the bundle ends
        name = self._path.encode()
        references = []
        for partition in sorted(self._held):
            frames = []
            for value in self._held[partition]:
                body = memoryview(value)[ORDER.size :]
                self._sink.write(body)
                frames.append(_FRAME.pack(value[: ORDER.size], self._offset, len(body)))
                self._offset += len(body)
            references.append((partition, b"".join([_STORED, struct.pack("<I", len(name)), name, *frames])))
        self._sink.flush()
        self._held = {}
        self._held_bytes = 0
        yield from references


@dataclass
class Gather(beam.PTransform):
    """Write all elements, sorted, into one file that the driver reads: for summaries, never for documents.

    Sorting makes the file independent of arrival. Nothing in, no file: `gathered` then gives an empty list.
    """

    path: str

    def expand(self, elements: Any) -> Any:
        return (
            elements
            | "ToOne" >> beam.Map(_to_one).with_output_types(tuple[int, bytes])
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(_WriteGathered(self.path))
        )


def _to_one(element: bytes) -> tuple[int, bytes]:
    return 0, element


class _WriteGathered(beam.DoFn):
    def __init__(self, path: str) -> None:
        self._path = path

    def process(self, element: tuple[int, Iterable[bytes]]) -> None:
        with files.atomic_output(self._path) as sink:
            for value in sorted(element[1]):
                sink.write(struct.pack("<Q", len(value)))
                sink.write(value)


def gathered(path: str) -> list[bytes]:
    if not files.exists(path):
        return []
    data = files.read_bytes(path)
    elements = []
    offset = 0
    while offset < len(data):
        (length,) = struct.unpack_from("<Q", data, offset)
        elements.append(data[offset + 8 : offset + 8 + length])
        offset += 8 + length
    return elements
