"""What people read of a mix says what the manifest says, and nothing in the data can break out of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mixes
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.cards import dataset_card, write_cards
from pipeline.croissant import croissant
from pipeline.errors import UsageError
from pipeline.manifest import RuleClaim
from pipeline.report import (
    Screen,
    _diversity,
    _page,
    plan_table,
    survival_tables,
    verdict_table,
    verification_table,
    write_report,
)
from pipeline.survival import duplicates, survival
from pipeline.verify import verify_mix
from transforms.kernels import metric_names
from transforms.kernels.bands import told_bands

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> mixes.Mix:
    shards = mixes.default_shards()
    for row in (row for rows in shards for row in rows):
        row["generator"] = row["generator"] and EVIL
    caps = [RuleClaim("synthetic", Fraction(3, 10), by="generator"), RuleClaim("rephrase", amount=100)]
    made = mixes.write_mix(tmp_path_factory.mktemp("report"), shards, caps=caps)
    values = [("mix", "", "types", 40.0, 40, "exact"), ("source", EVIL, "types", 0.5, 7, "bottom-65536")]
    columns = list(zip(*values, strict=True))
    names = ["scope", "name", "metric", "value", "n", "method"]
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), made.out / "diversity.parquet")
    return made


def manifest_of(mix: mixes.Mix) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((mix.out / "manifest.json").read_bytes())
    return manifest


def test_the_verdict_names_rules_sources_and_what_was_not_checked(mix: mixes.Mix) -> None:
    verification = verify_mix(mix.out, workers=2)
    plan = {"rules": [{"kind": "floor", "of": "human_verified", "by": None, "binds": True}]}
    told = verdict_table(manifest_of(mix), verification, plan, "out/mix", color=False)
    lines = told.splitlines()
    assert lines[0].startswith("PASS  40 documents")
    floor = next(line.split() for line in lines if line.startswith("human_verified"))
    assert floor == ["human_verified", "at", "least", "50%", "51.85%", "51.85%", "51.85%", "yes"]
    assert any("rephrase" in line and "not recounted" in line for line in lines)
    assert any(line.split()[:5] == ["press", "22", "1", "1", "20"] for line in lines)
    assert "Not checked" in lines
    assert "anchormix verify out/mix" in lines[-1]
    assert "\x1b[" not in told
    assert "\x1b[" in verdict_table(manifest_of(mix), verification, plan, "out/mix", color=True)


def test_a_failure_names_level_and_finding(mix: mixes.Mix) -> None:
    verification = verify_mix(mix.out, floors=[("human_verified", Fraction(9, 10))], workers=2)
    told = verification_table(verification, color=False)
    assert told.startswith("FAIL")
    assert "floor_broken: expected at least 9/10" in told
    assert verification.logical_digest in told


@pytest.mark.parametrize(
    ("share", "counted", "shown"),
    [(Fraction(1, 2), (4_999_999, 10_000_000), "49.99%"), (Fraction(1, 3), (1, 3), "33.33%")],
)
def test_a_broken_rule_never_reads_as_kept(share: Fraction, counted: tuple[int, int], shown: str) -> None:
    rule = {"kind": "floor", "name": "human", "of": "human", "by": None, "group": None, "binds": True}
    rule |= {
        "share": str(share),
        "amount": None,
        "achieved": dict(zip(("numerator", "denominator"), counted, strict=True)),
    }
    verified = {"share": [1, 2], "unique": [1, 3], "effective": 0.4, "r_star": 15.387756}
    plan = {"measure": "tokens", "size": 2, "strata": [], "rules": [rule], "notes": ["merged"]}
    plan |= {"other_strata": {"strata": 0}, "verified": verified}
    told = plan_table(plan, [{"floor": "1/2", "largest": 1000}], color=False)
    assert shown in told
    assert "1,000" in told
    assert "near-duplicates" not in told
    banded = plan_table(plan, [], bands=told_bands(0.8, 128), color=False)
    assert "18 bands of 7 rows" in banded
    assert "0.9855 at Jaccard 0.8 and 0.9990 at 0.85" in banded
    cap = {**plan, "rules": [{**rule, "kind": "cap"}]}
    assert shown not in plan_table(cap, [], color=False)


CELLS = [
    ["unknown", "kept", 5, 500],
    ["unknown", "near_duplicate", 2, 200],
    ["human_verified", "kept", 3, 300],
    ["human_verified", "excluded", 1, 1],
]


def test_survival_is_shown_step_by_step_in_the_terminal() -> None:
    accounts = [{"source": "web", "cells": CELLS[:2]}, {"source": "press", "cells": CELLS[2:]}]
    taken = {("web", "unknown"): (2, 200), ("press", "human_verified"): (3, 300)}
    told = survival(accounts, ["web", "press", "nothing"], taken)
    shuffled = json.loads(json.dumps(told, sort_keys=True))
    assert survival_tables(shuffled, color=False) == survival_tables(told, color=False)
    lines = [line.split() for line in survival_tables(shuffled, color=False).splitlines() if line]
    heading = "documents read readable after exact after near after exclusions in mix survived of tokens"
    assert " ".join(lines[0]) == heading, "a step that took nothing, such as after_against, is not shown"
    assert lines[1:] == [
        ["nothing", *["0"] * 6, "-", "-"],
        ["press", "4", "4", "4", "4", "3", "3", "75.00%", "99.66%"],
        ["web", "7", "7", "7", "5", "5", "2", "28.57%", "28.57%"],
        ["all", "11", "11", "11", "9", "8", "5", "45.45%", "49.95%"],
        ["human_verified", "4", "4", "4", "4", "3", "3", "75.00%", "99.66%"],
        ["unknown", "7", "7", "7", "5", "5", "2", "28.57%", "28.57%"],
    ]
    assert "in mix" not in survival_tables(survival(accounts, ["web", "press"]), color=False)


def test_the_page_shows_survival_and_what_gave_way(mix: mixes.Mix) -> None:
    accounts = [{"source": EVIL, "cells": CELLS, "duplicates": [["near_duplicate", "human_verified", "unknown", 2, 9]]}]
    manifest = manifest_of(mix)
    manifest["survival"] = survival(accounts, [EVIL], {(EVIL, "unknown"): (2, 200)})
    manifest["duplicates"] = duplicates(accounts)
    page = _page(manifest, None)
    for cell in ("9 (81.81%)", "2", "18.18%", "19.98%"):
        assert f"<td class=n>{cell}</td>" in page
    assert "<td>near</td><td>human_verified</td><td>unknown</td><td class=n>2</td><td class=n>9</td>" in page
    assert EVIL not in page
    for name in ("survival", "duplicates"):
        del manifest[name]
    older = _page(manifest, None)
    assert "Survival" not in older
    assert "gave way" not in older


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str | None] = []
        self.open = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.open += tag not in ("meta", "br")

    def handle_endtag(self, tag: str) -> None:
        self.open -= 1


def test_the_page_stands_alone_and_quotes_everything(mix: mixes.Mix) -> None:
    path = write_report(mix.out)
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    assert path == mix.out / "report.html"
    assert "script" not in page.tags
    assert page.links == []
    assert "url(" not in text
    assert page.open == 0
    assert "51.85% of tokens are verified human text" in text
    assert "bottom-65536" in text
    assert write_report(mix.out).read_text(encoding="utf-8") == text


def test_the_page_shows_metrics_by_alarm() -> None:
    rows = [(scope, "all", metric) for scope in ("mix", "corpus") for metric in metric_names.METRICS]
    columns: dict[str, Any] = dict(zip(("scope", "name", "metric"), zip(*rows, strict=True), strict=True))
    alike = {"value": [0.5] * len(rows), "n": [7] * len(rows), "method": ["exact"] * len(rows)}
    page = "".join(_diversity(pa.table(columns | alike)))
    headings = re.findall(r"<th>(.*?)</th>|<th class=n>(.*?)</th>", page)
    per_scope = [
        *("Tails: what goes first", *metric_names.GROUPS["tails"]),
        *("Repetition: what shows late", *metric_names.GROUPS["repetition"]),
        *("Style and shape", *metric_names.GROUPS["shape"]),
        *("Among human works", *metric_names.GROUPS["baseline"]),
    ]
    assert [first or second for first, second in headings] == per_scope * 2
    assert sorted(metric for group in metric_names.GROUPS.values() for metric in group) == sorted(metric_names.METRICS)


def test_names_cannot_write_to_the_terminal() -> None:
    screen = Screen(color=False)
    screen.table(["generator", "documents"], [["a\x1b[2J\nPASS", "7"]])
    shown = screen.text()
    assert "a\\x1b[2J\\nPASS" in shown
    assert "\x1b" not in shown


def test_a_folder_without_manifest_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no report"):
        write_report(tmp_path)


def _front(card: str) -> Mapping[str, Any]:
    front: Mapping[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return front


def test_the_card_has_the_front_matter_of_the_hub(mix: mixes.Mix) -> None:
    manifest = manifest_of(mix)
    front = _front(dataset_card(manifest))
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    assert front["license"] == "cc-by-4.0"
    assert front["language"] == ["de", "en"]
    assert front["size_categories"] == ["n<1K"]
    assert "synthetic" in front["tags"]
    del manifest["provenance"]["by_provenance"]["synthetic"]
    manifest |= {"licenses": {"MIT": 1, "CC0-1.0": 2}, "languages": {"no": 3, "Klingon (old)": 9}}
    manifest["totals"]["rows"] = 1000
    front = _front(dataset_card(manifest))
    assert "synthetic" not in front["tags"]
    assert front["license"] == ["unknown", "cc0-1.0", "mit"]
    assert front["language"] == ["no"]
    assert front["size_categories"] == ["1K<n<10K"]


def test_croissant_lists_every_shard_and_column(mix: mixes.Mix) -> None:
    write_cards(mix.out, manifest_of(mix))
    told = json.loads((mix.out / "croissant.json").read_bytes())
    assert told == croissant(manifest_of(mix), ["title"])
    assert told["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    files = {entry["@id"]: entry.get("sha256") for entry in told["distribution"]}
    assert {f"data/{name}" for name in mix.names} < files.keys()
    assert all(files[shard["path"]] == shard["sha256"] for shard in manifest_of(mix)["shards"])
    assert [field["name"] for field in told["recordSet"][0]["field"]] == mixes.SCHEMA.names
