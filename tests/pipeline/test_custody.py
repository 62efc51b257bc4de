"""Trust decisions: what a good manifest covers, and every way in which a bad one is refused."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import custody as module
from pipeline.attest import attest, sign_envelope, write_keypair
from pipeline.custody import (
    Leaves,
    SourceCustody,
    Trust,
    decide,
    load_custody,
    load_trust,
    shard_verdict,
)
from pipeline.errors import CustodyFailed, UsageError
from transforms.kernels.hashing import text_digests
from transforms.kernels.provenance import covered, leaf_array

METHOD = "licensed_source"
DAY = date(2026, 11, 20)


@dataclass(frozen=True)
class Key:
    name: str
    public_key: str
    sources: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    valid_until: date | None = None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Desk:
    """A folder with two keys, two signed shards and one that nobody signed."""

    folder: Path
    shards: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        write_keypair(self.folder / "desk")
        write_keypair(self.folder / "other")
        for name, texts in {"a.parquet": ["one", "two"], "sub/b.parquet": ["three"], "c.parquet": ["four"]}.items():
            path = self.folder / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"text": texts}), path)
            self.shards[name] = path.read_bytes()
        self.attest()

    @property
    def manifest(self) -> Path:
        return self.folder / "custody.json"

    def digest(self, name: str) -> str:
        return sha256(self.shards[name])

    def attest(self, names: tuple[str, ...] = ("a.parquet", "sub/b.parquet"), **options: Any) -> dict[str, Any]:
        call: dict[str, Any] = {"key_path": self.folder / "desk.key", "method": METHOD, "output": self.manifest}
        return attest([self.folder / "data" / name for name in names], **(call | options))

    def key(self, name: str = "desk", **restrictions: Any) -> Key:
        return Key(name, str(self.folder / f"{name}.pub"), **restrictions)

    def trust(self, *keys: Key, revoked: tuple[str, ...] = (), as_of: date | None = None) -> Trust:
        return load_trust(keys or (self.key(),), revoked, as_of)

    def decide(self, trust: Trust | None = None, source: str = "press", method: str = METHOD) -> SourceCustody:
        return decide(source, method, [str(self.manifest)], trust or self.trust())

    def statement(self) -> dict[str, Any]:
        statement: dict[str, Any] = json.loads(base64.b64decode(json.loads(self.manifest.read_bytes())["payload"]))
        return statement

    def sign(self, statement: Any, **options: Any) -> None:
        """Whatever it says, truly signed by the desk: only the content is wrong."""
        payload = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
        self.manifest.write_text(json.dumps(sign_envelope(payload, self.folder / "desk.key", **options)))


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


def test_manifests_that_contradict_each_other_are_refused(desk: Desk) -> None:
    second = desk.folder / "second.json"
    desk.attest(("a.parquet",), output=second, read_texts=lambda path, column: iter([pa.array(["forged"])]))
    with pytest.raises(CustodyFailed, match="other leaves") as error:
        decide("press", METHOD, [str(desk.manifest), str(second)], desk.trust())
    assert error.value.code == "conflicting_leaves"


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
    monkeypatch.setattr(module, "MAX_MANIFEST_BYTES", 100)
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


def test_dates_need_a_day_to_be_judged_at(desk: Desk) -> None:
    unused = desk.key("other", valid_until=date(2020, 1, 1))
    assert desk.decide(desk.trust(desk.key(), unused)).subjects
    with pytest.raises(UsageError, match="as_of"):
        desk.decide(desk.trust(desk.key(valid_until=DAY)))
    desk.attest(valid_until="2027-01-01")
    with pytest.raises(UsageError, match="as_of") as error:
        desk.decide()
    assert error.value.code == "as_of_missing"


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
        (lambda s: first_leaf(s).update(file="../../secret"), "lead out"),
        (lambda s: first_leaf(s).update(file="/etc/passwd"), "relative path"),
        (lambda s: first_leaf(s).update(file="https://example.com/x.leaves"), "location"),
        (lambda s: first_leaf(s).update(documents=-1), "negative"),
        (lambda s: first_leaf(s).update(documents=True), "whole number"),
        (lambda s: first_leaf(s).update(documents="2"), "whole number"),
    ],
)
def test_statements_that_cannot_be_used(desk: Desk, change: Callable[[dict[str, Any]], Any], says: str) -> None:
    statement = desk.statement()
    change(statement)
    desk.sign(statement)
    assert says in refused(desk, "bad_statement").message


@pytest.mark.parametrize("payload", [b"{", b"[]", b"null", b'{"_type": "a", "_type": "b"}', b"[" * 100_000])
def test_signed_payloads_that_are_no_statement(desk: Desk, payload: bytes) -> None:
    desk.sign(payload)
    refused(desk, "bad_statement")


def leaf_path(desk: Desk) -> Path:
    return desk.folder / "custody.leaves" / f"{desk.digest('a.parquet')}.leaves"


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
    damage(leaf_path(desk))
    error = refused(desk, code)
    assert error.details["subject"] == desk.digest("a.parquet")
    assert error.details["key"] == "desk"


def test_a_signed_leaf_list_out_of_order(desk: Desk) -> None:
    unsorted = leaf_path(desk).read_bytes()[32:] + leaf_path(desk).read_bytes()[:32]
    leaf_path(desk).write_bytes(unsorted)
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


def config(desk: Desk, *keys: Key, revoked: tuple[str, ...] = ()) -> Any:
    signed = SimpleNamespace(method=METHOD, manifest=(str(desk.manifest),), on_mismatch="fail")
    return SimpleNamespace(
        as_of=None,
        trust=SimpleNamespace(keys=keys or (desk.key(),), revoked=revoked),
        sources=(SimpleNamespace(name="press", custody=signed), SimpleNamespace(name="web", custody=None)),
    )


def test_custody_of_a_config(desk: Desk) -> None:
    custody = load_custody(config(desk))
    a, c = desk.digest("a.parquet"), desk.digest("c.parquet")
    shard = custody.of("press", "a.parquet", a)
    assert shard is not None
    assert shard.leaves == str(leaf_path(desk))
    assert shard.detail == custody.sources["press"].subjects[a].detail
    assert custody.of("press", "a.parquet", c) is None
    assert custody.of("web", "a.parquet", a) is None
    assert custody.verdict("press", "a.parquet", c) == "altered"
    assert custody.verdict("web", "a.parquet", a) == "unlisted"
    assert custody.manifest_of("press", a) == sha256(desk.manifest.read_bytes())
    assert custody.manifest_of("press", c) is None
    assert custody.warnings == ()


def test_the_key_follows_whatever_changes_a_verdict(desk: Desk) -> None:
    key = load_custody(config(desk)).key
    assert load_custody(config(desk, desk.key(), desk.key("other"))).key == key
    revoked = load_custody(config(desk, revoked=("desk",)))
    assert revoked.key != key
    assert len(revoked.warnings) == 1
    desk.attest(issuer="ACME")
    assert load_custody(config(desk)).key != key


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
    leaves = leaf_array(leaf_path(desk).read_bytes())
    assert np.flatnonzero(covered(text_digests(pa.array(texts)), leaves)).tolist() == [0, 1]
