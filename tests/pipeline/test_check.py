"""What `check` says of a config is what `run` would find, or it says that it does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import corpus
import pytest
from click.testing import CliRunner
from runs import Told, anchormix

from pipeline import check
from pipeline.attest import write_keypair
from pipeline.cli import main
from pipeline.samples import write_rows
from transforms.kernels.bands import told_bands


def checked(config: Path) -> dict[str, Any]:
    told = anchormix("check", config)
    assert told.exit == 0, told.stderr
    return told.line


def source(line: dict[str, Any], name: str) -> dict[str, Any]:
    return next(dict(found) for found in line["sources"] if found["source"] == name)


def failing(config: Path) -> Told:
    told = anchormix("check", config)
    assert told.exit != 0
    return told


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A config with a source of JSON lines whose `licence` column stands in the last record only."""
    corpus.minimal_config(tmp_path)
    records = [json.dumps({"text": f"Record number {n}."}) for n in range(200)]
    records.append(json.dumps({"text": "The last one.", "licence": "MIT"}))
    (tmp_path / "shards" / "late.jsonl").write_text("\n".join(records) + "\n")
    return tmp_path


def late(directory: Path, column: str) -> Path:
    added = {"late": {"files": ["shards/late.jsonl"], "columns": {"license": column}}}
    return corpus.minimal_config(directory, sources=added)


def test_a_named_column_that_json_lines_lack_stops_the_check(lines: Path) -> None:
    told = failing(late(lines, "licenze"))
    assert (told.exit, told.code) == (2, "missing_column")
    assert "'licenze'" in told.message


def test_a_named_column_that_comes_late_is_found_or_warned_about(lines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = late(lines, "licence")
    assert source(checked(config), "late")["hints"] == []
    monkeypatch.setattr(check, "missing_columns", lambda *_: ["there is no column 'licence'"])
    monkeypatch.setattr(check, "_LARGEST_READ", 10)
    (hint,) = source(checked(config), "late")["hints"]
    assert "'licence'" in hint


def test_every_shard_of_a_source_with_custody_is_judged(tmp_path: Path) -> None:
    config = corpus.minimal_config(tmp_path)
    verdicts = source(checked(config), "press")["custody"]
    assert {name: told["verdict"] for name, told in verdicts.items()} == {
        "press-0.parquet": "verified",
        "press-1.parquet": "verified",
    }
    write_rows(tmp_path / "shards" / "press" / "press-9.parquet", [{"id": "x", "text": "A new one.", "language": "en"}])
    assert source(checked(config), "press")["custody"]["press-9.parquet"]["verdict"] == "unlisted"
    plain = CliRunner().invoke(main, ["check", str(config)]).stdout
    assert "custody: 1 unlisted, 2 verified" in plain
    (warning,) = [line for line in plain.splitlines() if "warning: sources.press.custody" in line]
    assert "press-9.parquet" in warning


def test_a_shard_that_was_altered_fails_as_run_does_unless_it_is_demoted(tmp_path: Path) -> None:
    config = corpus.minimal_config(tmp_path)
    write_rows(tmp_path / "shards" / "press" / "press-1.parquet", [{"id": "x", "text": "Not it.", "language": "en"}])
    told = failing(config)
    assert (told.exit, told.code) == (7, "altered_shard")
    assert told.details["shards"] == ["press-1.parquet"]
    demoted = {"press": {"custody": {"on_mismatch": "demote"}}}
    line = checked(corpus.minimal_config(tmp_path, sources=demoted))
    assert source(line, "press")["custody"]["press-1.parquet"]["verdict"] == "altered"


def test_a_shard_too_large_to_hash_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_LARGEST_HASHED", 10)
    line = checked(corpus.minimal_config(tmp_path))
    assert {told["verdict"] for told in source(line, "press")["custody"].values()} == {"not judged"}
    assert line["floor_bound"]["bound"] == 1
    assert line["floor_bound"]["not_judged_shards"] == 2


@pytest.mark.parametrize("key", ["keys/none.key", "keys/mix.pub"])
def test_a_mix_cannot_be_signed_without_a_private_key(tmp_path: Path, key: str) -> None:
    corpus.minimal_config(tmp_path)
    write_keypair(tmp_path / "keys" / "mix")
    checked(corpus.minimal_config(tmp_path, sign={"key": "keys/mix.key"}))
    told = failing(corpus.minimal_config(tmp_path, sign={"key": key}))
    assert told.exit == 2
    assert told.message.startswith("sign.key: ")
    assert key in told.message


def test_what_is_said_of_the_floor_is_certain(tmp_path: Path) -> None:
    config = corpus.minimal_config(tmp_path)
    bound = checked(config)["floor_bound"]
    assert (bound["bound"], bound["verified_shards"]) == (1, 2)
    assert "%" not in bound["text"]
    sized = checked(corpus.minimal_config(tmp_path, mix={"size": 1001}))["floor_bound"]
    assert "501 verified tokens" in sized["text"]
    without = {"press": {"custody": None}}
    none = checked(corpus.minimal_config(tmp_path, sources=without))["floor_bound"]
    assert none["bound"] == 0
    assert "no source has custody" in none["text"]
    (tmp_path / "shards" / "other").mkdir()
    write_rows(tmp_path / "shards" / "other" / "o.parquet", [{"id": "x", "text": "New.", "language": "en"}])
    unlisted = checked(corpus.minimal_config(tmp_path, sources={"press": {"files": ["shards/other/*"]}}))
    assert unlisted["floor_bound"]["bound"] == 0
    assert "no shard of a source with custody is verified" in unlisted["floor_bound"]["text"]


def test_bands_are_told_before_anything_is_read(tmp_path: Path) -> None:
    told = anchormix("check", corpus.minimal_config(tmp_path, dedup={"threshold": 0.5}))
    assert told.line["bands"] == told_bands(0.5, 128)
    assert float(told.line["bands"]["at_sought"]) >= 0.995


def test_too_few_permutations_for_a_threshold_are_refused(tmp_path: Path) -> None:
    config = corpus.minimal_config(tmp_path, dedup={"threshold": 0.05, "permutations": 16})
    told = anchormix("check", config)
    assert (told.exit, told.code) == (2, "bad_value")
    assert told.message.startswith("dedup.permutations = 16: 16 permutations cannot find 99.5% of the pairs")
    assert "use at least 51 permutations or a higher threshold" in told.message
