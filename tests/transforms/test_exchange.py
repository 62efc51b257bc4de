"""Exchange: the same packets, in key order, by any carrier and however they arrive. Gather: small, sorted, whole."""

from __future__ import annotations

import random
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.submit import LOCAL_RUNNER
from transforms import exchange
from transforms.exchange import (
    Exchange,
    Gather,
    Traffic,
    gathered,
    note_traffic,
    noted_traffic,
    packet,
    received,
    report_traffic,
    reported_traffic,
)

Packet = tuple[int, bytes]
# Order keys are unique per partition, as senders promise.
PACKETS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=40)),
    max_size=30,
    unique_by=lambda made: made[:3],
)
Made = Sequence[tuple[int, int, int, bytes]]


def packets_of(made: Made) -> list[Packet]:
    return [(partition, packet(body, major, minor)) for partition, major, minor, body in made]


def expected(made: Made) -> dict[int, list[bytes]]:
    """Bodies of each partition, in the order of (major, minor)."""
    found: dict[int, list[bytes]] = defaultdict(list)
    for partition, _, _, body in sorted(made, key=lambda one: one[:3]):
        found[partition].append(body)
    return dict(found)


def spilled(bundles: Iterable[Sequence[Packet]], scratch: Path) -> Iterator[Packet]:
    """What reaches the grouping when each bundle is one attempt of a sender."""
    for bundle in bundles:
        sender = exchange._Spill(str(scratch))
        sender.start_bundle()
        for element in bundle:
            yield from sender.process(element)
        for value in sender.finish_bundle():
            assert isinstance(value, WindowedValue)
            assert value.windows == [GlobalWindow()]
            yield value.value


def grouped(carried: Iterable[Packet]) -> dict[int, list[bytes]]:
    values: dict[int, list[bytes]] = defaultdict(list)
    for partition, value in carried:
        values[partition].append(value)
    return {partition: [bytes(body) for body in received(arrived)] for partition, arrived in values.items()}


@pytest.fixture(autouse=True)
def _nothing_held() -> Iterator[None]:
    yield
    exchange.hold_packets(0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    made=PACKETS,
    bundle=st.integers(1, 7),
    spill=st.integers(1, 120),
    most_held=st.integers(0, 600),
    shuffle=st.randoms(use_true_random=False),
)
def test_carriers_deliver_in_key_order_whatever_the_arrival(
    made: Made,
    bundle: int,
    spill: int,
    most_held: int,
    shuffle: random.Random,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "_SPILL_BYTES", spill)
    exchange.hold_packets(most_held)
    sent = packets_of(made)
    shuffle.shuffle(sent)
    bundles = [sent[at : at + bundle] for at in range(0, len(sent), bundle)]
    stored = list(spilled(bundles, tmp_path))
    inline = [exchange._inline(*element) for element in sent]
    shuffle.shuffle(stored)
    shuffle.shuffle(inline)
    assert grouped(stored) == grouped(inline) == expected(made)
    assert sum(len(value) for flushed in exchange._held.values() for value in flushed) <= most_held


def test_packets_are_held_up_to_the_bound_and_until_the_pipeline_ends(tmp_path: Path) -> None:
    made = [(place % 2, 0, place, bytes([place]) * 100) for place in range(8)]
    bundles = [packets_of(made[:4]), packets_of(made[4:])]
    exchange.hold_packets(500)
    stored = list(spilled(bundles, tmp_path))
    assert len(list(tmp_path.glob("*.run"))) == 1, "the second sender found no room"
    assert grouped(stored) == grouped(stored) == expected(made), "a repeated bundle receives them again"
    exchange.hold_packets(500)
    with pytest.raises(KeyError):
        grouped(stored)


def test_what_an_abandoned_attempt_wrote_does_not_exist(tmp_path: Path) -> None:
    made = [(0, 1, place, b"body %d" % place) for place in range(5)]
    list(spilled([packets_of(made)[:3]], tmp_path))  # its references never reach the grouping
    assert grouped(spilled([packets_of(made)], tmp_path)) == expected(made)
    assert len(list(tmp_path.glob("*.run"))) == 2


def test_a_sender_without_packets_leaves_no_file(tmp_path: Path) -> None:
    assert list(spilled([[]], tmp_path / "scratch")) == []
    assert not (tmp_path / "scratch").exists()


def test_bodies_compare_as_bytes_do_by_either_carrier(tmp_path: Path) -> None:
    sent = packets_of([(0, 0, 0, b"\xff\x80")])
    (stored,) = received(value for _, value in spilled([sent], tmp_path))
    (inline,) = received(value for _, value in (exchange._inline(*element) for element in sent))
    assert stored == inline == b"\xff\x80"
    assert stored[0] == inline[0] == 255


def test_bodies_are_loaded_one_at_a_time(tmp_path: Path) -> None:
    carried = list(spilled([packets_of([(0, 0, place, bytes(100)) for place in range(3)])], tmp_path))
    bodies = received([value for _, value in carried])
    assert next(bodies) == bytes(100)
    for path in tmp_path.glob("*.run"):  # the reader holds the file open, so its name may go
        path.unlink()
    assert len(list(bodies)) == 2


class _Deliver(beam.DoFn):
    """A receiver, as stages write them; its output says what arrived, in which order."""

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[bytes]:
        partition, values = element
        yield b"".join(struct.pack("<II", partition, len(body)) + body for body in received(values))


MODES = {
    "one worker": ("--direct_num_workers=1", "--direct_running_mode=in_memory"),
    "two threads": ("--direct_num_workers=2", "--direct_running_mode=multi_threading"),
    "every bundle twice": ("--direct_num_workers=1", "--direct_runner_bundle_repeat=1"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("carrier", ["files", "memory", "shuffle"])
def test_pipelines_receive_the_same_through_any_carrier(carrier: str, mode: str, tmp_path: Path) -> None:
    rng = random.Random(3)
    made = [(rng.randrange(4), place % 5, place, rng.randbytes(rng.randrange(200))) for place in range(300)]
    sent = packets_of(made)
    rng.shuffle(sent)
    report = tmp_path / "report"
    exchange.hold_packets(1 << 20 if carrier == "memory" else 0)
    options = PipelineOptions([f"--runner={LOCAL_RUNNER}", *MODES[mode]])
    in_this_process = mode != "two threads"
    if in_this_process:
        note_traffic()
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | beam.Create(sent).with_output_types(tuple[int, bytes])
            | "ByNumber" >> Exchange(None if carrier == "shuffle" else str(tmp_path / "scratch"))
            | beam.ParDo(_Deliver())
            | Gather(str(report))
        )
        if not in_this_process:
            report_traffic(pipeline, str(tmp_path / "traffic"))
    weights: Counter[int] = Counter()
    for partition, value in sent:
        weights[partition] += len(value)
    (told,) = noted_traffic() if in_this_process else reported_traffic(str(tmp_path / "traffic"))
    assert told == Traffic("ByNumber", 4, 300, weights.total(), max(weights.values()))
    assert noted_traffic() == []
    assert (tmp_path / "scratch").exists() == (carrier == "files")
    assert gathered(str(report)) == sorted(
        b"".join(struct.pack("<II", partition, len(body)) + body for body in bodies)
        for partition, bodies in expected(made).items()
    )


def test_gather_sorts_and_keeps_repeats_and_empties(tmp_path: Path) -> None:
    with beam.Pipeline(options=PipelineOptions([f"--runner={LOCAL_RUNNER}"])) as pipeline:
        _ = pipeline | beam.Create([b"b", b"", b"a", b"b", b"a\0"]) | Gather(str(tmp_path / "below" / "report"))
    assert gathered(str(tmp_path / "below" / "report")) == [b"", b"a", b"a\0", b"b", b"b"]
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["report"]


def test_nothing_gathered_is_an_empty_list(tmp_path: Path) -> None:
    with beam.Pipeline(options=PipelineOptions([f"--runner={LOCAL_RUNNER}"])) as pipeline:
        _ = pipeline | beam.Create([]).with_output_types(bytes) | Gather(str(tmp_path / "report"))
    assert gathered(str(tmp_path / "report")) == []
