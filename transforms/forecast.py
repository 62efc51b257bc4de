"""The part of PLAN that lays out rows without their texts: how every output shard will be cut into row groups.

Where a row stands follows from its digest, and what it measures from its facts, so shards are laid out here exactly as
they will be written, and a layout that must not be is refused before any text has moved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.batches import groups, pack, unpack
from transforms.exchange import Exchange, Gather, packet, received
from transforms.kernels.layout import arrange, refusal
from transforms.kernels.schemas import Fate, Provenance
from transforms.planned import Draw, MixTask, measured, planned_rows
from transforms.pool import PooledDoFn
from transforms.sidecars import digests_of, read_facts


@dataclass(frozen=True)
class LayoutSettings:
    """What decides where rows stand and row groups end."""

    measure: str
    floor: Fraction
    row_group: int
    strict: bool


@dataclass
class ForecastLayout(beam.PTransform):
    """`MixTask`s in; the layout of every planned output shard, gathered in the file `report`."""

    draw: Draw
    settings: LayoutSettings
    plan: str  # path of the packed Assignments
    report: str
    scratch: str | None

    def expand(self, tasks: Any) -> Any:
        return (
            tasks
            | "SendPlaces" >> beam.ParDo(_SendPlaces(self.draw, self.settings, self.plan))
            | "ByShard" >> Exchange(self.scratch)
            | "LayOut" >> beam.ParDo(_LayOut(self.settings))
            | Gather(self.report)
        )


class _SendPlaces(PooledDoFn):
    """Sends what a layout depends on, for every planned copy of the documents of one split."""

    def __init__(self, draw: Draw, settings: LayoutSettings, plan: str) -> None:
        self._draw = draw
        self._settings = settings
        self._plan = plan

    def work(self, element: bytes) -> Iterator[tuple[int, bytes]]:
        task = MixTask.from_bytes(element)
        facts = read_facts(task.split, ["digest", "n_tokens", "n_bytes", *self._draw.group_columns])
        fates = task.read_fates(["fate", "provenance", "generator", "kind"])
        digests = digests_of(facts)
        kept = np.flatnonzero(fates["fate"].to_numpy() == Fate.KEPT)
        rows = planned_rows(self._plan, self._draw, task, facts, fates, digests, kept)
        if len(rows.places) == 0:
            return
        repeat = np.repeat(np.arange(len(rows.places)), rows.copies)
        copy = np.arange(len(repeat)) - np.repeat(np.cumsum(rows.copies) - rows.copies, rows.copies)
        at = rows.places[repeat]
        shard = rows.plan.shard[rows.first[repeat] + copy]
        columns = (
            self._draw.row_order(np.ascontiguousarray(digests[at]), copy),
            copy,
            measured(facts, self._settings.measure)[at],
            pc.equal(fates["provenance"], pa.scalar(int(Provenance.HUMAN_VERIFIED), pa.uint8())).to_numpy()[at],
            facts["n_bytes"].to_numpy()[at],
        )
        order, runs = groups(shard)
        for number, start, end in runs:
            chosen = order[start:end]
            yield number, packet(pack(*(column[chosen] for column in columns)), task.split.index, 0)


class _LayOut(PooledDoFn):
    def __init__(self, settings: LayoutSettings) -> None:
        self._settings = settings

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[bytes]:
        shard, values = element
        parts = zip(*(unpack(body) for body in received(values)), strict=True)
        draws, copy, measures, human, sizes = (np.concatenate(column) for column in parts)
        order = np.lexsort((copy, draws))
        settings = self._settings
        arranged = arrange(measures[order], human[order], settings.floor, settings.row_group)
        if arranged is None:
            raise AssertionError(f"shard {shard} was planned below its floor")
        ends, in_order = arranged.ends, sizes[order[arranged.order]]
        starts = np.concatenate([[0], ends[:-1]])
        refused = refusal(ends, in_order, settings.row_group, settings.strict)
        if refused is not None:
            yield json.dumps({"kind": "refused", "shard": shard, **refused}, sort_keys=True).encode()
        told = {
            "kind": "layout",
            "shard": shard,
            "rows": len(order),
            "row_groups": len(ends),
            "longest": int((ends - starts).max()),
            "largest_bytes": int(np.add.reduceat(in_order, starts).max()),
        }
        yield json.dumps(told, sort_keys=True).encode()
