"""`diversity.fail_if`: bounds on metrics beyond which nothing is published."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pipeline.config_blocks import Key
from pipeline.config_kinds import Choice, Kind, Text, nearest
from pipeline.config_numbers import decimal_of
from pipeline.config_rules import PROVENANCES
from pipeline.config_yaml import At, Raw
from transforms.kernels import metric_names

__all__ = ["Gate", "check_gates", "is_single", "told_gate"]

ONLY_NAME = "all"
"""What the scopes with a single member call it."""
_SINGLE = ("corpus", "mix")


class Bound(Kind):
    """A number as metrics are: compared with them as it is, so 0.1 is the 0.1 that a metric is rounded to."""

    valid = "a number, such as 0.05, 12000 or 1e-4"

    def parse(self, raw: Raw, at: At) -> float:
        exact = decimal_of(raw)
        if exact is None or not math.isfinite(float(exact)):
            self.reject(raw, at)
        return float(exact)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "number"}, {"type": "string"}]}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A bound on one metric, for one member of a scope or for all of them; exactly one of the two bounds is set."""

    metric: Annotated[str, Key(Choice(*metric_names.METRICS), "the metric, as diversity.parquet calls it")]
    scope: Annotated[str, Key(Choice(*metric_names.SCOPES), "what it is a metric of")]
    name: Annotated[
        str | None, Key(Text("the name of a member of the scope"), "one member of the scope; default: each of them")
    ] = None
    below: Annotated[float | None, Key(Bound(), "fails when the metric is below this")] = None
    above: Annotated[float | None, Key(Bound(), "fails when the metric is above this")] = None

    def check(self, at: At) -> None:
        if (self.below is None) == (self.above is None):
            given = "neither" if self.below is None else "both"
            at.fail("bad_value", f"{given} of below and above is given; valid is exactly one")
        scopes = metric_names.scopes_of(self.metric)
        if self.scope not in scopes:
            says = f"{self.metric} is not measured there; valid is {' | '.join(scopes)}"
            (at / "scope").fail("bad_value", says, self.scope)

    @property
    def of_input(self) -> bool:
        """Whether it can be judged before anything is planned."""
        return self.scope in metric_names.INPUT_SCOPES

    def fails(self, value: float) -> bool:
        if self.below is not None:
            return value < self.below
        return self.above is not None and value > self.above


def told_gate(gate: Mapping[str, Any]) -> str:
    """What has to hold, in words; `gate` has the keys of a `Gate`, of which one bound may be missing."""
    scope, name = gate["scope"], gate["name"]
    members = f"the {scope}" if is_single(scope) else f"each {scope}" if name is None else f"{scope} {name}"
    below, above = gate.get("below"), gate.get("above")
    bound = f"at least {below:.10g}" if below is not None else f"at most {above:.10g}"
    return f"{gate['metric']} of {members}: {bound}"


def is_single(scope: str) -> bool:
    """Whether a scope has one member only."""
    return scope in _SINGLE


def check_gates(gates: Iterable[Gate], full: bool, reference: bool, sources: Iterable[str], at: At) -> None:
    """What a gate cannot know of itself: which metrics are measured, of what, and which members its scope has."""
    sources = list(sources)
    for place, gate in enumerate(gates):
        here = at / place
        if gate.scope == "reference" and not reference:
            says = "there is no held-out text to measure; name its files under diversity.reference"
            (here / "scope").fail("bad_value", says, gate.scope)
        if gate.metric in metric_names.HELD_OUT and not reference:
            says = f"{gate.metric} compares with held-out text; name its files under diversity.reference"
            (here / "metric").fail("bad_value", says, gate.metric)
        if not full and gate.metric in metric_names.FULL:
            core = " | ".join(metric_names.CORE)
            says = f"needs diversity.metrics: full, and that is core; set it, or choose one of {core}"
            (here / "metric").fail("bad_value", says, gate.metric)
        if gate.name is not None:
            _check_name(gate.scope, gate.name, sources, here / "name")


def _check_name(scope: str, name: str, sources: list[str], at: At) -> None:
    """Refuse a name that its scope can never have; languages, generators and shards are known only later."""
    known: tuple[str, ...] | list[str]
    if scope == "source":
        known = sources
    elif scope == "provenance":
        known = PROVENANCES
    elif is_single(scope):
        known = (ONLY_NAME,)
    elif scope == "input_shard":
        if any(name.startswith(f"{source}/") for source in sources):
            return
        near = nearest(name.partition("/")[0], sources)
        hint = f'did you mean "{near}/..."? ' if near else ""
        says = f"an input shard is called SOURCE/SHARD; {hint}sources: {', '.join(sources)}"
        at.fail("bad_value", says, name, nearest=near)
    elif scope == "reference" and not name.startswith("language:"):
        known = (ONLY_NAME, "language:CODE")
    else:
        return
    if name not in known:
        near = nearest(name, known)
        hint = f'did you mean "{near}"? ' if near else ""
        at.fail("bad_value", f"no {scope} has this name; {hint}there are: {', '.join(known)}", name, nearest=near)
