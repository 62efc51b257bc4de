"""Edges of known shapes between documents without text; removal by plain Python, by one worker, and in rounds."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.progress import make_progress
from pipeline.removal import Duplicates, Removal, Rounds
from pipeline.submit import make_runner
from transforms import dedup as dedup_stage
from transforms import exchange, removal, rounds
from transforms.batches import addresses, pack, unpack
from transforms.exchange import Gather, gathered, packet, received
from transforms.kernels import dedup
from transforms.removal import RANKS, EdgeFiles, home_of
from transforms.tagging import FateRules

I64 = npt.NDArray[np.int64]

CHAIN, STAR, RANDOM = "chain", "star", "random"


def edges_of(shape: str, documents: int, edges: int = 0, seed: int = 1) -> tuple[I64, I64]:
    """Both ends of each edge: neighbours in a row, one with all others, or any two (without repeats)."""
    if shape == CHAIN:
        return np.arange(documents - 1), np.arange(1, documents)
    if shape == STAR:
        centre = documents // 2
        others = np.delete(np.arange(documents), centre)
        return np.minimum(others, centre), np.maximum(others, centre)
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(0, documents, (edges, 2)), axis=1)
    ends = np.unique(ends[ends[:, 0] != ends[:, 1]], axis=0)
    return ends[:, 0].copy(), ends[:, 1].copy()


def plain_greedy(rank: I64, left: I64, right: I64) -> dict[int, int]:
    """Of each removed document its best-ranked kept neighbour: from best to worst, whoever is still there removes its
    neighbours."""
    neighbours: list[list[int]] = [[] for _ in range(len(rank))]
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        neighbours[a].append(b)
        neighbours[b].append(a)
    witness: dict[int, int] = {}
    for document in np.argsort(rank).tolist():
        if document not in witness:
            for other in neighbours[document]:
                witness.setdefault(other, document)
    return witness


@dataclass(frozen=True)
class Ranked:
    """Documents with everything that removal asks of them, and the edges between them."""

    document: npt.NDArray[np.uint64]  # rising
    standing: npt.NDArray[np.uint64]
    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    eligible: npt.NDArray[np.bool_]
    provenance: npt.NDArray[np.uint8]
    copy_of: I64  # the first document with the same text, as a place in `document`; itself where there is none
    left: I64
    right: I64
    seen: tuple[I64, I64]  # new documents, and those of an earlier index that have the same text

    @property
    def rank(self) -> I64:
        rank = np.empty(len(self.document), np.int64)
        rank[np.lexsort((self.document, self.low, self.high, self.standing))] = np.arange(len(rank))
        return rank

    def packets(self, partitions: int) -> list[tuple[int, bytes]]:
        """As `RankDocuments` sends them, a packet a document or so, in no order."""
        texts = self.document[self.copy_of]
        homes = home_of(texts, partitions).astype(np.int64)
        sent = []
        for number, rows in enumerate(np.array_split(np.arange(len(texts)), max(1, min(7, len(texts))))):
            for home in np.unique(homes[rows]).tolist():
                mine = rows[homes[rows] == home]
                columns = (texts, self.document, self.standing, self.high, self.low, self.eligible, self.provenance)
                sent.append((home, packet(RANKS + pack(*(column[mine] for column in columns)), number)))
        return sent[::-1]

    def write(self, folder: Path, files: int = 3) -> EdgeFiles:
        """The files that EDGES would write."""
        folder.mkdir(parents=True, exist_ok=True)
        copies = np.flatnonzero(self.copy_of != np.arange(len(self.copy_of)))
        exact = [self.document[copies], self.document[self.copy_of[copies]]]
        number = np.arange(len(self.left))
        pairs = [self.document[self.left], self.document[self.right], 80 + number % 20, np.full(len(number), 100)]
        written: list[list[str]] = []
        for kind, columns, schema in (
            ("exact", exact, dedup_stage.EXACT_SCHEMA),
            ("seen", [self.document[end] for end in self.seen], dedup_stage.EXACT_SCHEMA),
            ("pairs", pairs, dedup_stage.PAIRS_SCHEMA),
        ):
            written.append([])
            for part, rows in enumerate(np.array_split(np.arange(len(columns[0])), files)):
                if len(rows):
                    path = folder / f"{kind}-{part:05d}-abc.parquet"
                    pq.write_table(pa.table([column[rows] for column in columns], schema=schema), path)
                    written[-1].append(str(path))
        return EdgeFiles(*written)


def ranked(
    left: I64, right: I64, documents: int, seed: int, copies: int = 0, excluded: int = 0, earlier: int = 0
) -> Ranked:
    """Documents of random rank: the first ones, then `copies` of their texts, of which `excluded` take no part.

    The last `earlier` of the first ones are documents of an earlier index instead, with no edges among them; and
    every second of them has the text of a new one, too.
    """
    rng = np.random.default_rng(seed)
    size = documents + copies
    copy_of = np.arange(size)
    ours = documents - earlier
    copy_of[documents:] = rng.integers(0, max(1, ours), copies)
    origin = np.zeros(size, np.int64)
    origin[ours:documents] = rng.integers(1, 3, earlier)
    theirs = np.arange(ours, documents)[::2]
    seen = rng.permutation(ours)[: len(theirs)], theirs[:ours]
    # What is known to be the same text, or settled by the earlier index, is not compared.
    apart = ((origin[left] == 0) | (origin[right] == 0)) & ~np.isin(left * size + right, seen[0] * size + seen[1])
    left, right = left[apart], right[apart]
    high, low = rng.integers(0, 1 << 63, (2, size)).astype(np.uint64)
    keep_class = rng.integers(0, 5, size).astype(np.uint8)
    length = dedup.log2_length(rng.integers(1, 2000, size))
    eligible = np.ones(size, bool)
    eligible[rng.permutation(size)[:excluded]] = False
    eligible[origin > 0] = True
    high[seen[1]], low[seen[1]], length[seen[1]] = high[seen[0]], low[seen[0]], length[seen[0]]
    standing = np.empty(size, np.uint64)
    for kind in range(3):
        mine = origin == kind
        standing[mine] = dedup.standing(kind, keep_class[mine], 0, length[copy_of][mine])
    place = np.arange(size).astype(np.uint64)
    return Ranked(
        (place // np.uint64(1000)) << np.uint64(32) | place % np.uint64(1000),
        standing,
        high[copy_of],
        low[copy_of],
        eligible,
        rng.integers(0, 6, size).astype(np.uint8),
        copy_of,
        left,
        right,
        seen,
    )


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

    case: Ranked

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


def by_one_worker(case: Ranked, folder: Path) -> Verdicts:
    files = case.write(folder)
    packets = [exchange._inline(*sent)[1] for sent in case.packets(1)]
    return read(removal._Remove(files).process((0, packets)))


def in_rounds(
    case: Ranked, folder: Path, partitions: int, most_edges: int = 0, beam_flags: tuple[str, ...] = ()
) -> tuple[Verdicts, Removal]:
    edges = case.write(folder)
    GivenRanks.case = case
    runner = make_runner(beam_flags or ("--direct_num_workers=1",), make_progress(quiet=True))
    files = str(folder / "removal")
    # The number of partitions follows from the edges; tests want more of them.
    with mock.patch.object(rounds, "RankDocuments", GivenRanks):
        removed = Rounds(runner, files, partitions, most_edges).remove([b""], RULES, Duplicates(edges, 0, []))

    def define(pipeline: beam.Pipeline) -> None:
        verdicts = pipeline | beam.Create([b""]) | removed.transform
        _ = verdicts | beam.Map(with_split).with_output_types(bytes) | Gather(str(folder / "verdicts"))

    runner.run("verdicts", 0, define)
    sent = ((struct.unpack_from("<Q", value)[0], value[8:]) for value in gathered(str(folder / "verdicts")))
    return read(sent), removed
