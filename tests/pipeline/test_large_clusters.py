"""Thousands of pages of one template through the whole index: nearly all found, none without its witness."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import corpus
import oracle
import pyarrow.parquet as pq
import pytest
import yaml
from runs import anchormix

from pipeline.samples import write_rows
from transforms import dedup

PAGES = 2_000
THRESHOLD = 0.6


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages that differ from their template in two words: any two have a Jaccard of .75 or more."""
    folder = tmp_path_factory.mktemp("template")
    rng = random.Random(11)
    template = corpus.make_document(rng, 150)
    pages = [corpus.near_copy(rng, template, 2) for _ in range(PAGES)]
    # Moved by some words, so that pages differ from each other in different places.
    moved = [corpus.Document((*page.words[n % 7 :], *page.words[: n % 7])) for n, page in enumerate(pages)]
    rows = [{"id": f"page-{n}", "text": page.text, "language": "en"} for n, page in enumerate(moved)]
    for shard in range(4):
        write_rows(folder / "shards" / f"pages-{shard}.parquet", rows[shard::4], row_group=200)
    path = folder / "mix.yaml"
    content = {
        "version": 1,
        "output": "out/mix",
        "index": "out/index",
        "sources": [{"name": "pages", "files": ["shards/*.parquet"]}],
        "dedup": {"threshold": THRESHOLD, "wipe_out": 1},
        "mix": {"floors": {"human_verified": 0}},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def settled(config: Path, name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fates of all pages, in order, and what the index says of the removal."""
    told = anchormix("index", config, "--set", f"index={config.parent / name}")
    assert told.exit == 0, told.stderr
    (folder,) = (config.parent / name / "fates").iterdir()
    parts = sorted(json.loads((folder / "_DONE.json").read_bytes())["parts"], key=lambda part: part["partition"])
    return [row for part in parts for row in pq.read_table(folder / part["file"]).to_pylist()], told.line["removal"]


def assert_witnessed(config: Path, fates: list[dict[str, Any]]) -> None:
    """Exact Jaccard of each removed page with a page that is kept, recounted from the text; all stand for all."""
    texts = [row["text"] for shard in sorted((config.parent / "shards").iterdir()) for row in oracle.read_rows(shard)]
    shingles = [oracle.shingles(tuple(oracle.split_words(text))) for text in texts]
    number = {oracle_id(text): place for place, text in enumerate(texts)}
    for mine, fate in zip(shingles, fates, strict=True):
        if fate["fate"] == 0:
            continue
        witness = number[fate["partner"].hex()]
        assert fates[witness]["fate"] == 0
        its = shingles[witness]
        assert fate["shared"] * len(mine | its) == fate["union"] * len(mine & its)
        assert len(mine & its) >= THRESHOLD * len(mine | its)
    assert sum(fate["represents"] for fate in fates) == len(fates)


def oracle_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def test_a_template_leaves_hardly_a_page_whatever_the_limits(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fates, removal = settled(config, "whole")
    kept = sum(fate["fate"] == 0 for fate in fates)
    assert kept <= PAGES // 100
    assert removal["undecided"] == 0
    assert_witnessed(config, fates)

    monkeypatch.setattr(dedup, "_MOST_OTHERS", 50)
    assert settled(config, "spread") == (fates, removal)  # where pairs are verified does not show

    monkeypatch.setattr(dedup, "MOST_MEMBERS", 100)
    cut_up, removal = settled(config, "cut-up")
    assert sum(fate["fate"] == 0 for fate in cut_up) <= PAGES // 100
    assert_witnessed(config, cut_up)
    monkeypatch.setenv("ANCHORMIX_REMOVAL_EDGES", "0")
    in_rounds, told = settled(config, "cut-up-in-rounds")
    assert in_rounds == cut_up
    assert (told["undecided"], told["edges"]) == (0, removal["edges"])
