"""Floors and caps: how they are written, and the one shape they all become."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pipeline.config_blocks import Block, Key, ListOf
from pipeline.config_kinds import Choice, Kind, Text, nearest
from pipeline.config_numbers import Amount, Share
from pipeline.config_yaml import At, Number, Raw

__all__ = ["PROVENANCES", "Rule", "Rules"]

PROVENANCES = ("human_verified", "human", "ai_assisted", "synthetic", "disputed", "unknown")
GROUPS = ("human_any", "rephrase", "generated")
PREFIXES = ("source:", "generator:")

SHARE = Share(
    too_big="above 1 it would be an amount, which is written {of: ..., amount: ...}; a percentage is divided by 100",
)


class Of(Kind):
    """What a rule counts."""

    valid = f"{', '.join((*PROVENANCES, *GROUPS))}, source:NAME or generator:NAME"

    def parse(self, raw: Raw, at: At) -> str:
        if not isinstance(raw, str):
            self.reject(raw, at)
        named = any(raw.startswith(prefix) and raw[len(prefix) :].strip() for prefix in PREFIXES)
        if not named and raw not in PROVENANCES and raw not in GROUPS:
            near = nearest(raw, (*PROVENANCES, *GROUPS, *PREFIXES))
            self.reject(raw, at, f'did you mean "{near}"' if near else "")
        return raw

    def schema(self) -> dict[str, Any]:
        names = {"type": "string", "pattern": "^(source|generator):.+"}
        return {"anyOf": [{"enum": [*PROVENANCES, *GROUPS]}, names]}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A least (floor) or a greatest (cap) share or amount; exactly one of the two is set."""

    of: Annotated[
        str, Key(Of(), "what is counted: a provenance, human_any, rephrase, generated, source:X or generator:Y")
    ]
    share: Annotated[Fraction | None, Key(SHARE, "part of the mix, or of each group's own total")] = None
    amount: Annotated[int | None, Key(Amount(least=0), "amount in the unit of mix.measure")] = None
    by: Annotated[
        str | None,
        Key(
            Text("language, source, generator or a kept column"),
            "apply the rule to each value of this column: language, source, generator or a kept column",
        ),
    ] = None
    otherwise: Annotated[
        str, Key(Choice("fail", "drop", "exempt"), "what happens to a group that cannot hold the rule")
    ] = "fail"

    def check(self, at: At) -> None:
        if (self.share is None) == (self.amount is None):
            at.fail("bad_value", "a rule has exactly one of share and amount")
        if self.by is None and self.otherwise != "fail":
            at.fail("bad_value", "otherwise speaks of the groups of a rule with `by`; this rule has none")


class Rules(Kind):
    """Rules as a list, or the short form {what: share}."""

    rule = Block(Rule)
    listed = ListOf(rule)
    valid = "shares such as {human_verified: 0.5}, or a list of rules such as {of: human_verified, share: 0.5}"

    def parse(self, raw: Raw, at: At) -> tuple[Rule, ...]:
        if isinstance(raw, list):
            rules: tuple[Rule, ...] = self.listed.parse(raw, at)
        elif isinstance(raw, dict):
            rules = tuple(self._short(name, value, at / name) for name, value in raw.items())
        else:
            self.reject(raw, at)
        seen: set[tuple[str, str | None, bool]] = set()
        for rule in rules:
            if (rule.of, rule.by, rule.share is None) in seen:
                what = f"{rule.of}{f' by {rule.by}' if rule.by else ''}"
                at.fail("duplicate_key", f"two {'amounts' if rule.share is None else 'shares'} of {what}; keep one")
            seen.add((rule.of, rule.by, rule.share is None))
        return rules

    def _short(self, name: str, raw: Raw, at: At) -> Rule:
        of = self.rule.kind_of("of").parse(name, at)
        if not isinstance(raw, Number | str):
            at.fail("bad_value", f"valid is {SHARE.valid}; for anything else use a list of rules", raw)
        return Rule(of=of, share=SHARE.parse(raw, at))

    def schema(self) -> dict[str, Any]:
        short = {"type": "object", "additionalProperties": SHARE.schema()}
        return {"anyOf": [short, self.listed.schema()]}

    def plain(self, value: tuple[Rule, ...]) -> Any:
        if all(rule == Rule(of=rule.of, share=rule.share) for rule in value):
            return {rule.of: SHARE.plain(rule.share or Fraction(0)) for rule in value}
        return self.listed.plain(value)

    def meaning(self, value: tuple[Rule, ...]) -> Any:
        return self.listed.meaning(value)
