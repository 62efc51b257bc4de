"""What PLAN and MIX share: splits with their fates, how documents are dealt, and which rows a plan takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms import files
from transforms.batches import Split, pack, unpack
from transforms.kernels import strata
from transforms.kernels.hashing import draws
from transforms.sidecars import read_table


@dataclass(frozen=True)
class MixTask:
    """A split with its fates."""

    split: Split
    fates: str

    def to_bytes(self) -> bytes:
        return json.dumps({"split": self.split.to_bytes().decode(), "fates": self.fates}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> MixTask:
        fields = json.loads(data)
        return cls(Split.from_bytes(fields["split"].encode()), fields["fates"])

    def read_fates(self, columns: list[str] | None = None) -> pa.Table:
        return read_table(self.fates, columns)


@dataclass(frozen=True)
class Draw:
    """How documents are dealt: everything random in a mix, as a pure function of text and seed."""

    seed: int
    group_columns: tuple[str, ...]  # columns that rules group by, as named in facts

    def strata(self, task: MixTask, facts: pa.Table, fates: pa.Table) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Stratum number of each row, and the key of each stratum."""
        # A source need not keep what rules group by: its documents then have no value.
        nothing = pa.nulls(facts.num_rows, pa.string())
        groups = (facts[c] if c in facts.column_names else nothing for c in self.group_columns)
        columns = [fates["provenance"], fates["generator"], fates["kind"], *groups]
        codes, values = strata.distinct_rows(columns)
        return codes, [json.dumps([task.split.source, *row]) for row in values]

    def buckets(self, digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        return strata.buckets(draws(digests, self.seed, b"bucket"))

    def row_order(self, digests: npt.NDArray[np.uint8], copies: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """Where a copy stands in its shard: independent of its bucket, different for each copy."""
        order = np.empty(len(digests), np.uint64)
        for copy in np.unique(copies):
            chosen = copies == copy
            order[chosen] = draws(np.ascontiguousarray(digests[chosen]), self.seed, b"row-%d" % copy)
        return order


@dataclass(frozen=True)
class Assignments:
    """The plan as workers need it: for every planned (stratum, bucket, copy) its output shard."""

    keys: tuple[str, ...]  # of the strata
    stratum: npt.NDArray[np.int64]
    bucket: npt.NDArray[np.int64]
    copy: npt.NDArray[np.int64]
    shard: npt.NDArray[np.int64]

    def to_bytes(self) -> bytes:
        keys = np.frombuffer(json.dumps(self.keys).encode(), np.uint8)
        return pack(keys, self.stratum, self.bucket, self.copy, self.shard)

    @classmethod
    def from_bytes(cls, data: bytes) -> Assignments:
        keys, *columns = unpack(data)
        return cls(tuple(json.loads(keys.tobytes())), *columns)

    def lookup(self) -> Lookup:
        cells = self.stratum * strata.BUCKETS + self.bucket
        distinct, first, copies = np.unique(cells, return_index=True, return_counts=True)
        return Lookup(distinct, first, copies)


class Lookup(NamedTuple):
    """Planned cells, as stratum * BUCKETS + bucket in order: where the copies of each begin, and how many there are."""

    cells: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    copies: npt.NDArray[np.int64]

    def of(self, cells: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First assignment and number of copies of each cell; no copies of cells that are not planned."""
        if len(self.cells) == 0:
            return np.zeros_like(cells), np.zeros_like(cells)
        at = np.minimum(np.searchsorted(self.cells, cells), len(self.cells) - 1)
        return self.first[at], np.where(self.cells[at] == cells, self.copies[at], 0)


@lru_cache(maxsize=2)
def _assignments(path: str) -> tuple[Assignments, dict[str, int], Lookup]:
    plan = Assignments.from_bytes(files.read_bytes(path))
    return plan, {key: number for number, key in enumerate(plan.keys)}, plan.lookup()


class PlannedRows(NamedTuple):
    """The rows of a split that a plan takes: their places, and where the copies of each begin in the plan."""

    plan: Assignments
    places: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    copies: npt.NDArray[np.int64]


def planned_rows(
    path: str,
    draw: Draw,
    task: MixTask,
    facts: pa.Table,
    fates: pa.Table,
    digests: npt.NDArray[np.uint8],
    kept: npt.NDArray[np.int64],
) -> PlannedRows:
    """What the plan at `path` takes of the kept rows of a split."""
    plan, numbers, lookup = _assignments(path)
    codes, keys = draw.strata(task, facts.take(kept), fates.take(kept))
    cells = np.array([numbers.get(key, -1) for key in keys], np.int64)[codes] * strata.BUCKETS
    first, copies = lookup.of(cells + draw.buckets(np.ascontiguousarray(digests[kept])))
    chosen = copies > 0
    return PlannedRows(plan, kept[chosen], first[chosen], copies[chosen])


def measured(table: pa.Table, measure: str) -> npt.NDArray[np.int64]:
    if measure == "documents":
        return np.ones(table.num_rows, np.int64)
    column: npt.NDArray[np.int64] = table["n_tokens" if measure == "tokens" else "n_bytes"].to_numpy()
    return column
