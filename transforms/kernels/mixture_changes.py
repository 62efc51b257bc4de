"""The smallest change of one rule, or of the size, that lets a mix exist: found by planning, so it is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

from transforms.kernels.mixture_demand import rule_name
from transforms.kernels.mixture_rules import MixtureParams, Rule

STEPS = 10_000
"""Shares are told in steps of a ten-thousandth, amounts in ten-thousandths of what is asked."""

MOST_RULES = 8
MOST_STRATA = 5000
"""Of more strata a plan takes too long to be made dozens of times for an error message."""

MayBe = Callable[[MixtureParams], bool]
"""Whether a mix under settings may exist: a bound, which is quick to tell."""

SizeOf = Callable[[MixtureParams], int | None]
"""The size of the mix under settings, by planning it; None where there is none."""


def smallest_changes(params: MixtureParams, may_be: MayBe, size_of: SizeOf) -> Iterator[dict[str, Any]]:
    """For every rule that could give way alone, and for the size: the value nearest to what is asked with which a mix
    exists."""
    for kind, name in (("floor", "floors"), ("cap", "caps")):
        rules: tuple[Rule, ...] = getattr(params, name)
        for place, rule in enumerate(rules[:MOST_RULES]):

            def asked(steps: int, kind: str = kind, name: str = name, place: int = place) -> MixtureParams:
                kept: tuple[Rule, ...] = getattr(params, name)
                changed = (*kept[:place], _loosened(kind, kept[place], steps), *kept[place + 1 :])
                return replace(params, floors=changed) if name == "floors" else replace(params, caps=changed)

            if asked(STEPS) == params:
                continue
            found = _first(asked, may_be, size_of)
            if found is not None:
                steps, size = found
                value = _plainly(_loosened(kind, rule, steps))
                yield {"rule": rule_name(kind, rule, None) + _by(rule), "to": value, "size": size}
    if params.size is not None:
        larger = _larger_size(params.size, lambda asked: size_of(replace(params, size=asked)))
        if larger is not None:
            yield {"rule": f"size {params.size}", "to": larger[0], "size": larger[1]}


def _first(asked: Callable[[int], MixtureParams], may_be: MayBe, size_of: SizeOf) -> tuple[int, int] | None:
    """How many steps a rule has to give way, 1 to STEPS, and the size of the mix then."""
    if not may_be(asked(STEPS)):
        return None
    low, high = 0, STEPS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if may_be(asked(middle)) else (middle, high)
    # Where documents are few and large, none may exist as soon as a bound allows one.
    size = None
    for high in sorted({high, min(high + 1, STEPS), STEPS}):  # noqa: B020
        size = size_of(asked(high))
        if size is not None:
            break
        low = high
    if size is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        found = size_of(asked(middle))
        low, high, size = (middle, high, size) if found is None else (low, middle, found)
    return high, size


def _larger_size(asked: int, size_of: Callable[[int | None], int | None]) -> tuple[int, int] | None:
    """The smallest size above `asked` with which a mix exists, to a ten-thousandth, and the size of that mix."""
    reached = size_of(None)
    if reached is None or reached <= asked:
        return None
    low, high = asked, reached
    while high - low > max(1, high // STEPS):
        # What is asked may be orders of magnitude too small: halve those first.
        middle = math.isqrt(low * high) if high > 2 * low + 2 else (low + high) // 2
        found = size_of(middle)
        low, high, reached = (middle, high, reached) if found is None else (low, middle, found)
    return high, reached


def _by(rule: Rule) -> str:
    return f" by {rule.by}" if rule.by else ""


def _plainly(rule: Rule) -> str | int:
    """The value as a config writes it."""
    if rule.share is None:
        return rule.amount or 0
    tenthousandths = int(rule.share * STEPS)
    return f"{tenthousandths // STEPS}.{tenthousandths % STEPS:04d}".rstrip("0").rstrip(".")


def _loosened(kind: str, rule: Rule, steps: int) -> Rule:
    """The rule given way by so many steps of the whole way; shares come in decimals of four digits."""
    if rule.share is None:
        amount = rule.amount or 0
        given = amount * steps // STEPS if kind == "floor" else max(amount, 1) * steps
        return replace(rule, amount=amount - given if kind == "floor" else amount + given)
    if kind == "floor":
        least = rule.share * (STEPS - steps)
        return replace(rule, share=Fraction(int(least), STEPS))
    most = rule.share * STEPS + (1 - rule.share) * steps
    return replace(rule, share=Fraction(-int(-most // 1), STEPS))
