"""Only custody verifies: random keys, manifests, shards and texts, judged against the rule spelt out once more."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from desk import Key
from hypothesis import event, given, settings
from hypothesis import strategies as st

from pipeline.attest import PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, key_id
from pipeline.custody import Custody, decide, shard_verdict
from pipeline.errors import CustodyFailed
from pipeline.trust import load_trust
from transforms.kernels.hashing import text_digests
from transforms.kernels.provenance import SourceRules, Strength, covered, leaf_array, tag
from transforms.kernels.recognisers import Claim, pack_claims
from transforms.kernels.schemas import Provenance, facts_schema

SOURCES = ("press", "web")
METHODS = ("licensed_source", "notarised_author")
TEXTS = ("one", "two", "three", "one ", "one\u200b")
AS_OF = date(2026, 11, 20)
DAYS = [AS_OF + timedelta(days) for days in (-400, -1, 0, 1, 400)]

maybe = st.sampled_from([*[None] * 12, *DAYS])  # mostly undated, so that many manifests count
NAMES = ("a.parquet", "b.parquet", "sub/a.parquet")
FILES = range(4)  # contents, by number


@dataclass(frozen=True)
class Signed:
    """One manifest: who signed it, for what, when, and which texts of which files."""

    signer: int
    method: str
    source: str | None
    signed_at: date | None
    valid_until: date | None
    subjects: tuple[tuple[str, int, frozenset[str]], ...]  # name, file, texts
    tampered: bool


@dataclass(frozen=True)
class Trusted:
    signer: int
    sources: tuple[str, ...] | None
    methods: tuple[str, ...] | None
    valid_from: date | None
    valid_until: date | None
    revoked: bool


def rarely(*values: Any) -> Any:
    """None, which restricts nothing, six times out of seven: else hardly a manifest would count."""
    return st.sampled_from([*[None] * 6 * len(values), *values])


subjects = st.builds(
    lambda names, texts: tuple((name, file, texts[file]) for name, file in names.items()),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(FILES), min_size=1),
    st.tuples(*[st.frozensets(st.sampled_from(TEXTS), max_size=4)] * len(FILES)),
)
manifests = st.builds(
    Signed,
    signer=st.sampled_from(range(3)),
    method=rarely("notarised_author").map(lambda method: method or "licensed_source"),
    source=rarely("press", "web"),
    signed_at=rarely(*DAYS),
    valid_until=rarely(*DAYS),
    subjects=subjects,
    tampered=rarely(True).map(bool),
)


def key_of(signer: int) -> Any:
    return st.builds(
        Trusted,
        signer=st.just(signer),
        sources=rarely(SOURCES, ("press",), ("web",)),
        methods=rarely(METHODS, ("licensed_source",), ("notarised_author",)),
        valid_from=rarely(*DAYS),
        valid_until=rarely(*DAYS),
        revoked=rarely(True).map(bool),
    )


keyrings = st.tuples(*[st.lists(key_of(signer), min_size=1, max_size=2) for signer in range(2)]).map(
    lambda rings: [key for ring in rings for key in ring]
) | st.lists(st.sampled_from(range(3)).flatmap(key_of), max_size=5)


@cache
def private_key(signer: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([signer]) * 32)


def content_digest(file: int) -> str:
    return hashlib.sha256(b"file %d" % file).hexdigest()


def write_manifest(folder: Path, number: int, signed: Signed) -> str:
    leaves = []
    for file, texts in {file: texts for _, file, texts in signed.subjects}.items():
        listed = b"".join(sorted(hashlib.sha256(text.encode()).digest() for text in texts))
        (folder / f"{number}-{file}.leaves").write_bytes(listed)
        leaves.append(
            {
                "subject": content_digest(file),
                "documents": len(texts),
                "sha256": hashlib.sha256(listed).hexdigest(),
                "file": f"{number}-{file}.leaves",
            }
        )
    days = {"signed_at": signed.signed_at, "valid_until": signed.valid_until}
    statement = {
        "_type": STATEMENT_TYPE,
        "predicateType": PREDICATE_TYPE,
        "subject": [{"name": name, "digest": {"sha256": content_digest(file)}} for name, file, _ in signed.subjects],
        "predicate": {
            "method": signed.method,
            "column": "text",
            "source": signed.source,
            "leaves": leaves,
            **{name: day.isoformat() for name, day in days.items() if day},
        },
    }
    payload = json.dumps(statement).encode()
    message = b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    key = private_key(signed.signer)
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload + b" " * signed.tampered).decode(),
        "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(key.sign(message)).decode()}],
    }
    path = folder / f"{number}.json"
    path.write_text(json.dumps(envelope))
    return str(path)


def counts(signed: Signed, keys: list[Trusted], source: str, method: str) -> bool | None:
    """Whether a manifest covers what it signs; None where it must stop the run."""
    mine = [key for key in keys if key.signer == signed.signer]
    if signed.tampered or not mine:
        return None
    if any(key.revoked for key in mine):
        return False
    agrees = signed.method == method and signed.source in (None, source)
    in_time = (signed.valid_until is None or signed.valid_until >= AS_OF) and (
        signed.signed_at is None or signed.signed_at <= AS_OF
    )
    may = any(
        (key.sources is None or source in key.sources)
        and (key.methods is None or method in key.methods)
        and (key.valid_from or AS_OF) <= AS_OF <= (key.valid_until or AS_OF)
        and (
            signed.signed_at is None
            or (key.valid_from or signed.signed_at) <= signed.signed_at <= (key.valid_until or signed.signed_at)
        )
        for key in mine
    )
    return True if agrees and in_time and may else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("custody")
    for signer in range(3):
        public = private_key(signer).public_key()
        (folder / f"{signer}.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return folder


def judged(folder: Path, signed: list[Signed], keys: list[Trusted], source: str) -> Custody | None:
    """What the code says; None where it stops the run."""
    entries = [
        Key(f"k{place}", str(folder / f"{key.signer}.pub"), key.sources, key.methods, key.valid_from, key.valid_until)
        for place, key in enumerate(keys)
    ]
    trust = load_trust(entries, [f"k{place}" for place, key in enumerate(keys) if key.revoked], AS_OF)
    paths = [write_manifest(folder, number, one) for number, one in enumerate(signed)]
    try:
        return Custody({source: decide(source, METHODS[0], paths, trust)}, trust)
    except CustodyFailed as error:
        about = error.details["source"], error.details["manifest"] in paths
    assert about == (source, True), "a diagnosis names the source and the manifest"
    return None


@settings(max_examples=300, deadline=None)
@given(st.lists(manifests, min_size=1, max_size=3), keyrings, st.sampled_from(SOURCES))
def test_a_document_is_verified_iff_the_rule_says_so(
    folder: Path, signed: list[Signed], keys: list[Trusted], source: str
) -> None:
    verdicts = [counts(one, keys, source, METHODS[0]) for one in signed]
    custody = judged(folder, signed, keys, source)
    assert (custody is None) == (None in verdicts)
    event(f"manifests that count: {'refused' if custody is None else sum(map(bool, verdicts))}")
    if custody is None:
        return
    counting = [one for one, verdict in zip(signed, verdicts, strict=True) if verdict]
    digests = text_digests(pa.array(TEXTS))
    for shard, file in product(NAMES, FILES):
        lists = [texts for one in counting for _, number, texts in one.subjects if number == file]
        named = any(name == shard for one in counting for name, *_ in one.subjects)
        verdict = shard_verdict(custody.sources[source], shard, content_digest(file))
        assert (verdict == "verified") == bool(lists)
        if named and not lists:
            assert verdict == "altered"
        held = custody.of(source, shard, content_digest(file))
        assert (held is not None) == bool(lists)
        found = [False] * len(TEXTS)
        if held is not None:
            found = covered(digests, leaf_array(Path(held.leaves).read_bytes())).tolist()
        expected = lists[-1] if lists else frozenset()  # the manifest named last counts
        assert found == [text in expected for text in TEXTS]


@settings(max_examples=100, deadline=None)
@given(st.lists(manifests, min_size=1, max_size=3), keyrings.filter(len), st.data())
def test_revoking_more_never_verifies_more(
    folder: Path, signed: list[Signed], keys: list[Trusted], data: st.DataObject
) -> None:
    before = judged(folder, signed, keys, "press")
    if before is None:
        return
    place = data.draw(st.sampled_from(range(len(keys))))
    revoked = [key if n != place else Trusted(**{**vars(key), "revoked": True}) for n, key in enumerate(keys)]
    after = judged(folder, signed, revoked, "press")
    assert after is not None, "what a revocation takes away is no error"
    assert after.sources["press"].subjects.keys() <= before.sources["press"].subjects.keys()


CLAIMS = st.builds(
    Claim,
    rule=st.sampled_from(("raid", "AI-Disclosure", "a card")),
    provenance=st.none() | st.sampled_from([provenance.label for provenance in Provenance]),
    detail=st.just("said"),
    strength=st.sampled_from([strength.label for strength in Strength]),
    kind=st.sampled_from((None, "rephrase", "generated")),
)
ROWS = st.fixed_dictionaries(
    {
        "label": st.sampled_from((None, "human", "human_verified", "ai", "1", "0")),
        "generator": st.sampled_from((None, "human", "gpt-4", "human_verified", "none")),
        "origin": st.lists(CLAIMS, max_size=2).map(pack_claims),
        "artefacts": st.integers(0, 1 << 12),
    }
)
RULES = st.builds(
    SourceRules,
    source=st.just("press"),
    declare=st.sampled_from(("human", "ai_assisted", "unknown")),
    labels=st.sampled_from(((), (("1", "human"), ("0", "synthetic")), (("human_verified", "human"),))),
    license=st.sampled_from((None, "CC-BY-4.0")),
)


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=8), RULES)
def test_metadata_never_verifies_and_never_takes_custody_away(rows: list[dict[str, Any]], rules: SourceRules) -> None:
    """Guarantees 2 and 5 for every row that metadata can make: custody alone decides."""
    table = pa.Table.from_pylist(rows, facts_schema((), 16))
    bare = tag(table, None, None, rules)
    assert Provenance.HUMAN_VERIFIED not in bare.provenance.tolist()
    assert not bare.contested.any()
    held = tag(table, np.ones(len(rows), bool), "detail", rules)
    assert set(held.provenance.tolist()) == {Provenance.HUMAN_VERIFIED}
    assert set(held.before_demotion.tolist()) == {Provenance.HUMAN_VERIFIED}
    for own, proven in zip(bare.evidence.to_pylist(), held.evidence.to_pylist(), strict=True):
        assert [piece for piece in proven if piece["kind"] != "custody"] == own, "custody hides no evidence"
