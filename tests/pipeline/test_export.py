"""Exports for streaming loaders: every row, unchanged and in order, read back by the loaders and by hand."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import mixes
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixes import Mix
from runs import Told, anchormix

import pipeline.export
from transforms.kernels.hashing import byte_spans
from transforms.kernels.samples import json_objects, json_values, tar_end, tar_members

FORMATS = ["mds", "webdataset"]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> Mix:
    """Three shards of unequal length; one document of 70 kB, kept values that are null, empty and quoted."""
    rows = [row for shard in mixes.default_shards() for row in shard]
    rows[2] = mixes.sealed({**rows[2], "text": rows[2]["text"] + " Nochmals: Möwen. 漢字" * 4000})
    for row, title in zip(rows, ['say "no"\n', "", None, "tab\tand \\ back"], strict=False):
        row["title"] = title
    return mixes.write_mix(
        tmp_path_factory.mktemp("export"), [rows[:14], rows[14:20], rows[20:]], row_group=6, floors=FLOORS
    )


FLOORS = [mixes.RuleClaim("human_verified", Fraction(1, 2))]


@pytest.fixture(scope="module")
def exports(mix: Mix, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for form in FORMATS:
        found[form] = tmp_path_factory.mktemp("dest") / form
        told = export(mix, form, found[form])
        assert told.exit == 0, told.stderr
        assert told.line["totals"]["rows"] == sum(map(len, mix.shards))
    return found


def export(mix: Mix, form: str, dest: Path | str) -> Told:
    return anchormix("export", mix.out, "--to", form, dest)


def rows_of(mix: Mix) -> list[list[Row]]:
    return [pq.ParquetFile(mix.path(number)).read().to_pylist() for number in range(len(mix.shards))]


# Read by hand, from the definitions of the formats


def read_mds(dest: Path) -> list[list[Row]]:
    decoders: dict[str, Callable[[bytes], Any]] = {
        "str": bytes.decode,
        "json": json.loads,
        "int": lambda data: struct.unpack("<q", data)[0],
    }
    shards = []
    for told in json.loads((dest / "index.json").read_bytes())["shards"]:
        data = (dest / told["raw_data"]["basename"]).read_bytes()
        assert len(data) == told["raw_data"]["bytes"]
        assert hashlib.sha256(data).hexdigest() == told["raw_data"]["hashes"]["sha256"]
        (count,) = struct.unpack_from("<I", data)
        offsets = struct.unpack_from(f"<{count + 1}I", data, 4)
        described = json.loads(data[4 + 4 * (count + 1) : offsets[0]])
        assert described == {name: value for name, value in told.items() if name in described}
        assert (count, offsets[-1]) == (told["samples"], len(data))
        rows = []
        for start, stop in pairwise(offsets):
            sizes = iter(struct.unpack_from(f"<{told['column_sizes'].count(None)}I", data, start))
            at = start + 4 * told["column_sizes"].count(None)
            row = {}
            for name, kind, fixed in zip(
                told["column_names"], told["column_encodings"], told["column_sizes"], strict=True
            ):
                size = fixed or next(sizes)
                row[name] = decoders[kind](data[at : at + size])
                at += size
            assert at == stop
            rows.append(row)
        shards.append(rows)
    return shards


def read_tars(dest: Path) -> list[list[Row]]:
    return [read_tar(path.read_bytes()) for path in sorted(dest.glob("*.tar"))]


def read_tar(data: bytes) -> list[Row]:
    rows: list[Row] = []
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        contents = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    for (text_name, text), (json_name, rest) in zip(contents[::2], contents[1::2], strict=True):
        assert text_name.removesuffix(".txt") == json_name.removesuffix(".json")
        rows.append({"text": text.decode(), **json.loads(rest)})
    return rows


@pytest.mark.parametrize(("form", "read"), [("mds", read_mds), ("webdataset", read_tars)])
def test_every_row_is_there_unchanged_and_in_order(
    mix: Mix, exports: dict[str, Path], form: str, read: Callable[[Path], list[list[Row]]]
) -> None:
    assert read(exports[form]) == rows_of(mix)


@pytest.mark.skipif(importlib.util.find_spec("streaming") is None, reason="mosaicml-streaming is not installed")
def test_mosaics_own_reader_gives_every_row(mix: Mix, exports: dict[str, Path]) -> None:
    reader = Path(__file__).parents[1] / "mds_reader.py"
    done = subprocess.run([sys.executable, reader, exports["mds"]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [row for rows in rows_of(mix) for row in rows]


def test_webdataset_gives_every_row(mix: Mix, exports: dict[str, Path]) -> None:
    webdataset = pytest.importorskip("webdataset")
    shards = [str(path) for path in sorted(exports["webdataset"].glob("*.tar"))]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode())
    expected = [row for rows in rows_of(mix) for row in rows]
    assert [sample["txt"] for sample in samples] == [row["text"] for row in expected]
    assert [{"text": sample["txt"], **sample["json"]} for sample in samples] == expected
    assert [sample["__key__"] for sample in samples] == [f"{row['id']}-{row['copy']}" for row in expected]


@pytest.mark.parametrize("form", FORMATS)
def test_what_lies_beside_the_shards_says_where_they_come_from(mix: Mix, exports: dict[str, Path], form: str) -> None:
    dest = exports[form]
    manifest = json.loads((mix.out / "manifest.json").read_bytes())
    for name in ("manifest.json", "manifest.dsse.json"):
        assert (dest / name).read_bytes() == (mix.out / name).read_bytes()
    note = json.loads((dest / "export.json").read_bytes())
    assert (note["format"], note["logical_digest"]) == (form, manifest["logical_digest"])
    for told, rows, source in zip(note["shards"], mix.shards, manifest["shards"], strict=True):
        data = (dest / told["path"]).read_bytes()
        assert (told["rows"], told["file_bytes"]) == (len(rows), len(data))
        assert told["sha256"] == hashlib.sha256(data).hexdigest()
        assert told["made_of"]["sha256"] == source["sha256"]
    readme = (dest / "README.md").read_text(encoding="utf-8")
    assert "the floor is 1/2" in readme
    assert manifest["logical_digest"] in readme
    assert (dest / "_SUCCESS").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_batches_decide_nothing(
    mix: Mix, exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    dest = exports[form]
    monkeypatch.setattr(pipeline.export, "_BATCH_ROWS", 1)
    assert export(mix, form, tmp_path / "again").exit == 0
    assert {path.name: path.read_bytes() for path in dest.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()
    }


# Whole or not at all


def nothing_at(folder: Path) -> bool:
    return list(folder.iterdir()) == []


def test_an_empty_folder_may_stand_there_and_nothing_else(mix: Mix, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    assert export(mix, "mds", taken).exit == 0
    before = sorted(taken.iterdir())
    for dest in (taken, taken / "index.json"):
        told = export(mix, "mds", dest)
        assert (told.exit, told.code) == (2, "output_exists")
        assert str(dest) in told.message
    assert sorted(taken.iterdir()) == before


@pytest.mark.parametrize("below", ["x", "."])
def test_the_mix_itself_stays_as_it_is(mix: Mix, below: str) -> None:
    before = sorted(mix.out.rglob("*"))
    told = export(mix, "mds", mix.out / below)
    assert (told.exit, told.code) == (2, "bad_destination")
    assert sorted(mix.out.rglob("*")) == before


def test_a_url_is_no_destination(mix: Mix) -> None:
    told = export(mix, "mds", "s3://bucket/mix")
    assert (told.exit, told.code) == (2, "bad_destination")
    assert "s3://bucket/mix" in told.message


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_mix_is_refused(tmp_path: Path, form: str) -> None:
    damaged = mixes.write_mix(tmp_path)
    damaged.rewrite(0, lambda rows: rows[0].update(text="another text"), reseal=False)
    (tmp_path / "dest").mkdir()
    told = export(damaged, form, tmp_path / "dest" / "x")
    assert (told.exit, told.code) == (4, "not_verified")
    assert nothing_at(tmp_path / "dest")


@pytest.mark.parametrize("change", ["rows", "gone", "cut", "torn", "bytes"])
def test_a_mix_that_changes_meanwhile_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    changing = mixes.write_mix(tmp_path)
    verified = pipeline.export.verify_mix

    def then_change(out: Path) -> Any:
        result = verified(out)
        if change == "rows":
            changing.write_shard(1, changing.shards[1][:-1])
        elif change == "gone":
            changing.path(1).unlink()
        elif change == "cut":
            changing.path(1).write_bytes(changing.path(1).read_bytes()[:-20])
        elif change == "torn":
            data = bytearray(changing.path(1).read_bytes())
            data[200:600] = bytes(400)
            changing.path(1).write_bytes(data)
        else:
            table = pq.read_table(changing.path(1))
            pq.write_table(table, changing.path(1), compression="none")
        return result

    monkeypatch.setattr(pipeline.export, "verify_mix", then_change)
    (tmp_path / "dest").mkdir()
    told = export(changing, "webdataset", tmp_path / "dest" / "x")
    assert (told.exit, told.code) == (4, "changed_meanwhile")
    assert changing.names[1] in told.message
    assert nothing_at(tmp_path / "dest")


def test_a_shard_beyond_what_the_format_addresses_is_refused(
    mix: Mix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.export, "_LARGEST_MDS", 1000)
    told = export(mix, "mds", tmp_path / "x")
    assert (told.exit, told.code) == (2, "shard_too_large")
    assert "mix.shards" in told.message
    assert nothing_at(tmp_path)


def test_a_full_disk_is_told_as_such_and_leaves_nothing(
    mix: Mix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pipeline.export._Mds, "write", full)
    told = export(mix, "mds", tmp_path / "x")
    assert (told.exit, told.code) == (1, "os_error")
    assert "No space left" in told.message
    assert nothing_at(tmp_path)


def test_what_a_killed_export_left_is_cleared_away(mix: Mix, tmp_path: Path) -> None:
    (tmp_path / ".x.staging-dead").mkdir()
    (tmp_path / ".x.staging-dead" / "shard.00000.mds").write_bytes(b"half")
    assert export(mix, "mds", tmp_path / "x").exit == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_no_mix_is_told_as_such(tmp_path: Path) -> None:
    told = anchormix("export", tmp_path / "none", "--to", "mds", tmp_path / "x")
    assert (told.exit, told.code) == (2, "no_mix")


# Kernels


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.none() | st.text(max_size=8), st.integers(-9, 9), st.binary(max_size=1100)), min_size=1, max_size=6
    )
)
def test_any_values_survive_a_tar(rows: list[tuple[str | None, int, bytes]]) -> None:
    texts, numbers, contents = (list(column) for column in zip(*rows, strict=True))
    texts = [text and text.encode("utf-8", "replace").decode() for text in texts]
    batch = pa.record_batch({"a b": pa.array(texts, pa.string()), "n": pa.array(numbers, pa.int32())})
    keys = pa.array([f"k{place}" for place in range(len(rows))])
    described = json_objects(batch, batch.schema.names)
    members = tar_members(keys, [("bin", pa.array(contents, pa.large_binary())), ("json", described)])
    data, starts, stops = byte_spans(members)
    assert [stop - start for start, stop in zip(starts, stops, strict=True)] == [len(m.as_py()) for m in members]
    with tarfile.open(fileobj=io.BytesIO(data[: stops[-1]].tobytes() + tar_end())) as tar:
        found = [(m.name, m.mtime, m.mode, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    assert [entry[0] for entry in found] == [f"k{n}.{kind}" for n in range(len(rows)) for kind in ("bin", "json")]
    assert {entry[1:3] for entry in found} == {(0, 0o644)}
    assert [entry[3] for entry in found[::2]] == contents
    assert [json.loads(entry[3]) for entry in found[1::2]] == batch.to_pylist()


def test_null_and_empty_stay_apart() -> None:
    values = pa.array(["", None, "null", "a"])
    assert [json.loads(value.as_py()) for value in json_values(values)] == ["", None, "null", "a"]
    numbers = pa.array([1, None], pa.int64())
    assert [json.loads(value.as_py()) for value in json_values(numbers)] == [1, None]
    lists = pa.array([[{"k": "v"}], [], None])
    assert [json.loads(value.as_py()) for value in json_values(lists)] == [[{"k": "v"}], [], None]


def test_names_that_a_tar_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 100"):
        tar_members(pa.array(["k" * 99]), [("txt", pa.array([b""], pa.large_binary()))])
