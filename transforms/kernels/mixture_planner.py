"""How much of every stratum a mix takes: rules to classes, classes to levels, levels to whole buckets.

A rule with `by` can have a million groups, and hardly any of them binds. So groups are taken into account when a mix
without them would break them: whatever is found infeasible on the way stays so with more rules, and a mix that in
the end breaks none is a mix under all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from transforms.kernels.mixture_changes import MOST_STRATA, smallest_changes
from transforms.kernels.mixture_classes import Classes, classify, cut
from transforms.kernels.mixture_demand import (
    MOST_NAMED,
    Constraint,
    Demand,
    Ruling,
    demand,
    is_global_floor,
    shut_out,
    with_margin,
)
from transforms.kernels.mixture_diagnosis import conflict_total, diagnose
from transforms.kernels.mixture_levels import Levels, solver
from transforms.kernels.mixture_rounding import Selection, settle
from transforms.kernels.mixture_rules import Bools, InfeasibleMixture, MixtureParams
from transforms.kernels.mixture_supply import Supply

I64 = npt.NDArray[np.int64]
Found = TypeVar("Found")

FEW_GROUPS = 64
"""A rule with up to this many groups has all of them looked at from the start."""

MOST_ACTIVE = 200
"""Groups that are solved together. Beyond, each is held by taking less of what is too much in it."""

MOST_ROUNDS = 60

WORTHWHILE = 1e-3
"""Part of a mix by which it has to grow, or to miss its size, for another round to be made of it."""


@dataclass(frozen=True)
class Chosen:
    """What a mix takes of every stratum of the supply, and what was decided on the way."""

    demand: Demand
    counts: I64  # steps
    taken: I64  # in the measure
    active: list[Bools]  # per rule the groups that were solved for
    binding: frozenset[tuple[int, int]]  # rule and group
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        return int(self.taken.sum())


def choose(supply: Supply, params: MixtureParams, explain: bool = True, quick: bool = False) -> Chosen:
    """The largest mix, or the one of a size, nearest to proportional; groups that cannot hold a rule which lets them
    go are let go of.

    With `quick`, a mix that only a long search finds counts as none.

    Raises:
      InfeasibleMixture: no mix satisfies the rules, or the size is out of reach and may not shrink; with `explain`, it
        says which change of a single rule would be enough.
    """
    try:
        return _letting_go(supply, params, lambda planner: planner.choose(quick))
    except InfeasibleMixture as reason:
        raise _explained(supply, params, reason) if explain else reason from None


def _letting_go(supply: Supply, params: MixtureParams, attempt: Callable[[_Planner], Found]) -> Found:
    """What `attempt` finds, once all groups are let go of that are in the way and may go."""
    given_up: set[tuple[int, int]] = set()
    while True:
        planner = _Planner(supply, params, given_up)
        try:
            return attempt(planner)
        except InfeasibleMixture:
            more = planner.in_the_way() - given_up
            if not more:
                raise
            given_up |= more


def _explained(supply: Supply, params: MixtureParams, reason: InfeasibleMixture) -> InfeasibleMixture:
    """The reason, with the changes of single rules that would be enough."""
    if len(supply.strata) > MOST_STRATA or not supply.capacity.sum():
        return reason

    def may_be(asked: MixtureParams) -> bool:
        bound = largest_bound(supply, asked)
        return bound > 0 and (asked.if_short == "shrink" or bound >= (asked.size or 0) * (1 - 1e-6))

    def size_of(asked: MixtureParams) -> int | None:
        try:
            return choose(supply, asked, explain=False, quick=True).size or None
        except InfeasibleMixture:
            return None

    changes = tuple(smallest_changes(params, may_be, size_of))
    told = (reason.message, reason.binding, reason.available, reason.missing, reason.feasible_size, reason.advice)
    return InfeasibleMixture(*told, changes)


def shrinking(supply: Supply, params: MixtureParams) -> list[str]:
    """Strata of which a larger size would take less: rules then leave no room for them."""
    if params.size is None:
        return []
    chosen = choose(supply, params)
    notes = []
    for larger in (params.size * 5 // 4, params.size * 2, int(supply.capacity.sum())):
        if larger <= chosen.size:
            continue
        try:
            other = choose(supply, replace(params, size=larger, if_short="shrink"), explain=False)
        except InfeasibleMixture:
            continue
        # What rounding to whole buckets shifts is no shrinking.
        step = np.maximum(supply.once // np.maximum(supply.cells, 1), 1)
        less = np.flatnonzero(chosen.taken - other.taken > 2 * step).tolist()
        if less:
            first = max(less, key=lambda s: int(chosen.taken[s] - other.taken[s]))
            stratum = supply.strata[first]
            named = " ".join(filter(None, (stratum.source, stratum.provenance.label, stratum.generator)))
            more = f", and less of {len(less) - 1} more strata" if len(less) > 1 else ""
            notes.append(
                f"raising size to {larger} would take less of {named}: {int(other.taken[first])} instead of "
                f"{int(chosen.taken[first])} {params.measure}{more}"
            )
    return notes[:1]


def largest_bound(supply: Supply, params: MixtureParams) -> int:
    """No mix under these rules is larger than this; 0 where there is none."""
    try:
        return _letting_go(supply, params, _Planner.largest_bound)
    except InfeasibleMixture:
        return 0


@dataclass(frozen=True)
class _Choice:
    """A selection of classes that holds every constraint, and whether it stays below the size that was asked for."""

    selection: Selection
    aimed: Sequence[Constraint]  # what the levels were found under
    short: bool


class _Planner:
    def __init__(self, supply: Supply, params: MixtureParams, given_up: Collection[tuple[int, int]]) -> None:
        self.supply = supply
        self.params = params
        self.demand = demand(supply.rules_of, supply.capacity, params, given_up)
        self.active = [ruling.held & _from_the_start(ruling) for ruling in self.demand.rulings]
        self.limits: I64 | None = None
        self.limited: list[I64] = [np.empty(0, np.int64) for _ in self.demand.rulings]  # per rule, groups
        # No group can hold more than it would beside all that there is: a bound that costs no mix its largest size.
        most = np.where(self.demand.allowed, supply.capacity, 0)
        fresh = self._fresh(most)
        if sum(map(len, fresh)) > MOST_ACTIVE:
            self._limit(fresh, most)
        self.bounds, self.limited = self.limits, [groups[:0] for groups in self.limited]
        self._look()

    def _look(self) -> None:
        """See the supply as the active groups tell it apart."""
        self.classes: Classes = classify(self.supply, self.demand, self.active, self.limits)
        self.capacity = [
            c if ok else 0 for c, ok in zip(self.classes.steps.capacity, self.classes.allowed, strict=True)
        ]
        self.constraints = self.demand.constraints(self.classes.strata, self.active)
        self.groups = [(n, g) for n, groups in enumerate(self.active) for g in np.flatnonzero(groups).tolist()]
        everything = np.ones(len(self.classes.strata), np.bool_)
        self.needed: Bools = self.classes.verified if self.params.human_floor > 0 else everything

    def largest_bound(self) -> int:
        capacity = np.array(self.capacity, object)
        bound = int(capacity.sum())
        floor = self.params.human_floor
        if floor > 0:
            bound = min(bound, int(capacity[self.classes.verified].sum()) * floor.denominator // floor.numerator)
        largest = solver(self.constraints, self.capacity, self.classes.verified).largest()
        bound = 0 if largest is None else min(bound, int(largest * (1 + Fraction(1, 10**6)) + Fraction(1, 2)))
        if bound == 0:
            raise InfeasibleMixture("only the empty mix holds all rules, or none does")
        return bound

    def choose(self, quick: bool) -> Chosen:
        best: tuple[Chosen, bool] | None = None
        for _ in range(MOST_ROUNDS):
            try:
                choice, notes = self._choose(quick)
            except InfeasibleMixture:
                if best is None:
                    raise
                break
            counts = self.classes.counts(choice.selection.counts, len(self.supply.strata))
            taken = self.supply.amounts(counts)
            if not self._hold_more(taken):
                pressing = (choice.selection.presses(aimed) for aimed in choice.aimed)
                binding = frozenset(group for group, binds in zip(self.groups, pressing, strict=True) if binds)
                found = Chosen(self.demand, counts, taken, self.active, binding, (*self.demand.notes, *notes))
                grown = best is None or found.size > best[0].size * (1 + WORTHWHILE)
                if best is None or found.size > best[0].size:
                    best = found, choice.short
                if not grown or not self._held_low or not self._misses_size(found):
                    break
                self._renew_limits(taken)
            self._look()
        if best is not None:
            found, short = best
            if short and self.params.if_short == "fail" and self._misses_size(found):
                raise self._reason(found.size)
            return found
        groups = sum(int(ruling.held.sum()) for ruling in self.demand.rulings)
        raise InfeasibleMixture(
            f"no mix was found that holds all {groups} groups of its rules",
            binding=tuple(r.name(g) for r in self.demand.rulings for g in r.broken(taken)[:3].tolist()),
            advice="Let groups go with otherwise: drop or otherwise: exempt, or relax the rule",
        )

    def in_the_way(self) -> set[tuple[int, int]]:
        """Groups whose rule lets them go, and which have to give way for a mix to exist."""
        soft = np.array([c.group is not None and c.rule.otherwise != "fail" for c in self.constraints], np.bool_)
        if not soft.any():
            return set()
        least = conflict_total(self.params, self.capacity)
        shortfalls = Levels(self.constraints, self.capacity).shortfalls(soft, least)
        if shortfalls is None:
            return set()
        scale = float(sum(self.capacity)) * 1e-9
        found = zip(self.groups, self.constraints, shortfalls.tolist(), strict=True)
        return {group for group, c, short in found if short > scale * float(c.share.denominator if c.share else 1)}

    def _hold_more(self, taken: I64) -> bool:
        """Take account of the groups that this mix breaks; False where it breaks none."""
        fresh = self._fresh(taken)
        if not any(map(len, fresh)):
            return False
        together = sum(int(active.sum()) for active in self.active) + sum(map(len, fresh))
        if self.limits is None and together <= MOST_ACTIVE:
            for active, groups in zip(self.active, fresh, strict=True):
                active[groups] = True
        else:
            self._limit(fresh, taken)
        return True

    @property
    def _held_low(self) -> bool:
        """Whether groups may be held below what they could have by now."""
        return any(map(len, self.limited))

    def _misses_size(self, found: Chosen) -> bool:
        return self.params.size is None or found.size < self.params.size * (1 - WORTHWHILE)

    def _renew_limits(self, taken: I64) -> None:
        """Limits were set by what a group held then. Where it holds more of what a floor asks for, they are too low."""
        self.limits = self.bounds
        limited, self.limited = self.limited, [np.empty(0, np.int64) for _ in self.limited]
        self._limit(limited, taken)

    def _fresh(self, taken: I64) -> list[I64]:
        """Per rule the groups that break it and are not solved for yet."""
        broken = [ruling.broken(taken) for ruling in self.demand.rulings]
        return [groups[~active[groups]] for groups, active in zip(broken, self.active, strict=True)]

    def _limit(self, fresh: Sequence[I64], taken: I64) -> None:
        """Let these groups give less of what they have too much of, all else as taken."""
        limits = self.supply.steps if self.limits is None else self.limits
        self.limited = [np.union1d(before, groups) for before, groups in zip(self.limited, fresh, strict=True)]
        for ruling, groups in zip(self.demand.rulings, fresh, strict=True):
            if len(groups):
                of, most = _too_much(ruling, groups, taken)
                limits = np.minimum(limits, cut(self.supply, of, ruling.group, most, limits))
        self.limits = limits

    def _choose(self, quick: bool) -> tuple[_Choice, tuple[str, ...]]:
        """The best choice, with slack above the floor if that costs no feasibility, and what to tell about it."""
        plain = self.constraints
        short: _Choice | None = None
        if self._anything_counts():
            for constraints in self._variants(plain):
                choice = self._attempt(constraints, quick)
                if choice is not None and not choice.short:
                    return choice, ()
                short = short or choice
            if short is not None and (self.params.if_short == "shrink" or self._held_low):
                size = int(short.selection.taken.sum())
                note = f"shrunk from size {self.params.size} to {size} {self.params.measure}"
                return short, (note,)
        feasible = None if short is None else int(short.selection.taken.sum())
        raise self._reason(feasible)

    def _reason(self, feasible: int | None) -> InfeasibleMixture:
        """Why there is no mix; `feasible` is the largest there is if only the size is out of reach."""
        left_out = self._left_out()
        return diagnose(self.classes.verified, self.capacity, self.params, self.constraints, feasible, left_out)

    def _left_out(self) -> list[str]:
        """What keeps verified text from being chosen at all."""
        there = self.supply.verified & (self.supply.capacity > 0)
        dropped = [(ruling.group, group) for ruling in self.demand.rulings for group in ruling.dropped]
        told = list(self.demand.notes) if any((there & (groups == group)).any() for groups, group in dropped) else []
        sources = sorted({self.supply.strata[s].source for s in np.flatnonzero(there).tolist()})
        told += [f"source {name} has a weight of 0" for name in sources if self.params.pull(name) == 0]
        for ruling in self.demand.rulings:
            shut = np.unique(ruling.group[there & shut_out(ruling)]).tolist()
            told += [f"{ruling.name(group)} allows none of it" for group in shut[:MOST_NAMED]]
        return told

    def _anything_counts(self) -> bool:
        """Whether there are documents to mix and, under a floor above 0, verified text among them."""
        if self.params.human_floor > 0:
            return any(c for c, needed in zip(self.capacity, self.needed, strict=True) if needed)
        return any(n for n, ok in zip(self.classes.steps.counts, self.classes.allowed, strict=True) if ok)

    def _variants(self, constraints: Sequence[Constraint]) -> list[list[Constraint]]:
        """The constraints with slack above the floor of verified text, where there is room for it, and as they are."""
        if not 0 < self.params.human_floor < 1:
            return [list(constraints)]
        return [[with_margin(c) if is_global_floor(c) else c for c in constraints], list(constraints)]

    def _attempt(self, constraints: Sequence[Constraint], quick: bool) -> _Choice | None:
        """A selection as near to the levels under these constraints as whole buckets come that holds them."""
        classes = self.classes
        everything = Selection(classes.steps, constraints, classes.steps.counts, classes.allowed)
        if everything.holds:
            return _Choice(everything, constraints, self._is_short(Fraction(int(everything.taken.sum()))))
        solved = solver(constraints, self.capacity, classes.verified)
        largest = solved.largest()
        if largest is None:
            return None
        short = self._is_short(largest)
        # Where a size is reached all strata shrink in proportion; elsewhere verified text makes room for nothing.
        fixed_size = self.params.size is not None and not short
        first = np.zeros_like(classes.verified) if fixed_size else classes.verified
        targets = solved.proportional(classes.curves, largest, first)
        selection = settle(
            classes.steps, constraints, targets, classes.ratios, classes.allowed, first, self.needed, quick
        )
        return None if selection is None else _Choice(selection, constraints, short)

    def _is_short(self, total: Fraction) -> bool:
        """Whether the largest mix misses the size; what rounding to whole buckets costs is no shortage."""
        size = self.params.size
        return size is not None and total < min(size * (1 - Fraction(1, 10**7)), size - Fraction(1, 2))


def _from_the_start(ruling: Ruling) -> bool:
    """Whether all groups are looked at, rather than those that a mix without them breaks.

    Least amounts are to be reached together, and text elsewhere can break a least share of the whole: both are no
    matter of the group alone.
    """
    rule = ruling.rule
    return len(ruling.names) <= FEW_GROUPS or (ruling.kind == "floor" and (ruling.of_whole or rule.amount is not None))


def _too_much(ruling: Ruling, groups: I64, taken: I64) -> tuple[Bools, I64]:
    """The strata of which these groups hold too much, and the most of them per group, all else as taken."""
    part, base = (column[groups].astype(object) for column in ruling.sums(taken))
    share = ruling.rule.share
    if share is None:
        allowed = np.full(len(groups), ruling.rule.amount or 0, object)
    elif ruling.kind == "floor":
        allowed = part * (share.denominator - share.numerator) // share.numerator
    else:
        allowed = (base - part) * share.numerator // (share.denominator - share.numerator)
    most = np.full(len(ruling.names), -1, np.int64)
    most[groups] = allowed.astype(np.int64)
    concerned = ruling.of if ruling.kind == "cap" else ~ruling.of
    return concerned & (most[ruling.group] >= 0), most
