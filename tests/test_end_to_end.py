"""Whole runs against the oracle: every document's fate, witness, similarity, provenance and text."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import oracle
import pytest
import runs
from corpus import Document, attest_press, make_document, minimal_config, near_copy, write_corpus
from runs import PublishedMix, anchormix

from pipeline.samples import init, write_rows

TAKE_ALL = ("--set", "mix.floors.human_verified=0", "--set", "mix.caps=", "--set", "mix.size=max")
"""With no binding rule a mix takes every survivor, so that every fate can be seen in the output."""


@dataclass(frozen=True)
class Run:
    config: Path
    mix: PublishedMix
    expected: dict[runs.Place, oracle.Expected]


def run_all(config: Path) -> Run:
    told = anchormix("run", config, *TAKE_ALL)
    assert told.exit == 0, told.stderr
    return Run(config, PublishedMix(Path(told.line["output"])), oracle.expect(config))


def planted(folder: Path) -> Path:
    write_corpus(folder, seed=2, verified=60, unknown=40, exact=10, near=24, empty=4)
    return minimal_config(folder)


def samples(folder: Path) -> Path:
    init(folder / "samples")
    return folder / "samples" / "quickstart.yaml"


def families(folder: Path) -> Path:
    """Copies of copies across sources of different standing: chains, excluded copies, demoted best copies.

    All pairs are chosen to be either .05 and more above the threshold of .65, where banding hardly ever misses one, or
    below it: copies of 200 words with one or two of them replaced (.90 and above), and the first and last 160 words of
    such a document (.71 to .80 with the copies, .59 with each other).
    """
    rng = random.Random(11)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("archive", "forum", "mirror", "press", "scraped")}
    marks = "As an AI language model, I wrote this. :contentReference[oaicite:0]{index=0}"

    def add(source: str, document: Document, **values: Any) -> None:
        text = values.pop("text", document.text)
        rows[source].append({"id": f"{source}-{len(rows[source])}", "text": text, "language": "en", **values})

    for family in range(24):
        members = [make_document(rng, 200, "en" if family % 3 else "ru")]
        for _ in range(rng.randint(1, 6)):
            members.append(near_copy(rng, rng.choice(members), rng.choice((1, 1, 2))))
        for member in members:
            for source in rng.sample(sorted(rows), rng.choice((1, 1, 1, 2))):
                label = {"is_human": rng.choice(("1", "0", "?"))} if source == "forum" else {}
                add(source, member, **label)
        if family % 6 == 0:
            add("scraped", members[0], text=f"{members[0].text} {marks}")
            add("archive", members[-1], text=f"{marks} {members[-1].text}")
        if family % 5 == 0:
            # A chain whose ends have nothing to do with each other: the third stays although the second goes.
            first = Document(members[0].words[:160])
            third = Document(members[0].words[40:])
            for source, document in (("mirror", first), ("scraped", third)):
                add(source, document)
    for source in rows:
        add(source, Document(()), text=" \n", **({"is_human": "1"} if source == "forum" else {}))
        add(source, Document(()), text="!!!", **({"is_human": "1"} if source == "forum" else {}))
        add(source, Document(()), text="Ja, Straße.", **({"is_human": "1"} if source == "forum" else {}))

    shards = folder / "shards"
    for source, its in rows.items():
        rng.shuffle(its)
        suffix = {"forum": "jsonl", "archive": "csv.gz", "mirror": "jsonl.zst"}.get(source, "parquet")
        write_rows(shards / source / f"{source}-0.{suffix}", its[: len(its) // 2], row_group=5)
        write_rows(shards / source / f"{source}-1.{suffix}", its[len(its) // 2 :], row_group=5)
    attest_press(folder)
    victims = [rows["press"][3]["id"], rows["archive"][5]["id"], rows["scraped"][4]["id"]]
    forum = {"columns": {"label": "is_human"}, "labels": {"1": "human", "0": "synthetic"}, "declare": "ai_assisted"}
    return minimal_config(
        folder,
        dedup={"threshold": 0.65, "wipe_out": 1},
        exclude=[{"doc_ids": victims, "reason": "asked for by its author"}],
        sources={
            "letters": None,
            "web": None,
            "bot": None,
            "archive": {"files": ["shards/archive/*.csv.gz"], "declare": "human", "priority": -1},
            "forum": {"files": ["shards/forum/*"], **forum},
            "mirror": {"files": ["shards/mirror/*"], "synthetic": {"generator": "parrot-1b"}},
            "scraped": {"files": ["shards/scraped/*"], "declare": "human", "priority": 3},
        },
    )


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], Path]], Run]:
    """The run of a corpus, made once however many tests look at it."""
    return cache(lambda corpus: run_all(corpus(tmp_path_factory.mktemp("corpus"))))


@pytest.fixture(params=[planted, samples, families])
def run(request: pytest.FixtureRequest, run_of: Callable[[Callable[[Path], Path]], Run]) -> Run:
    return run_of(request.param)


def test_every_document_has_the_fate_that_the_oracle_expects(run: Run) -> None:
    found = {place: "kept" for place in run.mix.documents}
    found |= {place: row["fate"] for place, row in run.mix.dropped.items()}
    expected = {place: document.fate for place, document in run.expected.items()}
    assert len(run.mix.documents) + len(run.mix.dropped) == len(found), "a document is both in the mix and dropped"
    wrong = {
        p: (found.get(p), expected.get(p)) for p in found.keys() | expected.keys() if found.get(p) != expected.get(p)
    }
    assert not wrong
    assert {"kept", "near_duplicate", "exact_duplicate", "empty"} <= set(expected.values()), "the corpus tests nothing"


def test_every_removal_names_its_witness_and_the_exact_similarity(run: Run) -> None:
    kept_ids = {row["id"] for row in run.mix.documents.values()}
    for place, row in run.mix.dropped.items():
        expected = run.expected[place]
        assert row["partner"] == expected.partner, (place, row)
        if expected.similarity is None:
            assert row["similarity"] is None
            continue
        assert row["partner"] in kept_ids
        assert row["similarity"] == round(expected.similarity.numerator / expected.similarity.denominator, 6)
        assert row["id"] == expected.id
    assert all(row["doc_id"] == run.expected[place].doc_id for place, row in run.mix.dropped.items())


def test_kept_documents_are_as_they_were_read(run: Run) -> None:
    for place, row in run.mix.documents.items():
        expected = run.expected[place]
        shown = {name: row[name] for name in ("text", "doc_id", "language", "id", "represents", "n_tokens", "n_bytes")}
        text = expected.text or ""
        assert shown == {
            "text": text,
            "doc_id": expected.doc_id,
            "language": expected.language,
            "id": expected.id,
            "represents": expected.represents,
            "n_tokens": expected.tokens,
            "n_bytes": len(text.encode()),
        }, place


def test_provenance_is_what_the_evidence_amounts_to(run: Run) -> None:
    for place, row in run.mix.documents.items():
        expected = run.expected[place]
        assert (row["provenance"], row["generator"]) == (expected.provenance, expected.generator), place
    readable = [document for document in run.expected.values() if document.fate != "empty"]
    tags = oracle.tags_of(readable)
    for source, account in run.mix.manifest["sources"].items():
        # What an empty document is tagged as matters to nobody, so those are left to differ.
        empty = account["dropped"].get("empty", 0)
        more = Counter(account["tags"]) - tags[source]
        assert more.total() == empty
        assert not tags[source] - Counter(account["tags"])


def test_sources_are_conserved(run: Run) -> None:
    run.mix.assert_conserved()
    read = Counter(document.source for document in run.expected.values())
    assert {name: account["documents_in"] for name, account in run.mix.manifest["sources"].items()} == read
    out = sum(row["represents"] for row in run.mix.documents.values())
    assert out == sum(document.fate not in ("empty", "excluded") for document in run.expected.values())


def test_splits_and_batches_decide_nothing(
    run_of: Callable[[Callable[[Path], Path]], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_of(families)
    monkeypatch.setenv("ANCHORMIX_SPLIT_BYTES", "1")
    monkeypatch.setenv("ANCHORMIX_BATCH_ROWS", "3")
    told = anchormix(
        "run",
        whole.config,
        *TAKE_ALL,
        "--set",
        "output=out/again",
        "--set",
        "index=out/other",
        beam=("--direct_num_workers=2",),
    )
    again = PublishedMix(Path(told.line["output"]))
    names = [path.name for path in sorted((whole.mix.folder / "data").iterdir())]
    assert names == [path.name for path in sorted((again.folder / "data").iterdir())]
    for name in names:
        assert (whole.mix.folder / "data" / name).read_bytes() == (again.folder / "data" / name).read_bytes()
    assert whole.mix.dropped == again.dropped


def test_the_oracle_itself() -> None:
    assert oracle.split_words("Ünder_the don't 日本語 a1") == ["ünder", "the", "don", "t", "日", "本", "語", "a1"]
    assert oracle.count_tokens("a" * 33 + " b") == 4
    assert oracle.count_tokens("!") == 1
    assert len(oracle.shingles(tuple("abcdefg"))) == 3
    assert oracle.shingles(("a", "b")) == {("a", "b")}
    left, right = oracle.shingles(tuple("abcdefg")), oracle.shingles(tuple("abcdefx"))
    assert Fraction(len(left & right), len(left | right)) == Fraction(1, 2)
