"""Edges of known shapes between documents without text, and removal by plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import dedup as dedup_stage
from transforms.batches import pack
from transforms.exchange import packet
from transforms.kernels import dedup
from transforms.removal import RANKS, EdgeFiles, home_of

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
