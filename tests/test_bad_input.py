"""Broken files and rows, hostile names, wrong calls: the exit code, the diagnosis, and every drop accounted for."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]
import zstandard
from corpus import minimal_config, write_corpus
from runs import PublishedMix, Told, anchormix, in_a_shell


def good(number: int) -> str:
    """A readable document like no other."""
    return " ".join(f"word{number}of{place}" for place in range(8)) + "."


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"row-{n}", "text": good(n)} for n in range(start, start + count)]


def parquet(values: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(values), sink, row_group_size=4)
    return bytes(sink.getvalue().to_pybytes())


def jsonl(values: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def cut(data: bytes, share: float = 0.6) -> bytes:
    return data[: int(len(data) * share)]


def bad_utf8_parquet() -> bytes:
    """A string column whose second value is not UTF-8, as writers that do not check leave it."""
    texts = [good(800).encode(), b"caf\xe9 au lait", good(802).encode()]
    offsets = [0, *(sum(map(len, texts[: n + 1])) for n in range(3))]
    column = pa.StringArray.from_buffers(
        3, pa.py_buffer(pa.array(offsets, pa.int32()).buffers()[1]), pa.py_buffer(b"".join(texts))
    )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["a", "b", "c"], "text": column}), sink)
    return bytes(sink.getvalue().to_pybytes())


def no_rows() -> bytes:
    """No rows, and a text column of a type that rows could not have."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": pa.array([], pa.int32())}), sink)
    return bytes(sink.getvalue().to_pybytes())


def project(folder: Path, shards: dict[str, bytes], **source: Any) -> Path:
    """A config over one source, `in`, that holds the given files."""
    for name, data in shards.items():
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    path = folder / "mix.yaml"
    config = {
        "version": 1,
        "output": "out/mix",
        "index": "out/index",
        "sources": [{"name": "in", "files": ["in/**/*"], **source}],
        "mix": {"floors": {"human_verified": 0}, "shards": 1},
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def assert_refused(told: Told, exit_code: int, code: str, *named: str) -> None:
    assert (told.exit, told.code) == (exit_code, code), told.stderr
    for name in named:
        assert name in told.message, told.message


# Broken files and rows


BROKEN_FILES: dict[str, bytes] = {
    "cut.parquet": cut(parquet(rows(40))),
    "noise.parquet": bytes(range(256)) * 8,
    "empty.parquet": b"",
    "cut.jsonl.gz": cut(gzip.compress(jsonl(rows(40)))),
    "cut.jsonl.zst": cut(zstandard.compress(jsonl(rows(40)))),
    "swapped.jsonl.zst": gzip.compress(jsonl(rows(4))),
    "cut.csv.gz": cut(gzip.compress(b"id,text\n" + b"1,some text\n" * 500)),
    "utf16.jsonl": '{"text": "x"}\n'.encode("utf-16"),
    "quote.csv": b'id,text\n1,a sound row\n2,"never closed\n3,b\n',
    "empty.jsonl.gz": b"",
    "empty.csv.zst": b"",
}

BROKEN_ROWS: dict[str, tuple[bytes, dict[int, str]]] = {
    "lines.jsonl": (
        jsonl(rows(1, 100))
        + b'{"text": "no end\n'
        + b"not json\n"
        + b"[1, 2]\n"
        + b'{"text": 5}\n'
        + jsonl(rows(1, 101)),
        {1: "JSON", 2: "JSON", 3: "list", 4: "number"},
    ),
    "latin1.jsonl": (jsonl(rows(1, 110)) + b'{"text": "caf\xe9"}\n', {1: "UTF-8"}),
    "latin1.csv": (b"id,text\na,plain words here\nb,caf\xe9 au lait\n", {1: "UTF-8"}),
    "ragged.csv": (b"id,text\na,other plain words\nb\nc,more,fields,than,columns\n", {1: "fields", 2: "fields"}),
    "latin1.parquet": (bad_utf8_parquet(), {1: "UTF-8"}),
    "number.parquet": (parquet([{"id": "n1", "text": 5}, {"id": "n2", "text": 6}]), {0: "text", 1: "text"}),
}

SOUND: dict[str, tuple[bytes, int, int]] = {
    # content, documents, empty ones among them
    "blank.jsonl": (b"", 0, 0),
    "lines-only.jsonl": (b"\n \n\r\n", 0, 0),
    "header-only.csv": (b"id,text\n", 0, 0),
    "blank.csv": (b"", 0, 0),
    "nothing.jsonl.gz": (gzip.compress(b""), 0, 0),
    "nothing.csv.zst": (zstandard.compress(b""), 0, 0),
    "no-rows.parquet": (no_rows(), 0, 0),
    "nothing-said.jsonl": (b'{"text": null}\n{"text": ""}\n{"text": " \\n\\u3000"}\n' + jsonl(rows(1, 120)), 4, 3),
    "nulls.parquet": (parquet([{"id": None, "text": None}, {"id": "x", "text": good(121)}]), 2, 1),
    "twice.jsonl": (jsonl(rows(1, 130)) + jsonl([{"id": "row-130", "text": good(131)}]), 2, 0),
    "bom.jsonl": (b"\xef\xbb\xbf" + jsonl(rows(1, 140)), 1, 0),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One source with every kind of damage."""
    shards = {
        **BROKEN_FILES,
        **{name: data for name, (data, _) in BROKEN_ROWS.items()},
        **{name: data for name, (data, _, _) in SOUND.items()},
    }
    return project(tmp_path_factory.mktemp("damaged"), shards)


BAD = len(BROKEN_FILES) + sum(len(problems) for _, problems in BROKEN_ROWS.values())


def test_damage_beyond_the_tolerance_stops_the_run(damaged: Path) -> None:
    told = in_a_shell("run", damaged, "--set", f"max_bad_records={BAD - 1}")
    assert_refused(
        told, 5, "bad_records", f"{BAD} records", f"tolerates {BAD - 1}", "cut.parquet: ", f"max_bad_records: {BAD}"
    )
    assert told.details["bad_records"] == BAD
    shown = told.details["examples"]
    assert all(example["source"] == "in" and example["shard"] and example["problem"] for example in shown)
    assert not (damaged.parent / "out" / "mix").exists()


@pytest.fixture(scope="module")
def tolerated(damaged: Path) -> PublishedMix:
    told = anchormix("run", damaged, "--set", f"max_bad_records={BAD}", "--set", "output=out/tolerated")
    assert told.exit == 0, told.stderr
    return PublishedMix(damaged.parent / "out" / "tolerated")


def test_every_broken_file_is_one_counted_drop(tolerated: PublishedMix) -> None:
    tolerated.assert_conserved()
    account = tolerated.manifest["sources"]["in"]
    assert account["bad_records"] == BAD
    assert account["dropped"]["bad_file"] == len(BROKEN_FILES)
    found = {row["shard"]: row for row in tolerated.dropped.values() if row["fate"] == "bad_file"}
    assert found.keys() == BROKEN_FILES.keys()
    for name, row in found.items():
        assert row["reason"]
        assert str(tolerated.folder.parent) not in row["reason"], "a published mix tells nobody where it was made"
        assert (row["id"], row["partner"]) == (None, None)
        shard = next(shard for shard in tolerated.inputs if shard["shard"] == name)
        assert (shard["documents"], shard["bad_records"]) == (1, 1)
    assert not BROKEN_FILES.keys() & {row["shard"] for row in tolerated.rows}, "a broken file yields nothing"


@pytest.mark.parametrize("name", BROKEN_ROWS)
def test_every_broken_row_keeps_its_place(tolerated: PublishedMix, name: str) -> None:
    _, problems = BROKEN_ROWS[name]
    found = {row["row"]: row["reason"] for row in tolerated.dropped.values() if row["shard"] == name}
    assert found.keys() == problems.keys()
    for row, word in problems.items():
        assert word in found[row], found[row]
    kept = {row["row"] for row in tolerated.rows if row["shard"] == name}
    assert not kept & problems.keys()
    shard = next(shard for shard in tolerated.inputs if shard["shard"] == name)
    assert shard["documents"] == len(kept) + len(problems)


@pytest.mark.parametrize("name", SOUND)
def test_empty_is_not_bad(tolerated: PublishedMix, name: str) -> None:
    _, documents, empty = SOUND[name]
    shard = next(shard for shard in tolerated.inputs if shard["shard"] == name)
    assert (shard["documents"], shard["bad_records"]) == (documents, 0)
    fates = [row["fate"] for row in tolerated.dropped.values() if row["shard"] == name]
    assert fates == ["empty"] * empty
    assert sum(row["shard"] == name for row in tolerated.rows) == documents - empty


def test_ids_of_users_need_not_be_unique(tolerated: PublishedMix) -> None:
    assert [row["doc_id"] for row in tolerated.rows if row["shard"] == "twice.jsonl"] == ["row-130", "row-130"]


def test_a_document_over_64_mib_is_a_bad_record(tmp_path: Path) -> None:
    line = b'{"text": "%s"}\n' % (b"word " * ((64 << 20) // 5 + 1))
    config = project(tmp_path, {"huge.jsonl": line + jsonl(rows(2))})
    assert_refused(anchormix("run", config), 5, "bad_records", "huge.jsonl", "row 0", str(64 << 20))
    told = anchormix("run", config, "--set", "max_bad_records=1")
    assert told.exit == 0
    mix = PublishedMix(tmp_path / "out" / "mix")
    assert [row["row"] for row in mix.rows] == [1, 2]
    assert mix.drops("in") == {"bad_record": 1}
    mix.assert_conserved()


def test_an_unreadable_file_is_a_bad_file_until_it_can_be_read(tmp_path: Path) -> None:
    config = project(tmp_path, {"secret.jsonl": jsonl(rows(2)), "open.jsonl": jsonl(rows(3, 10))})
    secret = tmp_path / "in" / "secret.jsonl"
    secret.chmod(0)
    # Root reads everything unless it gives that up.
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    if prefix and not shutil.which("setpriv"):
        pytest.skip("root without setpriv reads every file")
    told = in_a_shell("run", config, prefix=prefix)
    assert_refused(told, 5, "bad_records", "secret.jsonl", "ermission denied")
    secret.chmod(0o600)
    told = anchormix("run", config)
    assert told.exit == 0, told.stderr
    assert len(PublishedMix(tmp_path / "out" / "mix").rows) == 5


def test_a_missing_column_names_what_there_is(tmp_path: Path) -> None:
    config = project(tmp_path, {"a.parquet": parquet([{"titel": "x", "body_text": "y"}])}, columns={"text": "body"})
    assert_refused(
        anchormix("run", config), 2, "missing_column", "sources.in.columns", "'body'", "body_text", "a.parquet"
    )
    told = anchormix("run", config, "--set", "sources.in.columns=")
    assert_refused(told, 2, "missing_column", "titel", "columns.text")
    assert told.message.count("a.parquet") == 1, told.message
    told = anchormix("run", config, "--set", "sources.in.columns={text: body_text, id: nr}")
    assert_refused(told, 2, "missing_column", "'nr'", "columns.id")
    told = anchormix("run", config, "--set", "sources.in.columns={text: body_text}", "--set", "sources.in.keep=[lang]")
    assert_refused(told, 2, "missing_column", "'lang'", "keep")
    assert anchormix("run", config, "--set", "sources.in.columns={text: body_text}").exit == 0


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("quote.csv", BROKEN_FILES["quote.csv"], "a quote opened on line 3 is never closed"),
        ("empty.jsonl.gz", b"", "the gzip stream ends early, after 0 unpacked bytes"),
        ("empty.csv.zst", b"", "the zstd stream ends early, after 0 unpacked bytes"),
    ],
)
def test_the_reason_of_a_bad_file_is_told(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    config = project(tmp_path, {name: data, "sound.jsonl": jsonl(rows(1))})
    assert_refused(anchormix("run", config), 5, "bad_records", name, reason)


def test_a_document_without_a_token_count_is_a_bad_record(tmp_path: Path) -> None:
    table = [{"text": good(n), "n": count} for n, count in enumerate((7, None, 0, -1))] + [{"text": None, "n": None}]
    floats = [{"text": good(20), "n": 3.0}, {"text": good(21), "n": 2.5}, {"text": good(22), "n": 1e15}]
    floats += [{"text": good(23), "n": float("nan")}]
    shards = {
        "a.parquet": parquet(table),
        "b.csv": f"text,n\n{good(10)},5\n{good(11)},\n{good(12)},few\n".encode(),
        "c.parquet": parquet(floats),
        "d.jsonl": jsonl([{"text": good(30), "n": 999999999999999999}, {"text": good(31), "n": "12"}]),
    }
    config = project(tmp_path, shards)
    config.write_text(config.read_text() + "tokens: {column: n}\n")
    assert_refused(anchormix("run", config), 5, "bad_records", "8 records", "tolerates 0", "a.parquet")
    told = anchormix("run", config, "--set", "max_bad_records=8")
    assert told.exit == 0, told.stderr
    mix = PublishedMix(tmp_path / "out" / "mix")
    mix.assert_conserved()
    counts = {(row["shard"], row["row"]): row["n_tokens"] for row in mix.rows}
    read = {("a.parquet", 0): 7, ("a.parquet", 2): 0, ("b.csv", 0): 5, ("c.parquet", 0): 3, ("d.jsonl", 1): 12}
    assert counts == read
    fates = {(row["shard"], row["row"]): row["fate"] for row in mix.dropped.values()}
    bad = [("a.parquet", 1), ("a.parquet", 3), ("b.csv", 1), ("b.csv", 2), *(("c.parquet", n) for n in (1, 2, 3))]
    bad += [("d.jsonl", 0)]
    assert fates == {**dict.fromkeys(bad, "bad_record"), ("a.parquet", 4): "empty"}
    assert mix.manifest["sources"]["in"]["bad_records"] == len(bad)
    reasons = {row["reason"] for row in mix.dropped.values() if row["fate"] == "bad_record"}
    for value in ("null", "-1", "few", "2.5", "1000000000000000", "999999999999999999"):
        assert any(f"n (tokens.column) is {value}, expected" in told for told in reasons), (value, reasons)
    assert all("no token count" in reason and "tokens.column" in reason for reason in reasons), reasons


# Texts made of several values

CHATS = [
    [{"role": "user", "content": good(1)}, {"role": "assistant", "content": good(2)}],
    [{"role": "user", "content": good(3)}],
    [{"role": "assistant", "content": good(4)}, {"role": "assistant", "content": None}],
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            {"messages": "chat"},
            {0: f"user: {good(1)}\nassistant: {good(2)}", 1: f"user: {good(3)}", 2: f"assistant: {good(4)}"},
        ),
        (
            {"messages": "chat", "count": ["assistant"]},
            {0: f"assistant: {good(2)}", 2: f"assistant: {good(4)}"},
        ),
        ({"join": ["title", "body"]}, {0: f"One\n{good(5)}", 1: good(6), 2: "Three"}),
    ],
    ids=["messages", "counted messages", "join"],
)
def test_a_composed_text_stands_in_the_mix(tmp_path: Path, text: dict[str, Any], expected: dict[int, str]) -> None:
    parts = [("One", good(5)), (None, good(6)), ("Three", "")]
    values = [{"chat": chat, "title": title, "body": body} for chat, (title, body) in zip(CHATS, parts, strict=True)]
    shards = {"a.parquet": parquet(values), "b.jsonl": jsonl(values)}
    told = anchormix("run", project(tmp_path, shards, columns={"text": text}))
    assert told.exit == 0, told.stderr
    mix = PublishedMix(tmp_path / "out" / "mix")
    mix.assert_conserved()
    # Both files hold the same documents: one copy of each is kept, wherever it stands.
    assert {row["row"]: row["text"] for row in mix.rows} == expected
    assert {row["represents"] for row in mix.rows} == {2}
    fates = mix.drops("in")
    assert fates == {
        "exact_duplicate": len(expected),
        **({"empty": 2 * (3 - len(expected))} if len(expected) < 3 else {}),
    }


# Which files there are


def test_a_glob_that_matches_nothing(tmp_path: Path) -> None:
    config = project(tmp_path, {"a.jsonl": jsonl(rows(2))})
    told = in_a_shell("run", config, "--set", "sources.in.files=[nowhere/*.jsonl]")
    assert_refused(told, 2, "no_files", "sources.in.files", "nowhere/*.jsonl", "optional")
    more = "sources.in.files=[nowhere/*.jsonl, in/*.jsonl]"
    told = anchormix("run", config, "--set", more, "--set", "sources.in.optional=true")
    assert told.exit == 0, told.stderr
    assert len(PublishedMix(tmp_path / "out" / "mix").rows) == 2


def test_an_empty_source_is_valid_and_an_empty_mix_is_not(tmp_path: Path) -> None:
    config = project(tmp_path, {"a.jsonl": b"", "b.parquet": no_rows()})
    told = anchormix("run", config)
    assert_refused(told, 3, "infeasible", "nothing to mix", "sources.in: documents read: 0")
    assert "fates" not in told.message, "nothing was published that could hold them"
    (tmp_path / "in" / "c.jsonl").write_bytes(b'{"text": " "}\n')
    assert_refused(anchormix("run", config), 3, "infeasible", "sources.in: documents read: 1, 1 empty")
    (tmp_path / "in" / "c.jsonl").unlink()
    told = anchormix("run", config, "--set", "mix.floors.human_verified=0.5")
    assert_refused(told, 3, "infeasible", "no verified human text")
    assert not (tmp_path / "out" / "mix").exists()

    sources = [{"name": "in", "files": ["in/*"]}, {"name": "more", "files": ["more/*"]}]
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.jsonl").write_bytes(jsonl(rows(2)))
    told = anchormix("run", config, "--set", f"sources={json.dumps(sources)}")
    assert told.exit == 0, told.stderr
    mix = PublishedMix(tmp_path / "out" / "mix")
    mix.assert_conserved()
    accounts = {name: account["documents_out"] for name, account in mix.manifest["sources"].items()}
    assert accounts == {"in": 0, "more": 2}


def test_an_unknown_ending_and_a_directory(tmp_path: Path) -> None:
    config = project(tmp_path, {"a.jsonl": jsonl(rows(1)), "notes.txt": b"hello", "deep/b.jsonl": jsonl(rows(1, 5))})
    assert_refused(anchormix("run", config), 2, "unknown_format", "notes.txt", ".parquet")
    told = anchormix("run", config, "--set", "sources.in.files=[in/*.jsonl, in/deep]")
    assert_refused(told, 2, "no_files", "in/deep")


HOSTILE = [
    "with space.jsonl",
    "ünï/码.jsonl",
    "new\nline.jsonl",
    "quote'\".jsonl",
    "[x].jsonl",
    "per%20cent.jsonl",
    "-.jsonl",
]


def test_hostile_names(tmp_path: Path) -> None:
    folder = tmp_path / "a [b] ${HOME} 'c'\nd"
    config = project(folder, {name: jsonl(rows(2, 10 * n)) for n, name in enumerate(HOSTILE)})
    (folder / "elsewhere").mkdir()
    outside = folder / "elsewhere" / "outside.jsonl"
    outside.write_bytes(jsonl(rows(2, 900)))
    (folder / "in" / "link.jsonl").symlink_to(outside)
    told = anchormix("run", config, "--set", "sources.in.files=[in/**/*.jsonl, in/../in/*.jsonl]")
    assert told.exit == 0, told.stderr
    mix = PublishedMix(folder / "out" / "mix")
    assert {row["shard"] for row in mix.rows} == {*HOSTILE, "link.jsonl"}
    assert len(mix.rows) == 2 * (len(HOSTILE) + 1), "overlapping globs count a file once"
    mix.assert_conserved()
    assert anchormix("verify", mix.folder).exit == 0


def test_a_dangling_link_is_a_bad_file(tmp_path: Path) -> None:
    config = project(tmp_path, {"a.jsonl": jsonl(rows(2))})
    (tmp_path / "in" / "gone.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    assert_refused(anchormix("run", config), 5, "bad_records", "gone.jsonl")
    told = anchormix("run", config, "--set", "max_bad_records=1")
    assert told.exit == 0, told.stderr
    assert PublishedMix(tmp_path / "out" / "mix").drops("in") == {"bad_file": 1}


def test_two_files_of_one_shard_name(tmp_path: Path) -> None:
    config = project(tmp_path, {"x/a.jsonl": jsonl(rows(1)), "y/a.jsonl": jsonl(rows(1, 5))})
    told = anchormix("run", config, "--set", "sources.in.files=[in/x/*.jsonl, in/y/*.jsonl]")
    assert_refused(told, 2, "shard_names_collide", "x/a.jsonl", "y/a.jsonl")


# Wrong calls


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config whose mix is published."""
    folder = tmp_path_factory.mktemp("done")
    write_corpus(folder, verified=12, believed=4, unknown=6, synthetic=4, exact=2, near=3, empty=1)
    config = minimal_config(folder, mix={"floors": {"human_verified": 0.3}})
    assert anchormix("run", config).exit == 0
    return config


@pytest.mark.parametrize(
    ("overrides", "code", "named"),
    [
        (("mix.flors.human_verified=0.5",), "unknown_key", ("flors", "floors")),
        (("sources.pres.optional=true",), None, ("pres", "press")),
        (("mix.shards=many",), "bad_value", ("mix.shards", "many", "auto")),
        (("mix.floors.human_verified=1.5",), "bad_value", ("mix.floors", "1.5")),
        (("seed",), None, ("seed", "KEY=VALUE")),
        (("sources.web.columns.label=kind",), None, ("sources.web", "labels")),
        (("sources.bot.declare=human",), None, ("sources.bot", "declare")),
        (("trust.keys.desk.public_key=nowhere.pub",), None, ("nowhere.pub", "desk")),
        (("sources.press.custody.manifest=nowhere.json",), "manifest_missing", ("nowhere.json", "sources.press")),
        (("trust.revoked=[dask]",), None, ("dask",)),
        (("index=out/mix/index",), None, ("index", "output")),
        (("dedup.threshold=0",), "bad_value", ("dedup.threshold",)),
    ],
)
def test_a_wrong_config_names_the_key(
    done: Path, overrides: tuple[str, ...], code: str | None, named: tuple[str, ...]
) -> None:
    told = anchormix("run", done, *(word for override in overrides for word in ("--set", override)))
    assert_refused(told, 2, code or told.code, *named)


def test_a_config_that_is_not_there_or_no_yaml(done: Path, tmp_path: Path) -> None:
    assert_refused(anchormix("run", tmp_path / "none.yaml"), 2, "config_not_found", "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("version: 1\nsources: [\n")
    told = in_a_shell("run", broken)
    assert told.exit == 2
    assert "broken.yaml" in told.message
    assert "line" in told.message


def test_beam_flags_that_beam_does_not_know(done: Path) -> None:
    told = anchormix("run", done, beam=("--direct_num_worker=2",))
    assert_refused(told, 2, "unknown_beam_flag", "--direct_num_worker", "--direct_num_workers")
    told = in_a_shell("run", done, beam=("--direct_num_workers=some",))
    assert_refused(told, 2, "bad_beam_flag", "direct_num_workers")


def test_a_second_run_changes_nothing(done: Path) -> None:
    output = done.parent / "out" / "mix"
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    for command in ("run", "mix"):
        told = anchormix(command, done)
        assert (told.exit, told.line["status"]) == (0, "unchanged")
        manifest = PublishedMix(output).manifest
        assert {key: told.line[key] for key in ("totals", "plan", "logical_digest", "rebuilt")} == {
            **{key: manifest[key] for key in ("totals", "plan", "logical_digest")},
            "rebuilt": [],
        }
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_a_published_mix_is_never_overwritten(done: Path) -> None:
    output = done.parent / "out" / "mix"
    before = (output / "manifest.json").read_bytes()
    told = in_a_shell("run", done, "--set", "mix.floors.human_verified=0.4")
    assert_refused(told, 2, "output_exists", "output", str(output))
    assert (output / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    "occupy", [lambda p: p.write_text("mine"), lambda p: (p.mkdir(), (p / "note").write_text("mine"))]
)
def test_an_output_that_is_something_else(done: Path, occupy: Callable[[Path], Any]) -> None:
    taken = done.parent / "out" / f"taken-{id(occupy)}"
    occupy(taken)
    told = anchormix("run", done, "--set", f"output={taken}")
    assert_refused(told, 2, "output_exists", str(taken))


@pytest.mark.parametrize("key", ["output", "index"])
def test_a_folder_that_cannot_be_made(done: Path, tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("mine")
    told = anchormix("run", done, "--set", f"output={tmp_path / 'mix'}", "--set", f"{key}={tmp_path / 'file' / 'sub'}")
    assert_refused(told, 2, f"{key}_not_writable", f"{key}: ", str(tmp_path / "file"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_plan_and_mix_never_index(tmp_path: Path) -> None:
    write_corpus(tmp_path, verified=12, believed=4, unknown=6, synthetic=4, exact=2, near=3, empty=1)
    config = minimal_config(tmp_path, mix={"floors": {"human_verified": 0.3}})
    for command in ("plan", "mix"):
        assert_refused(anchormix(command, config), 2, "stale_index", "anchormix index", "facts")
    assert anchormix("index", config).exit == 0
    assert anchormix("plan", config).exit == 0
    assert_refused(anchormix("mix", config, "--set", "dedup.threshold=0.9"), 2, "stale_index", "edges")
    assert_refused(anchormix("plan", config, "--set", "sources.letters.declare=unknown"), 2, "stale_index", "fates")
    with open(tmp_path / "shards" / "web" / "web-1.csv", "ab") as shard:
        shard.write(b"new,A new row at the end.,en\n")
    assert_refused(in_a_shell("mix", config), 2, "stale_index", "1 of 6 shards")
    assert not (tmp_path / "out" / "mix").exists()
    assert anchormix("run", config).line["rebuilt"] == ["facts", "edges", "fates"]


def test_usage_errors_outrank_broken_input(tmp_path: Path) -> None:
    """Of several verdicts the one that is wrong with the call comes first: it costs nothing to find."""
    config = project(tmp_path, {"a.jsonl": b"broken\n"}, custody={"method": "licensed_source", "manifest": "none.json"})
    assert_refused(anchormix("run", config), 2, "manifest_missing", "none.json")
