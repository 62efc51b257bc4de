"""Texts that are kept are those that would be read again, and no more of them than fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from projects import run, write_project
from runs import PublishedMix, anchormix

from pipeline.samples import write_rows
from transforms import mixture, texts
from transforms.batches import Split
from transforms.kernels.hashing import text_digests
from transforms.kernels.records import ColumnMap, read_texts_at
from transforms.sidecars import fixed_binary
from transforms.texts import Keeper, keep_no_more_texts, keep_texts, kept_texts, texts_at

TEXTS = ["one", None, "", "vier", "fünf", "шесть"]


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    keep_texts(0)
    yield
    keep_texts(0)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    path = str(tmp_path / "shard.parquet")
    pq.write_table(pa.table({"text": TEXTS}), path)
    return Split(0, "s", "shard.parquet", path, "parquet", "none", None, 0, 1, str(tmp_path / "facts"), True)


def facts_of(values: list[str | None]) -> pa.Table:
    digests = fixed_binary(text_digests(pa.array(values, pa.large_string())))
    columns = {"row": np.arange(len(values)), "part": np.zeros(len(values), np.int32), "digest": digests}
    return pa.table(columns)


BATCHES = [pa.array(TEXTS[:2], pa.large_string()), pa.array(TEXTS[2:], pa.large_string())]
SIZE = sum(batch.nbytes + 20 * len(batch) for batch in BATCHES)


def keep(split: Split) -> None:
    with Keeper(split) as keeper:
        for batch in BATCHES:
            keeper.add(batch)


def told(split: Split, places: list[int], values: list[str | None] = TEXTS) -> list[str | None]:
    found = texts_at(split, ColumnMap(), facts_of(values), np.array(places, np.int64))
    return [text for batch in found for text in batch.to_pylist()]


@pytest.mark.parametrize("places", [[], [0], [3, 5], [0, 3, 4, 5]])
def test_kept_texts_are_those_of_the_file(split: Split, places: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    keep_texts(1000)
    read = told(split, places)
    assert read == [TEXTS[place] for place in places]
    keep(split)
    monkeypatch.setattr(texts, "read_texts_at", None)
    assert told(split, places) == read


def test_a_text_that_is_not_what_was_indexed_is_not_given_nor_any_behind_it(split: Split) -> None:
    assert told(split, [0, 3, 4], ["one", None, "", "four", "fünf", "шесть"]) == []
    assert told(split, [0], ["one", None, "", "four", "fünf", "шесть"]) == ["one"]


def test_no_more_is_kept_than_fits_and_a_split_whole_or_not_at_all(split: Split) -> None:
    other = Split(**(vars(split) | {"facts": "other"}))
    for room, fits in ((SIZE - 1, False), (SIZE, True), (2 * SIZE - 1, True)):
        keep_texts(room)
        keep(split)
        assert (kept_texts(split.facts) is not None) == fits
        keep(other)
        assert kept_texts("other") is None, "the first took its room"
    keep_texts(SIZE)
    assert kept_texts(split.facts) is None


def test_what_is_being_read_takes_room_until_it_is_given_up(split: Split) -> None:
    keep_texts(SIZE + 10)
    first, second = Keeper(split), Keeper(Split(**(vars(split) | {"facts": "other"})))
    first.add(BATCHES[0])
    second.add(BATCHES[1])
    first.add(BATCHES[1])  # has no room, so the split is given up
    second.add(BATCHES[0])
    for keeper in (first, second):
        keeper.__exit__(None)
    assert kept_texts(split.facts) is None
    assert kept_texts("other") is not None


def test_texts_of_a_split_that_failed_are_not_kept(split: Split) -> None:
    keep_texts(SIZE)
    keeper = Keeper(split)
    keeper.add(BATCHES[0])
    keeper.__exit__(OSError)
    assert kept_texts(split.facts) is None
    keep(split)
    assert kept_texts(split.facts) is not None, "its room was given back"


def test_where_no_more_is_kept_what_is_kept_stays(split: Split) -> None:
    keep_texts(10 * SIZE)
    keep(split)
    keep_no_more_texts()
    keep(Split(**(vars(split) | {"facts": "other"})))
    assert kept_texts(split.facts) is not None
    assert kept_texts("other") is None


def test_nothing_is_kept_unless_it_is_asked_for(split: Split) -> None:
    keep(split)
    assert kept_texts(split.facts) is None


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that are read again from now on."""
    read: list[str] = []

    def noted(opener: Any, path: str, *arguments: Any, **named: Any) -> Any:
        read.append(path)
        return read_texts_at(opener, path, *arguments, **named)

    monkeypatch.setattr(texts, "read_texts_at", noted)
    return read


def documents(count: int) -> list[str]:
    return [f"document {number} " + " ".join(f"w{number * k}" for k in range(60)) for number in range(count)]


def files_of(mix: PublishedMix) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((mix.folder / "data").iterdir())}


def test_a_small_run_reads_its_input_once_and_a_large_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated = documents(30)
    repeated[7] = repeated[3] + " and more"  # so that dedup looks at two again
    made = []
    for name, most in (("kept", texts.MOST_KEPT_BYTES), ("read", 0)):
        monkeypatch.setattr(texts, "MOST_KEPT_BYTES", most)
        read = counted(monkeypatch)
        config = write_project(tmp_path / name / "project", {"web": repeated})
        mix = run(config)
        assert bool(read) == (name == "read")
        assert not texts._room.kept, "a run lets go of them"
        made.append(files_of(mix))
        monkeypatch.undo()
    assert made[0] == made[1]


def test_a_mix_of_an_index_that_stands_reads_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_project(tmp_path, {"web": documents(9)})
    anchormix("index", config)
    read = counted(monkeypatch)
    assert anchormix("mix", config).exit == 0
    assert read


def test_input_that_is_held_out_from_is_kept_beside_what_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reference").mkdir()
    write_rows(tmp_path / "reference" / "held.jsonl", [{"text": text} for text in documents(3)])
    repeated = documents(30)
    repeated[7] = repeated[9] + " and more"
    config = write_project(tmp_path, {"web": repeated}, diversity={"reference": ["reference/*.jsonl"]})
    read = counted(monkeypatch)
    run(config)
    assert read == []


def test_copies_of_kept_rows_are_sent_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name, sent, rows in (("kept", mixture._SEND_BYTES, 4096), ("in pieces", 1, 5), ("read", 1, 4096)):
        if name == "read":
            monkeypatch.setattr(texts, "MOST_KEPT_BYTES", 0)
        monkeypatch.setattr(mixture, "_SEND_BYTES", sent)
        monkeypatch.setenv("ANCHORMIX_BATCH_ROWS", str(rows))
        changes = {"mix": {"floors": {"human_verified": 0}, "epochs": {"unknown": 3}, "shards": 2, "size": 4000}}
        config = write_project(tmp_path / name / "project", {"web": documents(30)}, **changes)
        made.append(files_of(run(config)))
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == 2
