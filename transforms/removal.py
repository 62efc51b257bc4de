"""Which documents go because another one stays: the second step of FATES.

Documents that have a duplicate send their rank to whoever removes. Up to some number of edges that is one worker, which
walks all of them (`RemoveDuplicates`); beyond, partitions decide in rounds (`transforms/rounds.py`). The answer is the
same, and goes back to the splits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from transforms.batches import DedupTask, Origin, addresses, place_of, split_of, spread, unpack, unpack_all
from transforms.exchange import Exchange, Packets, packet, received, send
from transforms.kernels import dedup
from transforms.kernels.schemas import Fate
from transforms.pool import PooledDoFn, Tasks
from transforms.sidecars import digest_words, digests_of, read_facts, read_table
from transforms.tagging import FateRules, SplitTask, tag_split

VERDICTS, STANDS_FOR = b"V", b"R"
"""First byte of the packets that go back: fates of removed documents, and how many more a survivor stands for."""

RANKS = b"K"
"""First byte of packets with `RANK_COLUMNS`."""

RANK_COLUMNS = ("text", "document", "standing", "high", "low", "eligible", "provenance")
"""Of a document: its address and that of the first with the same text, its rank (`standing`, then the two words of its
digest, then the address; smaller is better), whether it takes part at all, and its provenance."""

_WANTED, _EARLIER = b"W", b"E"

_KEEP_CLASS = np.zeros(256, np.uint8)
_KEEP_CLASS[:6] = [0, 1, 2, 3, 3, 4]
"""Provenance to keep class: custody, human, ai_assisted, unknown (and disputed), synthetic."""


class EdgeFiles(NamedTuple):
    """Paths of the files that EDGES wrote, by kind."""

    exact: Sequence[str]
    seen: Sequence[str]
    pairs: Sequence[str]

    def elements(self, *kinds: str) -> list[bytes]:
        """One for each file of some kinds: its kind, its number among them, and its path."""
        named = [(kind, path) for kind in kinds for path in getattr(self, kind)]
        return [json.dumps([kind, number, path]).encode() for number, (kind, path) in enumerate(named)]


@dataclass
class RankDocuments(beam.PTransform):
    """`FateTask`s in; the ranks of all documents with an edge out, as packets to the partition of their text.

    Args:
        earlier: the `DedupTask`s of earlier indexes, whose documents stay whatever happens.
    """

    rules: FateRules
    edges: EdgeFiles
    earlier: Sequence[DedupTask]
    partitions: int
    scratch: str | None

    def expand(self, tasks: Any) -> Any:
        told = [
            tasks | "RankTasks" >> beam.ParDo(SplitTask()),
            tasks.pipeline
            | "EdgeFiles" >> Tasks(self.edges.elements(*EdgeFiles._fields))
            | "AskRanks" >> beam.ParDo(_AskRanks()),
        ]
        if self.earlier:
            told.append(
                tasks.pipeline
                | "Earlier" >> Tasks(task.to_bytes() for task in self.earlier)
                | "EarlierTasks" >> beam.ParDo(_EarlierTask())
            )
        return (
            tuple(told)
            | "RankBySplit" >> Exchange(self.scratch)
            | "Rank" >> beam.ParDo(_Rank(self.rules, self.partitions))
        )


@dataclass
class RemoveDuplicates(beam.PTransform):
    """`FateTask`s in; packets by split out, each told by its first byte. One worker holds all edges."""

    rules: FateRules
    edges: EdgeFiles
    earlier: Sequence[DedupTask]
    scratch: str | None

    def expand(self, tasks: Any) -> Any:
        return (
            tasks
            | "RankDocuments" >> RankDocuments(self.rules, self.edges, self.earlier, 1, self.scratch)
            | "ToOneWorker" >> Exchange(self.scratch)
            | "Remove" >> beam.ParDo(_Remove(self.edges))
        )


class _EarlierTask(beam.DoFn):
    """As `SplitTask`, told from it by its first byte."""

    def process(self, element: bytes) -> Packets:
        yield DedupTask.from_bytes(element).split.index, packet(_EARLIER + element, 0)


class _AskRanks(PooledDoFn):
    """Asks each split for the rank of its documents that stand in one edge file."""

    def work(self, element: bytes) -> Packets:
        kind, number, path = json.loads(element)
        left, right = (column.to_numpy() for column in read_table(path).columns[:2])
        # A copy stands for the first document with its text, and only that one is compared with others.
        documents = np.concatenate([left, right])
        texts = np.concatenate([right if kind == "exact" else left, right])
        documents, row = np.unique(documents, return_index=True)
        yield from send(split_of(documents), [place_of(documents), texts[row]], 1 + number, _WANTED)


def home_of(texts: npt.NDArray[np.uint64], partitions: int) -> npt.NDArray[np.uint64]:
    """The partition of each text."""
    return spread(texts) % np.uint64(partitions)


class _Rank(PooledDoFn):
    """Sends the ranks that were asked for to whoever removes."""

    def __init__(self, rules: FateRules, partitions: int) -> None:
        self._rules = rules
        self._partitions = partitions

    def work(self, element: tuple[int, Iterable[bytes]]) -> Packets:
        split, values = element
        bodies = received(values)
        task = next(bodies)
        asked = [unpack(body[1:]) for body in bodies]
        if not asked:
            return
        places, texts = (np.concatenate(column) for column in zip(*asked, strict=True))
        places, row = np.unique(places, return_index=True)
        texts = texts[row]
        columns = self._earlier(task[1:], places) if task[:1] == _EARLIER else self._own(task, places)
        columns = [texts, addresses(split, places), *columns]
        yield from send(home_of(texts, self._partitions), columns, split, RANKS)

    def _own(self, task: memoryview, places: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
        tagged = tag_split(task, self._rules)
        return [
            dedup.standing(
                Origin.OWN,
                _KEEP_CLASS[tagged.tags.before_demotion[places]],
                self._rules.priorities.get(tagged.task.split.source, 0),
                dedup.log2_length(tagged.facts["n_words"].to_numpy()[places]),
            ),
            *digest_words(tagged.digests[places]),
            tagged.eligible[places],
            tagged.tags.provenance[places],
        ]

    def _earlier(self, element: memoryview, places: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
        """Documents of an earlier index rank by what that index says they are; its priorities mean nothing here."""
        task = DedupTask.from_bytes(element)
        facts = read_facts(task.split, ["digest", "n_words"])
        provenance = read_table(str(task.fates), ["provenance"])["provenance"].to_numpy()[places]
        return [
            dedup.standing(
                task.origin, _KEEP_CLASS[provenance], 0, dedup.log2_length(facts["n_words"].to_numpy()[places])
            ),
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
        _, documents, standing, high, low, eligible, provenance = unpack_all(body[1:] for body in received(values))
        in_order = np.argsort(documents)
        documents, standing, high, low, eligible, provenance = (
            column[in_order] for column in (documents, standing, high, low, eligible, provenance)
        )
        rank = np.empty(len(documents), np.int64)
        rank[np.lexsort((documents, low, high, standing))] = np.arange(len(documents))
        earlier = dedup.is_earlier(standing)
        settled = settle(
            documents,
            rank,
            eligible,
            _places(documents, self._edges.exact, ("document", "first")),
            _places(documents, self._edges.pairs, ("left", "right")),
            earlier,
            _places(documents, self._edges.seen, ("document", "first")),
        )
        gone = np.flatnonzero(settled.fate != Fate.KEPT)
        witness, edge = settled.witness[gone], settled.edge[gone]
        yield from send_verdicts(
            documents[gone],
            0,
            settled.fate[gone],
            documents[witness],
            high[witness],
            low[witness],
            *_similarity(self._edges.pairs, edge),
            provenance[witness],
        )
        several = np.flatnonzero((settled.represents > 1) & ~earlier)
        yield from send_stands_for(documents[several], 0, settled.represents[several] - 1)


def _places(
    documents: npt.NDArray[np.uint64], paths: Sequence[str], names: tuple[str, str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Both ends of all edges as places among the sorted `documents`; one file's addresses are held at a time."""
    ends: list[list[npt.NDArray[np.int64]]] = [[np.empty(0, np.int64)], [np.empty(0, np.int64)]]
    for path in paths:
        table = read_table(path, names)
        for end, name in zip(ends, names, strict=True):
            end.append(np.searchsorted(documents, table[name].to_numpy()))
    return np.concatenate(ends[0]), np.concatenate(ends[1])


def _similarity(
    paths: Sequence[str], edges: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Intersection and union of the chosen edges, counted over all files; 1 and 1 where the text is the same (-1)."""
    shared, union = np.ones(len(edges), np.int64), np.ones(len(edges), np.int64)
    order = np.argsort(edges, kind="stable")
    in_order = edges[order]
    before = 0
    for path in paths:
        table = read_table(path, ("shared", "union"))
        start, end = np.searchsorted(in_order, [before, before + table.num_rows])
        rows = in_order[start:end] - before
        shared[order[start:end]] = table["shared"].to_numpy()[rows]
        union[order[start:end]] = table["union"].to_numpy()[rows]
        before += table.num_rows
    return shared, union


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


def send_verdicts(
    documents: npt.NDArray[np.uint64],
    sender: int,
    fate: npt.NDArray[np.uint8],
    witness: npt.NDArray[np.uint64],
    *columns: npt.NDArray[Any],
) -> Packets:
    """To the splits of removed documents: fate, address of the witness, both words of its digest, intersection, union,
    and provenance of the witness."""
    yield from send(split_of(documents), [place_of(documents), fate, witness, *columns], 1 + 2 * sender, VERDICTS)


def send_stands_for(documents: npt.NDArray[np.uint64], sender: int, more: npt.NDArray[np.int64]) -> Packets:
    """To the splits of survivors: for how many more documents than itself each stands."""
    yield from send(split_of(documents), [place_of(documents), more], 2 + 2 * sender, STANDS_FOR)
