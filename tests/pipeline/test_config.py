"""The config: what it accepts, how it refuses, and which digests each key belongs to."""

import copy
import json
import pickle
import subprocess
import sys
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import (
    AUTO,
    MIX_COLUMNS,
    Config,
    Join,
    Kept,
    Messages,
    Portion,
    Rule,
    Tokens,
    config_schema,
    load_config,
)
from pipeline.config_blocks import Block
from pipeline.errors import UsageError
from transforms.kernels.schemas import Provenance, mix_schema

ROOT = Path(__file__).parents[2]
MINIMAL: dict[str, Any] = {
    "version": 1,
    "output": "out/mix",
    "sources": [{"name": "press", "files": ["data/*.parquet"]}],
    "mix": {"floors": {"human_verified": 0.5}},
}
COMPLETE = """
version: 1
seed: 7
as_of: 2026-11-20
output: out/mix
index: out/index
tokens: {counter: words}
max_bad_records: 0
sources:
  - name: press
    files: ["data/press/*.parquet", "data/more/*.csv.gz"]
    optional: false
    columns: {text: text, id: id, language: lang, license: null, url: url, date: published, generator: null, label: l}
    labels: {"1": human, "0": synthetic}
    declare: human
    keep: [title, meta.url]
    license: CC-BY-4.0
    priority: 0
    custody: {method: licensed_source, manifest: data/press/custody.dsse.json, on_mismatch: fail}
  - name: rephrased
    files: ["data/rephrased/*.jsonl.zst"]
    columns: {text: {messages: conversation, count: [assistant]}}
    synthetic: {generator: mixtral-8x7b, kind: rephrase}
trust:
  keys:
    - {name: desk, public_key: keys/press.pub, sources: [press], methods: [licensed_source], valid_from: 2020-01-01,
       valid_until: 2027-01-01}
  revoked: []
evidence: {known_synthetic: ["data/known/*.parquet"], artefacts: true, detectors: ["score"], max_contested: 0.01}
exclude:
  - {doc_ids: [a, b], reason: asked}
dedup:
  threshold: 0.8
  permutations: 128
  shingle: 5
  against: [{index: ../old.index, keep: best}]
  wipe_out: 0.9
diversity:
  reference: ["data/reference/*.parquet"]
  metrics: full
  fail_if: [{metric: distinct_3, scope: source, name: press, below: 0.5}, {metric: zipf, scope: mix, above: 1e3}]
mix:
  measure: tokens
  size: 3e11
  floors: {human_verified: 0.5, human_any: "2/3"}
  caps: [{of: synthetic, share: 0.15, by: generator, otherwise: drop}, {of: unknown, amount: 1_000}]
  sources: {press: {weight: 2, max_share: 0.4}}
  epochs: {human_verified: 2}
  if_short: fail
  layout: grow
  temperature: 0.7
  weights: weights.json
  parent: out/earlier
  shards: auto
  shard_bytes: 256MiB
  row_group: 8192
sign: {key: keys/mix.key}
"""


class Folder:
    """A folder to write configs into."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, text: str | dict[str, Any], *overrides: str, later: bool = False, **environ: str) -> Config:
        file = self.path / "mix.yaml"
        file.write_text(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
        return load_config(file, overrides, environ, allow_later=later)

    def refuse(self, text: str | dict[str, Any], *overrides: str, **environ: str) -> UsageError:
        with pytest.raises(UsageError) as caught:
            self.load(text, *overrides, **environ)
        assert caught.value.exit_code == 2
        assert json.dumps(dict(caught.value.details))
        return caught.value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("config"))


def changed(path: str, value: Any) -> dict[str, Any]:
    """MINIMAL with one value replaced; items of lists are addressed by position."""
    tree = copy.deepcopy(MINIMAL)
    *way, last = path.split(".")
    node: Any = tree
    for step in way:
        node = node[int(step)] if isinstance(node, list) else node.setdefault(step, {})
    node[last] = value
    return tree


# What is accepted


def test_minimal_config_has_every_default(folder: Folder) -> None:
    config = folder.load(MINIMAL)
    assert config.output == str(folder.path / "out/mix")
    assert config.index == str(folder.path / "mix.index")
    assert config.tokens == Tokens(counter="words")
    assert config.sources[0].columns.text is AUTO
    assert config.sources[0].columns.label is AUTO
    assert config.sources[0].declare == "unknown"
    assert config.mix.floors == (Rule(of="human_verified", share=Fraction(1, 2)),)
    assert config.mix.human_floor == Fraction(1, 2)
    assert config.mix.epochs == {label.label: 1 for label in Provenance}
    assert config.mix.shard_bytes == 256 * 2**20
    assert config.dedup.threshold == Fraction(4, 5)


def test_complete_config_is_parsed_to_its_types(folder: Folder) -> None:
    config = folder.load(COMPLETE, later=True)
    press, rephrased = config.sources
    assert config.as_of == date(2026, 11, 20)
    assert press.columns.license is None
    assert press.keep == (Kept("title", "title"), Kept("url", "meta.url"))
    assert press.custody is not None
    assert press.custody.manifest == (str(folder.path / "data/press/custody.dsse.json"),)
    assert rephrased.columns.text == Messages(messages="conversation", count=("assistant",))
    assert config.trust.keys[0].valid_until == date(2027, 1, 1)
    assert config.mix.size == 300_000_000_000
    assert config.mix.caps[1] == Rule(of="unknown", amount=1000)
    assert config.mix.sources == {"press": Portion(weight=Fraction(2), max_share=Fraction(2, 5))}
    assert config.kept_columns == ("title", "url")
    assert config.source("rephrased") is rephrased


def test_config_travels_to_workers(folder: Folder) -> None:
    config = folder.load(COMPLETE, later=True)
    assert pickle.loads(pickle.dumps(config)) == config
    assert pickle.loads(pickle.dumps(folder.load(MINIMAL))).sources[0].columns.text is AUTO


def test_yaml_1_2_scalars(folder: Folder) -> None:
    text = COMPLETE.replace('{"1": human, "0": synthetic}', "{1: human, no: synthetic, 01: unknown}")
    text = text.replace("license: CC-BY-4.0", "license: no").replace("doc_ids: [a, b]", "doc_ids: [007, 3e11, off]")
    config = folder.load(text, later=True)
    assert config.sources[0].labels == {"1": "human", "no": "synthetic", "01": "unknown"}
    assert config.sources[0].license == "no"
    assert config.exclude[0].doc_ids == ("007", "3e11", "off")


def test_schema_names_agree_with_the_tables() -> None:
    assert tuple(mix_schema(()).names) == MIX_COLUMNS


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("0.1", Fraction(1, 10)),
        ("0.333333333", Fraction(333333333, 10**9)),
        ('"1/3"', Fraction(1, 3)),
        ("1/3", Fraction(1, 3)),
        ("0", Fraction(0)),
        ("1", Fraction(1)),
        ("1e-3", Fraction(1, 1000)),
        (".5", Fraction(1, 2)),
        ('"0.25"', Fraction(1, 4)),
    ],
)
def test_shares_are_exact(folder: Folder, text: str, share: Fraction) -> None:
    assert folder.load(MINIMAL, f"mix.floors.human_verified={text}").mix.human_floor == share


@given(numerator=st.integers(0, 10**9), digits=st.integers(0, 9))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_decimal_share_survives_text_and_resolving(folder: Folder, numerator: int, digits: int) -> None:
    share = Fraction(numerator % (10**digits + 1), 10**digits)
    text = f"{share.numerator * (10**digits // share.denominator) / 10**digits:.{digits}f}"
    config = folder.load(MINIMAL, f"mix.floors.human_verified={text}")
    assert config.mix.human_floor == share
    assert folder.load(yaml.safe_dump(config.resolved())) == config


@pytest.mark.parametrize("text", ["1.5", "-0.1", "0.1234567890", "1/0", "3/2", "50%", "half", "true", "[1]", ".nan"])
def test_what_is_no_share_is_refused(folder: Folder, text: str) -> None:
    error = folder.refuse(MINIMAL, f"mix.floors.human_verified={text}")
    assert error.code == "bad_value"
    assert error.details["key"] == "mix.floors.human_verified"
    assert error.message.startswith("mix.floors.human_verified = ")
    assert "share" in error.message


def test_a_floor_above_one_is_explained(folder: Folder) -> None:
    assert "amount" in folder.refuse(MINIMAL, "mix.floors.human_verified=50").message


@pytest.mark.parametrize(
    ("text", "amount"),
    [("250000", 250_000), ("1_000", 1_000), ("3e11", 3 * 10**11), ("1.5e3", 1500), ('"42"', 42)],
)
def test_amounts(folder: Folder, text: str, amount: int) -> None:
    assert folder.load(MINIMAL, f"mix.size={text}").mix.size == amount


@pytest.mark.parametrize(
    ("text", "amount"), [("256MiB", 256 << 20), ("1GB", 10**9), ("1.5KiB", 1536), ("10B", 10), ("7 tib", 7 << 40)]
)
def test_amounts_of_bytes(folder: Folder, text: str, amount: int) -> None:
    assert folder.load(MINIMAL, f"mix.shard_bytes={text}").mix.shard_bytes == amount
    assert folder.load(MINIMAL, f"mix.size={text}", "mix.measure=bytes").mix.size == amount
    rules = folder.load(MINIMAL, f"mix.caps=[{{of: human, amount: {text}}}]", "mix.measure=bytes").mix.caps
    assert rules[0].amount == amount
    assert "mix.measure: bytes" in folder.refuse(MINIMAL, f"mix.size={text}").message


def test_an_amount_of_nothing_is_no_size_but_a_rule(folder: Folder) -> None:
    nothing = "[{of: synthetic, amount: 0}]"
    mix = folder.load(MINIMAL, f"mix.caps={nothing}", f"mix.floors={nothing}").mix
    assert (mix.caps[0].amount, mix.floors[0].amount) == (0, 0)
    assert "from 0 up" in folder.refuse(MINIMAL, "mix.caps=[{of: synthetic, amount: -1}]").message


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e99", "1e999999", "10k", "lots", "true", "1.5B"])
def test_what_is_no_amount_is_refused(folder: Folder, text: str) -> None:
    error = folder.refuse(MINIMAL, f"mix.size={text}", "mix.measure=bytes")
    assert (error.code, error.details["key"]) == ("bad_value", "mix.size")


# Paths


def test_paths_are_relative_to_the_config(folder: Folder) -> None:
    tree = changed("sources.0.files", ["../data/*.parquet", "/abs/x.csv", "s3://bucket/a/../*.parquet", "gs://b/**"])
    config = folder.load(tree, "output=gs://mixes/one", "sign={key: k.key}", later=True)
    parent = folder.path.parent
    expected = (f"{parent}/data/*.parquet", "/abs/x.csv", "s3://bucket/a/../*.parquet", "gs://b/**")
    assert config.sources[0].files == expected
    assert config.output == "gs://mixes/one"
    assert config.sign is not None
    assert config.sign.key == str(folder.path / "k.key")


@pytest.mark.parametrize(
    ("output", "index", "files", "key"),
    [
        ("out", "out", "data/*", "output"),
        ("out/mix", "out", "data/*", "output"),
        ("out", "out/index", "data/*", "output"),
        ("gs://b/x", "gs://b/x/index", "data/*", "output"),
        ("data/mix", "idx", "data/**", "output"),
        ("data/mix", "idx", "data/*/*.parquet", "output"),
        ("data/mix", "idx", "data/*", "output"),
        ("mix", "data/2024/idx", "data/20*/i*/x", "index"),
        ("data", "idx", "data/*.parquet", "output"),
        ("gs://b/mix", "idx", "gs://b/**.parquet", "output"),
    ],
)
def test_what_is_written_never_meets_what_is_read(
    folder: Folder, output: str, index: str, files: str, key: str
) -> None:
    tree = {**changed("sources.0.files", files), "output": output, "index": index}
    error = folder.refuse(tree)
    assert (error.code, error.details["key"]) == ("bad_value", key)


@pytest.mark.parametrize(
    ("output", "index", "files"),
    [
        ("out", "out.index", "*.parquet"),
        ("data/out", "data/index", "data/*.parquet"),
        ("data/out", "data/index", "data/press/**"),
        ("out/mix", "out/mix2", "data/*"),
        ("gs://b/mix", "s3://b/mix", "gs://c/**"),
    ],
)
def test_folders_beside_the_data_are_fine(folder: Folder, output: str, index: str, files: str) -> None:
    folder.load({**changed("sources.0.files", files), "output": output, "index": index}, later=True)


# Syntax, variables, overrides


def test_a_key_written_twice_is_refused(folder: Folder) -> None:
    error = folder.refuse("version: 1\noutput: a\nmix:\n  floors: {human_verified: 0}\n  floors: {}\n")
    assert error.code == "duplicate_key"
    assert "mix.floors" in error.message
    assert "line 5" in error.message


@pytest.mark.parametrize(
    "text", ["version: [1\noutput: x", "a: b: c", "- a\nb: c", "\tversion: 1", 'x: "\\q"', "a: *b"]
)
def test_broken_yaml_names_line_and_column(folder: Folder, text: str) -> None:
    error = folder.refuse(text)
    assert error.code == "bad_yaml"
    assert "line " in error.message
    assert "column " in error.message
    assert isinstance(error.details["line"], int)


@pytest.mark.parametrize(
    "text",
    [
        "version: !!python/object:os.system x",
        "version: &a [*a]",
        "? [a, b]\n: c",
        "a0: &a0 [1, 1]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30)),
        "version: 1\n---\nversion: 1",
        "version: \x01",
    ],
)
def test_yaml_that_no_config_needs_is_refused(folder: Folder, text: str) -> None:
    assert folder.refuse(text).code == "bad_yaml"


@pytest.mark.parametrize("text", ["", "# nothing\n", "- version", "version"])
def test_a_config_is_a_mapping(folder: Folder, text: str) -> None:
    assert folder.refuse(text).code == "bad_value"


def test_a_file_that_cannot_be_read(folder: Folder) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml.*anchormix init") as caught:
        load_config(folder.path / "absent.yaml")
    assert caught.value.code == "config_not_found"
    with pytest.raises(UsageError):
        load_config(folder.path)
    (folder.path / "latin.yaml").write_bytes(b"output: caf\xe9")
    with pytest.raises(UsageError, match="not UTF-8 at byte 11"):
        load_config(folder.path / "latin.yaml")


def test_variables_are_filled(folder: Folder) -> None:
    tree = changed("sources.0.files", ["${ROOT}/a-${N:-1}.parquet", "${EMPTY:-x}$$/$${ROOT}"])
    tree["seed"] = "${SEED:-3}"
    tree["sources"][0]["license"] = "$${LICENSE}"
    config = folder.load(tree, ROOT="/data", EMPTY="")
    assert config.sources[0].files == ("/data/a-1.parquet", str(folder.path / "x$$/${ROOT}"))
    assert config.sources[0].license == "${LICENSE}"
    assert config.seed == 3
    assert folder.load(tree, ROOT="/data", SEED="9").seed == 9
    assert folder.load(config.resolved()) == config


def test_variables_in_plain_scalars_become_what_they_say(folder: Folder) -> None:
    text = yaml.safe_dump(MINIMAL).replace("human_verified: 0.5", "human_verified: ${FLOOR}")
    assert folder.load(text, FLOOR="0.3").mix.human_floor == Fraction(3, 10)


def test_unset_and_broken_variables_are_refused(folder: Folder) -> None:
    error = folder.refuse(changed("sources.0.files", ["${NOWHERE}/x"]))
    assert error.code == "unset_variable"
    assert error.details["variable"] == "NOWHERE"
    assert error.message.startswith("sources[0].files[0]")
    assert "${NOWHERE:-" in error.message
    assert folder.refuse(changed("output", "${not a name}")).code == "bad_value"
    assert "quote" in folder.refuse("output: x\nsources: [${A}/x]").message


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("mix.floors.human_verified=0.6", lambda c: c.mix.human_floor == Fraction(3, 5)),
        ("mix.floors={human_any: 1/3}", lambda c: c.mix.floors == (Rule(of="human_any", share=Fraction(1, 3)),)),
        ("mix.caps.source:press=0.25", lambda c: c.mix.caps == (Rule(of="source:press", share=Fraction(1, 4)),)),
        ("sources.press.optional=true", lambda c: c.sources[0].optional),
        ("sources.0.optional=true", lambda c: c.sources[0].optional),
        ("sources.press.columns.text={join: [a, b]}", lambda c: c.sources[0].columns.text == Join(join=("a", "b"))),
        ("sources.press.columns.url=", lambda c: c.sources[0].columns.url is None),
        ("mix.sources.press.weight=3", lambda c: c.mix.sources["press"].weight == 3),
        ("output=elsewhere=1", lambda c: c.output.endswith("/elsewhere=1")),
        ("trust.revoked=[]", lambda c: c.trust.revoked == ()),
        ("dedup.threshold=", lambda c: c.dedup.threshold == Fraction(4, 5)),
        ("sources.press.files.0=other.csv", lambda c: c.sources[0].files[0].endswith("/other.csv")),
    ],
)
def test_overrides(folder: Folder, override: str, value: Any) -> None:
    assert value(folder.load(MINIMAL, override))


def test_overrides_of_listed_rules_and_of_names_with_dots(folder: Folder) -> None:
    tree = changed("mix.floors", [{"of": "human_verified", "share": 0.5}, {"of": "human", "amount": 5}])
    tree["sources"].append({"name": "a.b", "files": "x"})
    config = folder.load(tree, "mix.floors.human=0.1", "sources.a.b.license=MIT", "mix.sources.a.b.weight=2")
    assert config.mix.floors[1] == Rule(of="human", share=Fraction(1, 10))
    assert config.source("a.b").license == "MIT"
    assert config.mix.sources["a.b"].weight == 2


@pytest.mark.parametrize(
    ("override", "code", "hint"),
    [
        ("mix.flors.human=1", "unknown_key", '"floors"'),
        ("sources.pres.optional=true", "unknown_key", '"press"'),
        ("sources.press.optionl=true", "unknown_key", '"optional"'),
        ("threshold=0.7", "unknown_key", "dedup.threshold"),
        ("seed.x=1", "unknown_key", "no keys below"),
        ("seed", "bad_override", "KEY=VALUE"),
        ("=3", "bad_override", "KEY=VALUE"),
        ("mix..size=3", "bad_override", "KEY=VALUE"),
        ("seed=[1", "bad_yaml", "line 1"),
        ("seed=x", "bad_value", "--set seed=x"),
    ],
)
def test_wrong_overrides(folder: Folder, override: str, code: str, hint: str) -> None:
    error = folder.refuse({**MINIMAL, "seed": 1}, override)
    assert error.code == code
    assert hint in error.message


# What is refused


@pytest.mark.parametrize("path", ["version", "output", "sources", "sources.0.name", "sources.0.files", "mix.floors"])
def test_required_keys(folder: Folder, path: str) -> None:
    error = folder.refuse(changed(path, None))
    assert error.code == "missing_key"
    assert error.details["key"].replace("[0]", ".0").replace("press", "0") == path


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("sorces", "sources"),
        ("mix.flors", "floors"),
        ("mix.threshold", "dedup.threshold"),
        ("sources.0.column", "columns"),
        ("sources.0.columns.explode", None),
        ("mix.epochs.human_verifed", "human_verified"),
        ("dedup.treshold", "threshold"),
    ],
)
def test_unknown_keys_come_with_a_suggestion(folder: Folder, path: str, near: str | None) -> None:
    error = folder.refuse(changed(path, 1))
    assert error.code == "unknown_key"
    assert error.details["nearest"] == near
    assert near is None or near in error.message
    assert "line " in error.message


CUSTODY = {"method": "licensed_source", "manifest": "m.json"}
REFUSED = [
    ("version", 2, "bad_value", "version"),
    ("seed", -1, "bad_value", "seed"),
    ("seed", "no", "bad_value", "seed"),
    ("as_of", "2026-13-01", "bad_value", "as_of"),
    ("as_of", "20.11.2026", "bad_value", "as_of"),
    ("output", [], "bad_value", "output"),
    ("tokens", {}, "bad_value", "tokens"),
    ("tokens", {"counter": "words", "column": "n"}, "bad_value", "tokens"),
    ("tokens", {"counter": "bpe"}, "bad_value", "tokens.counter"),
    ("sources", [], "bad_value", "sources"),
    ("sources", {"press": {}}, "bad_value", "sources"),
    ("sources", MINIMAL["sources"] * 2, "duplicate_key", "sources.press"),
    ("sources.0.name", "-x", "bad_value", "sources.-x.name"),
    ("sources.0.name", "a/b", "bad_value", "sources.a/b.name"),
    ("sources.0.files", [], "bad_value", "sources.press.files"),
    ("sources.0.optional", "yes", "bad_value", "sources.press.optional"),
    ("sources.0.columns", {"text": None}, "bad_value", "sources.press.columns.text"),
    ("sources.0.columns", {"text": {"join": []}}, "bad_value", "sources.press.columns.text.join"),
    ("sources.0.columns", {"text": {"explode": "x"}}, "bad_value", "sources.press.columns.text"),
    ("sources.0.columns", {"id": "a..b"}, "bad_value", "sources.press.columns.id"),
    ("sources.0.columns", {"label": "l"}, "missing_key", "sources.press.columns.label"),
    ("sources.0.labels", {"1": "human"}, "missing_key", "sources.press.labels"),
    ("sources.0.labels", {"1": "human_verified"}, "bad_value", "sources.press.labels.1"),
    ("sources.0.declare", "human_verified", "bad_value", "sources.press.declare"),
    ("sources.0.declare", "synthetic", "bad_value", "sources.press.declare"),
    ("sources.0.keep", ["text"], "bad_value", "sources.press.keep"),
    ("sources.0.keep", ["a.url", "b.url"], "bad_value", "sources.press.keep"),
    ("sources.0.keep", {"doc_id": "x"}, "bad_value", "sources.press.keep"),
    ("sources.0.synthetic", {"kind": "made"}, "bad_value", "sources.press.synthetic.kind"),
    ("sources.0.custody", {"method": "licensed_source"}, "missing_key", "sources.press.custody.manifest"),
    ("sources.0.custody", {**CUSTODY, "method": "trust_me"}, "bad_value", "sources.press.custody.method"),
    (
        "trust",
        {"keys": [{"name": "k", "public_key": "p", "sources": ["x"]}]},
        "bad_value",
        "trust.keys.k.sources[0]",
    ),
    ("trust", {"keys": [{"name": "k", "public_key": "p", "sources": []}]}, "bad_value", "trust.keys.k.sources"),
    ("trust", {"keys": [{"name": "k", "public_key": "p", "methods": ["x"]}]}, "bad_value", "trust.keys.k.methods[0]"),
    ("trust", {"keys": [{"name": "k", "public_key": "p"}] * 2}, "duplicate_key", "trust.keys.k"),
    ("trust", {"keys": [{"name": "desk", "public_key": "p"}], "revoked": ["desk2"]}, "bad_value", "trust.revoked[0]"),
    ("evidence", {"max_contested": 2}, "bad_value", "evidence.max_contested"),
    ("exclude", [{"source": "pres"}], "bad_value", "exclude[0].source"),
    ("exclude", [{"source": "press", "generator": "x"}], "bad_value", "exclude[0]"),
    ("exclude", [{"reason": "x"}], "bad_value", "exclude[0]"),
    ("exclude", [{"ids": ["xyz"]}], "bad_value", "exclude[0].ids[0]"),
    ("dedup", {"threshold": 0}, "bad_value", "dedup.threshold"),
    ("dedup", {"permutations": 8}, "bad_value", "dedup.permutations"),
    ("mix", [], "bad_value", "mix"),
    ("mix.floors", {}, "missing_key", "mix.floors"),
    ("mix.floors", {"humans": 0.5}, "bad_value", "mix.floors.humans"),
    ("mix.floors", {"source:pres": 0.5}, "bad_value", "mix.floors.source:pres"),
    ("mix.floors", {"human": True}, "bad_value", "mix.floors.human"),
    ("mix.floors", [{"of": "human"}], "bad_value", "mix.floors[0]"),
    ("mix.floors", [{"of": "human", "share": 0.1, "amount": 3}], "bad_value", "mix.floors[0]"),
    ("mix.floors", [{"of": "human", "share": 0.1, "by": "topic"}], "bad_value", "mix.floors[0].by"),
    ("mix.floors", [{"of": "human", "share": 0.1}] * 2, "duplicate_key", "mix.floors"),
    ("mix.floors", [{"of": "human", "share": 0.1, "otherwise": "drop"}], "bad_value", "mix.floors[0]"),
    ("mix.sources", {"pres": {}}, "bad_value", "mix.sources.pres"),
    ("mix.sources", {"press": {"weight": 0}}, "bad_value", "mix.sources.press.weight"),
    ("mix.sources", {"press": {"max_share": 0}}, "bad_value", "mix.sources.press.max_share"),
    ("mix.epochs", {"human": 0}, "bad_value", "mix.epochs.human"),
    ("mix.measure", "words", "bad_value", "mix.measure"),
    ("mix.size", "mx", "bad_value", "mix.size"),
    ("mix.temperature", 0, "bad_value", "mix.temperature"),
    ("mix.shards", 0, "bad_value", "mix.shards"),
    ("mix.shards", "many", "bad_value", "mix.shards"),
    ("mix.row_group", 0, "bad_value", "mix.row_group"),
    ("sign", {}, "missing_key", "sign.key"),
]


@pytest.mark.parametrize(("path", "value", "code", "key"), REFUSED)
def test_wrong_values_are_named(folder: Folder, path: str, value: Any, code: str, key: str) -> None:
    error = folder.refuse(changed(path, value))
    assert (error.code, error.details["key"]) == (code, key)
    assert error.message.startswith(key)
    assert "mix.yaml" in error.message


@pytest.mark.parametrize(
    "extra",
    [
        {"synthetic": {}, "declare": "human"},
        {"synthetic": {}, "custody": CUSTODY},
        {"custody": CUSTODY, "columns": {"text": {"join": ["a"]}}},
        {"custody": CUSTODY, "columns": {"text": {"messages": "a"}}},
    ],
)
def test_contradictions_within_a_source(folder: Folder, extra: dict[str, Any]) -> None:
    assert folder.refuse(changed("sources", [{**MINIMAL["sources"][0], **extra}])).code == "bad_value"


def test_as_of_is_needed_where_a_key_in_use_carries_a_date(folder: Folder) -> None:
    tree = changed("trust", {"keys": [{"name": "k", "public_key": "p", "valid_until": "2027-01-01"}]})
    folder.load(tree)  # no source asks for custody, so the date matters to nobody
    tree["sources"][0]["custody"] = CUSTODY
    error = folder.refuse(tree)
    assert (error.code, error.details["key"]) == ("missing_key", "as_of")
    folder.load(tree, "as_of=2026-11-20")
    folder.load(tree, "trust.revoked=[k]")
    folder.load(tree, "trust.keys.k.methods=[notarised_author]")
    opened = folder.refuse(tree, "trust.keys.k.valid_until=", "trust.keys.k.valid_from=2026-01-01")
    assert "valid from 2026-01-01," in opened.message


def test_a_key_is_valid_from_a_day_before_the_last(folder: Folder) -> None:
    key = {"name": "k", "public_key": "p", "valid_from": "2027-01-02", "valid_until": "2027-01-01"}
    error = folder.refuse(changed("trust", {"keys": [key]}))
    assert (error.code, error.details["key"]) == ("bad_value", "trust.keys.k.valid_from")


def test_revocations_name_keys_or_manifests(folder: Folder) -> None:
    tree = changed("trust", {"keys": [{"name": "k", "public_key": "p"}], "revoked": ["k", f"sha256:{'AB' * 32}"]})
    assert folder.load(tree).trust.revoked == ("k", "ab" * 32)


def test_one_thing_may_have_a_share_and_an_amount(folder: Folder) -> None:
    rules = [{"of": "human", "share": 0.1}, {"of": "human", "amount": 10}]
    config = folder.load(changed("mix.floors", rules))
    assert len(config.mix.floors) == 2
    assert config.mix.human_floor == 0
    assert "by its position" in folder.refuse(changed("mix.floors", rules), "mix.floors.human=0.2").message


def test_rules_may_group_by_kept_columns(folder: Folder) -> None:
    rules = [{"of": "human", "share": 0.1, "by": name} for name in ("language", "source", "generator", "topic")]
    assert folder.refuse(changed("mix.caps", rules)).details["key"] == "mix.caps[3].by"
    config = folder.load(changed("mix.caps", rules), "sources.press.keep=[meta.topic]")
    assert [rule.by for rule in config.mix.caps] == ["language", "source", "generator", "topic"]


# Resolving and digests


def test_resolved_loads_again_to_an_equal_config_from_anywhere(folder: Folder, tmp_path: Path) -> None:
    for text in (COMPLETE, MINIMAL):
        config = folder.load(text, later=True)
        plain = config.resolved()
        assert json.loads(json.dumps(plain)) == plain
        again = Folder(tmp_path).load(plain, later=True)
        assert again == config
        assert again.resolved() == plain
        assert again.meaning_digest() == config.meaning_digest()


PRESS, OTHER, EDGES, FATES, MEANING = "facts of press", "facts of rephrased", "edges", "fates", "meaning"
FACTS = {PRESS, OTHER}
CHANGES: list[tuple[str, str, set[str]]] = [
    ("seed", "seed=8", {MEANING}),
    ("as_of", "as_of=2026-11-21", {FATES, MEANING}),
    ("output", "output=out/other", set()),
    ("index", "index=out/other", set()),
    ("tokens.counter", "tokens={column: n}", {*FACTS, MEANING}),
    ("tokens.file", "tokens={file: t.json}", {*FACTS, MEANING}),
    ("tokens.column", "tokens={column: n}", {*FACTS, MEANING}),
    ("max_bad_records", "max_bad_records=3", {MEANING}),
    ("sources.files", "sources.press.files=[data/new/*.parquet]", set()),
    ("sources.optional", "sources.press.optional=true", {MEANING}),
    ("sources.columns.text", "sources.press.columns.text=new", {PRESS, MEANING}),
    ("sources.columns.id", "sources.press.columns.id=new", {PRESS, MEANING}),
    ("sources.columns.language", "sources.press.columns.language=new", {PRESS, MEANING}),
    ("sources.columns.license", "sources.press.columns.license=new", {PRESS, MEANING}),
    ("sources.columns.url", "sources.press.columns.url=", {PRESS, MEANING}),
    ("sources.columns.date", "sources.press.columns.date=new", {PRESS, MEANING}),
    ("sources.columns.generator", "sources.press.columns.generator=new", {PRESS, MEANING}),
    ("sources.columns.label", "sources.press.columns.label=new", {PRESS, MEANING}),
    ("sources.labels", "sources.press.labels.0=unknown", {FATES, MEANING}),
    ("sources.declare", "sources.press.declare=unknown", {FATES, MEANING}),
    ("sources.keep", "sources.press.keep=[title]", {PRESS, MEANING}),
    ("sources.license", "sources.press.license=MIT", {FATES, MEANING}),
    ("sources.priority", "sources.press.priority=1", {FATES, MEANING}),
    ("sources.custody.method", "sources.press.custody.method=notarised_author", {FATES, MEANING}),
    ("sources.custody.manifest", "sources.press.custody.manifest=[a.json, b.json]", {FATES}),
    ("sources.custody.on_mismatch", "sources.press.custody.on_mismatch=demote", {FATES, MEANING}),
    ("sources.synthetic.generator", "sources.rephrased.synthetic.generator=x", {FATES, MEANING}),
    ("sources.synthetic.kind", "sources.rephrased.synthetic.kind=generated", {FATES, MEANING}),
    ("trust.keys.name", "trust.keys.desk.name=other", {FATES, MEANING}),
    ("trust.keys.public_key", "trust.keys.desk.public_key=other.pub", {FATES}),
    ("trust.keys.sources", "trust.keys.desk.sources=[press, rephrased]", {FATES, MEANING}),
    ("trust.keys.methods", "trust.keys.desk.methods=", {FATES, MEANING}),
    ("trust.keys.valid_from", "trust.keys.desk.valid_from=2019-01-01", {FATES, MEANING}),
    ("trust.keys.valid_until", "trust.keys.desk.valid_until=2028-01-01", {FATES, MEANING}),
    ("trust.revoked", "trust.revoked=[desk]", {FATES, MEANING}),
    ("evidence.known_synthetic", "evidence.known_synthetic=[data/new/*.csv]", {EDGES}),
    ("evidence.known_synthetic", "evidence.known_synthetic=", {EDGES, MEANING}),
    ("evidence.artefacts", "evidence.artefacts=false", {*FACTS, MEANING}),
    ("evidence.detectors", "evidence.detectors=", {*FACTS, FATES, MEANING}),
    ("evidence.detectors.detector", "evidence.detectors=[{detector: other, name: score}]", {*FACTS, MEANING}),
    ("evidence.detectors.name", "evidence.detectors=[{detector: score, name: x}]", {*FACTS, FATES, MEANING}),
    ("evidence.detectors.model", "evidence.detectors=[{detector: ngrams, model: m}]", {*FACTS, FATES, MEANING}),
    ("evidence.detectors.calibration", "evidence.detectors=[{detector: score, calibration: c}]", {FATES, MEANING}),
    ("evidence.detectors.alpha", "evidence.detectors=[{detector: score, alpha: 0.01}]", {FATES, MEANING}),
    ("evidence.detectors.min_words", "evidence.detectors=[{detector: score, min_words: 9}]", {FATES, MEANING}),
    ("evidence.detectors.min_words", "evidence.detectors=[{detector: score, min_words: 128}]", set()),
    ("evidence.max_contested", "evidence.max_contested=0.1", {MEANING}),
    ("exclude.source", "exclude=[{source: press}]", {FATES, MEANING}),
    ("exclude.generator", "exclude=[{generator: x}]", {FATES, MEANING}),
    ("exclude.ids", f"exclude=[{{ids: {'0' * 32}}}]", {FATES, MEANING}),
    ("exclude.doc_ids", "exclude.0.doc_ids=[a]", {FATES, MEANING}),
    ("exclude.doc_ids", "exclude.0.doc_ids=[b, a]", set()),
    ("exclude.reason", "exclude.0.reason=other", {FATES, MEANING}),
    ("dedup.threshold", "dedup.threshold=0.7", {EDGES, MEANING}),
    ("dedup.permutations", "dedup.permutations=64", {*FACTS, MEANING}),
    ("dedup.shingle", "dedup.shingle=3", {*FACTS, MEANING}),
    ("dedup.against.index", "dedup.against.0.index=../older.index", {EDGES}),
    ("dedup.against.keep", "dedup.against.0.keep=earlier", {EDGES, MEANING}),
    ("dedup.wipe_out", "dedup.wipe_out=0.5", {MEANING}),
    ("diversity.reference", "diversity.reference=[data/other/*.csv]", {EDGES}),
    ("diversity.reference", "diversity.reference=", {EDGES, MEANING}),
    ("diversity.metrics", "diversity.metrics=core", {*FACTS, MEANING}),
    ("diversity.fail_if.metric", "diversity.fail_if.0.metric=types", {MEANING}),
    ("diversity.fail_if.scope", "diversity.fail_if.1.scope=corpus", {MEANING}),
    ("diversity.fail_if.name", "diversity.fail_if.0.name=rephrased", {MEANING}),
    ("diversity.fail_if.below", "diversity.fail_if.0.below=0.4", {MEANING}),
    ("diversity.fail_if.above", "diversity.fail_if.1.above=1000.0", set()),
    ("mix.measure", "mix.measure=documents", {MEANING}),
    ("mix.size", "mix.size=max", {MEANING}),
    ("mix.floors", "mix.floors.human_verified=0.6", {MEANING}),
    ("mix.floors", "mix.floors=[{of: human_any, share: 2/3}, {of: human_verified, share: 1/2}]", set()),
    ("mix.caps", "mix.caps.synthetic.share=0.2", {MEANING}),
    ("mix.sources.weight", "mix.sources.press.weight=3", {MEANING}),
    ("mix.sources.max_share", "mix.sources.press.max_share=", {MEANING}),
    ("mix.epochs", "mix.epochs.human=2", {MEANING}),
    ("mix.epochs", "mix.epochs.human=1", set()),
    ("mix.if_short", "mix.if_short=shrink", {MEANING}),
    ("mix.layout", "mix.layout=strict", {MEANING}),
    ("mix.temperature", "mix.temperature=1", {MEANING}),
    ("mix.weights", "mix.weights=other.json", set()),
    ("mix.parent", "mix.parent=", {MEANING}),
    ("mix.parent", "mix.parent=out/another", set()),
    ("mix.max_human_loss", "mix.max_human_loss=0.1", {MEANING}),
    ("mix.shards", "mix.shards=8", {MEANING}),
    ("mix.shard_bytes", "mix.shard_bytes=1MiB", {MEANING}),
    ("mix.row_group", "mix.row_group=100", {MEANING}),
    ("sign.key", "sign.key=other.key", set()),
    ("sign.key", "sign=", set()),
]


def layers(config: Config) -> dict[str, Any]:
    return {
        PRESS: config.facts_settings("press"),
        OTHER: config.facts_settings("rephrased"),
        EDGES: config.edges_settings(),
        FATES: config.fates_settings(),
        MEANING: config.meaning_digest(),
    }


@pytest.mark.parametrize(("path", "override", "expected"), CHANGES, ids=[change[1] for change in CHANGES])
def test_each_key_changes_exactly_its_layers(folder: Folder, path: str, override: str, expected: set[str]) -> None:
    before, after = layers(folder.load(COMPLETE, later=True)), layers(folder.load(COMPLETE, override, later=True))
    assert {name for name in before if before[name] != after[name]} == expected
    assert json.loads(json.dumps(after)) == after


def leaves() -> set[str]:
    paths = set(Block(Config).paths())
    return {path for path in paths if not any(other.startswith(path + ".") for other in paths)}


def test_every_key_is_in_the_table_of_changes() -> None:
    elsewhere = {"version", "sources.name"}  # there is one version; renaming has a test of its own
    assert leaves() - {path for path, *_ in CHANGES} == elsewhere


def test_order_of_sources_and_defaults_written_out_mean_nothing(folder: Folder) -> None:
    config = folder.load(COMPLETE, later=True)
    plain = config.resolved()
    plain["sources"].reverse()
    plain["sources"][1]["files"].reverse()
    other = folder.load(plain, later=True)
    assert layers(other) == layers(config)
    assert folder.load(MINIMAL, "seed=0", "dedup.threshold=0.80").meaning_digest() == (
        folder.load(MINIMAL).meaning_digest()
    )


def test_renaming_a_source_changes_the_meaning_not_its_facts(folder: Folder) -> None:
    one, two = folder.load(MINIMAL), folder.load(MINIMAL, "sources.press.name=books")
    assert one.meaning_digest() != two.meaning_digest()
    assert one.facts_settings("press") == two.facts_settings(two.sources[0])


# Files that speak of the config


def test_full_config_loads_and_holds_every_key() -> None:
    config = load_config(ROOT / "configs/full.yaml", environ={})
    assert config == load_config(ROOT / "configs/full.yaml", environ={}, allow_later=True)
    text = (ROOT / "configs/full.yaml").read_text()
    missing = [path for path in Block(Config).paths() if f"{path.split('.')[-1]}:" not in text]
    assert not missing


def test_reference_documents_every_key_with_its_default() -> None:
    text = (ROOT / "docs/config.md").read_text()
    for path in Block(Config).paths():
        assert f"| `{path}` |" in text, f"docs/config.md lacks {path}"
    schema = config_schema()["properties"]
    for block in ("dedup", "diversity", "evidence", "mix"):
        form = schema[block].get("anyOf", [schema[block]])[0]  # the alternative, where there is one, is null
        for name, described in form["properties"].items():
            row = next(line for line in text.splitlines() if line.startswith(f"| `{block}.{name}` |"))
            assert ("**later**" in row) == ("Not available yet" in described["description"])
            default = described.get("default")
            if isinstance(default, int | float | str) and name != "shard_bytes":
                shown = row.split("|")[3].strip().strip("`")
                assert shown == str(default).lower().replace("1.0", "1")


def test_schema_knows_every_key() -> None:
    schema = config_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["required"] == ["version", "output", "sources", "mix"]
    assert schema["additionalProperties"] is False
    known = json.dumps(schema)
    assert all(f'"{path.split(".")[-1]}"' in known for path in Block(Config).paths())


def test_schema_validates_the_full_config() -> None:
    schema = config_schema()
    jsonschema = pytest.importorskip("jsonschema")
    for text in ((ROOT / "configs/full.yaml").read_text(), yaml.safe_dump(MINIMAL)):
        tree = yaml.load(text.replace("2_000_000_000", "2000000000"), Loader=yaml.BaseLoader)
        as_editors_read = yaml.safe_load(yaml.safe_dump(typed(tree)))
        jsonschema.validate(as_editors_read, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**MINIMAL, "sorces": []}, schema)


def typed(tree: Any) -> Any:
    """Scalars as a YAML 1.2 editor types them; dates stay strings."""
    if isinstance(tree, dict):
        return {key: typed(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [typed(value) for value in tree]
    try:
        return json.loads(tree)
    except ValueError:
        return tree


# Robustness and speed

WORDS = st.sampled_from(["", "x", "no", "1/3", "${X}", "${", "*", "a.b", "data/**", "3e11", "-1", "0.5", "2026-01-01"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats(-2, 2) | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_anywhere_loads_or_is_diagnosed(folder: Folder, data: st.DataObject) -> None:
    tree = yaml.safe_load(COMPLETE)
    tree["as_of"] = "2026-11-20"
    node: Any = tree
    while True:
        place = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        below = node[place]
        if not isinstance(below, dict | list) or not below or data.draw(st.booleans()):
            node[place] = data.draw(VALUES)
            break
        node = below
    try:
        config = folder.load(tree, later=True)
    except UsageError as error:
        problem = error
    else:
        assert folder.load(config.resolved(), later=True) == config
        return
    assert problem.code in {"bad_value", "missing_key", "unknown_key", "unset_variable", "duplicate_key", "bad_yaml"}
    assert "mix.yaml" in problem.message


def test_importing_the_config_is_quick_and_light() -> None:
    code = (
        "import sys, time; start = time.process_time(); import pipeline.config; "
        "print(time.process_time() - start, *(m for m in "
        "('apache_beam', 'numba', 'numpy', 'pyarrow', 'pydantic') if m in sys.modules))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert all(len(run) == 1 for run in runs), runs
    assert min(float(run[0]) for run in runs) < 0.2


@pytest.mark.parametrize("key", ["output", "index"])
def test_only_stores_that_can_be_written_to_are_written_to(tmp_path: Path, key: str) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(
        "version: 1\noutput: out/mix\nsources: [{name: a, files: [a.jsonl]}]\nmix: {floors: {human_verified: 0}}\n"
    )
    with pytest.raises(UsageError, match=f"{key}.*ftp://host/x") as caught:
        load_config(path, [f"{key}=ftp://host/x"])
    assert caught.value.code == "not_yet"
    for place in ("s3://bucket/x", "gs://bucket/x"):
        assert getattr(load_config(path, [f"{key}={place}"]), key) == place
