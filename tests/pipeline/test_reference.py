"""Held-out human text: measured, never mixed, and nothing like it is."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import corpus
import oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner
from projects import assert_refused_for, index, run, write_project
from runs import PublishedMix, anchormix

from pipeline.cli import main
from pipeline.samples import write_rows
from transforms.kernels.heldout import HeldOutTexts
from transforms.kernels.schemas import Fate, Provenance


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
    assert_refused_for(file, content, config, exit_code, code, words)


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


def assert_as_expected(mix: PublishedMix, expected: dict[Any, oracle.Expected]) -> None:
    """Fate, partner, exact similarity and what survivors stand for, as brute force has them."""
    assert {place: "kept" for place in mix.documents} | {place: row["fate"] for place, row in mix.dropped.items()} == {
        place: document.fate for place, document in expected.items()
    }
    for place, row in mix.dropped.items():
        similarity = expected[place].similarity
        told = None if similarity is None else round(float(similarity), 6)
        assert (row["partner"], row["similarity"]) == (expected[place].partner, told)
    for place, row in mix.documents.items():
        assert row["represents"] == expected[place].represents
    mix.assert_conserved()


@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_out_is_what_brute_force_finds(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    names = ["human", "web", "ai_assisted", "reference"]
    texts: dict[str, list[str]] = {name: [] for name in names}
    for number in range(24):
        original = corpus.make_document(rng, 200, rng.choice(["en", "ru", "zh"]))
        family = [original, original, *(corpus.near_copy(rng, original, changes) for changes in (1, 2, 6))]
        family.append(corpus.near_copy(rng, family[4], 1))  # a chain of its own, too far from the others
        for member in family:
            texts[rng.choice(names if number % 4 else names[:3])].append(member.text)
    texts["reference"] += ["!?", " ", texts["reference"][0]]
    texts["web"] += ["!?", "...", ""]  # texts without words are the same, or different, never near
    reference = {"all": texts.pop("reference")}
    priority = {"source_web": {"priority": 9}}
    config = reference_project(tmp_path, texts, reference, dedup={"threshold": 0.8}, **priority)
    mix = run(config)
    expected = oracle.expect(config)
    assert_as_expected(mix, expected)
    fates = [document.fate for document in expected.values()]
    assert {"kept", "held_out", "near_duplicate", "exact_duplicate", "empty"} == set(fates)
    assert fates.count("held_out") >= 20
    # Without a reference all the same documents are there, and none is held out.
    plain = write_project(tmp_path / "plain", texts, dedup={"threshold": 0.8}, **priority)
    assert "held_out" not in {document.fate for document in oracle.expect(plain).values()}


def test_short_texts_at_the_threshold_are_all_held_out(tmp_path: Path) -> None:
    """Bands alone would miss one or two in a hundred of these, and the run would stop at what it finds in the mix."""
    rng = random.Random(13)
    held_out = [corpus.make_document(rng, 16) for _ in range(400)]
    longer = rng.sample(corpus.vocabulary("en", fresh=True), 3)
    inside = [corpus.Document((*document.words, *longer)) for document in held_out]
    below = [corpus.Document((*document.words, *longer, "more")) for document in held_out]
    assert {corpus.jaccard(*pair) for pair in zip(held_out, inside, strict=True)} == {Fraction(12, 15)}
    assert {corpus.jaccard(*pair) for pair in zip(held_out, below, strict=True)} == {Fraction(12, 16)}
    sources = {"web": [d.text for d in inside], "human": [d.text for d in below]}
    config = reference_project(tmp_path, sources, {"en": [d.text for d in held_out]})
    index(config)
    root = tmp_path / "out" / "index"
    folder = root / "fates" / json.loads((root / "current.json").read_text())["fates"]
    parts = {part["account"]["source"]: part for part in json.loads((folder / "_DONE.json").read_text())["parts"]}
    fates = {name: set(pq.read_table(folder / part["file"])["fate"].to_pylist()) for name, part in parts.items()}
    assert fates == {"web": {int(Fate.HELD_OUT)}, "human": {int(Fate.KEPT)}}


def test_a_held_out_document_removes_nothing_and_leads_to_nothing(tmp_path: Path) -> None:
    """It would stay for both: for the copy that goes with it, and for the chain's end, which is its own document."""
    rng = random.Random(3)
    held_out = corpus.make_document(rng, 100)
    near = corpus.near_copy(rng, held_out, 2)
    words = list(near.words)
    words[20], words[75] = rng.sample(corpus.vocabulary("en", fresh=True), 2)
    far = corpus.Document(tuple(words), "en")
    assert corpus.jaccard(near, far) >= 0.8 > corpus.jaccard(held_out, far)
    sources = {"human": [near.text], "web": [near.text, far.text, corpus.near_copy(rng, far, 1).text]}
    told = oracle.expect(write_project(tmp_path / "plain", sources))
    assert [told["web", "part.jsonl", row, 0].fate for row in range(3)] == [
        "exact_duplicate",
        "near_duplicate",
        "kept",
    ]
    config = reference_project(tmp_path / "held", sources, {"en": [held_out.text]})
    mix = run(config)
    assert_as_expected(mix, oracle.expect(config))
    fates = {(row["source"], row["row"]): row for row in mix.dropped.values()}
    assert {place: row["fate"] for place, row in fates.items() if row["fate"] == "held_out"} == {
        ("human", 0): "held_out",
        ("web", 0): "held_out",
    }
    (row,) = [row for place, row in fates.items() if place == ("web", 0)]
    assert row["reason"] == "near en.jsonl row 0"
    assert mix.manifest["sources"]["web"]["dropped"]["held_out"] == 1
    (stays,) = [row for row in mix.rows if row["source"] == "web"]
    assert stays["row"] in (1, 2)


def test_order_of_fates(tmp_path: Path) -> None:
    """Broken and empty, then excluded, then held out, then seen before and duplicates."""
    rng = random.Random(4)
    held_out, seen, other = (corpus.make_document(rng, 100) for _ in range(3))
    both = corpus.near_copy(rng, held_out, 1)
    index(write_project(tmp_path / "old", {"web": [held_out.text, both.text, seen.text]}))
    against = {"against": [{"index": "../old/out/index"}]}
    sources = {"human": [held_out.text, both.text, seen.text, held_out.text, other.text, ""]}
    exclude = [{"doc_ids": ["new-human-3"], "reason": "taken down"}]
    config = reference_project(tmp_path / "new", sources, {"en": [held_out.text]}, dedup=against, exclude=exclude)
    mix = run(config)
    told = {row["row"]: (row["fate"], row["reason"], row["partner_index"]) for row in mix.dropped.values()}
    old = str(tmp_path / "old" / "out" / "index")
    assert told == {
        0: ("held_out", "the text of en.jsonl row 0", None),
        1: ("held_out", "near en.jsonl row 0", None),
        2: ("seen_before", None, old),
        3: ("excluded", "taken down", None),
        5: ("empty", None, None),
    }
    assert [row["text"] for row in mix.rows] == [other.text]
    mix.assert_conserved()


@pytest.mark.parametrize("edges", ["100000000", "0"])
def test_all_that_is_compared_with_at_once(edges: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier index, text known to be synthetic and held-out text, by one worker and in rounds."""
    monkeypatch.setenv("ANCHORMIX_REMOVAL_EDGES", edges)
    rng = random.Random(12)
    seen, known, held_out, free = ([corpus.make_document(rng, 100) for _ in range(4)] for _ in range(4))
    index(write_project(tmp_path / "old", {"web": [document.text for document in seen]}))
    write_rows(tmp_path / "new" / "known" / "known.jsonl", [{"text": d.text} for d in (*known, held_out[0])])
    groups = (seen, known, held_out, free)
    texts = [corpus.near_copy(rng, document, 1).text for document in (d for group in groups for d in group)]
    config = reference_project(
        tmp_path / "new",
        {"human": [*texts, *texts]},
        {"en": [document.text for document in held_out]},
        dedup={"against": [{"index": "../old/out/index"}]},
        evidence={"known_synthetic": ["known/*.jsonl"]},
    )
    mix = run(config)
    fates = [row["fate"] for _, row in sorted(mix.dropped.items())]
    assert fates == [*["seen_before"] * 4, *["held_out"] * 4, *["seen_before"] * 4, *["exact_duplicate"] * 4] + (
        ["held_out"] * 4 + ["exact_duplicate"] * 4
    )
    # What is held out keeps its tag: of the held-out texts, one is known to be synthetic.
    assert mix.manifest["sources"]["human"]["tags"] == {"human": 22, "synthetic": 10}
    assert {row["provenance"] for row in mix.rows[:]} == {"human", "synthetic"}
    mix.assert_conserved()


def test_signed_text_is_held_out_too(tmp_path: Path) -> None:
    corpus.write_corpus(tmp_path, verified=20, exact=3, near=3, unknown=5)
    config = yaml.safe_load(corpus.minimal_config(tmp_path, mix={"floors": {"human_verified": 0}}).read_text())
    (path, *_) = sorted((tmp_path / "shards" / "press").glob("*.parquet"))
    texts = pq.read_table(path)["text"].to_pylist()[:4]
    write_reference(tmp_path, {"press": texts})
    config["diversity"] = {"reference": ["reference/*.jsonl"]}
    held = tmp_path / "held.yaml"
    held.write_text(yaml.safe_dump(config))
    told = anchormix("run", held)
    assert told.exit == 0, told.stderr
    mix = PublishedMix(tmp_path / "out" / "mix")
    assert_as_expected(mix, oracle.expect(held))
    assert sum(row["fate"] == "held_out" and row["source"] == "press" for row in mix.dropped.values()) == 4
    assert not {row["text"] for row in mix.rows} & set(texts)
    assert anchormix("verify", mix.folder).exit == 0
    row = next(row for row in mix.dropped.values() if row["fate"] == "held_out" and row["source"] == "press")
    explained = anchormix("explain", mix.folder, "--id", row["id"])
    plain = CliRunner().invoke(main, ["explain", str(mix.folder), "--id", row["id"]]).stdout
    assert explained.line["documents"][0]["fate"] == "held_out"
    assert f"was dropped: held_out, the text of press.jsonl row {texts.index(text_of(path, row))}" in plain
    assert f"held-out text {row['partner']}, similarity 1.0" in plain


def text_of(path: Path, row: dict[str, Any]) -> str:
    return str(pq.read_table(path)["text"][row["row"]].as_py())


@pytest.mark.parametrize("how", ["the same file", "a link", "the same bytes"])
def test_a_file_of_the_reference_is_no_source(how: str, tmp_path: Path) -> None:
    rng = random.Random(5)
    config = reference_project(tmp_path, {"web": made_texts(rng, 3)}, {"en": made_texts(rng, 3)})
    held_out, twin = tmp_path / "reference" / "en.jsonl", tmp_path / "web" / "twin.jsonl"
    plain = yaml.safe_load(config.read_text())
    if how == "the same file":
        plain["sources"][0]["files"] = ["web/*.jsonl", "reference/e*.jsonl"]
        config.write_text(yaml.safe_dump(plain))
    elif how == "a link":
        twin.symlink_to(held_out)
    else:
        twin.write_bytes(held_out.read_bytes())
    told = anchormix("run", config)
    assert (told.exit, told.code) == (6, "held_out_leak"), told.stderr
    for word in ("diversity.reference: 'en.jsonl'", how.replace("a link", "the same file"), "sources.web.files"):
        assert word in told.message
    assert not (tmp_path / "out" / "mix").exists()
    checked = anchormix("check", config)
    assert checked.exit == (0 if how == "the same bytes" else 6)  # without reading, names are all there is


def test_files_without_documents_are_no_leak(tmp_path: Path) -> None:
    config = reference_project(tmp_path, {"web": ["a text of its own"]}, {"en": ["another text"]})
    for folder in ("web", "reference"):
        (tmp_path / folder / "empty.jsonl").write_text("\n")
    assert len(run(config).rows) == 1


def test_a_reference_without_documents_is_told(tmp_path: Path) -> None:
    config = reference_project(tmp_path, {"web": ["a text of its own"]}, {"en": ["", "  "]})
    expected = "diversity.reference: its 1 file holds no document that could be read"
    assert any(note.startswith(expected) for note in run(config).manifest["notes"])


def test_the_manifest_names_what_was_held_out(tmp_path: Path) -> None:
    rng = random.Random(6)
    config = reference_project(tmp_path, {"web": made_texts(rng, 3)}, {"en": [*made_texts(rng, 3), ""]})
    mix = run(config)
    file = tmp_path / "reference" / "en.jsonl"
    content = file.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    held_out = mix.manifest["reference"]
    assert held_out["documents"] == 3
    assert held_out["files"] == [{"shard": "en.jsonl", "sha256": sha256, "bytes": len(content), "documents": 3}]
    assert {row["shard"] for row in mix.inputs} == {"part.jsonl"}  # it was compared with, and is no input
    page = (mix.folder / "report.html").read_text()
    assert "<h2>Held out</h2>" in page
    assert sha256[:16] in page
    plain = run(write_project(tmp_path / "plain", {"web": ["a text"]}))
    assert plain.manifest["reference"] is None
    assert "<h2>Held out</h2>" not in (plain.folder / "report.html").read_text()


def test_a_long_document_that_holds_a_held_out_text_stays_and_is_told(tmp_path: Path) -> None:
    rng = random.Random(7)
    held_out, around = made_texts(rng, 1, size=150)[0], made_texts(rng, 1, size=900)[0]
    config = reference_project(tmp_path, {"web": [f"{around} {held_out}", held_out]}, {"en": [held_out]})
    mix = run(config)
    assert [row["row"] for row in mix.rows] == [0]
    assert [row["fate"] for row in mix.dropped.values()] == ["held_out"]
    assert any("1 document holds a held-out text" in note for note in mix.manifest["notes"])


def test_a_reference_that_changed_since_it_was_indexed_is_read_anew(tmp_path: Path) -> None:
    rng = random.Random(8)
    held_out = corpus.make_document(rng, 100)
    near = corpus.near_copy(rng, held_out, 1).text
    config = reference_project(tmp_path, {"web": [near]}, {"en": [held_out.text]})
    index(config)
    file = tmp_path / "reference" / "en.jsonl"
    stat, content = file.stat(), file.read_bytes()
    file.write_bytes(content.replace(b"a", b"e"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    told = anchormix("index", config, "--set", "dedup.threshold=0.7")
    assert (told.exit, told.code) == (5, "input_changed")
    assert "reference/en.jsonl" in told.message
    again = anchormix("index", config, "--set", "dedup.threshold=0.7")
    assert again.exit == 0, again.stderr


def forge_fates(config: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every row of the fates that the index holds, and the sizes by which it knows its files."""
    root = config.parent / "out" / "index"
    folder = root / "fates" / json.loads((root / "current.json").read_text())["fates"]
    done = json.loads((folder / "_DONE.json").read_text())
    for part in done["parts"]:
        table = pq.read_table(folder / part["file"])
        rows = table.to_pylist()
        for row in rows:
            change(row)
        pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / part["file"])
        done["files"][part["file"]] = (folder / part["file"]).stat().st_size
        counted = Counter((row["provenance"], row["fate"]) for row in rows)
        part["account"]["cells"] = [
            [Provenance(provenance).label, Fate(fate).label, documents, 0]
            for (provenance, fate), documents in counted.items()
        ]
    (folder / "_DONE.json").write_text(json.dumps(done))


def let_in(row: dict[str, Any]) -> None:
    if row["fate"] == Fate.HELD_OUT:
        row.update(fate=int(Fate.KEPT), represents=1, partner=None, shared=0, union=0, reason=None)


@pytest.mark.parametrize("edits", [0, 1])
def test_a_match_in_the_written_mix_publishes_nothing(edits: int, tmp_path: Path) -> None:
    """Whoever can write to the index can let held-out text in; the files are looked at once more, without it."""
    rng = random.Random(9)
    held_out = [corpus.make_document(rng, 100) for _ in range(3)]
    inside = [corpus.near_copy(rng, document, edits).text for document in held_out]
    config = reference_project(tmp_path, {"web": [*inside, *made_texts(rng, 5)]}, {"en": [d.text for d in held_out]})
    index(config)
    forge_fates(config, let_in)
    told = anchormix("run", config)
    assert (told.exit, told.code) == (6, "held_out_leak"), told.stderr
    assert told.details["rows"] == 3
    leaks = {(leak["shard_row"], leak["reference"], leak["jaccard"]) for leak in told.details["leaks"]}
    assert leaks == {(row, f"en.jsonl row {row}", "91/101" if edits else "1") for row in range(3)}
    assert {leak["id"] for leak in told.details["leaks"]} == {
        hashlib.sha256(text.encode()).hexdigest()[:32] for text in inside
    }
    assert "3 rows of the mix that was written are held out, so nothing was published" in told.message
    assert ("exclude: [{ids:" if edits else "Remove the index folder") in told.message
    assert not (tmp_path / "out" / "mix").exists()
    # The advice helps.
    if edits:
        plain = yaml.safe_load(config.read_text())
        plain["exclude"] = [{"ids": [leak["id"] for leak in told.details["leaks"]]}]
        config.write_text(yaml.safe_dump(plain))
    else:
        shutil.rmtree(tmp_path / "out" / "index")
    assert len(run(config).rows) == 5


def test_verify_looks_for_held_out_text(tmp_path: Path) -> None:
    rng = random.Random(10)
    held_out, other = made_texts(rng, 2, size=100)
    config = reference_project(tmp_path, {"web": [*made_texts(rng, 4), other]}, {"en": [held_out]})
    mix = run(config)
    plain = anchormix("verify", mix.folder)
    assert plain.exit == 0
    assert any(told.startswith("held-out text: no --inputs that") for told in plain.line["not_checked"])
    told = anchormix("verify", mix.folder, "--inputs", config)
    assert told.exit == 0, told.stderr
    assert not any("held-out" in line for line in told.line["not_checked"])
    write_reference(tmp_path, {"more": [f"{other} and more"]})
    told = anchormix("verify", mix.folder, "--inputs", config)
    assert (told.exit, told.code) == (4, "not_verified")
    assert told.details["finding_counts"] == {"reproduced.held_out": 1}
    assert "held_out in train-00000" in told.message
    assert "near more.jsonl row 0, Jaccard 96/98" in told.message


def test_more_held_out_text_than_near_matches_can_be_looked_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HeldOutTexts.of.__func__, "__defaults__", (100,))
    rng = random.Random(11)
    config = reference_project(tmp_path, {"web": made_texts(rng, 3)}, {"en": made_texts(rng, 9)})
    mix = run(config)
    assert any("only equal texts were looked for" in note for note in mix.manifest["notes"])
    told = anchormix("verify", mix.folder, "--inputs", config)
    assert any("only equal texts were looked for" in line for line in told.line["not_checked"])
