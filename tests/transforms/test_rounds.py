"""Removal by one worker and in rounds: the same verdicts, byte for byte, whatever the partitions and pipelines."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import clusters
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.progress import make_progress
from pipeline.removal import Duplicates, Removal, Rounds
from pipeline.submit import make_runner
from transforms import exchange, removal, rounds
from transforms.batches import addresses, unpack
from transforms.exchange import Gather, gathered, received
from transforms.kernels import dedup
from transforms.kernels.schemas import Fate
from transforms.tagging import FateRules

RULES = FateRules({}, {})


class Verdicts(NamedTuple):
    """Rows of `VERDICTS` and of `STANDS_FOR`, by rising document."""

    gone: np.ndarray
    more: np.ndarray

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdicts) and all(map(np.array_equal, self, other))

    __hash__ = None  # type: ignore[assignment]


class GivenRanks(beam.PTransform):
    """In place of `RankDocuments`: ranks that no facts stand behind."""

    case: clusters.Ranked

    def __init__(self, _rules: Any, _edges: Any, _earlier: Any, partitions: int, _scratch: Any) -> None:
        super().__init__()
        self._partitions = partitions

    def expand(self, tasks: Any) -> Any:
        # Made where they are wanted: in the graph itself, tens of megabytes are slow.
        return tasks | beam.FlatMap(given_packets, self._partitions).with_output_types(tuple[int, bytes])


def given_packets(_: bytes, partitions: int) -> list[tuple[int, bytes]]:
    return GivenRanks.case.packets(partitions)


def with_split(element: tuple[int, bytes]) -> bytes:
    split, value = element
    return struct.pack("<Q", split) + value


def read(packets: Iterable[tuple[int, bytes]]) -> Verdicts:
    """What packets say, by document: of removed ones, and for how many more each survivor stands."""
    said: dict[bytes, list[np.ndarray]] = {
        removal.VERDICTS: [np.empty((0, 8), np.uint64)],
        removal.STANDS_FOR: [np.empty((0, 2), np.uint64)],
    }
    for split, value in packets:
        (body,) = received([exchange._INLINE + value])
        places, *columns = (column.astype(np.uint64) for column in unpack(body[1:]))
        said[bytes(body[:1])].append(np.stack([addresses(split, places), *columns], axis=1))
    gone, more = (np.concatenate(rows) for rows in said.values())
    survivors, number = np.unique(more[:, 0], return_inverse=True)
    total = np.bincount(number, more[:, 1].astype(np.int64), len(survivors)).astype(np.uint64)
    assert len(np.unique(gone[:, 0])) == len(gone)
    return Verdicts(gone[np.argsort(gone[:, 0])], np.stack([survivors, total], axis=1))


def by_one_worker(case: clusters.Ranked, folder: Path) -> Verdicts:
    files = case.write(folder)
    packets = [exchange._inline(*sent)[1] for sent in case.packets(1)]
    return read(removal._Remove(files).process((0, packets)))


def in_rounds(
    case: clusters.Ranked, folder: Path, partitions: int, most_edges: int = 0, beam_flags: tuple[str, ...] = ()
) -> tuple[Verdicts, Removal]:
    edges = case.write(folder)
    GivenRanks.case = case
    runner = make_runner(beam_flags or ("--direct_num_workers=1",), make_progress(quiet=True))
    files = str(folder / "removal")
    # The number of partitions follows from the edges; tests want more of them.
    removed = Rounds(runner, files, partitions, most_edges).remove([b""], RULES, Duplicates(edges, 0, []))

    def define(pipeline: beam.Pipeline) -> None:
        verdicts = pipeline | beam.Create([b""]) | removed.transform
        _ = verdicts | beam.Map(with_split).with_output_types(bytes) | Gather(str(folder / "verdicts"))

    runner.run("verdicts", 0, define)
    sent = ((struct.unpack_from("<Q", value)[0], value[8:]) for value in gathered(str(folder / "verdicts")))
    return read(sent), removed


@pytest.fixture(autouse=True)
def given_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "RankDocuments", GivenRanks)


def assert_justified(case: clusters.Ranked, verdicts: Verdicts) -> None:
    """Every removed document has a kept witness with the same text or an edge; together they stand for all."""
    text = dict(zip(case.document.tolist(), case.copy_of.tolist(), strict=True))
    edges = {
        (a, b): (80 + number % 20, 100)
        for number, (a, b) in enumerate(zip(case.left.tolist(), case.right.tolist(), strict=True))
    }
    edges |= {(a, b): (1, 1) for a, b in zip(*(end.tolist() for end in case.seen), strict=True)}
    is_earlier = dict(zip(case.document.tolist(), dedup.is_earlier(case.standing).tolist(), strict=True))
    gone = set(verdicts.gone[:, 0].tolist())
    for document, fate, witness, _, _, shared, union, _ in verdicts.gone.tolist():
        assert witness not in gone
        assert not is_earlier[document]
        assert is_earlier[witness] == (fate == Fate.SEEN_BEFORE)
        mine, its = sorted((text[document], text[witness]))
        if fate == Fate.EXACT_DUPLICATE:
            assert (mine, shared, union) == (its, 1, 1)
        else:
            assert edges[mine, its] == (shared, union)
    assert gone.isdisjoint(verdicts.more[:, 0].tolist())
    assert not any(is_earlier[document] for document in verdicts.more[:, 0].tolist())
    assert verdicts.more[:, 1].sum() == (verdicts.gone[:, 1] != Fate.SEEN_BEFORE).sum()


@st.composite
def cases(draw: st.DrawFn) -> clusters.Ranked:
    documents = draw(st.integers(2, 60))
    shape = draw(st.sampled_from([clusters.CHAIN, clusters.STAR, clusters.RANDOM]))
    left, right = clusters.edges_of(shape, documents, draw(st.integers(0, 150)), draw(st.integers(0, 99)))
    earlier = draw(st.integers(0, documents - 1))
    copies, excluded = draw(st.integers(0, 20)), draw(st.integers(0, 10))
    return clusters.ranked(left, right, documents, draw(st.integers(0, 99)), copies, excluded, earlier)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), partitions=st.integers(1, 5), per_pipeline=st.sampled_from([1, 2, 12]))
def test_both_ways_give_the_same_verdicts(
    case: clusters.Ranked, partitions: int, per_pipeline: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "ROUNDS", per_pipeline)
        verdicts, removed = in_rounds(case, folder, partitions)
    assert removed.undecided == 0
    assert verdicts == by_one_worker(case, folder)
    assert_justified(case, verdicts)


@pytest.mark.parametrize(
    ("shape", "documents", "edges"),
    [(clusters.CHAIN, 100_000, 0), (clusters.STAR, 100_000, 0), (clusters.RANDOM, 1_000_000, 3_000_000)],
)
def test_large_clusters_are_decided_in_one_pipeline(shape: str, documents: int, edges: int, tmp_path: Path) -> None:
    left, right = clusters.edges_of(shape, documents, edges)
    case = clusters.ranked(left, right, documents, seed=5)
    verdicts, removed = in_rounds(case, tmp_path, 16)
    assert removed.undecided == 0
    assert 1 <= removed.rounds <= rounds.ROUNDS
    assert verdicts == by_one_worker(case, tmp_path)
    gone, witness = (np.searchsorted(case.document, verdicts.gone[:, column]).tolist() for column in (0, 2))
    assert dict(zip(gone, witness, strict=True)) == clusters.plain_greedy(case.rank, left, right)
