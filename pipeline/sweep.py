"""`anchormix plan --sweep`: many ratios planned at once from what was counted once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NoReturn

from pipeline.config_kinds import nearest
from pipeline.config_rules import GROUPS, PROVENANCES
from pipeline.errors import UsageError
from pipeline.manifest import decimal
from transforms.kernels.mixture import MixtureParams, Outlook, Rule, Supply, outlook, shares_told

MOST_PLANS = 1000

_VALID = (
    "valid are shares or ranges FROM:TO:STEP, comma-separated, of the floor of verified text, such as 0.1,0.25,1/3 or "
    "0.1:0.9:0.1, or of another rule, such as floors.human_any=0.5,0.6 or caps.synthetic=0:0.5:0.1"
)


@dataclass(frozen=True)
class Axis:
    """One rule, and the shares that are tried for it."""

    kind: str  # floors | caps
    of: str
    shares: tuple[Fraction, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}.{self.of}"


def parse_axes(options: Sequence[str]) -> tuple[Axis, ...]:
    """The axes of `--sweep` options; a diagnosis where one makes no sense."""
    axes = tuple(map(_axis, options))
    names = [axis.name for axis in axes]
    for axis in axes:
        if names.count(axis.name) > 1:
            _refuse(axis.name, "is swept twice; give its shares in one --sweep")
    plans = 1
    for axis in axes:
        plans *= len(axis.shares)
    if plans > MOST_PLANS:
        raise UsageError("bad_call", f"--sweep: {plans:,} plans are asked for; at most {MOST_PLANS:,} are made at once")
    return axes


def _axis(option: str) -> Axis:
    name, _, values = option.rpartition("=")
    kind, dot, of = (name or "floors.human_verified").partition(".")
    if kind not in ("floors", "caps") or not dot:
        _refuse(option, f"names {name!r}, which is no rule")
    known = (*PROVENANCES, *GROUPS)
    if of not in known and not any(of.startswith(prefix) and of != prefix for prefix in ("source:", "generator:")):
        near = nearest(of, known)
        _refuse(option, f"is of {of!r}" + (f'; did you mean "{near}"' if near else ""))
    shares = sorted({share for part in values.split(",") for share in _range(option, part)})
    return Axis(kind, of, tuple(shares))


def _range(option: str, text: str) -> Iterator[Fraction]:
    ends = text.split(":")
    if len(ends) == 1:
        yield _share(option, text)
        return
    if len(ends) != 3:
        _refuse(option, f"holds the range {text!r}")
    first, last, step = (_share(option, end) for end in ends)
    if step <= 0 or last < first or (last - first) / step >= MOST_PLANS:
        _refuse(option, f"holds the range {text!r}, which has no steps, or more than {MOST_PLANS:,}")
    while first <= last:
        yield first
        first += step


def _share(option: str, text: str) -> Fraction:
    try:
        # The text is looked at first: 1e-999999 as a fraction has a million digits.
        share = Fraction(text.strip()) if len(text) < 24 and "e" not in text.lower() else None
    except (ValueError, ZeroDivisionError):
        share = None
    if share is None or not 0 <= share <= 1:
        _refuse(option, f"holds {text.strip()!r}, which is no share from 0 to 1")
    return share


def _refuse(option: str, why: str) -> NoReturn:
    raise UsageError("bad_call", f"--sweep {option}: {why}; {_VALID}", option=option)


def sweep(supply: Supply, params: MixtureParams, axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """One row for every combination of shares, in order; all other rules, and the size, as in the config."""
    rows = []
    for shares in itertools.product(*(axis.shares for axis in axes)):
        asked = params
        for axis, share in zip(axes, shares, strict=True):
            asked = _with_share(asked, axis, share)
        told = {axis.name: str(share) for axis, share in zip(axes, shares, strict=True)}
        rows.append({"rules": told, **_row(outlook(supply, asked))})
    return rows


def _with_share(params: MixtureParams, axis: Axis, share: Fraction) -> MixtureParams:
    """The settings with this share in place of the one the rule has, or beside the other rules."""
    rules: tuple[Rule, ...] = getattr(params, axis.kind)
    others = tuple(rule for rule in rules if rule.of != axis.of or rule.by is not None or rule.share is None)
    rule = Rule(axis.of, share)
    return replace(params, floors=(rule, *others)) if axis.kind == "floors" else replace(params, caps=(rule, *others))


def _row(found: Outlook) -> dict[str, Any]:
    reason = found.reason
    return {
        "feasible": reason is None,
        "size": found.size,
        "verified": None if reason else shares_told(found.shares),
        "binding": list(found.binding),
        "largest": reason.feasible_size if reason else found.size,
        "reason": str(reason) if reason else None,
        "notes": list(found.notes),
    }


def sweep_cells(rows: Sequence[dict[str, Any]], measure: str) -> tuple[list[str], list[list[str]]]:
    """Headings and rows for the terminal."""
    rules = rows[0]["rules"] if rows else ()
    headings = [f"{of} {'>=' if kind == 'floors' else '<='}" for kind, _, of in (name.partition(".") for name in rules)]
    headings += [f"size, {measure}", "verified", "share", "unique", "effective", "binds"]
    cells = []
    for row in rows:
        if row["feasible"]:
            told = row["verified"]
            size = [f"{row['size']:,}", f"{told['share'][0]:,}", decimal(*told["share"]) or ""]
            size += [decimal(*told["unique"]) or "", f"{told['effective'] or 0:.6f}"]
        else:
            size = ["infeasible", f"at most {row['largest']:,}" if row["largest"] else "", "", "", ""]
        cells.append([*row["rules"].values(), *size, ", ".join(row["binding"][:2])])
    return headings, cells
