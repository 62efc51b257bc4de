"""Strata that all rules treat alike, planned as one: a million strata become a handful of classes.

Within a class every rule sees only the sum, so the best way to take an amount of it is to raise one level under all its
strata. The steps of a class are those of its strata, merged in the order in which a rising level meets them: any prefix
of the class is then a prefix of every stratum, at about one level. A stratum with a step that is a good part of its
class stays a class of its own, so that it does not stand in the way of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from transforms.kernels.mixture_demand import Demand
from transforms.kernels.mixture_rounding import Steps
from transforms.kernels.mixture_rules import Bools
from transforms.kernels.mixture_supply import Floats, Supply

I64 = npt.NDArray[np.int64]

APART = 64
"""Up to this many strata each is its own class: there is nothing to gain from merging."""

LARGE_STEP = 256
"""A stratum with a step above this part of its class stays apart."""

MOST_STEPS = 10**8
"""Steps that are merged; epochs multiply them."""


class Curve:
    """What a class holds at a level: every stratum `level * ratio`, up to all it has."""

    def __init__(self, ends: Floats, filled: Floats, open_ratios: Floats) -> None:
        self._ends, self._filled, self._open = ends, filled, open_ratios

    @property
    def top(self) -> float:
        """The level from which the class gives no more."""
        return float(self._ends[-1]) if len(self._ends) else 0.0

    def at(self, level: float) -> float:
        place = int(np.searchsorted(self._ends, level, side="right"))
        return float(self._filled[place]) + level * float(self._open[place])

    def slope(self, level: float) -> float:
        return float(self._open[int(np.searchsorted(self._ends, level, side="right"))])


@dataclass(frozen=True)
class Classes:
    """Classes of strata, numbered by their first stratum."""

    steps: Steps
    strata: I64  # one stratum of each class
    allowed: Bools
    verified: Bools
    ratios: Floats
    curves: list[Curve]
    _members: I64  # the stratum of every merged step, class after class
    _starts: I64
    _apart: Bools

    def counts(self, taken: Sequence[int], strata: int) -> I64:
        """Steps of each stratum, given steps of each class."""
        chosen = np.array(taken, np.int64).reshape(len(self.strata))
        merged = np.where(self._apart, 0, chosen)
        steps = np.repeat(self._starts[:-1] - (np.cumsum(merged) - merged), merged) + np.arange(int(merged.sum()))
        found = np.bincount(self._members[steps], minlength=strata).astype(np.int64)
        found[self.strata[self._apart]] = chosen[self._apart]
        return found


def classify(supply: Supply, demand: Demand, active: Sequence[Bools], limits: I64 | None) -> Classes:
    """Merge strata that no active group of any rule tells apart. `limits` are the most steps of each stratum."""
    class_of, count = _numbered(_signature(supply, demand, active))
    capacity = supply.capacity if limits is None else supply.amounts(np.minimum(limits, supply.steps))
    capacity = np.where(demand.allowed, capacity, 0)
    apart = _apart(supply, class_of, count, capacity)
    if limits is not None:
        apart &= limits >= supply.steps
    # A stratum apart gets a number of its own, beyond those of the merged ones.
    class_of, count = _numbered(np.where(apart, count + np.arange(len(class_of)), class_of))
    first = np.full(count, len(class_of), np.int64)
    np.minimum.at(first, class_of, np.arange(len(class_of)))

    cell, member = _merged_steps(supply, class_of, apart, limits)
    class_of_step = class_of[member]
    starts = np.searchsorted(class_of_step, np.arange(count + 1))
    copies = np.where(apart[first], supply.copies[first], 1)
    ratios = np.zeros(count)
    np.add.at(ratios, class_of, supply.ratios)
    return Classes(
        steps=Steps(supply.measures[cell], starts, copies.tolist()),
        strata=first,
        allowed=demand.allowed[first],
        verified=supply.verified[first],
        ratios=ratios,
        curves=_curves(class_of, count, capacity, supply.ratios),
        _members=member,
        _starts=starts,
        _apart=apart[first],
    )


def cut(supply: Supply, of: Bools, group: I64, most: I64, limits: I64) -> I64:
    """The most steps of each stratum with which each group takes at most so much of the strata in `of`."""
    cell, stratum = _merged_steps(supply, group, ~of, limits)
    mine = of[stratum]
    cell, stratum = cell[mine], stratum[mine]
    groups = group[stratum]
    running = np.cumsum(supply.measures[cell])
    starts = np.searchsorted(groups, np.arange(len(most) + 1))
    before = np.concatenate([[0], running])[starts[:-1]]
    kept = running - before[groups] <= most[groups]
    return np.where(of, np.bincount(stratum[kept], minlength=len(of)), limits)


def _numbered(codes: I64) -> tuple[I64, int]:
    """Codes numbered in the order in which they first appear."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse], len(first)


def _signature(supply: Supply, demand: Demand, active: Sequence[Bools]) -> I64:
    codes = supply.verified.astype(np.int64) * 2 + demand.allowed
    for ruling, groups in zip(demand.rulings, active, strict=True):
        group = np.where((ruling.held & groups)[ruling.group], ruling.group + 1, 0)
        code = np.where(ruling.of, group, 0) if ruling.of_whole else group * 2 + (ruling.of & (group > 0))
        _, codes = np.unique(codes * (int(code.max(initial=0)) + 1) + code, return_inverse=True)
    return np.asarray(codes, np.int64)


def _apart(supply: Supply, class_of: I64, count: int, capacity: I64) -> Bools:
    strata = len(class_of)
    if strata <= APART:
        return np.ones(strata, np.bool_)
    whole = np.zeros(count, np.int64)
    np.add.at(whole, class_of, capacity)
    largest = np.zeros(strata, np.int64)
    np.maximum.at(largest, supply.stratum, supply.measures)
    return np.asarray(largest > whole[class_of] // LARGE_STEP)


def _merged_steps(supply: Supply, class_of: I64, apart: Bools, limits: I64 | None) -> tuple[I64, I64]:
    """(cell, stratum) of every step, class after class; of strata apart their cells, once."""
    times = np.where(apart, 1, supply.copies)[supply.stratum]
    if int(times.sum()) > MOST_STEPS:
        raise ValueError(
            f"buckets and their repeats come to {int(times.sum())} steps; at most {MOST_STEPS} can be planned: "
            "lower epochs"
        )
    cell = np.repeat(np.arange(len(supply.stratum)), times)
    copy = np.arange(len(cell)) - np.repeat(np.cumsum(times) - times, times)
    stratum = supply.stratum[cell]
    place = copy * supply.cells[stratum] + cell - supply.starts[stratum]
    if limits is not None:
        kept = apart[stratum] | (place < limits[stratum])
        cell, copy, stratum, place = cell[kept], copy[kept], stratum[kept], place[kept]
    before = np.concatenate([[0], np.cumsum(supply.measures)])[:-1]
    amount = before[cell] - before[np.minimum(supply.starts[stratum], len(before) - 1)] + copy * supply.once[stratum]
    ratios = np.where(apart, 0.0, supply.ratios)[stratum]
    level = np.divide(amount.astype(np.float64), ratios, out=np.zeros(len(cell)), where=ratios > 0)
    order = np.lexsort((place, stratum, level, class_of[stratum]))
    return cell[order], stratum[order]


def _curves(class_of: I64, count: int, capacity: I64, ratios: Floats) -> list[Curve]:
    used = np.flatnonzero((capacity > 0) & (ratios > 0))
    ends = capacity[used] / ratios[used]
    order = np.lexsort((ends, class_of[used]))
    used, ends = used[order], ends[order]
    bounds = np.searchsorted(class_of[used], np.arange(count + 1)).tolist()
    curves = []
    for start, stop in pairwise(bounds):
        mine = used[start:stop]
        filled = np.concatenate([[0.0], np.cumsum(capacity[mine].astype(np.float64))])
        still = np.concatenate([np.cumsum(ratios[mine][::-1])[::-1], [0.0]])
        curves.append(Curve(ends[start:stop], filled, still))
    return curves
