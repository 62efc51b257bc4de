"""How scopes stand among human works, for people: lines for the terminal, and the part of report.html.

Both only repeat what the manifest and baseline.json say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from pipeline.comparison import printable

__all__ = ["ALARM_GROUPS", "BASELINE_STYLE", "baseline_lines", "baseline_section"]

_SCOPES = {
    "input_shard": "input shard",
    "source": "source",
    "corpus": "the corpus",
    "output_shard": "output shard",
    "provenance": "provenance",
    "generator": "generator",
    "mix": "the mix",
}
_SINGLE = ("corpus", "mix")
ALARM_GROUPS = {
    "tails": "Tails: what goes first",
    "repetition": "Repetition: what shows late",
    "shape": "Style and shape",
    "baseline": "Among human works",
}
_MOST_SHOWN = 20
_MOST_ROWS = 200


def baseline_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """How everything stands: what differs and by what, what does not, and what has nothing to differ from."""
    alike: list[str] = []
    without: dict[str, list[str]] = {}
    for scope in _SCOPES:
        of = summary.get(scope, {"compared": 0, "differing": 0, "no_baseline": {}})
        if of["differing"]:
            several = "" if scope in _SINGLE else f"{of['differing']:,} of "
            verb = "differs" if of["differing"] == 1 else "differ"
            yield f"{several}{_counted(scope, of['compared'])} {verb} from the human baseline{_first(of['differ'])}"
        elif of["compared"]:
            alike.append(_counted(scope, of["compared"]))
        for reason, scopes in of["no_baseline"].items():
            without.setdefault(reason, []).append(_counted(scope, scopes))
    if alike:
        yield f"no difference from the human baseline: {', '.join(alike)}"
    for reason, scopes in sorted(without.items()):
        yield f"no baseline for {', '.join(scopes)}: {reason}"


def _counted(scope: str, number: int) -> str:
    told = _SCOPES[scope]
    return told if scope in _SINGLE else f"{number:,} {told}{'' if number == 1 else 's'}"


def _first(differ: Sequence[Mapping[str, Any]]) -> str:
    if not differ:
        return ""
    first = differ[0]
    name = "" if first["name"] == "all" else f"{printable(first['name'])}, "
    lacks = f", {first['size']:,} words without {', '.join(first['absent'][:5])}" if first["absent"] else ""
    more = f"; {len(differ) - 1:,} more" if len(differ) > 1 else ""
    return f" ({name}{_effect(first['driver'], first['effect'], first['alarm'])}{lacks}{more})"


def _effect(metric: str, effect: float, alarm: str) -> str:
    """`hapaxes 23% below the usual`."""
    other = "above" if alarm == "below" else "below"
    return f"{metric} {abs(effect):.0%} {alarm if effect >= 0 else other} the usual"


def baseline_section(baseline: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Which scopes differ, by what, and the words that they lack; then how all others stand."""
    measures = {measure["name"]: measure for measure in baseline["measures"]}
    scopes = baseline["scopes"]
    differing = sorted((entry for entry in scopes if entry.get("differs")), key=_furthest)
    lines = "".join(f"<li>{escape(line)}</li>" for line in baseline_lines(summary))
    parts = [f"<p>{escape(_told(baseline))}</p><ul>{lines}</ul>"]
    parts += [_card(entry, measures) for entry in differing[:_MOST_SHOWN]]
    if len(differing) > _MOST_SHOWN:
        parts.append(f"<p>{len(differing) - _MOST_SHOWN:,} more that differ stand in baseline.json.</p>")
    for scope, told in _SCOPES.items():
        entries = sorted((entry for entry in scopes if entry["scope"] == scope and "p" in entry), key=_furthest)
        if entries:
            parts.append(
                f"<h3>{escape(told[0].upper() + told[1:])} among human works</h3>{_overview(entries, measures)}"
            )
    return "".join(parts)


def _furthest(entry: Mapping[str, Any]) -> tuple[float, float, str, str]:
    return entry["q"], entry["p"], entry["scope"], entry["name"]


def _told(baseline: Mapping[str, Any]) -> str:
    return (
        "Each is held against files of diversity.reference: the same number of words, in whole documents of like "
        "length, of the same language, and of the same domain where the reference has a folder of that name. It "
        "differs where its furthest metric is further off than files of human text are from each other, at a share of "
        f"false discoveries of {baseline['false_discoveries']:.0%}, and by enough to matter. That says that the text "
        "is unlike this reference, not who wrote it. The grey band holds nine in ten human files, the tick is their "
        "median. In the tables below, what lies outside that band is underlined, which by itself means little; what is "
        "off for the whole scope is red."
    )


def _card(entry: Mapping[str, Any], measures: Mapping[str, Any]) -> str:
    driver = entry["measures"][entry["driver"]]
    title = f"{entry['scope'].replace('_', ' ')} {'' if entry['name'] == 'all' else entry['name']}"
    against = f"{entry['works']:,} files" + (f", {entry['together']:,} at a time" if entry["together"] > 1 else "")
    against += f" of {entry['domain']}" if entry["domain"] else ""
    lead = (
        f"{_effect(entry['driver'], driver['effect'], measures[entry['driver']]['alarm'])}; {entry['size']:,} words "
        f"against {against}; p = {entry['p']:.2g}, q = {entry['q']:.2g}"
    )
    rows = []
    for group, heading in ALARM_GROUPS.items():
        mine = [name for name, measure in measures.items() if measure["group"] == group]
        rows += [f"<tr><th colspan=5>{escape(heading)}</th></tr>"] if mine else []
        rows += [_measure_row(name, entry["measures"][name], measures[name]) for name in mine]
    return (
        f"<article class=differs><h3>{escape(title)}</h3><p>{escape(lead)}</p>"
        f"<div class=wide><table><thead><tr><th>metric</th><th class=n>here</th><th class=n>human median</th>"
        f"<th>among human files</th><th class=n>change</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"{_lacks(entry)}</article>"
    )


def _measure_row(name: str, value: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    change = -value["effect"] if measure["alarm"] == "below" else value["effect"]
    off = " class=off" if value["significant"] and value["effect"] >= measure["least_effect"] else ""
    return (
        f"<tr{off}><td>{escape(name)}</td><td class=n>{_number(value['value'])}</td>"
        f"<td class=n>{_number(value['usual'])}</td><td>{_strip(value)}</td><td class=n>{change:+.0%}</td></tr>"
    )


def _strip(value: Mapping[str, Any]) -> str:
    """Where a value lies beside the band of human files, drawn to scale."""
    low, usual, high, here = (value[name] for name in ("low", "usual", "high", "value"))
    first, last = min(low, here), max(high, here)
    span = (last - first) or 1.0

    def place(at: float) -> str:
        return f"{6 + 188 * (at - first) / span:.1f}"

    width = max(2.0, 188 * (high - low) / span)
    told = f"{_number(here)} beside {_number(low)} to {_number(high)}"
    return (
        f'<svg viewBox="0 0 200 16" width="200" height="16" role="img" aria-label="{told}">'
        f'<line x1="6" x2="194" y1="8" y2="8" class=axis />'
        f'<rect x="{place(low)}" y="3" width="{width:.1f}" height="10" rx="2" class=band />'
        f'<line x1="{place(usual)}" x2="{place(usual)}" y1="2" y2="14" class=tick />'
        f'<circle cx="{place(here)}" cy="8" r="4.5" class=here /></svg>'
    )


def _lacks(entry: Mapping[str, Any]) -> str:
    parts = []
    for key, what in (("absent", "words"), ("absent_pairs", "pairs of words")):
        if entry.get(key):
            told = "".join(f"<q>{escape(example)}</q> " for example in entry[key])
            lead = f"Of the {what} that three in four human files hold, the {entry['size']:,} words compared lack: "
            parts.append(f"<p class=lacks>{lead}{told}</p>")
    return "".join(parts)


def _overview(entries: Sequence[Mapping[str, Any]], measures: Mapping[str, Any]) -> str:
    head = "".join(f"<th class=n>{escape(name)}</th>" for name in ("words", "q", *measures))
    rows = []
    for entry in entries[:_MOST_ROWS]:
        cells = []
        for name in measures:
            value = entry["measures"][name]
            told = f"human files: {_number(value['low'])} to {_number(value['high'])}, median {_number(value['usual'])}"
            outside = not value["low"] <= value["value"] <= value["high"]
            mark = " off" if value["significant"] else " outside" if outside else ""
            cells.append(f'<td class="n{mark}" title="{told}">{_number(value["value"])}</td>')
        mark = ' class="off"' if entry["differs"] else ""
        rows.append(
            f"<tr><td{mark}>{escape(entry['name'])}</td><td class=n>{entry['size']:,}</td>"
            f"<td class=n>{entry['q']:.2g}</td>{''.join(cells)}</tr>"
        )
    more = f"<p>{len(entries) - _MOST_ROWS:,} more stand in baseline.json.</p>" if len(entries) > _MOST_ROWS else ""
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<div class=wide>{table}</div>{more}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


BASELINE_STYLE = """
.differs { border-left: 3px solid var(--disputed); padding: .1rem 0 .1rem 1rem; margin: 1.2rem 0; }
.differs h3 { margin-top: 0; color: var(--ink); overflow-wrap: anywhere; }
.differs tbody th { padding-top: .8rem; }
.off, tr.off td { color: var(--disputed); font-weight: 600; }
.outside { text-decoration: underline dotted; text-underline-offset: .2em; }
.axis { stroke: var(--line); } .band { fill: var(--unknown); opacity: .55; } .tick { stroke: var(--ink); }
.here { fill: var(--synthetic); } tr.off .here { fill: var(--disputed); }
.lacks q { display: inline-block; margin: 0 .25rem .25rem 0; padding: 0 .45rem; border: 1px solid var(--line);
  border-radius: .3rem; quotes: none; }
"""
