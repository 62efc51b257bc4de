"""Same in, same out: one mix, byte for byte, on every local runner, with any workers, splits, batches and carrier."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import corpus
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import driver, layers, planning
from pipeline.config import load_config
from pipeline.samples import write_rows
from transforms import dedup, mixture

ROOT = Path(__file__).resolve().parents[1]
SAME = ("data/*", "custody/**/*", "manifest.json", "inputs.parquet", "diversity.parquet")
"""What equal runs agree on to the byte. Fates are compared as rows: how many files they fill follows the splits."""


@dataclass(frozen=True)
class Variant:
    """One way to run that must not be seen in what comes out."""

    beam: tuple[str, ...] = ("--direct_num_workers=1",)
    environment: Mapping[str, str] = field(default_factory=dict)
    config: Callable[[dict[str, Any]], None] = lambda config: None
    of_its_own: bool = False  # in a process of its own, because it starts processes that must find this package


def reorder(config: dict[str, Any]) -> None:
    config["sources"].reverse()
    for source in config["sources"]:
        # The first glob now names one file, which the others name too.
        source["files"] = [f"{source['files'][0].rsplit('/', 1)[0]}/*-0.*", *reversed(source["files"])]
    config["diversity"]["reference"].reverse()


VARIANTS = {
    "one worker": Variant(),
    "two workers in memory, through the shuffle": Variant(
        ("--direct_num_workers=2", "--direct_running_mode=in_memory"), {"ANCHORMIX_EXCHANGE": "shuffle"}
    ),
    "two processes": Variant(("--direct_num_workers=2", "--direct_running_mode=multi_processing"), of_its_own=True),
    "portable runner": Variant(
        ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"), of_its_own=True
    ),
    "DirectRunner, batches of seven": Variant(("--runner=DirectRunner",), {"ANCHORMIX_BATCH_ROWS": "7"}),
    "every bundle three times, tiny splits": Variant(
        ("--direct_num_workers=1", "--direct_runner_bundle_repeat=2"), {"ANCHORMIX_SPLIT_BYTES": "2000"}
    ),
    "removal in rounds, through run files": Variant(
        ("--direct_num_workers=2",), {"ANCHORMIX_REMOVAL_EDGES": "0", "ANCHORMIX_EXCHANGE": "files"}
    ),
    "removal in rounds, through the shuffle, every bundle three times": Variant(
        ("--direct_num_workers=1", "--direct_runner_bundle_repeat=2"),
        {"ANCHORMIX_REMOVAL_EDGES": "0", "ANCHORMIX_EXCHANGE": "shuffle"},
    ),
    "sources and globs in another order": Variant(config=reorder),
}


def run(config: Path, beam: tuple[str, ...]) -> None:
    driver.run(load_config(config), beam, True, [])


def variant_of(config: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The config again, with an index and an output of its own in `folder`."""
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    change(content)
    content |= {"output": str(folder / "mix"), "index": str(folder / "somewhere" / "index")}
    path = config.with_name(f"{folder.name}.yaml")
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def published(mix: Path) -> dict[str, bytes]:
    files = [path for pattern in SAME for path in mix.glob(pattern) if path.is_file()]
    return {str(path.relative_to(mix)): path.read_bytes() for path in files}


def carried(mix: Path) -> dict[str, tuple[int, ...]]:
    """What each exchange of a run carried, by run.json: partitions and packets, and bytes where no path is among them
    and nothing is compressed for a shuffle."""
    stages = json.loads((mix / "run.json").read_bytes())["stages"]
    assert [stage["stage"] for stage in stages] == ["index", "index", "edges", "fates", "plan", "mix", "verify"]
    assert all(stage["seconds"] > 0 and stage["peak_bytes"] > 1 << 20 for stage in stages)
    return {
        told["exchange"]: (told["partitions"], told["packets"])
        + ((told["bytes"], told["largest"]) if told["exchange"] in ("ByText", "ByBand", "ByPair", "ToVerify") else ())
        for stage in stages
        for told in stage["exchanges"]
        if told["exchange"] != "ByStratum"  # cut up differently
    }


def fates(mix: Path) -> list[str]:
    rows = [row for path in (mix / "fates").iterdir() for row in pq.read_table(path).to_pylist()]
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("same")
    truth = corpus.write_corpus(folder, verified=120, believed=30, unknown=90, synthetic=60, exact=20, near=30)
    press = truth.rows["press"]  # of these texts some have copies elsewhere, and some near-duplicates
    for name, rows in (("one", press[18:22]), ("other", press[40:44] + truth.rows["letters"][:2])):
        write_rows(folder / "reference" / f"{name}.parquet", rows, row_group=2)
    diversity = {"metrics": "full", "reference": ["reference/one.*", "reference/*.parquet"]}
    return corpus.minimal_config(folder, mix={"shards": 3, "caps": {"synthetic": 0.2}}, diversity=diversity)


@pytest.fixture(scope="module")
def expected(config: Path) -> Path:
    """The mix of two threads, which is what two cores run by default."""
    run(config, ("--direct_num_workers=2", "--direct_running_mode=multi_threading"))
    return config.parent / "out" / "mix"


def test_the_mix_is_worth_comparing(expected: Path) -> None:
    files = published(expected)
    assert len([name for name in files if name.startswith("data/")]) == 3
    assert any(name.startswith("custody/") for name in files)
    manifest = json.loads(files["manifest.json"])
    assert all(manifest["sources"][name]["documents_out"] for name in corpus.PROVENANCE)
    dropped = {json.loads(row)["fate"] for row in fates(expected)}
    assert dropped == {"exact_duplicate", "near_duplicate", "empty", "held_out"}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_no_way_to_run_shows_in_the_mix(
    name: str, config: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = VARIANTS[name]
    for key, value in variant.environment.items():
        monkeypatch.setenv(key, value)
    if not variant.of_its_own:  # many splits' cells, in many parts: seen in nothing
        monkeypatch.setattr(planning, "_SPLITS_A_SLICE", 1)
        monkeypatch.setattr(mixture, "_MOST_CELLS", 3)
    if "ANCHORMIX_SPLIT_BYTES" in variant.environment:  # a few bands at a time, and texts that meet elsewhere
        monkeypatch.setattr(dedup, "_MOST_SENT", 300)
        monkeypatch.setattr(layers, "_BYTES_PER_PARTITION", 4000)
        monkeypatch.setattr(layers, "_PARTITIONS_BY_TEXT", 9)
    changed = variant_of(config, tmp_path, variant.config)
    if variant.of_its_own:
        call = [sys.executable, "-m", "pipeline", "run", str(changed), "--quiet", "--json", "--", *variant.beam]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    else:
        run(changed, variant.beam)
    assert published(tmp_path / "mix") == published(expected)
    assert fates(tmp_path / "mix") == fates(expected)
    if not {"ANCHORMIX_SPLIT_BYTES", "ANCHORMIX_BATCH_ROWS", "ANCHORMIX_REMOVAL_EDGES"} & variant.environment.keys():
        assert len(found := carried(tmp_path / "mix")) >= 10
        assert found == carried(expected)
    if "ANCHORMIX_SPLIT_BYTES" in variant.environment:
        splits = list((tmp_path / "somewhere" / "index" / "facts").glob("*/*.parquet"))
        shards = list((config.parent / "shards").glob("*/*"))
        assert len(splits) > 4 * len(shards), "every row group was to be a split"


@pytest.mark.slow
def test_shards_that_share_a_writer_are_what_writers_of_their_own_write(
    config: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixture, "_LEAST_WRITERS", 1)
    run(variant_of(config, tmp_path, lambda config: None), ("--direct_num_workers=2",))
    assert published(tmp_path / "mix") == published(expected)


@pytest.mark.slow
def test_where_inputs_lie_and_when_they_were_written_does_not_show(
    config: Path, expected: Path, tmp_path: Path
) -> None:
    """So a mix can be made again from a restored backup, on another machine."""
    for name in ("shards", "keys", "custody", "reference"):
        shutil.copytree(config.parent / name, tmp_path / "moved" / name, copy_function=shutil.copyfile)
    for shard in (tmp_path / "moved" / "shards").glob("*/*"):
        os.utime(shard, (1, 1))
    moved = shutil.copyfile(config, tmp_path / "moved" / config.name)
    run(moved, ("--direct_num_workers=1",))
    assert published(tmp_path / "moved" / "out" / "mix") == published(expected)
    assert fates(tmp_path / "moved" / "out" / "mix") == fates(expected)


@pytest.mark.slow
def test_another_seed_is_another_mix(config: Path, expected: Path, tmp_path: Path) -> None:
    def reseed(content: dict[str, Any]) -> None:
        content["seed"] = 8

    run(variant_of(config, tmp_path, reseed), ("--direct_num_workers=1",))
    mine, theirs = published(tmp_path / "mix"), published(expected)
    assert mine["data/train-00000-of-00003.parquet"] != theirs["data/train-00000-of-00003.parquet"]
    assert mine["inputs.parquet"] == theirs["inputs.parquet"]
    assert fates(tmp_path / "mix") == fates(expected)
