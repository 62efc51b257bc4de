"""The model of docs/scale.md: what it says of a size that it was not fitted to is what a run of that size does."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from runs import ROOT, anchormix

from pipeline import layers


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look up their types
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    return script("scale_model")


def test_counters_of_a_larger_run_are_those_predicted_from_smaller_ones(
    scale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = script("make_corpus")
    monkeypatch.setattr(corpus, "ROW_GROUP_BYTES", 60_000)
    monkeypatch.setattr(corpus, "make_lexicon", functools.cache(corpus.make_lexicon))
    monkeypatch.setattr(layers, "_BYTES_PER_PARTITION", 50_000)  # partitions grow, as they do from half a GB on
    monkeypatch.setenv("ANCHORMIX_SPLIT_BYTES", "1")
    runs = []
    for megabytes in (1, 2, 4):
        folder = tmp_path / str(megabytes)
        corpus.write_corpus(folder / "corpus", megabytes, 2, 7, 1)
        config = folder / "corpus" / "bench.yaml"
        corpus.attest_human(folder / "corpus")
        config.write_text(corpus.CONFIG.format(seed=7), encoding="utf-8")
        places = ("--set", f"index={folder / 'index'}", "--set", f"output={folder / 'mix'}")
        told = anchormix("run", config, *places, "--set", "mix.shards=4")
        assert told.exit == 0, told.stderr
        runs.append(scale.read_run(folder, 1))
    assert runs[2].size.partitions > 3 * runs[0].size.partitions
    assert runs[2].size.splits > 3 * runs[0].size.splits
    told = {name: (predicted, found) for name, predicted, found in scale.checks(scale.fit(runs[:2]), runs[2])}
    carried = {name: told[f"`{name}`: bytes"] for name in scale.SHAPES}
    predicted, found = (sum(column) for column in zip(*carried.values(), strict=True))
    assert predicted == pytest.approx(found, rel=0.1)
    assert told["edges"][0] == pytest.approx(told["edges"][1], rel=0.1)
    heavy = [name for name, (_, size) in carried.items() if size > found / 20]
    assert set(heavy) == {"ByText", "ByBand", "ToVerify", "ByWriter"}
    for name in heavy:
        assert carried[name][0] == pytest.approx(carried[name][1], rel=0.2), name
        packets = told[f"`{name}`: packets"]
        assert packets[0] == pytest.approx(packets[1], rel=0.3), name


def test_amounts_are_told_in_three_digits(scale: ModuleType) -> None:
    assert [scale.human(value) for value in (7, 999.4, 1000, 4.5e9, 1e13, 2.5e18)] == [
        *("7 B", "999 B", "1 kB", "4.5 GB", "10 TB", "2,500 PB")
    ]
    assert [scale.count(value) for value in (12.0, 149_012, 2.5e9, 4e12)] == ["12", "149,012", "2.5 billion", "4e12"]


@pytest.mark.parametrize(("records", "cells", "expected"), [(0, 10, 0), (1, 1e9, 1), (1e9, 10, 10), (5, 0, 0)])
def test_packets_are_as_many_as_records_until_every_pair_has_one(
    scale: ModuleType, records: float, cells: float, expected: float
) -> None:
    assert scale.filled(records, cells) == pytest.approx(expected)
