"""Random corpora and configs, end to end: the guarantees hold or the run is infeasible, never a third thing."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import attest_press, minimal_config
from runs import PublishedMix, anchormix, assert_floor, measured

from pipeline.samples import write_rows

FLOORS = ("0", "1", "1/3", "0.617", "123456789/999999999", "0.5")


def _text(rng: np.random.Generator, words: int, name: str) -> str:
    """Distinct words, so that nothing is a duplicate; no words at all makes a document of no tokens."""
    return (
        " ".join([f"{name}x{n}q{rng.integers(10**6)}" for n in range(words)]) or f"... {'.' * int(rng.integers(2, 60))}"
    )


def _shard(rng: np.random.Generator, path: Path, name: str, lengths: list[int]) -> None:
    rows = [
        {"id": f"{name}-{n}", "text": _text(rng, words, f"{name}{n}"), "language": ["en", "de", None][n % 3]}
        for n, words in enumerate(lengths)
    ]
    if path.suffix == ".parquet":
        write_rows(path, rows)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _project(folder: Path, rng: np.random.Generator, skew: str) -> tuple[Path, dict[str, Any]]:
    """Verified, unknown and synthetic documents of lengths that are hard to lay out, and a random mix of them."""
    lengths = {name: rng.integers(0, 40, int(rng.integers(5, 60))).tolist() for name in ("press", "web", "bot")}
    if skew == "giant":
        lengths["press" if rng.integers(2) else "web"].append(60_000)
    elif skew == "tiny":
        lengths["web"] = [1] * 1500
    elif skew == "three":
        lengths["press"] = [300, 200, 100]
    elif skew == "no tokens":
        lengths["bot"] = [0] * 20
    else:
        lengths["bot"] = []
    _shard(rng, folder / "shards/press/press-0.parquet", "press", lengths["press"])
    _shard(rng, folder / "shards/web/web-0.jsonl", "web", lengths["web"])
    _shard(rng, folder / "shards/bot/bot-0.jsonl", "bot", lengths["bot"])
    attest_press(folder)
    mix: dict[str, Any] = {
        "floors": [{"of": "human_verified", "share": str(rng.choice(FLOORS))}],
        "measure": str(rng.choice(["tokens", "bytes", "documents"])),
        "epochs": {"human_verified": int(rng.integers(1, 4)), "unknown": int(rng.integers(1, 3))},
        "shards": int(rng.choice([1, 3, 10])),
        "row_group": int(rng.choice([1, 7, 100])),
        "if_short": str(rng.choice(["fail", "shrink"])),
    }
    if rng.integers(2):
        mix["size"] = int(rng.integers(5, 3000))
    if rng.integers(2):
        mix["caps"] = [{"of": "synthetic", "share": str(rng.choice(FLOORS))}, {"of": "unknown", "share": "0.9"}]
    if rng.integers(2):
        otherwise = str(rng.choice(["fail", "drop", "exempt"]))
        mix["floors"].append({"of": "human_verified", "share": "0.2", "by": "language", "otherwise": otherwise})
    sources = {"web": {"files": ["shards/web/*.jsonl"]}, "bot": {"files": ["shards/bot/*.jsonl"]}, "letters": None}
    return minimal_config(folder, mix=mix, sources=sources), mix


@pytest.mark.parametrize("skew", ["giant", "tiny", "three", "no tokens", "empty"])
@pytest.mark.parametrize("seed", [1, 2])
def test_guarantees_hold_or_the_run_is_infeasible(tmp_path: Path, seed: int, skew: str) -> None:
    rng = np.random.default_rng([seed, len(skew), ord(skew[0])])
    config, asked = _project(tmp_path, rng, skew)
    told = anchormix("run", config)
    if told.exit == 3:
        assert not (tmp_path / "out" / "mix").exists()
        assert told.details["advice"] or told.details.get("refused")
        return
    assert told.exit == 0, told.stderr
    mix = PublishedMix(tmp_path / "out" / "mix")
    measure = asked["measure"]
    assert_floor(mix, Fraction(asked["floors"][0]["share"]), measure)
    mix.assert_conserved()
    amounts: Counter[str] = Counter()
    by_language: dict[str, Counter[bool]] = {}
    for row in mix.rows:
        amounts[row["provenance"]] += measured(row, measure)
        verified = row["provenance"] == "human_verified"
        by_language.setdefault(str(row["language"] or "(none)"), Counter())[verified] += measured(row, measure)
        assert row["copy"] < asked["epochs"].get(row["provenance"], 1)
    assert amounts.total() <= asked.get("size", amounts.total())
    for cap in asked.get("caps", ()):
        assert amounts[cap["of"]] <= Fraction(cap["share"]) * amounts.total()
    exempt = mix.manifest["exempt"].get("human_verified by language", [])
    for language, found in by_language.items():
        if len(asked["floors"]) > 1 and language not in exempt:
            assert 5 * found[True] >= found.total()
    assert anchormix("verify", mix.folder).exit == 0
