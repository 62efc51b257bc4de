"""Small projects of a few texts: a config, its sources, and the commands over it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from runs import PublishedMix, anchormix

from pipeline.samples import write_rows

CLASSES = ("human", "ai_assisted")  # what a source declares
Sources = dict[str, list[str]]


def write_project(folder: Path, sources: Sources, **changes: Any) -> Path:
    """A config over texts of sources named CLASS or CLASS_ANYTHING, with or without a declaration."""
    for name, texts in sources.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        rows = [{"id": f"{folder.name}-{name}-{place}", "text": text} for place, text in enumerate(texts)]
        write_rows(folder / name / "part.jsonl", rows)
    config: dict[str, Any] = {
        "version": 1,
        "output": "out/mix",
        "index": "out/index",
        "sources": [
            {"name": name, "files": [f"{name}/*.jsonl"], **declared(name), **changes.pop(f"source_{name}", {})}
            for name in sources
        ],
        "dedup": {"wipe_out": 1},
        "mix": {"floors": {"human_verified": 0}},
    }
    config["dedup"].update(changes.pop("dedup", {}))
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump({**config, **changes}), encoding="utf-8")
    return path


def declared(name: str) -> dict[str, str]:
    return next(({"declare": word} for word in CLASSES if name == word or name.startswith(f"{word}_")), {})


def tree_of(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(config: Path) -> PublishedMix:
    told = anchormix("run", config)
    assert told.exit == 0, told.stderr
    return PublishedMix(config.parent / "out" / "mix")


def index(config: Path) -> Path:
    told = anchormix("index", config)
    assert told.exit == 0, told.stderr
    return config.parent / "out" / "index"


def assert_refused_for(
    file: Path, content: str | None, config: Path, exit_code: int, code: str, words: list[str]
) -> None:
    """That a config cannot be indexed, and says so in these words, once a file of it has other content or is gone."""
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
    assert (config.parent / "out" / "index" / "facts.json").exists() == (code != "no_files")
