"""Removal at any size: partitions of texts decide in rounds, and no worker holds more than a partition.

Three pipelines, with files in between that the driver lists: `PrepareRounds` ranks documents and turns every edge to
point from the better to the worse text; `AdvanceRounds` decides, and is repeated while anything is undecided;
`GiveVerdicts` finds each removed text's best kept neighbour and sends verdicts to the splits.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.batches import DedupTask, unpack_all
from transforms.exchange import Exchange, Gather, Packets, packet, received, send
from transforms.kernels import dedup, rounds
from transforms.kernels.rounds import Links, News, Texts
from transforms.kernels.schemas import Fate
from transforms.pool import PooledDoFn, Tasks
from transforms.removal import (
    RANK_COLUMNS,
    RANKS,
    EdgeFiles,
    RankDocuments,
    home_of,
    send_stands_for,
    send_verdicts,
)
from transforms.sidecars import read_table, write_part
from transforms.tagging import FateRules

ROUNDS = 12
"""Unrolled in one pipeline. A chain of 100,000 documents in random order needs fewer."""

_EDGES, _LINKS, _WAITING, _NEWS, _TEXTS, _TASK = b"E", b"L", b"W", b"N", b"X", b"S"
_TEXT_FILE = ("text", "document", "standing", "high", "low", "provenance")
_RANK = ("standing", "high", "low", "document")
_LINK_FILE = ("better", "worse", "shared", "union")


@dataclass(frozen=True)
class RoundsTask:
    """One partition of texts, with its files; what it has none of is left out."""

    partition: int
    texts: tuple[str, ...] = ()  # every document that takes part, by text
    links: tuple[str, ...] = ()  # edges whose better end is here
    state: tuple[str, ...] = ()  # texts that are undecided
    decided: tuple[str, ...] = ()  # the others that have neighbours; files may name texts of other partitions

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> RoundsTask:
        fields = json.loads(bytes(data))
        return cls(fields.pop("partition"), **{name: tuple(paths) for name, paths in fields.items()})


@dataclass
class PrepareRounds(beam.PTransform):
    """`FateTask`s in; files `texts`, `links` and `state` of every partition out, listed in the file `report`."""

    rules: FateRules
    edges: EdgeFiles
    earlier: Sequence[DedupTask]
    partitions: int
    folder: str
    report: str
    scratch: str | None

    def expand(self, tasks: Any) -> Any:
        ranks = tasks | "RankDocuments" >> RankDocuments(
            self.rules, self.edges, self.earlier, self.partitions, self.scratch
        )
        return (
            ranks
            | "TurnEdges" >> TurnEdges(self.edges, self.partitions, self.folder, self.scratch)
            | Gather(self.report)
        )


@dataclass
class TurnEdges(beam.PTransform):
    """Packets of ranks in, reports of the files that `PrepareRounds` writes out."""

    edges: EdgeFiles
    partitions: int
    folder: str
    scratch: str | None

    def expand(self, ranks: Any) -> Any:
        edges = (
            ranks.pipeline
            | "EdgeFiles" >> Tasks(self.edges.elements("pairs", "seen"))
            | "SendEdges" >> beam.ParDo(_SendEdges(self.partitions))
        )
        ranked = (
            (ranks, edges)
            | "ByLeft" >> Exchange(self.scratch)
            | "RankLeft" >> beam.ParDo(_RankLeft(self.folder, self.partitions)).with_outputs("written", main="out")
        )
        turned = (
            ranked.out
            | "ByRight" >> Exchange(self.scratch)
            | "Turn" >> beam.ParDo(_Turn(self.partitions))
            | "ByText" >> Exchange(self.scratch)
            | "WriteStart" >> beam.ParDo(_WriteStart(self.folder))
        )
        return (ranked.written, turned) | "Written" >> beam.Flatten()


def _by_kind(values: Iterable[bytes]) -> dict[bytes, list[memoryview]]:
    """Bodies of packets by their first byte, without it."""
    bodies: dict[bytes, list[memoryview]] = defaultdict(list)
    for body in received(values):
        bodies[bytes(body[:1])].append(body[1:])
    return bodies


class _SendEdges(PooledDoFn):
    """The edges of one file, to the partitions of their left ends."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    def work(self, element: bytes) -> Packets:
        kind, number, path = json.loads(element)
        left, right, *similarity = (column.to_numpy() for column in read_table(path).columns)
        if kind == "seen":  # the same text
            similarity = [np.ones(len(left), np.int64)] * 2
        yield from send(home_of(left, self._partitions), [left, right, *similarity], number, _EDGES)


class _RankLeft(PooledDoFn):
    """Writes down the documents of each text, and passes on edges with the rank of their left end.

    A text is as good as its best eligible copy. Where there is none the text takes no part, and its edges end here.
    """

    def __init__(self, folder: str, partitions: int) -> None:
        self._folder = folder
        self._partitions = partitions

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        partition, values = element
        bodies = _by_kind(values)
        ranks = dict(zip(RANK_COLUMNS, unpack_all(bodies[RANKS]), strict=True))
        eligible = ranks.pop("eligible")
        ranks = {name: column[eligible] for name, column in ranks.items()}
        in_order = np.lexsort([ranks[name] for name in (*reversed(_RANK), "text")])
        ranks = {name: column[in_order] for name, column in ranks.items()}
        if len(in_order) == 0:
            return
        table = pa.table({name: ranks[name] for name in _TEXT_FILE})
        yield beam.pvalue.TaggedOutput("written", write_part(self._folder, "texts", partition, table))
        texts, best = np.unique(ranks["text"], return_index=True)
        rank = [ranks[name][best] for name in _RANK]
        home = np.full(len(texts), partition)
        yield from send(home, [texts, *rank], 0, _TEXTS)
        if bodies[_EDGES]:
            left, right, shared, union = unpack_all(bodies[_EDGES])
            at, known = rounds.find(texts, left)
            edges = [column[known] for column in (left, right, shared, union)]
            edges += [column[at[known]] for column in rank]
            yield from send(home_of(right[known], self._partitions), edges, 1 + partition, _EDGES)


class _Turn(PooledDoFn):
    """Turns edges from the better to the worse end: one copy to the better, and a count to the worse.

    Documents of an earlier index stay whatever ranks better, so edges that would end at one are dropped.
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    def work(self, element: tuple[int, Iterable[bytes]]) -> Packets:
        partition, values = element
        bodies = _by_kind(values)
        if not (bodies[_TEXTS] and bodies[_EDGES]):
            return
        texts, *rank = unpack_all(bodies[_TEXTS])
        edges = unpack_all(bodies[_EDGES])
        at, known = rounds.find(texts, edges[1])
        left, right, shared, union, *of_left = (column[known] for column in edges)
        of_right = [column[at[known]] for column in rank]
        is_better = _comes_before(of_left, of_right)
        counts_for_worse = ~dedup.is_earlier(np.where(is_better, of_right[0], of_left[0]))
        better, worse, shared, union = (
            column[counts_for_worse]
            for column in (np.where(is_better, left, right), np.where(is_better, right, left), shared, union)
        )
        yield from send(home_of(better, self._partitions), [better, worse, shared, union], partition, _LINKS)
        names, counts = np.unique(worse, return_counts=True)
        yield from send(home_of(names, self._partitions), [names, counts], partition, _WAITING)


def _comes_before(one: Sequence[npt.NDArray[Any]], other: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Row by row, whether the first keys of `one` that differ from those of `other` are smaller."""
    before = np.zeros(len(one[0]), bool)
    equal = np.ones(len(one[0]), bool)
    for a, b in zip(one, other, strict=True):
        before |= equal & (a < b)
        equal &= a == b
    return before


class _WriteStart(PooledDoFn):
    """Writes the links of a partition, and its texts before the first round."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[bytes]:
        partition, values = element
        bodies = _by_kind(values)
        nothing = np.empty(0, np.uint64)
        links = unpack_all(bodies[_LINKS]) or [nothing] * 4
        worse, counts = unpack_all(bodies[_WAITING]) or (nothing, np.empty(0, np.int64))
        if len(links[0]):
            table = pa.table(dict(zip(_LINK_FILE, links, strict=True)))
            yield write_part(self._folder, "links", partition, table)
        yield _write_state(self._folder, partition, rounds.start(worse, counts, links[0]), len(links[0]))


def _write_state(folder: str, partition: int, texts: Texts, live: int) -> bytes:
    """What is undecided, and how many links start there."""
    table = pa.table({"text": texts.names, "waiting": texts.waiting})
    return json.dumps({**json.loads(write_part(folder, "state", partition, table)), "live": live}).encode()


@dataclass
class AdvanceRounds(beam.PTransform):
    """`RoundsTask`s with state in; files `state` (what is left) and `decided` out, listed in the file `report`."""

    partitions: int
    first_round: int  # counted over all pipelines
    folder: str
    report: str
    scratch: str | None

    def expand(self, tasks: Any) -> Any:
        last = self.first_round + ROUNDS
        first = _FirstRound(self.first_round, self.partitions)
        packets = tasks | f"Round{self.first_round}" >> beam.ParDo(first)
        for number in range(self.first_round + 1, last):
            packets = (
                packets
                | f"Tell{number}" >> Exchange(self.scratch)
                | f"Round{number}" >> beam.ParDo(_Round(number, self.partitions))
            )
        return (
            packets
            | f"Tell{last}" >> Exchange(self.scratch)
            | "WriteState" >> beam.ParDo(_WriteState(self.folder))
            | Gather(self.report)
        )


def _send_on(partition: int, partitions: int, texts: Texts, links: Links, news: News) -> Packets:
    """The partition to itself, and to others what they must hear."""
    yield from send(np.full(len(texts.names), partition), texts, 0, _TEXTS)
    yield from send(np.full(len(links.better), partition), links, 0, _LINKS)
    yield from send(home_of(news.names, partitions), news, 1 + partition, _NEWS)


def _receive(values: Iterable[bytes]) -> tuple[Texts, Links]:
    """The partition as it was sent on, with the news that came."""
    bodies = _by_kind(values)
    nothing = np.empty(0, np.uint64)
    texts = Texts(*(unpack_all(bodies[_TEXTS]) or (nothing, np.empty(0, np.int64), np.empty(0, np.int32))))
    links = Links(*(unpack_all(bodies[_LINKS]) or (nothing, nothing)))
    if bodies[_NEWS]:
        texts = rounds.hear(texts, News(*unpack_all(bodies[_NEWS])))
    return texts, links


class _FirstRound(PooledDoFn):
    """Reads what is undecided, and the links that start there; then like any other round."""

    def __init__(self, number: int, partitions: int) -> None:
        self._number = number
        self._partitions = partitions

    def work(self, element: bytes) -> Packets:
        task = RoundsTask.from_bytes(element)
        state = pa.concat_tables(read_table(path) for path in task.state)
        names, waiting = (column.to_numpy() for column in state.columns)
        in_order = np.argsort(names)
        texts = Texts(names[in_order], waiting[in_order], np.zeros(len(names), np.int32))
        links = [Links(np.empty(0, np.uint64), np.empty(0, np.uint64))]
        for path in task.links:  # one at a time: what is decided may be far more than what is not
            read = Links(*(column.to_numpy() for column in read_table(path, _LINK_FILE[:2]).columns))
            links.append(read.take(rounds.find(texts.names, read.better)[1]))
        joined = Links(*(np.concatenate(ends) for ends in zip(*links, strict=True)))
        yield from _send_on(task.partition, self._partitions, *rounds.advance(texts, joined, self._number))


class _Round(PooledDoFn):
    def __init__(self, number: int, partitions: int) -> None:
        self._number = number
        self._partitions = partitions

    def work(self, element: tuple[int, Iterable[bytes]]) -> Packets:
        partition, values = element
        texts, links = _receive(values)
        if len(texts.names):
            yield from _send_on(partition, self._partitions, *rounds.advance(texts, links, self._number))


class _WriteState(PooledDoFn):
    """What was decided in these rounds, and what was not, with the last news taken in."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[bytes]:
        partition, values = element
        texts, links = _receive(values)
        undecided = texts.decided == 0
        left = Texts(*(column[undecided] for column in texts))
        yield _write_state(self._folder, partition, left, len(links.better))
        names, decided = texts.names[~undecided], texts.decided[~undecided]
        if len(names):
            written = write_part(self._folder, "decided", partition, pa.table({"text": names, "decided": decided}))
            last = int(np.abs(decided).max())
            yield json.dumps({**json.loads(written), "last_round": last}).encode()


@dataclass
class GiveVerdicts(beam.PTransform):
    """What `RemoveDuplicates` gives, from the files of texts that are all decided."""

    tasks: Sequence[RoundsTask]
    partitions: int
    scratch: str | None

    def expand(self, fate_tasks: Any) -> Any:
        tasks = fate_tasks.pipeline | "Partitions" >> Tasks(task.to_bytes() for task in self.tasks)
        return (
            (
                tasks | "TextTasks" >> beam.ParDo(_SendTask()),
                tasks | "OfferWitnesses" >> beam.ParDo(_OfferWitnesses(self.partitions)),
            )
            | "ByWorse" >> Exchange(self.scratch)
            | "GiveVerdicts" >> beam.ParDo(_Verdicts())
        )


class _SendTask(beam.DoFn):
    def process(self, element: bytes) -> Packets:
        yield RoundsTask.from_bytes(element).partition, packet(_TASK + element, 0)


class _Kept:
    """The texts of a partition with their documents, the best first, and which of the texts are kept."""

    def __init__(self, task: RoundsTask) -> None:
        tables = [read_table(path) for path in task.texts]
        self.columns = {name: pa.concat_tables(tables)[name].to_numpy() for name in _TEXT_FILE}
        self.names, self.best = np.unique(self.columns["text"], return_index=True)
        self.kept = np.ones(len(self.names), bool)  # without a neighbour nothing can remove a text
        for path in task.decided:
            table = read_table(path)
            at, here = rounds.find(self.names, table["text"].to_numpy())
            self.kept[at[here]] = table["decided"].to_numpy()[here] > 0

    def of_best(self, name: str, texts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A column of the best document of each of some texts."""
        column: npt.NDArray[Any] = self.columns[name][self.best[texts]]
        return column


class _OfferWitnesses(PooledDoFn):
    """Each kept text offers itself to its worse neighbours; of all offers from one partition only the best travels."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    def work(self, element: bytes) -> Packets:
        task = RoundsTask.from_bytes(element)
        if not task.links:
            return
        texts = _Kept(task)
        links = pa.concat_tables(read_table(path) for path in task.links)
        better, worse, shared, union = (links[name].to_numpy() for name in _LINK_FILE)
        at, _ = rounds.find(texts.names, better)
        offers = np.flatnonzero(texts.kept[at])
        at, worse, shared, union = at[offers], worse[offers], shared[offers], union[offers]
        rank = [texts.of_best(name, at) for name in _RANK]
        best = rounds.best_offers(worse, *rank)
        columns = [column[best] for column in (worse, *rank, shared, union, texts.of_best("provenance", at))]
        yield from send(home_of(columns[0], self._partitions), columns, 1 + task.partition, _EDGES)


class _Verdicts(PooledDoFn):
    """The fate of every document of a partition that is not kept, sent to its split."""

    def work(self, element: tuple[int, Iterable[bytes]]) -> Packets:
        partition, values = element
        bodies = received(values)
        texts = _Kept(RoundsTask.from_bytes(next(bodies)[1:]))
        offers = unpack_all(body[1:] for body in bodies)
        number = np.searchsorted(texts.names, texts.columns["text"])  # of each document's text
        document = texts.columns["document"]
        kept = texts.kept[number]
        copies = np.flatnonzero(kept & (np.arange(len(document)) != texts.best[number]))
        ones = np.ones(len(copies), np.int64)
        survivor = texts.best[number[copies]]
        gone = [
            document[copies],
            np.full(len(copies), int(Fate.EXACT_DUPLICATE), np.uint8),
            *(texts.columns[name][survivor] for name in ("document", "high", "low")),
            ones,
            ones,
            texts.columns["provenance"][survivor],
        ]
        removed = np.flatnonzero(~kept)
        if len(removed):
            worse, standing, high, low, witness, shared, union, provenance = offers
            best = rounds.best_offers(worse, standing, high, low, witness)
            offer = best[np.searchsorted(worse[best], texts.columns["text"][removed])]
            is_seen = dedup.is_earlier(standing[offer])
            near = [
                document[removed],
                np.where(is_seen, int(Fate.SEEN_BEFORE), int(Fate.NEAR_DUPLICATE)).astype(np.uint8),
                *(column[offer] for column in (witness, high, low, shared, union, provenance)),
            ]
            gone = [np.concatenate(both) for both in zip(gone, near, strict=True)]
        yield from send_verdicts(gone[0], partition, *gone[1:])
        # What an earlier index holds stands for nothing here.
        survivors, more = np.unique(gone[2][gone[1] != Fate.SEEN_BEFORE], return_counts=True)
        yield from send_stands_for(survivors, partition, more)
