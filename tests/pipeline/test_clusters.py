"""Clusters as explain tells them: all that copies and verified pairs link, with fate, witness and exact similarity."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import corpus
import pyarrow.parquet as pq
import pytest
from runs import PublishedMix, anchormix

from pipeline.clusters import Cluster, cluster_lines, cluster_of
from pipeline.explain import explain
from pipeline.index import Index
from pipeline.inspection import Inspection
from pipeline.samples import write_rows

LINKS = 12
WORDS = 100


def alike(distance: int) -> float:
    """Jaccard of two documents of the chain, so many links apart."""
    return round(float(corpus.edited_jaccard(WORDS, distance)), 6)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chain documents 0 to 12: each is the one before with one more word replaced, so that only neighbours are pairs.

    Of number 3 there are two more copies; number 9 is excluded; `alone` is like nothing.
    """
    folder = tmp_path_factory.mktemp("clusters")
    rng = random.Random(4)
    words = list(corpus.make_document(rng, WORDS).words)
    fresh = rng.sample(corpus.vocabulary("en", fresh=True), LINKS)
    texts = [corpus.Document(tuple(words)).text]
    for link in range(LINKS):
        words[4 + 7 * link] = fresh[link]
        texts.append(corpus.Document(tuple(words)).text)
    rows = [{"id": f"c{n}", "text": text} for n, text in enumerate(texts)]
    rows.append({"id": "alone", "text": corpus.make_document(rng, WORDS).text})
    write_rows(folder / "shards" / "chain" / "c.parquet", rows, row_group=4)
    copies = [{"id": "copy-1", "text": texts[3]}, {"id": "copy-2", "text": texts[3]}]
    write_rows(folder / "shards" / "other" / "o.jsonl.gz", copies)
    config = {
        "version": 1,
        "output": "out/mix",
        "index": "out/index",
        "sources": [
            {"name": "chain", "files": ["shards/chain/*.parquet"], "declare": "human"},
            {"name": "other", "files": ["shards/other/*.jsonl.gz"]},
        ],
        "dedup": {"threshold": 0.85, "wipe_out": 1},
        "exclude": [{"doc_ids": ["c9"], "reason": "asked for"}],
        "mix": {"floors": {"human_verified": 0}},
    }
    (folder / "mix.yaml").write_text(json.dumps(config))
    told = anchormix("run", folder / "mix.yaml")
    assert told.exit == 0, told.stderr
    return folder


def told_of(project: Path, doc_id: str) -> dict[str, Any]:
    (entry,) = explain(project / "out" / "mix", None, doc_id).details["documents"]
    found: dict[str, Any] = entry
    return found


def test_a_cluster_holds_everything_that_is_linked(project: Path) -> None:
    everybody = {f"c{n}" for n in range(LINKS + 1)} | {"copy-1", "copy-2"}
    mix = PublishedMix(project / "out" / "mix")
    fates = {row["doc_id"]: row["fate"] for row in mix.dropped.values()}
    for doc_id in ("c0", "c6", "c9", "copy-2"):
        cluster = told_of(project, doc_id)["cluster"]
        assert cluster["documents"] == len(everybody)
        assert cluster["complete"]
        assert {member["doc_id"] for member in cluster["nearest"]} == everybody - {doc_id}
        assert cluster["fates"] == Counter(fates.get(name, "kept") for name in everybody)
        assert cluster["fates"]["excluded"] == 1
        for member in cluster["nearest"]:
            assert member["fate"] == fates.get(member["doc_id"], "kept")


def test_members_have_witness_and_exact_similarity(project: Path) -> None:
    dropped = {row["doc_id"]: row for row in PublishedMix(project / "out" / "mix").dropped.values()}
    cluster = told_of(project, "c6")["cluster"]
    for member in cluster["nearest"]:
        row = dropped.get(member["doc_id"])
        if row is None or row["partner"] is None:
            assert member["witness"] is None
            continue
        assert member["witness"]["id"] == row["partner"]
        assert member["witness"]["fate"] == "kept"
        assert member["similarity_to_witness"] == row["similarity"]
        if member["fate"] == "near_duplicate":
            assert row["similarity"] == alike(1)


def test_the_nearest_come_first(project: Path) -> None:
    nearest = told_of(project, "c5")["cluster"]["nearest"]
    expected = {f"c{n}": abs(n - 5) for n in range(LINKS + 1)} | {"copy-1": 2, "copy-2": 2}
    assert [member["steps"] for member in nearest] == sorted(expected[member["doc_id"]] for member in nearest)
    order = [(member["steps"], -(member["similarity"] or 0), member["fate"] != "kept") for member in nearest]
    assert order == sorted(order), "of those equally near, kept ones come first: they are the witnesses"
    for member in nearest:
        assert member["steps"] == expected[member["doc_id"]]
        assert member["similarity"] == (alike(1) if member["steps"] == 1 else None)
    copies = {member["doc_id"]: member["steps"] for member in told_of(project, "copy-1")["cluster"]["nearest"]}
    assert {doc_id for doc_id, steps in copies.items() if steps == 0} == {"c3", "copy-2"}


def test_people_see_counts_and_the_nearest(project: Path) -> None:
    lines = explain(project / "out" / "mix", None, "c5").text.splitlines()
    heading = next(line.strip() for line in lines if "cluster of" in line)
    assert heading.startswith("cluster of 15 documents, itself included: ")
    assert "1 excluded, " in heading
    listed = [line for line in lines if "chain/c.parquet row" in line or "other/o.jsonl.gz row" in line]
    assert any(f"similarity {alike(1)}" in line and "row 4" in line for line in listed)
    assert any("its witness is" in line for line in listed)
    assert lines[lines.index("  " + heading) + 11].strip() == "and 4 more"
    assert not any("cluster" in line for line in explain(project / "out" / "mix", None, "alone").text.splitlines())
    assert told_of(project, "alone")["cluster"] == {
        "documents": 1,
        "complete": True,
        "fates": {"kept": 1},
        "nearest": [],
    }


def inspected(project: Path) -> tuple[Inspection, int]:
    """The index, and the address of the first document of the chain."""
    index = Index(str(project / "out" / "index"))
    key = index.current()
    assert key is not None
    inspection = Inspection.of(index, key)
    assert inspection is not None
    address = inspection.address_of("chain", "c.parquet", 0, 0)
    assert address is not None
    return inspection, address


def test_few_of_many_are_the_nearest_few(project: Path) -> None:
    inspection, address = inspected(project)
    few, all_of_them = (cluster_of(inspection, address, most) for most in (3, 1000))
    assert (few.size, few.fates) == (all_of_them.size, all_of_them.fates)
    assert few.nearest == all_of_them.nearest[:3]
    assert list(cluster_lines(few, 2))[-1] == "  and 12 more"


def test_a_chain_beyond_what_is_followed_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspection, address = inspected(project)
    monkeypatch.setattr("pipeline.clusters.MOST_STEPS", 4)
    cluster: Cluster = cluster_of(inspection, address, 1000)
    assert not cluster.complete
    assert {member.document.doc_id for member in cluster.nearest} == {"c1", "c2", "c3", "c4", "copy-1", "copy-2"}
    assert next(cluster_lines(cluster, 1)).startswith("cluster of at least 7 documents")


def test_addresses_follow_the_places_of_the_input(project: Path) -> None:
    inspection, _ = inspected(project)
    for row in range(LINKS + 2):
        address = inspection.address_of("chain", "c.parquet", row, 0)
        assert address is not None
        document = inspection.documents([address])[address]
        assert (document.row, document.doc_id) == (row, f"c{row}" if row <= LINKS else "alone")
    assert inspection.address_of("chain", "c.parquet", 99, 0) is None
    assert inspection.address_of("chain", "other.parquet", 0, 0) is None


def test_without_the_index_the_rest_is_still_told(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "mix"
    shutil.copytree(project / "out" / "mix", out)
    config = (out / "config.yaml").read_text()
    moved = tmp_path / "index"
    (out / "config.yaml").write_text(config.replace(str(project / "out" / "index"), str(moved)))
    outcome = explain(out, None, "c0")
    assert "clusters of duplicates" in outcome.text
    assert "cluster" not in outcome.details["documents"][0]

    shutil.copytree(project / "out" / "index", moved)
    assert explain(out, None, "c0").details["documents"][0]["cluster"]["documents"] == 15
    (done,) = (moved / "fates").glob("*/_DONE.json")
    content = json.loads(done.read_bytes())
    done.write_text(json.dumps({name: value for name, value in content.items() if name != "edges"}))
    assert "not seen: clusters of duplicates (index:" in explain(out, None, "c0").text, "as older versions wrote it"
    done.write_text(json.dumps(content))
    edges = next((moved / "edges").glob("*/pairs-*.parquet"))
    edges.unlink()
    assert "not seen: clusters of duplicates (index:" in explain(out, None, "c0").text
    shutil.rmtree(moved / "fates")
    outcome = explain(out, None, "c9")
    assert "no longer holds the fates of this mix" in outcome.text
    assert outcome.details["documents"][0]["fate"] == "excluded", "fates/ of the mix say that"


def test_a_mix_is_explained_by_the_fates_it_was_made_from(project: Path, tmp_path: Path) -> None:
    """The index has moved on: another version of a shard, and other settings."""
    shutil.copytree(project / "shards", tmp_path / "shards")
    shutil.copy(project / "mix.yaml", tmp_path / "mix.yaml")
    assert anchormix("run", tmp_path / "mix.yaml").exit == 0
    path = tmp_path / "shards" / "chain" / "c.parquet"
    rows = pq.read_table(path).to_pylist()
    write_rows(path, [*rows[5:], {"id": "c0", "text": "Something else altogether."}])
    assert anchormix("index", tmp_path / "mix.yaml", "--set", "dedup.threshold=0.95").exit == 0
    entries = explain(tmp_path / "out" / "mix", None, "c0").details["documents"]
    assert [entry["cluster"]["documents"] for entry in entries] == [15]
    (entry,) = explain(tmp_path / "out" / "mix", None, "c9").details["documents"]
    assert (entry["fate"], entry["row"]) == ("excluded", 9)
