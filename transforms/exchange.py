"""The one way records change hands: packets to partitions, and small results to the driver.

A packet is `(partition, bytes)` whose bytes start with an order key, so that a receiver can put its packets into an
order that does not depend on arrival. Two carriers give receivers the same packets:

* run files: packets are appended to a file of the sending attempt's own, and only (path, offsets) travel through the
  runner's grouping. The local runner's GroupByKey would hold several times the data in memory. What a failed or
  abandoned attempt wrote is never referred to, so it does no harm. Where one process does all the work, the first
  packets of a pipeline stay in its memory instead (`hold_packets`): small inputs then write no run file at all.
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
_FRAME = struct.Struct("<16sQQ")  # order, offset in the run file or place among those held, length
_INLINE, _STORED, _HELD = b"\0", b"\1", b"\2"
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


_most_held = 0
_held: dict[str, list[bytes]] = {}  # per flush of a sender, its packets


def hold_packets(most_bytes: int) -> None:
    """Let go of all packets held in memory, and hold at most so many bytes of them from now on.

    For pipelines whose only worker is this process. Bundles may be repeated and packets received more than once, so
    nothing is let go before the pipeline ends.
    """
    global _most_held
    _most_held = most_bytes
    _held.clear()


def received(values: Iterable[bytes]) -> Iterator[memoryview]:
    """The bodies of a partition's packets, in key order; those in run files are mapped, not copied."""
    frames: list[tuple[bytes, str | None, int, int, bytes]] = []
    for value in values:
        if value[:1] == _INLINE:
            frames.append((value[1 : 1 + ORDER.size], None, 1 + ORDER.size, 0, value))
            continue
        name, entries = _open_reference(value)
        if value[:1] == _HELD:
            frames.extend((order, None, ORDER.size, 0, _held[name][place]) for order, place, _ in entries)
        else:
            frames.extend((order, name, offset, length, b"") for order, offset, length in entries)
    frames.sort(key=lambda frame: frame[0])
    opened: dict[str, Any] = {}
    try:
        for _, path, offset, length, value in frames:
            if path is None:
                yield memoryview(value)[offset:]
                continue
            if path not in opened:
                opened[path] = files.open_input(path)
            opened[path].seek(offset)
            yield files.read_view(opened[path], length)
    finally:
        for source in opened.values():
            source.close()


def _reference(kind: bytes, name: str, frames: list[bytes]) -> bytes:
    encoded = name.encode()
    return b"".join([kind, struct.pack("<I", len(encoded)), encoded, *frames])


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
    """Holds packets or appends them to a run file of this attempt's own, and emits where they are, by partition."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch

    def start_bundle(self) -> None:
        self._path = files.join(self._scratch, f"{uuid.uuid4().hex}.run")
        self._sink: Any = None
        self._offset = 0
        self._packets: dict[int, list[bytes]] = {}
        self._bytes = 0

    def process(self, element: tuple[int, bytes]) -> Iterator[tuple[int, bytes]]:
        partition, value = element
        self._packets.setdefault(partition, []).append(value)
        self._bytes += len(value)
        if self._bytes >= _SPILL_BYTES:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for reference in self._flush():
            yield WindowedValue(reference, window.max_timestamp(), [window])
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def _flush(self) -> Iterator[tuple[int, bytes]]:
        global _most_held
        packets, self._packets = self._packets, {}
        size, self._bytes = self._bytes, 0
        if 0 < size <= _most_held:
            _most_held -= size
            yield from self._hold(packets)
        elif packets:
            yield from self._write(packets)

    def _hold(self, packets: dict[int, list[bytes]]) -> Iterator[tuple[int, bytes]]:
        name = uuid.uuid4().hex
        held = _held[name] = []
        for partition in sorted(packets):
            frames = []
            for value in packets[partition]:
                frames.append(_FRAME.pack(value[: ORDER.size], len(held), len(value)))
                held.append(value)
            yield partition, _reference(_HELD, name, frames)

    def _write(self, packets: dict[int, list[bytes]]) -> Iterator[tuple[int, bytes]]:
        if self._sink is None:
            files.make_folder(self._scratch)
            self._sink = open(self._path, "wb")  # noqa: SIM115 - closed when the bundle ends
        references = []
        for partition in sorted(packets):
            frames = []
            for value in packets[partition]:
                body = memoryview(value)[ORDER.size :]
                self._sink.write(body)
                frames.append(_FRAME.pack(value[: ORDER.size], self._offset, len(body)))
                self._offset += len(body)
            references.append((partition, _reference(_STORED, self._path, frames)))
        self._sink.flush()
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
