"""Which way duplicates are removed: chosen by the number of edges, told by the index, and not seen in the fates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import corpus
import pytest
from runs import anchormix

from pipeline.removal import Rounds
from transforms import rounds


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("removal")
    corpus.write_corpus(folder, verified=60, exact=20, near=30)
    return corpus.minimal_config(folder, exclude=[{"doc_ids": ["press-1", "press-25"], "reason": "taken down"}])


def indexed(config: Path, name: str) -> tuple[dict[str, Any], list[bytes]]:
    """What the fates of a new index say of the removal, and their files."""
    told = anchormix("index", config, "--set", f"index={config.parent / name}")
    assert told.exit == 0, told.stderr
    (folder,) = (config.parent / name / "fates").iterdir()
    done = json.loads((folder / "_DONE.json").read_bytes())
    parts = sorted(done["parts"], key=lambda part: part["partition"])
    assert told.line["removal"] == done["removal"]
    return done["removal"], [(folder / part["file"]).read_bytes() for part in parts]


def test_the_fates_files_are_the_same_bytes_either_way(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    walked, expected = indexed(config, "one-worker")
    assert walked == {"edges": walked["edges"], "rounds": 1, "undecided": 0}
    assert walked["edges"] >= 30
    monkeypatch.setenv("ANCHORMIX_REMOVAL_EDGES", str(walked["edges"] - 1))
    monkeypatch.setattr(rounds, "ROUNDS", 1)
    by_one, found = indexed(config, "rounds-then-one")
    assert by_one == walked  # fewer edges are left than one worker takes: it decides all in one round
    assert found == expected
    monkeypatch.setenv("ANCHORMIX_REMOVAL_EDGES", "0")
    in_rounds, found = indexed(config, "rounds")
    assert in_rounds["rounds"] > 1  # so several pipelines, each of one round
    assert in_rounds["undecided"] == 0
    assert found == expected


def test_as_many_edges_as_one_worker_takes_are_its_own(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("in rounds")

    monkeypatch.setattr(Rounds, "remove", refuse)
    walked, _ = indexed(config, "alone")
    monkeypatch.setenv("ANCHORMIX_REMOVAL_EDGES", str(walked["edges"]))
    indexed(config, "still-alone")
    monkeypatch.setenv("ANCHORMIX_REMOVAL_EDGES", str(walked["edges"] - 1))
    with pytest.raises(AssertionError, match="in rounds"):
        indexed(config, "not-alone")


@pytest.mark.parametrize("value", ["-1", "1e8", "many", "\u0663"])
def test_the_switch_is_read_before_anything_else(config: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANCHORMIX_REMOVAL_EDGES", value)
    told = anchormix("index", config, "--set", f"index={config.parent / 'never'}")
    assert (told.exit, told.code) == (2, "bad_environment")
    assert "valid is a whole number of edges, from 0; unset it for 100,000,000" in told.message
    assert not (config.parent / "never").exists()
