"""How much of each stratum a mix should hold: the largest total the rules allow, then shares as near to proportional.

The answers are floats and only guides: they say where to round, and integers decide. The proportional mix raises
one water level under all strata (the least ratio of what is taken to what weight and availability ask for) until
rules stop some of them, fixes those and goes on with the others. Its answer is unique, so it does not depend on which
of several optimal corners a solver happens to visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.kernels.mixture_rules import Bools, Constraint

Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-9


class Optimum(NamedTuple):
    """Shares of capacity, the value reached, and the price of each row: how much relaxing it would gain."""

    shares: Floats
    value: float
    prices: Floats


class Levels:
    """The rules as a linear program over the taken share (0 to 1) of each stratum's capacity."""

    def __init__(self, constraints: Sequence[Constraint], capacity: Sequence[int]) -> None:
        self.capacity = np.array([float(c) for c in capacity])
        self.whole = float(sum(capacity)) or 1.0
        rows, bounds, scales = [], [], []
        for constraint in constraints:
            row = np.array([float(c) for c in constraint.coefficients]) * self.capacity
            # Rules of large and of tiny groups meet the solver's tolerance on the same scale.
            scale = float(np.abs(row).max(initial=0.0)) or 1.0
            rows.append(row / scale)
            bounds.append(constraint.bound / scale)
            scales.append(scale)
        self.rows = np.array(rows, np.float64).reshape(len(rows), len(self.capacity))
        self.bounds = np.array(bounds, np.float64)
        self.scales = np.array(scales, np.float64)

    def largest(self) -> Optimum | None:
        """The largest total, in units of the whole capacity; None if the rules contradict each other."""
        return self._solve(self.capacity / self.whole, self.rows, self.bounds)

    def proportional(self, ratios: Floats, total: float, first: Bools) -> Floats:
        """What to take of each stratum so that `total` is reached, at levels in proportion to `ratios`.

        The strata in `first` are taken as far as the total allows before levels are compared.
        """
        part = self.capacity / self.whole
        rows, bounds = [self.rows, part[None]], [self.bounds, np.array([total * (1 - TOLERANCE)])]
        if first.any():
            preferred = self._solve(np.where(first, part, 0), np.concatenate(rows), np.concatenate(bounds))
            if preferred is not None:
                scale = float(part[first].max(initial=0.0)) or 1.0
                rows.append(np.where(first, part, 0)[None] / scale)
                bounds.append(np.array([preferred.value * (1 - TOLERANCE) / scale]))
        return self._fill(ratios, np.concatenate(rows), np.concatenate(bounds)) * self.capacity

    def shortfalls(self, soft: Bools, least_total: float) -> Floats | None:
        """How far each soft row must give way, in the rule's own unit, for a mix of `least_total` to exist."""
        from scipy.optimize import linprog

        count, extra = len(self.capacity), int(soft.sum())
        give = np.zeros((len(self.rows), extra))
        give[np.flatnonzero(soft), np.arange(extra)] = 1
        rows = np.block([[self.rows, give], [self.capacity[None] / self.whole, np.zeros((1, extra))]])
        bounds = np.append(self.bounds, least_total)
        costs = np.append(np.zeros(count), np.ones(extra))
        limits = [(0.0, 1.0 if c else 0.0) for c in self.capacity] + [(0.0, None)] * extra
        solved = linprog(costs, A_ub=-rows, b_ub=-bounds, bounds=limits, method="highs")
        if solved.status != 0:
            return None
        shortfalls = np.zeros(len(self.rows))
        shortfalls[soft] = solved.x[count:] * self.scales[soft]
        return shortfalls

    def _fill(self, ratios: Floats, rows: Floats, bounds: Floats) -> Floats:
        """Raise the level under all strata, fix those that cannot rise, and repeat with the rest."""
        open_strata = (self.capacity > 0) & (ratios > 0)
        least = np.zeros(len(self.capacity))
        slope = np.divide(ratios, self.capacity, out=np.zeros_like(ratios), where=self.capacity > 0)
        shares = least
        while open_strata.any():
            rising = np.flatnonzero(open_strata)
            tilt = slope[rising] / slope[rising].max()
            level_rows = np.zeros((len(rising), len(self.capacity) + 1))
            level_rows[np.arange(len(rising)), rising] = 1
            level_rows[:, -1] = -tilt
            padded = np.concatenate([np.pad(rows, ((0, 0), (0, 1))), level_rows])
            padded_bounds = np.concatenate([bounds, np.zeros(len(rising))])
            objective = np.append(np.zeros(len(self.capacity)), 1.0)
            raised = self._solve(objective, padded, padded_bounds, least)
            if raised is None:
                break
            shares = raised.shares[:-1]
            level = raised.value * tilt
            stuck = (raised.prices[len(rows) :] * tilt > TOLERANCE) | (level >= 1 - TOLERANCE)
            if not stuck.any():
                stuck[:] = True
            least[rising[stuck]] = np.minimum(level[stuck], 1.0) * (1 - TOLERANCE)
            open_strata[rising[stuck]] = False
        return shares

    def _solve(self, objective: Floats, rows: Floats, bounds: Floats, least: Floats | None = None) -> Optimum | None:
        # SciPy takes a third of a second to import, and settings are read far more often than mixes are planned.
        from scipy.optimize import linprog

        lower = np.zeros(len(self.capacity)) if least is None else least
        limits: list[tuple[float, float | None]] = [
            (low, 1.0 if c else 0.0) for low, c in zip(lower, self.capacity, strict=True)
        ]
        limits += [(0.0, None)] * (len(objective) - len(limits))
        if len(rows) == 0:
            rows, bounds = np.zeros((1, len(objective))), np.zeros(1)
        solved = linprog(-objective, A_ub=-rows, b_ub=-bounds, bounds=limits, method="highs")
        if solved.status != 0:
            return None
        return Optimum(np.asarray(solved.x), float(-solved.fun), -np.asarray(solved.ineqlin.marginals))
