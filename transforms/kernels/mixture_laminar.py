"""Rules whose sets are nested or apart, solved without a solver: the largest mix as an exact fraction, then levels.

Sets of classes that never overlap in part form a tree, whose root is the mix. At a size T every rule is a bound on
what one node holds, and what a node can hold follows from its children:

    least(node) = max(own floors at T, sum of least(children))
    most(node)  = min(own caps at T, sum of most(children))

T is feasible if least <= most everywhere and T lies between those of the root. `least` is convex in T and `most`
concave, and both are made of lines with rational slopes, so stepping from T to the zero of a line that is violated
there ends at the largest T exactly. For that T one level rises under all classes; a node that meets a bound stops
there, and has a level of its own below it: the mix nearest to proportional (in the sense of Kullback and Leibler,
and of the most even levels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from transforms.kernels.mixture_classes import Curve
from transforms.kernels.mixture_demand import Constraint
from transforms.kernels.mixture_rules import Bools

Floats = npt.NDArray[np.float64]
Line = tuple[Fraction, Fraction]
"""Slope and constant of an amount as a function of the size of the mix."""

NOTHING: Line = (Fraction(0), Fraction(0))
WHOLE: Line = (Fraction(1), Fraction(0))

BISECTIONS = 200
"""Halvings until a level is one of two neighbouring floats, from any start."""


@dataclass
class _Node:
    mask: Bools
    floors: list[Line] = field(default_factory=list)
    caps: list[Line] = field(default_factory=list)
    children: list[_Node] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)  # those in no child
    least: Line = NOTHING
    most: Line = NOTHING
    low: float = 0.0  # `least` and `most` at the size that is filled
    high: float = 0.0


class Laminar:
    """The tree of the rules, for classes with these capacities."""

    def __init__(self, root: _Node, capacity: Sequence[int]) -> None:
        self._root = root
        self._capacity = capacity

    @classmethod
    def of(cls, constraints: Sequence[Constraint], capacity: Sequence[int], first: Bools) -> Laminar | None:
        """The tree of these rules, or None where sets cross or a rule compares with a part of the mix.

        `first` is a set that has to be a node too.
        """
        holds = np.array([c > 0 for c in capacity], np.bool_)
        root = _Node(holds)
        nodes = {holds.tobytes(): root}
        for constraint in constraints:
            if constraint.share is not None and not (constraint.base | ~holds).all():
                return None
            mask = constraint.of & holds
            node = nodes.setdefault(mask.tobytes(), _Node(mask))
            bound = constraint.bound if constraint.kind == "floor" else -constraint.bound
            line = (Fraction(0), Fraction(bound)) if constraint.share is None else (constraint.share, Fraction(0))
            (node.floors if constraint.kind == "floor" else node.caps).append(line)
        nodes.setdefault((first & holds).tobytes(), _Node(first & holds))
        owner: list[_Node] = [root] * len(capacity)
        for node in sorted(nodes.values(), key=lambda node: -int(node.mask.sum())):
            if node is root:
                continue
            members = np.flatnonzero(node.mask).tolist()
            parents = {id(owner[c]) for c in members}
            if len(parents) > 1:
                return None
            (owner[members[0]] if members else root).children.append(node)
            for c in members:
                owner[c] = node
        for c in np.flatnonzero(holds).tolist():
            owner[c].classes.append(c)
        return cls(root, capacity)

    def largest(self) -> Fraction | None:
        """The largest size of a mix, exactly; None where the rules contradict each other at any size."""
        size = Fraction(sum(self._capacity))
        while True:
            gaps: list[Line] = []
            self._bound(self._root, size, gaps)
            broken = [(slope, constant) for slope, constant in gaps if slope * size + constant < 0]
            if not broken:
                return size
            # A gap is concave in the size: where its line rises with the size, smaller mixes break it even more.
            if any(slope >= 0 for slope, _ in broken):
                return None
            size = min(-constant / slope for slope, constant in broken)
            if size < 0:
                return None

    def proportional(self, curves: Sequence[Curve], size: Fraction, first: Bools) -> Floats:
        """The amount of each class in a mix of `size`, as near to proportional as the rules allow.

        The classes in `first` are taken as far as the size allows before levels are compared.
        """
        self._bound(self._root, size, [])
        first = first & self._root.mask
        if first.any():
            self._prefer(self._root, size, first)
            self._bound(self._root, size, [])
        self._settle(self._root, size)
        amounts = np.zeros(len(self._capacity))
        self._fill(self._root, float(size), curves, amounts)
        return amounts

    def _bound(self, node: _Node, size: Fraction, gaps: list[Line]) -> None:
        """What each node holds at least and at most at `size`, as the lines that hold there, and what must be >= 0."""
        least, most = NOTHING, (Fraction(0), Fraction(sum(self._capacity[c] for c in node.classes)))
        for child in node.children:
            self._bound(child, size, gaps)
            least, most = _plus(least, child.least), _plus(most, child.most)
        node.least = max([least, *node.floors], key=lambda line: line[0] * size + line[1])
        node.most = min([most, *node.caps], key=lambda line: line[0] * size + line[1])
        gaps.append(_minus(node.most, node.least))
        if node is self._root:
            gaps += [_minus(node.most, WHOLE), _minus(WHOLE, node.least)]

    def _prefer(self, node: _Node, size: Fraction, first: Bools) -> None:
        """Fix the node of `first` at the most it can hold beside the least of everything else."""
        room = size
        while not np.array_equal(node.mask, first):
            child = next(c for c in node.children if (c.mask & first).any())
            others = sum((_at(c.least, size) for c in node.children if c is not child), Fraction(0))
            node, room = child, min(_at(child.most, size), room - others)
        if node is not self._root:
            node.floors.append((Fraction(0), room))
            node.caps.append((Fraction(0), room))

    def _settle(self, node: _Node, size: Fraction) -> None:
        node.low, node.high = float(_at(node.least, size)), float(_at(node.most, size))
        for child in node.children:
            self._settle(child, size)

    def _fill(self, node: _Node, amount: float, curves: Sequence[Curve], amounts: Floats) -> None:
        """Find the level at which the parts of a node hold `amount`, and go on with each part."""
        low, high = 0.0, max((curves[c].top for c in np.flatnonzero(node.mask).tolist()), default=0.0)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if not low < middle < high:
                break
            low, high = (low, middle) if self._parts(node, middle, curves) >= amount else (middle, high)
        for c in node.classes:
            amounts[c] = curves[c].at(high)
        for child in node.children:
            self._fill(child, self._held(child, high, curves), curves, amounts)

    def _parts(self, node: _Node, level: float, curves: Sequence[Curve]) -> float:
        held = sum(curves[c].at(level) for c in node.classes)
        return held + sum(self._held(child, level, curves) for child in node.children)

    def _held(self, node: _Node, level: float, curves: Sequence[Curve]) -> float:
        return min(max(self._parts(node, level, curves), node.low), node.high)


def _at(line: Line, size: Fraction) -> Fraction:
    return line[0] * size + line[1]


def _plus(one: Line, other: Line) -> Line:
    return one[0] + other[0], one[1] + other[1]


def _minus(one: Line, other: Line) -> Line:
    return one[0] - other[0], one[1] - other[1]
