"""From levels to whole buckets: exact integers have the last word on every rule.

A class is taken as a prefix of its steps: buckets in order, once per copy. Targets are rounded down to steps,
then repaired: each move adds or drops one step of one stratum and must lower the summed violation, and their number
is bounded, so it ends. Then steps are added, lowest level first, until none fits: what is missing to the largest
total the rules allow is less than one step a class. Where single moves get stuck, or documents are so few that one
step is a good part of the mix, the steps around the targets become a small integer program; its answer counts only
if the integers agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from transforms.kernels.mixture_demand import Constraint
from transforms.kernels.mixture_rules import Bools, Objects

Floats = npt.NDArray[np.float64]

SNAP = 1e-7
"""Targets within this part of a step's end mean that end: solvers stop a little short."""

LOSS = 0.05
"""A tiny mix that rounding makes smaller than its targets by more than this part is searched for a larger one."""

FIRST_BONUS = 1.05
"""Strata that come first outweigh others of a little more size in the integer program."""

FEW = 64
"""Up to this many strata are filled in the exact order of their levels."""

SEARCH_STEPS = 1200
"""Size of the integer program: all steps of a tiny mix, the nearest ones of a large mix."""

QUICK_STEPS = 128
"""All steps of a mix for which the integer program takes no time to speak of."""


class Steps:
    """Prefix totals of each stratum's cells, repeated for every copy."""

    def __init__(self, measures: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], copies: Sequence[int]) -> None:
        self._before = np.concatenate([np.zeros(1, np.int64), np.cumsum(measures)])
        self._starts = starts.tolist()
        self._cells = np.diff(starts).tolist()
        self._pass = [int(t) for t in self._before[starts[1:]] - self._before[starts[:-1]]]
        self.counts = [cells * times for cells, times in zip(self._cells, copies, strict=True)]
        self.capacity = [once * times for once, times in zip(self._pass, copies, strict=True)]

    def total(self, stratum: int, count: int) -> int:
        """What the first `count` steps measure."""
        if not self._cells[stratum]:
            return 0
        copies, rest = divmod(count, self._cells[stratum])
        start = self._starts[stratum]
        return copies * self._pass[stratum] + int(self._before[start + rest] - self._before[start])

    def within(self, stratum: int, amount: int) -> int:
        """The longest prefix of at most `amount`; of a stratum that measures nothing, all of it."""
        if amount >= self.capacity[stratum]:
            return self.counts[stratum]
        if amount <= 0:
            return 0
        copies, rest = divmod(amount, self._pass[stratum])
        start, cells = self._starts[stratum], self._cells[stratum]
        table = self._before[start : start + cells + 1]
        return copies * cells + int(np.searchsorted(table, table[0] + rest, side="right")) - 1

    def up(self, stratum: int, count: int) -> int:
        """The next longer prefix that measures more; the same where there is none."""
        taken = self.total(stratum, count)
        if taken >= self.capacity[stratum]:
            return count
        return self.within(
            stratum, self.total(stratum, self.within(stratum, taken) + 1 if taken else self._lead(stratum))
        )

    def _lead(self, stratum: int) -> int:
        """Steps up to the first that measures anything."""
        start, cells = self._starts[stratum], self._cells[stratum]
        table = self._before[start : start + cells + 1]
        return int(np.searchsorted(table, table[0], side="right"))

    def down(self, stratum: int, count: int) -> int:
        """The next shorter prefix that measures less; none of a stratum that measures nothing."""
        return self.within(stratum, self.total(stratum, count) - 1) if self.capacity[stratum] else 0


class Selection:
    """How many steps of each stratum are taken, with the exact value of every constraint kept up to date."""

    def __init__(self, steps: Steps, constraints: Sequence[Constraint], counts: Sequence[int], allowed: Bools) -> None:
        strata = len(counts)
        self._steps = steps
        self._allowed = allowed
        self._matrix: Objects = np.array([c.coefficients for c in constraints], object).reshape(-1, strata)
        capacity = np.array(steps.capacity, object)
        scale = np.abs(self._matrix * capacity).max(axis=1, initial=1)
        self._scale: Objects = scale
        self._scaled = (self._matrix / scale[:, None]).astype(np.float64)
        self.counts = [count if ok else 0 for count, ok in zip(counts, allowed, strict=True)]
        self.taken: Objects = np.array([steps.total(s, k) for s, k in enumerate(self.counts)], object)
        bounds = np.array([c.bound for c in constraints], object)
        self.values: Objects = (self._matrix * self.taken).sum(axis=1) - bounds if len(bounds) else bounds
        self._next = [0] * strata
        self._previous = [0] * strata
        self._gain, self._loss = np.zeros(strata), np.zeros(strata)
        for stratum in range(strata):
            self._look_around(stratum)

    def _look_around(self, stratum: int) -> None:
        count, taken = self.counts[stratum], self.taken[stratum]
        self._next[stratum] = self._steps.up(stratum, count)
        self._previous[stratum] = self._steps.down(stratum, count) if taken else count
        gain = self._steps.total(stratum, self._next[stratum]) - taken
        self._gain[stratum] = float(gain) if self._allowed[stratum] else 0.0
        self._loss[stratum] = float(taken - self._steps.total(stratum, self._previous[stratum]))

    def move(self, stratum: int, count: int) -> None:
        taken = self._steps.total(stratum, count)
        self.values = self.values + self._matrix[:, stratum] * (taken - self.taken[stratum])
        self.counts[stratum], self.taken[stratum] = count, taken
        self._look_around(stratum)

    @property
    def holds(self) -> bool:
        return all(value >= 0 for value in self.values)

    def _standing(self) -> Floats:
        """Values on a common scale for ranking moves; what exact integers call broken stays broken."""
        standing = (self.values / self._scale).astype(np.float64)
        broken = np.array([value < 0 for value in self.values], np.bool_)
        return np.where(broken, np.minimum(standing, -1e-12), standing)

    def repair(self) -> bool:
        strata = len(self.counts)
        for _ in range(8 * strata + 64):
            if self.holds:
                return True
            standing = self._standing()[:, None]
            after = np.concatenate([standing + self._scaled * self._gain, standing - self._scaled * self._loss], axis=1)
            broken = np.maximum(0, -after).sum(axis=0)
            broken[np.concatenate([self._gain, self._loss]) == 0] = np.inf
            best = int(np.argmin(broken))
            if not broken[best] < np.maximum(0, -standing).sum() * (1 - 1e-12):
                return False
            stratum = best % strata
            self.move(stratum, self._next[stratum] if best < strata else self._previous[stratum])
        return self.holds

    def fill(self, ratios: Floats, first: Bools) -> None:
        """Add steps while any fits: those of `first` before others, then the lowest level."""
        level = np.divide(self.taken.astype(np.float64), ratios, out=np.full(len(ratios), np.inf), where=ratios > 0)
        # Few strata go step by step. Many go in rounds of one step each: the look at all of them is what costs.
        most = 1 if len(ratios) <= FEW else len(ratios)
        for _ in range((16 * len(ratios) + 1024) // most + 16):
            after = self._standing()[:, None] + self._scaled * self._gain
            fits = (self._gain > 0) & (after >= -1e-9).all(axis=0)
            moved = 0
            for stratum in sorted(np.flatnonzero(fits).tolist(), key=lambda s: (not first[s], level[s])):
                gain = self._steps.total(stratum, self._next[stratum]) - self.taken[stratum]
                if all(value >= 0 for value in self.values + self._matrix[:, stratum] * gain):
                    self.move(stratum, self._next[stratum])
                    level[stratum] = float(self.taken[stratum]) / ratios[stratum] if ratios[stratum] > 0 else np.inf
                    moved += 1
                    if moved == most:
                        break
            if not moved:
                return

    def presses(self, constraint: Constraint) -> bool:
        """Whether it keeps the next step of some stratum out or, as a least amount, the last one in."""
        value = sum(constraint.coefficients * self.taken) - constraint.bound
        for stratum, coefficient in enumerate(constraint.coefficients):
            step = self._previous[stratum] if constraint.is_amount_floor else self._next[stratum]
            change = self._steps.total(stratum, step) - self.taken[stratum]
            if change and value + coefficient * change < 0:
                return True
        return False


def settle(
    steps: Steps,
    constraints: Sequence[Constraint],
    targets: Floats,
    ratios: Floats,
    allowed: Bools,
    first: Bools,
    needed: Bools,
    quick: bool = False,
) -> Selection | None:
    """Whole steps near `targets` that hold every constraint and take something of `needed`; None if none is found.

    What is found with `quick` is found without it, and not the other way round: it leaves out long searches.
    """

    def finish(counts: Sequence[int]) -> Selection | None:
        selection = Selection(steps, constraints, counts, allowed)
        if not selection.repair():
            return None
        selection.fill(ratios, first)
        return selection if selection.taken[needed].sum() > 0 else None

    counts = [
        steps.within(s, steps.capacity[s] if target >= steps.capacity[s] * (1 - SNAP) else int(target * (1 + SNAP)))
        for s, target in enumerate(targets.tolist())
    ]
    near = finish(counts)
    together = sum(count for count, ok in zip(steps.counts, allowed, strict=True) if ok)
    lossy = near is not None and near.taken.sum() < float(targets.sum()) * (1 - LOSS)
    if near is not None and not (lossy and together <= SEARCH_STEPS):
        return near
    if quick and together > QUICK_STEPS:
        return near
    found = _search(steps, constraints, counts, allowed, first, needed)
    searched = None if found is None else finish(found)
    if near is None or (searched is not None and searched.taken.sum() > near.taken.sum()):
        return searched
    return near


def _search(
    steps: Steps,
    constraints: Sequence[Constraint],
    counts: Sequence[int],
    allowed: Bools,
    first: Bools,
    needed: Bools,
) -> list[int] | None:
    """The largest mix among prefixes near `counts`, by integer programming."""
    from scipy import sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    open_strata = [s for s in np.flatnonzero(allowed).tolist() if steps.counts[s]]
    if not open_strata:
        return None
    radius = _radius([steps.counts[s] for s in open_strata])
    lowest = {s: max(0, min(counts[s] - radius, steps.counts[s] - 2 * radius)) for s in open_strata}
    owner: list[int] = []
    sizes: list[int] = []
    ordered: list[tuple[int, int]] = []
    for s in open_strata:
        ends = [steps.total(s, k) for k in range(lowest[s], min(steps.counts[s], lowest[s] + 2 * radius) + 1)]
        ordered += [(len(owner) + i, len(owner) + i + 1) for i in range(len(ends) - 2)]
        owner += [s] * (len(ends) - 1)
        sizes += [after - before for before, after in pairwise(ends)]
    base = np.array([steps.total(s, lowest[s]) if s in lowest else 0 for s in range(len(allowed))], object)
    least = min((size for s, size in zip(owner, sizes, strict=True) if needed[s] and size), default=1)
    rows, bounds = [], []
    for coefficients, bound in [
        *((c.coefficients, c.bound) for c in constraints),
        (np.where(needed, 1, 0).astype(object), least),
    ]:
        row = coefficients[owner] * np.array(sizes, object)
        scale = int(np.abs(row).max(initial=0)) or 1
        rows.append((row / scale).astype(np.float64))
        bounds.append(float((bound - (coefficients * base).sum()) / scale))
    limits = [LinearConstraint(np.array(rows), lb=np.array(bounds))]
    if ordered:
        pairs = np.array(ordered)
        at = np.repeat(np.arange(len(pairs)), 2)
        chain = sparse.csr_array((np.tile([1.0, -1.0], len(pairs)), (at, pairs.ravel())), (len(pairs), len(owner)))
        limits.append(LinearConstraint(chain, lb=0))
    gains = np.array(sizes, np.float64) * np.where(first[owner], FIRST_BONUS, 1.0)
    solved = milp(
        -gains / (gains.max() or 1.0),
        integrality=np.ones(len(owner)),
        bounds=Bounds(0, 1),
        constraints=limits,
        # A limit on time would make the answer depend on the machine.
        options={"node_limit": 2000, "mip_rel_gap": 0.005},
    )
    if solved.x is None:
        return None
    found = [lowest.get(s, 0) for s in range(len(allowed))]
    for s, chosen in zip(owner, np.round(solved.x).tolist(), strict=True):
        found[s] += int(chosen)
    return found


def _radius(counts: Sequence[int]) -> int:
    """Steps to look at on either side of a target so that all strata together stay within SEARCH_STEPS."""
    low, high = 1, max(counts)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(count, 2 * middle) for count in counts) <= SEARCH_STEPS:
            low = middle
        else:
            high = middle - 1
    return low
