"""FATES: what each document is, and what became of it. Reads no text.

Every split is tagged from its facts; the documents that have a duplicate send their rank to one worker, which decides
who stays (seconds for 1e8 edges); verdicts go back to the splits, which write one row of fates per row of facts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms import counters, files
from transforms.batches import Split, addresses, groups, pack, place_of, split_of, unpack, unpack_all
from transforms.exchange import Exchange, Gather, packet, received
from transforms.kernels import dedup
from transforms.kernels.provenance import SourceRules, Tags, covered, tag
from transforms.kernels.schemas import FATES, ID_BYTES, Fate, Provenance, Status
from transforms.pool import PooledDoFn
from transforms.sidecars import digest_words, digests_of, fixed_binary, read_facts, write_part

_SPLIT, _WANTED, _VERDICTS, _STANDS_FOR = b"S", b"W", b"V", b"R"

_KEEP_CLASS = np.zeros(256, np.uint8)
_KEEP_CLASS[:6] = [0, 1, 2, 3, 3, 4]
"""Provenance to keep class: custody, human, ai_assisted, unknown (and disputed), synthetic."""


@dataclass(frozen=True)
class ShardCustody:
    """What custody says of one shard: the leaves its documents are checked against, and what their proof reads."""

    leaves: str
    detail: str


@dataclass(frozen=True)
class Exclusion:
    """Documents that stay out of every mix, for a stated reason; unset fields do not restrict."""

    reason: str
    source: str | None = None
    generator: str | None = None
    ids: tuple[str, ...] = ()
    doc_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class FateRules:
    """Everything of the config that FATES depends on, apart from custody."""

    sources: Mapping[str, SourceRules]
    priorities: Mapping[str, int]
    exclusions: tuple[Exclusion, ...] = ()


@dataclass
class SettleFates(beam.PTransform):
    """`FateTask`s in; one fates file a split out, listed with its accounting in the file `report`."""

    rules: FateRules
    exact: Sequence[str]  # paths of the edge files
    pairs: Sequence[str]
    folder: str
    report: str
    scratch: str | None

    def expand(self, tasks: Any) -> Any:
        edge_files = [*self.exact, *self.pairs]
        ranks = (
            (
                tasks | "RankTasks" >> beam.ParDo(_SplitTask()),
                tasks.pipeline
                | "EdgeFiles" >> beam.Create([path.encode() for path in edge_files], reshuffle=False)
                | "Spread" >> beam.Reshuffle()
                | "AskRanks" >> beam.ParDo(_AskRanks()),
            )
            | "RankBySplit" >> Exchange(self.scratch)
            | "Rank" >> beam.ParDo(_Rank(self.rules))
        )
        verdicts = (
            ranks | "ToOneWorker" >> Exchange(self.scratch) | "Remove" >> beam.ParDo(_Remove(self.exact, self.pairs))
        )
        return (
            (tasks | "WriteTasks" >> beam.ParDo(_SplitTask()), verdicts)
            | "WriteBySplit" >> Exchange(self.scratch)
            | "WriteFates" >> beam.ParDo(_WriteFates(self.rules, self.folder))
            | Gather(self.report)
        )


@dataclass(frozen=True)
class FateTask:
    split: Split
    custody: ShardCustody | None

    def to_bytes(self) -> bytes:
        custody = asdict(self.custody) if self.custody else None
        return json.dumps({"split": self.split.to_bytes().decode(), "custody": custody}).encode()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> FateTask:
        fields = json.loads(bytes(data))
        custody = ShardCustody(**fields["custody"]) if fields["custody"] else None
        return cls(Split.from_bytes(fields["split"].encode()), custody)


Packets = Iterator[tuple[int, bytes]]


class _SplitTask(beam.DoFn):
    def process(self, element: bytes) -> Packets:
        yield FateTask.from_bytes(element).split.index, packet(_SPLIT + element, 0)


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


@dataclass
class _Tagged:
    """A split with everything its documents' fates depend on, apart from other documents."""

    task: FateTask
    facts: pa.Table
    tags: Tags
    status: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.uint8]
    reasons: pa.Array  # null where a document is not excluded

    @property
    def eligible(self) -> npt.NDArray[np.bool_]:
        return (self.status == Status.OK) & self.reasons.is_null().to_numpy(zero_copy_only=False)


_TAG_COLUMNS = ["status", "digest", "n_words", "n_tokens", "artefacts", "doc_id", "generator", "label"]


def _tagged(element: bytes | memoryview, rules: FateRules) -> _Tagged:
    task = FateTask.from_bytes(element)
    facts = read_facts(task.split, _TAG_COLUMNS)
    digests = digests_of(facts)
    custody = task.custody
    tags = tag(
        facts,
        covered(digests, _leaves(custody.leaves)) if custody else None,
        custody.detail if custody else None,
        rules.sources[task.split.source],
    )
    status = facts["status"].to_numpy()
    return _Tagged(task, facts, tags, status, digests, _exclusions(task.split.source, facts, tags, digests, rules))


@lru_cache(maxsize=4)
def _leaves(path: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(files.read_bytes(path), np.uint8).reshape(-1, 32)


def _exclusions(source: str, facts: pa.Table, tags: Tags, digests: npt.NDArray[np.uint8], rules: FateRules) -> pa.Array:
    """The reason of the first exclusion that applies to each document."""
    reasons = pa.nulls(facts.num_rows, pa.string())
    for rule in rules.exclusions:
        if rule.source is not None and rule.source != source:
            continue
        hit: Any = np.ones(facts.num_rows, bool)
        if rule.generator is not None:
            hit = hit & pc.equal(tags.generator, rule.generator).fill_null(False).to_numpy(zero_copy_only=False)
        if rule.ids:
            wanted = pa.array([bytes.fromhex(name) for name in rule.ids], pa.binary(ID_BYTES))
            ids = fixed_binary(np.ascontiguousarray(digests[:, :ID_BYTES]))
            hit = hit & pc.is_in(ids, wanted).to_numpy(zero_copy_only=False)
        if rule.doc_ids:
            hit = hit & pc.is_in(facts["doc_id"], pa.array(rule.doc_ids)).to_numpy()
        fresh = pa.array(hit & reasons.is_null().to_numpy(zero_copy_only=False))
        reasons = pc.if_else(fresh, pa.scalar(rule.reason), reasons)
    return reasons


class _Rank(PooledDoFn):
    """Sends the ranks that were asked for to the one worker that removes."""

    def __init__(self, rules: FateRules) -> None:
        self._rules = rules

    def work(self, element: tuple[int, Iterable[bytes]]) -> Packets:
        split, values = element
        bodies = received(values)
        task = next(bodies)[1:]
        asked = [unpack(body[1:])[0] for body in bodies]
        if not asked:
            return
        places = np.unique(np.concatenate(asked))
        tagged = _tagged(task, self._rules)
        high, low = digest_words(tagged.digests[places])
        priority = self._rules.priorities.get(tagged.task.split.source, 0)
        body = pack(
            addresses(split, places),
            _KEEP_CLASS[tagged.tags.before_demotion[places]],
            np.full(len(places), priority, np.int32),
            dedup.log2_length(tagged.facts["n_words"].to_numpy()[places]),
            high,
            low,
            tagged.eligible[places],
            tagged.tags.provenance[places],
        )
        yield 0, packet(body, split)


class _Remove(beam.DoFn):
    """The greedy independent set over all edges, in one compiled pass."""

    def __init__(self, exact: Sequence[str], pairs: Sequence[str]) -> None:
        self._exact = exact
        self._pairs = pairs

    def process(self, element: tuple[int, Iterable[bytes]]) -> Packets:
        _, values = element
        columns = unpack_all(received(values))
        in_order = np.argsort(columns[0], kind="stable")
        documents, keep_class, priority, length, high, low, eligible, provenance = (
            column[in_order] for column in columns
        )
        rank = np.empty(len(documents), np.int64)
        # Last key first: class, priority (higher stays), length (longer stays), digest, position.
        best_first = np.lexsort(
            (documents, low, high, -length.astype(np.int16), -priority.astype(np.int64), keep_class)
        )
        rank[best_first] = np.arange(len(documents))
        copies, first = _columns(self._exact, ("document", "first"), np.uint64)
        left, right = _columns(self._pairs, ("left", "right"), np.uint64)
        shared, union = _columns(self._pairs, ("shared", "union"), np.int64)
        settled = settle(
            documents,
            rank,
            eligible,
            (np.searchsorted(documents, copies), np.searchsorted(documents, first)),
            (np.searchsorted(documents, left), np.searchsorted(documents, right)),
        )
        gone = np.flatnonzero(settled.fate != Fate.KEPT)
        witness, edge = settled.witness[gone], settled.edge[gone]
        near = edge >= 0
        yield from _send_back(
            documents[gone],
            _VERDICTS,
            0,
            settled.fate[gone],
            documents[witness],
            high[witness],
            low[witness],
            np.where(near, shared[edge], 1) if len(shared) else np.ones(len(gone), np.int64),
            np.where(near, union[edge], 1) if len(union) else np.ones(len(gone), np.int64),
            provenance[witness],
        )
        several = np.flatnonzero(settled.represents > 1)
        yield from _send_back(documents[several], _STANDS_FOR, 1, settled.represents[several])


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
) -> Settled:
    """Fates of documents with duplicates; all arguments index into `documents`.

    A text is as good as its best eligible copy, so texts compete with that copy's rank. Excluded documents take no
    part: they displace nothing and witness nothing.
    """
    size = len(documents)
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
    left, right = number[text_of[pairs[0]]], number[text_of[pairs[1]]]
    live = np.flatnonzero((left >= 0) & (right >= 0))
    removal = dedup.greedy_removal(len(texts), left[live], right[live])

    survivor = by_rank[best[texts]]  # of each text: its best copy
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
    fate[taking_part & ~text_kept] = Fate.NEAR_DUPLICATE
    edge = np.full(size, -1, np.int64)
    removed = np.flatnonzero(taking_part & ~text_kept)
    edge[removed] = live[removal.edge[mine[removed]]]
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


class _WriteFates(PooledDoFn):
    """One row of fates per row of facts, and the split's part of the accounting."""

    def __init__(self, rules: FateRules, folder: str) -> None:
        self._rules = rules
        self._folder = folder

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[bytes]:
        split, values = element
        bodies = received(values)
        tagged = _tagged(next(bodies)[1:], self._rules)
        size = len(tagged.status)
        fate = _FATE_OF_STATUS[tagged.status]
        fate[(tagged.status == Status.OK) & ~tagged.eligible] = Fate.EXCLUDED
        partner = np.zeros((size, ID_BYTES), np.uint8)
        position = np.zeros(size, np.uint64)
        shared = np.zeros(size, np.int64)
        union = np.zeros(size, np.int64)
        represents = np.where(fate == Fate.KEPT, 1, 0)
        witnessed = np.full(size, _NO_WITNESS, np.uint8)  # provenance of the witness
        for body in bodies:
            if body[:1] == _VERDICTS:
                places, *verdict = unpack(body[1:])
                fate[places], position[places], high, low, shared[places], union[places], witnessed[places] = verdict
                partner[places] = np.stack([high, low], axis=1).astype(">u8").view(np.uint8)
                represents[places] = 0
            else:
                places, count = unpack(body[1:])
                represents[places] = count
        alone = pa.array(union == 0)
        table = pa.table(
            {
                "fate": fate,
                "provenance": tagged.tags.provenance,
                "contested": tagged.tags.contested,
                "generator": tagged.tags.generator,
                "kind": tagged.tags.kind,
                "evidence": tagged.tags.evidence,
                "partner": pc.if_else(alone, None, fixed_binary(partner)),
                "partner_position": pc.if_else(alone, None, pa.array(position)),
                "shared": shared,
                "union": union,
                "represents": represents,
                "reason": tagged.reasons,
            },
            schema=FATES,
        )
        counters.advance("fates", size, tagged.task.split.weight)
        written = json.loads(write_part(self._folder, "fates", split, table))
        told = account(tagged.task.split, tagged.facts, table, tagged.task.custody is not None, witnessed)
        yield json.dumps({**written, "account": told}, sort_keys=True).encode()


_NO_WITNESS = 255

_FATE_OF_STATUS = np.zeros(4, np.uint8)
_FATE_OF_STATUS[[Status.OK, Status.EMPTY, Status.BAD_RECORD, Status.BAD_FILE]] = [
    Fate.KEPT,
    Fate.EMPTY,
    Fate.BAD_RECORD,
    Fate.BAD_FILE,
]


def account(
    split: Split, facts: pa.Table, fates: pa.Table, in_custody: bool, witnessed: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    """Documents and tokens of a split by provenance and fate: what conservation and the guards are judged on.

    Removed ones also by the provenance of their witness, `witnessed`. Of a shard that custody covers also its
    documents, and those among them that are no leaf.
    """
    fate = fates["fate"].to_numpy()
    provenance = fates["provenance"].to_numpy()
    tokens = facts["n_tokens"].to_numpy()
    cells = []
    for kind in np.unique(provenance):
        for outcome in np.unique(fate[provenance == kind]):
            here = (provenance == kind) & (fate == outcome)
            cells.append([Provenance(kind).label, Fate(outcome).label, int(here.sum()), int(tokens[here].sum())])
    contested = fates["contested"].to_numpy()
    verified = provenance == Provenance.HUMAN_VERIFIED
    readable = (facts["status"].to_numpy() == Status.OK) & in_custody
    return {
        "source": split.source,
        "shard": split.shard,
        "cells": cells,
        "duplicates": _duplicate_cells(fate, witnessed, provenance, tokens),
        "verified_tokens": int(tokens[verified].sum()),
        "contested_tokens": int(tokens[verified & contested].sum()),
        "contested_documents": int((verified & contested).sum()),
        "in_custody": int(readable.sum()),
        "no_leaf": int((readable & ~verified).sum()),
    }


def _duplicate_cells(
    fate: npt.NDArray[np.uint8],
    witnessed: npt.NDArray[np.uint8],
    provenance: npt.NDArray[np.uint8],
    tokens: npt.NDArray[np.int64],
) -> list[list[Any]]:
    """Removed documents as (fate, provenance of the witness, own provenance, documents, tokens)."""
    removed = np.flatnonzero(witnessed != _NO_WITNESS)
    if len(removed) == 0:
        return []
    kinds = np.stack([fate[removed], witnessed[removed], provenance[removed]], axis=1)
    found, number = np.unique(kinds, axis=0, return_inverse=True)
    number = number.reshape(-1)
    documents = np.bincount(number, minlength=len(found))
    weights = np.zeros(len(found), np.int64)
    np.add.at(weights, number, tokens[removed])
    return [
        [Fate(kind).label, Provenance(kept).label, Provenance(own).label, int(count), int(weight)]
        for (kind, kept, own), count, weight in zip(found.tolist(), documents, weights, strict=True)
    ]
