"""Text known to be synthetic: what is like it is marked, with the pair as evidence; custody is only contested."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import corpus
import oracle
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]
from projects import assert_refused_for, index, run, write_project
from runs import PublishedMix, anchormix

from pipeline.samples import write_rows

THRESHOLD = Fraction(4, 5)
LEAST_HELD = 20


def write_registry(folder: Path, texts: list[str], generator: str | None = "parrot-1b") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"text": text, **({"generator": generator} if generator else {})} for text in texts]
    write_rows(folder / "known.jsonl", rows)


def known_project(folder: Path, sources: dict[str, list[str]], known: list[str], **changes: Any) -> Path:
    write_registry(folder / "registry", known)
    evidence = {"known_synthetic": ["registry/*.jsonl"]}
    return write_project(folder, sources, evidence=evidence, **changes)


def likeness(text: str, known: list[str]) -> tuple[str, str] | None:
    """The closest known text by brute force, as the kind of likeness and the two numbers that prove it."""
    mine = oracle.shingles(tuple(oracle.split_words(text)))
    found = []
    for place, other in enumerate(known):
        theirs = oracle.shingles(tuple(oracle.split_words(other)))
        shared, union = len(mine & theirs), len(mine | theirs)
        if text == other:
            found.append((0, Fraction(-1), place, "the text of", ""))
        elif union and Fraction(shared, union) >= THRESHOLD:
            found.append((1, -Fraction(shared, union), place, "near", f": Jaccard {shared}/{union}"))
        elif len(theirs) >= LEAST_HELD and Fraction(shared, len(theirs)) >= THRESHOLD:
            found.append((2, -Fraction(shared, len(theirs)), place, "holds", f": shingles {shared}/{len(theirs)}"))
    if not found:
        return None
    kind, share, *_ = min(found)
    verb, numbers = min(entry[3:] for entry in found if entry[:2] == (kind, share))
    return verb, numbers


def marks(row: dict[str, Any]) -> list[str]:
    return [entry["detail"] for entry in row["evidence"] if entry["kind"] == "known_synthetic"]


def rows_of(mix: PublishedMix) -> dict[str, dict[str, Any]]:
    return {row["doc_id"]: row for row in mix.rows}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_like_a_known_text_is_what_brute_force_finds(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    known = [corpus.make_document(rng, 250) for _ in range(8)]
    around = [corpus.make_document(rng, 900).text for _ in range(8)]
    texts: list[str] = []
    for place, document in enumerate(known):
        # Not both of one text: one would be removed for the other.
        texts.append(document.text if place % 2 else corpus.near_copy(rng, document, 2).text)
        texts.append(f"{around[place][:2500]} {document.text} {around[place][2500:]}")  # holds it
        texts.append(f"{around[place][:900]} {corpus.near_copy(rng, document, 20).text}")  # holds too little of it
        texts.append(document.text[:700])  # held by it, which says nothing
        texts.append(corpus.make_document(rng, 120).text)
    names = ["human", "ai_assisted", "web"]
    sources = {name: [text for at, text in enumerate(texts) if at % 3 == k] for k, name in enumerate(names)}
    known_texts = [document.text for document in known]
    config = known_project(tmp_path, sources, known_texts, dedup={"threshold": 0.8})
    mix = run(config)
    by_text = {row["text"]: row for row in mix.rows}
    seen = set()
    for row in mix.rows:
        expected = likeness(row["text"], known_texts)
        told = marks(row)
        seen.add(expected[0] if expected else None)
        if expected is None:
            assert told == []
            assert row["provenance"] == {"web": "unknown"}.get(row["source"], row["source"])
            continue
        (detail,) = told
        assert (row["provenance"], row["generator"]) == ("synthetic", "parrot-1b")
        assert detail.startswith(f"{expected[0]} ")
        assert detail.endswith(expected[1])
        ident, where = detail.removeprefix(expected[0]).split(":")[0].split(", ")
        place = int(where.removeprefix("known.jsonl row "))
        assert by_text.get(known_texts[place], {}).get("id", ident.strip()) == ident.strip()
    assert seen == {"the text of", "near", "holds", None}


def test_every_copy_is_marked_and_nothing_through_a_chain(tmp_path: Path) -> None:
    rng = random.Random(1)
    known = corpus.make_document(rng, 100)
    near = corpus.near_copy(rng, known, 2)
    words = list(near.words)
    words[20], words[75] = rng.sample(corpus.vocabulary("en", fresh=True), 2)
    far = corpus.Document(tuple(words), "en")
    assert corpus.jaccard(near, far) >= THRESHOLD > Fraction(len(known.shingles & far.shingles), len(known.shingles))
    texts = {"web": [near.text, near.text, known.text], "human": [far.text, near.text]}
    config = known_project(tmp_path, texts, [known.text])
    index(config)
    (fates,) = [
        {
            (part["account"]["source"], place): row["provenance"]
            for part in parts
            for place, row in enumerate(pq.read_table(folder / part["file"]).to_pylist())
        }
        for folder, parts in [fates_of(tmp_path)]
    ]
    synthetic = 5
    assert {key for key, provenance in fates.items() if provenance == synthetic} == {
        ("web", 0),
        ("web", 1),
        ("web", 2),
        ("human", 1),
    }


def fates_of(project: Path) -> tuple[Path, list[dict[str, Any]]]:
    import json

    root = project / "out" / "index"
    folder = root / "fates" / json.loads((root / "current.json").read_text())["fates"]
    parts: list[dict[str, Any]] = json.loads((folder / "_DONE.json").read_text())["parts"]
    return folder, parts


def test_laundering_does_not_help(tmp_path: Path) -> None:
    """Model output with a word changed, in a source that is believed to be human: it counts as what it is."""
    rng = random.Random(2)
    outputs = [corpus.make_document(rng, 80) for _ in range(6)]
    laundered = [corpus.near_copy(rng, output, 1).text for output in outputs]
    human = [corpus.make_document(rng, 80).text for _ in range(4)]
    config = known_project(
        tmp_path,
        {"human": [*laundered, *human]},
        [output.text for output in outputs],
        mix={"floors": {"human_verified": 0, "human_any": 0.5}},
    )
    mix = run(config)
    kept = [row["text"] for row in mix.rows if row["provenance"] == "human"]
    assert sorted(kept) == sorted(human)
    synthetic = sum(row["n_tokens"] for row in mix.rows if row["provenance"] == "synthetic")
    assert synthetic <= sum(row["n_tokens"] for row in mix.rows if row["provenance"] == "human")


def griefed(folder: Path, **changes: Any) -> Path:
    """A signed book, whose text somebody planted in the registry and, edited, in a scrape."""
    corpus.write_corpus(folder, verified=20, exact=0, near=0, unknown=5)
    config = yaml.safe_load(corpus.minimal_config(folder, **changes).read_text())
    rows = [
        row
        for path in sorted((folder / "shards" / "press").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    write_registry(folder / "registry", [row["text"] for row in rows[:3]])
    rng = random.Random(3)
    words = rows[0]["text"].split()
    planted = [" ".join([*words, f"planted{rng.random()}"]) for _ in range(4)]
    write_rows(folder / "planted.jsonl", [{"text": text} for text in planted])
    config["sources"].append({"name": "planted", "files": ["planted.jsonl"], "declare": "human", "priority": 99})
    config["dedup"] = {"wipe_out": 1}
    config.setdefault("evidence", {})["known_synthetic"] = ["registry/*.jsonl"]
    path = folder / "griefed.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_griefing_neither_removes_nor_demotes_a_signed_book(tmp_path: Path) -> None:
    config = griefed(tmp_path, evidence={"max_contested": 1})
    told = anchormix("run", config)
    assert told.exit == 0, told.stderr
    mix = PublishedMix(tmp_path / "out" / "mix")
    press = {row["id"]: row for row in mix.rows if row["source"] == "press"}
    contested = [row for row in press.values() if marks(row)]
    assert len(press) == 20
    assert {row["provenance"] for row in press.values()} == {"human_verified"}
    assert len(contested) == 3
    assert mix.manifest["sources"]["planted"]["documents_out"] == 0
    assert any("contested: 3 verified documents" in note for note in mix.manifest["notes"])
    assert anchormix("verify", tmp_path / "out" / "mix").exit == 0


def test_contested_custody_beyond_the_limit_stops_the_run(tmp_path: Path) -> None:
    told = anchormix("run", griefed(tmp_path, evidence={"max_contested": 0.01}))
    assert (told.exit, told.code) == (6, "contested_custody")


def test_a_changed_registry_reads_no_source_again(tmp_path: Path) -> None:
    rng = random.Random(4)
    documents = [corpus.make_document(rng, 60).text for _ in range(4)]
    config = write_project(tmp_path, {"web": documents})
    assert anchormix("index", config).line["rebuilt"] == ["facts", "edges", "fates"]
    write_registry(tmp_path / "registry", documents[:1])
    plain = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**plain, "evidence": {"known_synthetic": ["registry/*.jsonl"]}}))
    assert anchormix("index", config).line["rebuilt"] == ["edges", "fates"]
    assert anchormix("index", config).line["rebuilt"] == []
    assert len([row for row in run(config).rows if row["provenance"] == "synthetic"]) == 1
    write_rows(tmp_path / "registry" / "more.jsonl", [{"text": documents[1]}])
    plan = anchormix("plan", config)
    assert (plan.exit, plan.code) == (2, "stale_index")
    assert anchormix("index", config).line["rebuilt"] == ["edges", "fates"]


@pytest.mark.parametrize(
    ("content", "exit_code", "code", "words"),
    [
        (None, 2, "no_files", ["evidence.known_synthetic", "matches no file", "leave the pattern out"]),
        ('{"text": "fine"}\n{"text": 7}\n', 5, "bad_records", ["known.jsonl", "row 1", "evidence.known_synthetic"]),
        ('{"stuff": 1}\n', 2, "missing_column", ["evidence.known_synthetic: ", "known.jsonl", "give the one"]),
    ],
)
def test_a_registry_that_cannot_be_read_is_told_by_its_key(
    content: str | None, exit_code: int, code: str, words: list[str], tmp_path: Path
) -> None:
    config = known_project(tmp_path, {"web": ["a text of its own"]}, ["another text"])
    registry = tmp_path / "registry" / "known.jsonl"
    assert_refused_for(registry, content, config, exit_code, code, words)


def test_an_empty_registry_marks_nothing(tmp_path: Path) -> None:
    config = known_project(tmp_path, {"web": ["a text of its own"]}, [])
    assert [row["provenance"] for row in run(config).rows] == ["unknown"]


def test_a_registry_needs_neither_counts_of_tokens_nor_scores(tmp_path: Path) -> None:
    text = "words that a model wrote and that somebody took for his own " * 3
    detectors = {"known_synthetic": ["registry/*.jsonl"], "detectors": ["score"]}
    config = write_project(tmp_path, {"web": []}, tokens={"column": "count"}, evidence=detectors)
    write_registry(tmp_path / "registry", [text])
    write_rows(tmp_path / "web" / "part.jsonl", [{"text": text, "count": 7, "score": 0.5}])
    assert anchormix("check", config).exit == 0
    (row,) = run(config).rows
    assert (row["provenance"], row["n_tokens"]) == ("synthetic", 7)


def test_a_plan_covers_what_evidence_names_beside_config_and_input(tmp_path: Path) -> None:
    rng = random.Random(40)
    texts = [corpus.make_document(rng, 200).text for _ in range(4)]
    config = known_project(tmp_path, {"human": texts}, [texts[0]])
    mix = run(config)
    assert "known.jsonl" in marks(rows_of(mix)[f"{tmp_path.name}-human-0"])[0]

    registry = tmp_path / "registry" / "known.jsonl"
    renamed = registry.rename(registry.with_name("renamed.jsonl"))
    told = anchormix("run", config)
    assert (told.exit, told.code) == (2, "output_exists"), told.stderr

    renamed.rename(registry)
    assert anchormix("run", config).line["status"] == "unchanged"

    # People wrote it, the card says, which changes evidence and no tag.
    card = tmp_path / "human" / "README.md"
    for creators in ("crowdsourced", "expert-generated"):
        card.write_text(f"---\nlanguage_creators: [{creators}]\n---\n", encoding="utf-8")
        told = anchormix("run", config, "--set", f"output=out/{creators}")
        assert told.exit == 0, told.stderr
    plans = {PublishedMix(tmp_path / "out" / name).manifest["plan"] for name in ("mix", "crowdsourced", creators)}
    assert len(plans) == 3
