"""Gates on metrics: how they are written, how they are judged, and that nothing is published beyond one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import minimal_config, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import PublishedMix, Told, anchormix

from pipeline import driver
from pipeline.config_gates import Gate
from pipeline.errors import GuardTripped
from pipeline.gates import judge_gates, unjudged_notes
from pipeline.publish import DIVERSITY_SCHEMA
from transforms.kernels import metric_names
from transforms.kernels.diversity import Accumulator, DiversityParams
from transforms.kernels.text import split_words

ROOT = Path(__file__).parents[2]

# The names of metrics


def measured(full: bool) -> set[str]:
    total = Accumulator.zero(DiversityParams(full=full))
    texts = pa.array(
        [f"a rose is a rose {number} and thorns are thorns " * 40 for number in range(60)], pa.large_string()
    )
    total.add(split_words(texts), texts=texts)
    return {metric.name for metric in total.values()}


def test_every_metric_that_is_measured_has_a_name_for_gates() -> None:
    removal = {"near_duplicate_rate"}
    assert measured(full=False) | removal == set(metric_names.CORE)
    assert measured(full=True) | removal | set(metric_names.HELD_OUT) == set(metric_names.METRICS)


def test_every_metric_that_gates_know_is_documented() -> None:
    told = set(re.findall(r"`([a-z0-9_]+)`", (ROOT / "docs/metrics.md").read_text(encoding="utf-8")))
    assert set(metric_names.METRICS) <= told


# Judging

SCOPES = {"source": ["a", "b"], "mix": ["all"], "output_shard": ["s0", "s1", "s2"], "generator": []}
VALUES = st.sampled_from([-1.0, 0.0, 0.1, 0.25, 0.3, 7.0])
ROWS = st.dictionaries(
    st.sampled_from([(s, n, m) for s, names in SCOPES.items() for n in names for m in ("types", "chao1", "tokens")]),
    VALUES,
)


@st.composite
def gates(draw: st.DrawFn) -> Gate:
    scope = draw(st.sampled_from(sorted(SCOPES)))
    name = draw(st.sampled_from([None, *SCOPES[scope], "nobody"]))
    bound = {draw(st.sampled_from(["below", "above"])): draw(VALUES)}
    return Gate(metric=draw(st.sampled_from(["types", "chao1"])), scope=scope, name=name, **bound)


def table_of(rows: dict[tuple[str, str, str], float]) -> pa.Table:
    listed = [(*key, value, 10, "exact") for key, value in sorted(rows.items())]
    columns = list(zip(*listed, strict=True)) or [()] * len(DIVERSITY_SCHEMA)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, DIVERSITY_SCHEMA, strict=True)], DIVERSITY_SCHEMA)


@given(rows=ROWS, asked=st.lists(gates(), max_size=4))
@settings(max_examples=300, deadline=None)
def test_verdicts_are_those_of_a_plain_comparison(rows: dict[tuple[str, str, str], float], asked: list[Gate]) -> None:
    error: GuardTripped | None = None
    try:
        told = [result.to_json() for result in judge_gates(asked, table_of(rows))]
    except GuardTripped as stopped:
        error, told = stopped, list(stopped.details["gates"])
    assert json.loads(json.dumps(told)) == told
    assert len(told) == len(asked)
    for gate, result in zip(asked, told, strict=True):
        mine = {
            name: value
            for (scope, name, metric), value in rows.items()
            if scope == gate.scope and metric == gate.metric and gate.name in (None, name)
        }
        beyond = {n: v for n, v in mine.items() if (v < gate.below if gate.below is not None else v > gate.above)}
        assert result["verdict"] == ("failed" if beyond else "passed" if mine else "not_judged")
        assert (result["judged"], result["failed"]) == (len(mine), len(beyond))
        worst = [row["value"] for row in result["worst"]]
        extreme = sorted(mine.values(), reverse=gate.below is None)
        assert worst == extreme[: len(beyond) or 1]
        members = {name for scope, name, _ in rows if scope == gate.scope}
        unknown = (members if gate.name is None else {gate.name}) - mine.keys()
        assert result["not_judged"] == (len(unknown) or (0 if mine else 1))
        assert (result["reason"] is None) == (result["not_judged"] == 0)
    failed = {result["key"] for result in told if result["verdict"] == "failed"}
    assert (error is not None) == bool(failed)
    if error is not None:
        assert (error.code, error.exit_code) == ("diversity_gate", 6)
        assert {result["key"] for result in told if f"{result['key']} asks for" in error.message} == failed


def test_a_bound_itself_is_allowed() -> None:
    rows = table_of({("mix", "all", "distinct_1"): 0.1})
    for bound in ("below", "above"):
        (result,) = judge_gates([Gate(metric="distinct_1", scope="mix", **{bound: 0.1})], rows)
        assert result.verdict == "passed"


def test_gates_of_the_mix_wait_for_the_mix() -> None:
    asked = [Gate(metric="types", scope="mix", below=1.0), Gate(metric="types", scope="source", below=1.0)]
    rows = table_of({("source", "press", "types"): 5.0})
    (result,) = judge_gates(asked, rows, inputs_only=True)
    assert (result.key, result.verdict) == ("diversity.fail_if[1]", "passed")
    first, _ = judge_gates(asked, rows)
    assert first.verdict == "not_judged"
    assert list(unjudged_notes([first])) == [
        "diversity.fail_if[0] (types of the mix: at least 1) was not judged: no mix has a types"
    ]


def test_many_offenders_are_told_in_part() -> None:
    rows = table_of({("output_shard", f"s{number:03}", "types"): float(number) for number in range(200)})
    with pytest.raises(GuardTripped) as stopped:
        judge_gates([Gate(metric="types", scope="output_shard", below=100.0)], rows)
    message = stopped.value.message
    assert "s000: 0 (n = 10, exact)" in message
    assert "and 90 more of 200" in message
    assert len(message.splitlines()) < 20


def test_names_of_offenders_are_safe_to_print() -> None:
    rows = table_of({("generator", "gpt\x1b[2J\n  exit 0", "types"): 1.0, ("generator", "b\nc", "tokens"): 1.0})
    with pytest.raises(GuardTripped) as stopped:
        judge_gates([Gate(metric="types", scope="generator", below=2.0)], rows)
    assert r"    gpt\x1b[2J\n  exit 0: 1 (n = 10, exact)" in stopped.value.message.splitlines()
    assert r"1 of 2 have no types: b\nc" in stopped.value.message
    (result,) = stopped.value.details["gates"]
    assert result["worst"][0]["name"] == "gpt\x1b[2J\n  exit 0"


# Commands


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with an index, so that `mix` alone can be run again and again."""
    folder = tmp_path_factory.mktemp("gates")
    write_corpus(folder, verified=30, believed=6, unknown=10, synthetic=6)
    assert anchormix("index", minimal_config(folder)).exit == 0
    return folder


def mixed(project: Path, gates: list[dict[str, Any]], *more: str, command: str = "mix") -> Told:
    shutil.rmtree(project / "out/mix", ignore_errors=True)
    return anchormix(command, minimal_config(project), "--set", f"diversity.fail_if={json.dumps(gates)}", *more)


def value_of(mix: PublishedMix, scope: str, name: str, metric: str) -> float:
    rows = pq.read_table(mix.folder / "diversity.parquet").to_pylist()
    return next(r["value"] for r in rows if (r["scope"], r["name"], r["metric"]) == (scope, name, metric))


def test_gates_that_hold_stand_in_the_manifest_and_on_the_page(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        {"metric": "distinct_1", "scope": "mix", "below": 0.001},
        {"metric": "near_duplicate_rate", "scope": "source", "name": "web", "above": 0.9},
        {"metric": "types", "scope": "generator", "name": "another", "below": 1},
        {"metric": "length_p50", "scope": "input_shard", "below": 1},
    ]
    told = mixed(project, asked)
    assert told.exit == 0, told.stderr
    mix = PublishedMix(project / "out/mix")
    gates = mix.manifest["gates"]
    assert told.line["gates"] == gates
    assert [gate["verdict"] for gate in gates] == ["passed", "passed", "not_judged", "passed"]
    assert gates[0]["worst"][0]["value"] == value_of(mix, "mix", "all", "distinct_1")
    assert gates[3]["judged"] == 6
    assert any("generator another" in note for note in mix.manifest["notes"])
    page = (mix.folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>Gates</h2>" in page
    assert "not judged: there is no types of generator another" in page
    monkeypatch.setattr(driver, "prepare_baseline", None)  # what is published is not measured again
    again = anchormix("mix", minimal_config(project), "--set", f"diversity.fail_if={json.dumps(asked)}")
    assert (again.line["status"], again.line["gates"]) == ("unchanged", gates)


def test_measuring_the_input_beforehand_changes_no_number(project: Path) -> None:
    tables = []
    for asked in ([], [{"metric": "types", "scope": "corpus", "below": 1}]):
        assert mixed(project, asked).exit == 0
        tables.append(pq.read_table(project / "out/mix/diversity.parquet"))
    assert tables[0].equals(tables[1])


def test_a_gate_on_the_mix_publishes_nothing(project: Path) -> None:
    told = mixed(project, [{"metric": "types", "scope": "provenance", "below": 1e9}], command="run")
    assert (told.exit, told.code) == (6, "diversity_gate")
    assert {row["name"] for row in told.details["gates"][0]["worst"]} >= {"human_verified", "synthetic"}
    assert "diversity.fail_if[0] asks for types of each provenance: at least 1000000000" in told.message
    assert not (project / "out/mix").exists()
    assert not list((project / "out").glob(".mix*"))


def test_a_gate_on_the_input_comes_before_the_plan(project: Path) -> None:
    beyond = [{"metric": "documents", "scope": "source", "name": "bot", "above": 5}]
    infeasible = ("--set", "mix.floors.human_verified=1", "--set", "mix.size=1e15")
    assert mixed(project, [], *infeasible).exit == 3
    told = mixed(project, beyond, *infeasible)
    assert (told.exit, told.code) == (6, "diversity_gate")
    of_mix = mixed(project, [{"metric": "types", "scope": "mix", "below": 1e9}], *infeasible)
    assert of_mix.exit == 3, "there is no mix that could be judged"


# Configs

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"metric": "tipes", "scope": "mix", "below": 1}, "diversity.fail_if[0].metric", 'did you mean "types"'),
    ({"metric": "types", "scope": "mixes", "below": 1}, "diversity.fail_if[0].scope", 'did you mean "mix"'),
    ({"metric": "types", "scope": "mix"}, "diversity.fail_if[0]", "neither of below and above"),
    ({"metric": "types", "scope": "mix", "below": 1, "above": 2}, "diversity.fail_if[0]", "both of below and above"),
    ({"metric": "types", "scope": "mix", "below": "much"}, "diversity.fail_if[0].below", "valid is a number"),
    ({"metric": "types", "scope": "mix", "below": "1e999"}, "diversity.fail_if[0].below", "valid is a number"),
    ({"metric": "mtld", "scope": "mix", "below": 1}, "diversity.fail_if[0].metric", "diversity.metrics: full"),
    ({"metric": "near_duplicate_rate", "scope": "mix", "above": 1}, "diversity.fail_if[0].scope", "input_shard"),
    ({"metric": "types", "scope": "source", "name": "pres", "below": 1}, "diversity.fail_if[0].name", '"press"'),
    ({"metric": "types", "scope": "mix", "name": "total", "below": 1}, "diversity.fail_if[0].name", "there are: all"),
    ({"metric": "types", "scope": "provenance", "name": "humans", "below": 1}, "diversity.fail_if[0].name", '"human"'),
    (
        {"metric": "types", "scope": "input_shard", "name": "x/a", "below": 1},
        "diversity.fail_if[0].name",
        "SOURCE/SHARD",
    ),
    (
        {"metric": "types", "scope": "input_shard", "name": "press/press-00.parquet", "below": 1},
        "diversity.fail_if[0].name",
        'did you mean "press/',
    ),
    ({"metric": "types", "scope": "reference", "below": 1}, "diversity.fail_if[0].scope", "diversity.reference"),
    ({"metric": "types", "scope": "mix", "under": 1}, "diversity.fail_if[0].under", "known here"),
    ({"scope": "mix", "below": 1}, "diversity.fail_if[0].metric", "required"),
]


@pytest.mark.parametrize(("gate", "key", "says"), WRONG, ids=[f"{key} {says}" for _, key, says in WRONG])
def test_what_is_no_gate_is_refused(project: Path, gate: dict[str, Any], key: str, says: str) -> None:
    told = anchormix("check", minimal_config(project), "--set", f"diversity.fail_if=[{json.dumps(gate)}]")
    assert told.exit == 2
    assert told.details["key"] == key
    assert says in told.message


def test_a_gate_on_a_shard_that_is_not_there_stops_every_command(project: Path) -> None:
    gate = {"metric": "types", "scope": "input_shard", "name": "press/none.parquet", "below": 1}
    for command in ("index", "plan", "mix"):
        told = mixed(project, [gate], command=command)
        assert (told.exit, told.details["key"]) == (2, "diversity.fail_if[0].name")
        assert "no input shard has this name, so the gate would never be judged" in told.message


def test_gates_are_addressed_by_position(project: Path) -> None:
    gate = {"metric": "types", "scope": "source", "name": "press", "below": 1}
    config = minimal_config(project, diversity={"fail_if": [gate, {**gate, "below": 2}]})
    told = anchormix("check", config, "--set", "diversity.fail_if.press.below=x")
    assert "items of this list go by their number, from 0 to 1" in told.message
    told = anchormix("check", config, "--set", "diversity.fail_if.1.below=x")
    assert told.details["key"] == "diversity.fail_if[1].below"
    assert anchormix("check", config).exit == 0


def test_a_full_metric_is_a_gate_where_it_is_measured(project: Path) -> None:
    gate = {"metric": "mtld", "scope": "mix", "below": 1e-3}
    config = minimal_config(project, diversity={"metrics": "full", "fail_if": [gate]})
    assert anchormix("check", config).exit == 0
