"""The manifest is counted on disk, deterministic, and refuses accounts that do not add up."""

from __future__ import annotations

import base64
import hashlib
import json
from fractions import Fraction
from pathlib import Path

import mixes
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.attest import load_public_key, parse_envelope
from pipeline.errors import AnchormixError
from pipeline.manifest import (
    MixClaims,
    RuleClaim,
    SourceAccount,
    Standing,
    build_manifest,
    decimal,
    dump_manifest,
    evaluate,
    human_floor,
    input_digest,
    named_rules,
    statement,
    worst,
)
from pipeline.verify import audit_mix
from transforms.kernels.audit import ShardAudit

MEASURES = {
    ("press", "human_verified", None, "en"): 60,
    ("press", "human_verified", None, "de"): 10,
    ("web", "human", None, "en"): 20,
    ("made", "synthetic", "a", "en"): 6,
    ("made", "synthetic", "b", "de"): 4,
}
HALF = Fraction(1, 2)


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> mixes.Mix:
    return mixes.write_mix(tmp_path_factory.mktemp("manifest"))


@pytest.fixture(scope="module")
def audits(mix: mixes.Mix) -> list[ShardAudit]:
    return audit_mix(mix.out, "tokens", HALF, 2)


def claims(**sources: SourceAccount) -> MixClaims:
    return MixClaims(
        measure="tokens",
        floors=[RuleClaim("human_verified", HALF)],
        caps=[],
        sources=sources,
        plan="p",
        config_digest="c",
        input_digest="i",
        seed=1,
        as_of=None,
        code_version="1",
    )


ACCOUNTS = {
    "press": SourceAccount(25, {"empty": 1, "near_duplicate": 4, "bad_record": 0}),
    "rephrased": SourceAccount(10, {}),
    "web": SourceAccount(12, {"over_cap": 2}),
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (RuleClaim("human_verified", HALF), [Standing(None, 70, 100)]),
        (RuleClaim("human_any", HALF), [Standing(None, 90, 100)]),
        (RuleClaim("source:web", HALF), [Standing(None, 20, 100)]),
        (RuleClaim("generator:b", HALF), [Standing(None, 4, 100)]),
        (RuleClaim("synthetic", HALF, by="generator"), [Standing("a", 6, 100), Standing("b", 4, 100)]),
        (RuleClaim("human_verified", HALF, by="language"), [Standing("de", 10, 14), Standing("en", 60, 86)]),
        (RuleClaim("human", HALF, by="generator"), [Standing("(none)", 20, 100)]),
        (
            RuleClaim("human_any", HALF, by="source"),
            [Standing("made", 0, 10), Standing("press", 70, 70), Standing("web", 20, 20)],
        ),
    ],
)
def test_a_rule_is_evaluated_against_the_whole_or_the_group(rule: RuleClaim, expected: list[Standing]) -> None:
    assert evaluate(rule, MEASURES, ("language",)) == expected


def test_an_empty_mix_stands_under_a_rule_as_nothing_of_nothing() -> None:
    assert evaluate(RuleClaim("human", HALF), {}, ()) == [Standing(None, 0, 0)]
    assert evaluate(RuleClaim("human", HALF, by="source"), {}, ()) == []


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=8),
    st.fractions(0, 1),
    st.booleans(),
)
def test_the_worst_standing_decides(pairs: list[tuple[int, int]], share: Fraction, floor: bool) -> None:
    rule = RuleClaim("human", share)
    standings = [Standing(None, min(pair), max(pair)) for pair in pairs]
    found = worst(rule, standings, floor=floor)
    assert found is not None
    every = all(rule.holds(s.numerator, s.denominator, floor=floor) for s in standings)
    assert rule.holds(found.numerator, found.denominator, floor=floor) == every


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_a_decimal_never_flatters(numerator: int, denominator: int) -> None:
    told = decimal(numerator, denominator)
    assert told is not None
    assert 0 <= Fraction(numerator, denominator) - Fraction(told) < Fraction(1, 10**6)


def test_decimals_of_nothing_are_nothing() -> None:
    assert decimal(0, 0) is None
    assert decimal(499_999_999, 1_000_000_000) == "0.499999"


def test_the_floor_of_every_prefix_is_the_largest_plain_one() -> None:
    rules = [
        RuleClaim("human_verified", Fraction(1, 3)),
        RuleClaim("human_verified", amount=10),
        RuleClaim("human_verified", Fraction(1, 1), by="language"),
        RuleClaim("human_any", Fraction(2, 3)),
    ]
    assert human_floor(rules) == Fraction(1, 3)
    assert human_floor([]) == 0


def test_a_floor_and_a_cap_on_the_same_text_keep_apart() -> None:
    rule = RuleClaim("human", HALF)
    assert [(name, floor) for name, _, floor in named_rules([rule], [rule])] == [
        ("human", True),
        ("human (cap)", False),
    ]


@given(
    st.builds(RuleClaim, st.text(), st.none() | st.fractions(0, 1), st.none() | st.integers(0), st.none() | st.text())
)
def test_rules_survive_json(rule: RuleClaim) -> None:
    assert RuleClaim.from_json(json.loads(json.dumps(rule.to_json()))) == rule


def test_the_manifest_counts_what_is_on_disk(mix: mixes.Mix, audits: list[ShardAudit]) -> None:
    manifest = build_manifest(claims(**ACCOUNTS), audits)
    rows = [row for shard in mix.shards for row in shard]
    human = sum(row["n_tokens"] for row in rows if row["provenance"] == "human_verified")
    total = sum(row["n_tokens"] for row in rows)
    overall = manifest["achieved"]["human_verified"]["overall"]
    assert overall == {"numerator": human, "denominator": total, "share": decimal(human, total)}
    assert manifest["achieved"]["human_verified"]["worst_row_group"]["shard"] == mix.names[0]
    assert manifest["sources"]["press"]["documents_out"] == 20
    assert manifest["sources"]["press"]["dropped"] == {"empty": 1, "near_duplicate": 4}
    for shard, name in zip(manifest["shards"], mix.names, strict=True):
        assert shard["path"] == f"data/{name}"
        assert shard["sha256"] == hashlib.sha256((mix.out / shard["path"]).read_bytes()).hexdigest()
    wanted = (
        "measure floors caps achieved sources shards plan config_digest input_digest logical_digest seed as_of parent "
        "code_version version provenance custody not_checked"
    )
    assert set(wanted.split()) <= manifest.keys()


@pytest.mark.parametrize(
    "press",
    [SourceAccount(24, ACCOUNTS["press"].dropped), SourceAccount(26, {}), SourceAccount(20, {"empty": 1, "odd": -1})],
)
def test_documents_that_vanish_are_an_error(audits: list[ShardAudit], press: SourceAccount) -> None:
    with pytest.raises(AnchormixError, match="'press'") as caught:
        build_manifest(claims(**{**ACCOUNTS, "press": press}), audits)
    assert caught.value.code == "not_conserved"


def test_a_source_without_account_is_an_error(audits: list[ShardAudit]) -> None:
    with pytest.raises(AnchormixError, match="'web'"):
        build_manifest(claims(press=ACCOUNTS["press"], rephrased=ACCOUNTS["rephrased"]), audits)


def test_equal_mixes_have_equal_manifests(audits: list[ShardAudit]) -> None:
    forward = build_manifest(claims(**ACCOUNTS), audits)
    backward = build_manifest(claims(**dict(reversed(ACCOUNTS.items()))), audits[::-1])
    content = dump_manifest(forward)
    assert content == dump_manifest(backward)
    assert content.endswith(b"}\n")
    assert json.loads(content) == forward


def test_the_signature_covers_the_manifest_and_every_shard(mix: mixes.Mix) -> None:
    content = (mix.out / "manifest.json").read_bytes()
    envelope = parse_envelope((mix.out / "manifest.dsse.json").read_bytes())
    assert envelope.signed_by(load_public_key(mix.keys / "mix.pub"))
    assert not envelope.signed_by(load_public_key(mix.keys / "press-desk.pub"))
    assert envelope.payload == statement(content)
    raw = json.loads((mix.out / "manifest.dsse.json").read_bytes())
    told = json.loads(base64.b64decode(raw["payload"]))
    assert told["_type"] == "https://in-toto.io/Statement/v1"
    subjects = {subject["name"]: subject["digest"]["sha256"] for subject in told["subject"]}
    paths = [mix.out / "manifest.json", *(mix.path(number) for number in range(2))]
    assert subjects == {str(path.relative_to(mix.out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert {"logical_digest", "floors", "tokens", "plan", "config_digest", "parent"} <= told["predicate"].keys()
    claims = json.loads(content)
    assert told["predicate"] == {name: claims[name] for name in told["predicate"]}


def test_the_input_digest_follows_every_shard(mix: mixes.Mix, tmp_path: Path) -> None:
    table = pq.read_table(mix.out / "inputs.parquet")
    changed = table.set_column(2, "sha256", pa.array(["0" * 64] * len(table)))
    assert input_digest(table) == input_digest(table.append_column("more", pa.array(["x"] * len(table))))
    assert len({input_digest(table), input_digest(changed), input_digest(table.slice(1))}) == 3
