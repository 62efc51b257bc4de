"""Every format gives the same rows, broken rows keep their place, and damaged files are UnreadableFile or counted."""

from __future__ import annotations

import contextlib
import csv
import datetime
import decimal
import gzip
import io
import json
import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transforms.kernels import records_csv, records_jsonl
from transforms.kernels.records import (
    AUTO,
    ColumnMap,
    FileFormat,
    Join,
    Messages,
    MissingColumn,
    UnreadableFile,
    detect_format,
    missing_columns,
    peek,
    read_records,
    read_texts_at,
    row_groups,
)
from transforms.kernels.schemas import Status, parsed_schema

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

Row = dict[str, Any]


def opener(data: bytes) -> Callable[[], io.BytesIO]:
    return lambda: io.BytesIO(data)


def read(name: str, data: bytes, columns: ColumnMap | None = None, **options: Any) -> list[Row]:
    columns = columns or ColumnMap()
    rows: list[Row] = []
    for batch in read_records(opener(data), name, detect_format(name), columns, **options):
        batch.validate(full=True)
        assert batch.schema == parsed_schema(columns.kept)
        assert batch.num_rows > 0
        rows += batch.to_pylist()
    return rows


def texts(rows: Sequence[Row]) -> list[str | None]:
    return [row["text"] for row in rows]


def statuses(rows: Sequence[Row]) -> list[Status]:
    return [Status(row["status"]) for row in rows]


def parquet(table: pa.Table | dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), sink, **options)
    return sink.getvalue()


def jsonl(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_bytes(rows: Sequence[Sequence[str]], **options: Any) -> bytes:
    sink = io.StringIO()
    csv.writer(sink, **options).writerows(rows)
    return sink.getvalue().encode()


OK, EMPTY, BAD = Status.OK, Status.EMPTY, Status.BAD_RECORD


@pytest.mark.parametrize(
    ("name", "kind", "compression"),
    [
        ("a/b.parquet", "parquet", "none"),
        ("b.PQ", "parquet", "none"),
        ("c.jsonl", "jsonl", "none"),
        ("c.ndjson.gz", "jsonl", "gz"),
        ("c.JSON.ZST", "jsonl", "zst"),
        ("d.csv", "csv", "none"),
        ("s3://x/d.tsv.gz", "csv", "gz"),
    ],
)
def test_the_name_states_the_format(name: str, kind: Any, compression: Any) -> None:
    assert detect_format(name) == FileFormat(kind, compression)


@pytest.mark.parametrize("name", ["a.txt", "parquet", "a.jsonl.bz2", "a.gz", "a.parquet.gz"])
def test_a_name_without_a_known_format_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        detect_format(name)


def test_what_can_be_recognised_never_includes_labels_and_counts() -> None:
    data = jsonl([{"label": "1", "n_tokens": 5, "content": "a", "model": "m", "_id": 3, "lang": "de"}])
    (row,) = read("a.jsonl", data)
    assert (row["text"], row["generator"], row["doc_id"], row["language"]) == ("a", "m", "3", "de")
    assert row["label"] is None
    assert row["n_tokens"] is None
    with pytest.raises(ValueError, match="never recognised"):
        ColumnMap(label=AUTO)


def test_the_first_candidate_wins_and_off_is_off() -> None:
    data = parquet({"content": ["no"], "text": ["yes"], "url": ["u"], "id": ["i"]})
    (row,) = read("a.parquet", data, ColumnMap(url=None))
    assert (row["text"], row["url"], row["doc_id"]) == ("yes", None, "i")


SAME = [
    {"text": "a\nb", "id": 1, "score": 1.0, "ok": True, "meta": {"url": "u", "tags": ["x", None]}, "n": 7},
    {"text": None, "id": 2**62, "score": 0.1, "ok": None, "meta": None, "n": None},
    {"text": " \u2003\n", "id": -5, "score": 1e300, "ok": False, "meta": {"url": None, "tags": []}, "n": 0},
    {"text": "Größe 日本 \0😀", "id": None, "score": None, "ok": True, "meta": {"url": "w", "tags": None}, "n": 3},
    {"text": "", "id": 0, "score": -2.5e-7, "ok": True, "meta": {"url": "", "tags": ["é\\"]}, "n": 1},
]
SAME_MAP = ColumnMap(
    url="meta.url",
    label="ok",
    n_tokens="n",
    keep=(("score", "score"), ("meta", "meta"), ("tags", "meta.tags")),
)


def test_parquet_and_json_lines_give_the_same_rows() -> None:
    rows = read("a.parquet", parquet(pa.Table.from_pylist(SAME), row_group_size=2), SAME_MAP)
    assert read("a.jsonl", jsonl(SAME), SAME_MAP) == rows
    assert statuses(rows) == [OK, EMPTY, EMPTY, OK, EMPTY]
    assert [row["doc_id"] for row in rows] == ["1", str(2**62), "-5", None, "0"]
    assert [row["label"] for row in rows] == ["true", None, "false", "true", "true"]
    assert [row["keep.score"] for row in rows] == ["1", "0.1", "1e+300", None, "-2.5e-7"]
    assert [row["n_tokens"] for row in rows] == [7, None, 0, 3, 1]
    assert rows[0]["keep.meta"] == '{"tags":["x",null],"url":"u"}'
    assert rows[4]["keep.tags"] == '["é\\\\"]'


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_packed_streams_may_have_several_members(name: str) -> None:
    content = jsonl(SAME)
    pack = {"l": bytes, "z": gzip.compress, "t": zstandard.compress}[name[-1]]
    parts = [content] if name.endswith("l") else [pack(content[:30]), pack(b""), pack(content[30:])]
    padding = b"\0" * 9 if name.endswith("gz") else b""
    assert texts(read(name, b"".join(parts) + padding)) == [row["text"] for row in SAME]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_packed_stream_cut_anywhere_is_unreadable(pack: Callable[[bytes], bytes]) -> None:
    name = "a.jsonl.gz" if pack is gzip.compress else "a.jsonl.zst"
    data = pack(jsonl(SAME * 3))
    for length in range(len(data)):
        with pytest.raises(UnreadableFile, match=name):
            read(name, data[:length])


def test_large_packed_streams_are_unpacked_whole() -> None:
    rows = [{"text": f"{number} " + "x" * 100_000} for number in range(100)]
    for name, pack in (("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)):
        assert texts(read(name, pack(jsonl(rows)))) == [row["text"] for row in rows]


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_a_named_column_that_is_missing_is_diagnosed(name: str) -> None:
    content = {
        "a.parquet": parquet({"text": ["a"], "title": ["t"]}),
        "a.jsonl": jsonl([{"text": "a", "title": "t"}]),
        "a.csv": b"text,title\na,t\n",
    }[name]
    for columns in (ColumnMap(text="titel"), ColumnMap(url="titel"), ColumnMap(keep=(("x", "titel"),))):
        with pytest.raises(MissingColumn, match=r"'titel'.*text, title.*did you mean 'title'") as caught:
            read(name, content, columns)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        (found,) = missing_columns(opener(content), name, detect_format(name), columns)
        assert str(found) == str(caught.value)
    assert missing_columns(opener(content), name, detect_format(name), ColumnMap(url="title")) == []


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_a_file_without_recognised_text_is_diagnosed(name: str) -> None:
    content = {
        "a.parquet": parquet({"words": ["a"]}),
        "a.jsonl": jsonl([{"words": "a"}]),
        "a.csv": b"words\na\n",
    }[name]
    with pytest.raises(MissingColumn, match="no text column was recognised"):
        read(name, content)


def test_files_without_rows_are_valid_whatever_they_hold() -> None:
    columns = ColumnMap(text="nothing", url="like.that")
    for name, content in {
        "a.parquet": parquet({"x": pa.array([], pa.int64())}),
        "a.jsonl": b"\n \r\n",
        "b.jsonl": b"",
        "a.csv": b"x,y\n",
        "b.csv": b"",
        "a.csv.gz": gzip.compress(b""),
    }.items():
        assert read(name, content, columns) == []
        names, rows = peek(opener(content), name, detect_format(name), columns)
        assert rows.num_rows == 0
        assert missing_columns(opener(content), name, detect_format(name), columns) == []
        assert rows.schema == parsed_schema(())
        assert names == {"a.parquet": ["x"], "a.csv": ["x", "y"]}.get(name, [])


def test_a_json_column_may_first_appear_late() -> None:
    rows = [{"text": "a"}] * 300 + [{"text": "b", "meta": {"url": None}}]
    assert len(read("a.jsonl", jsonl(rows), ColumnMap(url="meta.url"))) == 301
    with pytest.raises(MissingColumn, match=r"meta\.link"):
        read("a.jsonl", jsonl(rows), ColumnMap(url="meta.link"))


def test_a_name_that_holds_dots_comes_before_a_path() -> None:
    rows = [{"text": "a", "meta.url": "flat", "meta": {"url": "deep"}}]
    for name, content in (("a.jsonl", jsonl(rows)), ("a.parquet", parquet(pa.Table.from_pylist(rows)))):
        assert read(name, content, ColumnMap(url="meta.url"))[0]["url"] == "flat"


def test_peek_shows_paths_and_first_rows() -> None:
    for name, content in (("a.jsonl", jsonl(SAME)), ("a.parquet", parquet(pa.Table.from_pylist(SAME)))):
        names, rows = peek(opener(content), name, detect_format(name), ColumnMap(), n=2)
        assert {"text", "meta", "meta.url", "meta.tags"} <= set(names)
        assert rows["row"].to_pylist() == [0, 1]


def test_joined_text_leaves_out_what_is_not_there() -> None:
    rows = [
        {"t": "T", "b": "B"},
        {"t": None, "b": "B"},
        {"t": "T", "b": ""},
        {"t": None, "b": None},
        {"t": "", "b": ""},
    ]
    expected = ["T\n\nB", "B", "T", None, None]
    columns = ColumnMap(text=Join(("t", "b"), "\n\n"))
    table = parquet(pa.Table.from_pylist(rows))
    for name, content in (("a.jsonl", jsonl(rows)), ("a.parquet", table)):
        found = read(name, content, columns)
        assert texts(found) == expected
        assert statuses(found) == [OK, OK, OK, EMPTY, EMPTY]
    wrong = read("a.jsonl", jsonl([{"t": "T", "b": 4}]), columns)
    assert wrong[0]["problem"] == "b is a number (4), expected a string"


CONVERSATIONS: list[Any] = [
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo\nyo"}],
    None,
    [],
    [{"role": None, "content": "alone"}, None, {"role": "user", "content": None}, {"role": "user", "content": "end"}],
    [{"role": "system", "content": ""}],
]


@pytest.mark.parametrize("listed", [pa.list_, pa.large_list])
def test_conversations_are_a_line_for_each_message(listed: Callable[[pa.DataType], pa.DataType]) -> None:
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    table = parquet({"c": pa.array(CONVERSATIONS, listed(message))}, row_group_size=3)
    lines = jsonl([{"c": conversation} for conversation in CONVERSATIONS])
    for name, content in (("a.parquet", table), ("a.jsonl", lines)):
        rows = read(name, content, ColumnMap(text=Messages("c")))
        assert [text or None for text in texts(rows)] == [
            "user: hi\nassistant: yo\nyo",
            None,
            None,
            "alone\nuser: end",
            None,
        ]
        assert statuses(rows) == [OK, EMPTY, EMPTY, OK, EMPTY]
        counted = read(name, content, ColumnMap(text=Messages("c", ("assistant", "tool"))))
        assert texts(counted)[0] == "assistant: yo\nyo"
        assert not texts(counted)[3]


def test_conversations_in_the_other_spelling_and_of_the_wrong_type() -> None:
    rows = [{"c": [{"from": "human", "value": "q"}]}, {"c": [{"role": "user", "content": [1]}]}, {"c": "x"}, {"c": [3]}]
    found = read("a.jsonl", jsonl(rows), ColumnMap(text=Messages("c")))
    assert found[0]["text"] == "human: q"
    assert statuses(found) == [OK, BAD, BAD, BAD]
    assert found[1]["problem"] == "c[0].content is a list, expected a string"
    table = parquet({"c": [["a", "b"], None]})
    assert statuses(read("a.parquet", table, ColumnMap(text=Messages("c")))) == [BAD, EMPTY]


# ---------------------------------------------------------------- Parquet


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_text_of_any_string_type_is_read(kind: pa.DataType) -> None:
    values = ["a", None, "größer als zwölf Bytes", " ", "a"]
    encoded = [value.encode() if value and "binary" in str(kind) else value for value in values]
    content = parquet({"text": pa.array(encoded, kind)}, row_group_size=2)
    rows = read("a.parquet", content)
    assert texts(rows) == values
    assert statuses(rows) == [OK, EMPTY, OK, EMPTY, OK]


def invalid_strings(values: Sequence[bytes | None]) -> pa.Array:
    """A string column with bytes that are not UTF-8, as careless writers make them."""
    return pa.array(values, pa.binary()).view(pa.string())


def test_text_that_is_not_utf8_is_a_bad_record_and_metadata_is_repaired() -> None:
    table = {
        "text": invalid_strings([b"ok", b"a\xffb", None, b"\xed\xa0\x80"]),
        "url": invalid_strings([b"u\xfe\xff", b"\xc3\xa9", b"plain", None]),
    }
    rows = read("a.parquet", parquet(table, store_schema=False))
    assert statuses(rows) == [OK, BAD, EMPTY, BAD]
    assert rows[1]["problem"] == "text is not valid UTF-8 (byte 0xff at offset 1)"
    assert texts(rows) == ["ok", None, None, None]
    assert [row["url"] for row in rows] == ["u\ufffd\ufffd", "é", "plain", None]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (pa.array([42, None]), "text is a number (42), expected a string"),
        (pa.array([1.5, None]), "text is a number (1.5), expected a string"),
        (pa.array([True, None]), "text is a bool (true), expected a string"),
        (pa.array([["a"], None]), "text is a list, expected a string"),
        (pa.array([{"a": 1}, None]), "text is an object, expected a string"),
        (pa.array([datetime.date(2020, 1, 2), None]), "text is a date32[day] (2020-01-02), expected a string"),
    ],
)
def test_a_text_column_of_another_type_makes_every_value_bad(values: pa.Array, problem: str) -> None:
    rows = read("a.parquet", parquet({"text": values}))
    assert statuses(rows) == [BAD, EMPTY]
    assert [row["problem"] for row in rows] == [problem, None]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([2**64 - 1, None], pa.uint64()), [str(2**64 - 1), None]),
        (pa.array([1.0, 2.0**60], pa.float64()), ["1", "1.152921504606847e+18"]),
        (pa.array([0.1, float("nan")], pa.float32()), ["0.1", None]),
        (pa.array([float("inf"), -0.0]), ["inf", "0"]),
        (pa.array([decimal.Decimal("1.50"), None]), ["1.50", None]),
        (pa.array([datetime.date(2020, 2, 29), None]), ["2020-02-29", None]),
        (pa.array([0, 1500], pa.timestamp("ms")), ["1970-01-01T00:00:00", "1970-01-01T00:00:01.5"]),
        (
            pa.array([10**9, 1], pa.timestamp("us", "Europe/Berlin")),
            ["1970-01-01T00:16:40Z", "1970-01-01T00:00:00.000001Z"],
        ),
        (pa.array([["a"], []]), ['["a"]', "[]"]),
        (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), ['[{"key":"k","value":1}]', None]),
        (pa.array([{"b": [{"c": 1.5}], "a": None}, None]), ['{"a":null,"b":[{"c":1.5}]}', None]),
        (pa.array([b"\x00\xff", b"ok"]), ["\x00\ufffd", "ok"]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_metadata_of_any_type_becomes_text(values: pa.Array, expected: list[str | None]) -> None:
    content = parquet({"text": ["x", "y"], "v": values}, coerce_timestamps=None)
    rows = read("a.parquet", content, ColumnMap(doc_id="v", keep=(("v", "v"),)))
    assert [row["doc_id"] for row in rows] == expected
    assert [row["keep.v"] for row in rows] == expected


def test_documents_over_the_limit_are_bad_in_place() -> None:
    rows: list[Row] = [{"text": "x" * 50}, {"text": "x" * 51}, {"text": "é" * 26}, {"text": "y"}]
    problem = "text has 51 bytes, expected at most 50"
    for name, content in (
        ("a.jsonl", jsonl(rows)),
        ("a.parquet", parquet(pa.Table.from_pylist(rows))),
        ("a.csv", csv_bytes([["text"], *([row["text"]] for row in rows)])),
    ):
        found = read(name, content, max_document=50)
        assert statuses(found) == [OK, BAD, BAD, OK]
        assert found[1]["problem"] == problem


def test_the_row_groups_of_a_file_can_be_read_apart() -> None:
    rows = [{"text": f"document {number}", "id": number} for number in range(25)]
    content = parquet(pa.Table.from_pylist(rows), row_group_size=4)
    whole = read("a.parquet", content)
    groups = row_groups(opener(content))
    assert [group.rows for group in groups] == [4, 4, 4, 4, 4, 4, 1]
    assert all(group.bytes > 0 for group in groups)
    for cut in range(len(groups) + 1):
        first = sum(group.rows for group in groups[:cut])
        parts = read("a.parquet", content, row_groups=(0, cut)) + read(
            "a.parquet", content, row_groups=(cut, len(groups)), first_row=first
        )
        assert parts == whole
    with pytest.raises(UnreadableFile, match="has changed"):
        read("a.parquet", content, row_groups=(3, 8))


def test_a_vanished_or_foreign_file_is_unreadable() -> None:
    def vanished() -> Any:
        raise FileNotFoundError("gone")

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionError("reset by peer")

    for name in ("a.parquet", "a.jsonl", "a.csv.gz"):
        with pytest.raises(UnreadableFile, match="gone") as caught:
            list(read_records(vanished, name, detect_format(name), ColumnMap()))
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        with pytest.raises(UnreadableFile, match="reset by peer"):
            list(read_records(lambda: Failing(b"abc" * 9), name, detect_format(name), ColumnMap()))
    for foreign in (b"", b"PAR1", jsonl(SAME), b"PAR1" + b"\xff" * 100 + b"PAR1"):
        with pytest.raises(UnreadableFile, match=r"a\.parquet"):
            read("a.parquet", foreign)
        with pytest.raises(UnreadableFile):
            row_groups(opener(foreign))


# ---------------------------------------------------------------- JSON lines

NASTY = [
    rb'{"text":"plain","id":"x","score":1.5,"meta":{"url":"u"}}',
    rb'{"text":"caf\u00e9 \ud83d\ude00 \u0000","id":7,"score":3}',
    rb'{"text":"\ud800","id":"\udc00","url":"\ud83dx"}',
    rb'{"text":"fine","id":"\ud800 a","zz":"\udfff"}',
    b'{"text":"\xff\xfe","id":"i"}',
    b'{"text":"good","id":"b\xe2\x82d","zz":"\xc0\x80"}',
    rb'{"text":"\udce2\udc82\udcac","zz":1}',
    b'{"text":"tab\there"}',
    rb'{"text":1,"text":"last"}',
    rb'{"text":"first","text":null,"meta":{"url":"a","url":"b"},"meta":{"url":"c"}}',
    rb'{"te\u0078t":"spelled"}',
    b'{"text":42,"id":1}',
    b'{"text":["a"],"id":1}',
    b'{"text":{"a":1}}',
    b'{"text":true}',
    b'{"text":NaN}',
    b'{"text":"n","score":NaN,"id":Infinity}',
    b'{"text":"n","score":-Infinity,"zz":Inf}',
    b'{"text":"n","score":-0.0,"id":-0}',
    b'{"text":"n","score":1e400,"id":1E5}',
    b'{"text":"n","score":99999999999999999999,"id":9007199254740993}',
    b'{"text":"n","score":12345678901234567890.0,"id":' + b"9" * 400 + b"}",
    b'{"text":"n","zz":' + b"9" * 5000 + b"}",
    b'{"text":"n","id":' + b"9" * 5000 + b"}",
    b'{"text":"n","id":true,"score":[1,{"b":2.50,"a":NaN}]}',
    b'{"text":"n","meta":"no object"}',
    b'{"text":"n","meta":[]}',
    b'{"text":"deep","zz":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"text":"broken deep","zz":' + b"[" * 5000,
    b'{"text":"a"}{"text":"b"}',
    b'{"text":"a"} {"text":"b"}',
    b'{"text":',
    b'"split"}',
    b'{"meta":{"url":"x"}',
    b"}",
    b"{}",
    b"[]",
    b"3",
    b'"{"',
    b"null",
    b"{'text':'a'}",
    b'{"text":"a",}',
    b'{"text":"a"}x',
    b'{"text":"a"}\0',
    b'{"text":"a\\x"}',
    b'{"text":01}',
    b'\xef\xbb\xbf{"text":"mark"}',
    b'{"text":""}',
    b'{"text":" \\n"}',
    b'{"text":null}',
    b'  {"text":"padded"}\t ',
    b'{"text":"return"}\r',
    b'{/*c*/"text":"a"}',
    b'{"text":"\x7f\xc2\x80"}',
]
NASTY_MAP = ColumnMap(text="text", doc_id="id", url="meta.url", keep=(("score", "score"),))

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5), st.just([1, {"b": 2}])
)
generated = st.fixed_dictionaries(
    {},
    optional={
        "text": st.one_of(st.text(st.characters(), max_size=8), st.text(st.characters(), max_size=8), scalars),
        "id": scalars,
        "score": scalars,
        "meta": st.one_of(scalars, st.fixed_dictionaries({}, optional={"url": scalars})),
        "zz": scalars,
    },
)
lines = st.one_of(
    st.sampled_from(NASTY),
    st.builds(
        lambda record, ascii: json.dumps(record, ensure_ascii=ascii).encode(errors="surrogatepass"),
        generated,
        st.booleans(),
    ),
)


def until_missing(data: bytes, columns: ColumnMap = NASTY_MAP) -> list[Row]:
    """The rows of JSON lines, whether or not every named column turned up by the end."""
    rows: list[Row] = []
    try:
        for batch in read_records(opener(data), "a.jsonl", FileFormat("jsonl"), columns):
            batch.validate(full=True)
            rows += batch.to_pylist()
    except MissingColumn:
        pass
    return rows


def alone(line: bytes) -> Row:
    """What a line is when nothing but a record without columns stands beside it."""
    _, row = until_missing(b"{}\n" + line)
    del row["row"]
    return row


@pytest.mark.parametrize("line", NASTY, ids=range(len(NASTY)))
def test_a_line_is_one_record_whatever_stands_beside_it(line: bytes) -> None:
    expected = alone(line)
    for beside in (NASTY[0], NASTY[1], b'{"text":2}', b"{broken"):
        for data in (b"\n".join([b"{}", line, beside]), b"\r\n\n".join([beside, line, b"{}"])):
            found = until_missing(data)[1]
            assert found.pop("row") == 1
            assert found == expected


@settings(deadline=None, max_examples=250)
@given(st.lists(lines, min_size=1, max_size=6))
def test_records_do_not_depend_on_their_neighbours(drawn: list[bytes]) -> None:
    drawn = [line.replace(b"\n", b" ") for line in drawn]
    rows = until_missing(b"{}\n" + b"\n".join(drawn))[1:]
    assert [row.pop("row") for row in rows] == list(range(1, len(drawn) + 1))
    assert rows == [alone(line) for line in drawn]


def test_the_fast_path_is_taken_and_equals_the_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    rows = [
        {
            "text": "".join(rng.choices('ab \n\t"\\é日😀\0\x7f', k=rng.randrange(30))),
            "id": rng.choice([None, number]),
            "score": rng.choice([None, 1.0, rng.random(), rng.randrange(10), -0.0]),
            "meta": rng.choice([None, {}, {"url": None}, {"url": "u", "more": [1]}]),
        }
        for number in range(500)
    ]
    content = jsonl(rows)
    with monkeypatch.context() as patch:
        patch.setattr(records_jsonl._Reader, "_by_line", lambda *_: pytest.fail("clean lines went the slow way"))
        fast = read("a.jsonl", content, NASTY_MAP)
    with monkeypatch.context() as patch:
        patch.setattr(records_jsonl._Reader, "_fast", lambda *_: None)
        slow = read("a.jsonl", content, NASTY_MAP)
    assert fast == slow
    assert texts(fast) == [row["text"] for row in rows]


def test_problems_say_what_and_where() -> None:
    content = b'{"text":42}\n{"text":["a"]}\n[1]\n{"text":"a"\n{"text":"\\ud800"}\n{"text":"ab\xff"}\n{"text":"cut'
    assert [row["problem"] for row in read("a.jsonl", content)] == [
        "text is a number (42), expected a string",
        "text is a list, expected a string",
        "the line is a list, expected an object",
        "the line is not valid JSON: Expecting ',' delimiter at column 12",
        "text is not Unicode text (a lone surrogate \\ud800 at character 0)",
        "text is not valid UTF-8 (byte 0xff at offset 2)",
        "the line is not valid JSON: Unterminated string starting at column 9",
    ]


def test_byte_order_mark_line_ends_and_blank_lines() -> None:
    content = b'\xef\xbb\xbf{"text":"a"}\r\n\r\n \n{"text":"b"}\n\n{"text":"c"}'
    rows = read("a.jsonl", content)
    assert texts(rows) == ["a", "b", "c"]
    assert [row["row"] for row in rows] == [0, 1, 2]
    with pytest.raises(UnreadableFile, match="UTF-16"):
        read("a.jsonl", '{"text":"a"}'.encode("utf-16"))


@quick
@given(st.lists(lines, min_size=1, max_size=12), st.integers(1, 90))
def test_json_rows_do_not_depend_on_blocks(
    monkeypatch: pytest.MonkeyPatch, drawn: list[bytes], block_bytes: int
) -> None:
    content = b"{}\n" + b"\n".join(line.replace(b"\n", b" ") for line in drawn)
    expected = until_missing(content)
    with monkeypatch.context() as patch:
        patch.setattr(records_jsonl, "BLOCK_BYTES", block_bytes)
        assert until_missing(content) == expected


def test_an_endless_line_is_one_bad_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_jsonl, "BLOCK_BYTES", 16)
    content = b'{"text":"a"}\n{"text":"' + b"x" * 500 + b'"}\n{"text":"b"}\n' + b"y" * 401
    rows = read("a.jsonl", content, max_document=50)
    assert texts(rows) == ["a", None, "b", None]
    problem = "the line has more than 200 bytes"
    assert [row["problem"] for row in rows] == [None, problem, None, problem]


# ---------------------------------------------------------------- CSV


def test_csv_keeps_broken_records_in_place() -> None:
    content = (
        b'\xef\xbb\xbfid,text,lang\r\n1,"a ""b""\r\nc, d",de\r\n\r\n2,x\r\n3,a,b,c\r\n4,"ab"c,d\r\n5,,de\r\n'
        b'6,"\xff",de\r\n7,it"s,de\r\n8,"last",'
    )
    rows = read("a.csv", content)
    assert statuses(rows) == [OK, BAD, BAD, BAD, EMPTY, BAD, OK, OK]
    assert texts(rows)[0] == 'a "b"\r\nc, d'
    assert texts(rows)[6:] == ['it"s', "last"]
    assert rows[1]["problem"] == "the record has 2 fields, expected 3 as in the header"
    assert "closing quote" in rows[3]["problem"]
    assert "UTF-8" in rows[5]["problem"]
    assert rows[7]["language"] is None
    assert [row["doc_id"] for row in rows] == ["1", None, None, None, "5", "6", "7", "8"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'text,id\na,1\n"b,2\n' + b"c,3\n" * 40, 3),
        (b'text,id\r\n"a\nb",1\r\n\r\nc,"', 5),
        (b'text,id\na,1\nb,"2""', 3),
        (b'text,"id\na,1\n', 1),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 7, records_csv.BLOCK_BYTES])
def test_a_quote_that_never_closes_makes_the_file_unreadable(
    monkeypatch: pytest.MonkeyPatch, content: bytes, line: int, block_bytes: int
) -> None:
    monkeypatch.setattr(records_csv, "BLOCK_BYTES", block_bytes)
    with pytest.raises(UnreadableFile, match=rf"a quote opened on line {line} is never closed; "):
        read("a.csv", content)


def test_a_record_beyond_the_limit_makes_the_file_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_csv, "BLOCK_BYTES", 16)
    most = 4 * 50
    with pytest.raises(UnreadableFile, match=f"a quote opened on line 3 is never closed within {most} bytes"):
        read("a.csv", b'text\na\n"' + b"x\n" * most, max_document=50)
    with pytest.raises(UnreadableFile, match=f"the record on line 3 has more than {most} bytes"):
        read("a.csv", b"text\na\n" + b"x" * 2 * most, max_document=50)


def test_tabs_and_carriage_returns() -> None:
    assert texts(read("a.tsv", b'id\ttext\n1\ta,b\n2\t"c\td"\n')) == ["a,b", "c\td"]
    with pytest.raises(UnreadableFile, match="carriage return"):
        read("a.csv", b"id,text\r1,a\r2,b\r")


cells = st.text(st.sampled_from('ab,"\n\r\té日 '), max_size=6)


@quick
@given(
    st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 60),
)
def test_csv_reads_what_pythons_writer_wrote(
    monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, str, str]], end: str, block_bytes: int
) -> None:
    # Unquoted, a cell's own carriage return before a newline would be part of the line's end.
    quoting = csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL
    content = csv_bytes([("text", "id", "url"), *rows], lineterminator=end, quoting=quoting)
    with monkeypatch.context() as patch:
        patch.setattr(records_csv, "BLOCK_BYTES", block_bytes)
        found = read("a.csv", content)
    assert [(row["text"] or "", row["doc_id"] or "", row["url"] or "") for row in found] == rows


@quick
@given(st.text(st.sampled_from('a,"\n\r'), max_size=40), st.integers(1, 30))
def test_csv_rows_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch, body: str, block_bytes: int) -> None:
    content = b"text,id\n" + body.encode()
    expected = readable(content)
    with monkeypatch.context() as patch:
        patch.setattr(records_csv, "BLOCK_BYTES", block_bytes)
        assert readable(content) == expected


def readable(content: bytes) -> list[Row] | str:
    """The rows of a CSV, or why there are none."""
    try:
        return read("a.csv", content)
    except UnreadableFile as error:
        return error.problem


# ---------------------------------------------------------------- bounds, positions, damage


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_zero_bytes_are_no_compressed_stream_but_nothing_compressed_is(kind: str) -> None:
    for ending, stream, nothing in (("gz", "gzip", gzip.compress(b"")), ("zst", "zstd", zstandard.compress(b""))):
        with pytest.raises(UnreadableFile, match=f"the {stream} stream ends early, after 0 unpacked bytes"):
            read(f"a.{kind}.{ending}", b"")
        assert read(f"a.{kind}.{ending}", nothing) == []


def sample(name: str, rows: list[Row]) -> bytes:
    if name.startswith("a.parquet"):
        return parquet(pa.Table.from_pylist(rows), row_group_size=7)
    if name.startswith("a.jsonl"):
        content = jsonl(rows)
    else:
        content = csv_bytes([["text", "id"], *([row["text"] or "", str(row["id"])] for row in rows)])
    return (
        gzip.compress(content)
        if name.endswith("gz")
        else zstandard.compress(content)
        if name.endswith("zst")
        else content
    )


NAMES = ["a.parquet", "a.jsonl", "a.jsonl.zst", "a.csv", "a.csv.gz"]
documents = st.lists(
    st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=40)), min_size=1, max_size=40
).map(lambda drawn: [{"text": text, "id": number} for number, text in enumerate(drawn)])


@quick
@given(st.sampled_from(NAMES), documents, st.integers(1, 60), st.integers(1, 9))
def test_batches_are_bounded_and_change_nothing(name: str, rows: list[Row], batch_bytes: int, batch_rows: int) -> None:
    content = sample(name, rows)
    found: list[Row] = []
    for batch in read_records(
        opener(content),
        name,
        detect_format(name),
        ColumnMap(text="text"),
        batch_bytes=batch_bytes,
        batch_rows=batch_rows,
    ):
        size = sum(len(text.encode()) for text in batch["text"].to_pylist() if text)
        assert batch.num_rows == 1 or (size <= batch_bytes and batch.num_rows <= batch_rows)
        found += batch.to_pylist()
    assert found == read(name, content, ColumnMap(text="text"))
    assert [row["row"] for row in found] == list(range(len(rows)))
    assert [row["doc_id"] for row in found] == [str(row["id"]) for row in rows]
    assert [text or "" for text in texts(found)] == [row["text"] or "" for row in rows]


@quick
@given(st.sampled_from(NAMES), documents, st.data())
def test_texts_are_found_again_by_position(name: str, rows: list[Row], data: st.DataObject) -> None:
    content = sample(name, rows)
    wanted = np.array(sorted(data.draw(st.sets(st.integers(0, len(rows) - 1)))), np.int64)
    read_again = read_texts_at(opener(content), name, detect_format(name), ColumnMap(), wanted, batch_rows=3)
    found = [row for batch in read_again for row in batch.to_pylist()]
    assert found == [
        {"row": row["row"], "part": 0, "text": row["text"]} for row in read(name, content) if row["row"] in wanted
    ]


def test_texts_at_pass_over_what_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"{number}", "id": number} for number in range(30)]
    content = sample("a.parquet", rows)
    asked: list[int] = []
    whole = pq.ParquetFile.iter_batches

    def counting(file: Any, *arguments: Any, **options: Any) -> Any:
        asked.extend(options["row_groups"])
        return whole(file, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    wanted = np.array([15, 29], np.int64)
    batches = list(
        read_texts_at(
            opener(content), "a.parquet", FileFormat("parquet"), ColumnMap(), wanted, row_groups=(1, 5), first_row=7
        )
    )
    assert [batch["text"].to_pylist() for batch in batches] == [["15"], ["29"]]
    assert asked == [2, 4]
    with pytest.raises(UnreadableFile, match="row 30 was asked for"):
        list(read_texts_at(opener(content), "a.parquet", FileFormat("parquet"), ColumnMap(), wanted + 1))
    with pytest.raises(ValueError, match="ascend"):
        list(read_texts_at(opener(content), "a.parquet", FileFormat("parquet"), ColumnMap(), wanted[::-1]))


DAMAGED = [*NAMES, "a.jsonl.gz", "a.csv.zst"]


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(DAMAGED), st.randoms(use_true_random=False), st.booleans())
def test_damaged_files_are_unreadable_or_counted(name: str, rng: random.Random, cut: bool) -> None:
    rows = [{"text": "some text \n" * (number % 5), "id": number} for number in range(30)]
    data = bytearray(sample(name, rows))
    if cut:
        del data[rng.randrange(len(data)) :]
    else:
        for _ in range(rng.choice([1, 1, 3, 20])):
            # Half of the damage goes to the end, where Parquet's footer is.
            data[rng.choice([rng.randrange(len(data)), -1 - rng.randrange(min(400, len(data)))])] = rng.randrange(256)
    with contextlib.suppress(UnreadableFile, MissingColumn):
        read(name, bytes(data), ColumnMap(text="text"), max_document=2000)
