"""Every way to tamper with a mix is caught at the level that can see it, or named in `not_checked`."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import mixes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline import verify_consistent
from pipeline.cli import main
from pipeline.errors import UsageError, VerificationFailed
from pipeline.manifest import RuleClaim
from pipeline.report import verification_table
from pipeline.verify import LEVELS, Verification, verify_mix
from transforms.kernels.audit import ShardAudit

HALF = Fraction(1, 2)


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> mixes.Mix:
    return mixes.write_mix(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def mix(honest: mixes.Mix, tmp_path: Path) -> mixes.Mix:
    """A copy of the honest mix, free to be tampered with."""
    shutil.copytree(honest.out, tmp_path / "mix")
    shards = [[dict(row) for row in rows] for rows in honest.shards]
    return mixes.Mix(tmp_path / "mix", honest.keys, shards, texts=honest.texts)


def verify(mix: mixes.Mix, **options: Any) -> Verification:
    """Every level asked for, unless an option says otherwise."""
    asked = {"key": mix.keys / "mix.pub", "trust": mix.keys / "trust.yaml", "inputs": mix.read_texts, "workers": 2}
    return verify_mix(mix.out, **{**asked, **options})


def failed(verification: Verification) -> set[str]:
    return {name for name, level in verification.levels.items() if level.status == "failed"}


def kinds(verification: Verification) -> set[str]:
    return {finding.what for finding in verification.findings}


def test_an_honest_mix_reaches_every_level(honest: mixes.Mix) -> None:
    verification = verify(honest)
    assert {level.status for level in verification.levels.values()} == {"reached"}
    assert verification.findings == []
    assert verification.passed
    assert verification.error() is None
    assert verification.totals["documents"] == 40
    assert verification.totals["tokens"] == sum(row["n_tokens"] for rows in honest.shards for row in rows)
    assert verification.logical_digest == json.loads((honest.out / "manifest.json").read_bytes())["logical_digest"]


def test_levels_not_asked_for_are_named_with_the_reason(honest: mixes.Mix) -> None:
    verification = verify_mix(honest.out)
    assert verification.passed
    for level, option in (("signed", "--key"), ("custody", "--trust"), ("reproduced", "--inputs")):
        assert verification.levels[level].status == "not checked"
        assert option in verification.levels[level].reason
        assert any(line.startswith(level) and option in line for line in verification.not_checked)
    assert any("--floor" in line for line in verification.not_checked)


def retag(rows: list[mixes.Row]) -> None:
    rows[1]["provenance"] = "human_verified"
    rows[1]["generator"] = None


def edit_verified_text(rows: list[mixes.Row]) -> None:
    rows[0]["text"] += " And a word more."


def edit_other_text(rows: list[mixes.Row]) -> None:
    rows[1]["text"] = rows[1]["text"].replace("wind", "rain")


def change_tokens(rows: list[mixes.Row]) -> None:
    rows[0]["n_tokens"] += 1


def drop_verified(rows: list[mixes.Row]) -> None:
    del rows[0]


def drop_other(rows: list[mixes.Row]) -> None:
    del rows[-1]


def repeat_row(rows: list[mixes.Row]) -> None:
    rows.append(dict(rows[-2]))


def repeat_as_copy(rows: list[mixes.Row]) -> None:
    rows.append({**rows[-2], "copy": 1})


def claim_other_origin(rows: list[mixes.Row]) -> None:
    rows[1].update(source="press", shard="press-0.parquet")


ALL_CHANGES: list[Callable[[list[mixes.Row]], None]] = [
    retag,
    edit_verified_text,
    edit_other_text,
    change_tokens,
    drop_verified,
    drop_other,
    repeat_row,
    repeat_as_copy,
    claim_other_origin,
]


@pytest.mark.parametrize("change", ALL_CHANGES)
def test_a_changed_row_is_never_consistent_nor_signed(
    mix: mixes.Mix, change: Callable[[list[mixes.Row]], None]
) -> None:
    mix.rewrite(0, change, reseal=False)
    assert {"consistent", "signed"} <= failed(verify(mix))
    assert not verify_mix(mix.out).passed


@pytest.mark.parametrize(
    ("change", "seen_by"),
    [
        (retag, {"signed", "custody"}),
        (edit_verified_text, {"signed", "custody", "reproduced"}),
        (edit_other_text, {"signed", "reproduced"}),
        (drop_other, {"signed"}),
        (drop_verified, {"consistent", "signed"}),  # the first prefix then starts with other text
        (repeat_row, {"consistent", "signed"}),
        (repeat_as_copy, {"consistent", "signed"}),  # more copies than the epochs allow
        (claim_other_origin, {"signed", "reproduced"}),
    ],
)
def test_a_changed_row_that_was_sealed_again_is_seen_by_the_levels_that_can(
    mix: mixes.Mix, change: Callable[[list[mixes.Row]], None], seen_by: set[str]
) -> None:
    mix.rewrite(0, change, reseal=True)
    assert failed(verify(mix)) == seen_by


def test_what_only_a_signature_can_see_is_named_when_none_is_checked(mix: mixes.Mix) -> None:
    mix.rewrite(0, drop_other, reseal=True)
    verification = verify_mix(mix.out)
    assert verification.passed
    assert any(line.startswith("signed:") for line in verification.not_checked)


def test_a_resealed_tag_needs_trust_to_be_seen(mix: mixes.Mix) -> None:
    mix.rewrite(0, retag, reseal=True)
    verification = verify_mix(mix.out)
    assert verification.passed
    assert any(line.startswith("custody:") for line in verification.not_checked)


def test_swapped_files_are_seen_by_bytes_and_by_certificate(mix: mixes.Mix) -> None:
    first, second = mix.path(0), mix.path(1)
    first.rename(mix.out / "held")
    second.rename(first)
    (mix.out / "held").rename(second)
    verification = verify(mix)
    assert {"consistent", "signed"} <= failed(verification)
    assert {"other_bytes", "certificate_disagrees"} <= kinds(verification)


@pytest.mark.parametrize("extra", ["train-99999-of-00002.parquet", "notes.txt", "more/train-0.parquet"])
def test_a_file_nobody_listed_is_found(mix: mixes.Mix, extra: str) -> None:
    path = mix.out / "data" / extra
    path.parent.mkdir(exist_ok=True)
    shutil.copy(mix.path(0), path)
    verification = verify(mix)
    assert "consistent" in failed(verification)
    assert "unlisted_file" in kinds(verification)


def test_a_missing_shard_is_found(mix: mixes.Mix) -> None:
    mix.path(1).unlink()
    verification = verify(mix)
    assert {"consistent", "signed"} <= failed(verification)
    assert "missing_shard" in kinds(verification)


def test_a_truncated_shard_is_a_finding(mix: mixes.Mix) -> None:
    mix.path(0).write_bytes(mix.path(0).read_bytes()[:-100])
    verification = verify(mix)
    assert {"consistent", "signed"} <= failed(verification)
    assert "unreadable_shard" in kinds(verification)


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        at: Any = manifest
        for name in parents:
            at = at[int(name)] if isinstance(at, list) else at[name]
        at[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("totals.tokens", 10**9),
        _set("achieved.human_verified.overall.numerator", 539),
        _set("shards.0.rows", 21),
        _set("shards.0.sha256", "0" * 64),
        _set("provenance.by_method", {}),
        _set("logical_digest", "0" * 64),
        _set("input_digest", "0" * 32),
        _set("plan", "0" * 32),
        _set("config_digest", "0" * 64),
        _set("measure", "documents"),
        _set("sources.press.documents_in", 23),
        _set("sources.press.documents_out", 21),
        _set("sources.press.dropped.near_duplicate", 2),
        _set("sources.press.dropped.not_selected", 0),
        _set("size", 539),
        _set("floors", [{"of": "human_verified", "by": None, "share": [3, 5], "amount": None, "otherwise": "fail"}]),
        _set("caps", [{"of": "synthetic", "by": None, "share": [1, 5], "amount": None, "otherwise": "fail"}]),
        _set("floors", [{"of": "human_verified", "by": None, "share": [1, 0], "amount": None, "otherwise": "fail"}]),
        _set("shards", "none"),
        _set("sources", {"press": 3}),
    ],
)
def test_an_edited_manifest_disagrees_with_the_files(mix: mixes.Mix, change: Callable[[dict[str, Any]], None]) -> None:
    mix.edit_manifest(change)
    assert {"consistent", "signed"} <= failed(verify(mix))


@pytest.mark.parametrize("field", ["seed", "as_of", "parent", "code_version"])
def test_an_edited_claim_is_seen_by_the_signature_or_named(mix: mixes.Mix, field: str) -> None:
    mix.edit_manifest(_set(field, "2020-01-01" if field == "as_of" else "other"))
    assert "signed" in failed(verify(mix))
    unsigned = verify_mix(mix.out)
    assert unsigned.passed
    assert any(field in line for line in unsigned.not_checked)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_none_is_a_finding(mix: mixes.Mix, content: bytes) -> None:
    (mix.out / "manifest.json").write_bytes(content)
    verification = verify(mix)
    assert {"consistent", "signed", "custody"} <= failed(verification)
    assert "bad_manifest" in kinds(verification)


def test_success_is_required_unless_the_mix_is_staged(mix: mixes.Mix) -> None:
    (mix.out / "_SUCCESS").unlink()
    assert kinds(verify(mix)) == {"not_published"}
    assert verify(mix, staged=True).passed


@pytest.mark.parametrize("name", ["inputs.parquet", "fates/part-00000.parquet"])
def test_accounts_that_cannot_be_read_are_findings(mix: mixes.Mix, name: str) -> None:
    (mix.out / name).write_bytes(b"PAR1 nothing PAR1")
    assert "consistent" in failed(verify(mix))


def test_a_dropped_document_that_vanishes_is_missed(mix: mixes.Mix) -> None:
    path = mix.out / "fates" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert kinds(verify(mix)) == {"not_conserved"}


def test_floors_asked_for_are_held_everywhere(honest: mixes.Mix) -> None:
    assert verify(honest, floors=[("human_verified", HALF)]).passed
    assert verify(honest, floors=[("source:web", Fraction(1, 5)), ("human_any", HALF)]).passed
    verification = verify(honest, floors=[("human_verified", Fraction(52, 100))])
    assert failed(verification) == {"consistent"}
    assert {"floor_broken", "shard_below_floor", "prefix_below_floor"} <= kinds(verification)
    assert failed(verify(honest, floors=[("source:web", HALF)])) == {"consistent"}
    with pytest.raises(UsageError, match="not a column"):
        verify(honest, floors=[("rephrase", HALF)])


def test_the_logical_digest_can_be_asked_for(honest: mixes.Mix) -> None:
    digest = verify(honest).logical_digest
    assert verify(honest, expect=digest).passed
    assert kinds(verify(honest, expect="0" * 64)) == {"unexpected_digest"}


def test_another_key_did_not_sign(honest: mixes.Mix) -> None:
    assert failed(verify(honest, key=honest.keys / "press-desk.pub")) == {"signed"}


def test_an_unsigned_mix_is_not_signed(mix: mixes.Mix) -> None:
    (mix.out / "manifest.dsse.json").unlink()
    assert failed(verify(mix)) == {"signed"}


def _trust(mix: mixes.Mix, tmp_path: Path, revoked: list[str] = [], **key: Any) -> Path:  # noqa: B006
    trusted = {"name": "desk", "public_key": str(mix.keys / "press-desk.pub"), **key}
    path = tmp_path / "trust.yaml"
    path.write_text(json.dumps({"trust": {"keys": [trusted], "revoked": revoked}}))
    return path


@pytest.mark.parametrize(
    ("restriction", "holds"),
    [
        ({}, True),
        ({"sources": ["press", "web"], "methods": ["licensed_source"]}, True),
        ({"valid_until": "2026-11-20"}, True),
        ({"valid_until": "2026-11-19"}, False),
        ({"sources": ["web"]}, False),
        ({"methods": ["notarised_author"]}, False),
        ({"revoked": ["desk"]}, False),
    ],
)
def test_custody_depends_on_what_the_trusted_key_may_sign(
    honest: mixes.Mix, tmp_path: Path, restriction: dict[str, Any], holds: bool
) -> None:
    verification = verify(honest, trust=_trust(honest, tmp_path, **restriction))
    assert failed(verification) == (set() if holds else {"custody"})
    if not holds:
        assert verification.counts["custody", "not_in_custody"] == 20


@pytest.mark.parametrize("named", ["manifest", "prefixed", "upper case", "payload", "alias"])
def test_what_is_revoked_vouches_for_nothing_however_it_is_named(honest: mixes.Mix, tmp_path: Path, named: str) -> None:
    """As in a run: by the digest of the file or of what is signed in it, or by any name of the key."""
    path = next((honest.out / "custody").glob("*.dsse.json"))
    digest = path.name.partition(".")[0]
    payload = hashlib.sha256(base64.b64decode(json.loads(path.read_bytes())["payload"])).hexdigest()
    revoked = {
        "manifest": digest,
        "prefixed": f"sha256:{digest}",
        "upper case": digest.upper(),
        "payload": payload,
        "alias": "other-name",
    }[named]
    keys = [{"name": name, "public_key": str(honest.keys / "press-desk.pub")} for name in ("desk", "other-name")]
    trust = tmp_path / "trust.yaml"
    trust.write_text(json.dumps({"keys": keys, "revoked": [revoked]}))
    verification = verify(honest, trust=trust)
    assert failed(verification) == {"custody"}
    assert "revoked" in verification.findings[0].found


def test_a_revocation_that_names_nothing_is_a_slip_of_the_pen(honest: mixes.Mix, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="press-desk") as error:
        verify(honest, trust=_trust(honest, tmp_path, name="press-desk", revoked=["pres-desk"]))
    assert error.value.code == "bad_trust"


@pytest.mark.parametrize("changed", [{"issuer": "Somebody Else"}, {"method": "notarised_author"}])
def test_who_vouches_is_as_the_signed_manifest_says(mix: mixes.Mix, changed: dict[str, str]) -> None:
    digest = next((mix.out / "custody").glob("*.dsse.json")).name.partition(".")[0]
    honest = {"source": "press", "manifest": digest, "key": "desk", "method": "licensed_source", "issuer": None}
    mix.changes["custody"] = [honest]
    mix.seal()
    assert failed(verify(mix)) == set()
    mix.changes["custody"] = [honest | changed]
    mix.seal()
    assert failed(verify(mix)) == {"custody"}


def test_a_summary_is_counted_again(mix: mixes.Mix) -> None:
    for member, value in (("issuer", "Somebody"), ("method", "notarised_author"), ("tokens", 1), ("kind", "rephrase")):
        mix.seal(sign=False)
        mix.edit_manifest(lambda manifest: manifest["summary"][0].update({member: value}))  # noqa: B023
        assert "manifest_disagrees" in kinds(verify_mix(mix.out)), member
    for summary in ([], [{}], "none", 7, [{"source": "press"}]):
        mix.seal(sign=False)
        mix.edit_manifest(lambda manifest: manifest.update(summary=summary))  # noqa: B023
        assert "manifest_disagrees" in kinds(verify_mix(mix.out)), summary
    mix.seal(sign=False)
    mix.edit_manifest(lambda manifest: manifest.pop("summary"))
    mix.edit_manifest(lambda manifest: manifest["provenance"].pop("by_issuer"))
    assert failed(verify_mix(mix.out)) == set(), "who claims nothing has nothing to prove"


@pytest.mark.parametrize("as_of", ["soon", 7, [], "2026-13-01"])
def test_a_day_that_is_none_judges_no_date(honest: mixes.Mix, mix: mixes.Mix, tmp_path: Path, as_of: Any) -> None:
    mix.edit_manifest(lambda manifest: manifest.update(as_of=as_of))
    assert "custody" in failed(verify(mix, trust=_trust(mix, tmp_path, valid_until="2030-01-01")))


def test_an_unknown_key_vouches_for_nothing(honest: mixes.Mix, tmp_path: Path) -> None:
    trust = _trust(honest, tmp_path, public_key=str(honest.keys / "mix.pub"))
    assert failed(verify(honest, trust=trust)) == {"custody"}


def _grow_leaf_list(custody: Path) -> None:
    path = next(custody.glob("*.leaves/*.leaves"))
    path.write_bytes(path.read_bytes() + b"\xff" * 32)


def _lose_leaf_list(custody: Path) -> None:
    next(custody.glob("*.leaves/*.leaves")).unlink()


def _edit_custody_manifest(custody: Path) -> None:
    path = next(custody.glob("*.dsse.json"))
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize("change", [_grow_leaf_list, _lose_leaf_list, _edit_custody_manifest])
def test_tampered_custody_files_vouch_for_nothing(mix: mixes.Mix, change: Callable[[Path], None]) -> None:
    change(mix.out / "custody")
    assert failed(verify(mix)) == {"custody"}


@pytest.mark.parametrize("changed", [{"custody_verdict": "unlisted"}, {"custody_manifest": "0" * 64}])
def test_a_shard_that_inputs_does_not_call_verified_is_not_in_custody(mix: mixes.Mix, changed: dict[str, str]) -> None:
    path = mix.out / "inputs.parquet"
    table = pq.read_table(path)
    rows = [{**row, **changed} if row["source"] == "press" else row for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    assert failed(verify(mix)) == {"custody"}


def test_inputs_that_changed_since_are_not_reproduced(mix: mixes.Mix) -> None:
    mix.texts = {**mix.texts, ("web", "web-0.parquet", 3): "something else"}
    verification = verify(mix)
    assert failed(verification) == {"reproduced"}
    assert verification.counts["reproduced", "other_text"] == 1
    mix.texts.pop(("web", "web-0.parquet", 3))
    assert verify(mix).counts["reproduced", "other_text"] == 1


def test_inputs_that_cannot_be_read_are_not_reproduced(honest: mixes.Mix) -> None:
    def gone(source: str, shard: str, rows: Any) -> Any:
        raise FileNotFoundError(shard)

    assert failed(verify(honest, inputs=gone)) == {"reproduced"}


def test_tokens_counted_by_others_are_named_as_not_checked(tmp_path: Path) -> None:
    shards = mixes.default_shards()
    for rows in shards:
        for row in rows:
            row["n_tokens"] = 3
    mix = mixes.write_mix(tmp_path, shards, changes={"tokens": {"column": "n"}})
    verification = verify_mix(mix.out)
    assert verification.passed
    assert any(line.startswith("tokens: counted by column") for line in verification.not_checked)
    assert verification.totals["tokens"] == 3 * verification.totals["rows"]


def test_copies_up_to_the_epochs_are_fine_and_gaps_are_not(tmp_path: Path) -> None:
    shards = mixes.default_shards()
    shards[0].insert(0, {**shards[1][0], "copy": 1})
    mix = mixes.write_mix(tmp_path, shards, row_group=30, changes={"epochs": {"human_verified": 2}})
    assert verify(mix).passed
    mix.rewrite(0, lambda rows: rows[0].update(copy=2), reseal=True)
    assert {"missing_copy", "too_many_copies"} <= kinds(verify_mix(mix.out))


def test_copies_are_checked_in_ranges_of_ids_as_they_are_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    edges = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)  # where ranges begin and end
    ids = np.concatenate([edges, rng.integers(0, 2**63, 200).astype(np.uint64) * np.uint64(2)])
    audits = []
    for number, rows in enumerate(np.array_split(rng.choice(len(ids), 600), 7)):
        audit = ShardAudit(f"train-{number}", "tokens", ())
        audit.ids = np.stack([ids[rows], rows.astype(np.uint64)], axis=1)
        audit.copies = rng.integers(0, 4, len(rows)).astype(np.int32)
        audits.append(audit)
    at_once = list(verify_consistent._check_copies(audits))
    assert len(at_once) > 100
    for most in (599, 100, 7):
        monkeypatch.setattr(verify_consistent, "_MOST_SORTED", most)
        assert list(verify_consistent._check_copies(audits)) == at_once
    assert list(verify_consistent._check_copies([])) == []


def test_rules_by_group_are_recounted(tmp_path: Path) -> None:
    floors = [RuleClaim("human_verified", HALF), RuleClaim("human_verified", Fraction(1, 3), by="language")]
    caps = [RuleClaim("synthetic", Fraction(3, 10), by="generator"), RuleClaim("web", amount=1000)]
    mix = mixes.write_mix(tmp_path, floors=floors, caps=caps)
    assert verify(mix).passed
    mix.floors[1] = RuleClaim("human_verified", Fraction(2, 3), by="language")
    mix.seal()
    verification = verify(mix)
    assert kinds(verification) == {"floor_broken"}
    assert all("language" in finding.expected for finding in verification.findings)
    mix.changes["exempt"] = {"human_verified by language": ["de", "en"]}
    mix.seal()
    assert kinds(verify(mix)) == {"exempt_unasked"}, "a rule lets off only where it was asked to"
    mix.floors[1] = RuleClaim("human_verified", Fraction(2, 3), by="language", otherwise="exempt")
    mix.seal()
    verification = verify(mix)
    assert verification.passed
    assert any("let off de, en" in line for line in verification.not_checked)


@pytest.mark.parametrize("measure", ["bytes", "documents"])
def test_every_measure_is_recounted(tmp_path: Path, measure: str) -> None:
    mix = mixes.write_mix(tmp_path, changes={"measure": measure})
    assert verify(mix).passed


def test_what_is_no_mix_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match=str(path)):
            verify_mix(path)


def test_the_error_says_what_failed_and_carries_the_numbers(mix: mixes.Mix) -> None:
    mix.rewrite(0, change_tokens, reseal=False)
    error = verify(mix).error()
    assert isinstance(error, VerificationFailed)
    assert error.exit_code == 4
    assert "not consistent" in error.message
    assert "wrong_n_tokens in train-00000-of-00002.parquet, row group 0, row 0" in error.message
    assert set(error.details["levels"]) == set(LEVELS)
    json.dumps(error.details)


def test_what_is_taken_as_written_is_named(honest: mixes.Mix) -> None:
    unsigned, signed = "\n".join(verify_mix(honest.out).not_checked), "\n".join(verify(honest).not_checked)
    columns = ("language", "license", "doc_id", "represents", "kept columns", "evidence")
    accounts = ("fates/: id", "partner", "reason", "inputs.parquet: bytes, rows and bad_records")
    files = (
        "diversity.parquet",
        "baseline.json",
        "README.md",
        "croissant.json",
        "report.html",
        "config.yaml",
        "run.json",
    )
    for name in (*columns, *accounts, *files):
        assert name in unsigned, name
        assert name in signed, name
    assert "epochs, binding, custody, notes" in unsigned
    assert "epochs, binding, custody, notes" not in signed


@pytest.mark.parametrize(
    ("of", "near"),
    [
        ("human_verifed", "human_verified"),
        ("Human_Any", "human_any"),
        ("source:pres", "source:press"),
        ("source:", "source:NAME"),
        ("qqqq", None),
    ],
)
def test_a_floor_on_nothing_is_a_wrong_call(honest: mixes.Mix, of: str, near: str | None) -> None:
    with pytest.raises(UsageError) as raised:
        verify(honest, floors=[(of, HALF)])
    assert raised.value.code == "bad_floor"
    assert raised.value.details["nearest"] == near
    assert of in raised.value.message


def test_a_failure_is_shown_in_full_before_the_error_line(mix: mixes.Mix) -> None:
    mix.rewrite(0, change_tokens, reseal=False)
    plain = CliRunner().invoke(main, ["verify", str(mix.out)])
    assert plain.exit_code == 4
    lines = plain.stdout.splitlines()
    assert lines[0].startswith("FAIL")
    assert any(line.split()[:2] == ["consistent", "failed"] for line in lines)
    assert any("wrong_n_tokens" in line for line in lines)
    assert "Not checked" in lines
    assert lines[-1] == f"Logical digest: {verify(mix).logical_digest}"
    assert plain.stderr.startswith(f"anchormix verify: {mix.out} is not consistent")
    as_json = CliRunner().invoke(main, ["verify", str(mix.out), "--json"])
    assert as_json.exit_code == 4
    assert as_json.stdout.count("\n") == 1


def test_tokens_taken_as_written_are_not_called_recounted(honest: mixes.Mix, tmp_path: Path) -> None:
    assert "tokens recounted" in verification_table(verify_mix(honest.out), color=False).splitlines()[0]
    mix = mixes.write_mix(tmp_path, changes={"tokens": {"column": "n"}})
    headline = verification_table(verify_mix(mix.out), color=False).splitlines()[0]
    assert "tokens recounted" not in headline
    assert "tokens as counted by column" in headline
