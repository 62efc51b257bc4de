"""What there is to mix: strata and the cells of their buckets, in an order of their own, and how they should stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.kernels.layout import INT64_MAX
from transforms.kernels.mixture_demand import Columns
from transforms.kernels.mixture_rules import MEASURES, Bools, MixtureParams, Stratum
from transforms.kernels.schemas import Provenance

BUCKETS = 4096

I64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Cells(NamedTuple):
    """Totals of the survivors per nonempty (stratum, bucket), sorted by both: parallel arrays."""

    stratum: npt.NDArray[np.int32] | I64
    bucket: npt.NDArray[np.int32] | I64
    documents: I64
    tokens: I64
    bytes: I64


class Supply:
    """Strata sorted by identity, so that a plan does not depend on how they were listed, and what each holds."""

    def __init__(self, strata: Sequence[Stratum], cells: Cells, params: MixtureParams) -> None:
        listed = identities(strata)
        _check(listed, cells)
        self.order = np.array(sorted(range(len(strata)), key=listed.__getitem__), np.int64)
        self.strata = [strata[s] for s in self.order.tolist()]
        self.identities = [listed[s] for s in self.order.tolist()]
        rank = np.empty(len(strata), np.int64)
        rank[self.order] = np.arange(len(strata))
        stratum = rank[cells.stratum]
        by_rank = np.argsort(stratum, kind="stable")
        self.stratum: I64 = stratum[by_rank]
        self.bucket: I64 = np.asarray(cells.bucket, np.int64)[by_rank]
        self.columns: dict[str, I64] = {name: getattr(cells, name).astype(np.int64)[by_rank] for name in MEASURES}
        self.measure = params.measure
        self.measures = self.columns[params.measure]
        self.starts: I64 = np.searchsorted(self.stratum, np.arange(len(strata) + 1))
        self._before = {name: np.concatenate([[0], np.cumsum(column)]) for name, column in self.columns.items()}
        self.rules_of = Columns(self.strata)
        self.verified: Bools = self.rules_of.verified
        epochs = np.ones(int(self.rules_of.provenance.max(initial=0)) + 1, np.int64)
        for stratum_kind in {s.provenance for s in self.strata}:
            epochs[int(stratum_kind)] = params.epochs.get(stratum_kind.label, 1)
        self.copies: I64 = epochs[self.rules_of.provenance]
        self.cells: I64 = np.diff(self.starts)
        self.once = self._of_cells(params.measure, np.zeros(len(strata), np.int64), self.cells)
        for name in MEASURES:
            passes = self._of_cells(name, np.zeros(len(strata), np.int64), self.cells)
            if float((passes.astype(np.float64) * self.copies).sum()) > INT64_MAX / 2:
                raise ValueError(f"the {name} of all strata and epochs add up to more than {INT64_MAX // 2}")
        self.capacity: I64 = self.once * self.copies
        pulls, source = _pulls(params, self.rules_of, self.once)
        self.ratios: Floats = pulls[source] * self.once.astype(np.float64)

    def _of_cells(self, name: str, start: I64, end: I64) -> I64:
        before = self._before[name]
        return np.asarray(before[self.starts[:-1] + end] - before[self.starts[:-1] + start])

    def totals(self, steps: I64) -> I64:
        """Documents, tokens and bytes, a row each, of the first `steps` steps of each stratum."""
        full, rest = np.divmod(steps, np.maximum(self.cells, 1))
        none = np.zeros_like(rest)
        return np.stack([full * self._of_cells(n, none, self.cells) + self._of_cells(n, none, rest) for n in TOTALS])

    def amounts(self, steps: I64) -> I64:
        """The measure of the first `steps` steps of each stratum."""
        return np.asarray(self.totals(steps)[TOTALS.index(self.measure)])

    @property
    def steps(self) -> I64:
        """How many steps each stratum has: its buckets, once per copy."""
        return self.cells * self.copies


TOTALS = ("documents", "tokens", "bytes")


def identities(strata: Sequence[Stratum]) -> list[str]:
    """`Stratum.identity` of each; what strata share is spelled out once."""
    known: dict[object, str] = {}

    def told(value: object) -> str:
        if value not in known:
            known[value] = json.dumps(value)
        return known[value]

    labels = {provenance: json.dumps(provenance.label) for provenance in Provenance}
    groups: dict[tuple[tuple[str, str | None], ...], str] = {}
    for stratum in strata:
        if stratum.groups not in groups:
            groups[stratum.groups] = json.dumps(sorted([name, value] for name, value in stratum.groups))
    return [
        f"[{told(s.source)}, {labels[s.provenance]}, {told(s.generator)}, {told(s.kind)}, {groups[s.groups]}]"
        for s in strata
    ]


def _pulls(params: MixtureParams, columns: Columns, available: I64) -> tuple[Floats, I64]:
    """What multiplies the strata of each source, so that sources stand as temperature and learned shares ask.

    Inside a source strata stay in proportion, so the answer does not depend on what else rules tell apart. The
    powers are computed in decimals, which come out alike on every machine.
    """
    source, names = columns.column("source")
    totals = np.zeros(len(names), np.int64)
    np.add.at(totals, source, available)
    exponent = Decimal(params.temperature.denominator) / Decimal(params.temperature.numerator)
    pulls = []
    for name, total in zip(names, totals.tolist(), strict=True):
        base = Fraction(total) if params.portions is None else params.portions.get(name, Fraction(0))
        exact = Decimal(base.numerator) / Decimal(base.denominator)
        bent = exact if exponent == 1 or not exact else exact**exponent
        pulls.append(float(params.weights.get(name, Fraction(1))) * float(bent / (total or 1)))
    return np.array(pulls, np.float64), source


def _check(listed: Sequence[str], cells: Cells) -> None:
    if len(set(listed)) != len(listed):
        seen: set[str] = set()
        twice = next(name for name in listed if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the stratum {twice} is listed twice; list each once")
    if len({len(column) for column in cells}) != 1:
        raise ValueError(f"the columns of cells have lengths {[len(c) for c in cells]}; they are parallel")
    if len(cells.stratum) == 0:
        return
    if int(cells.stratum.min()) < 0 or int(cells.stratum.max()) >= len(listed):
        raise ValueError(f"cells name stratum {int(cells.stratum.max())}; there are {len(listed)}, from 0")
    if int(cells.bucket.min()) < 0 or int(cells.bucket.max()) >= BUCKETS:
        raise ValueError(f"cells name bucket {int(cells.bucket.max())}; valid are 0 to {BUCKETS - 1}")
    key = np.asarray(cells.stratum, np.int64) * BUCKETS + cells.bucket
    if (np.diff(key) <= 0).any():
        at = int(np.argmax(np.diff(key) <= 0)) + 1
        raise ValueError(f"cell {at} does not follow cell {at - 1}; sort cells by (stratum, bucket), each pair once")
    for name in MEASURES:
        column = getattr(cells, name)
        if int(column.min()) < 0:
            raise ValueError(f"{name} of a cell are {int(column.min())}; totals are 0 or more")
        if float(column.astype(np.float64).sum()) > INT64_MAX / 2:
            raise ValueError(f"the {name} of all cells exceed {INT64_MAX // 2}; plan fewer documents at once")
