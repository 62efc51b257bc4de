"""Pairs of removed and kept documents: the right ones, drawn alike everywhere, read again from what is there now."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import corpus
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from runs import Told, anchormix

from pipeline.cli import main
from pipeline.samples import write_rows


def shown(*arguments: str | Path) -> str:
    """What people see of a command that ends well."""
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


def pairs(index: Path, *arguments: str) -> list[dict[str, Any]]:
    told = anchormix("duplicates", index, *arguments)
    assert told.exit == 0, told.stderr
    found: list[dict[str, Any]] = told.line["pairs"]
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, corpus.Truth]:
    folder = tmp_path_factory.mktemp("duplicates")
    truth = corpus.write_corpus(folder, verified=40, exact=8, near=12, unknown=10)
    assert anchormix("index", corpus.minimal_config(folder)).exit == 0
    return folder, truth


@pytest.fixture
def project(made: tuple[Path, corpus.Truth], tmp_path: Path) -> Iterator[Path]:
    """The indexed corpus, put aside and put back: an index knows its inputs by their paths."""
    folder, _ = made
    shutil.copytree(folder, tmp_path / "aside")
    yield folder
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "aside", folder)


def key_of(pair: dict[str, Any]) -> tuple[Any, ...]:
    sides = (pair["removed"], pair["kept"])
    return (pair["kind"], *((side["source"], side["doc_id"]) for side in sides))


def test_the_pairs_are_those_that_were_planted(made: tuple[Path, corpus.Truth]) -> None:
    folder, truth = made
    removed = [copy for copy in truth.near if copy.similarity >= Fraction(4, 5)]
    planted = {("exact", (c.source, c.id), (c.of_source, c.of_id)): c.similarity for c in truth.exact}
    planted |= {("near", (c.source, c.id), (c.of_source, c.of_id)): c.similarity for c in removed}
    found = pairs(folder / "out" / "index", "--sample", "1000")
    assert {key_of(pair) for pair in found} == set(planted)
    texts = {(source, row["id"]): row["text"] for source, rows in truth.rows.items() for row in rows}
    fresh = {word for language in corpus.LANGUAGES for word in corpus.vocabulary(language, fresh=True)}
    for pair in found:
        exact = planted[key_of(pair)]
        assert pair["jaccard"] == round(float(exact), 6)
        assert Fraction(pair["shared"], pair["union"]) == exact
        for side in (pair["removed"], pair["kept"]):
            text = texts[side["source"], side["doc_id"]]
            assert side["text"] == text[:160]
            assert side["problem"] is None
        assert (pair["removed"]["provenance"], pair["kept"]["provenance"]) == ("unknown", "human_verified")
        marked = [word for word in spans(pair["removed"]) if word.lower() in fresh]
        assert bool(marked) == (pair["kind"] == "near"), "a replaced word is marked, and only that"
        assert marked == spans(pair["removed"])
        assert len(marked) == len(spans(pair["kept"]))


def spans(side: dict[str, Any]) -> list[str]:
    """The words that are marked as differing at the beginning of a text."""
    return [side["text"][start:end] for start, end in side["differs"]]


def test_samples_are_nested_and_depend_on_the_seed_alone(made: tuple[Path, corpus.Truth]) -> None:
    index = made[0] / "out" / "index"
    everything = pairs(index, "--sample", "1000")
    assert pairs(index, "--sample", "5") == everything[:5]
    assert pairs(index, "--sample", "5") == pairs(index, "--sample", "5", "--seed", "0")
    other = pairs(index, "--sample", "1000", "--seed", "9")
    assert other != everything
    assert sorted(map(key_of, other)) == sorted(map(key_of, everything))


def test_samples_do_not_depend_on_splits(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pairs(project / "out" / "index", "--sample", "7")
    monkeypatch.setenv("ANCHORMIX_SPLIT_BYTES", "1000")
    assert anchormix("index", project / "mix.yaml", "--set", "index=out/finer").exit == 0
    assert pairs(project / "out" / "finer", "--sample", "7") == before


def test_copies_of_one_text_are_drawn_one_by_one(tmp_path: Path) -> None:
    """Ids alone would draw all copies of a text, or none."""
    rows = [{"id": f"{text}-{copy}", "text": f"the text of number {text}"} for text in range(4) for copy in range(30)]
    write_rows(tmp_path / "shards" / "a.parquet", rows)
    config = {"version": 1, "output": "out/mix", "index": "out/index", "mix": {"floors": {"human_verified": 0}}}
    config["sources"] = [{"name": "a", "files": ["shards/*.parquet"]}]
    (tmp_path / "mix.yaml").write_text(json.dumps(config))
    assert anchormix("index", tmp_path / "mix.yaml").exit == 0
    assert len({pair["kept"]["id"] for pair in pairs(tmp_path / "out" / "index", "--sample", "20")}) == 4


def test_filters(made: tuple[Path, corpus.Truth]) -> None:
    index = made[0] / "out" / "index"
    told = anchormix("duplicates", index, "--kind", "exact", "--source", "web")
    assert told.line["totals"] == {"removed": 8, "exact": 8, "sampled": 8, "texts_not_read": 0}
    assert {pair["kind"] for pair in told.line["pairs"]} == {"exact"}
    assert anchormix("duplicates", index).line["totals"] == {
        **{"removed": 16, "exact": 8, "near": 8, "seen_before": 0},
        **{"sampled": 16, "texts_not_read": 0},
    }
    assert pairs(index, "--source", "letters") == []
    assert shown("duplicates", index, "--source", "letters") == "dedup removed no document of source 'letters'\n"
    assert "as seen before" in shown("duplicates", index, "--kind", "seen_before")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--source", "wbe"], "no such source; it has bot, letters, press, web"),
        (["--kind", "nearly"], "nearly"),
        (["--sample", "0"], "1<=x<=1000"),
        (["--seed", "-1"], "x>=0"),
    ],
)
def test_bad_calls(arguments: list[str], says: str, made: tuple[Path, corpus.Truth]) -> None:
    told = anchormix("duplicates", made[0] / "out" / "index", *arguments)
    assert told.exit == 2
    assert says in told.message


def test_people_see_both_texts_with_what_differs(made: tuple[Path, corpus.Truth]) -> None:
    told = shown("duplicates", made[0] / "out" / "index", "--kind", "near", "--sample", "3")
    assert told.startswith("3 of the 8 documents that dedup removed (8 near); seed 0\n")
    assert told.count("near duplicate, exact Jaccard 0.") == 3
    assert told.count("[-") == told.count("{+") >= 3
    lines = told.splitlines()
    for at, line in enumerate(lines):
        if "  removed|" in line:
            kept = lines[at + 1]
            assert kept.index("|") == line.index("|"), "the texts stand one below the other"
            assert "  kept   |" in kept
    exact = shown("duplicates", made[0] / "out" / "index", "--kind", "exact", "--sample", "1")
    assert exact.count("  both   |") == 1


# What became of the input


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    pq.write_table(pa.Table.from_pylist(change(pq.read_table(path).to_pylist())), path, row_group_size=8)


def remove(press: list[Path]) -> None:
    for path in press:
        path.unlink()


def change_texts(press: list[Path]) -> None:
    for path in press:
        rewrite(path, lambda rows: [{**row, "text": row["text"] + "!"} for row in rows])


def shorten(press: list[Path]) -> None:
    for path in press:
        rewrite(path, lambda rows: rows[:1])


def rename_column(press: list[Path]) -> None:
    for path in press:
        rewrite(path, lambda rows: [{"id": row["id"], "words": row["text"]} for row in rows])


def damage(press: list[Path]) -> None:
    for path in press:
        path.write_bytes(b"PAR1 and then nothing of the kind")


def make_folders(press: list[Path]) -> None:
    for path in press:
        path.unlink()
        path.mkdir()


def empty_texts(press: list[Path]) -> None:
    for path in press:
        rewrite(path, lambda rows: [{**row, "text": None if at else row["text"]} for at, row in enumerate(rows)])


@pytest.mark.parametrize(
    ("happens", "says"),
    [
        (remove, "cannot be opened: No such file or directory; it was moved, removed or changed since the index"),
        (change_texts, "holds another text at this row now: the file has changed since the index"),
        (shorten, "since the index"),
        (rename_column, "the file has changed since the index"),
        (damage, "since the index"),
        (make_folders, "since the index"),
        (empty_texts, "another text"),
    ],
)
def test_an_input_that_is_not_what_it_was_is_said_pair_by_pair(
    happens: Callable[[list[Path]], None], says: str, project: Path
) -> None:
    press = sorted((project / "shards" / "press").iterdir())
    happens(press)
    index = project / "out" / "index"
    told = anchormix("duplicates", index)
    assert told.exit == 0, told.stderr
    unread = [pair["kept"] for pair in told.line["pairs"] if pair["kept"]["problem"] is not None]
    assert len(unread) >= 14, "all but what a first row may still hold"
    assert told.line["totals"]["texts_not_read"] == len(unread)
    for side in unread:
        assert says in side["problem"]
        assert side["shard"] in side["problem"]
        assert side["text"] is None
    assert all(pair["removed"]["text"] for pair in told.line["pairs"]), "the other half of a pair is still shown"
    lines = shown("duplicates", index)
    assert lines.count("  kept   | -- ") == len(unread)


def test_other_formats_that_changed_are_said_too(project: Path) -> None:
    told = {pair["removed"]["shard"] for pair in pairs(project / "out" / "index")}
    assert told == {"web-0.parquet", "web-1.csv"}
    csv = project / "shards" / "web" / "web-1.csv"
    csv.write_bytes(csv.read_bytes()[:200])
    found = [pair for pair in pairs(project / "out" / "index") if pair["removed"]["shard"] == "web-1.csv"]
    assert all("since the index" in pair["removed"]["problem"] for pair in found)
    assert all(pair["kept"]["text"] for pair in found)


def test_a_new_index_shows_what_is_there_now(project: Path) -> None:
    change_texts(sorted((project / "shards" / "press").iterdir()))
    corpus.attest_press(project)
    assert anchormix("index", project / "mix.yaml").exit == 0
    assert all(pair["kept"]["text"] for pair in pairs(project / "out" / "index"))


# Other ways of holding text


def test_texts_are_read_again_as_the_config_said(tmp_path: Path) -> None:
    rng = random.Random(3)
    first, second, third = (corpus.make_document(rng, 60).text for _ in range(3))
    joined = [{"id": "a", "title": "Title", "body": first}, {"id": "b", "title": "Title", "body": first}]
    turns = [{"role": "user", "content": "Ask"}, {"role": "assistant", "content": second}]
    told = [{"id": "c", "turns": turns}, {"id": "d", "turns": [{**turns[0], "content": "Other"}, turns[1]]}]
    nested = [{"id": "e", "page": {"words": third}}, {"id": "f", "page": {"words": third}}]
    for name, rows in (("joined", joined), ("told", told), ("nested", nested)):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    columns = {
        "joined": {"join": ["title", "body"]},
        "told": {"messages": "turns", "count": ["assistant"]},
        "nested": "page.words",
    }
    sources = [
        {"name": name, "files": [f"{name}.jsonl.gz"], "columns": {"text": text}} for name, text in columns.items()
    ]
    config = {"version": 1, "output": "mix", "index": "index", "sources": sources}
    (tmp_path / "mix.yaml").write_text(json.dumps(config | {"mix": {"floors": {"human_verified": 0}}}))
    assert anchormix("index", tmp_path / "mix.yaml").exit == 0
    found = {pair["removed"]["source"]: pair["kept"]["text"] for pair in pairs(tmp_path / "index")}
    expected = {"joined": f"Title\n{first}", "told": f"assistant: {second}", "nested": third}
    assert found == {name: text[:160] for name, text in expected.items()}


def test_what_a_terminal_would_obey_is_escaped(tmp_path: Path) -> None:
    words = " ".join(f"word{n}" for n in range(60))
    evil = f"\x1b[2J\x07bell \u202eright to left\u2066 zero\u200bwidth\u00a0blank\r\n\x00 {words}"
    write_rows(tmp_path / "a.jsonl.gz", [{"id": "\x1b]0;x\x07", "text": evil}, {"id": "b", "text": evil + " more"}])
    config = {"version": 1, "output": "mix", "index": "index", "mix": {"floors": {"human_verified": 0}}}
    config["sources"] = [{"name": "a", "files": ["a.jsonl.gz"]}]
    (tmp_path / "mix.yaml").write_text(json.dumps(config | {"dedup": {"wipe_out": 0}}))
    told = anchormix("index", tmp_path / "mix.yaml")
    assert (told.exit, told.code) == (6, "wipe_out"), "the guard shows the same texts"
    lines = shown("duplicates", tmp_path / "index")
    for text in (lines, told.message):
        assert all(char.isprintable() or char == "\n" for char in text)
        assert r"\x1b[2J\x07bell \u202eright to left\u2066 zero\u200bwidth\xa0blank\r\n\x00 word0" in text
    assert told.details["examples"][0]["kept"]["text"] in (evil[:80], (evil + " more")[:80])


# Which layer, and what is no index


def test_the_layer_shown_is_the_one_indexed_last(project: Path) -> None:
    index = project / "out" / "index"
    assert len(pairs(index, "--kind", "near")) == 8
    strict = ("--set", "dedup.threshold=0.85")
    assert anchormix("index", project / "mix.yaml", *strict).exit == 0
    assert len(pairs(index, "--kind", "near")) == 4
    assert anchormix("index", project / "mix.yaml").exit == 0
    assert len(pairs(index, "--kind", "near")) == 8


def test_an_index_from_before_inputs_were_noted(project: Path) -> None:
    ledger = project / "out" / "index" / "facts.json"
    content = json.loads(ledger.read_bytes())
    for entry in content["shards"].values():
        del entry["input"]
    ledger.write_text(json.dumps(content))
    found = pairs(project / "out" / "index")
    assert all("run `anchormix index` with its config again" in pair["kept"]["problem"] for pair in found)
    told = anchormix("index", project / "mix.yaml")
    assert told.line["rebuilt"] == [], "nothing has to be read for it"
    assert all(pair["kept"]["text"] for pair in pairs(project / "out" / "index"))


def refusal(path: Path) -> Told:
    told = anchormix("duplicates", path)
    assert told.exit == 2
    assert str(path) in told.message
    return told


def test_what_is_no_index_is_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty", project / "mix.yaml"):
        told = refusal(path)
        assert told.code == "not_an_index"
        assert "anchormix index" in told.message
    assert anchormix("run", project / "mix.yaml").exit == 0
    told = refusal(project / "out" / "mix")
    assert told.code == "not_an_index"
    assert "published mix" in told.message


def test_a_damaged_index_is_refused(project: Path) -> None:
    index = project / "out" / "index"
    part = next((index / "fates").glob("*/*.parquet"))
    part.rename(part.with_suffix(".away"))
    assert refusal(index).code == "stale_index"
    part.with_suffix(".away").rename(part)
    facts = sorted((index / "facts").glob("*/*.parquet"))
    for path in facts:
        path.unlink()
    assert refusal(index).code == "stale_index"
    (index / "current.json").write_text("{")
    assert refusal(index).code == "index_unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_input_without_permission_is_said(project: Path) -> None:
    for path in (project / "shards" / "press").iterdir():
        path.chmod(0)
    assert all("Permission denied" in pair["kept"]["problem"] for pair in pairs(project / "out" / "index"))


# The guard


@pytest.fixture
def wiped(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A web source of which 10 of 11 documents are press with one word changed."""
    rng = random.Random(11)
    originals = [corpus.make_document(rng, 100) for _ in range(12)]
    copies = [corpus.near_copy(rng, document, 1) for document in originals[:10]]
    corpus.write_corpus(tmp_path, verified=12, exact=0, near=0, empty=3, unknown=0, believed=2, synthetic=2)
    press = [{"id": f"press-{n}", "text": document.text} for n, document in enumerate(originals)]
    write_rows(tmp_path / "shards" / "press" / "press-0.parquet", press)
    (tmp_path / "shards" / "press" / "press-1.parquet").unlink()
    own = corpus.make_document(rng, 100)
    web = [{"id": f"web-{n}", "text": document.text} for n, document in enumerate([*copies, own])]
    write_rows(tmp_path / "shards" / "web" / "web-0.parquet", web)
    (tmp_path / "shards" / "web" / "web-1.csv").unlink()
    config = corpus.minimal_config(tmp_path, sources={"web": {"files": ["shards/web/*.parquet"]}})
    return config, {row["id"]: row["text"] for row in [*press, *web]}


def test_the_guard_shows_three_pairs_and_what_to_do(wiped: tuple[Path, dict[str, str]]) -> None:
    config, texts = wiped
    told = anchormix("index", config)
    assert (told.exit, told.code) == (6, "wipe_out")
    assert "source 'web' would lose 10 of 11 documents (90.91%) to near-duplicates" in told.message
    assert "dedup.wipe_out allows 90%" in told.message
    assert "dedup.threshold" in told.message
    assert told.details | {"examples": 0} == {
        "source": "web",
        "lost": 10,
        "of": 11,
        "share": "10/11",
        "allowed": "9/10",
        "others": {},
        "examples": 0,
    }
    examples = told.details["examples"]
    assert len(examples) == 3
    assert len({pair["removed"]["doc_id"] for pair in examples}) == 3
    for pair in examples:
        removed, kept = pair["removed"], pair["kept"]
        assert (removed["source"], kept["source"]) == ("web", "press")
        assert removed["doc_id"].split("-")[1] == kept["doc_id"].split("-")[1]
        assert pair["jaccard"] == round(float(corpus.edited_jaccard(100, 1)), 6)
        assert (removed["text"], kept["text"]) == (texts[removed["doc_id"]][:80], texts[kept["doc_id"]][:80])
        for side in (removed, kept):
            place = f"{side['source']}/{side['shard']} row {side['row']}, {side['provenance']}, id {side['id']}"
            assert place in told.message
    assert f"exact Jaccard {examples[0]['jaccard']}" in told.message
    index = config.parent / "out" / "index"
    assert f"`anchormix duplicates {index} --source web --kind near`" in told.message
    assert len(pairs(index, "--source", "web", "--kind", "near")) == 10, "what it advises works"
    assert anchormix("plan", config).code == "wipe_out", "also when the index is fresh"
    assert anchormix("index", config, "--set", "dedup.wipe_out=10/11").exit == 0, "the share itself is allowed"


def test_the_guard_judges_without_the_input(wiped: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Only the texts are missing then: the layers are durable."""
    from pipeline.errors import GuardTripped
    from pipeline.index import Index
    from pipeline.layers import Fates, judge_wipe_out

    config, _ = wiped
    anchormix("index", config)
    for path in (tmp_path / "shards" / "press").iterdir():
        path.unlink()
    from pipeline.config import load_config

    index = Index(str(tmp_path / "out" / "index"))
    key = index.current()
    assert key is not None
    done = index.layer("fates", key)
    assert done is not None
    fates = Fates(key, {}, tuple(part["account"] for part in done["parts"]))
    with pytest.raises(GuardTripped, match="cannot be opened: No such file") as caught:
        judge_wipe_out(load_config(config), fates, index)
    assert len(caught.value.details["examples"]) == 3


def test_all_sources_that_were_wiped_out_are_named(wiped: tuple[Path, dict[str, str]]) -> None:
    config, _ = wiped
    letters = pq.read_table(config.parent / "shards" / "web" / "web-0.parquet").to_pylist()[:10]
    rows = [{**row, "text": row["text"] + " Afterword."} for row in letters]
    write_rows(config.parent / "shards" / "letters" / "letters-0.jsonl.gz", rows)
    told = anchormix("index", config)
    assert told.code == "wipe_out"
    assert told.details["source"] == "letters", "the worst one is shown"
    assert told.details["others"] == {"web": {"lost": 10, "of": 11}}
    assert "So would source 'web': 10 of 11." in told.message
