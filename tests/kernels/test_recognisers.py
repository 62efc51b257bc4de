"""What public data sets say of origin: each recogniser over rows of that data set's shape, in two file formats."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels import recognisers
from transforms.kernels.artefacts import RECOGNISERS_VERSION
from transforms.kernels.columns import ColumnMap, Join, Located, Messages, MissingColumn
from transforms.kernels.origins import said_to_be_human
from transforms.kernels.provenance import SourceRules, tag
from transforms.kernels.recognisers import (
    DATA_SETS,
    Claim,
    card_claims,
    collection_claims,
    disclosure_fields,
    pack_claims,
    path_claims,
    recognise,
    unpack_claims,
)
from transforms.kernels.records import detect_format, read_records, read_texts_at
from transforms.kernels.schemas import Provenance

EVERYTHING = ColumnMap()
Row = dict[str, Any]
Said = tuple[int, int, str | None, str, str | None]
"""Row, part, text, provenance, generator."""


def written(folder: Path, rows: list[Row], kind: str, name: str = "part-0") -> Path:
    path = folder / f"{name}.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, columns: ColumnMap = EVERYTHING, located: list[Located] | None = None) -> pa.Table:
    told = [] if located is None else located
    name = str(path)
    return pa.Table.from_batches(
        list(read_records(partial(open, path, "rb"), name, detect_format(name), columns, on_located=told.append))
    )


def tagged(table: pa.Table, rules: SourceRules | None = None) -> list[Said]:
    facts = table.select(["label", "generator", "origin"]).append_column("artefacts", pa.array([0] * len(table)))
    tags = tag(facts, None, None, rules or SourceRules("web"))
    return list(
        zip(
            *(table[name].to_pylist() for name in ("row", "part", "text")),
            [Provenance(code).label for code in tags.provenance.tolist()],
            tags.generator.to_pylist(),
            strict=True,
        )
    )


def of(folder: Path, rows: list[Row], columns: ColumnMap = EVERYTHING, name: str = "part-0") -> list[Said]:
    """The same rows as Parquet and as JSON lines are the same documents."""
    first, second = (tagged(read(written(folder, rows, kind, name), columns)) for kind in ("parquet", "jsonl"))
    assert first == second
    return first


def raid(model: str, attack: str = "none") -> Row:
    keys = ("id", "adv_source_id", "source_id", "decoding", "repetition_penalty", "domain", "title", "prompt")
    return {**dict.fromkeys(keys, "x"), "model": model, "attack": attack, "generation": f"by {model}"}


def test_raid_names_its_model_and_keeps_the_attack(tmp_path: Path) -> None:
    rows = [raid("human"), raid("llama-chat", "homoglyph"), raid("human", "whitespace")]
    assert of(tmp_path, rows) == [
        (0, 0, "by human", "human", None),
        (1, 0, "by llama-chat", "synthetic", "llama-chat"),
        (2, 0, "by human", "human", None),
    ]
    details = [unpack_claims(packed)[0].detail for packed in read(tmp_path / "part-0.parquet")["origin"].to_pylist()]
    assert details == ["model=human", "model=llama-chat, attack=homoglyph", "model=human, attack=whitespace"]


def test_mage_has_its_label_inverted_and_src_decides(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": 1, "src": "xsum_human"},
        {"text": "b", "label": 0, "src": "cmv_machine_continuation_t0_3b"},
        {"text": "c", "label": 0, "src": "yelp_machine_topical_gpt-3.5-turbo"},
        {"text": "d", "label": 1, "src": "xsum_machine_specified_opt_13b"},  # a copy with the label turned round
        {"text": "e", "label": 1, "src": "reviews"},  # another data set with the same columns: 1 may mean anything
    ]
    assert [said[3:] for said in of(tmp_path, rows)] == [
        ("human", None),
        ("synthetic", "t0_3b"),
        ("synthetic", "gpt-3.5-turbo"),
        ("disputed", None),
        ("unknown", None),
    ]


def test_a_mapping_the_wrong_way_round_disputes_every_row(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": 1, "src": "xsum_human"},
        {"text": "b", "label": 0, "src": "cmv_machine_continuation_t0_3b"},
    ]
    table = read(written(tmp_path, rows, "parquet"), ColumnMap(label="label"))
    for labels, expected in (
        ((("0", "human"), ("1", "synthetic")), ["disputed", "disputed"]),
        ((("0", "synthetic"), ("1", "human")), ["human", "synthetic"]),
    ):
        assert [said[3] for said in tagged(table, SourceRules("web", labels=labels))] == expected


def test_semeval_goes_by_the_model_not_by_the_label(tmp_path: Path) -> None:
    row = {"source": "wikihow", "id": 3}
    rows = [
        {"text": "a", "label": 0, "model": "human", **row},
        {"text": "b", "label": 1, "model": "bloomz", **row},
        {"text": "c", "label": 1, "model": "human", **row},
    ]
    assert [said[3:] for said in of(tmp_path, rows)] == [("human", None), ("synthetic", "bloomz"), ("human", None)]


M4 = [
    {"prompt": "p", "human_text": "h0", "machine_text": "m0", "model": "davinci", "source": "arxiv", "source_ID": 1},
    {"prompt": "p", "human_text": "h1", "machine_text": None, "model": "cohere", "source": "arxiv", "source_ID": 2},
]


def test_m4_pairs_become_two_documents(tmp_path: Path) -> None:
    assert of(tmp_path, M4) == [
        (0, 0, "h0", "human", None),
        (0, 1, "m0", "synthetic", "davinci"),
        (1, 0, "h1", "human", None),
        (1, 1, None, "synthetic", "cohere"),  # empty, and counted
    ]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("human_text", ("h0", "human", None)),
        ("machine_text", ("m0", "synthetic", "davinci")),
        ("prompt", ("p", "synthetic", "davinci")),  # whose it is nobody says, but the row names a model
    ],
)
def test_one_half_of_m4_can_be_named(tmp_path: Path, column: str, expected: tuple[str, str, str | None]) -> None:
    said = of(tmp_path, M4, ColumnMap(text=column))
    assert [document[:2] for document in said] == [(0, 0), (1, 0)]
    assert said[0][2:] == expected


def hc3(number: int, human: list[str | None] | None, machine: list[str | None] | None) -> Row:
    return {"id": str(number), "question": "q", "human_answers": human, "chatgpt_answers": machine, "source": "eli5"}


HC3 = [
    hc3(0, ["h00", "h01"], ["c00"]),
    hc3(1, [], ["c10", None, "c12"]),
    hc3(2, ["h20"], []),
    hc3(3, [], None),
    hc3(4, None, ["c40"]),
]


def test_hc3_lists_become_documents_in_order(tmp_path: Path) -> None:
    made = ("synthetic", "chatgpt")
    assert of(tmp_path, HC3) == [
        (0, 0, "h00", "human", None),
        (0, 1, "h01", "human", None),
        (0, 2, "c00", *made),
        (1, 0, "c10", *made),
        (1, 1, None, *made),
        (1, 2, "c12", *made),
        (2, 0, "h20", "human", None),
        (3, 0, None, "unknown", None),  # a row without any answer keeps its place
        (4, 0, "c40", *made),
    ]
    half = of(tmp_path, HC3, ColumnMap(text="chatgpt_answers"))
    assert [document[:3] for document in half] == [
        *((0, 0, "c00"), (1, 0, "c10"), (1, 1, None), (1, 2, "c12")),
        *((2, 0, None), (3, 0, None), (4, 0, "c40")),
    ]


def test_a_broken_half_costs_the_row_and_keeps_its_place(tmp_path: Path) -> None:
    rows = [hc3(0, ["h"], ["c"]), {**hc3(1, ["h"], None), "chatgpt_answers": [{"a": 1}]}, hc3(2, ["h"], ["c"])]
    table = read(written(tmp_path, rows, "jsonl"))
    assert table["row"].to_pylist() == [0, 0, 1, 2, 2]
    assert table["part"].to_pylist() == [0, 1, 0, 0, 1]
    assert table["status"].to_pylist() == [0, 0, 2, 0, 0]
    assert "chatgpt_answers[0] is an object" in table["problem"][2].as_py()
    numbers = pa.table({"question": ["q"], "human_answers": [["h"]], "chatgpt_answers": [[1]]})
    pq.write_table(numbers, tmp_path / "numbers.parquet")
    table = read(tmp_path / "numbers.parquet")
    assert table["part"].to_pylist() == [0]
    assert table["problem"].to_pylist() == ["chatgpt_answers is a list, expected a list of strings"]


ANSWERS = st.none() | st.lists(st.none() | st.text(max_size=5), max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=12), st.data())
def test_texts_of_parts_are_read_again_by_row_and_part(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[Any, Any]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [hc3(number, *pair) for number, pair in enumerate(pairs)]
    kind = data.draw(st.sampled_from(["parquet", "jsonl"]))
    types = pa.schema(
        [(name, pa.list_(pa.string()) if "answers" in name else pa.string()) for name in hc3(0, None, None)]
    )
    path = folder / f"p.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows, types), path, row_group_size=data.draw(st.integers(1, 5)))
    else:
        path = written(folder, [hc3(0, ["h"], ["c"]), *rows], kind)
    whole = read(path)
    expected = []
    for number, pair in enumerate(pairs, start=kind == "jsonl"):
        texts = [text for half in pair for text in half or ()]
        expected += [(number, part, text) for part, text in enumerate(texts or [None])]
    places = list(zip(*(whole[name].to_pylist() for name in ("row", "part", "text")), strict=True))
    assert places[2 if kind == "jsonl" else 0 :] == expected
    wanted = sorted(data.draw(st.sets(st.sampled_from(places))), key=lambda place: place[:2])
    asked = np.array([place[:2] for place in wanted], np.int64).reshape(-1, 2)
    again = partial(read_texts_at, partial(open, path, "rb"), str(path), detect_format(str(path)), ColumnMap())
    size = data.draw(st.integers(1, 5))
    found = [row for batch in again(asked[:, 0], asked[:, 1], batch_rows=size) for row in batch.to_pylist()]
    assert [tuple(row.values()) for row in found] == wanted
    found = [row for batch in again(np.unique(asked[:, 0]), batch_rows=size) for row in batch.to_pylist()]
    assert [tuple(row.values()) for row in found] == [p for p in places if p[0] in set(asked[:, 0].tolist())]


def chat(number: int, *turns: tuple[str, str], **more: Any) -> Row:
    messages = [{"role": role, "content": content, "language": "English"} for role, content in turns]
    return {"conversation": messages, "model": "gpt-4", "timestamp": "t", **more}


WILDCHAT = [
    chat(0, ("user", "hi"), ("assistant", "hello"), conversation_hash="a"),
    chat(1, ("user", "anyone?"), conversation_hash="b"),
    chat(2, ("system", "be kind"), ("assistant", "I am"), conversation_hash="c"),
    chat(3, ("user", "hi"), ("assistant", ""), conversation_hash="d"),  # who says nothing wrote nothing
]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            EVERYTHING,
            [
                ("user: hi\nassistant: hello", "synthetic", "gpt-4"),
                ("user: anyone?", "human", None),
                ("system: be kind\nassistant: I am", "synthetic", "gpt-4"),
                ("user: hi", "human", None),
            ],
        ),
        (
            ColumnMap(text=Messages("conversation", ("assistant",))),
            [
                ("assistant: hello", "synthetic", "gpt-4"),
                ("", "synthetic", "gpt-4"),  # empty, and dropped
                ("assistant: I am", "synthetic", "gpt-4"),
                ("", "synthetic", "gpt-4"),
            ],
        ),
        (
            ColumnMap(text=Messages("conversation", ("user",))),
            [
                ("user: hi", "human", None),
                ("user: anyone?", "human", None),
                ("", "synthetic", "gpt-4"),
                ("user: hi", "human", None),
            ],
        ),
    ],
)
def test_mixed_authorship_takes_the_worst_counted_part(
    tmp_path: Path, columns: ColumnMap, expected: list[tuple[str, str, str | None]]
) -> None:
    assert [said[2:] for said in of(tmp_path, WILDCHAT, columns)] == expected
    renamed = [{**row, "conversation_id": row["conversation_hash"]} for row in WILDCHAT]
    for row in renamed:
        del row["conversation_hash"]
    assert [said[2:] for said in of(tmp_path, renamed, columns)] == expected  # LMSYS-Chat


def test_roles_of_an_unknown_data_set_only_take_the_model_from_what_people_said(tmp_path: Path) -> None:
    rows = [chat(0, ("user", "hi"), ("assistant", "hello"))]
    for count, expected in (((), "synthetic"), (("assistant",), "synthetic"), (("user",), "unknown")):
        assert of(tmp_path, rows, ColumnMap(text=Messages("conversation", count)))[0][3] == expected


def test_a_conversation_that_nobody_named_comes_with_advice(tmp_path: Path) -> None:
    with pytest.raises(MissingColumn, match=r"Name \{messages: conversation\} as columns.text"):
        read(written(tmp_path, [chat(0, ("user", "hi"))], "parquet"))


def test_nemotron_post_training_names_its_generator(tmp_path: Path) -> None:
    row = {"uuid": "u", "license": "cc", "version": "v1", "category": "math", "reasoning": "on"}
    turns = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
    said = of(tmp_path, [{**row, "generator": "DeepSeek-R1", "messages": turns}])
    assert said == [(0, 0, "user: 1+1\nassistant: 2", "synthetic", "DeepSeek-R1")]


def test_cosmopedia_has_no_generator_column_and_still_has_a_generator(tmp_path: Path) -> None:
    row = {"prompt": "p", "text_token_length": 4, "text": "t", "seed_data": "web", "format": "blog", "audience": "all"}
    assert of(tmp_path, [row]) == [(0, 0, "t", "synthetic", "Mixtral-8x7B")]


def test_distilabel_names_its_model(tmp_path: Path) -> None:
    rows = [{"instruction": "i", "generation": "g", "model_name": "zephyr", "distilabel_metadata": {"raw": "x"}}]
    assert of(tmp_path, rows) == [(0, 0, "g", "synthetic", "zephyr")]


def test_another_mix_is_believed_and_verifies_nothing(tmp_path: Path) -> None:
    row = {"id": "i", "source": "s", "evidence": [], "represents": 1, "copy": 0}
    rows = [
        {"text": label, "provenance": label, "generator": generator, **row}
        for label, generator in (
            ("human_verified", None),
            ("human", None),
            ("ai_assisted", None),
            ("synthetic", "phi-4"),
            ("unknown", None),
        )
    ]
    assert [said[3:] for said in of(tmp_path, rows)] == [
        ("human", None),
        ("human", None),
        ("ai_assisted", None),
        ("synthetic", "phi-4"),
        ("unknown", None),
    ]


def test_essays_whose_label_alone_tells_come_with_a_question(tmp_path: Path) -> None:
    located: list[Located] = []
    read(written(tmp_path, [{"id": "1", "prompt_id": 0, "text": "t", "generated": 1}], "parquet"), located=located)
    assert located[0].data_set is not None
    assert located[0].data_set.question == ("generated", located[0].data_set.question[1])
    rows = [{"text": "t", "label": 1, "prompt_name": "p", "source": "s", "RDizzl3_seven": False}]
    assert of(tmp_path, rows)[0][3] == "unknown"


def test_labels_that_nobody_explained_are_told_and_assert_nothing(tmp_path: Path) -> None:
    rows = [{"text": "t", "is_ai": 1, "Label": 0, "meta": {"label": 3}}]
    for columns, told in ((EVERYTHING, {"is_ai", "Label"}), (ColumnMap(label="is_ai"), {"Label"})):
        located: list[Located] = []
        assert tagged(read(written(tmp_path, rows, "parquet"), columns, located))[0][3] == "unknown"
        assert set(located[0].labels) == told
    mage: list[Located] = []
    read(written(tmp_path, [{"text": "a", "label": 1, "src": "xsum_human"}], "parquet"), located=mage)
    assert mage[0].labels == ()


@pytest.mark.parametrize("value", ["1", "0", "true", "FALSE", "no"])
def test_a_generator_column_of_yes_and_no_names_nobody(tmp_path: Path, value: str) -> None:
    assert of(tmp_path, [{"text": "t", "model": value}])[0][3:] == ("unknown", None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("mode=none", ("human", None)),
        ("mode=ai-modified; model=x", ("ai_assisted", None)),
        ('mode="ai-originated", model="gpt-4", provider="OpenAI"', ("synthetic", "gpt-4")),
        ("mode=machine-generated; model=gpt-4; date=2026-01-01", ("synthetic", "gpt-4")),
        ('model="mode=none", mode=ai-originated', ("synthetic", "mode=none")),
        ("mode=perhaps", ("unknown", None)),
        ("hello", ("unknown", None)),
        ("", ("unknown", None)),
    ],
)
@pytest.mark.parametrize("column", ["AI-Disclosure", "ai_disclosure"])
def test_ai_disclosure_in_both_syntaxes(
    tmp_path: Path, column: str, value: str, expected: tuple[str, str | None]
) -> None:
    assert of(tmp_path, [{"text": "t", column: value}])[0][3:] == expected
    assert of(tmp_path, [{"text": "t", "headers": {column: value, "x": "y"}}])[0][3:] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia", "synthetic"),
        ("https://schema.org/TrainedAlgorithmicMediaDigitalSource", "synthetic"),
        ("algorithmicMedia", "synthetic"),
        ("http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia", "ai_assisted"),
        ("http://cv.iptc.org/newscodes/digitalsourcetype/digitalCreation", "human"),
        ("humanEdits", "human"),
        ("http://cv.iptc.org/newscodes/digitalsourcetype/screenCapture", "unknown"),
    ],
)
def test_digital_source_types(tmp_path: Path, value: str, expected: str) -> None:
    for column in ("digitalSourceType", "digital_source_type"):
        assert of(tmp_path, [{"text": "t", column: value}])[0][3] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Label": "1", "ContentProducer": "a", "ProduceID": "7"}, "synthetic"),
        ({"Label": "2", "ContentProducer": "a", "ProduceID": "7"}, "synthetic"),
        ({"Label": "9", "ContentProducer": "a", "ProduceID": "7"}, "unknown"),
    ],
)
def test_gb_45438_labels(tmp_path: Path, value: Row, expected: str) -> None:
    assert of(tmp_path, [{"text": "t", "AIGC": value}])[0][3] == expected
    assert of(tmp_path, [{"text": "t", "aigc": json.dumps(value)}])[0][3] == expected
    assert of(tmp_path, [{"text": "t", "aigc": json.dumps({"AIGC": value})}])[0][3] == expected
    assert of(tmp_path, [{"text": "t", "aigc": "{"}])[0][3] == "unknown"


def test_words_that_say_the_origin_themselves(tmp_path: Path) -> None:
    for value, expected in (
        ("Human", "human"),
        ("machine-generated", "synthetic"),
        ("AI assisted", "ai_assisted"),
        ("commoncrawl", "unknown"),
        ("1", "unknown"),
    ):
        assert of(tmp_path, [{"text": "t", "source_type": value}])[0][3] == expected


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("quality=high/kind=actual/kind2=actual", ("unknown", None, None)),
        ("quality=high/kind=synthetic/kind2=distill", ("synthetic", None, "rephrase")),
        ("quality=low/kind=synthetic/kind2=wrap_medium", ("synthetic", None, "rephrase")),
        ("kind=synthetic", ("synthetic", None, "generated")),
        ("generator=phi-4", ("synthetic", "phi-4", "generated")),
        ("generator=human", ("human", None, None)),
        ("mankind=synthetic", ("unknown", None, None)),
    ],
)
def test_hive_folders_are_evidence(tmp_path: Path, folder: str, expected: tuple[str, str | None, str | None]) -> None:
    said = of(tmp_path, [{"text": "t"}], name=f"{folder}/part-0")
    assert said[0][3:] == expected[:2]
    table = read(tmp_path / f"{folder}/part-0.parquet")
    facts = table.select(["label", "generator", "origin"]).append_column("artefacts", pa.array([0]))
    assert tag(facts, None, None, SourceRules("web")).kind.to_pylist() == [expected[2]]
    # The name of the file itself is no folder.
    assert path_claims("data/kind=synthetic") == ()


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("tags:\n- synthetic\nlanguage_creators:\n- found", "synthetic"),
        ("tags: [Synthetic]\nlanguage_creators: [crowdsourced]", "synthetic"),
        ("language_creators: [found]\nannotations_creators: [machine-generated]", "unknown"),
        ("language_creators: machine-generated", "synthetic"),
        ("language_creators: [crowdsourced, expert-generated]", "human"),
        ("language_creators: [crowdsourced, machine-generated]", "disputed"),
        ("license: mit", "unknown"),
        ("tags: [", "unknown"),
        ("- synthetic", "unknown"),
    ],
)
def test_data_cards(front: str, expected: str) -> None:
    claims = card_claims(f"---\n{front}\n---\n# A data set\n")
    assert carded(claims) == expected
    assert card_claims(f"# A data set\n\n---\n{front}\n---\n") == ()


def carded(claims: tuple[Claim, ...]) -> str:
    facts = pa.table(
        {name: pa.nulls(1, pa.string()) for name in ("label", "generator", "origin")} | {"artefacts": pa.array([0])}
    )
    return Provenance(int(tag(facts, None, None, SourceRules("web", card=claims)).provenance[0])).label


@pytest.mark.parametrize(
    ("told", "expected", "generator"),
    [
        ({"Model Generated": ["ChatGPT"], "Human Annotation": "Yes"}, "synthetic", "ChatGPT"),
        ({"a": {"Model Generated": ["GPT-4"]}, "b": {"Model Generated": ["GPT-3"]}}, "synthetic", None),
        ({"a": {"Model Generated": ["GPT-4"]}, "b": {"Model Generated": []}}, "unknown", None),
        ({"Model Generated": [], "Human Annotation": "Yes"}, "unknown", None),
        ({"Human Annotation": "Yes"}, "unknown", None),
        ([1], "unknown", None),
    ],
)
def test_summaries_of_the_data_provenance_initiative(told: Any, expected: str, generator: str | None) -> None:
    claims = collection_claims(json.dumps(told))
    assert carded(claims) == expected
    assert {claim.generator for claim in claims} <= {generator}
    assert collection_claims("not json") == ()


def test_a_row_speaks_for_itself_before_a_card_does(tmp_path: Path) -> None:
    card = card_claims("---\ntags: [synthetic]\n---\n")
    rows = read(written(tmp_path, [raid("human"), raid("gpt4")], "parquet"))
    assert [said[3] for said in tagged(rows, SourceRules("web", card=card))] == ["human", "synthetic"]
    assert [said[3] for said in tagged(rows, SourceRules("web", "human", card=card))] == ["human", "synthetic"]


VALUES = st.sampled_from(
    [
        None,
        "",
        "human",
        "human_verified",
        "gpt-4",
        "1",
        "0",
        "mode=none",
        "digitalCreation",
        "xsum_human",
        "CC0",
        "2019",
    ]
)
NAMES = st.sampled_from(
    sorted(
        {name for data_set in DATA_SETS for name in data_set.signature}
        | {"AI-Disclosure", "digitalSourceType", "aigc", "badge", "date", "license", "verified", "human", "is_human"}
    )
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=12), st.sampled_from(["human", "ai_assisted", "unknown"]))
def test_no_row_of_metadata_is_ever_verified(
    tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, str | None], declare: str
) -> None:
    """Labels, dates, badges, licences and disclosures, in whatever combination, end at `human`."""
    folder = tmp_path_factory.mktemp("rows")
    row = {name: value for name, value in metadata.items() if name not in ("text", "messages", "conversation")}
    path = written(folder, [{"text": "the text", **row}], "jsonl")
    labels = (("1", "human"), ("0", "synthetic"), ("human", "human"))
    columns = ColumnMap(label=next(iter(sorted(row)), None))
    for rules in (SourceRules("web", declare), SourceRules("web", declare, labels=labels)):
        assert {said[3] for said in tagged(read(path, columns), rules)}.isdisjoint({"human_verified"})


CLAIMS = st.lists(
    st.builds(
        Claim,
        st.sampled_from(["a", "b"]),
        st.sampled_from([None, "human", "synthetic", "ai_assisted"]),
        st.text(max_size=5),
        st.sampled_from(["declared", "detected", "heuristic"]),
        st.none() | st.text(min_size=1, max_size=3),
        st.sampled_from([None, "rephrase", "generated"]),
    ),
    max_size=5,
)


@given(CLAIMS, st.randoms())
def test_packed_claims_do_not_depend_on_order_or_repetition(claims: list[Claim], random: Any) -> None:
    packed = pack_claims(claims)
    shuffled = claims + claims[:2]
    random.shuffle(shuffled)
    assert pack_claims(shuffled) == packed
    assert set(unpack_claims(packed)) == set(claims)
    assert (packed is None) == (not claims)


def test_a_registry_does_not_take_peoples_text_for_known_synthetic() -> None:
    human, machine = (pack_claims([Claim("x", said, "d")]) for said in ("human", "synthetic"))
    both = pack_claims([Claim("x", "human", "d"), Claim("y", "synthetic", "d")])
    origin = pa.chunked_array([[human, machine, None], [both, None, human]], pa.string())
    generator = pa.chunked_array([[None, None, " Human ", "gpt-4", None, "gpt-4"]], pa.string())
    assert said_to_be_human(origin, generator).tolist() == [True, False, True, False, False, False]


def test_recognition_needs_the_whole_signature_in_any_case() -> None:
    for data_set in DATA_SETS:
        found = recognise([name.upper() for name in data_set.signature])
        assert found is not None
        assert found[0].name == data_set.name
        for left_out in data_set.signature:
            without = recognise([name for name in data_set.signature if name != left_out])
            assert without is None or without[0].name != data_set.name


def test_disclosure_fields_are_found_at_the_end_of_a_path() -> None:
    tree = {
        "meta": {"AIGC": {"Label": {}, "ProduceID": {}}},
        "provenance": {},
        "label": {},
        "deep": {"a": {"b": {"aigc": {}}}},
    }
    assert {keys: rule.name for keys, rule in disclosure_fields(tree).items()} == {
        ("meta", "AIGC", "Label"): "aigc",
        ("provenance",): "provenance",
    }


def test_a_score_of_a_row_is_of_none_of_its_texts(tmp_path: Path) -> None:
    for text, scored in (((), False), (("human_text",), True)):
        located: list[Located] = []
        rows = [{**row, "score": 0.9} for row in M4]
        for kind in ("parquet", "jsonl"):
            path = written(tmp_path, rows, kind)
            columns = ColumnMap(*text, scores=("score",))
            assert read(path, columns, located).num_rows == (2 if scored else 4)
            assert any("score" in keys for keys in located[-1].fields.values()) is scored


def test_a_join_of_halves_takes_the_worst_one(tmp_path: Path) -> None:
    said = of(tmp_path, M4, ColumnMap(text=Join(("prompt", "human_text"))))
    assert said == [(0, 0, "p\nh0", "human", None), (1, 0, "p\nh1", "human", None)]
    said = of(tmp_path, M4, ColumnMap(text=Join(("human_text", "machine_text"))))
    assert said == [(0, 0, "h0\nm0", "synthetic", "davinci"), (1, 0, "h1", "synthetic", "cohere")]


def test_csv_pairs_become_documents_too(tmp_path: Path) -> None:
    names = list(M4[0])
    lines = [",".join(names), *(",".join(str(row[name] or "") for name in names) for row in M4), "too,few"]
    (tmp_path / "m4.csv").write_text("\n".join(lines) + "\n")
    table = read(tmp_path / "m4.csv")
    assert tagged(table.slice(0, 4)) == of(tmp_path, M4)
    assert table["status"].to_pylist()[4:] == [2]
    assert "2 fields" in table["problem"][4].as_py()


def test_the_documentation_lists_every_data_set() -> None:
    page = (Path(__file__).parents[2] / "docs" / "origins.md").read_text()
    for data_set in DATA_SETS:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{data_set.name}`")]
        assert ", ".join(f"`{name}`" for name in data_set.signature) in line


def test_rules_are_pinned() -> None:
    """Facts hold what the rules claim: whoever changes them has to change the version, and this digest."""
    table = repr([*DATA_SETS, sorted(recognisers.LABEL_NAMES), sorted(recognisers._WORDS.items())])
    table += repr([sorted(recognisers._SOURCE_TYPES.items()), sorted(recognisers._MODES.items())])
    assert (RECOGNISERS_VERSION, hashlib.sha256(table.encode()).hexdigest()[:16]) == ("2", "885cb76e1f00f7b6")
