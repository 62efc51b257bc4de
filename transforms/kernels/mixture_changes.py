"""The smallest change of a rule that lets a mix exist: found by planning, so what is told is what would happen."""

from __future__ import annotations

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

SizeOf = Callable[[MixtureParams], int | None]
"""The size of the mix under settings; None where there is none."""


def smallest_changes(params: MixtureParams, size_of: SizeOf) -> Iterator[dict[str, Any]]:
    """For every rule that could give way alone: the value nearest to what is asked with which a mix exists."""
    for kind, name in (("floor", "floors"), ("cap", "caps")):
        rules: tuple[Rule, ...] = getattr(params, name)
        for place, rule in enumerate(rules[:MOST_RULES]):

            def asked(value: Rule, place: int = place, name: str = name) -> MixtureParams:
                kept: tuple[Rule, ...] = getattr(params, name)
                changed = (*kept[:place], value, *kept[place + 1 :])
                return replace(params, floors=changed) if name == "floors" else replace(params, caps=changed)

            found = _nearest(kind, rule, lambda value, asked=asked: size_of(asked(value)))  # type: ignore[misc]
            if found is not None:
                value, size = found
                yield {"rule": rule_name(kind, rule, None) + _by(rule), "to": _plainly(value), "size": size}


def _by(rule: Rule) -> str:
    return f" by {rule.by}" if rule.by else ""


def _plainly(rule: Rule) -> str | int:
    """The value as a config writes it."""
    if rule.share is None:
        return rule.amount or 0
    tenthousandths = int(rule.share * STEPS)
    return f"{tenthousandths // STEPS}.{tenthousandths % STEPS:04d}".rstrip("0").rstrip(".")


def _nearest(kind: str, rule: Rule, size_of: Callable[[Rule], int | None]) -> tuple[Rule, int] | None:
    """Halve the way between what is asked and no rule at all until it is a step long."""
    best: tuple[Rule, int] | None = None
    low, high = 0, STEPS  # steps given way: `low` is too few
    loosest = _loosened(kind, rule, STEPS)
    if loosest == rule:
        return None
    size = size_of(loosest)
    if size is None:
        return None
    best = loosest, size
    while high - low > 1:
        middle = (low + high) // 2
        value = _loosened(kind, rule, middle)
        size = size_of(value)
        if size is None:
            low = middle
        else:
            best, high = (value, size), middle
    return best


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
