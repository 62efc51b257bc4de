"""Plans a mix: strata and rules to whole buckets and output shards, or the reason why there is no such mix.

The planner sees totals only. It first asks for the largest mix that the rules allow (or the size), then for the one
whose strata are nearest to proportional, rounds that to whole buckets in exact integers, and places the buckets so
that every output shard holds the floor of verified human text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.kernels.layout import INT64_MAX
from transforms.kernels.mixture_diagnosis import diagnose
from transforms.kernels.mixture_levels import Floats, Levels
from transforms.kernels.mixture_rounding import Selection, Steps, settle
from transforms.kernels.mixture_rules import (
    MEASURES,
    VERIFIED,
    Bools,
    Constraint,
    Demand,
    InfeasibleMixture,
    MixtureParams,
    Rule,
    Stratum,
    demand,
    with_margin,
)
from transforms.kernels.mixture_shards import Assignment, ShardTotals, digest_of, fill_shards

__all__ = [
    "Assignment",
    "Cells",
    "InfeasibleMixture",
    "MixtureParams",
    "Plan",
    "Rule",
    "RuleOutcome",
    "ShardTotals",
    "Stratum",
    "StratumOutcome",
    "Totals",
    "floor_table",
    "plan_mixture",
]

BUCKETS = 4096
MAX_PLANNED_CELLS = 10**8

I64 = npt.NDArray[np.int64]


class Cells(NamedTuple):
    """Totals of the survivors per nonempty (stratum, bucket), sorted by both: parallel arrays."""

    stratum: npt.NDArray[np.int32] | I64
    bucket: npt.NDArray[np.int32] | I64
    documents: I64
    tokens: I64
    bytes: I64


class Totals(NamedTuple):
    documents: int
    tokens: int
    bytes: int


@dataclass(frozen=True)
class StratumOutcome:
    """What there is of a stratum, and what the mix takes of it, repeats included."""

    stratum: Stratum
    available: Totals
    taken: Totals
    copies: int  # the most that any of its documents is repeated; 0 when none is taken


@dataclass(frozen=True)
class RuleOutcome:
    """A rule, for one group where it has `by`: asked and achieved, in the mix as a whole."""

    name: str
    kind: str  # floor | cap | size
    rule: Rule
    group: str | None
    numerator: int  # the measure of what the rule is of
    denominator: int  # the measure of what it is compared with
    binds: bool  # whether the mix would be another without it


@dataclass(frozen=True)
class Plan:
    """Which buckets a mix takes, how often, and in which output shard each copy lies."""

    params: MixtureParams
    strata: tuple[StratumOutcome, ...]
    rules: tuple[RuleOutcome, ...]
    assign: Assignment
    shards: ShardTotals
    digest: str
    notes: tuple[str, ...]
    exempt: tuple[tuple[Rule, str], ...] = ()  # groups that a rule with `otherwise: exempt` lets off

    @property
    def n_shards(self) -> int:
        return len(self.shards.documents)

    @property
    def totals(self) -> Totals:
        return Totals(*(sum(s.taken[i] for s in self.strata) for i in range(3)))

    @property
    def size(self) -> int:
        """The whole mix in its measure."""
        return int(getattr(self.totals, self.params.measure))

    def summary(self) -> dict[str, Any]:
        """The plan in numbers, JSON-ready; all but the assignment."""
        floor = self.params.human_floor
        return {
            "measure": self.params.measure,
            "floor": {"numerator": floor.numerator, "denominator": floor.denominator},
            "size": self.size,
            "totals": self.totals._asdict(),
            "strata": [
                {
                    "source": s.stratum.source,
                    "provenance": s.stratum.provenance.label,
                    "generator": s.stratum.generator,
                    "kind": s.stratum.kind,
                    "groups": dict(s.stratum.groups),
                    "available": s.available._asdict(),
                    "taken": s.taken._asdict(),
                    "copies": s.copies,
                }
                for s in self.strata
            ],
            "rules": [
                {
                    "name": r.name,
                    "kind": r.kind,
                    "of": r.rule.of,
                    "by": r.rule.by,
                    "group": r.group,
                    "share": None if r.rule.share is None else str(r.rule.share),
                    "amount": r.rule.amount,
                    "achieved": {"numerator": r.numerator, "denominator": r.denominator},
                    "binds": r.binds,
                }
                for r in self.rules
            ],
            "shards": [
                dict(zip(ShardTotals._fields, row, strict=True))
                for row in zip(*(column.tolist() for column in self.shards), strict=True)
            ],
            "notes": list(self.notes),
            "digest": self.digest,
        }


class _Supply:
    """Strata and cells in an order of their own, so that a plan does not depend on how they were listed."""

    def __init__(self, strata: Sequence[Stratum], cells: Cells, params: MixtureParams) -> None:
        _check(strata, cells)
        self.order = sorted(range(len(strata)), key=lambda s: strata[s].identity)
        self.strata = [strata[s] for s in self.order]
        rank = np.empty(len(strata), np.int64)
        rank[self.order] = np.arange(len(strata))
        stratum = rank[cells.stratum]
        by_rank = np.argsort(stratum, kind="stable")
        self.stratum = stratum[by_rank]
        self.bucket = np.asarray(cells.bucket, np.int64)[by_rank]
        self.columns = {name: getattr(cells, name).astype(np.int64)[by_rank] for name in MEASURES}
        self.measures = self.columns[params.measure]
        self.starts = np.searchsorted(self.stratum, np.arange(len(strata) + 1))
        self.verified: Bools = np.array([s.verified for s in self.strata], np.bool_)
        copies = [params.epochs.get(s.provenance.label, 1) for s in self.strata]
        self.steps = Steps(self.measures, self.starts, copies)
        self.steps_of = {
            name: self.steps if name == params.measure else Steps(self.columns[name], self.starts, copies)
            for name in MEASURES
        }
        for name, steps in self.steps_of.items():
            if sum(steps.capacity) > INT64_MAX:
                raise ValueError(f"the {name} of all strata and epochs add up to more than {INT64_MAX}")
        self.copies = copies
        once = [capacity // times for capacity, times in zip(self.steps.capacity, copies, strict=True)]
        pulls = source_pulls(params, [s.source for s in self.strata], once)
        self.ratios: Floats = np.array(
            [pulls[s.source] * float(amount) for s, amount in zip(self.strata, once, strict=True)]
        )

    def cells_of(self, stratum: int) -> int:
        return int(self.starts[stratum + 1] - self.starts[stratum])

    def totals(self, stratum: int, steps: int) -> Totals:
        return Totals(
            documents=self.steps_of["documents"].total(stratum, steps),
            tokens=self.steps_of["tokens"].total(stratum, steps),
            bytes=self.steps_of["bytes"].total(stratum, steps),
        )


def source_pulls(params: MixtureParams, sources: Sequence[str], available: Sequence[int]) -> dict[str, float]:
    """What multiplies the strata of each source, so that sources stand as temperature and learned shares ask.

    Inside a source strata stay in proportion, so the answer does not depend on what else rules tell apart. The
    powers are computed in decimals, which come out alike on every machine.
    """
    totals: dict[str, int] = {}
    for source, amount in zip(sources, available, strict=True):
        totals[source] = totals.get(source, 0) + amount
    exponent = Decimal(params.temperature.denominator) / Decimal(params.temperature.numerator)
    pulls = {}
    for source, total in totals.items():
        base = Fraction(total) if params.portions is None else params.portions.get(source, Fraction(0))
        exact = Decimal(base.numerator) / Decimal(base.denominator)
        bent = exact if exponent == 1 or not exact else exact**exponent
        pulls[source] = float(params.weights.get(source, Fraction(1))) * float(bent / (total or 1))
    return pulls


def _check(strata: Sequence[Stratum], cells: Cells) -> None:
    identities = [stratum.identity for stratum in strata]
    if len(set(identities)) != len(identities):
        twice = next(i for i in identities if identities.count(i) > 1)
        raise ValueError(f"the stratum {twice} is listed twice; list each once")
    if len({len(column) for column in cells}) != 1:
        raise ValueError(f"the columns of cells have lengths {[len(c) for c in cells]}; they are parallel")
    if len(cells.stratum) == 0:
        return
    if int(cells.stratum.min()) < 0 or int(cells.stratum.max()) >= len(strata):
        raise ValueError(f"cells name stratum {int(cells.stratum.max())}; there are {len(strata)}, from 0")
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


@dataclass(frozen=True)
class _Choice:
    """A selection that holds every constraint, and whether it stays below the size that was asked for."""

    selection: Selection
    aimed: Sequence[Constraint]  # what the levels were found under
    short: bool


class _Planner:
    def __init__(self, supply: _Supply, params: MixtureParams) -> None:
        self.supply = supply
        self.params = params
        self.demand: Demand = demand(supply.strata, supply.steps.capacity, params)
        allowed = self.demand.allowed
        self.capacity = [c if ok else 0 for c, ok in zip(supply.steps.capacity, allowed, strict=True)]
        everything = np.ones(len(supply.strata), np.bool_)
        self.needed: Bools = supply.verified if params.human_floor > 0 else everything

    def choose(self) -> tuple[_Choice, tuple[str, ...]]:
        """The best choice, with slack above the floor if that costs no feasibility, and what to tell about it."""
        plain = self.demand.constraints
        short: _Choice | None = None
        if self._anything_counts():
            for constraints in self._variants(plain):
                choice = self._attempt(constraints, constraints)
                if choice is not None and not choice.short:
                    return choice, ()
                short = short or choice
            if self.params.if_short == "shrink":
                if short is not None:
                    size = int(short.selection.taken.sum())
                    note = f"shrunk from size {self.params.size} to {size} {self.params.measure}"
                    return short, (note,)
                shrunk = self._shrink_amounts(plain)
                if shrunk is not None:
                    return shrunk
        feasible = None if short is None else int(short.selection.taken.sum())
        raise diagnose(self.supply.strata, self.capacity, self.params, plain, feasible)

    def _anything_counts(self) -> bool:
        """Whether there are documents to mix and, under a floor above 0, verified text among them."""
        if self.params.human_floor > 0:
            return any(c for c, needed in zip(self.capacity, self.needed, strict=True) if needed)
        return any(n for n, ok in zip(self.supply.steps.counts, self.demand.allowed, strict=True) if ok)

    def _variants(self, constraints: Sequence[Constraint]) -> list[list[Constraint]]:
        """The constraints with slack above the floor of verified text, where there is room for it, and as they are."""
        if not 0 < self.params.human_floor < 1:
            return [list(constraints)]
        spared = [
            with_margin(c) if c.kind == "floor" and c.rule.of == VERIFIED and c.group is None and c.rule.share else c
            for c in constraints
        ]
        return [spared, list(constraints)]

    def _attempt(self, guides: Sequence[Constraint], rules: Sequence[Constraint]) -> _Choice | None:
        """A selection as near to the levels under `guides` as whole buckets come that holds `rules`."""
        supply, allowed = self.supply, self.demand.allowed
        everything = Selection(supply.steps, rules, supply.steps.counts, allowed)
        if everything.holds and Selection(supply.steps, guides, everything.counts, allowed).holds:
            return _Choice(everything, guides, self._is_short(float(everything.taken.sum())))
        levels = Levels(guides, self.capacity)
        largest = levels.largest()
        if largest is None:
            return None
        short = self._is_short(largest.value * levels.whole)
        # Where a size is reached all strata shrink in proportion; elsewhere verified text makes room for nothing.
        fixed_size = self.params.size is not None and not short
        first = np.zeros_like(supply.verified) if fixed_size else supply.verified
        targets = levels.proportional(supply.ratios, largest.value, first)
        selection = settle(supply.steps, rules, targets, supply.ratios, allowed, first, self.needed)
        return None if selection is None else _Choice(selection, guides, short)

    def _is_short(self, total: float) -> bool:
        """Whether the largest mix misses the size; what rounding to whole buckets costs is no shortage."""
        size = self.params.size
        return size is not None and total < min(size * (1 - 1e-7), size - 0.5)

    def _shrink_amounts(self, plain: Sequence[Constraint]) -> tuple[_Choice, tuple[str, ...]] | None:
        """Least amounts that cannot be met become what can be met; shares stay as they are."""
        soft = np.array([c.is_amount_floor for c in plain], np.bool_)
        shortfalls = Levels(plain, self.capacity).shortfalls(soft, 0.0) if soft.any() else None
        if shortfalls is None:
            return None
        relaxed = [
            c._replace(bound=max(0, int((c.bound - shortfall) * (1 - 1e-6)))) if give else c
            for c, shortfall, give in zip(plain, shortfalls.tolist(), soft.tolist(), strict=True)
        ]
        shares = [c for c in plain if not c.is_amount_floor]
        for guides, rules in zip(self._variants(relaxed), self._variants(shares), strict=True):
            choice = self._attempt(guides, rules)
            if choice is not None:
                taken = [(c, int(choice.selection.taken[c.of].sum())) for c in plain if c.is_amount_floor]
                unit = self.params.measure
                return choice, tuple(f"{c.name}: shrunk to {t} {unit}" for c, t in taken if t < c.bound)
        return None


def plan_mixture(strata: Sequence[Stratum], cells: Cells, params: MixtureParams) -> Plan:
    """Plan the mix: the largest the rules allow, or the size, then as near to proportional as they allow.

    A stratum is taken as a prefix of its buckets, copy after copy. All rules hold exactly; the size is never
    exceeded, and is missed by less than the next bucket of any stratum that still has one to give.

    Raises:
      InfeasibleMixture: no mix satisfies the rules, or the size is out of reach and may not shrink.
    """
    supply = _Supply(strata, cells, params)
    planner = _Planner(supply, params)
    choice, shrunk = planner.choose()
    selection = choice.selection
    planned = sum(selection.counts)
    if planned > MAX_PLANNED_CELLS:
        raise ValueError(
            f"the plan repeats buckets until there are {planned} of them; at most {MAX_PLANNED_CELLS} can be placed: "
            "lower epochs"
        )
    cell, copy = _planned_cells(supply, selection)
    documents, tokens, size = (supply.columns[name][cell] for name in ("documents", "tokens", "bytes"))
    shard, shards, notes = fill_shards(
        params,
        [stratum.identity for stratum in supply.strata],
        supply.stratum[cell],
        supply.bucket[cell],
        copy,
        supply.verified[supply.stratum[cell]],
        ShardTotals(documents, tokens, size, supply.measures[cell], supply.measures[cell]),
    )
    order = np.array(supply.order, np.int64)
    listed = order[supply.stratum[cell]]
    by_listing = np.argsort(listed, kind="stable")
    outcomes = {
        supply.order[s]: StratumOutcome(
            stratum=stratum,
            available=supply.totals(s, supply.cells_of(s)),
            taken=supply.totals(s, count),
            copies=-(-count // max(1, supply.cells_of(s))),
        )
        for s, (stratum, count) in enumerate(zip(supply.strata, selection.counts, strict=True))
    }
    return Plan(
        params=params,
        strata=tuple(outcomes[s] for s in range(len(strata))),
        rules=_outcomes(planner.demand.constraints, choice),
        assign=Assignment(
            *(column[by_listing].astype(np.int32) for column in (listed, supply.bucket[cell], copy, shard))
        ),
        shards=shards,
        digest=digest_of(params, supply.strata, supply.stratum[cell], supply.bucket[cell], copy, shard, shards),
        notes=(*planner.demand.notes, *shrunk, *notes),
        exempt=planner.demand.exempt,
    )


def _planned_cells(supply: _Supply, selection: Selection) -> tuple[I64, I64]:
    """Every planned (cell, copy), sorted: full copies, and one more of the cells before the remainder."""
    cells = np.diff(supply.starts)
    full, rest = np.divmod(np.array(selection.counts, np.int64), np.maximum(cells, 1))
    place = np.arange(len(supply.stratum)) - supply.starts[supply.stratum]
    times = full[supply.stratum] + (place < rest[supply.stratum])
    cell = np.repeat(np.arange(len(times)), times)
    copy = np.arange(len(cell)) - np.repeat(np.cumsum(times) - times, times)
    return cell, copy


def _outcomes(constraints: Sequence[Constraint], choice: _Choice) -> tuple[RuleOutcome, ...]:
    taken = choice.selection.taken
    return tuple(
        RuleOutcome(
            name=c.name,
            kind=c.kind,
            rule=c.rule,
            group=c.group,
            numerator=int(taken[c.of].sum()),
            denominator=int(taken[c.base].sum()),
            binds=choice.selection.presses(aimed),
        )
        for c, aimed in zip(constraints, choice.aimed, strict=True)
    )


def floor_table(
    strata: Sequence[Stratum], cells: Cells, params: MixtureParams, floors: Sequence[Fraction]
) -> list[tuple[Fraction, int]]:
    """An upper bound on the size of a mix under each floor of verified human text, other shares and caps kept."""
    rules = tuple(r for r in params.floors if r.share is not None and (r.of != VERIFIED or r.by is not None))
    table = []
    for floor in floors:
        asked = replace(params, size=None, floors=(*rules, Rule(VERIFIED, share=floor)))
        supply = _Supply(strata, cells, asked)
        try:
            planner = _Planner(supply, asked)
        except InfeasibleMixture:
            table.append((floor, 0))
            continue
        verified = sum(c for c, v in zip(planner.capacity, supply.verified, strict=True) if v)
        bound = sum(planner.capacity)
        if floor > 0:
            bound = min(bound, verified * floor.denominator // floor.numerator)
        levels = Levels(planner.demand.constraints, planner.capacity)
        largest = levels.largest()
        reached = 0 if largest is None else int(largest.value * levels.whole * (1 + 1e-6) + 0.5)
        table.append((floor, min(bound, reached)))
    return table
