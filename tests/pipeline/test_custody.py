"""Trust decisions: what a good manifest covers, and every way in which a bad one is refused."""

import base64
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from desk import DAY, METHOD, Desk, Key, sha256
from hypothesis import given
from hypothesis import strategies as st

from pipeline import custody_manifest
from pipeline.attest import attest, sign_envelope
from pipeline.custody import Leaves, SourceCustody, decide, load_custody, shard_verdict
from pipeline.errors import CustodyFailed, UsageError
from pipeline.trust import Trust, load_trust
from transforms.kernels.hashing import text_digests
from transforms.kernels.provenance import covered, leaf_array


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def refused(desk: Desk, code: str, trust: Trust | None = None, **call: Any) -> CustodyFailed:
    with pytest.raises(CustodyFailed) as error:
        desk.decide(trust, **call)
    assert error.value.code == code, error.value.message
    assert error.value.exit_code == 7
    assert error.value.details["manifest"] == str(desk.manifest)
    assert "sources.press" in error.value.message or call
    return error.value


def test_a_good_manifest_covers_its_shards_and_their_documents(desk: Desk) -> None:
    desk.attest(issuer="ACME", source="press")
    custody = desk.decide(desk.trust(desk.key(sources=("press",), methods=(METHOD,)), desk.key("other")))
    assert set(custody.subjects) == {desk.digest("a.parquet"), desk.digest("sub/b.parquet")}
    assert custody.names == {name: {desk.digest(name)} for name in ("a.parquet", "sub/b.parquet")}
    assert custody.warnings == ()
    leaves = custody.subjects[desk.digest("a.parquet")]
    manifest_digest = sha256(desk.manifest.read_bytes())
    assert (leaves.count, leaves.key, leaves.method, leaves.column) == (2, "desk", METHOD, "text")
    assert leaves.detail == f"{METHOD}, issuer ACME, key desk, manifest sha256:{manifest_digest}"
    listed = leaf_array(Path(leaves.path).read_bytes())
    assert covered(text_digests(pa.array(["two", "three", "one", "one "])), listed).tolist() == [
        True,
        False,
        True,
        False,
    ]
    (used,) = custody.manifests
    assert (used.path, used.digest, used.key) == (str(desk.manifest), manifest_digest, "desk")
    assert {path for _, path in used.leaf_lists} == {entry.path for entry in custody.subjects.values()}


def test_verdicts_on_shards(desk: Desk) -> None:
    custody = desk.decide()
    a, b, c = (desk.digest(name) for name in desk.shards)
    for name, digest, verdict in (
        ("a.parquet", a, "verified"),
        ("renamed.parquet", a, "verified"),
        ("a.parquet", c, "altered"),
        ("sub/b.parquet", c, "altered"),
        ("b.parquet", c, "altered"),  # the config's glob begins further down
        ("press/sub/b.parquet", c, "altered"),  # or further up
        ("c.parquet", c, "unlisted"),
        ("bb.parquet", c, "unlisted"),
        ("other/b.parquet", c, "unlisted"),
        ("sub/a.parquet", c, "altered"),
    ):
        assert shard_verdict(custody, name, digest) == verdict, name
    # A new file in another folder shares a signed file's last name; the signed file itself is there, unchanged.
    assert shard_verdict(custody, "sub/a.parquet", c, {a, b, c}) == "unlisted"
    assert shard_verdict(custody, "sub/a.parquet", c, {b, c}) == "altered"
    assert shard_verdict(custody, "a.parquet", c, {a, b, c}) == "altered"


def test_several_manifests_add_up(desk: Desk) -> None:
    second = desk.folder / "second.json"
    attest([desk.folder / "data" / "c.parquet"], desk.folder / "other.key", METHOD, second)
    custody = decide("press", METHOD, [str(desk.manifest), str(second)], desk.trust(desk.key(), desk.key("other")))
    assert {leaves.key for leaves in custody.subjects.values()} == {"desk", "other"}
    assert set(custody.subjects) == {sha256(content) for content in desk.shards.values()}


def test_a_later_manifest_supersedes_an_earlier_one_by_digest(desk: Desk) -> None:
    second = desk.folder / "second.json"
    desk.attest(("a.parquet",), output=second, read_texts=lambda path, column: iter([pa.array(["one"])]))
    both = desk.decide(manifests=[desk.manifest, second])
    a, b = desk.digest("a.parquet"), desk.digest("sub/b.parquet")
    assert (both.subjects[a].count, both.subjects[b].count) == (1, 1)  # "two" is retracted, the other file untouched
    assert [manifest.path for manifest in both.manifests] == [str(desk.manifest), str(second)]
    (warning,) = both.warnings
    assert "other leaves for 1 files" in warning
    assert both.subjects[b].manifest_digest in warning
    back = desk.decide(manifests=[second, desk.manifest])
    assert back.subjects[a].count == 2
    assert [manifest.path for manifest in back.manifests] == [str(desk.manifest)]
    # A revoked one supersedes nothing.
    revoked = desk.trust(revoked=(sha256(second.read_bytes()),))
    assert desk.decide(revoked, manifests=[desk.manifest, second]).subjects[a].count == 2


def test_a_manifest_named_twice_counts_once(desk: Desk) -> None:
    custody = desk.decide(manifests=[desk.manifest, desk.manifest])
    assert len(custody.manifests) == 1
    assert custody.warnings == ()


def test_a_file_signed_again_has_two_digests_under_one_name(desk: Desk) -> None:
    newer = desk.folder / "newer"
    pq.write_table(pa.table({"text": ["mended"]}), desk.folder / "data" / "a.parquet")
    desk.attest(("a.parquet",), output=newer)
    custody = decide("press", METHOD, [str(desk.manifest), str(newer)], desk.trust())
    assert len(custody.names["a.parquet"]) == 2
    for digest in custody.names["a.parquet"]:
        assert shard_verdict(custody, "a.parquet", digest) == "verified"


# What is revoked covers nothing, and is no error.


@pytest.mark.parametrize("prefix", ["", "sha256:"])
@pytest.mark.parametrize("what", ["desk", "manifest_digest", "payload_digest"])
def test_what_is_revoked_covers_nothing(desk: Desk, what: str, prefix: str) -> None:
    summary = desk.attest()
    revoked = what if what == "desk" else prefix + summary[what]
    custody = desk.decide(desk.trust(revoked=(revoked,)))
    assert (custody.subjects, custody.names, custody.manifests) == ({}, {}, ())
    assert "revoked" in custody.warnings[0]
    assert str(desk.manifest) in custody.warnings[0]
    assert shard_verdict(custody, "a.parquet", desk.digest("a.parquet")) == "unlisted"


def test_reformatting_does_not_escape_a_revocation(desk: Desk) -> None:
    summary = desk.attest()
    desk.manifest.write_text(json.dumps(json.loads(desk.manifest.read_bytes()), indent=7))
    assert desk.decide().subjects
    assert not desk.decide(desk.trust(revoked=(summary["payload_digest"],))).subjects


def test_a_revoked_key_is_revoked_under_every_name(desk: Desk) -> None:
    alias = Key("alias", desk.key().public_key)
    assert not desk.decide(desk.trust(desk.key(), alias, revoked=("alias",))).subjects
    assert desk.decide(desk.trust(desk.key(), desk.key("other"), revoked=("other",))).subjects


# Signatures.


def test_a_key_nobody_trusts(desk: Desk) -> None:
    error = refused(desk, "untrusted_key", desk.trust(desk.key("other")))
    assert "trusted: other" in error.message
    assert error.details["trusted"] == ["other"]
    refused(desk, "untrusted_key", load_trust((), (), None))


def test_a_payload_that_was_changed_after_signing(desk: Desk) -> None:
    envelope = json.loads(desk.manifest.read_bytes())
    statement = desk.statement()
    statement["predicate"]["method"] = "notarised_author"
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    desk.manifest.write_text(json.dumps(envelope))
    assert refused(desk, "bad_signature").details["key"] == "desk"


def test_a_key_id_proves_nothing(desk: Desk) -> None:
    envelope = json.loads(desk.manifest.read_bytes())
    forged = sign_envelope(base64.b64decode(envelope["payload"]), desk.folder / "other.key")
    forged["signatures"][0]["keyid"] = envelope["signatures"][0]["keyid"]
    desk.manifest.write_text(json.dumps(forged))
    refused(desk, "bad_signature")
    del envelope["signatures"][0]["keyid"]
    desk.manifest.write_text(json.dumps(envelope))
    assert desk.decide().subjects


def test_one_good_signature_among_several_is_enough(desk: Desk) -> None:
    envelope = json.loads(desk.manifest.read_bytes())
    second = sign_envelope(base64.b64decode(envelope["payload"]), desk.folder / "other.key")
    envelope["signatures"] = second["signatures"] + envelope["signatures"]
    desk.manifest.write_text(json.dumps(envelope))
    assert desk.decide().subjects[desk.digest("a.parquet")].key == "desk"
    narrow = desk.trust(desk.key("other", sources=("web",)), desk.key())
    assert desk.decide(narrow).subjects[desk.digest("a.parquet")].key == "desk"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"\x00\xff" + content,
        lambda content: content.replace(b'"sig": "', b'"sig": "!'),
        lambda content: json.dumps(json.loads(content) | {"signatures": []}).encode(),
        lambda content: base64.b64decode(json.loads(content)["payload"]),
    ],
    ids=["empty", "truncated", "binary", "bad base64", "unsigned", "bare statement"],
)
def test_damaged_envelopes(desk: Desk, damage: Callable[[bytes], bytes]) -> None:
    desk.manifest.write_bytes(damage(desk.manifest.read_bytes()))
    refused(desk, "bad_manifest")


def test_manifests_of_another_type_or_size(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.sign(desk.statement(), payload_type="application/json")
    refused(desk, "wrong_payload_type")
    monkeypatch.setattr(custody_manifest, "MAX_MANIFEST_BYTES", 100)
    refused(desk, "manifest_too_large")


def test_a_manifest_that_is_not_there_is_a_wrong_config(desk: Desk) -> None:
    desk.manifest.unlink()
    with pytest.raises(UsageError, match=r"sources\.press\.custody\.manifest") as error:
        desk.decide()
    assert error.value.code == "manifest_missing"


# Scope, method, validity.


def test_scope(desk: Desk) -> None:
    assert refused(desk, "wrong_scope", desk.trust(desk.key(sources=("web",)))).details["key"] == "desk"
    desk.attest(source="web")
    assert "'web'" in refused(desk, "wrong_scope").message
    assert desk.decide(source="web").subjects


def test_method_of_config_key_and_manifest_must_agree(desk: Desk) -> None:
    refused(desk, "wrong_method", method="notarised_author")
    refused(desk, "wrong_method", desk.trust(desk.key(methods=("notarised_author",))))
    desk.attest(method="notarised_author")
    refused(desk, "wrong_method")
    assert desk.decide(method="notarised_author").subjects


@pytest.mark.parametrize(("last", "valid"), [(DAY, True), (date(2026, 11, 19), False), (date(2027, 1, 1), True)])
def test_validity_includes_its_last_day(desk: Desk, last: date, valid: bool) -> None:
    dated_key = desk.trust(desk.key(valid_until=last), as_of=DAY)
    if valid:
        assert desk.decide(dated_key).subjects
    else:
        assert refused(desk, "key_expired", dated_key).details["valid_until"] == str(last)
    desk.attest(valid_until=str(last))
    if valid:
        assert desk.decide(desk.trust(as_of=DAY)).subjects
    else:
        refused(desk, "manifest_expired", desk.trust(as_of=DAY))


@pytest.mark.parametrize(
    ("signed", "window", "code"),
    [
        ("2026-06-01", ("2026-01-01", "2026-12-31"), None),
        ("2026-01-01", ("2026-01-01", None), None),
        ("2025-12-31", ("2026-01-01", None), "signed_outside_window"),
        ("2026-11-21", (None, "2026-11-20"), "signed_outside_window"),
        ("2026-11-21", (None, None), "signed_later"),
        (None, ("2026-11-21", None), "key_not_yet_valid"),
        (None, ("2026-11-20", "2026-11-20"), None),
        ("2020-01-01", (None, None), None),
    ],
)
def test_the_day_of_signing_lies_in_the_window_of_the_key(
    desk: Desk, signed: str | None, window: tuple[str | None, str | None], code: str | None
) -> None:
    first, last = (day and date.fromisoformat(day) for day in window)
    desk.attest(signed_at=signed)
    trust = desk.trust(desk.key(valid_from=first, valid_until=last), as_of=DAY)
    if code is None:
        assert desk.decide(trust).subjects
    else:
        assert refused(desk, code, trust).details["key"] == "desk"


def test_another_key_of_the_right_time_may_have_signed_too(desk: Desk) -> None:
    desk.attest(signed_at="2025-12-31")
    envelope = json.loads(desk.manifest.read_bytes())
    second = sign_envelope(base64.b64decode(envelope["payload"]), desk.folder / "other.key")
    desk.manifest.write_text(json.dumps(envelope | {"signatures": envelope["signatures"] + second["signatures"]}))
    late = desk.key(valid_from=date(2026, 1, 1))
    assert desk.decide(desk.trust(late, desk.key("other"), as_of=DAY)).subjects[desk.digest("a.parquet")].key == "other"


def test_dates_need_a_day_to_be_judged_at(desk: Desk) -> None:
    unused = desk.key("other", valid_until=date(2020, 1, 1))
    assert desk.decide(desk.trust(desk.key(), unused)).subjects
    with pytest.raises(UsageError, match="as_of"):
        desk.decide(desk.trust(desk.key(valid_until=DAY)))
    desk.attest(valid_until="2027-01-01")
    with pytest.raises(UsageError, match="as_of") as error:
        desk.decide()
    assert error.value.code == "as_of_missing"
    desk.attest(signed_at="2026-01-01")
    with pytest.raises(UsageError, match="as_of"):
        desk.decide()


# Statements that a trusted key signed, and that are wrong all the same.


def first_leaf(statement: dict[str, Any]) -> dict[str, Any]:
    leaf: dict[str, Any] = statement["predicate"]["leaves"][0]
    return leaf


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "_type"),
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "predicateType"),
        (lambda s: s.update(subject=[]), "`subject` of the statement is empty"),
        (lambda s: s.pop("predicate"), "`predicate`"),
        (lambda s: s["predicate"].pop("method"), "`method`"),
        (lambda s: s["predicate"].update(column=7), "`column`"),
        (lambda s: s["predicate"].update(valid_until="soon"), "soon"),
        (lambda s: s["predicate"].update(source=["press"]), "`source`"),
        (lambda s: s["predicate"]["leaves"].pop(), "do not belong together"),
        (lambda s: s["predicate"]["leaves"].append(first_leaf(s)), "two leaf lists"),
        (lambda s: s["subject"].pop(), "do not belong together"),
        (lambda s: s["subject"].append("a.parquet"), "must be an object"),
        (lambda s: s["subject"][0].update(digest={"md5": "00"}), "`sha256`"),
        (lambda s: s["subject"][0]["digest"].update(sha256="AB" * 32), "lower-case"),
        (lambda s: s["subject"][0].update(name="https://example.com/a.parquet"), "location"),
        (lambda s: s["subject"][0].update(name="s3://bucket/a.parquet"), "location"),
        (lambda s: s["subject"][0].update(name="../a.parquet"), "lead out"),
        (lambda s: s["subject"][0].update(name="/etc/a.parquet"), "relative path"),
        (lambda s: s["subject"][1].update(name="a.parquet"), "twice, with different digests"),
        (lambda s: s["subject"].append(s["subject"][0]), "twice, with the same digest"),
        (lambda s: s["subject"][0].update(uri=s["subject"][0].pop("name")), "`name`"),
        (lambda s: s["subject"][0].update(name="a\ud800.parquet"), "no terminal shows"),
        (lambda s: s["subject"][0].update(name="a\u202etxt.parquet"), "no terminal shows"),
        (lambda s: first_leaf(s).update(file="\ud800.leaves"), "no terminal shows"),
        (lambda s: s["predicate"].update(issuer="ACME\nkey desk"), "`issuer`"),
        (lambda s: s["predicate"].update(issuer="A" * 501), "500 characters"),
        (lambda s: s["predicate"].update(signed_at="2027-13-01"), "`signed_at`"),
        (lambda s: first_leaf(s).update(file="../../secret"), "lead out"),
        (lambda s: first_leaf(s).update(file="/etc/passwd"), "relative path"),
        (lambda s: first_leaf(s).update(file="https://example.com/x.leaves"), "location"),
        (lambda s: first_leaf(s).update(documents=-1), "negative"),
        (lambda s: first_leaf(s).update(documents=1 << 70), "larger than"),
        (lambda s: first_leaf(s).update(documents=True), "whole number"),
        (lambda s: first_leaf(s).update(documents="2"), "whole number"),
    ],
)
def test_statements_that_cannot_be_used(desk: Desk, change: Callable[[dict[str, Any]], Any], says: str) -> None:
    statement = desk.statement()
    change(statement)
    desk.sign(statement)
    error = refused(desk, "bad_statement")
    assert says in error.message
    assert error.details["key"] == "desk"
    assert "signed by desk" in error.message


def test_what_is_wrong_with_one_subject_names_it(desk: Desk) -> None:
    for change, subject in (
        (lambda s: s["subject"][0].update(name="../a.parquet"), "../a.parquet"),
        (lambda s: s["subject"].append(s["subject"][0]), "a.parquet"),
        (lambda s: s["subject"].pop(0), desk.digest("a.parquet")),
        (lambda s: s["predicate"]["leaves"].append(first_leaf(s)), None),
    ):
        desk.attest()
        statement = desk.statement()
        change(statement)
        desk.sign(statement)
        error = refused(desk, "bad_statement")
        wanted = subject or first_leaf(statement)["subject"]
        assert error.details["subject"] == wanted
        assert wanted in error.message


@pytest.mark.parametrize("payload", [b"{", b"[]", b"null", b'{"_type": "a", "_type": "b"}', b"[" * 100_000])
def test_signed_payloads_that_are_no_statement(desk: Desk, payload: bytes) -> None:
    desk.sign(payload)
    refused(desk, "bad_statement")


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda path: path.unlink(), "leaf_list_missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "leaf_list_changed"),
        (lambda path: path.write_bytes(path.read_bytes()[:32]), "leaf_list_changed"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0" * 32), "leaf_list_changed"),
        (lambda path: path.write_bytes(b"\0" * 64), "leaf_list_changed"),
        (lambda path: path.write_bytes(path.read_bytes()[32:] + path.read_bytes()[:32]), "leaf_list_changed"),
    ],
    ids=["missing", "cut short", "one less", "one more", "other leaves", "other order"],
)
def test_leaf_lists_that_are_not_what_was_signed(desk: Desk, damage: Callable[[Path], Any], code: str) -> None:
    damage(desk.leaf_list())
    error = refused(desk, code)
    assert error.details["subject"] == desk.digest("a.parquet")
    assert error.details["key"] == "desk"
    for named in (str(desk.manifest), "signed by desk", desk.digest("a.parquet"), str(desk.leaf_list())):
        assert named in error.message


def test_a_leaf_list_said_to_be_enormous_is_read_in_blocks(desk: Desk) -> None:
    statement = desk.statement()
    entry = next(e for e in statement["predicate"]["leaves"] if e["subject"] == desk.digest("a.parquet"))
    entry["documents"] = 1 << 32
    desk.sign(statement)
    assert "64 bytes" in refused(desk, "leaf_list_changed").message


def test_leaves_of_another_file_do_not_fit(desk: Desk) -> None:
    other = desk.leaf_list("sub/b.parquet").read_bytes()
    desk.leaf_list().write_bytes(other)
    refused(desk, "leaf_list_changed")


def test_a_signed_leaf_list_out_of_order(desk: Desk) -> None:
    unsorted = desk.leaf_list().read_bytes()[32:] + desk.leaf_list().read_bytes()[:32]
    desk.leaf_list().write_bytes(unsorted)
    statement = desk.statement()
    entry = next(e for e in statement["predicate"]["leaves"] if e["subject"] == desk.digest("a.parquet"))
    entry["sha256"] = sha256(unsorted)
    desk.sign(statement)
    refused(desk, "leaf_list_unsorted")


# Trust.


def test_names_of_keys_are_unique(desk: Desk) -> None:
    with pytest.raises(UsageError, match="twice") as error:
        desk.trust(desk.key(), Key("desk", desk.key("other").public_key))
    assert error.value.code == "duplicate_key"


def test_trusted_keys_must_be_readable(desk: Desk) -> None:
    with pytest.raises(UsageError, match=r"none\.pub"):
        desk.trust(desk.key("none"))
    with pytest.raises(UsageError, match="private key"):
        desk.trust(Key("desk", str(desk.folder / "desk.key")))


# What the stages are given.


def test_custody_of_a_config(desk: Desk) -> None:
    custody = load_custody(desk.config())
    a, c = desk.digest("a.parquet"), desk.digest("c.parquet")
    shard = custody.of("press", "a.parquet", a)
    assert shard is not None
    assert shard.leaves == str(desk.leaf_list())
    assert shard.detail == custody.sources["press"].subjects[a].detail
    assert custody.of("press", "a.parquet", c) is None
    assert custody.of("web", "a.parquet", a) is None
    assert custody.verdict("press", "a.parquet", c) == "altered"
    assert custody.verdict("web", "a.parquet", a) == "unlisted"
    assert custody.manifest_of("press", a) == sha256(desk.manifest.read_bytes())
    assert custody.manifest_of("press", c) is None
    assert custody.warnings == ()


def test_the_key_follows_whatever_changes_a_verdict(desk: Desk) -> None:
    key = load_custody(desk.config()).key
    assert load_custody(desk.config(desk.key(), desk.key("other"))).key == key
    revoked = load_custody(desk.config(revoked=("desk",)))
    assert revoked.key != key
    assert len(revoked.warnings) == 1
    desk.attest(issuer="ACME")
    assert load_custody(desk.config()).key != key


hexes = st.sampled_from([sha256(b"%d" % n) for n in range(4)])
shard_names = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(shard_names, hexes, max_size=4), shard_names, hexes, st.frozensets(hexes))
def test_only_a_signed_digest_is_verified(
    signed: dict[str, str], name: str, digest: str, present: frozenset[str]
) -> None:
    leaves = Leaves("p", 0, "d", "m", "k", None, METHOD, "text")
    custody = SourceCustody("s", dict.fromkeys(signed.values(), leaves), {n: frozenset({d}) for n, d in signed.items()})
    verdict = shard_verdict(custody, name, digest, present)
    assert (verdict == "verified") is (digest in signed.values())
    if name in signed and digest not in signed.values():
        assert verdict == "altered"
    if not any(other.split("/")[-1] == name.split("/")[-1] for other in signed):
        assert verdict in ("verified", "unlisted")


def test_leaves_survive_the_whole_way(desk: Desk) -> None:
    """Text that differs in one invisible character is other text."""
    texts = ["one", "two", "one\u200b", "\uff4fne", "One"]
    leaves = leaf_array(desk.leaf_list().read_bytes())
    assert np.flatnonzero(covered(text_digests(pa.array(texts)), leaves)).tolist() == [0, 1]
