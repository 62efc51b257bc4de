"""A synthetic ancestor means that a document is not human; under custody it is contested."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import corpus
import pyarrow.parquet as pq
import yaml  # type: ignore[import-untyped]
from projects import run, write_project
from runs import PublishedMix, anchormix

from pipeline.samples import write_rows


def text_of(rng: random.Random) -> str:
    return corpus.make_document(rng, 60).text


def ancestors_of(row: dict[str, Any]) -> list[str]:
    return [entry["detail"] for entry in row["evidence"] if entry["kind"] == "derived_from"]


def by_doc_id(mix: PublishedMix) -> dict[str, dict[str, Any]]:
    return {row["doc_id"]: row for row in mix.rows}


def test_descent_is_followed_through_any_number_of_generations(tmp_path: Path) -> None:
    rng = random.Random(1)
    model_text = text_of(rng)
    model_id = hashlib.sha256(model_text.encode()).hexdigest()[:32]
    rows: dict[str, list[dict[str, Any]]] = {
        "human": [
            {"id": "grandchild", "text": text_of(rng), "derived_from": ["child", "elsewhere"]},
            {"id": "child", "text": text_of(rng), "derived_from": ["machine"]},
            {"id": "by-text", "text": text_of(rng), "derived_from": [model_id]},
            {"id": "of-human", "text": text_of(rng), "derived_from": ["free"]},
            {"id": "itself", "text": text_of(rng), "derived_from": ["itself"]},
            {"id": "free", "text": text_of(rng), "derived_from": None},
        ],
        "web": [{"id": "plain", "text": text_of(rng), "derived_from": "machine"}],
        "bot": [{"id": "machine", "text": model_text}],
    }
    config = write_project(tmp_path, {name: ["x"] for name in rows}, source_bot={"synthetic": {"generator": "parrot"}})
    for name, content in rows.items():
        write_rows(tmp_path / name / "part.jsonl", content)
    told = anchormix("run", config)
    assert told.exit == 0, told.stderr
    mix = PublishedMix(tmp_path / "out" / "mix")
    found = by_doc_id(mix)
    synthetic = {"grandchild", "child", "by-text", "plain", "machine"}
    assert {name for name, row in found.items() if row["provenance"] == "synthetic"} == synthetic
    assert {found[name]["provenance"] for name in ("of-human", "itself", "free")} == {"human"}
    evidence = {name: ancestors_of(row) for name, row in found.items()}
    assert evidence["grandchild"] == ["child"]
    assert evidence["plain"] == ["machine"]
    assert evidence["of-human"] == evidence["machine"] == []
    assert any("1 name in derived_from" in note for note in mix.manifest["notes"])


def test_a_signed_document_with_a_synthetic_ancestor_is_contested(tmp_path: Path) -> None:
    corpus.write_corpus(tmp_path, verified=20, exact=0, near=0, unknown=5)
    press = sorted((tmp_path / "shards" / "press").glob("*.parquet"))
    table = pq.read_table(press[0])
    claimed = ["machine"] + [None] * (table.num_rows - 1)
    pq.write_table(table.append_column("derived_from", [claimed]), press[0])
    config = yaml.safe_load(corpus.minimal_config(tmp_path, evidence={"max_contested": 1}).read_text())
    config["sources"].append({"name": "model", "files": ["model.jsonl"], "synthetic": {"generator": "parrot"}})
    write_rows(tmp_path / "model.jsonl", [{"id": "machine", "text": text_of(random.Random(3))}])
    path = tmp_path / "derived.yaml"
    path.write_text(yaml.safe_dump(config))
    mix = run_at(path)
    contested = [row for row in mix.rows if ancestors_of(row)]
    assert [row["provenance"] for row in contested] == ["human_verified"]
    assert any("contested: 1 verified document" in note for note in mix.manifest["notes"])


def run_at(config: Path) -> PublishedMix:
    told = anchormix("run", config)
    assert told.exit == 0, told.stderr
    return PublishedMix(config.parent / "out" / "mix")


def test_no_pipeline_runs_where_nobody_names_an_ancestor(tmp_path: Path) -> None:
    config = write_project(tmp_path, {"web": ["one text", "another text of its own"]})
    run(config)
    assert not list((tmp_path / "out" / "index").rglob("*ancestry*"))
