"""What people read: the verdict in the terminal, and report.html.

Both only repeat the manifest, diversity.parquet and what verification found; nothing is computed here.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.comparison import printable
from pipeline.errors import UsageError
from pipeline.eu_summary import eu_summary
from pipeline.gates import gate_line
from pipeline.manifest import MANIFEST, RuleClaim, decimal, named_rules
from pipeline.page import whole_page
from pipeline.report_baseline import ALARM_GROUPS, BASELINE_STYLE, baseline_lines, baseline_section
from pipeline.survival import KINDS, STEPS
from pipeline.verify import Verification
from transforms import files
from transforms.kernels import metric_names
from transforms.kernels.schemas import Provenance

__all__ = [
    "Screen",
    "bands_line",
    "plan_table",
    "summary_for_the_eu",
    "survival_tables",
    "sweep_table",
    "verdict_table",
    "verification_table",
    "write_report",
]

_SCOPES = {
    "mix": "The mix",
    "provenance": "By provenance",
    "generator": "By generator",
    "output_shard": "By output shard",
    "reference": "Reference, never mixed",
    "corpus": "Everything read",
    "source": "By source",
    "language": "By language",
    "input_shard": "By input shard",
}
_MOST_ROWS = 200
_MOST_STRATA = 50
_PLAIN_WIDTH = 110


def verdict_table(
    manifest: Mapping[str, Any],
    verification: Verification,
    plan: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    *,
    index: Mapping[str, int] | None = None,
    color: bool | None = None,
) -> str:
    """A published mix for the terminal. `plan` is the plan's summary, for what binds; `index` counts what was read."""
    output = output if output is not None else verification.out
    console = Screen(color)
    passed = verification.passed
    totals = manifest["totals"]
    headline = (
        f"{totals['documents']:,} documents, {totals['tokens']:,} tokens, {totals['bytes']:,} bytes "
        f"in {_count(totals['shards'], 'shard')}"
    )
    console.line(Text("PASS" if passed else "FAIL", "bold green" if passed else "bold red"), f"  {headline}")
    if index:
        console.line("Index: ", ", ".join(f"{count:,} {what}" for what, count in index.items()))
    console.table(*_rules_table(manifest, _binding(plan)))
    console.table(*_sources_table(manifest))
    console.table(*_origins_table(manifest), right=2)
    console.survival(manifest.get("survival"))
    console.table(*_gates_table(manifest), right=0)
    console.verification(verification)
    for line in baseline_lines(manifest.get("baseline", {})):
        console.line("Baseline: ", line)
    worst = manifest.get("worst_window")
    if worst:
        told = f"{worst['rows']:,} rows from row {worst['first_row']:,} of {worst['shard']}: {_share(worst)} verified"
        console.line("\nWorst window: ", told)
    for note in manifest.get("notes", ()):
        console.line("Note: ", note)
    console.line("\nOutput: ", str(output))
    if passed:
        console.line(f"Next:   anchormix verify {output}     open {files.join(str(output), 'report.html')}")
    return console.text()


def verification_table(verification: Verification, *, color: bool | None = None) -> str:
    """What `anchormix verify` has to say."""
    console = Screen(color)
    passed = verification.passed
    totals = verification.totals
    tokens = f"{totals['tokens']:,} tokens"
    counted = f"  {totals['documents']:,} documents, {tokens} recounted in {verification.out}"
    if verification.tokens_from is not None:
        counted = (
            f"  {totals['documents']:,} documents recounted, {tokens} as counted by {verification.tokens_from}, "
            f"in {verification.out}"
        )
    console.line(Text("PASS" if passed else "FAIL", "bold green" if passed else "bold red"), counted)
    console.verification(verification)
    console.line("\nLogical digest: ", verification.logical_digest)
    return console.text()


def survival_tables(survival: Mapping[str, Any], *, color: bool | None = None) -> str:
    """What each step left of every source and every provenance, for the terminal."""
    console = Screen(color)
    console.survival(survival)
    return console.text()


def plan_table(
    plan: Mapping[str, Any],
    sizes: Sequence[Mapping[str, Any]],
    survival: Mapping[str, Any] | None = None,
    bands: Mapping[str, Any] | None = None,
    *,
    color: bool | None = None,
) -> str:
    """A plan for the terminal: what each stratum gives, which rules bind, how large other floors would let it be, and
    how near-duplicates were found."""
    console = Screen(color)
    measure = plan["measure"]
    strata = [
        [
            *(s["source"], s["provenance"], s["generator"] or s["kind"] or ""),
            *(_plainly(value) for value in s["groups"].values()),
            *_portion(s["available"][measure], s["taken"][measure], plan["size"]),
        ]
        for s in sorted(plan["strata"], key=lambda s: -s["taken"][measure])[:_MOST_STRATA]
    ]
    groups = list(plan["strata"][0]["groups"]) if plan["strata"] else []
    headings = ["source", "provenance", "generator", *groups, f"available {measure}", "taken", "epochs", "share"]
    console.table(headings, sorted(strata), right=4)
    console.other_strata(plan)
    console.verified(plan["verified"], measure)
    rules = [
        [
            rule["name"],
            f"{'at least' if rule['kind'] == 'floor' else 'at most'} {rule['share'] or format(rule['amount'], ',')}",
            _share(rule["achieved"], floor=rule["kind"] == "floor"),
            "binds" if rule["binds"] else "",
        ]
        for rule in plan["rules"]
    ]
    console.table(["rule", "asked", "planned", ""], rules, right=0)
    console.layout(plan)
    if sizes:
        console.table(["floor", f"largest mix, {measure}"], [[s["floor"], f"{s['largest']:,}"] for s in sizes], right=1)
    console.survival(survival)
    if bands:
        console.line("\n", bands_line(bands))
        console.table(["Jaccard", *bands["curve"]], [["compared", *(p[:6] for p in bands["curve"].values())]])
    for note in plan["notes"]:
        console.line("Note: ", note)
    return console.text()


def sweep_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, color: bool | None = None) -> str:
    """Many plans at once, a line each."""
    console = Screen(color)
    console.table(headings, rows, right=0)
    console.line("\neffective: repeats count less, by R* = 15.387756 (Muennighoff et al. 2023)")
    return console.text()


def _plainly(value: str | None) -> str:
    return "(none)" if value is None else value


def _portion(available: int, taken: int, whole: int) -> list[str]:
    """Available, taken, how often that is all there is, and the part of the mix; cut off, never rounded up."""
    epochs = taken * 100 // available if available else 0
    share = taken * 10_000 // whole if whole else 0
    return [
        f"{available:,}",
        f"{taken:,}",
        f"{epochs // 100}.{epochs % 100:02d}",
        f"{share // 100}.{share % 100:02d}%",
    ]


def bands_line(bands: Mapping[str, Any]) -> str:
    """Which pairs are compared exactly: those that share a band of their signatures."""
    return (
        f"near-duplicates: {bands['bands']} bands of {bands['rows']} rows; a pair is compared exactly with probability "
        f"{bands['at_threshold'][:6]} at Jaccard {bands['threshold']} and {bands['at_sought'][:6]} at {bands['sought']}"
    )


class Screen:
    """Lines and tables as one string: coloured for a terminal, plain for a pipe or a file."""

    def __init__(self, color: bool | None) -> None:
        terminal = sys.stdout.isatty() if color is None else color
        width = max(shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns, 80) if terminal else _PLAIN_WIDTH
        self.console = Console(file=io.StringIO(), force_terminal=terminal, width=width, highlight=False)

    def line(self, *parts: str | Text) -> None:
        self.console.print(Text.assemble(*parts), soft_wrap=True)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], right: int | None = None) -> None:
        """`right` columns at the end stand flush right; None: all but the first."""
        if not rows:
            return
        table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
        first_right = 1 if right is None else len(headings) - right
        for place, heading in enumerate(headings):
            table.add_column(heading, justify="right" if place >= first_right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        self.console.print()
        self.console.print(table)

    def other_strata(self, plan: Mapping[str, Any]) -> None:
        """What the strata that are not listed hold together."""
        shown = plan["strata"]
        rest = sorted(shown, key=lambda s: -s["taken"][plan["measure"]])[_MOST_STRATA:]
        count = len(rest) + plan["other_strata"]["strata"]
        if count:
            taken = sum(s["taken"][plan["measure"]] for s in rest) + plan["other_strata"]["taken"][plan["measure"]]
            self.line(f"and {count:,} more strata, of which {taken:,} {plan['measure']} are taken")

    def verified(self, told: Mapping[str, Any], measure: str) -> None:
        """Verified text as counted, without repeats, and with repeats discounted."""
        (part, whole), (distinct, all_distinct) = told["share"], told["unique"]
        if not whole:
            return
        self.line(
            f"\nverified human text: {part:,} of {whole:,} {measure} ({decimal(part, whole)}); "
            f"without repeats {decimal(distinct, all_distinct)}; "
            f"effective {told['effective']:.6f}, where repeats count less by R* = {told['r_star']}"
        )

    def layout(self, plan: Mapping[str, Any]) -> None:
        """How shards will be cut into row groups."""
        shards = plan.get("layout")
        if not shards:
            return
        groups, longest = sum(s["row_groups"] for s in shards), max(s["longest"] for s in shards)
        grown = sum(s["longest"] > plan["row_group"] for s in shards)
        told = f"{_count(len(shards), 'shard')}, {_count(groups, 'row group')} of up to {longest:,} rows"
        if grown:
            told += (
                f"; in {_count(grown, 'shard')} they grow beyond the {plan['row_group']:,} asked for, to hold the floor"
            )
        self.line(f"\nlayout: {told}")

    def survival(self, survival: Mapping[str, Any] | None) -> None:
        tables = list(_survival_tables(survival, shares=False))
        if tables:
            (_, headings, sources), (_, _, provenances) = tables
            self.table(["documents", *headings], [*sources, [""] * (len(headings) + 1), *provenances])

    def verification(self, verification: Verification) -> None:
        self.console.print()
        for name, level in verification.levels.items():
            style = {"reached": "green", "failed": "bold red"}.get(level.status, "dim")
            reason = f"  ({level.reason})" if level.reason else ""
            self.line(f"{name:<12}", Text(level.status, style), reason)
        for finding in verification.findings[:20]:
            self.line("  ! ", str(finding))
        more = sum(verification.counts.values()) - min(len(verification.findings), 20)
        if more > 0:
            self.line(f"  ! and {more:,} more")
        if verification.not_checked:
            self.line("\nNot checked")
            for told in verification.not_checked:
                self.line("  - ", told)

    def text(self) -> str:
        written: io.StringIO = self.console.file  # type: ignore[assignment]
        return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def _rules(manifest: Mapping[str, Any]) -> Iterable[tuple[str, RuleClaim, bool]]:
    return named_rules(*(map(RuleClaim.from_json, manifest[kind]) for kind in ("floors", "caps")))


def _rules_table(manifest: Mapping[str, Any], binding: frozenset[tuple[str, str]]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name, rule, floor in _rules(manifest):
        achieved = manifest["achieved"][name]
        shares = [_share(achieved.get(part), floor=floor) for part in ("overall", "worst_shard", "worst_row_group")]
        if "not_recounted" in achieved:
            shares = ["not recounted", "", ""]
        binds = "yes" if ("floor" if floor else "cap", rule.name) in binding else ""
        rows.append([name, _asked(rule, floor), *shares, binds])
    return [f"rule ({manifest['measure']})", "asked", "mix", "worst shard", "worst row group", "binds"], rows


_ORIGIN = ("source", "provenance", "method", "issuer", "generator", "kind")


def _origins_table(manifest: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Where the text of the mix comes from, and who vouches for it."""
    measure = manifest["measure"]
    counted = "rows" if measure == "documents" else measure
    rows = [
        [*(str(entry[name] or "") for name in _ORIGIN), f"{entry['documents']:,}", f"{entry[counted]:,}"]
        for entry in manifest.get("summary", ())
    ]
    return [*_ORIGIN, "documents", counted], rows


def _asked(rule: RuleClaim, floor: bool) -> str:
    if rule.share is None:
        asked = f"{rule.amount or 0:,}"
    else:
        percent = rule.share * 100
        asked = f"{float(percent):g}%" if (percent * 100).denominator == 1 else str(rule.share)
    return f"{'at least' if floor else 'at most'} {asked}"


def _share(standing: Mapping[str, Any] | None, *, floor: bool = True) -> str:
    """A standing as people read it, rounded away from what was asked: a broken rule never reads as kept."""
    if not standing:
        return "-"
    numerator, denominator = standing["numerator"], standing["denominator"]
    group = f" ({standing['group']})" if standing.get("group") is not None else ""
    if not denominator:
        return f"0 of 0{group}"
    hundredths = numerator * 10_000 // denominator if floor else -(-numerator * 10_000 // denominator)
    return f"{hundredths // 100}.{hundredths % 100:02d}%{group}"


def _binding(plan: Mapping[str, Any] | None) -> frozenset[tuple[str, str]]:
    rules = plan["rules"] if plan else ()
    names = (
        (rule["kind"], f"{rule['of']} by {rule['by']}" if rule["by"] else rule["of"]) for rule in rules if rule["binds"]
    )
    return frozenset(names)


def _gates_table(manifest: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    return ["gate", "stands"], [list(gate_line(gate)) for gate in manifest.get("gates", ())]


def _sources_table(manifest: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    sources = manifest["sources"]
    reasons = sorted({reason for account in sources.values() for reason in account["dropped"]})
    rows = []
    for name, account in sorted(sources.items()):
        dropped = [f"{account['dropped'][reason]:,}" if reason in account["dropped"] else "" for reason in reasons]
        tags = ", ".join(f"{tag} {count:,}" for tag, count in sorted(account["tags"].items()))
        rows.append([name, f"{account['documents_in']:,}", *dropped, f"{account['documents_out']:,}", tags])
    return ["source", "in", *(reason.replace("_", " ") for reason in reasons), "out", "tagged"], rows


def _survival_tables(
    survival: Mapping[str, Any] | None, *, shares: bool
) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Per grouping: headings and rows of what each step left. Steps that took nothing from anybody are left out."""
    if not survival:
        return
    steps = [step for step in STEPS if step in survival["all"]]
    lossy = {step for before, step in pairwise(steps) if survival["all"][before] != survival["all"][step]}
    shown = [step for step in steps if step in ("read", "readable", "after_exact", "after_near", "in_mix", *lossy)]
    by_source, by_provenance = survival["by_source"], survival["by_provenance"]
    in_keep_order = [kind.label for kind in Provenance if kind.label in by_provenance]  # a file has another order
    groupings = {
        "source": [*sorted(by_source.items()), ("all", survival["all"])],
        "provenance": [(name, by_provenance[name]) for name in in_keep_order],
    }
    for what, groups in groupings.items():
        rows = []
        for name, group in groups:
            counts = [_survivors(group[step], share=shares and step not in ("read", steps[-1])) for step in shown]
            rows.append([name, *counts, *(_percent(group[steps[-1]][f"{of}_share"]) for of in ("documents", "tokens"))])
        yield what, [*(step.replace("_", " ") for step in shown), "survived", "of tokens"], rows


def _survivors(left: Mapping[str, Any], *, share: bool) -> str:
    """A count, with its share of what was read unless that is all of it."""
    told, percent = f"{left['documents']:,}", _percent(left["documents_share"])
    return f"{told} ({percent})" if share and percent not in ("-", "100.00%") else told


def _percent(share: str | None) -> str:
    """A decimal of the manifest in percent, cut off as it was: what is not all never reads as 100%."""
    if share is None:
        return "-"
    whole, _, decimals = share.partition(".")
    return f"{int(whole + decimals[:2])}.{decimals[2:4]}%"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def write_report(out: str | Path) -> Path:
    """Write OUT/report.html from what lies in OUT; it needs no other file to be read."""
    out = Path(out)
    try:
        manifest = json.loads((out / MANIFEST).read_bytes())
        table = out / "diversity.parquet"
        diversity = pq.ParquetFile(table).read() if table.exists() else None
        baseline = json.loads((out / "baseline.json").read_bytes()) if (out / "baseline.json").exists() else None
        page = _page(manifest, diversity, baseline)
    except _UNREPORTABLE as error:
        raise _no_report(out, error) from None
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def summary_for_the_eu(out: Path) -> str:
    """What a training-data summary can take from the mix in OUT, as Markdown."""
    try:
        return eu_summary(json.loads((out / MANIFEST).read_bytes()), "#")
    except _UNREPORTABLE as error:
        raise _no_report(out, error) from None


_UNREPORTABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException)


def _no_report(out: Path, error: Exception) -> UsageError:
    return UsageError(
        "no_mix",
        f"{out}: no report can be made of it ({type(error).__name__}: {error}). Name the folder of a mix; "
        f"`anchormix verify {out}` says whether it is whole.",
        path=str(out),
    )


def _page(manifest: Mapping[str, Any], diversity: pa.Table | None, baseline: Mapping[str, Any] | None = None) -> str:
    totals, measure = manifest["totals"], manifest["measure"]
    human = manifest["achieved"].get("human_verified", {}).get("overall")
    lead = f"{_share(human)} of {measure} are verified human text" if human else "No floor on verified human text"
    facts = [
        (f"{totals['documents']:,}", "documents"),
        (f"{totals['tokens']:,}", "tokens"),
        (f"{totals['bytes']:,}", "bytes of text"),
        (f"{totals['shards']:,}", "shards"),
    ]
    rules = _rules_table(manifest, frozenset())
    by_provenance = manifest["provenance"]["by_provenance"]
    parts = [
        f"<header><h1>Mix report</h1><p class=lead>{escape(lead)}</p>",
        "<ul class=facts>" + "".join(f"<li><b>{n}</b> {escape(what)}</li>" for n, what in facts) + "</ul></header>",
        _bar(by_provenance, measure),
        _section("Rules", _table(rules[0][:-1], [row[:-1] for row in rules[1]], text=2)),
        _section("Provenance", _totals_table("provenance", by_provenance)),
        _section("Generators", _totals_table("generator", manifest["provenance"]["by_generator"])),
        _section("Verified by", _totals_table("custody method", manifest["provenance"]["by_method"])),
        _section("Vouched for by", _totals_table("issuer", manifest["provenance"].get("by_issuer", {}))),
        _section("Origins", _table(*_origins_table(manifest), text=len(_ORIGIN)) if manifest.get("summary") else ""),
        _section("Sources: every document accounted for", _table(*_sources_table(manifest), last_text=True)),
        _section("Survival: what each step left", _survival(manifest.get("survival"))),
        _section("Duplicates: what gave way to what", _removed(manifest.get("duplicates"))),
        _section("Shards", _shards(manifest)),
        _section("Since the parent: verified text that left", _succession(manifest.get("succession"))),
        _section("Gates", _table(*_gates_table(manifest), text=2) if manifest.get("gates") else ""),
        _section("Compared with human text", baseline_section(baseline, manifest["baseline"]) if baseline else ""),
        _section("Diversity", "".join(_diversity(diversity)) if diversity is not None else ""),
        _section("Held out", _held_out(manifest.get("reference"))),
        _section("Custody", _custody(manifest)),
        _section("Notes", _list(manifest["notes"])),
        _section("Not checked by the run itself", _list(manifest["not_checked"])),
        _section("Identity", _identity(manifest)),
    ]
    body = "\n".join(part for part in parts if part)
    return whole_page("anchormix report", _STYLE + BASELINE_STYLE, body)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _bar(by_provenance: Mapping[str, Mapping[str, int]], measure: str) -> str:
    column = "rows" if measure == "documents" else measure
    amounts = {p.label: by_provenance[p.label][column] for p in Provenance if p.label in by_provenance}
    whole = sum(amounts.values())
    if not whole:
        return ""
    parts = "".join(f'<i class="{name}" style="flex-grow:{amount}"></i>' for name, amount in amounts.items())
    told = (
        f'<li><i class="{name}"></i>{name.replace("_", " ")} {100 * n / whole:.1f}%</li>' for name, n in amounts.items()
    )
    return f"<div class=bar>{parts}</div><ul class=legend>{''.join(told)}</ul>"


def _totals_table(name: str, totals: Mapping[str, Mapping[str, int]]) -> str:
    columns = ("documents", "rows", "tokens", "bytes")
    rows = [[key, *(f"{total[column]:,}" for column in columns)] for key, total in sorted(totals.items())]
    return _table([name, *columns], rows) if rows else ""


_SURVIVAL_TOLD = (
    "Documents, with their share of what was read; the last two columns are the shares of documents and tokens that "
    "are left at the end. A document that the mix repeats counts once."
)
_REMOVED_TOLD = (
    "Every removed document has a witness that stayed: verified text before human, human before unknown, synthetic "
    "last. What stayed keeps its own provenance and evidence, and inherits nothing."
)


def _survival(survival: Mapping[str, Any] | None) -> str:
    found = _survival_tables(survival, shares=True)
    tables = "".join(f"<h3>By {what}</h3>" + _table(["", *headings], rows) for what, headings, rows in found)
    return f"<p>{escape(_SURVIVAL_TOLD)}</p>{tables}" if tables else ""


def _removed(duplicates: Mapping[str, Any] | None) -> str:
    rows = [
        [kind.replace("_", " "), pair["kept"], pair["removed"], f"{pair['documents']:,}", f"{pair['tokens']:,}"]
        for kind in KINDS
        for pair in (duplicates or {}).get(kind, ())
    ]
    table = _table(["duplicate", "stayed", "gave way", "documents", "tokens"], rows, text=3) if rows else ""
    return f"<p>{escape(_REMOVED_TOLD)}</p>{table}" if table else ""


def _succession(succession: Mapping[str, Any] | None) -> str:
    if not succession:
        return ""
    old, lost, came = (succession[name] for name in ("old", "lost", "came"))
    told = (
        f"The parent holds {_count(old['documents'], 'verified document')} ({old['tokens']:,} tokens). Lost: "
        f"{lost['documents']:,} ({lost['tokens']:,} tokens). Came: {came['documents']:,} ({came['tokens']:,} tokens)."
    )
    rows = [
        [entry["source"], entry["why"], entry["reason"] or "", entry["counts_as"].replace("_", " ")]
        + [f"{entry[what]:,}" for what in ("documents", "tokens")]
        for entry in succession["gone"]
    ]
    table = _table(["source", "why", "reason", "counts as", "documents", "tokens"], rows, text=4) if rows else ""
    return f"<p>{escape(told)}</p>{table}"


def _shards(manifest: Mapping[str, Any]) -> str:
    measure = manifest["measure"]
    column = "rows" if measure == "documents" else measure
    rows = [
        [
            shard["path"],
            f"{shard['rows']:,}",
            f"{shard['tokens']:,}",
            f"{shard['row_groups']:,}",
            _share({"numerator": shard["human_verified"], "denominator": shard[column]}),
            shard["sha256"][:16],
        ]
        for shard in manifest["shards"]
    ]
    return _table(["shard", "rows", "tokens", "row groups", f"human verified, of {measure}", "sha256"], rows)


def _diversity(table: pa.Table) -> Iterable[str]:
    """Per scope a table for each group of metrics: a row per name; hovering over a number says how it was measured."""
    scopes: dict[str, dict[str, dict[str, str]]] = {}
    for row in table.to_pylist():
        told = f"n = {row['n']:,}, {row['method']}"
        cell = f'<span title="{escape(told)}">{_number(row["value"])}</span>'
        scopes.setdefault(row["scope"], {}).setdefault(row["name"], {})[row["metric"]] = cell
    for scope in sorted(scopes, key=lambda scope: (list(_SCOPES).index(scope) if scope in _SCOPES else 99, scope)):
        names = scopes[scope]
        measured = {metric for cells in names.values() for metric in cells}
        yield f"<h3>{escape(_SCOPES.get(scope, scope))}</h3>"
        for heading, metrics in _grouped(measured):
            rows = [[escape(name or "-"), *(cells.get(m, "") for m in metrics)] for name, cells in names.items()]
            yield _table([heading, *metrics], rows[:_MOST_ROWS], raw=True)
        if len(names) > _MOST_ROWS:
            yield f"<p>{len(names) - _MOST_ROWS:,} more stand in diversity.parquet.</p>"


def _grouped(measured: set[str]) -> Iterator[tuple[str, list[str]]]:
    """The metrics of each group of alarms, in the order of metric_names; what another version measured comes last."""
    known: set[str] = set()
    for group, heading in ALARM_GROUPS.items():
        metrics = [metric for metric in metric_names.GROUPS[group] if metric in measured]
        known.update(metrics)
        if metrics:
            yield heading, metrics
    if measured - known:
        yield "Others", sorted(measured - known)


def _number(value: float) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def _custody(manifest: Mapping[str, Any]) -> str:
    used = manifest["custody"]
    columns = list(dict.fromkeys(name for entry in used for name in entry))
    rows = [[_plain(entry.get(name)) for name in columns] for entry in used]
    return _table(columns, rows, text=len(columns)) if rows else ""


_HELD_OUT_TOLD = (
    "Documents that have the text of these files, or are near it, are not mixed; the written shards were searched for "
    "them once more."
)


def _held_out(reference: Mapping[str, Any] | None) -> str:
    rows = [
        [file["shard"], f"{file['documents']:,}", f"{file['bytes']:,}", (file["sha256"] or "-")[:16]]
        for file in (reference or {}).get("files", ())
    ]
    table = _table(["file", "documents", "bytes", "sha256"], rows[:_MOST_ROWS]) if rows else ""
    more = f"<p>{len(rows) - _MOST_ROWS:,} more stand in manifest.json.</p>" if len(rows) > _MOST_ROWS else ""
    return f"<p>{escape(_HELD_OUT_TOLD)}</p>{table}{more}" if rows else ""


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _identity(manifest: Mapping[str, Any]) -> str:
    names = ["logical_digest", "plan", "config_digest", "input_digest", "seed", "as_of", "parent", "code_version"]
    names += ["tokens", "size", "epochs"]
    rows = [[name.replace("_", " "), _plain(manifest[name])] for name in names if manifest[name] not in (None, {})]
    return _table(["", ""], rows, text=2)


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(str(line))}</li>" for line in lines) + "</ul>" if lines else ""


def _table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text: int = 1,
    last_text: bool = False,
    raw: bool = False,
) -> str:
    """The first `text` columns, and with `last_text` the last one, hold words; the others hold numbers."""

    def cells(tag: str, values: Sequence[str], quoted: bool) -> str:
        made = []
        for place, value in enumerate(values):
            words = place < text or (last_text and place == len(values) - 1)
            made.append(f"<{tag}{'' if words else ' class=n'}>{escape(value) if quoted else value}</{tag}>")
        return f"<tr>{''.join(made)}</tr>"

    head = f"<thead>{cells('th', headings, True)}</thead>" if any(headings) else ""
    body = "".join(cells("td", row, not raw) for row in rows)
    return f"<div class=wide><table>{head}<tbody>{body}</tbody></table></div>"


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2125; --soft: #667079; --line: #dfe3e6; --paper: #fff; --row: #f6f7f8;
  --human_verified: #1f7a4d; --human: #66b28a; --ai_assisted: #d9a441; --unknown: #a9b0b7; --disputed: #c4574e;
  --synthetic: #6b7fd7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --soft: #98a1a9; --line: #343a40; --paper: #16191c; --row: #1e2226;
    --human_verified: #3fae76; --human: #7cc7a0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 1rem; font-weight: 600; color: var(--soft); letter-spacing: .02em; }
.lead { margin: .2rem 0 1rem; font-size: 1.9rem; line-height: 1.2; font-weight: 650; }
h2 { margin: 2.5rem 0 .6rem; font-size: 1.15rem; }
h3 { margin: 1.4rem 0 .4rem; font-size: .95rem; color: var(--soft); font-weight: 600; }
.facts, .legend { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: 0 0 1.2rem; padding: 0; list-style: none; }
.facts b { font-variant-numeric: tabular-nums; }
.bar { display: flex; height: 1.1rem; margin-bottom: .6rem; border-radius: .3rem; overflow: hidden; gap: 1px; }
.bar i { flex-basis: 0; min-width: 2px; }
.legend { color: var(--soft); font-size: .9rem; }
.legend i { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; border-radius: .15rem; }
.human_verified { background: var(--human_verified); } .human { background: var(--human); }
.ai_assisted { background: var(--ai_assisted); } .unknown { background: var(--unknown); }
.disputed { background: var(--disputed); } .synthetic { background: var(--synthetic); }
.wide { overflow-x: auto; } .wide + .wide { margin-top: .8rem; }
table { border-collapse: collapse; font-size: .9rem; min-width: 30rem; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td { overflow-wrap: break-word; max-width: 22rem; }
td:first-child { min-width: 7rem; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tbody tr:hover { background: var(--row); }
"""
