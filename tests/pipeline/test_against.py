"""New documents against earlier indexes: what was seen before, what was not, and that the earlier index stays."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import corpus
import oracle
import pytest
import yaml  # type: ignore[import-untyped]
from projects import Sources, index, run, tree_of, write_project
from runs import PublishedMix, Told, anchormix

from pipeline.explain import explain
from pipeline.samples import write_rows


def against(folder: Path, keep: str = "earlier") -> dict[str, Any]:
    return {"against": [{"index": str(folder / "out" / "index"), "keep": keep}]}


def families(rng: random.Random, count: int) -> list[list[str]]:
    """Texts in families of an original, its copies and its edited copies, some of them below the threshold."""
    found = []
    for _ in range(count):
        original = corpus.make_document(rng, 60)
        family = [original.text, original.text]
        family += [corpus.near_copy(rng, original, changes).text for changes in (1, 1, 2, 3)]
        found.append(family)
    return found


def dealt(rng: random.Random, texts: Iterable[str], names: Iterable[str]) -> Sources:
    found: Sources = {name: [] for name in names}
    for text in texts:
        found[rng.choice(list(found))].append(text)
    return {name: texts or ["a text of its own, so that no source is empty"] for name, texts in found.items()}


@pytest.mark.parametrize("keep", ["earlier", "best"])
@pytest.mark.parametrize("seed", range(3))
def test_every_fate_is_that_of_the_oracle_and_the_earlier_index_is_not_touched(
    keep: str, seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    texts = [text for family in families(rng, 12) for text in family] + ["...", "...", "!?"]
    rng.shuffle(texts)
    half = len(texts) // 2
    names = ["human", "ai_assisted", "web"]
    old = write_project(tmp_path / "old", dealt(rng, texts[:half], names))
    new = write_project(tmp_path / "new", dealt(rng, texts[half:], names), dedup=against(tmp_path / "old", keep))
    before = tree_of(index(old))
    mix = run(new)
    assert tree_of(tmp_path / "old" / "out" / "index") == before
    expected = oracle.expect(new, [(old, keep)])
    fates = {place: document.fate for place, document in expected.items()}
    assert {place: "kept" for place in mix.documents} | {
        place: row["fate"] for place, row in mix.dropped.items()
    } == fates
    seen = {place for place, fate in fates.items() if fate == "seen_before"}
    assert seen
    for place, row in mix.dropped.items():
        assert row["partner"] == expected[place].partner
        assert row["partner_index"] == (str(tmp_path / "old" / "out" / "index") if place in seen else None)
        similarity = expected[place].similarity
        assert row["similarity"] == (None if similarity is None else round(float(similarity), 6))
    represents = {place: row["represents"] for place, row in mix.documents.items()}
    assert represents == {place: expected[place].represents for place in mix.documents}
    mix.assert_conserved()


@pytest.mark.parametrize("seed", range(2))
def test_two_steps_equal_one_where_the_earlier_corpus_ranks_first(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed + 100)
    texts = [text for family in families(rng, 12) for text in family]
    rng.shuffle(texts)
    parts = {"web_old": texts[: len(texts) // 2], "web_new": texts[len(texts) // 2 :]}
    first = {"source_web_old": {"priority": 10}}
    one = run(write_project(tmp_path / "one", parts, **first))
    old = write_project(tmp_path / "old", {"web_old": parts["web_old"]}, **first)
    index(old)
    two = run(write_project(tmp_path / "two", {"web_new": parts["web_new"]}, dedup=against(tmp_path / "old")))

    def told(mix: PublishedMix) -> dict[Any, Any]:
        """Per new document whether it stays, or what it gave way to."""
        kept = {place: None for place in mix.documents if place[0] == "web_new"}
        gone = {
            place: (row["partner"], row["similarity"]) for place, row in mix.dropped.items() if place[0] == "web_new"
        }
        return kept | gone

    assert told(one) == told(two)
    assert any(row["fate"] == "seen_before" for row in two.dropped.values())


def test_better_provenance_is_never_dropped_for_worse(tmp_path: Path) -> None:
    """`best`: the press article stays though a scrape of it came first; the scrape of an older article goes."""
    rng = random.Random(5)
    article, essay = corpus.make_document(rng, 60), corpus.make_document(rng, 60)
    near = corpus.near_copy(rng, article, 1).text
    old = {"web": [article.text, "!?"], "human": [essay.text]}
    new = {"human": [article.text, near, "!?"], "web": [essay.text, corpus.near_copy(rng, essay, 1).text]}
    index(write_project(tmp_path / "old", old))
    mix = run(write_project(tmp_path / "new", new, dedup=against(tmp_path / "old", "best")))
    assert {(row["source"], row["row"]) for row in mix.rows} in (
        {("human", 0), ("human", 2)},
        {("human", 1), ("human", 2)},
    )
    fates = {(row["source"], row["row"]): row["fate"] for row in mix.dropped.values()}
    assert {fates[("web", 0)], fates[("web", 1)]} == {"seen_before"}
    plain = run(write_project(tmp_path / "plain", {**new, "ai_assisted": ["more"]}, dedup=against(tmp_path / "old")))
    assert {(row["source"], row["row"]) for row in plain.rows} == {("ai_assisted", 0)}


def test_three_generations_each_against_those_before(tmp_path: Path) -> None:
    rng = random.Random(11)
    originals = [corpus.make_document(rng, 60) for _ in range(6)]
    edited = [[corpus.near_copy(rng, original, 1).text for _ in range(2)] for original in originals]
    index(write_project(tmp_path / "a", {"web": [d.text for d in originals[:3]]}))
    index(write_project(tmp_path / "b", {"web": [*(e[0] for e in edited)]}, dedup=against(tmp_path / "a")))
    both = {"against": [*against(tmp_path / "b")["against"], *against(tmp_path / "a")["against"]]}
    fresh = corpus.make_document(rng, 60).text
    mix = run(write_project(tmp_path / "c", {"web": [*(e[1] for e in edited), fresh]}, dedup=both))
    assert [row["text"] for row in mix.rows] == [fresh]
    held = [row["partner_index"] for _, row in sorted(mix.dropped.items())]
    assert held == [str(tmp_path / name / "out" / "index") for name in "aaabbb"]


def test_an_earlier_index_that_changed_makes_edges_stale_and_one_that_did_not_does_not(tmp_path: Path) -> None:
    rng = random.Random(2)
    documents = [corpus.make_document(rng, 60).text for _ in range(4)]
    old = write_project(tmp_path / "old", {"web": documents[:1]})
    index(old)
    new = write_project(tmp_path / "new", {"web": documents[1:]}, dedup=against(tmp_path / "old"))
    assert anchormix("index", new).line["rebuilt"] == ["facts", "edges", "fates"]
    assert anchormix("index", new).line["rebuilt"] == []
    write_rows(tmp_path / "old" / "web" / "more.jsonl", [{"id": "x", "text": documents[1]}])
    index(old)
    assert anchormix("index", new).line["rebuilt"] == ["edges", "fates"]
    told = anchormix("duplicates", tmp_path / "new" / "out" / "index", "--kind", "seen_before")
    (pair,) = told.line["pairs"]
    assert pair["kept"]["index"] == str(tmp_path / "old" / "out" / "index")
    assert pair["kept"]["text"] == pair["removed"]["text"] == documents[1][:160]
    assert (pair["kept"]["doc_id"], pair["kept"]["shard"]) == ("x", "more.jsonl")


def refused(new: Path, code: str, *words: str) -> Told:
    told = anchormix("index", new)
    assert (told.exit, told.code) == (2, code), told.stderr
    for word in words:
        assert word in told.message
    return told


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """An earlier project, indexed, and a later one with a near copy of its only document."""
    rng = random.Random(4)
    document = corpus.make_document(rng, 60)
    old = write_project(tmp_path / "old", {"web": [document.text]})
    index(old)
    texts = [corpus.near_copy(rng, document, 1).text, corpus.make_document(rng, 60).text]
    return old, write_project(tmp_path / "new", {"web": texts}, dedup=against(tmp_path / "old"))


def test_text_that_is_gone_is_exit_2_only_where_it_is_needed(pair: tuple[Path, Path]) -> None:
    old, new = pair
    text = old.parent / "web" / "part.jsonl"
    aside = text.rename(text.with_suffix(".aside"))
    refused(new, "earlier_text_gone", str(text), str(old.parent / "out" / "index"), "Restore the file")
    text.write_text(aside.read_text().replace("a", "e"))
    refused(new, "earlier_text_gone", str(text))
    aside.rename(text)
    assert anchormix("index", new).exit == 0
    text.unlink()
    assert anchormix("index", new).line["rebuilt"] == [], "nothing needs to be compared again"
    told = anchormix("duplicates", new.parent / "out" / "index")
    (found,) = told.line["pairs"]
    assert found["kept"]["text"] is None
    assert str(text) in found["kept"]["problem"]
    lonely = [{"id": "1", "text": "nothing like the earlier document at all"}]
    write_rows(new.parent / "web" / "part.jsonl", lonely)
    assert anchormix("index", new).exit == 0


def test_what_cannot_be_compared_with_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    _, new = pair
    there = str(tmp_path / "old" / "out" / "index")

    def changed(**dedup: Any) -> Path:
        config = yaml.safe_load(new.read_text())
        config["dedup"].update(dedup)
        path = new.with_name("changed.yaml")
        path.write_text(yaml.safe_dump(config))
        return path

    nowhere = str(tmp_path / "nowhere")
    refused(changed(against=[{"index": nowhere}]), "no_earlier_index", nowhere, "anchormix index")
    assert not (new.parent / "out" / "index" / "facts.json").exists()  # told before anything is read
    told = anchormix("check", changed(against=[{"index": nowhere}]))
    assert (told.exit, told.code) == (2, "no_earlier_index")
    told = anchormix("check", new)
    assert told.exit == 0, told.stderr
    assert [one["index"] for one in told.line["against"]] == [there]
    refused(changed(against=[{"index": "out/index"}]), "earlier_index_repeated", "itself")
    refused(changed(against=[{"index": there}, {"index": there + "/"}]), "earlier_index_repeated", "dedup.against.1")
    refused(changed(permutations=64), "earlier_index_incompatible", "dedup.permutations 128", "64", there)
    refused(changed(shingle=3), "earlier_index_incompatible", "dedup.shingle 5", "3")
    facts = next((tmp_path / "old" / "out" / "index" / "facts").rglob("*.parquet"))
    whole = facts.read_bytes()
    facts.write_bytes(whole[:-10])
    refused(new, "earlier_index_damaged", "web/part.jsonl", there)
    facts.write_bytes(whole)
    current = tmp_path / "old" / "out" / "index" / "current.json"
    current.write_text("{")
    refused(new, "index_unreadable", str(current))
    current.write_text(json.dumps({"format": 1, "fates": "0" * 32}))
    refused(new, "no_earlier_index")


def test_a_threshold_of_its_own_decides_what_is_seen(pair: tuple[Path, Path]) -> None:
    """The earlier index's threshold is its own affair: only what it kept matters."""
    _, new = pair
    text = new.read_text().replace("wipe_out: 1", "wipe_out: 1\n  threshold: 0.95")
    new.write_text(text)
    assert Fraction(56 - 5, 56 + 5) < Fraction(95, 100)
    assert not run(new).dropped


def test_explain_names_the_index_that_holds_the_witness(pair: tuple[Path, Path]) -> None:
    old, new = pair
    mix = run(new)
    (gone,) = [row for row in mix.dropped.values() if row["fate"] == "seen_before"]
    told = explain(mix.folder, gone["id"], None).text
    assert f"witness {gone['partner']} in the earlier index {old.parent / 'out' / 'index'}, similarity" in told
