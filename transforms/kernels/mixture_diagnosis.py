"""Why there is no such mix: what binds, what there is, what is missing, and the smallest change that helps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from transforms.kernels.mixture_demand import Constraint, some_of
from transforms.kernels.mixture_levels import TOLERANCE, Levels
from transforms.kernels.mixture_rules import VERIFIED, Bools, InfeasibleMixture, MixtureParams

CONFLICT_TOTAL = 1e-3
"""Part of all text in the mix that conflicting rules are tried on; the empty mix would satisfy all shares."""


def conflict_total(params: MixtureParams, capacity: Sequence[int]) -> float:
    """That part, or half of a smaller size: the size itself must be no reason for a conflict."""
    return CONFLICT_TOTAL if params.size is None else min(CONFLICT_TOTAL, params.size / 2 / max(1, sum(capacity)))


def diagnose(
    is_verified: Bools,
    capacity: Sequence[int],
    params: MixtureParams,
    constraints: Sequence[Constraint],
    feasible: int | None,
    left_out: Sequence[str] = (),
) -> InfeasibleMixture:
    """The error to raise.

    `feasible` is the largest mix found if only the size is out of reach, else None; `left_out` says what took
    verified text out of what can be chosen, if something did.
    """
    unit = params.measure
    whole = sum(capacity)
    verified = sum(c for c, counts in zip(capacity, is_verified.tolist(), strict=True) if counts)
    available = {"everything": whole, VERIFIED: verified}
    if params.human_floor > 0 and verified == 0 and left_out:
        return InfeasibleMixture(
            f"all verified human text is left out, and the floor asks for {params.human_floor} of the mix: "
            + "; ".join(left_out),
            binding=(f"floor {VERIFIED} {params.human_floor}",),
            available=available,
            missing=1,
            advice="Relax what leaves it out; of a rule with groups, or say otherwise: exempt there",
        )
    if params.human_floor > 0 and verified == 0:
        return InfeasibleMixture(
            f"there is no verified human text, and the floor asks for {params.human_floor} of the mix",
            binding=(f"floor {VERIFIED} {params.human_floor}",),
            available=available,
            missing=1,
            advice="Give a source custody: a manifest signed by a trusted key; belief does not count",
        )
    if whole == 0:
        return InfeasibleMixture(
            f"there is nothing to mix: no document survived, none measures any {unit}, or all weights are 0",
            available=available,
            missing=1,
            advice="Add text, or give a source that holds some a weight above 0",
        )
    for constraint in constraints:
        if constraint.kind == "floor" and constraint.rule.share and constraint.group is None:
            if _reach(constraint, capacity) > 0:
                continue
            return InfeasibleMixture(
                f"{constraint.name} cannot hold: there is no {constraint.rule.of} text",
                binding=(constraint.name,),
                available={**available, constraint.rule.of: 0},
                missing=1,
                advice=f"Add {constraint.rule.of} text, or leave the rule out",
            )
    if feasible is not None:
        return _size_out_of_reach(params, capacity, constraints, available, feasible)
    for constraint in constraints:
        reach = _reach(constraint, capacity)
        if constraint.is_amount_floor and reach < constraint.bound:
            return InfeasibleMixture(
                f"{constraint.name} asks for {constraint.bound} {unit} and there are {reach}",
                binding=(constraint.name,),
                available={**available, constraint.rule.of: reach},
                missing=constraint.bound - reach,
                advice=f"Lower the amount to {reach}, add text, or allow more epochs",
            )
    return _conflict(params, capacity, constraints, available)


def _reach(constraint: Constraint, capacity: Sequence[int]) -> int:
    return sum(capacity[s] for s in np.flatnonzero(constraint.of).tolist())


def _size_out_of_reach(
    params: MixtureParams,
    capacity: Sequence[int],
    constraints: Sequence[Constraint],
    available: dict[str, int],
    feasible: int,
) -> InfeasibleMixture:
    size, unit = params.size, params.measure
    assert size is not None
    rules = [c for c in constraints if c.kind != "size"]
    largest = Levels(rules, capacity).optimum()
    prices = np.zeros(len(rules)) if largest is None else largest.prices
    binding = [c for c, price in zip(rules, prices.tolist(), strict=False) if price > TOLERANCE]
    missing, advice = size - feasible, f"Ask for a size of at most {feasible}, or say if_short: shrink"
    for constraint in binding:
        available[constraint.rule.of] = reach = _reach(constraint, capacity)
        share = constraint.rule.share
        if share is None or not constraint.base.all() or available["everything"] < size:
            continue
        if constraint.kind == "floor":
            missing = -(-share.numerator * size // share.denominator) - reach
            change = f"lower the floor to {reach}/{size} ({reach / size:.4f})"
            lacking = constraint.rule.of
        else:
            rest = available["everything"] - reach
            missing = -(-(share.denominator - share.numerator) * size // share.denominator) - rest
            change = f"raise the cap to {size - rest}/{size} ({(size - rest) / size:.4f})"
            lacking = f"other than {constraint.rule.of}"
        if missing > 0:
            advice += f", add {missing} {unit} of text {lacking}, or {change}"
            break
    if available["everything"] < size:
        missing = size - available["everything"]
        advice += f", or add text: all there is comes to {available['everything']} {unit}"
    names = tuple(c.name for c in binding)
    because = f"; what binds: {', '.join(names)}" if names else ", all there is"
    return InfeasibleMixture(
        f"size {size} {unit} is out of reach: at most {feasible} are feasible{because}",
        binding=names or (f"size {size}",),
        available=available,
        missing=max(1, missing),
        feasible_size=feasible,
        advice=advice,
    )


def _conflict(
    params: MixtureParams, capacity: Sequence[int], constraints: Sequence[Constraint], available: dict[str, int]
) -> InfeasibleMixture:
    levels = Levels(constraints, capacity)
    unit = params.measure
    shortfalls = levels.shortfalls(np.ones(len(constraints), np.bool_), conflict_total(params, capacity))
    if shortfalls is None:
        shortfalls = np.zeros(len(constraints))
    short = [
        (c, shortfall)
        for c, shortfall, scale in zip(constraints, shortfalls.tolist(), levels.scales.tolist(), strict=True)
        if shortfall > scale * 1e-7
    ]
    if short:
        for constraint, _ in short:
            available[constraint.rule.of] = _reach(constraint, capacity)
        first = short[0][0]
        names = tuple(c.name for c, _ in short)
        others = some_of([c.name for c in constraints if c.name not in names]) or "what is available"
        # Shares that contradict each other do so at any size: only of amounts can some text be missing.
        missing = sum(math.ceil(shortfall) for c, shortfall in short if c.is_amount_floor)
        return InfeasibleMixture(
            f"the rules contradict each other: {some_of(names)} cannot hold together with {others}",
            binding=names,
            available=available,
            missing=missing,
            advice=f"Relax {first.name}" + (f" by {missing} {unit}" if missing else ""),
        )
    tight = tuple(c.name for c in constraints)
    return InfeasibleMixture(
        f"the rules leave room for parts of buckets only, and documents are not split: {some_of(tight)}",
        binding=tight,
        available=available,
        missing=1,
        advice=f"Raise the size or relax a rule by the {unit} of one bucket, or add smaller documents",
    )
