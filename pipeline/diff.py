"""`anchormix diff OLD NEW`: what changed between two published mixes, and whether verified human text was lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.diff_documents import DocumentDiff, Stratum, compare_documents
from pipeline.diff_report import diff_text
from pipeline.errors import UsageError, VerificationFailed
from pipeline.human_text import HumanText, human_text, listed, remained_notes
from pipeline.manifest import NO_VALUE, decimal, named_rules
from pipeline.mix_folder import MixFolder
from pipeline.outcome import Outcome
from transforms.kernels.audit import Totals, sum_totals
from transforms.kernels.diversity.metric import rounded

__all__ = ["diff"]

_SCOPES = ("mix", "source")
_NOTHING = Totals(0, 0, 0, 0)


def diff(old: Path, new: Path, allow_human_loss: str) -> Outcome:
    """Compare two folders; exit 4 where more verified text was lost than allowed."""
    allowed = _allowed(allow_human_loss)
    was, now = MixFolder.open(old), MixFolder.open(new)
    documents = compare_documents(was, now)
    human = human_text(documents)
    told = _compared(was, now, documents)
    told["human"] = {**human.to_json(), "allowed": allow_human_loss, "within": human.within(allowed)}
    totals = told.pop("totals")
    text = diff_text(told, totals)
    if not human.within(allowed):
        error = VerificationFailed("human_text_lost", _lost_message(human, old, new), totals=totals, **told)
        error.report = text
        raise error
    return Outcome(text, output=str(new), totals=totals, details=told)


def _allowed(given: str) -> Fraction | None:
    """A share, or None for all."""
    if given == "all":
        return None
    try:
        share = Fraction(given)
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not 0 <= share <= 1:
        raise UsageError(
            "bad_call",
            f"--allow-human-loss {given!r}: valid is a share of the verified text of OLD, from 0 to 1, such as 0.01 or "
            "1/100, or `all`",
            value=given,
        )
    return share


def _lost_message(human: HumanText, old: Path, new: Path) -> str:
    reasons = ", ".join(f"{amount.documents:,} {why}" for why, amount in human.reasons().items())
    share = decimal(human.lost.tokens, human.old.tokens)
    return (
        f"{new} lost {human.lost.documents:,} of {human.old.documents:,} documents of verified human text that {old} "
        f"holds: {human.lost.tokens:,} tokens, a share of {share} ({reasons}). What a version drops is missing from "
        "all that follow it. Bring back the sources, keys or sizes that it left with; if it is meant to go, exclude it "
        "with a reason, or say how much may go: --allow-human-loss SHARE, or all."
    )


def _compared(old: MixFolder, new: MixFolder, documents: DocumentDiff) -> dict[str, Any]:
    """Everything that differs, as JSON."""
    measure = new.claimed.measure
    changes = {name: listed(getattr(documents, name)) for name in ("left", "came", "demoted", "promoted", "remained")}
    by_source = [_grouped(side, lambda stratum: stratum[0]) for side in (documents.old, documents.new)]
    return {
        "old": _told(old),
        "new": _told(new),
        "succeeds": new.claimed.fields.get("parent") == old.identity,
        "measure": measure,
        "totals": _beside(*(sum_totals(side.values()) for side in (documents.old, documents.new))),
        "provenance": _groups(documents, lambda stratum: stratum[1], measure),
        "sources": _groups(documents, lambda stratum: stratum[0], measure),
        "generators": _groups(documents, lambda stratum: stratum[2], measure),
        "languages": _groups(documents, lambda stratum: stratum[3] or NO_VALUE, measure),
        "sources_appeared": sorted(by_source[1].keys() - by_source[0].keys()),
        "sources_vanished": sorted(by_source[0].keys() - by_source[1].keys()),
        "rules": _rules(old, new),
        "diversity": _diversity(old, new),
        "documents": {"stayed": documents.stayed._asdict(), **changes},
        "notes": list(_notes(old, new, documents)),
    }


def _told(mix: MixFolder) -> dict[str, Any]:
    fields = mix.claimed.fields
    return {"path": str(mix.path), **mix.identity, "parent": fields.get("parent"), "tokens": fields.get("tokens")}


def _notes(old: MixFolder, new: MixFolder, documents: DocumentDiff) -> Iterator[str]:
    """What was taken down and is there all the same, and what makes numbers of the mixes stand for different things."""
    yield from remained_notes(documents)
    was, now = old.claimed.fields, new.claimed.fields
    if was.get("tokens") != now.get("tokens"):
        yield f"tokens were counted differently: {was.get('tokens')} in OLD, {now.get('tokens')} in NEW"
    if was["measure"] != now["measure"]:
        yield f"rules of OLD are in {was['measure']}, those of NEW in {now['measure']}; shares here are of the latter"


def _grouped(side: Mapping[Stratum, Totals], of: Callable[[Stratum], str | None]) -> dict[str, Totals]:
    found: dict[str, Totals] = defaultdict(lambda: _NOTHING)
    for stratum, total in side.items():
        name = of(stratum)
        if name is not None:
            found[name] = found[name].plus(total)
    return found


def _groups(documents: DocumentDiff, of: Callable[[Stratum], str | None], measure: Any) -> list[dict[str, Any]]:
    """Each group that either mix has, with what it holds there and its share of the mix."""
    old, new = (_grouped(side, of) for side in (documents.old, documents.new))
    wholes = [sum_totals(side.values()).measured(measure) for side in (documents.old, documents.new)]
    found = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name, _NOTHING), new.get(name, _NOTHING)
        shares = [decimal(part.measured(measure), whole) for part, whole in zip((was, now), wholes, strict=True)]
        found.append({"name": name, **_beside(was, now), "share": dict(zip(("old", "new"), shares, strict=True))})
    return found


def _beside(old: Totals, new: Totals) -> dict[str, Any]:
    changes = {name: getattr(new, name) - getattr(old, name) for name in Totals._fields}
    return {"old": old._asdict(), "new": new._asdict(), "change": changes}


def _rules(old: MixFolder, new: MixFolder) -> list[dict[str, Any]]:
    """What either mix was asked to hold, and what it holds."""
    found: dict[tuple[bool, str], dict[str, Any]] = {}
    for side, mix in (("old", old), ("new", new)):
        achieved = mix.claimed.fields["achieved"]
        for name, rule, floor in named_rules(mix.claimed.floors, mix.claimed.caps):
            asked = {"share": None if rule.share is None else str(rule.share), "amount": rule.amount}
            overall = achieved.get(name, {}).get("overall") or {}
            entry = found.setdefault((not floor, rule.name), {"name": rule.name, "kind": "floor" if floor else "cap"})
            entry[side] = {**asked, "otherwise": rule.otherwise, "achieved": overall.get("share")}
    return [{"old": None, "new": None, **found[key]} for key in sorted(found)]


def _diversity(old: MixFolder, new: MixFolder) -> list[dict[str, Any]]:
    """The metrics of the mixes and of what each source read, side by side."""
    sides = [_metrics(mix) for mix in (old, new)]
    found = []
    for key in sorted(sides[0].keys() | sides[1].keys(), key=lambda key: (_SCOPES.index(key[0]), *key[1:])):
        was, now = (side.get(key) for side in sides)
        change = None if was is None or now is None else rounded(now["value"] - was["value"])
        entry = {**dict(zip(("scope", "name", "metric"), key, strict=True)), "change": change}
        found.append(entry | {"old": _value(was), "new": _value(now)})
    return found


def _metrics(mix: MixFolder) -> dict[tuple[str, str, str], dict[str, Any]]:
    columns = ["scope", "name", "metric", "value", "n", "method"]
    table = mix.table("diversity.parquet", columns)
    rows: list[dict[str, Any]] = table.filter(pc.is_in(table["scope"], pa.array(_SCOPES))).to_pylist()
    return {(row["scope"], row["name"], row["metric"]): row for row in rows if row["value"] is not None}


def _value(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if row is None else {name: row[name] for name in ("value", "n", "method")}
