"""From rules to exact constraints, for millions of strata: what each rule counts, whom it lets off or leaves out.

A rule is kept as columns over strata (what it counts, and which group each stratum falls into), so that all its groups
are added up at once. A constraint is one group of one rule, over classes of strata: `sum(coefficient[c] * taken[c]) >=
bound` in Python integers. A floor p/q on a set A within a base B is `q*A - p*B >= 0`: shares never meet a float where
it matters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.kernels.mixture_rules import (
    EVERYTHING,
    VERIFIED,
    Bools,
    InfeasibleMixture,
    MixtureParams,
    Objects,
    Rule,
    Stratum,
)
from transforms.kernels.schemas import Provenance

I64 = npt.NDArray[np.int64]

MOST_NAMED = 5
"""Groups or rules that are named one by one; of more the number is given."""


class Constraint(NamedTuple):
    """One rule, for one group of a rule with `by`, as `sum(coefficients * taken) >= bound`."""

    name: str
    kind: str  # floor | cap | size
    rule: Rule
    group: str | None
    of: Bools
    base: Bools
    share: Fraction | None  # the rule's, or a little more where slack is sought
    coefficients: Objects
    bound: int

    @property
    def is_amount_floor(self) -> bool:
        return self.kind == "floor" and self.rule.amount is not None


def constrain(kind: str, rule: Rule, group: str | None, of: Bools, base: Bools) -> Constraint:
    sign = 1 if kind == "floor" else -1
    whole = np.where(base, 1, 0).astype(object)
    part = np.where(of, 1, 0).astype(object)
    if rule.share is not None:
        coefficients = sign * (rule.share.denominator * part - rule.share.numerator * whole)
        bound = 0
    else:
        assert rule.amount is not None
        coefficients, bound = sign * part, sign * rule.amount
    return Constraint(rule_name(kind, rule, group), kind, rule, group, of, base, rule.share, coefficients, bound)


def with_margin(constraint: Constraint) -> Constraint:
    """The floor p/q on A against the rest N with a thousandth to spare: p*N*1000 <= (q-p)*A*999."""
    share = constraint.rule.share
    assert share is not None
    p, q = share.numerator, share.denominator
    part = np.where(constraint.of, 1, 0).astype(object)
    rest = np.where(constraint.base & ~constraint.of, 1, 0).astype(object)
    return constraint._replace(
        coefficients=(q - p) * 999 * part - p * 1000 * rest,
        share=Fraction(1000 * p, 1000 * p + 999 * (q - p)),
    )


def rule_name(kind: str, rule: Rule, group: str | None) -> str:
    if kind == "size":
        return f"size {rule.amount}"
    asked = rule.share if rule.share is not None else rule.amount
    where = "" if group is None else f" in {rule.by} {group}"
    return f"{kind} {rule.of} {asked}{where}"


def numbered(values: Iterable[Any], count: int) -> tuple[I64, list[Any]]:
    """Values as numbers, and the distinct values in order, None first."""
    seen: dict[Any, int] = {}
    raw = np.fromiter((seen.setdefault(value, len(seen)) for value in values), np.int64, count)
    names = sorted(seen, key=lambda value: (value is not None, value or ""))
    rank = np.empty(len(names), np.int64)
    rank[[seen[name] for name in names]] = np.arange(len(names))
    return rank[raw] if count else raw, names


class Columns:
    """What rules look at, as columns over the strata."""

    def __init__(self, strata: Sequence[Stratum]) -> None:
        self.strata = strata
        self.count = len(strata)
        self.provenance = np.fromiter((s.provenance for s in strata), np.int64, len(strata))
        self._columns: dict[str, tuple[I64, list[Any]]] = {}

    @property
    def verified(self) -> Bools:
        found: Bools = self.provenance == int(Provenance.HUMAN_VERIFIED)
        return found

    def column(self, name: str) -> tuple[I64, list[Any]]:
        if name not in self._columns:
            values = (s.kind for s in self.strata) if name == "kind" else (s.value(name) for s in self.strata)
            self._columns[name] = numbered(values, self.count)
        return self._columns[name]

    def covered(self, rule: Rule) -> Bools:
        """The strata that a rule counts: `rule.covers` of each."""
        if rule.of == EVERYTHING:
            return np.ones(self.count, np.bool_)
        labels = {provenance.label: int(provenance) for provenance in Provenance}
        if rule.of == "human_any":
            return np.isin(self.provenance, [int(Provenance.HUMAN_VERIFIED), int(Provenance.HUMAN)])
        if rule.of in labels:
            return np.asarray(self.provenance == labels[rule.of])
        prefix, colon, name = rule.of.partition(":")
        numbers, values = self.column(prefix if colon else "kind")
        wanted = name if colon else rule.of
        return np.asarray(numbers == values.index(wanted)) if wanted in values else np.zeros(self.count, np.bool_)


@dataclass
class Ruling:
    """One rule over all strata, with every group of its `by`."""

    kind: str
    rule: Rule
    of: Bools
    group: I64  # of each stratum; 0 throughout without `by`
    names: list[str | None]
    held: Bools  # per group: whether the rule applies to it
    of_whole: bool  # compared with the whole mix rather than with the group's own total
    exempt: list[int] = field(default_factory=list)  # groups that are let off
    dropped: list[int] = field(default_factory=list)  # groups that are left out

    def sums(self, amounts: I64) -> tuple[I64, I64]:
        """Per group: the amount of what the rule counts, and of what that is compared with."""
        part, base = np.zeros(len(self.names), np.int64), np.zeros(len(self.names), np.int64)
        np.add.at(part, self.group[self.of], amounts[self.of])
        if self.of_whole:
            base[:] = amounts.sum()
        else:
            np.add.at(base, self.group, amounts)
        return part, base

    def broken(self, taken: I64) -> I64:
        """The groups that do not hold the rule, in exact integers."""
        part, base = (column.astype(object) for column in self.sums(taken))
        share = self.rule.share
        asked = self.rule.amount or 0
        value = part - asked if share is None else share.denominator * part - share.numerator * base
        return np.flatnonzero((value < 0 if self.kind == "floor" else value > 0) & self.held)

    def constraint(self, group: int, strata: I64) -> Constraint:
        """The rule for one group, over classes that are given by one stratum of each."""
        within = self.group[strata] == group
        base = np.ones(len(strata), np.bool_) if self.of_whole else within
        return constrain(self.kind, self.rule, self.names[group], self.of[strata] & within, base)

    def name(self, group: int) -> str:
        return rule_name(self.kind, self.rule, self.names[group])


class Demand(NamedTuple):
    """The rules over strata, which strata may be taken at all, and what was decided on the way."""

    rulings: list[Ruling]
    allowed: Bools
    notes: tuple[str, ...]
    exempt: tuple[tuple[Rule, str], ...]  # groups that a rule lets off
    dropped: tuple[tuple[Rule, str], ...]  # groups that a rule leaves out

    def constraints(self, strata: I64, active: Sequence[Bools] | None = None) -> list[Constraint]:
        """All constraints, or those of active groups, over classes given by one stratum of each."""
        return [
            ruling.constraint(group, strata)
            for number, ruling in enumerate(self.rulings)
            for group in np.flatnonzero(ruling.held & (True if active is None else active[number])).tolist()
        ]


def demand(
    columns: Columns, capacity: I64, params: MixtureParams, given_up: Collection[tuple[int, int]] = ()
) -> Demand:
    """Apply rules to strata; `capacity` is the most of each that epochs allow.

    Groups that have too little for a floor are dropped or let off as the rule says, and so are those in `given_up`:
    (rule, group) pairs found to be out of reach on other grounds.
    """
    rulings = [_ruling(kind, rule, columns) for kind, rule in _asked(params)]
    sources, names = columns.column("source")
    allowed: Bools = np.array([params.pull(name) > 0 for name in names], np.bool_)[sources]
    told: dict[tuple[int, str], list[tuple[str, int]]] = {}
    standing = -1
    while standing != int(allowed.sum()):  # a group left out for one rule can be what another rule lacks
        standing = int(allowed.sum())
        for number, ruling in enumerate(rulings):
            gone = {group for rule, group in given_up if rule == number}
            for group, fate, amount in _hopeless(ruling, np.where(allowed, capacity, 0), gone):
                told.setdefault((number, fate), []).append((str(ruling.names[group]), amount))
                ruling.held[group] = False
                if fate == "exempt":
                    ruling.exempt.append(group)
                    continue
                ruling.dropped.append(group)
                allowed = allowed & ~((ruling.group == group) & (ruling.of if ruling.of_whole else True))
            allowed = allowed & ~shut_out(ruling)
    for ruling in rulings:
        _refuse_empty_handed(ruling, np.where(allowed, capacity, 0), params.measure)
    notes = [_note(rulings[number], fate, groups, params.measure) for (number, fate), groups in sorted(told.items())]
    exempt = [(r.rule, str(r.names[group])) for r in rulings for group in sorted(r.exempt)]
    dropped = [(r.rule, str(r.names[group])) for r in rulings for group in sorted(r.dropped)]
    return Demand(rulings, allowed, tuple(notes), tuple(exempt), tuple(dropped))


def _asked(params: MixtureParams) -> Iterator[tuple[str, Rule]]:
    yield from (("floor", rule) for rule in params.floors)
    yield from (("cap", rule) for rule in params.caps)
    for name, share in sorted(params.max_shares.items()):
        yield "cap", Rule(f"source:{name}", share)
    if params.size is not None:
        yield "size", Rule(EVERYTHING, amount=params.size)


def _ruling(kind: str, rule: Rule, columns: Columns) -> Ruling:
    of = columns.covered(rule)
    if rule.by is None:
        return Ruling(kind, rule, of, np.zeros(columns.count, np.int64), [None], np.ones(1, np.bool_), True)
    group, values = columns.column(rule.by)
    names: list[str | None] = ["(none)" if value is None else value for value in values]
    held = np.ones(len(names), np.bool_)
    if rule.by == "generator":
        held[:] = False
        held[group[of]] = True
    return Ruling(kind, rule, of, group, names, held, rule.by == "generator")


def _hopeless(ruling: Ruling, reach: I64, given_up: Collection[int]) -> Iterator[tuple[int, str, int]]:
    """Groups that cannot hold the rule and need not: (group, drop | exempt, what there is in the group)."""
    rule = ruling.rule
    if rule.otherwise == "fail" or rule.by is None:
        return
    part, base = ruling.sums(reach)
    present = part if ruling.of_whole else base
    if ruling.kind == "floor":
        lacking = ruling.held & (part < (rule.amount or bool(rule.share)))
    elif rule.share is not None and rule.share < 1 and not ruling.of_whole:
        lacking = ruling.held & (part > 0) & (part == base)  # under a cap only nothing could be taken of it
    else:
        lacking = np.zeros(len(ruling.names), np.bool_)
    lacking = lacking & (present > 0)
    for group in sorted({*np.flatnonzero(lacking).tolist(), *(g for g in given_up if ruling.held[g])}):
        yield group, rule.otherwise, int(present[group])


def _note(ruling: Ruling, fate: str, groups: Sequence[tuple[str, int]], measure: str) -> str:
    rule = ruling.rule
    asked = rule.share if rule.share is not None else rule.amount
    named = some_of([name for name, _ in groups])
    amount = sum(amount for _, amount in groups)
    done = "let off (exempt)" if fate == "exempt" else "left out of the mix (drop)"
    return f"{ruling.kind} {rule.of} {asked} in {rule.by} {named}: cannot hold it; {done}, {amount} {measure}"


def some_of(names: Sequence[str]) -> str:
    """The first of these names, and how many there are beside them."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _refuse_empty_handed(ruling: Ruling, reach: I64, measure: str) -> None:
    """A group with text, and none of what its floor asks a share of, fails by name."""
    rule = ruling.rule
    if ruling.kind != "floor" or rule.by is None or not rule.share or ruling.of_whole:
        return
    part, base = ruling.sums(reach)
    lacking = np.flatnonzero(ruling.held & (part == 0) & (base > 0)).tolist()
    if not lacking:
        return
    more = f" (and {len(lacking) - 1} more groups)" if len(lacking) > 1 else ""
    present = int(base[lacking[0]])
    raise InfeasibleMixture(
        f"{ruling.name(lacking[0])}{more} cannot hold: the group has {present} {measure} and no {rule.of} among them",
        binding=tuple(ruling.name(group) for group in lacking[:MOST_NAMED]),
        available={rule.of: 0, "group": present},
        missing=1,
        advice=f"Add {rule.of} text to the group, or say otherwise: drop or otherwise: exempt",
    )


def shut_out(ruling: Ruling) -> Bools:
    """Strata that a cap of nothing, or a floor of everything, forbids even where they measure nothing."""
    rule, held = ruling.rule, ruling.held[ruling.group]
    if ruling.kind == "cap" and (rule.amount == 0 or rule.share == 0):
        return ruling.of & held
    if ruling.kind == "floor" and rule.share == 1:
        return ~ruling.of & (True if ruling.of_whole else held)
    return np.zeros(len(ruling.of), np.bool_)


def is_global_floor(constraint: Constraint) -> bool:
    """Whether this is the share that every shard, row group and prefix holds."""
    return (
        constraint.kind == "floor"
        and constraint.rule.of == VERIFIED
        and constraint.group is None
        and bool(constraint.rule.share)
    )
