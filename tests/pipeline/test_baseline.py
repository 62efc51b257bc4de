"""Compared with held-out human text, as a user sees it: in tables, the manifest, the verdict, the page, and gates."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from runs import PublishedMix, anchormix
from scipy.stats import false_discovery_control

from pipeline.baselines import domain_of, judge_baselines, summary_of
from pipeline.cli import main
from pipeline.report_baseline import baseline_lines
from pipeline.samples import write_rows
from transforms.kernels import metric_names
from transforms.kernels.diversity import language_key
from transforms.kernels.diversity.baseline import MEASURES
from transforms.kernels.diversity.reference import RARE_BANDS, band_name

WORKS = 12


def work(draws: np.random.Generator, words: int = 1500, length: int = 60) -> list[str]:
    """Documents of one work: a Zipf law, and topics of its own."""
    vocabulary = 20_000
    weights = 1 / (np.arange(1, vocabulary + 1) + 2.0)
    weights[draws.integers(100, vocabulary, 40)] += weights[100]
    ids = draws.choice(vocabulary, words, p=weights / weights.sum())
    named = [f"w{word}" for word in ids.tolist()]
    return [" ".join(named[start : start + length]) for start in range(0, words, length)]


def resampled(documents: Sequence[str], generations: int, draws: np.random.Generator) -> list[str]:
    pool = " ".join(documents).split()
    for _ in range(generations):
        pool = draws.choice(pool, len(pool)).tolist()
    return [" ".join(pool[start : start + 60]) for start in range(0, len(pool), 60)]


def write(folder: Path, name: str, texts: Sequence[str], language: str = "en") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / f"{name}.jsonl", [{"text": text, "language": language} for text in texts])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draws = tmp_path_factory.mktemp("baseline"), np.random.default_rng(7)
    for number in range(WORKS):
        write(folder / "reference" / "press", f"work-{number}", work(draws))
    for number in range(6):
        write(folder / "press", f"human-{number}", work(draws))
    for number in range(2):
        write(folder / "press", f"resampled-{number}", resampled(work(draws), 12, draws))
    write(folder / "other", "fr", work(draws), "fr")
    write(folder / "other", "small", ["only a few words"])
    config = {
        "version": 1,
        "output": "out/mix",
        "index": "out/index",
        "sources": [{"name": name, "files": [f"{name}/*.jsonl"], "declare": "human"} for name in ("press", "other")],
        "diversity": {"reference": ["reference/*/*.jsonl"]},
        "mix": {"floors": {"human_verified": 0}, "shards": 2},
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def told(project: Path) -> Any:
    told = anchormix("run", project / "mix.yaml")
    assert told.exit == 0, told.stderr
    return told


def rows_of(out: Path) -> dict[tuple[str, str], dict[str, tuple[float, int, str]]]:
    found: dict[tuple[str, str], dict[str, tuple[float, int, str]]] = {}
    for row in pq.read_table(out / "diversity.parquet").to_pylist():
        found.setdefault((row["scope"], row["name"]), {})[row["metric"]] = (row["value"], row["n"], row["method"])
    return found


def test_resampled_shards_differ_and_human_ones_do_not(told: Any, project: Path) -> None:
    rows = rows_of(project / "out/mix")
    shards = {name: of for (scope, name), of in rows.items() if scope == "input_shard"}
    differ = {name for name, of in shards.items() if of.get("differs_from_baseline", (0,))[0]}
    assert differ == {"press/resampled-0.jsonl", "press/resampled-1.jsonl"}
    p = {name: of["baseline_p"][0] for name, of in shards.items() if "baseline_p" in of}
    assert set(p) == {name for name in shards if name.startswith("press/")}
    q = dict(zip(p, false_discovery_control(list(p.values())), strict=True))
    for name, of in shards.items():
        if name in q:
            assert of["baseline_q"][0] == pytest.approx(q[name], rel=1e-3)
            assert of["baseline_q"][2] == "Benjamini-Hochberg over 8"
            assert of["baseline_p"][1:] == (1024, f"max-T over 9 metrics, {WORKS} files")
    assert shards["press/resampled-0.jsonl"]["baseline_effect"][0] > 0.3
    assert told.line["baseline"]["input_shard"]["differing"] == 2


def test_metrics_against_the_reference_are_measured_where_there_is_one(told: Any, project: Path) -> None:
    rows = rows_of(project / "out/mix")
    whole = rows["input_shard", "press/human-0.jsonl"]
    assert {band_name(band) for band in RARE_BANDS} == {
        name.removeprefix("tail_coverage_") for name in whole if name.startswith("tail_coverage_")
    }
    for name in metric_names.HELD_OUT:
        assert name in whole
        assert name not in rows["reference", "all"]
        assert name not in rows["input_shard", "other/fr.jsonl"]
        assert name not in rows["input_shard", "other/small.jsonl"]
    worse = rows["input_shard", "press/resampled-0.jsonl"]
    assert worse["tail_coverage"][0] < whole["tail_coverage"][0]
    assert worse["jsd_reference"][0] > whole["jsd_reference"][0]
    assert worse["missing_rare_1"][0] > whole["missing_rare_1"][0]
    assert {scope for (scope, _), of in rows.items() if "baseline_p" in of} <= set(metric_names.BASELINE_SCOPES)
    measured = {name for of in rows.values() for name in of}
    assert measured == {*metric_names.CORE, *metric_names.HELD_OUT}


def test_what_has_no_baseline_is_said(told: Any) -> None:
    summary = told.line["baseline"]
    reasons = {
        "no held-out text of language fr": 1,
        "fewer than 1,024 words, which is the least that is compared": 1,
    }
    assert summary["input_shard"]["no_baseline"] == reasons
    lines = list(baseline_lines(summary))
    first = lines[0]
    assert first.startswith("2 of 8 input shards differ from the human baseline (press/resampled-")
    assert re.search(r"below the usual, [0-9,]+ words without w", first)
    assert "no baseline for 1 input shard, 1 source: no held-out text of language fr" in lines
    alike = next(line for line in lines if line.startswith("no difference from the human baseline: "))
    assert alike.endswith("the mix")
    for word in ("collapse", "synthetic"):
        assert not any(word in line for line in lines)


def test_many_reasons_and_odd_languages_do_not_flood_or_drive_a_terminal() -> None:
    names = [f"\x1b[31m{number}" for number in range(30)]
    told = [{"language": language_key(name), "of_words": 1.0, "none": "language"} for name in names]
    shards = [
        {"scope": "input_shard", "name": f"s{n:02d}", "values": [], "baseline": {**one}} for n, one in enumerate(told)
    ]
    languages = [{"scope": "language", "name": name, "values": []} for name in names]
    judged = judge_baselines([json.dumps(row).encode() for row in (*shards, *languages)])
    assert judged.found[0]["none"] == "no held-out text of language \\x1b[31m0"
    lines = list(baseline_lines(summary_of(judged.found)))
    assert len(lines) == 1
    assert lines[0].startswith("no baseline for 30 input shards: no held-out text of language \\x1b[31m0, ")
    assert lines[0].endswith(" and 25 more")
    assert lines[0].isprintable()


def test_the_page_shows_what_vanished(told: Any, project: Path) -> None:
    page = (project / "out/mix/report.html").read_text()
    baseline = json.loads((project / "out/mix/baseline.json").read_text())
    entry = next(entry for entry in baseline["scopes"] if entry.get("differs"))
    assert len(entry["absent"]) > 0
    reference = " ".join(path.read_text() for path in (project / "reference").rglob("*.jsonl"))
    own = (project / entry["name"]).read_text().split() if entry["scope"] == "input_shard" else []
    for word in entry["absent"]:
        assert f"<q>{word}</q>" in page
        assert f"{word} " in reference
        assert word not in own
    assert "Compared with human text" in page
    assert "Tails: what goes first" in page
    assert "Repetition: what shows late" in page
    assert f"<td class=n>{entry['measures']['types']['value']:,.0f}</td>" in page
    plain = CliRunner().invoke(main, ["report", str(project / "out/mix")])
    assert plain.exit_code == 0
    assert (project / "out/mix/report.html").read_text() == page


def test_a_gate_on_the_baseline_stops_the_run(told: Any, project: Path, tmp_path: Path) -> None:
    gate = '[{"metric": "differs_from_baseline", "scope": "input_shard", "above": 0}]'
    changed = ("--set", f"diversity.fail_if={gate}", "--set", f"output={tmp_path / 'mix'}")
    stopped = anchormix("run", project / "mix.yaml", *changed)
    assert (stopped.exit, stopped.code) == (6, "diversity_gate"), stopped.stderr
    assert "press/resampled-0.jsonl: 1 " in stopped.message
    assert "press/human" not in stopped.message
    assert not (tmp_path / "mix").exists()


def test_however_work_is_split_the_comparison_is_the_same(
    told: Any, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    shutil.copytree(project, again, ignore=shutil.ignore_patterns("out"))
    monkeypatch.setenv("ANCHORMIX_BATCH_ROWS", "7")
    monkeypatch.setenv("ANCHORMIX_EXCHANGE", "shuffle")
    mixed = anchormix("run", again / "mix.yaml", beam=("--direct_num_workers=2",))
    assert mixed.exit == 0, mixed.stderr
    for name in ("baseline.json", "diversity.parquet", "manifest.json"):
        assert (again / "out/mix" / name).read_bytes() == (project / "out/mix" / name).read_bytes(), name


def test_without_held_out_text_there_is_no_comparison(project: Path, tmp_path: Path) -> None:
    changes = (
        "--set",
        "diversity.reference=",
        "--set",
        f"output={tmp_path / 'mix'}",
        "--set",
        f"index={tmp_path / 'i'}",
    )
    plain = anchormix("run", project / "mix.yaml", *changes)
    assert plain.exit == 0, plain.stderr
    assert plain.line["baseline"] == {}
    assert not (tmp_path / "mix" / "baseline.json").exists()
    assert "Compared with human text" not in PublishedMix(tmp_path / "mix").folder.joinpath("report.html").read_text()
    gate = '[{"metric": "baseline_p", "scope": "mix", "below": 0.01}]'
    refused = anchormix("check", project / "mix.yaml", "--set", f"diversity.fail_if={gate}", *changes)
    assert (refused.exit, refused.code) == (2, "bad_value")
    assert "diversity.reference" in refused.message


@given(st.lists(st.tuples(st.floats(1e-6, 1), st.booleans()), min_size=1, max_size=12))
def test_what_differs_is_unlikely_and_large(found: list[tuple[float, bool]]) -> None:
    def report(number: int, p: float, large: bool) -> bytes:
        measures = {measure.name: {"effect": 0.5} for measure in MEASURES}
        told = {"language": 0, "p": p, "is_large": large, "size": 1024, "works": 9, "driver": "types"}
        row = {
            "scope": "input_shard",
            "name": f"s{number:02d}",
            "values": [],
            "baseline": {**told, "measures": measures},
        }
        return json.dumps(row).encode()

    judged = judge_baselines([report(number, *one) for number, one in enumerate(found)])
    q = false_discovery_control([p for p, _ in found])
    for number, (value, (_, large)) in enumerate(zip(q, found, strict=True)):
        entry = judged.found[number]
        assert entry["q"] == pytest.approx(value, rel=1e-3)
        assert entry["differs"] == (entry["q"] <= 0.05 and large)
    assert len(judged.reports) == len(found)
    assert judged.differing == [entry for entry in judged.found if entry["differs"]]


def test_domains_are_folders_of_the_name_of_a_source() -> None:
    names = ("a.jsonl", "press/a.jsonl", "press/2020/a.jsonl", "2020/press/a.jsonl")
    assert [domain_of(name, ["press", "web"]) for name in names] == ["", "press", "press", ""]
