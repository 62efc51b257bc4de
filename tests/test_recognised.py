"""Public data sets through whole runs: pairs become documents that everything downstream can find again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import corpus
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import PublishedMix, anchormix

Row = dict[str, Any]


def words(seed: int, count: int = 80) -> str:
    return corpus.make_document(random.Random(seed), count).text


def edited(text: str) -> str:
    """A near copy: another first word, which changes few shingles of many."""
    return "Otherwise " + text.split(" ", 1)[1]


HC3: list[Row] = [
    {
        "id": f"hc3-{number}",
        "question": "Why?",
        "human_answers": [words(100 * number + place) for place in range(number % 4)],
        "chatgpt_answers": [words(100 * number + 50)],
        "source": "eli5",
    }
    for number in range(24)
]
# The same text in two parts of one row, and near copies of people's answers in a later row.
HC3[3]["human_answers"][2] = HC3[3]["human_answers"][0]
HC3[7]["human_answers"][1] = edited(HC3[6]["human_answers"][0])

M4: list[Row] = [
    {
        "prompt": "p",
        "human_text": words(9000 + number),
        "machine_text": words(9500 + number) if number else None,
        "model": ("davinci", "cohere")[number % 2],
        "source": "arxiv",
        "source_ID": number,
    }
    for number in range(12)
]
WILDCHAT: list[Row] = [
    {
        "conversation_hash": f"h{number}",
        "model": "gpt-4",
        "timestamp": "2024-01-01",
        "conversation": [
            {"role": "user", "content": words(7000 + number, 60), "language": "English"},
            *([{"role": "assistant", "content": words(7500 + number, 60), "language": "English"}] * (number % 2)),
        ],
    }
    for number in range(10)
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = tmp_path / "shards" / "pairs"
    corpus.minimal_config(tmp_path)
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(HC3), folder / "hc3.parquet", row_group_size=5)
    (folder / "m4.jsonl").write_text("".join(json.dumps(row) + "\n" for row in M4))
    pq.write_table(pa.Table.from_pylist(WILDCHAT), folder / "wildchat.parquet")
    return tmp_path


def config_of(directory: Path, **changes: Any) -> Path:
    sources = {
        "hc3": {"files": ["shards/pairs/hc3.parquet"]},
        "m4": {"files": ["shards/pairs/m4.jsonl"]},
        "wildchat": {"files": ["shards/pairs/wildchat.parquet"]},
        **changes.pop("sources", {}),
    }
    return corpus.minimal_config(directory, sources=sources, **changes)


def expected_texts() -> dict[tuple[str, int, int], tuple[str | None, str, str | None]]:
    """By (source, row, part): text, provenance, generator, read off the rows directly."""
    found: dict[tuple[str, int, int], tuple[str | None, str, str | None]] = {}
    for number, row in enumerate(HC3):
        answers = [(text, "human", None) for text in row["human_answers"]]
        answers += [(text, "synthetic", "chatgpt") for text in row["chatgpt_answers"]]
        found.update({("hc3", number, part): answer for part, answer in enumerate(answers)})
    for number, row in enumerate(M4):
        found["m4", number, 0] = (row["human_text"], "human", None)
        found["m4", number, 1] = (row["machine_text"], "synthetic", row["model"])
    for number, row in enumerate(WILDCHAT):
        text = "\n".join(f"{turn['role']}: {turn['content']}" for turn in row["conversation"])
        found["wildchat", number, 0] = (text, *(("synthetic", "gpt-4") if number % 2 else ("human", None)))
    return found


def test_every_part_is_mixed_or_dropped_for_a_reason(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(pairs)
    told = anchormix("run", config)
    assert told.exit == 0, told.stderr
    mix = PublishedMix(pairs / "out" / "mix")
    mix.assert_conserved()
    expected = expected_texts()
    sources = {"hc3", "m4", "wildchat"}
    read = {key[0]: 0 for key in expected}
    for source, _, _ in expected:
        read[source] += 1
    assert {source: mix.manifest["sources"][source]["documents_in"] for source in sources} == read
    out = {(s, row, part): found for (s, _, row, part), found in mix.documents.items() if s in sources}
    gone = {(s, row, part): found for (s, _, row, part), found in mix.dropped.items() if s in sources}
    for place, row in out.items():
        assert (row["text"], row["provenance"], row["generator"]) == expected[place]
    assert gone["m4", 0, 1]["fate"] == "empty"
    assert gone["hc3", 3, 2]["fate"] == "exact_duplicate"
    near = [found for place, found in gone.items() if place in (("hc3", 7, 1), ("hc3", 6, 0))]
    assert [found["fate"] for found in near] == ["near_duplicate"]
    assert {place for place in expected if place not in out and place not in gone} <= set(expected)
    reproduced = anchormix("verify", pairs / "out" / "mix", "--inputs", config)
    assert reproduced.exit == 0, reproduced.stderr

    # The same bytes, however the input is cut.
    for name, value in (("ANCHORMIX_SPLIT_BYTES", "2000"), ("ANCHORMIX_BATCH_ROWS", "2")):
        monkeypatch.setenv(name, value)
    again = config_of(pairs, output="out/again", index="out/again.index")
    assert anchormix("run", again).exit == 0
    for path in sorted((pairs / "out" / "mix" / "data").iterdir()):
        assert path.read_bytes() == (pairs / "out" / "again" / "data" / path.name).read_bytes()


def test_single_parts_can_be_looked_at(pairs: Path) -> None:
    config = config_of(pairs)
    assert anchormix("run", config).exit == 0
    mix = PublishedMix(pairs / "out" / "mix")
    removed = next(r for p, r in mix.dropped.items() if r["fate"] == "near_duplicate" and p[0] == "hc3")
    told = anchormix("explain", pairs / "out" / "mix", "--id", removed["id"])
    assert told.exit == 0, told.stderr
    found = json.dumps(told.line)
    assert '"part": ' + str(removed["part"]) in found
    shown = anchormix("duplicates", pairs / "out" / "index", "--source", "hc3", "--kind", "near")
    assert shown.exit == 0, shown.stderr
    texts = json.dumps(shown.line)
    assert "Otherwise" in texts


def test_check_says_what_each_part_would_be_and_why(pairs: Path) -> None:
    told = anchormix("check", config_of(pairs))
    assert told.exit == 0, told.stderr
    looks = {look["source"]: look for look in told.line["sources"]}
    assert looks["hc3"]["reading"] == "recognised as hc3: every row makes several documents"
    rows = [(row["row"], row["part"], row["tag"], row["generator"]) for row in looks["hc3"]["rows"]]
    assert rows == [
        (0, 0, "synthetic", "chatgpt"),
        (1, 0, "human", None),
        (1, 1, "synthetic", "chatgpt"),
        (2, 0, "human", None),
        (2, 1, "human", None),
        (2, 2, "synthetic", "chatgpt"),
    ]
    assert looks["hc3"]["rows"][0]["why"] == ["hc3.chatgpt_answers: chatgpt"]
    assert looks["wildchat"]["rows"][1]["why"] == [
        "wildchat.assistant: gpt-4",
        "sources.wildchat.columns.generator: gpt-4",
    ]


@pytest.mark.parametrize("command", ["check", "index", "run"])
def test_pairs_and_conversations_earn_no_custody(pairs: Path, command: str) -> None:
    custody = {"method": "licensed_source", "manifest": "custody/press.dsse.json"}
    for name in ("hc3", "m4", "wildchat"):
        file = next((pairs / "shards" / "pairs").glob(f"{name}.*")).name
        sources = {name: {"files": [f"shards/pairs/{file}"], "custody": custody}}
        told = anchormix(command, config_of(pairs, sources=sources))
        assert (told.exit, told.code) == (2, "custody_form")
        assert f"recognised as {name}" in told.message
    sources = {"m4": {"files": ["shards/pairs/m4.jsonl"], "custody": custody, "columns": {"text": "human_text"}}}
    named = anchormix("check", config_of(pairs, sources=sources))
    assert (named.exit, named.code) == (7, "wrong_scope")  # a plain column may have custody; this key has no say in it


def test_a_column_of_lists_is_not_signed(pairs: Path) -> None:
    told = anchormix(
        *("attest", pairs / "shards" / "pairs" / "hc3.parquet", "--column", "human_answers"),
        *("--key", pairs / "keys" / "desk.key", "--method", "licensed_source", "--output", pairs / "m.dsse.json"),
    )
    assert (told.exit, told.code) == (2, "custody_form")


def test_counts_of_rows_are_not_counts_of_parts(pairs: Path) -> None:
    (pairs / "shards" / "pairs" / "m4.jsonl").write_text("".join(json.dumps({**row, "n": 9}) + "\n" for row in M4))
    changes = {"tokens": {"column": "n"}, "mix": {"floors": {"human_verified": 0}}}
    left_out = dict.fromkeys(("press", "letters", "web", "bot"))
    sources = {**left_out, "m4": {"files": ["shards/pairs/m4.jsonl"]}}
    told = anchormix("run", corpus.minimal_config(pairs, **changes, sources=sources, trust=None))
    assert (told.exit, told.code) == (2, "tokens_of_rows")


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_label_whose_meaning_differs_between_copies_is_a_question(pairs: Path, command: str) -> None:
    rows = [{"id": str(n), "prompt_id": 0, "text": words(n + 400), "generated": n % 2} for n in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), pairs / "shards" / "pairs" / "essays.parquet")
    essays: Row = {"files": ["shards/pairs/essays.parquet"]}

    def told(**more: Any) -> Any:
        return anchormix(command, config_of(pairs, sources={"essays": {**essays, **more}}))

    refused = told()
    assert (refused.exit, refused.code) == (2, "unmapped_label")
    assert "does 1 in `generated` mean that a model wrote the essay?" in refused.message
    assert told(columns={"label": None}).exit == 0
    answered = told(columns={"label": "generated"}, labels={"1": "synthetic", "0": "human"})
    assert answered.exit in (0, 2)  # another output of the same name is refused, the question is not asked again
    assert answered.exit == 0 or answered.code != "unmapped_label"
    named = told(columns={"label": "generated"})
    assert (named.exit, named.code) == (2, "missing_key")
    assert "does 1 mean human or machine?" in named.message


def test_a_label_as_the_name_of_a_model_is_a_question(pairs: Path) -> None:
    told = anchormix("check", config_of(pairs, sources={"web": {"columns": {"generator": "meta.is_ai"}}}))
    assert (told.exit, told.code) == (2, "unmapped_label")
    assert "what do its values mean" in told.message


def test_a_label_that_nobody_named_is_warned_about(pairs: Path) -> None:
    rows = [{"text": words(n + 600), "is_ai": bool(n % 2)} for n in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), pairs / "shards" / "pairs" / "flags.parquet")
    sources = {"flags": {"files": ["shards/pairs/flags.parquet"]}}
    config = config_of(pairs, sources=sources)
    told = anchormix("run", config)
    assert told.exit == 0
    mix = PublishedMix(pairs / "out" / "mix")
    (note,) = [note for note in mix.manifest["notes"] if "is_ai" in note]
    assert "looks like a label of origin and is not used" in note
    assert {r["provenance"] for r in mix.rows if r["source"] == "flags"} <= {"unknown"}


def test_a_data_card_is_evidence_and_changes_no_more_than_the_fates(pairs: Path) -> None:
    config = config_of(pairs, output="out/first")
    assert anchormix("run", config).exit == 0
    card = pairs / "shards" / "letters" / "README.md"
    card.write_text("---\ntags: [synthetic]\n---\n# Letters\n")
    config = config_of(pairs, output="out/second")
    told = anchormix("run", config)
    assert told.exit == 0, told.stderr
    assert told.line["rebuilt"] == ["fates"]
    before, after = (PublishedMix(pairs / "out" / name) for name in ("first", "second"))
    assert {row["provenance"] for row in before.rows if row["source"] == "letters"} == {"human"}
    letters = [row for row in after.rows if row["source"] == "letters"]
    assert {row["provenance"] for row in letters} == {"disputed"}  # the owner believes, the card contradicts
    assert {"card", "source"} == {piece["kind"] for piece in letters[0]["evidence"]}
    card.write_text("---\ntags: [synthetic]\n---\n# Letters, with another text\n")
    assert anchormix("index", config).line["rebuilt"] == []
    look = next(look for look in anchormix("check", config).line["sources"] if look["source"] == "letters")
    assert look["card"] == ["tags: synthetic"]


def test_people_in_a_registry_of_pairs_are_not_known_synthetic(pairs: Path) -> None:
    """A data set of pairs as registry marks what its models wrote, never what its people did."""
    copies = [{"text": row["human_text"]} for row in M4] + [{"text": row["machine_text"]} for row in M4[1:]]
    pq.write_table(pa.Table.from_pylist(copies), pairs / "shards" / "pairs" / "copies.parquet")
    config = corpus.minimal_config(
        pairs,
        sources={"copies": {"files": ["shards/pairs/copies.parquet"]}},
        evidence={"known_synthetic": ["shards/pairs/m4.jsonl"]},
        mix={"floors": {"human_verified": 0}},
    )
    assert anchormix("run", config).exit == 0
    rows = [row for row in PublishedMix(pairs / "out" / "mix").rows if row["source"] == "copies"]
    said = {row["text"]: row["provenance"] for row in rows}
    assert {said[row["human_text"]] for row in M4 if row["human_text"] in said} == {"unknown"}
    assert {said[row["machine_text"]] for row in M4[1:] if row["machine_text"] in said} == {"synthetic"}
