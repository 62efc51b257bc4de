"""Plans a mix: strata and rules to whole buckets and output shards, or the reason why there is no such mix.

The planner sees totals only. It first asks for the largest mix that the rules allow (or the size), then for the one
whose strata are nearest to proportional, rounds that to whole buckets in exact integers, and places the buckets so
that every output shard holds the floor of verified human text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.kernels.mixture_demand import Ruling
from transforms.kernels.mixture_planner import Chosen, choose, largest_bound, shrinking
from transforms.kernels.mixture_rules import (
    VERIFIED,
    InfeasibleMixture,
    MixtureParams,
    Rule,
    Stratum,
)
from transforms.kernels.mixture_shards import Assignment, ShardTotals, digest_of, fill_shards
from transforms.kernels.mixture_supply import TOTALS, Cells, Supply
from transforms.kernels.mixture_worth import R_STAR, VerifiedShares, verified_shares

__all__ = [
    "Assignment",
    "Cells",
    "InfeasibleMixture",
    "MixtureParams",
    "Outlook",
    "Plan",
    "Rule",
    "RuleOutcome",
    "ShardTotals",
    "Stratum",
    "StratumOutcome",
    "Supply",
    "Totals",
    "floor_table",
    "outlook",
    "plan_mixture",
    "plan_supply",
    "shares_told",
    "shrinking",
]

MAX_PLANNED_CELLS = 10**8

MOST_GROUPS = 1000
"""Groups of one rule whose outcome is told; of a rule with more, those that were looked at one by one."""

MOST_STRATA = 1000
"""Strata that a summary lists, the largest first; what the others hold is added up."""

I64 = npt.NDArray[np.int64]


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
    distinct: Totals  # taken, without repeats
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
    listed: tuple[Stratum, ...]
    available: I64  # documents, tokens and bytes by stratum
    taken: I64
    distinct: I64
    copies: I64
    rules: tuple[RuleOutcome, ...]
    assign: Assignment
    shards: ShardTotals
    digest: str
    notes: tuple[str, ...]
    exempt: tuple[tuple[Rule, str], ...] = ()  # groups that a rule with `otherwise: exempt` lets off
    dropped: tuple[tuple[Rule, str], ...] = ()  # groups that a rule with `otherwise: drop` leaves out

    @property
    def n_shards(self) -> int:
        return len(self.shards.documents)

    @cached_property
    def strata(self) -> tuple[StratumOutcome, ...]:
        """The outcome of each stratum, in the order in which strata were listed."""
        columns = (self.available.T.tolist(), self.taken.T.tolist(), self.distinct.T.tolist(), self.copies.tolist())
        return tuple(
            StratumOutcome(stratum, Totals(*available), Totals(*taken), Totals(*distinct), copies)
            for stratum, available, taken, distinct, copies in zip(self.listed, *columns, strict=True)
        )

    @property
    def totals(self) -> Totals:
        return Totals(*self.taken.sum(axis=1).tolist())

    @property
    def size(self) -> int:
        """The whole mix in its measure."""
        return int(getattr(self.totals, self.params.measure))

    @property
    def verified_shares(self) -> VerifiedShares:
        verified = np.array([stratum.verified for stratum in self.listed], np.bool_)
        measure = Totals._fields.index(self.params.measure)
        return verified_shares(verified, self.taken[measure], self.distinct[measure])

    def summary(self) -> dict[str, Any]:
        """The plan in numbers, JSON-ready; all but the assignment."""
        floor = self.params.human_floor
        of_size = self.taken[Totals._fields.index(self.params.measure)]
        largest = np.lexsort((np.arange(len(of_size)), -of_size))
        told = np.sort(largest[:MOST_STRATA]).tolist()
        others = largest[MOST_STRATA:]
        return {
            "measure": self.params.measure,
            "floor": {"numerator": floor.numerator, "denominator": floor.denominator},
            "size": self.size,
            "totals": self.totals._asdict(),
            "verified": shares_told(self.verified_shares),
            "strata": [_stratum_told(self.strata[s]) for s in told],
            "other_strata": {
                "strata": len(others),
                "available": _totals_told(self.available[:, others]),
                "taken": _totals_told(self.taken[:, others]),
            },
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


def _stratum_told(outcome: StratumOutcome) -> dict[str, Any]:
    stratum = outcome.stratum
    return {
        "source": stratum.source,
        "provenance": stratum.provenance.label,
        "generator": stratum.generator,
        "kind": stratum.kind,
        "groups": dict(stratum.groups),
        "available": outcome.available._asdict(),
        "taken": outcome.taken._asdict(),
        "distinct": outcome.distinct._asdict(),
        "copies": outcome.copies,
    }


def shares_told(shares: VerifiedShares) -> dict[str, Any]:
    """Shares of verified text, JSON-ready."""
    return {
        "share": [shares.verified, shares.whole],
        "unique": [shares.verified_distinct, shares.whole_distinct],
        "effective": shares.effective,
        "r_star": R_STAR,
    }


def _totals_told(columns: I64) -> dict[str, int]:
    return dict(zip(Totals._fields, columns.sum(axis=1).tolist(), strict=True))


def plan_mixture(strata: Sequence[Stratum], cells: Cells, params: MixtureParams) -> Plan:
    """Plan the mix: the largest the rules allow, or the size, then as near to proportional as they allow.

    A stratum is taken as a prefix of its buckets, copy after copy. All rules hold exactly; the size is never
    exceeded, and is missed by less than the next bucket of any stratum that still has one to give.

    Raises:
      InfeasibleMixture: no mix satisfies the rules, or the size is out of reach and may not shrink.
    """
    return plan_supply(Supply(strata, cells, params), params)


def plan_supply(supply: Supply, params: MixtureParams) -> Plan:
    """`plan_mixture` of strata that were looked at before; settings may differ in rules, size and layout."""
    chosen = choose(supply, params)
    planned = int(chosen.counts.sum())
    if planned > MAX_PLANNED_CELLS:
        raise ValueError(
            f"the plan repeats buckets until there are {planned} of them; at most {MAX_PLANNED_CELLS} can be placed: "
            "lower epochs"
        )
    cell, copy = _planned_cells(supply, chosen.counts)
    stratum, bucket = supply.stratum[cell], supply.bucket[cell]
    documents, tokens, size = (supply.columns[name][cell] for name in ("documents", "tokens", "bytes"))
    measure = supply.measures[cell]
    shard, shards, notes = fill_shards(
        params,
        supply.identities,
        stratum,
        bucket,
        copy,
        supply.verified[stratum],
        ShardTotals(documents, tokens, size, measure, measure),
    )
    listed = supply.order[stratum]
    by_listing = np.argsort(listed, kind="stable")
    place = np.argsort(supply.order)
    return Plan(
        params=params,
        listed=tuple(supply.strata[s] for s in place.tolist()),
        available=supply.totals(supply.cells)[:, place],
        taken=supply.totals(chosen.counts)[:, place],
        distinct=supply.totals(np.minimum(chosen.counts, supply.cells))[:, place],
        copies=(-(-chosen.counts // np.maximum(1, supply.cells)))[place],
        rules=tuple(_outcomes(chosen)),
        assign=Assignment(
            *(column[by_listing].astype(np.int32) for column in (listed, bucket, copy, shard)),
        ),
        shards=shards,
        digest=digest_of(params, supply.identities, stratum, bucket, copy, shard, shards),
        notes=(*chosen.notes, *notes),
        exempt=chosen.demand.exempt,
        dropped=chosen.demand.dropped,
    )


def _planned_cells(supply: Supply, counts: I64) -> tuple[I64, I64]:
    """Every planned (cell, copy), sorted: full copies, and one more of the cells before the remainder."""
    full, rest = np.divmod(counts, np.maximum(supply.cells, 1))
    place = np.arange(len(supply.stratum)) - supply.starts[supply.stratum]
    times = full[supply.stratum] + (place < rest[supply.stratum])
    cell = np.repeat(np.arange(len(times)), times)
    copy = np.arange(len(cell)) - np.repeat(np.cumsum(times) - times, times)
    return cell, copy


def _outcomes(chosen: Chosen) -> Iterator[RuleOutcome]:
    for number, (ruling, active) in enumerate(zip(chosen.demand.rulings, chosen.active, strict=True)):
        part, base = ruling.sums(chosen.taken)
        told = ruling.held if len(ruling.names) <= MOST_GROUPS else active
        for group in np.flatnonzero(told).tolist():
            binds = (number, group) in chosen.binding
            yield _outcome(ruling, group, int(part[group]), int(base[group]), binds)


def _outcome(ruling: Ruling, group: int, part: int, base: int, binds: bool) -> RuleOutcome:
    return RuleOutcome(ruling.name(group), ruling.kind, ruling.rule, ruling.names[group], part, base, binds)


class Outlook(NamedTuple):
    """What a mix under some rules would be, without placing anything."""

    params: MixtureParams
    reason: InfeasibleMixture | None
    size: int
    shares: VerifiedShares
    binding: tuple[str, ...]
    notes: tuple[str, ...]


def outlook(supply: Supply, params: MixtureParams) -> Outlook:
    """How large a mix under these rules would be, and what it would hold of verified text."""
    try:
        chosen = choose(supply, params, explain=False)
    except InfeasibleMixture as reason:
        none = np.zeros(0, np.int64)
        shares = verified_shares(np.zeros(0, np.bool_), none, none)
        return Outlook(params, reason, 0, shares, reason.binding, ())
    distinct = supply.totals(np.minimum(chosen.counts, supply.cells))[TOTALS.index(params.measure)]
    binding = tuple(chosen.demand.rulings[number].name(group) for number, group in sorted(chosen.binding))
    shares = verified_shares(supply.verified, chosen.taken, distinct)
    return Outlook(params, None, chosen.size, shares, binding, chosen.notes)


def floor_table(supply: Supply, params: MixtureParams, floors: Sequence[Fraction]) -> list[tuple[Fraction, int]]:
    """An upper bound on the size of a mix under each floor of verified human text, other shares and caps kept."""
    rules = tuple(r for r in params.floors if r.share is not None and (r.of != VERIFIED or r.by is not None))
    asked = (replace(params, size=None, floors=(*rules, Rule(VERIFIED, share=floor))) for floor in floors)
    return [(floor, largest_bound(supply, rule)) for floor, rule in zip(floors, asked, strict=True)]
