"""What is asked of a mix: strata, rules and settings, and the exact linear constraints the rules stand for.

A constraint is `sum(coefficient[s] * taken[s]) >= bound` over the strata, in Python integers: a floor p/q on a set A
within a base B is `q*A - p*B >= 0`. Shares thus never meet a float where it matters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from transforms.kernels.schemas import Provenance

Objects = npt.NDArray[np.object_]
Bools = npt.NDArray[np.bool_]

MEASURES = ("tokens", "bytes", "documents")
VERIFIED = Provenance.HUMAN_VERIFIED.label
EVERYTHING = "everything"

_PROVENANCES = {provenance.label: provenance for provenance in Provenance}
_KINDS = ("rephrase", "generated")
_MAX_DENOMINATOR = 10**18


class InfeasibleMixture(Exception):
    """No mix satisfies the rules: which bind, what there is, what is missing and what would be feasible."""

    def __init__(
        self,
        message: str,
        binding: tuple[str, ...] = (),
        available: Mapping[str, int] | None = None,
        missing: int = 0,
        feasible_size: int = 0,
        advice: str = "",
    ) -> None:
        super().__init__(message, binding, available, missing, feasible_size, advice)
        self.message = message
        self.binding = binding
        self.available = dict(available or {})
        self.missing = missing
        self.feasible_size = feasible_size
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}. {self.advice}" if self.advice else self.message

    @property
    def details(self) -> dict[str, Any]:
        """The numbers behind the message, JSON-ready."""
        return {
            "binding": list(self.binding),
            "available": self.available,
            "missing": self.missing,
            "feasible_size": self.feasible_size,
            "advice": self.advice,
        }


@dataclass(frozen=True)
class Stratum:
    """Documents that mixing treats alike. `groups` holds the value of each further column a rule groups `by`."""

    source: str
    provenance: Provenance
    generator: str | None = None
    kind: str | None = None
    groups: tuple[tuple[str, str | None], ...] = ()

    @property
    def verified(self) -> bool:
        return self.provenance is Provenance.HUMAN_VERIFIED

    @property
    def identity(self) -> str:
        """One line that tells this stratum from every other, whatever their order."""
        groups = sorted([name, value] for name, value in self.groups)
        return json.dumps([self.source, self.provenance.label, self.generator, self.kind, groups])

    def value(self, column: str) -> str | None:
        """The value of the column that a rule groups by."""
        known = {**dict(self.groups), "source": self.source, "generator": self.generator}
        if column not in known:
            raise ValueError(
                f"a rule groups by {column!r}, which the strata do not tell apart; "
                f"they tell apart {', '.join(sorted(known))}"
            )
        return known[column]


@dataclass(frozen=True)
class Rule:
    """A least (as a floor) or greatest (as a cap) share or amount of what `of` names; exactly one of the two."""

    of: str
    share: Fraction | None = None
    amount: int | None = None
    by: str | None = None
    otherwise: str = "fail"

    def __post_init__(self) -> None:
        prefix, colon, name = self.of.partition(":")
        named = prefix in ("source", "generator") and bool(colon and name)
        if not named and self.of not in (*_PROVENANCES, *_KINDS, "human_any", EVERYTHING):
            raise ValueError(
                f"a rule is of {self.of!r}; valid are {', '.join(_PROVENANCES)}, human_any, "
                f"{', '.join(_KINDS)}, source:NAME and generator:NAME"
            )
        if (self.share is None) == (self.amount is None):
            raise ValueError(f"the rule of {self.of} has share {self.share} and amount {self.amount}; give exactly one")
        if self.share is not None:
            if isinstance(self.share, float):
                raise ValueError(f"the share of {self.of} is the float {self.share}; write it as text or a fraction")
            if not 0 <= self.share <= 1 or self.share.denominator > _MAX_DENOMINATOR:
                raise ValueError(f"the share of {self.of} is {self.share}; valid is 0 to 1 with at most 18 digits")
        if self.amount is not None and self.amount < 0:
            raise ValueError(f"the amount of {self.of} is {self.amount}; an amount is 0 or more")
        if self.otherwise not in ("fail", "drop", "exempt"):
            raise ValueError(f"otherwise is {self.otherwise!r}; valid are fail, drop and exempt")
        if self.otherwise != "fail" and self.by is None:
            raise ValueError(f"otherwise speaks of groups; the rule of {self.of} has no `by`")

    def covers(self, stratum: Stratum) -> bool:
        if self.of == EVERYTHING:
            return True
        if self.of == "human_any":
            return stratum.provenance in (Provenance.HUMAN_VERIFIED, Provenance.HUMAN)
        if self.of in _PROVENANCES:
            return stratum.provenance is _PROVENANCES[self.of]
        if self.of in _KINDS:
            return stratum.kind == self.of
        column, _, name = self.of.partition(":")
        return (stratum.source if column == "source" else stratum.generator) == name


@dataclass(frozen=True)
class MixtureParams:
    """Settings of the planner; amounts, sizes and shares count in `measure`."""

    measure: str = "tokens"
    size: int | None = None  # never exceeded; None takes all that the rules allow
    floors: tuple[Rule, ...] = ()
    caps: tuple[Rule, ...] = ()
    weights: Mapping[str, Fraction] = field(default_factory=dict)  # per source; multiplies what is available
    portions: Mapping[str, Fraction] | None = None  # per source: its share before rules, in place of what is available
    max_shares: Mapping[str, Fraction] = field(default_factory=dict)  # per source
    epochs: Mapping[str, int] = field(default_factory=dict)  # per provenance
    if_short: str = "fail"
    temperature: Fraction = Fraction(1)
    layout: str = "grow"
    shards: int | None = None
    shard_bytes: int = 256 << 20
    row_group: int = 8192
    seed: int = 0  # of the order in which buckets fill shards

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("measure", self.measure, MEASURES),
            ("if_short", self.if_short, ("fail", "shrink")),
            ("layout", self.layout, ("grow", "strict")),
        ):
            if value not in valid:
                raise ValueError(f"{name} is {value!r}; valid are {', '.join(valid)}")
        for name, number in (
            ("size", self.size),
            ("shards", self.shards),
            ("shard_bytes", self.shard_bytes),
            ("row_group", self.row_group),
            *((f"epochs of {label}", epochs) for label, epochs in self.epochs.items()),
        ):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; the least is 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it lies above 0")
        for source, weight in (*self.weights.items(), *(self.portions or {}).items()):
            if weight < 0:
                raise ValueError(f"the weight of {source} is {weight}; the least is 0, which leaves the source out")
        for label in self.epochs:
            if label not in _PROVENANCES:
                raise ValueError(f"epochs of {label!r}; valid are {', '.join(_PROVENANCES)}")

    @property
    def human_floor(self) -> Fraction:
        """The share of verified human text that every shard, row group and prefix holds."""
        shares = (r.share for r in self.floors if r.of == VERIFIED and r.by is None and r.share is not None)
        return max(shares, default=Fraction(0))

    def pull(self, source: str) -> Fraction:
        """What multiplies a source's part of the mix before rules; 0 leaves it out."""
        portion = Fraction(1) if self.portions is None else self.portions.get(source, Fraction(0))
        return self.weights.get(source, Fraction(1)) * portion

    def canonical(self) -> str:
        """Equal for settings of equal meaning; part of a plan's digest."""
        plain: dict[str, Any] = dict(vars(self))
        for rules in ("floors", "caps"):
            plain[rules] = [[r.of, str(r.share), r.amount, r.by, r.otherwise] for r in plain[rules]]
        for shares in ("weights", "max_shares", "portions"):
            plain[shares] = plain[shares] and {name: str(share) for name, share in plain[shares].items()}
        plain["epochs"] = dict(self.epochs)
        plain["temperature"] = str(self.temperature)
        return json.dumps(plain, sort_keys=True)


class Constraint(NamedTuple):
    """One rule, for one group of a rule with `by`, as `sum(coefficients * taken) >= bound`."""

    name: str
    kind: str  # floor | cap | size
    rule: Rule
    group: str | None
    of: Bools
    base: Bools
    coefficients: Objects
    bound: int

    @property
    def is_amount_floor(self) -> bool:
        return self.kind == "floor" and self.rule.amount is not None


class Demand(NamedTuple):
    """The constraints, which strata may be taken at all, and what was decided on the way."""

    constraints: tuple[Constraint, ...]
    allowed: Bools
    notes: tuple[str, ...]
    exempt: tuple[tuple[Rule, str], ...]  # groups that a rule lets off


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
    return Constraint(_name(kind, rule, group), kind, rule, group, of, base, coefficients, bound)


def with_margin(constraint: Constraint) -> Constraint:
    """The floor p/q on A against the rest N with a thousandth to spare: p*N*1000 <= (q-p)*A*999."""
    share = constraint.rule.share
    assert share is not None
    p, q = share.numerator, share.denominator
    part = np.where(constraint.of, 1, 0).astype(object)
    rest = np.where(constraint.base & ~constraint.of, 1, 0).astype(object)
    return constraint._replace(coefficients=(q - p) * 999 * part - p * 1000 * rest)


def demand(strata: Sequence[Stratum], capacity: Sequence[int], params: MixtureParams) -> Demand:
    """Turn rules into constraints; `capacity` is the most of each stratum that epochs allow."""
    count = len(strata)
    everything = np.ones(count, np.bool_)
    allowed = np.array([params.pull(s.source) > 0 for s in strata], np.bool_).reshape(count)
    rules = [("floor", rule) for rule in params.floors] + [("cap", rule) for rule in params.caps]
    rules += [("cap", Rule(f"source:{name}", share)) for name, share in sorted(params.max_shares.items())]
    if params.size is not None:
        rules.append(("size", Rule(EVERYTHING, amount=params.size)))
    constraints: list[Constraint] = []
    notes: list[str] = []
    exempt: list[tuple[Rule, str]] = []
    for kind, rule in rules:
        for group, of, base in _groups(rule, strata, everything):
            constraint = constrain(kind, rule, group, of, base)
            reach = sum(capacity[s] for s in np.flatnonzero(of & allowed).tolist())
            if kind == "floor" and group is not None and reach < (rule.amount or bool(rule.share)):
                present = sum(capacity[s] for s in np.flatnonzero(base & allowed).tolist())
                if rule.otherwise == "exempt":
                    notes.append(f"{constraint.name}: exempt, only {reach} {params.measure} of {rule.of} there")
                    exempt.append((rule, group))
                    continue
                if rule.otherwise == "drop":
                    allowed &= ~(base if rule.by != "generator" else of)
                    notes.append(f"{constraint.name}: the group is left out, {present} {params.measure}")
                    continue
                if rule.amount is None and present:
                    raise InfeasibleMixture(
                        f"{constraint.name} cannot hold: the group has {present} {params.measure} "
                        f"and no {rule.of} among them",
                        binding=(constraint.name,),
                        available={rule.of: reach, "group": present},
                        missing=1,
                        advice=f"Add {rule.of} text to the group, or say otherwise: drop or otherwise: exempt",
                    )
            allowed &= ~_shut_out(constraint)
            constraints.append(constraint)
    return Demand(tuple(constraints), allowed, tuple(notes), tuple(exempt))


def _shut_out(constraint: Constraint) -> Bools:
    """Strata that a cap of nothing, or a floor of everything, forbids even where they measure nothing."""
    rule = constraint.rule
    if constraint.kind == "cap" and (rule.amount == 0 or rule.share == 0):
        return constraint.of
    if constraint.kind == "floor" and rule.share == 1:
        return constraint.base & ~constraint.of
    return np.zeros(len(constraint.of), np.bool_)


def _groups(rule: Rule, strata: Sequence[Stratum], everything: Bools) -> list[tuple[str | None, Bools, Bools]]:
    """The sets a rule compares: (group, what counts, what it is compared with)."""
    of = np.array([rule.covers(stratum) for stratum in strata], np.bool_).reshape(len(strata))
    if rule.by is None:
        return [(None, of, everything)]
    values = [stratum.value(rule.by) for stratum in strata]
    groups: list[tuple[str | None, Bools, Bools]] = []
    for value in sorted(set(values), key=lambda value: (value is not None, value or "")):
        within = np.array([other == value for other in values], np.bool_)
        name = "(none)" if value is None else value
        if rule.by != "generator":
            groups.append((name, of & within, within))
        elif (of & within).any():
            groups.append((name, of & within, everything))
    return groups


def _name(kind: str, rule: Rule, group: str | None) -> str:
    if kind == "size":
        return f"size {rule.amount}"
    asked = rule.share if rule.share is not None else rule.amount
    where = "" if group is None else f" in {rule.by} {group}"
    return f"{kind} {rule.of} {asked}{where}"
