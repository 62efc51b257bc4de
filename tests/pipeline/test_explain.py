"""Why a document is in a mix, was dropped, or was left out, told of a small published mix."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import corpus
import pytest
from click.testing import CliRunner
from runs import PublishedMix, anchormix

from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.explain import explain
from pipeline.samples import write_rows


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> PublishedMix:
    """A mix whose cap on synthetic text binds, beside its floor."""
    directory = tmp_path_factory.mktemp("explained")
    rules = {"floors": {"human_verified": 0.1}, "caps": {"synthetic": 0.05}}
    told = anchormix("run", corpus.minimal_config(directory, mix=rules))
    assert told.exit == 0, told.stderr
    return PublishedMix(directory / "out" / "mix")


def found(mix: PublishedMix, **asked: Any) -> list[dict[str, Any]]:
    outcome = explain(mix.folder, asked.get("document"), asked.get("doc_id"))
    return list(outcome.details["documents"])


def text_of(mix: PublishedMix, doc_id: str) -> str:
    return explain(mix.folder, None, doc_id).text


@pytest.mark.parametrize("cut", [0, 1, 2, 31])
def test_a_part_of_an_id_is_none(mix: PublishedMix, cut: int) -> None:
    whole = mix.rows[0]["id"]
    for wrong in (whole[:cut], "g" + whole[1:], whole + "0", f" {whole}"):
        with pytest.raises(UsageError) as raised:
            explain(mix.folder, wrong, None)
        assert (raised.value.code, raised.value.exit_code) == ("bad_call", 2)
        assert repr(wrong) in raised.value.message
    result = CliRunner().invoke(main, ["explain", str(mix.folder), "--id", ""])
    assert result.exit_code == 2
    assert "32 hexadecimal" in result.stderr


def test_an_id_may_have_letters_of_any_case(mix: PublishedMix) -> None:
    row = next(row for row in mix.rows if row["id"].upper() != row["id"])
    assert found(mix, document=row["id"].upper())[0]["id"] == row["id"]
    with pytest.raises(UsageError, match="no document"):
        explain(mix.folder, "0" * 32, None)


def test_a_survivor_names_the_documents_it_stands_for(mix: PublishedMix) -> None:
    standing = [row for row in mix.rows if row["represents"] > 1]
    assert standing
    kinds: Counter[str] = Counter()
    for row in standing:
        told = next(entry for entry in found(mix, document=row["id"]) if entry["where"] == "mix")
        assert len(told["stands_for"]) == row["represents"] - 1
        for other in told["stands_for"]:
            gone = mix.dropped[other["source"], other["shard"], other["row"], other["part"]]
            assert gone["partner"] == row["id"]
            assert f"stands for {gone['id']} ({gone['source']}/{gone['shard']} row {gone['row']})" in text_of(
                mix, row["doc_id"]
            )
            kinds[other["fate"]] += 1
    assert set(kinds) == {"exact_duplicate", "near_duplicate"}


def test_a_dropped_document_has_its_evidence_while_the_index_is_there(mix: PublishedMix, tmp_path: Path) -> None:
    gone = next(row for row in mix.dropped.values() if row["fate"] == "near_duplicate")
    (told,) = found(mix, document=gone["id"])
    assert told["where"] == "dropped"
    assert told["witness"]["id"] == gone["partner"]
    assert told["provenance"] == "unknown"
    assert isinstance(told["evidence"], list)
    alone = tmp_path / "mix"
    shutil.copytree(mix.folder, alone)
    config = (alone / "config.yaml").read_text()
    (alone / "config.yaml").write_text(config.replace("out/index", "out/nowhere"))
    outcome = explain(alone, gone["id"], None)
    assert outcome.details["documents"][0]["evidence"] is None
    assert "evidence about dropped ones" in outcome.text


def test_what_the_plan_left_out_is_told_as_the_manifest_counts_it(mix: PublishedMix) -> None:
    sources = mix.manifest["sources"]
    assert sources["bot"]["dropped"].keys() == {"over_cap"}
    seen = {row["doc_id"] for row in [*mix.rows, *mix.dropped.values()]}
    left = next(f"bot-{number}" for number in range(10_000) if f"bot-{number}" not in seen)
    (told,) = found(mix, doc_id=left)
    assert told["fate"] == "over_cap"
    assert told["rules"] == ["at most 1/20 of synthetic"]
    assert "over_cap" in text_of(mix, left)
    assert "at most 1/20 of synthetic" in text_of(mix, left)


def test_the_rules_that_bind_documents_like_it_are_named() -> None:
    from pipeline.explain import _left_out

    def rule(kind: str, of: str, group: str | None = None, by: str | None = None, **asked: Any) -> dict[str, Any]:
        return {"kind": kind, "of": of, "by": by, "group": group, "share": None, "amount": None, **asked}

    floor = rule("floor", "human_verified", share=[1, 10])
    german = rule("floor", "human_any", "de", "language", share=[1, 2])
    cap = rule("cap", "synthetic", share=[1, 20])
    model = rule("cap", "synthetic", "x", "generator", share=[1, 50])
    size = rule("size", "everything", amount=1000)
    gone = rule("left_out", "human_verified", "(none)", "topic", share=[1, 3])
    manifest = {"measure": "tokens", "binding": [floor, german, cap, model, size, gone]}
    groups = {"language": "en", "topic": "news", "source": "s", "generator": None}
    entry = {"source": "s", "provenance": "unknown", "kind": None, "generator": None, "groups": groups}

    def told(**changes: Any) -> dict[str, Any]:
        return _left_out(manifest, {**entry, **changes})

    wide = ["at least 1/10 of human_verified", "at most 1,000 tokens in all"]
    assert told() == {"fate": "not_selected", "rules": wide}
    assert told(provenance="human_verified")["rules"] == ["at most 1,000 tokens in all"]
    narrow = [wide[0], "at least 1/2 of human_any in language de", wide[1]]
    assert told(groups={**groups, "language": "de"})["rules"] == narrow
    assert told(provenance="synthetic") == {"fate": "over_cap", "rules": ["at most 1/20 of synthetic"]}
    by_x = told(provenance="synthetic", generator="x", groups={**groups, "generator": "x"})
    assert by_x["rules"] == ["at most 1/20 of synthetic", "at most 1/50 of synthetic in generator x"]
    left = told(groups={**groups, "topic": None})
    assert left["fate"] == "not_selected"
    assert "1/3 of human_verified in topic (none), which cannot be held" in left["rules"][0]


def test_the_trail_of_evidence_leads_to_the_signed_manifest(mix: PublishedMix) -> None:
    row = next(row for row in mix.rows if row["provenance"] == "human_verified")
    (used,) = mix.manifest["custody"]
    told = explain(mix.folder, row["id"], None)
    entry = next(entry for entry in told.details["documents"] if entry["where"] == "mix")
    assert entry["custody"]["verdict"] == "verified"
    assert entry["custody"]["leaf"] is True
    assert (mix.folder / "custody" / f"{entry['custody']['manifest']}.dsse.json").exists()
    proof = f"licensed_source, key desk, manifest sha256:{used['manifest']}"
    assert f"evidence: proof custody by sources.press.custody: {proof}" in told.text
    subject = entry["custody"]["subject"]
    assert f"custody: its text is a leaf of subject {subject} in custody/{used['manifest']}" in told.text
    unsigned = next(row for row in mix.rows if row["source"] == "web")
    assert found(mix, document=unsigned["id"])[0]["custody"] is None
    assert "evidence: none" in explain(mix.folder, unsigned["id"], None).text


@pytest.mark.parametrize(
    ("change", "verdict", "says"),
    [
        ("altered", "altered", "its shard was changed after signing"),
        ("unlisted", "unlisted", "its shard is in no manifest that counts"),
        ("column", "verified", "its text is not verified: it is no leaf of subject"),
    ],
)
def test_why_a_document_of_a_signed_source_is_not_verified(
    tmp_path: Path, change: str, verdict: str, says: str
) -> None:
    corpus.write_corpus(tmp_path, verified=4, believed=1, unknown=3, synthetic=1, exact=0, near=0, empty=0)
    corpus.attest_press(tmp_path)
    path = tmp_path / "shards" / "press" / ("more.parquet" if change == "unlisted" else "press-0.parquet")
    write_rows(path, [{"id": "odd", "text": "A text that nobody signed.", "summary": "In short."}])
    if change == "column":
        corpus.attest_press(tmp_path)
    config = corpus.minimal_config(
        tmp_path,
        mix={"floors": {"human_verified": 0}},
        sources={
            "press": {
                "files": ["shards/press/*.parquet"] if change != "column" else ["shards/press/press-0.parquet"],
                "custody": {"on_mismatch": "demote"},
                **({"columns": {"text": "summary"}} if change == "column" else {}),
            }
        },
    )
    assert anchormix("run", config).exit == 0
    told = explain(tmp_path / "out" / "mix", None, "odd")
    (entry,) = told.details["documents"]
    assert entry["custody"]["verdict"] == verdict
    assert f"custody: {says}" in told.text
