"""How much of each class a mix should hold, for rules whose sets cross: linear programs by SciPy's HiGHS.

First the largest total the rules allow, then shares as near to proportional as they allow: one water level is raised
under all classes until rules stop some of them; those are fixed, and the others go on. The answers are floats and only
guides: they say where to round, and integers decide. The answer is unique, so it does not depend on which of
several optimal corners a solver happens to visit.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from transforms.kernels.mixture_classes import Curve
from transforms.kernels.mixture_demand import Constraint
from transforms.kernels.mixture_laminar import Laminar
from transforms.kernels.mixture_rules import Bools

Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-9

MOST_RISES = 60
"""Linear programs for one rise of the level; each gets nearer to where it ends, mostly in three."""


class Solver(Protocol):
    """Finds the largest size under rules, and what to take of each class in a mix of a size."""

    def largest(self) -> Fraction | None: ...

    def proportional(self, curves: Sequence[Curve], size: Fraction, first: Bools) -> Floats: ...


def solver(constraints: Sequence[Constraint], capacity: Sequence[int], first: Bools) -> Solver:
    """Exact where the sets of the rules are nested or apart, else by linear programs."""
    return Laminar.of(constraints, capacity, first) or Levels(constraints, capacity)


class Optimum(NamedTuple):
    """Shares of capacity, the value reached, and the price of each row: how much relaxing it would gain."""

    shares: Floats
    value: float
    prices: Floats


class Levels:
    """The rules as a linear program over the taken share (0 to 1) of each class's capacity."""

    def __init__(self, constraints: Sequence[Constraint], capacity: Sequence[int]) -> None:
        self.capacity = np.array([float(c) for c in capacity])
        self.whole = float(sum(capacity)) or 1.0
        rows, bounds, scales = [], [], []
        for constraint in constraints:
            row = constraint.coefficients.astype(np.float64) * self.capacity
            # Rules of large and of tiny groups meet the solver's tolerance on the same scale.
            scale = float(np.abs(row).max(initial=0.0)) or 1.0
            rows.append(row / scale)
            bounds.append(constraint.bound / scale)
            scales.append(scale)
        self.rows = np.array(rows, np.float64).reshape(len(rows), len(self.capacity))
        self.bounds = np.array(bounds, np.float64)
        self.scales = np.array(scales, np.float64)

    def largest(self) -> Fraction | None:
        """The largest total; None if the rules contradict each other."""
        found = self.optimum()
        return None if found is None else Fraction(found.value) * Fraction(self.whole)

    def optimum(self) -> Optimum | None:
        """The mix of the largest total, in parts of the whole capacity."""
        return self._solve(self.capacity / self.whole, self.rows, self.bounds)

    def proportional(self, curves: Sequence[Curve], size: Fraction, first: Bools) -> Floats:
        """What to take of each class so that `size` is reached, at levels as even as the rules allow.

        The classes in `first` are taken as far as the size allows before levels are compared.
        """
        total = float(size) / self.whole
        part = self.capacity / self.whole
        rows, bounds = [self.rows, part[None]], [self.bounds, np.array([total * (1 - TOLERANCE)])]
        if first.any():
            preferred = self._solve(np.where(first, part, 0), np.concatenate(rows), np.concatenate(bounds))
            if preferred is not None:
                scale = float(part[first].max(initial=0.0)) or 1.0
                rows.append(np.where(first, part, 0)[None] / scale)
                bounds.append(np.array([preferred.value * (1 - TOLERANCE) / scale]))
        return self._fill(curves, np.concatenate(rows), np.concatenate(bounds)) * self.capacity

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

    def _fill(self, curves: Sequence[Curve], rows: Floats, bounds: Floats) -> Floats:
        """Raise the level under all classes, fix those that cannot rise, and repeat with the rest."""
        rising = [c for c in np.flatnonzero(self.capacity).tolist() if curves[c].top > 0]
        least = np.zeros(len(self.capacity))
        shares, level = least, 0.0
        while rising:
            raised: Optimum | None = None
            for _ in range(MOST_RISES):
                # Curves bend down, so a rise along their slopes never passes what the rules allow.
                slopes = np.array([curves[c].slope(level) for c in rising]) / self.capacity[rising]
                for c in rising:
                    least[c] = min(curves[c].at(level) / self.capacity[c], 1.0) * (1 - TOLERANCE)
                steepest = float(slopes.max(initial=0.0))
                if steepest == 0:
                    break
                found = self._rise(rows, bounds, least, rising, slopes / steepest)
                if found is None:
                    break
                raised, shares = found, found.shares[:-1]
                step = found.value / steepest
                level += step
                if found.value <= TOLERANCE or all(
                    curves[c].slope(level) == curves[c].slope(level - step) for c in rising
                ):
                    break
            full = np.array([curves[c].top <= level * (1 + TOLERANCE) for c in rising], np.bool_)
            stuck = full if raised is None else full | (raised.prices[len(rows) :] > TOLERANCE)
            if not stuck.any():
                stuck[:] = True
            for c in rising:
                least[c] = min(curves[c].at(level) / self.capacity[c], 1.0) * (1 - TOLERANCE)
            rising = [c for c, fixed in zip(rising, stuck.tolist(), strict=True) if not fixed]
        return shares

    def _rise(
        self, rows: Floats, bounds: Floats, least: Floats, rising: Sequence[int], slopes: Floats
    ) -> Optimum | None:
        """The furthest that the rising classes can go up from `least` along their slopes."""
        from scipy import sparse

        count, at = len(self.capacity), np.arange(len(rising))
        level_rows = sparse.csr_array(
            (
                np.concatenate([np.ones(len(rising)), -slopes]),
                (np.concatenate([at, at]), np.concatenate([rising, np.full(len(rising), count)])),
            ),
            (len(rising), count + 1),
        )
        padded = sparse.vstack([sparse.csr_array(np.pad(rows, ((0, 0), (0, 1)))), level_rows], format="csr")
        objective = np.append(np.zeros(count), 1.0)
        # The rows of rising classes are all that holds them up: a bound beside them could take over their price.
        lower = least.copy()
        lower[rising] = -1.0
        return self._solve(objective, padded, np.concatenate([bounds, least[rising]]), lower)

    def _solve(self, objective: Floats, rows: Any, bounds: Floats, least: Floats | None = None) -> Optimum | None:
        # SciPy takes a third of a second to import, and settings are read far more often than mixes are planned.
        from scipy.optimize import linprog

        lower = np.zeros(len(self.capacity)) if least is None else least
        limits: list[tuple[float, float | None]] = [
            (low, 1.0 if c else 0.0) for low, c in zip(lower, self.capacity, strict=True)
        ]
        limits += [(0.0, None)] * (len(objective) - len(limits))
        if len(bounds) == 0:
            rows, bounds = np.zeros((1, len(objective))), np.zeros(1)
        solved = linprog(-objective, A_ub=-rows, b_ub=-bounds, bounds=limits, method="highs")
        if solved.status != 0:
            return None
        return Optimum(np.asarray(solved.x), float(-solved.fun), -np.asarray(solved.ineqlin.marginals))
