"""Which documents go because another one stays: the second step of FATES.

Documents that have a duplicate send their rank to one worker, which decides who stays (seconds for 1e8 edges); verdicts
go back to the splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import files
from transforms.batches import DedupTask, Origin, addresses, groups, pack, place_of, split_of, unpack, unpack_all
from transforms.exchange import Exchange, packet, received
from transforms.kernels import dedup
from transforms.kernels.schemas import Fate
from transforms.pool import PooledDoFn
from transforms.sidecars import digest_words, digests_of, read_facts, read_fates
from transforms.tagging import FateRules, SplitTask, tag_split

VERDICTS, STANDS_FOR = b"V", b"R"
"""First byte of the packets that go back: fates of removed documents, and how many a survivor represents."""

_WANTED, _EARLIER = b"W", b"E"

_KEEP_CLASS = np.zeros(256, np.uint8)
_KEEP_CLASS[:6] = [0, 1, 2, 3, 3, 4]
"""Provenance to keep class: custody, human, ai_assisted, unknown (and disputed), synthetic."""


class EdgeFiles(NamedTuple):
    """Paths of the files that EDGES wrote, by kind."""

    exact: Sequence[str]
    seen: Sequence[str]
    pairs: Sequence[str]


@dataclass
class RemoveDuplicates(beam.PTransform):
    """`FateTask`s in; packets by split out, each told by its first byte.

    Args:
        edges: paths of the edge files.
        earlier: the `DedupTask`s of earlier indexes, whose documents stay whatever happens.
    """

    rules: FateRules
    edges: EdgeFiles
    earlier: Sequence[bytes]
    scratch: str | None

    def expand(self, tasks: Any) -> Any:
        edge_files = [*self.edges.exact, *self.edges.seen, *self.edges.pairs]
        told = [
            tasks | "RankTasks" >> beam.ParDo(SplitTask()),
            tasks.pipeline
            | "EdgeFiles" >> beam.Create([path.encode() for path in edge_files], reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "AskRanks" >> beam.ParDo(_AskRanks()),
        ]
        if self.earlier:
            told.append(
                tasks.pipeline
                | "Earlier" >> beam.Create(list(self.earlier), reshuffle=False)
                | "EarlierTasks" >> beam.ParDo(_EarlierTask())
            )
        return (
            tuple(told)
            | "RankBySplit" >> Exchange(self.scratch)
            | "Rank" >> beam.ParDo(_Rank(self.rules))
            | "ToOneWorker" >> Exchange(self.scratch)
            | "Remove" >> beam.ParDo(_Remove(self.edges))
        )


Packets = Iterator[tuple[int, bytes]]


class _EarlierTask(beam.DoFn):
    """As `SplitTask`, told from it by its first byte."""

    def process(self, element: bytes) -> Packets:
        yield DedupTask.from_bytes(element).split.index, packet(_EARLIER + element, 0)


class _AskRanks(PooledDoFn):
    """Asks each split for the rank of its documents that stand in one edge file."""

    def work(self, element: bytes) -> Packets:
        table = _read_table(element.decode())
        documents = np.unique(np.concatenate([table[name].to_numpy() for name in table.column_names[:2]]))
        order, runs = groups(split_of(documents))
        file_key = int.from_bytes(element[-8:], "big")
        for split, start, end in runs:
            yield split, packet(_WANTED + pack(place_of(documents[order[start:end]])), 1, file_key)


def _read_table(path: str) -> pa.Table:
    with files.open_input(path) as source:
        return pq.ParquetFile(source).read(use_threads=False)


class _Rank(PooledDoFn):
    """Sends the ranks that were asked for to the one worker that removes."""

    def __init__(self, rules: FateRules) -> None:
        self._rules = rules

    def work(self, element: tuple[int, Iterable[bytes]]) -> Packets:
        split, values = element
        bodies = received(values)
        task = next(bodies)
        asked = [unpack(body[1:])[0] for body in bodies]
        if not asked:
            return
        places = np.unique(np.concatenate(asked))
        columns = self._earlier(task[1:], places) if task[:1] == _EARLIER else self._own(task, places)
        yield 0, packet(pack(addresses(split, places), *columns), split)

    def _own(self, task: memoryview, places: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
        tagged = tag_split(task, self._rules)
        priority = self._rules.priorities.get(tagged.task.split.source, 0)
        return [
            np.full(len(places), Origin.OWN, np.uint8),
            _KEEP_CLASS[tagged.tags.before_demotion[places]],
            np.full(len(places), priority, np.int32),
            dedup.log2_length(tagged.facts["n_words"].to_numpy()[places]),
            *digest_words(tagged.digests[places]),
            tagged.eligible[places],
            tagged.tags.provenance[places],
        ]

    def _earlier(self, element: memoryview, places: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
        """Documents of an earlier index rank by what that index says they are; its priorities mean nothing here."""
        task = DedupTask.from_bytes(element)
        facts = read_facts(task.split, ["digest", "n_words"])
        provenance = read_fates(str(task.fates), ["provenance"])["provenance"].to_numpy()[places]
        return [
            np.full(len(places), task.origin, np.uint8),
            _KEEP_CLASS[provenance],
            np.zeros(len(places), np.int32),
            dedup.log2_length(facts["n_words"].to_numpy()[places]),
            *digest_words(digests_of(facts)[places]),
            np.ones(len(places), np.bool_),
            provenance,
        ]


class _Remove(beam.DoFn):
    """The greedy independent set over all edges, in one compiled pass."""

    def __init__(self, edges: EdgeFiles) -> None:
        self._edges = edges

    def process(self, element: tuple[int, Iterable[bytes]]) -> Packets:
        _, values = element
        columns = unpack_all(received(values))
        in_order = np.argsort(columns[0], kind="stable")
        documents, origin, keep_class, priority, length, high, low, eligible, provenance = (
            column[in_order] for column in columns
        )
        earlier = origin != Origin.OWN
        rank = np.empty(len(documents), np.int64)
        # Last key first: earlier documents that are to stay, class (of equals the earlier), priority (higher stays),
        # length (longer stays), digest, position.
        best_first = np.lexsort(
            (
                *(documents, low, high, -length.astype(np.int16), -priority.astype(np.int64)),
                *(~earlier, keep_class, origin != Origin.EARLIER),
            )
        )
        rank[best_first] = np.arange(len(documents))
        copies, first = _columns(self._edges.exact, ("document", "first"), np.uint64)
        new, seen = _columns(self._edges.seen, ("document", "first"), np.uint64)
        left, right = _columns(self._edges.pairs, ("left", "right"), np.uint64)
        shared, union = _columns(self._edges.pairs, ("shared", "union"), np.int64)
        settled = settle(
            documents,
            rank,
            eligible,
            (np.searchsorted(documents, copies), np.searchsorted(documents, first)),
            (np.searchsorted(documents, left), np.searchsorted(documents, right)),
            earlier,
            (np.searchsorted(documents, new), np.searchsorted(documents, seen)),
        )
        gone = np.flatnonzero(settled.fate != Fate.KEPT)
        witness, edge = settled.witness[gone], settled.edge[gone]
        near = edge >= 0
        yield from _send_back(
            documents[gone],
            VERDICTS,
            0,
            settled.fate[gone],
            documents[witness],
            high[witness],
            low[witness],
            np.where(near, shared[edge], 1) if len(shared) else np.ones(len(gone), np.int64),
            np.where(near, union[edge], 1) if len(union) else np.ones(len(gone), np.int64),
            provenance[witness],
        )
        several = np.flatnonzero((settled.represents > 1) & ~earlier)
        yield from _send_back(documents[several], STANDS_FOR, 1, settled.represents[several])


def _columns(paths: Sequence[str], names: tuple[str, str], dtype: Any) -> list[npt.NDArray[Any]]:
    tables = [_read_table(path).select(names) for path in paths]
    return [
        np.concatenate([table[name].to_numpy() for table in tables]) if tables else np.empty(0, dtype) for name in names
    ]


@dataclass
class Settled:
    """Per document: its fate, the kept document that justifies it, the edge between the two (-1: same text)."""

    fate: npt.NDArray[np.uint8]
    witness: npt.NDArray[np.int64]
    edge: npt.NDArray[np.int64]
    represents: npt.NDArray[np.int64]


def settle(
    documents: npt.NDArray[np.uint64],
    rank: npt.NDArray[np.int64],
    eligible: npt.NDArray[np.bool_],
    exact: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    pairs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    earlier: npt.NDArray[np.bool_] | None = None,
    seen: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
) -> Settled:
    """Fates of documents with duplicates; all arguments index into `documents`.

    A text is as good as its best eligible copy, so texts compete with that copy's rank. Excluded documents take no
    part: they displace nothing and witness nothing. Those of an `earlier` index always stay, so an edge to one counts
    only where it ranks better; `seen` are edges between a new document and an earlier one of the same text.
    """
    size = len(documents)
    if earlier is None or seen is None:
        earlier, seen = np.zeros(size, np.bool_), (np.empty(0, np.int64), np.empty(0, np.int64))
    text_of = np.arange(size)
    text_of[exact[0]] = exact[1]
    last = np.int64(size)
    best = np.full(size, last)
    np.minimum.at(best, text_of[eligible], rank[eligible])
    by_rank = np.empty(size + 1, np.int64)
    by_rank[rank] = np.arange(size)
    by_rank[size] = -1
    texts = np.flatnonzero(best < last)
    texts = texts[np.argsort(best[texts], kind="stable")]
    number = np.full(size, -1, np.int64)  # of each text, in rank order
    number[texts] = np.arange(len(texts))
    survivor = by_rank[best[texts]]  # of each text: its best copy
    left, right = (number[text_of[np.concatenate(ends)]] for ends in zip(pairs, seen, strict=True))
    is_earlier = np.append(earlier[survivor], False)  # the last for texts that take no part
    bound = np.where(left > right, is_earlier[left], is_earlier[right])  # the worse one stays all the same
    live = np.flatnonzero((left >= 0) & (right >= 0) & ~bound)
    removal = dedup.greedy_removal(len(texts), left[live], right[live])

    mine = number[text_of]  # text number of each document; -1 where no copy of it is eligible
    taking_part = eligible & (mine >= 0)
    text_kept = np.zeros(size, bool)
    text_kept[taking_part] = removal.kept[mine[taking_part]]
    kept_witness = (
        np.where(removal.kept, survivor, survivor[np.maximum(removal.witness, 0)]) if len(texts) else survivor
    )
    witness = np.full(size, -1, np.int64)
    witness[taking_part] = kept_witness[mine[taking_part]]
    is_survivor = witness == np.arange(size)
    fate = np.full(size, int(Fate.KEPT), np.uint8)
    fate[taking_part & text_kept & ~is_survivor] = Fate.EXACT_DUPLICATE
    removed = np.flatnonzero(taking_part & ~text_kept)
    fate[removed] = np.where(earlier[witness[removed]], Fate.SEEN_BEFORE, Fate.NEAR_DUPLICATE)
    edge = np.full(size, -1, np.int64)
    edge[removed] = live[removal.edge[mine[removed]]]
    edge[edge >= len(pairs[0])] = -1
    represents = np.bincount(witness[taking_part], minlength=size) if size else np.empty(0, np.int64)
    return Settled(fate, witness, edge, represents)


def _send_back(
    documents: npt.NDArray[np.uint64], tag_byte: bytes, order_key: int, *columns: npt.NDArray[Any]
) -> Packets:
    order, runs = groups(split_of(documents))
    for split, start, end in runs:
        rows = order[start:end]
        body = tag_byte + pack(place_of(documents[rows]), *(column[rows] for column in columns))
        yield split, packet(body, 1, order_key)
