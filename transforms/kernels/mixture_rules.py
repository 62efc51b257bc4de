"""What is asked of a mix: strata, rules and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

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
        changes: tuple[Mapping[str, Any], ...] = (),
    ) -> None:
        super().__init__(message, binding, available, missing, feasible_size, advice, changes)
        self.message = message
        self.binding = binding
        self.available = dict(available or {})
        self.missing = missing
        self.feasible_size = feasible_size
        self.advice = advice
        self.changes = changes  # of one rule each: how far it has to give way for a mix to exist

    def __str__(self) -> str:
        told = f"{self.message}. {self.advice}" if self.advice else self.message
        if not self.changes:
            return told
        ways = (f"{c['rule']} to {c['to']} ({c['size']} in the mix)" for c in self.changes)
        return f"{told}. Any one of these changes is enough: {'; '.join(ways)}"

    @property
    def details(self) -> dict[str, Any]:
        """The numbers behind the message, JSON-ready."""
        return {
            "binding": list(self.binding),
            "available": self.available,
            "missing": self.missing,
            "feasible_size": self.feasible_size,
            "advice": self.advice,
            "changes": [dict(change) for change in self.changes],
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
        if column == "source":
            return self.source
        if column == "generator":
            return self.generator
        for name, value in self.groups:
            if name == column:
                return value
        known = sorted(["source", "generator", *(name for name, _ in self.groups)])
        raise ValueError(
            f"a rule groups by {column!r}, which the strata do not tell apart; they tell apart {', '.join(known)}"
        )


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
