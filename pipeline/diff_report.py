"""What `anchormix diff` says to people; it only repeats what was compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from pipeline.comparison import printable
from pipeline.human_text import LOST, TAKEN_DOWN
from pipeline.report import Screen

__all__ = ["diff_text"]

_MOST_ROWS = 40
_GROUPINGS = {
    "provenance": "provenance",
    "sources": "source",
    "generators": "generator",
    "languages": "language",
}


def diff_text(told: Mapping[str, Any], totals: Mapping[str, Any], *, color: bool | None = None) -> str:
    screen = Screen(color)
    human = told["human"]
    _headline(screen, human)
    screen.line(f"OLD  {_size(totals['old'])}  {told['old']['path']}")
    screen.line(f"NEW  {_size(totals['new'])}  {told['new']['path']}")
    screen.line(_descent(told))
    measure = told["measure"]
    for key, what in _GROUPINGS.items():
        heads = [what, "documents", "change", "tokens", "change", "bytes", "change", f"of {measure}", "was"]
        _table(screen, heads, [_group_row(group) for group in told[key]])
    for verb in ("appeared", "vanished"):
        if told[f"sources_{verb}"]:
            screen.line(f"\nSources that {verb}: ", printable(", ".join(told[f"sources_{verb}"])))
    _table(screen, ["rule", "asked", "was", "in NEW", "was"], [_rule_row(rule) for rule in told["rules"]])
    heads = ["left", "source", "why", "counts as", "documents", "tokens"]
    _table(screen, heads, list(_left_rows(told)), right=2)
    heads = ["came", "source", "was", "", "documents", "tokens"]
    _table(screen, heads, list(_came_rows(told)), right=2)
    _diversity(screen, told["diversity"])
    for note in told["notes"]:
        screen.line("Note: ", printable(note))
    return screen.text()


def _headline(screen: Screen, human: Mapping[str, Any]) -> None:
    passed = human["within"]
    lost, old = human[LOST], human["old"]
    if lost["documents"]:
        says = f"{_amount(lost)} of {_amount(old)} of verified human text were lost"
    elif old["documents"]:
        says = f"no verified human text was lost, of {_amount(old)}"
    else:
        says = "OLD holds no verified human text that could be lost"
    apart = [(TAKEN_DOWN, "taken down"), ("replaced", "replaced by verified near-duplicates")]
    says += "".join(f"; {_amount(human[kind])} {words}" for kind, words in apart if human[kind]["documents"])
    says += f"; {_amount(human['came'])} came" if human["came"]["documents"] else ""
    screen.line(Text("PASS" if passed else "FAIL", "bold green" if passed else "bold red"), f"  {says}")


def _size(total: Mapping[str, int]) -> str:
    return f"{total['documents']:,} documents, {total['tokens']:,} tokens, {total['bytes']:,} bytes"


def _amount(amount: Mapping[str, int]) -> str:
    count = amount["documents"]
    return f"{count:,} document{'' if count == 1 else 's'} ({amount['tokens']:,} tokens)"


def _descent(told: Mapping[str, Any]) -> str:
    if told["succeeds"]:
        return "NEW names OLD as its parent."
    named = told["new"]["parent"]
    return (
        f"NEW names another parent: {printable(str(named.get('logical_digest')))}." if named else "NEW names no parent."
    )


def _group_row(group: Mapping[str, Any]) -> list[str]:
    cells = [group["name"]]
    for what in ("documents", "tokens", "bytes"):
        cells += [f"{group['new'][what]:,}", _signed(group["change"][what])]
    return [*cells, *(_percent(group["share"][side]) for side in ("new", "old"))]


def _signed(change: int) -> str:
    return f"{change:+,}" if change else ""


def _percent(share: str | None) -> str:
    """A decimal cut off after six places, in percent cut off after two."""
    if share is None:
        return "-"
    whole, _, decimals = share.partition(".")
    return f"{int(whole + decimals[:2])}.{decimals[2:4]}%"


def _rule_row(rule: Mapping[str, Any]) -> list[str]:
    sides = [rule[side] for side in ("new", "old")]
    return [
        f"{rule['name']} ({rule['kind']})",
        *(_asked(side) for side in sides),
        *(_percent(side["achieved"]) if side else "-" for side in sides),
    ]


def _asked(rule: Mapping[str, Any] | None) -> str:
    if rule is None:
        return "-"
    return str(rule["share"]) if rule["share"] is not None else f"{rule['amount']:,}"


def _left_rows(told: Mapping[str, Any]) -> Iterator[list[str]]:
    """Verified text first, by what it counts as; a document that stays without being verified has not left."""
    for entry in told["human"]["gone"]:
        yield _change_row(entry, entry["counts_as"].replace("_", " "))
    for entry in told["documents"]["left"]:
        if entry["provenance"] != "human_verified":
            yield _change_row(entry, "")


def _came_rows(told: Mapping[str, Any]) -> Iterator[list[str]]:
    for kind in ("promoted", "came"):
        for entry in told["documents"][kind]:
            yield _change_row(entry, "")


def _change_row(entry: Mapping[str, Any], counts_as: str) -> list[str]:
    why = entry["why"].replace("_", " ") + (f": {entry['reason']}" if entry["reason"] else "")
    return [entry["provenance"], entry["source"], why, counts_as, f"{entry['documents']:,}", f"{entry['tokens']:,}"]


def _diversity(screen: Screen, rows: Sequence[Mapping[str, Any]]) -> None:
    """All metrics of the mix, and those of sources that changed."""
    shown = [row for row in rows if row["scope"] == "mix" or row["change"] != 0.0]
    cells = [
        [
            row["scope"] if row["scope"] == "mix" else f"{row['scope']} {row['name']}",
            row["metric"],
            *(_value(row[side]) for side in ("new", "old")),
            "" if row["change"] is None else f"{row['change']:+.6g}" if row["change"] else "",
        ]
        for row in shown
    ]
    _table(screen, ["diversity", "metric", "NEW", "OLD", "change"], cells, right=3)


def _value(value: Mapping[str, Any] | None) -> str:
    return "-" if value is None else f"{value['value']:.6g}"


def _table(screen: Screen, heads: Sequence[str], rows: Sequence[Sequence[str]], right: int | None = None) -> None:
    screen.table(heads, [[printable(cell) for cell in row] for row in rows[:_MOST_ROWS]], right=right)
    if len(rows) > _MOST_ROWS:
        screen.line(f"and {len(rows) - _MOST_ROWS:,} more rows; --json has all")
