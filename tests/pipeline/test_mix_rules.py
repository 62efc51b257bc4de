"""Rules and proportions through the command line: what a config asks is what the published mix holds."""

from __future__ import annotations

import json
import os
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from corpus import minimal_config, write_corpus
from runs import PublishedMix, Told, anchormix

from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.weights import learned_weights


class Project:
    def __init__(self, folder: Path) -> None:
        write_corpus(folder, seed=3, verified=40, believed=30, unknown=120, synthetic=30, exact=0, near=0)
        self.folder, self.config = folder, minimal_config(folder)

    def run(self, command: str, name: str, *options: str, **mix: Any) -> Told:
        config = yaml.safe_load(self.config.read_text())
        config["mix"] |= mix
        config["output"] = f"out/{name}"
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return anchormix(command, path, *options)

    def mix(self, name: str, **mix: Any) -> PublishedMix:
        told = self.run("run", name, **mix)
        assert told.exit == 0, told.stderr
        return PublishedMix(self.folder / "out" / name)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("rules"))


def tokens_by(mix: PublishedMix, column: str) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for row in mix.rows:
        found[row[column]] += row["n_tokens"]
    return found


def floors(otherwise: str) -> list[dict[str, Any]]:
    """No language but those of the press has verified text; every source but the press has none at all."""
    return [
        {"of": "human_verified", "share": 0.2},
        {"of": "human_verified", "share": 0.1, "by": "source", "otherwise": otherwise},
    ]


def test_a_group_that_cannot_hold_its_floor_fails_is_left_out_or_is_let_off(project: Project) -> None:
    failed = project.run("run", "failed", floors=floors("fail"))
    assert failed.exit == 3
    assert "otherwise: drop" in failed.message
    dropped = project.mix("dropped", floors=floors("drop"))
    assert set(tokens_by(dropped, "source")) == {"press"}
    assert any("in source" in note and "web" in note and "left out" in note for note in dropped.manifest["notes"])
    assert dropped.manifest["sources"]["web"]["dropped"]["not_selected"] > 0
    exempt = project.mix("exempt", floors=floors("exempt"))
    assert set(tokens_by(exempt, "source")) == {"press", "web", "letters", "bot"}
    assert exempt.manifest["exempt"] == {"human_verified by source": ["bot", "letters", "web"]}
    told = anchormix("verify", exempt.folder)
    assert told.exit == 0
    assert any("let off" in line for line in told.line["not_checked"])


def test_a_rule_may_group_by_a_column_that_some_sources_do_not_keep(project: Project) -> None:
    kept = project.folder / "kept.yaml"
    config = yaml.safe_load(project.config.read_text())
    for source in config["sources"]:
        if source["name"] == "press":
            source["keep"] = {"topic": "language"}
    rule = {"of": "human_verified", "share": 0.3, "by": "topic", "otherwise": "drop"}
    config |= {"output": "out/kept", "index": "out/kept-index"}
    config["mix"]["floors"] = [{"of": "human_verified", "share": 0.2}, rule]
    kept.write_text(yaml.safe_dump(config))
    told = anchormix("run", kept)
    assert told.exit == 0, told.stderr
    mix = PublishedMix(project.folder / "out" / "kept")
    assert set(tokens_by(mix, "source")) == {"press"}
    assert {"left_out"} <= {rule["kind"] for rule in mix.manifest["binding"]}
    left = anchormix("explain", mix.folder, "--doc-id", "bot-1")
    (entry,) = left.line["documents"]
    assert "left out (otherwise: drop)" in entry["rules"][0]


def test_a_share_and_an_amount_of_the_same_text_both_hold_and_are_both_told(project: Project) -> None:
    rules = [{"of": "human_verified", "share": 0.3}, {"of": "human_verified", "amount": 500}]
    mix = project.mix("both", floors=rules)
    achieved = mix.manifest["achieved"]
    assert set(achieved) == {"human_verified", "human_verified (amount)"}
    assert achieved["human_verified (amount)"]["overall"]["numerator"] >= 500


def test_learned_weights_decide_how_a_size_is_divided(project: Project) -> None:
    wanted = {"press": 0.4, "letters": 0.3, "web": 0.2, "bot": 0.1}
    (project.folder / "weights.json").write_text(json.dumps(wanted))
    mix = project.mix("learned", floors={"human_verified": 0.1}, size=900, weights="weights.json")
    found = tokens_by(mix, "source")
    total = found.total()
    for source, share in wanted.items():
        assert found[source] / total == pytest.approx(share, abs=0.12)
    assert project.run("check", "learned", weights="weights.json").exit == 0
    assert any("bot 1/10, letters 3/10, press 2/5, web 1/5" in note for note in mix.manifest["notes"])


def test_a_temperature_lifts_small_sources(project: Project) -> None:
    def spread(name: str, temperature: float) -> float:
        mix = project.mix(name, floors={"human_verified": 0}, size=1500, temperature=temperature)
        found = tokens_by(mix, "source")
        return max(found.values()) / found.total() - min(found.values()) / found.total()

    assert spread("warm", 100) < 0.6 * spread("plain", 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"press": 1, "letters": 1, "web": 1}', "no weight for bot"),
        ('{"press": 1, "letters": 1, "web": 1, "bot": 1, "pres": 2}', 'did you mean "press"'),
        ('{"press": 0, "letters": 0, "web": 0, "bot": 0}', "every weight is 0"),
        ('{"press": -1, "letters": 1, "web": 1, "bot": 1}', '"press" is -1'),
        ('{"press": "1", "letters": 1, "web": 1, "bot": 1}', '"press" is "1"'),
        ('{"press": true, "letters": 1, "web": 1, "bot": 1}', '"press" is true'),
        ('{"press": NaN, "letters": 1, "web": 1, "bot": 1}', "NaN is no weight"),
        ('{"press": 1e999999999, "letters": 1, "web": 1, "bot": 1}', '"press" is'),
        ('{"press": 1e-31, "letters": 1, "web": 1, "bot": 1}', '"press" is'),
        ('{"press": 1, "press": 2}', '"press" stands twice'),
        ("[1, 2]", "it holds a list"),
        ("press: 1", "not JSON"),
        (None, "cannot be read"),
    ],
)
def test_weights_that_cannot_be_used_are_diagnosed(project: Project, content: str | None, says: str) -> None:
    path = project.folder / "bad.json"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=r"mix\.weights") as caught:
        learned_weights(load_config(project.config, ["mix.weights=bad.json"], {}))
    assert says in caught.value.message
    assert '{"press": 0.3, "web": 0.7}' in caught.value.message


def test_weights_are_exact(project: Project) -> None:
    (project.folder / "exact.json").write_text('{"press": 0.1, "letters": 3e-7, "web": 2, "bot": 0}')
    found = learned_weights(load_config(project.config, ["mix.weights=exact.json"], {}))
    assert found == {"press": Fraction(1, 10), "letters": Fraction(3, 10**7), "web": 2, "bot": 0}


# Plans


@pytest.fixture(scope="module")
def indexed(project: Project) -> Project:
    assert project.run("index", "indexed").exit == 0
    return project


def test_a_plan_is_what_the_mix_then_holds(indexed: Project) -> None:
    asked: dict[str, Any] = {"floors": {"human_verified": 0.5}, "epochs": {"human_verified": 2}, "shards": 3}
    plan = indexed.run("plan", "planned", **asked).line["plan"]
    mix = indexed.mix("planned", **asked)
    total = sum(row["n_tokens"] for row in mix.rows)
    verified = [row for row in mix.rows if row["provenance"] == "human_verified"]
    once = sum(row["n_tokens"] for row in mix.rows if row["copy"] == 0)
    assert plan["size"] == total
    assert plan["verified"]["share"] == [sum(row["n_tokens"] for row in verified), total]
    assert plan["verified"]["unique"] == [sum(r["n_tokens"] for r in verified if r["copy"] == 0), once]
    unique, effective = Fraction(*plan["verified"]["unique"]), plan["verified"]["effective"]
    assert unique < effective < Fraction(*plan["verified"]["share"])
    assert [told["row_groups"] for told in plan["layout"]] == [len(shard) for shard in mix.shards]
    assert [told["longest"] for told in plan["layout"]] == [max(map(len, shard)) for shard in mix.shards]
    for stratum in plan["strata"]:
        rows = [r for r in mix.rows if (r["source"], r["provenance"]) == (stratum["source"], stratum["provenance"])]
        assert sum(row["n_tokens"] for row in rows) == stratum["taken"]["tokens"]


def test_a_sweep_says_of_every_ratio_what_a_plan_would(indexed: Project) -> None:
    told = indexed.run("plan", "swept", "--sweep", "0.2,1/2,0.9", "--sweep", "caps.synthetic=0:0.2:0.1")
    assert told.exit == 0
    rows = told.line["sweep"]
    assert [tuple(row["rules"].values()) for row in rows] == [
        (floor, cap) for floor in ("1/5", "1/2", "9/10") for cap in ("0", "1/10", "1/5")
    ]
    for row in rows[::4]:
        floor, cap = row["rules"]["floors.human_verified"], row["rules"]["caps.synthetic"]
        plan = indexed.run("plan", "one", floors={"human_verified": floor}, caps={"synthetic": cap}).line["plan"]
        assert (row["size"], row["verified"]) == (plan["size"], plan["verified"])
        assert row["binding"] == [rule["name"] for rule in plan["rules"] if rule["binds"]]


def test_a_sweep_tells_ratios_out_of_reach_apart(indexed: Project) -> None:
    size = indexed.run("plan", "all", floors={"human_verified": 0}).line["plan"]["size"]
    rows = indexed.run("plan", "sized", "--sweep", "0.1,0.9", size=size).line["sweep"]
    assert [row["feasible"] for row in rows] == [True, False]
    assert 0 < rows[1]["largest"] < size
    assert "out of reach" in rows[1]["reason"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("2", "no share from 0 to 1"),
        ("0.1:0.9", "the range"),
        ("0.9:0.1:0.1", "no steps"),
        ("0:1:0", "no steps"),
        ("0:1:0.0000001", "more than 1,000"),
        ("floors.humans=0.1", 'did you mean "human"'),
        ("size=0.1", "no rule"),
        ("1e-99999999", "no share"),
        ("", "no share"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_diagnosed(indexed: Project, option: str, says: str) -> None:
    told = indexed.run("plan", "bad", "--sweep", option)
    assert told.exit == 2
    assert says in told.message
    assert "0.1:0.9:0.1" in told.message


def test_a_strict_layout_is_refused_before_any_text_is_read(indexed: Project) -> None:
    asked: dict[str, Any] = {"floors": {"human_verified": 0.5}, "size": "max", "shards": 1, "row_group": 1}
    grown = indexed.mix("grown", **asked)
    longest = max(len(group) for shard in grown.shards for group in shard)
    assert longest > 1
    inputs = sorted((indexed.folder / "shards").rglob("*.*"))
    stamps = {path: path.stat() for path in inputs}
    contents = {path: path.read_bytes() for path in inputs}
    try:
        for path in inputs:  # same size and time, other bytes: whoever read them would stop with exit 5
            path.write_bytes(bytes(len(contents[path])))
            os.utime(path, ns=(stamps[path].st_atime_ns, stamps[path].st_mtime_ns))
        for command in ("plan", "mix"):
            refused = indexed.run(command, "strict", **asked, layout="strict")
            assert (refused.exit, refused.code) == (3, "row_group_grown")
            assert refused.details["refused"][0]["found"] == longest
    finally:
        for path in inputs:
            path.write_bytes(contents[path])
            os.utime(path, ns=(stamps[path].st_atime_ns, stamps[path].st_mtime_ns))
    assert not (indexed.folder / "out" / "strict").exists()
    allowed = indexed.mix("allowed", **{**asked, "row_group": 1000, "layout": "strict"})
    assert max(len(group) for shard in allowed.shards for group in shard) <= 1000
