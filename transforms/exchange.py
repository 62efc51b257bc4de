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

import json
import struct
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from transforms import files
from transforms.batches import MAX_PACKET_BYTES, groups, pack

ORDER = struct.Struct(">QQ")  # big-endian: bytes compare as the two numbers do
_FRAME = struct.Struct("<16sQQ")  # order, offset in the run file or place among those held, length
_INLINE, _STORED, _HELD = b"\0", b"\1", b"\2"
_SPILL_BYTES = 32 << 20  # held by one sender before it writes; bounds both memory and the number of run-file regions


Packet: TypeAlias = bytes | pa.Buffer
"""An order key and what follows it. A buffer of Arrow's is made without copying text, and like bytes can be pickled
by a runner that moves packets before they reach their exchange."""


def packet(body: bytes | memoryview, major: int, minor: int = 0) -> bytes:
    """A body with its order key. Two packets to one partition must differ in (major, minor), or be interchangeable."""
    return b"".join((ORDER.pack(major, minor), body))


Packets = Iterator[tuple[int, Packet]]


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
_held: dict[str, list[Packet]] = {}  # per flush of a sender, its packets


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
    frames: list[tuple[bytes, str | None, int, int, Packet]] = []
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
    name, frames = _frames_of(value)
    return name, list(_FRAME.iter_unpack(frames))


def _frames_of(value: bytes) -> tuple[str, bytes]:
    (length,) = struct.unpack_from("<I", value, 1)
    return value[5 : 5 + length].decode(), value[5 + length :]


@dataclass
class Exchange(beam.PTransform):
    """Regroup packets by partition: of one collection, or of several that meet here.

    Several are joined after they were spilled: the local runner holds in memory what passes a Flatten. What arrives is
    weighed on the way; `note_traffic` and `report_traffic` tell that of a whole pipeline.

    Args:
        scratch: folder for run files, shared by all workers, removed by the driver after the pipeline; None to send
            the packets through the runner's shuffle.
    """

    scratch: str | None = None

    def expand(self, packets: Any) -> Any:
        if isinstance(packets, tuple):
            carried = tuple(self._carried(part, str(number)) for number, part in enumerate(packets))
            grouped = carried | "Join" >> beam.Flatten() | "Group" >> beam.GroupByKey()
        else:
            grouped = self._carried(packets, "") | "Group" >> beam.GroupByKey()
        weighed = grouped | "Weigh" >> beam.ParDo(_Weigh(self.label)).with_outputs(
            _TRAFFIC, main="grouped", allow_unknown_tags=False
        )
        _ = weighed[_TRAFFIC]  # made now, so that `report_traffic` finds it
        return weighed.grouped

    def _carried(self, packets: Any, label: str) -> Any:
        if self.scratch is None:
            return packets | f"Inline{label}" >> beam.MapTuple(_inline).with_output_types(tuple[int, bytes])
        return packets | f"Spill{label}" >> beam.ParDo(_Spill(self.scratch)).with_output_types(tuple[int, bytes])


def _inline(partition: int, value: Packet) -> tuple[int, bytes]:
    return partition, b"".join((_INLINE, value))


class _Spill(beam.DoFn):
    """Holds packets or appends them to a run file of this attempt's own, and emits where they are, by partition."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch

    def start_bundle(self) -> None:
        self._path = files.join(self._scratch, f"{uuid.uuid4().hex}.run")
        self._sink: Any = None
        self._offset = 0
        self._packets: dict[int, list[Packet]] = {}
        self._bytes = 0

    def process(self, element: tuple[int, Packet]) -> Iterator[tuple[int, bytes]]:
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

    def _hold(self, packets: dict[int, list[Packet]]) -> Iterator[tuple[int, bytes]]:
        name = uuid.uuid4().hex
        held = _held[name] = []
        for partition in sorted(packets):
            frames = []
            for value in packets[partition]:
                frames.append(_FRAME.pack(bytes(value[: ORDER.size]), len(held), len(value)))
                held.append(value)
            yield partition, _reference(_HELD, name, frames)

    def _write(self, packets: dict[int, list[Packet]]) -> Iterator[tuple[int, bytes]]:
        if self._sink is None:
            files.make_folder(self._scratch)
            self._sink = open(self._path, "wb")  # noqa: SIM115 - closed when the bundle ends
        references = []
        for partition in sorted(packets):
            frames = []
            for value in packets[partition]:
                body = memoryview(value)[ORDER.size :]
                self._sink.write(body)
                frames.append(_FRAME.pack(bytes(value[: ORDER.size]), self._offset, len(body)))
                self._offset += len(body)
            references.append((partition, _reference(_STORED, self._path, frames)))
        self._sink.flush()
        yield from references


@dataclass(frozen=True)
class Traffic:
    """What one exchange carried: exact, because only what a receiver was given counts, and that once."""

    exchange: str
    partitions: int  # that got anything
    packets: int
    bytes: int  # of packets with their order keys, whichever way they travelled
    largest: int  # bytes of the heaviest partition, which is what one receiver gets

    def plus(self, other: Traffic) -> Traffic:
        """Of the same exchange."""
        return Traffic(
            self.exchange,
            self.partitions + other.partitions,
            self.packets + other.packets,
            self.bytes + other.bytes,
            max(self.largest, other.largest),
        )


_TRAFFIC = "traffic"
_noted: dict[tuple[str, int], Traffic] | None = None  # by exchange and partition


def note_traffic() -> None:
    """Have this process note what exchanges carry from now on; `noted_traffic` tells it and ends that.

    For pipelines whose only worker is this process: it saves them a grouping, which costs a small run a tenth of its
    time. Bundles may be repeated, so notes are kept by partition. Elsewhere `report_traffic` does the same.
    """
    global _noted
    _noted = {}


def noted_traffic() -> list[Traffic]:
    """What each exchange carried, by name."""
    global _noted
    noted, _noted = _noted or {}, None
    return _added_up(noted.values())


class _Weigh(beam.DoFn):
    """Hands partitions on as they are, and tells at the end of each bundle what they weighed.

    Receivers hold all references to their packets anyway, so a list of them costs nothing, and an engine that pages
    large groups is not asked for them twice.
    """

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange

    def start_bundle(self) -> None:
        self._found: list[Traffic] = []

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, list[bytes]]]:
        partition, values = element[0], list(element[1])
        packets = size = 0
        for value in values:
            if value[:1] == _INLINE:
                packets, size = packets + 1, size + len(value) - 1
                continue
            _, frames = _frames_of(value)
            lengths = np.frombuffer(frames, "<u8").reshape(-1, _FRAME.size // 8)[:, 3]
            # Those in a run file are told without the order key, which travels beside them.
            packets, size = packets + len(lengths), size + int(lengths.sum())
            size += len(lengths) * ORDER.size if value[:1] == _STORED else 0
        found = Traffic(self._exchange, 1, packets, size, size)
        if _noted is None:
            self._found = _added_up([*self._found, found])
        else:
            _noted[self._exchange, partition] = found
        yield partition, values

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for found in self._found:
            told = json.dumps(asdict(found), sort_keys=True).encode()
            yield beam.pvalue.TaggedOutput(_TRAFFIC, WindowedValue(told, window.max_timestamp(), [window]))


class _Weighings(PipelineVisitor):
    """The collections in which the exchanges of a pipeline tell what they weighed."""

    def __init__(self) -> None:
        self.found: list[beam.PCollection[bytes]] = []

    def visit_transform(self, transform_node: AppliedPTransform) -> None:
        transform = transform_node.transform
        if isinstance(transform, beam.ParDo) and isinstance(transform.fn, _Weigh):
            self.found.append(transform_node.outputs[_TRAFFIC])


def report_traffic(pipeline: beam.Pipeline, path: str) -> None:
    """Have a pipeline that is defined write, at its end, what its exchanges carried; `reported_traffic` reads it."""
    weighings = _Weighings()
    pipeline.visit(weighings)
    if weighings.found:
        _ = tuple(weighings.found) | "Traffic" >> beam.Flatten() | "ReportTraffic" >> Gather(path)


def reported_traffic(path: str) -> list[Traffic]:
    """What each exchange carried, by name."""
    return _added_up(Traffic(**json.loads(part)) for part in gathered(path))


def _added_up(parts: Iterable[Traffic]) -> list[Traffic]:
    found: dict[str, Traffic] = {}
    for part in parts:
        found[part.exchange] = found[part.exchange].plus(part) if part.exchange in found else part
    return [found[exchange] for exchange in sorted(found)]


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
