"""Diversity as it is published: every scope equals one pass over its texts, core and full."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import minimal_config, write_corpus
from runs import anchormix

from transforms.diversity import AddAccumulators
from transforms.kernels.diversity import Accumulator, DiversityParams
from transforms.kernels.text import split_words
from transforms.sidecars import SplitDiversity

Rows = dict[tuple[str, str], dict[str, tuple[float, int, str]]]


@pytest.fixture(scope="module", params=["core", "full"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[DiversityParams, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    write_corpus(folder, verified=60, unknown=40, synthetic=20, exact=10, near=12, empty=4)
    config = minimal_config(folder, diversity={"metrics": request.param}, mix={"caps": {"synthetic": 0.3}})
    told = anchormix("run", config)
    assert told.exit == 0, told.stderr
    return DiversityParams(full=request.param == "full"), Path(told.line["output"])


def written(out: Path) -> Rows:
    rows: Rows = defaultdict(dict)
    for row in pq.read_table(out / "diversity.parquet").to_pylist():
        scope = rows[row["scope"], row["name"]]
        assert row["metric"] not in scope
        scope[row["metric"]] = (row["value"], row["n"], row["method"])
    return dict(rows)


def measured(texts: Iterable[str], params: DiversityParams) -> dict[str, tuple[float, int, str]]:
    accumulator = Accumulator.zero(params)
    column = pa.array(list(texts), pa.string())
    accumulator.add(split_words(column), None, column)
    return {name: (value, n, method) for name, value, n, method in accumulator.values()}


def test_the_mix_is_measured_as_it_is_written(published: tuple[DiversityParams, Path]) -> None:
    params, out = published
    rows = written(out)
    expected: dict[tuple[str, str], list[str]] = defaultdict(list)
    for shard in sorted((out / "data").iterdir()):
        for row in pq.read_table(shard, columns=["text", "provenance", "generator"]).to_pylist():
            scopes = [("mix", "all"), ("output_shard", shard.name), ("provenance", row["provenance"])]
            for scope in [*scopes, *([("generator", row["generator"])] if row["generator"] else [])]:
                expected[scope].append(row["text"])
    of_the_mix = {scope for scope in rows if scope[0] in ("mix", "output_shard", "provenance", "generator")}
    assert of_the_mix == expected.keys()
    assert len(of_the_mix) > 5
    for scope, texts in expected.items():
        assert rows[scope] == measured(texts, params), scope


def test_what_was_read_is_measured_before_anything_is_removed(published: tuple[DiversityParams, Path]) -> None:
    params, out = published
    rows = written(out)
    near = Counter(
        f"{row['source']}/{row['shard']}"
        for path in (out / "fates").iterdir()
        for row in pq.read_table(path).to_pylist()
        if row["fate"] == "near_duplicate"
    )
    assert near
    total: Counter[str] = Counter()
    for shard in pq.read_table(out / "inputs.parquet").to_pylist():
        metrics = rows["input_shard", f"{shard['source']}/{shard['shard']}"]
        name = f"{shard['source']}/{shard['shard']}"
        value, n, method = metrics["near_duplicate_rate"]
        assert (n, method) == (metrics["documents"][1], "exact")
        assert value == pytest.approx(near[name] / n, rel=1e-9)
        total.update(documents=n, removed=near[name], tokens=int(metrics["tokens"][0]))
        assert ("vendi_1" in metrics) == ("mattr_50" in metrics) == params.full
    corpus = rows["corpus", "all"]
    assert corpus["documents"][0] == total["documents"]
    assert corpus["tokens"][0] == total["tokens"]
    assert corpus["near_duplicate_rate"][0] == pytest.approx(total["removed"] / total["documents"], rel=1e-9)
    for scope, metrics in rows.items():
        assert ("near_duplicate_rate" in metrics) == (scope[0] in ("input_shard", "source", "corpus")), scope


@pytest.mark.parametrize("full", [False, True])
def test_the_combiner_gives_one_answer_however_it_is_called(full: bool) -> None:
    params = DiversityParams(words=64, ngrams=32, bins=16, texts=512, full=full)
    rng = random.Random(4)
    texts = [" ".join(f"w{int(rng.paretovariate(0.6))}" for _ in range(rng.randint(0, 40))) for _ in range(60)]
    parts = []
    for start in range(0, 60, 6):
        part = Accumulator.zero(params)
        column = pa.array(texts[start : start + 6], pa.string())
        part.add(split_words(column), None, column)
        parts.append(part.to_bytes())
    expected = Accumulator.zero(params)
    column = pa.array(texts, pa.string())
    expected.add(split_words(column), None, column)

    combine = AddAccumulators()
    in_turn: Any = combine.create_accumulator()
    for part in parts:
        in_turn = combine.add_input(in_turn, part)
    groups: list[Any] = []
    for start, stop in ((0, 1), (1, 7), (7, 7), (7, 10)):
        held: Any = combine.create_accumulator()
        for part in parts[start:stop]:
            held = combine.add_input(held, part)
        groups.append(combine.compact(held) if stop - start > 1 else held)
    groups = [group for group in groups if group != []]
    merged = combine.merge_accumulators(groups[::-1])
    for total in (in_turn, merged, combine.compact(merged)):
        assert combine.extract_output(total) == expected.to_bytes()


def test_a_column_of_names_does_not_cost_an_accumulator_each() -> None:
    for params in (DiversityParams(), DiversityParams(full=True)):
        statistics = SplitDiversity(params)
        texts = pa.array([f"text number {number}" for number in range(400)])
        names = pa.array([f"name-{number}" for number in range(400)])
        statistics.add(texts, split_words(texts), pa.array([True] * 400).to_numpy(zero_copy_only=False), names)
        assert len(statistics.parts) == (87 if params.full else 225)
        assert statistics.parts[SplitDiversity.OTHERS]._lengths.documents == 400 - len(statistics.parts) + 1
