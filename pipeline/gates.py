"""`diversity.fail_if`, judged: every gate against the rows of diversity.parquet, and nothing else.

A gate has one of three verdicts: `passed`, `failed`, or `not_judged` where no member of its scope has the metric. What
was not judged is said, and never counts as passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import Shard
from pipeline.comparison import printable
from pipeline.config import Config
from pipeline.config_gates import Gate, is_single, told_gate
from pipeline.config_kinds import nearest
from pipeline.config_yaml import show
from pipeline.errors import GuardTripped, UsageError

__all__ = [
    "FAILED",
    "NOT_JUDGED",
    "PASSED",
    "GateResult",
    "gate_line",
    "judge_gates",
    "refuse_missing_shards",
    "unjudged_notes",
]

PASSED, FAILED, NOT_JUDGED = "passed", "failed", "not_judged"
_MOST_OFFENDERS = 10
_MOST_NAMED = 5


@dataclass(frozen=True)
class GateResult:
    """One gate, and how the members of its scope stand: how many were judged, which fail, who has no such metric."""

    key: str
    gate: Gate
    judged: int
    failed: int
    worst: tuple[dict[str, Any], ...]  # `name`, `value`, `n`, `method`: what fails, or else what comes nearest to it
    without: tuple[str, ...]  # the first members of the scope that do not have the metric
    not_judged: int  # all of those

    @property
    def verdict(self) -> str:
        if self.failed:
            return FAILED
        return PASSED if self.judged else NOT_JUDGED

    @property
    def reason(self) -> str | None:
        """Why something was not judged."""
        if not self.not_judged:
            return None
        if self.judged:
            several = f"{self.not_judged:,} of {self.judged + self.not_judged:,} have no {self.gate.metric}"
            return f"{several}: {_some(self.without, self.not_judged)}"
        if self.gate.name is not None:
            return f"there is no {self.gate.metric} of {self.gate.scope} {printable(self.gate.name)}"
        return f"no {self.gate.scope} has a {self.gate.metric}"

    def to_json(self) -> dict[str, Any]:
        gate = self.gate
        bound = {"below": gate.below} if gate.below is not None else {"above": gate.above}
        return {
            "key": self.key,
            "metric": gate.metric,
            "scope": gate.scope,
            "name": gate.name,
            **bound,
            "verdict": self.verdict,
            "judged": self.judged,
            "failed": self.failed,
            "not_judged": self.not_judged,
            "reason": self.reason,
            "worst": [dict(row) for row in self.worst],
        }


def judge_gates(gates: Sequence[Gate], diversity: pa.Table, *, inputs_only: bool = False) -> list[GateResult]:
    """How every gate stands by the rows of diversity.parquet; raises GuardTripped, exit 6, where one fails.

    `inputs_only` judges the gates of input scopes alone, which can be done before anything is planned.
    """
    chosen = [(place, gate) for place, gate in enumerate(gates) if gate.of_input or not inputs_only]
    results = [_result(f"diversity.fail_if[{place}]", gate, diversity) for place, gate in chosen]
    failed = [result for result in results if result.verdict == FAILED]
    if failed:
        raise _stopped(results, failed)
    return results


def refuse_missing_shards(config: Config, shards: Iterable[Shard]) -> None:
    """Exit 2 where a gate names an input shard that is not there: it would never be judged."""
    names = [f"{shard.source}/{shard.name}" for shard in shards]
    for place, gate in enumerate(config.diversity.fail_if):
        if gate.scope != "input_shard" or gate.name is None or gate.name in names:
            continue
        near = nearest(gate.name, names)
        hint = f'did you mean "{near}"? ' if near else ""
        key = f"diversity.fail_if[{place}].name"
        raise UsageError(
            "bad_value",
            f"{key} = {show(gate.name)}: no input shard has this name, so the gate would never be judged; {hint}"
            f"there are {_some(names[:_MOST_NAMED], len(names))}",
            key=key,
            value=gate.name,
            nearest=near,
        )


def _result(key: str, gate: Gate, diversity: pa.Table) -> GateResult:
    of_scope = pc.equal(diversity["scope"], gate.scope)
    if gate.name is not None:
        of_scope = pc.and_(of_scope, pc.equal(diversity["name"], gate.name))
    scope = diversity.filter(of_scope)
    rows = scope.filter(pc.equal(scope["metric"], gate.metric)).select(["name", "value", "n", "method"])
    values = rows["value"].to_pylist()
    order = sorted(range(len(values)), key=lambda place: values[place], reverse=gate.below is None)
    members = [gate.name] if gate.name is not None else scope["name"].unique().to_pylist()
    having = set(rows["name"].to_pylist())
    without = sorted(name for name in members if name not in having)
    failed = sum(map(gate.fails, values))
    shown = order[: min(failed, _MOST_OFFENDERS) or 1]
    return GateResult(
        key=key,
        gate=gate,
        judged=len(values),
        failed=failed,
        worst=tuple(rows.take(shown).to_pylist()) if shown else (),
        without=tuple(without[:_MOST_NAMED]),
        not_judged=len(without) if members else 1,
    )


def gate_line(told: Mapping[str, Any]) -> tuple[str, str]:
    """A gate of a manifest in words: what has to hold, and how it stands."""
    stands = str(told["verdict"]).replace("_", " ")
    if told["worst"]:
        worst = told["worst"][0]
        alone = told["name"] is not None or is_single(told["scope"])
        nearest = "" if alone else f", nearest {printable(worst['name'])}"
        stands += f" ({worst['value']:.10g}{nearest})"
    if told["reason"]:
        stands += f"; not judged: {told['reason']}" if told["judged"] else f": {told['reason']}"
    return told_gate(told), stands


def unjudged_notes(results: Iterable[GateResult]) -> Iterator[str]:
    """What a reader of the verdict must not take for passed."""
    for result in results:
        if result.reason is not None:
            whole = "was not judged for all" if result.judged else "was not judged"
            yield f"{result.key} ({told_gate(vars(result.gate))}) {whole}: {result.reason}"


def _stopped(results: Sequence[GateResult], failed: Sequence[GateResult]) -> GuardTripped:
    lines = [f"diversity.fail_if: gates that do not hold, {len(failed)} of {len(results)}:"]
    for result in failed:
        lines.append(f"  {result.key} asks for {told_gate(vars(result.gate))}")
        for row in result.worst:
            lines.append(f"    {printable(row['name'])}: {row['value']:.10g} (n = {row['n']:,}, {row['method']})")
        more = result.failed - len(result.worst)
        lines += [f"    and {more:,} more of {result.judged:,}"] if more else []
    lines += [f"  {result.key} was not judged: {result.reason}" for result in results if result.reason is not None]
    lines.append(
        "Nothing was published. Look at what these hold (text cut off, templates, another language, generated text); "
        "mend or leave out what is at fault. If the numbers are as they should be, move the bound, or leave all gates "
        "out of one run with `--set diversity.fail_if=`."
    )
    return GuardTripped("diversity_gate", "\n".join(lines), gates=[result.to_json() for result in results])


def _some(names: Sequence[str], all_of_them: int) -> str:
    return ", ".join(map(printable, names)) + (
        f" and {all_of_them - len(names):,} more" if all_of_them > len(names) else ""
    )
