"""Held-out human text: read like a source, measured, and never mixed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import corpus
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner
from projects import run, write_project
from runs import PublishedMix, anchormix

from pipeline.cli import main
from pipeline.samples import write_rows


def write_reference(folder: Path, texts: dict[str, list[str]]) -> None:
    """One file a language."""
    for language, of_language in texts.items():
        (folder / "reference").mkdir(parents=True, exist_ok=True)
        rows = [{"text": text, "language": language} for text in of_language]
        write_rows(folder / "reference" / f"{language}.jsonl", rows)


def reference_project(
    folder: Path, sources: dict[str, list[str]], reference: dict[str, list[str]], **changes: Any
) -> Path:
    write_reference(folder, reference)
    diversity = {"reference": ["reference/*.jsonl"], **changes.pop("diversity", {})}
    return write_project(folder, sources, diversity=diversity, **changes)


def made_texts(rng: random.Random, count: int, language: str = "en", size: int = 80) -> list[str]:
    return [corpus.make_document(rng, size, language).text for _ in range(count)]


def metrics(mix: PublishedMix) -> dict[tuple[str, str], dict[str, tuple[float, int, str]]]:
    found: dict[tuple[str, str], dict[str, tuple[float, int, str]]] = {}
    for row in pq.read_table(mix.folder / "diversity.parquet").to_pylist():
        found.setdefault((row["scope"], row["name"]), {})[row["metric"]] = (row["value"], row["n"], row["method"])
    return found


@pytest.mark.parametrize("which", ["core", "full"])
def test_the_reference_is_measured_like_any_text_and_not_mixed(which: str, tmp_path: Path) -> None:
    rng = random.Random(1)
    reference = {"en": made_texts(rng, 30), "ru": made_texts(rng, 20, "ru")}
    own = made_texts(rng, 10)
    changes = {"diversity": {"metrics": which}}
    mix = run(reference_project(tmp_path / "held", {"human": own}, reference, **changes))
    as_source = dict(reference)
    told = run(write_project(tmp_path / "read", as_source, **changes))

    assert sorted(row["text"] for row in mix.rows) == sorted(own)
    measured, wanted = metrics(mix), metrics(told)
    scopes = {("reference", "all"): ("corpus", "all")}
    scopes |= {("reference", f"language:{language}"): ("source", language) for language in reference}
    assert {scope for scope in measured if scope[0] == "reference"} == set(scopes)
    for scope, same in scopes.items():
        expected = {name: value for name, value in wanted[same].items() if name != "near_duplicate_rate"}
        assert measured[scope] == expected
    assert measured["reference", "all"]["documents"][0] == 50
    assert measured["corpus", "all"]["documents"][0] == 10  # of what is held out no other scope knows
    page = (mix.folder / "report.html").read_text()
    assert "Reference, never mixed" in page
    assert "language:ru" in page


def test_another_reference_reads_no_source_again(tmp_path: Path) -> None:
    rng = random.Random(2)
    config = write_project(tmp_path, {"web": made_texts(rng, 4)})
    assert anchormix("index", config).line["rebuilt"] == ["facts", "edges", "fates"]
    write_reference(tmp_path, {"en": made_texts(rng, 4)})
    plain = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**plain, "diversity": {"reference": ["${REFERENCE:-reference}/*.jsonl"]}}))
    assert anchormix("index", config).line["rebuilt"] == ["edges", "fates"]
    assert anchormix("index", config).line["rebuilt"] == []
    assert anchormix("run", config).exit == 0
    write_rows(tmp_path / "reference" / "more.jsonl", [{"text": text} for text in made_texts(rng, 2)])
    plan = anchormix("plan", config)
    assert (plan.exit, plan.code) == (2, "stale_index")
    told = anchormix("run", config)  # what was measured against is part of what was published
    assert (told.exit, told.code) == (2, "output_exists")


@pytest.mark.parametrize(
    ("content", "exit_code", "code", "words"),
    [
        (None, 2, "no_files", ["diversity.reference", "matches no file", "leave the pattern out"]),
        ('{"text": "fine"}\n{"text": 7}\n', 5, "bad_records", ["en.jsonl", "row 1", "diversity.reference: "]),
        ('{"stuff": 1}\n', 2, "missing_column", ["diversity.reference: ", "en.jsonl", "give the one"]),
    ],
)
def test_a_reference_that_cannot_be_read_is_told_by_its_key(
    content: str | None, exit_code: int, code: str, words: list[str], tmp_path: Path
) -> None:
    config = reference_project(tmp_path, {"web": ["a text of its own"]}, {"en": ["another text"]})
    file = tmp_path / "reference" / "en.jsonl"
    file.unlink()
    if content is not None:
        file.write_text(content)
    told = anchormix("index", config)
    assert (told.exit, told.code) == (exit_code, code), told.stderr
    for word in words:
        assert word in told.message
    if code != "bad_records":  # `check` reads no more than the first rows
        checked = anchormix("check", config)
        assert (checked.exit, checked.code, checked.message) == (exit_code, code, told.message)
    # What no reading can mend is told before anything is read.
    assert (tmp_path / "out" / "index" / "facts.json").exists() == (code != "no_files")


def test_check_shows_the_reference(tmp_path: Path) -> None:
    config = reference_project(tmp_path, {"web": ["a text of its own"]}, {"en": ["another text"], "fr": ["un texte"]})
    told = anchormix("check", config)
    size = sum(path.stat().st_size for path in (tmp_path / "reference").iterdir())
    assert told.line["reference"] == {"shards": 2, "bytes": size}
    plain = CliRunner().invoke(main, ["check", str(config)])
    assert f"reference: 2 shards, {size} bytes" in plain.stdout.splitlines()


def test_a_reference_needs_neither_counts_of_tokens_nor_scores(tmp_path: Path) -> None:
    changes = {"tokens": {"column": "count"}, "evidence": {"detectors": ["score"]}}
    config = reference_project(tmp_path, {"web": []}, {"en": ["words that somebody wrote and nobody mixes"]}, **changes)
    write_rows(tmp_path / "web" / "part.jsonl", [{"text": "a text of its own", "count": 7, "score": 0.5}])
    assert anchormix("check", config).exit == 0
    mix = run(config)
    assert [row["n_tokens"] for row in mix.rows] == [7]
    assert metrics(mix)["reference", "all"]["tokens"][0] == 7
