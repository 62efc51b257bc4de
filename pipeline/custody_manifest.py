"""One custody manifest: its bytes, judged for a purpose, to what it signs or to why it does not count."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from pipeline.attest import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Envelope,
    parse_envelope,
    parse_json,
    unsafe_line,
    unsafe_name,
)
from pipeline.trust import REVOKED, Purpose, Refusal, Trust, TrustedKey, as_of_missing, refuse_key, signers
from transforms.kernels.schemas import DIGEST_BYTES

__all__ = ["MAX_MANIFEST_BYTES", "LeafList", "SignedManifest", "Statement", "Subject", "is_digest", "judge"]

MAX_MANIFEST_BYTES = 64 << 20
"""Some 300,000 files; whoever signs more splits the manifest."""

_MOST_DOCUMENTS = 1 << 32  # of one file: their digests alone would take 128 GiB

_ASK_AGAIN = "Ask its issuer for a whole copy, or have it attested anew"


@dataclass(frozen=True)
class Subject:
    name: str
    digest: str


@dataclass(frozen=True)
class LeafList:
    subject: str
    documents: int
    digest: str
    file: str


@dataclass(frozen=True)
class SignedManifest:
    """A manifest that counts for the purpose it was judged for, and the trusted key that speaks for it."""

    digest: str
    key: TrustedKey
    statement: Statement


def judge(content: bytes, purpose: Purpose, trust: Trust) -> SignedManifest | Refusal:
    """What a manifest signs, once its signature, key, scope, method and days have all been found right."""
    if len(content) > MAX_MANIFEST_BYTES:
        problem = f"is larger than {MAX_MANIFEST_BYTES >> 20} MiB; attest the files in several manifests"
        return Refusal("manifest_too_large", problem, {"limit": MAX_MANIFEST_BYTES})
    try:
        envelope = parse_envelope(content)
    except ValueError as error:
        return Refusal("bad_manifest", f"is not a signed manifest: {error}. {_ASK_AGAIN}")
    if envelope.payload_type != PAYLOAD_TYPE:
        return Refusal(
            "wrong_payload_type",
            f"holds a payload of type {envelope.payload_type!r}; a custody manifest's is {PAYLOAD_TYPE!r}",
            {"payload_type": envelope.payload_type},
        )
    digest = hashlib.sha256(content).hexdigest()
    # The payload's digest as well: white space or another signature changes the envelope, never what was signed.
    if trust.revoked & {digest, hashlib.sha256(envelope.payload).hexdigest()}:
        return Refusal(REVOKED, f"(sha256:{digest}) is revoked and covers nothing")
    found = signers(envelope, trust)
    if not found:
        return _not_signed(envelope, trust)
    keys = [key for key in found if not trust.is_revoked(key)]
    if not keys:
        problem = f"is signed by {found[0].name}, which is revoked, and covers nothing"
        return Refusal(REVOKED, problem, {"key": found[0].name})
    try:
        statement = Statement.parse(envelope.payload)
    except ValueError as error:
        about = {"key": keys[0].name, "subject": error.subject if isinstance(error, _AboutSubject) else None}
        problem = f"is signed by {keys[0].name}, but its statement cannot be used: {error}. {_ASK_AGAIN}"
        return Refusal("bad_statement", problem, about)
    refusals = [refuse_key(key, purpose, statement.signed_at, trust.as_of) for key in keys]
    if None not in refusals:
        return next(refusal for refusal in refusals if refusal is not None)
    key = keys[refusals.index(None)]
    return _refuse_statement(statement, purpose, trust, key) or SignedManifest(digest, key, statement)


def _not_signed(envelope: Envelope, trust: Trust) -> Refusal:
    stated = [stated for stated, _ in envelope.signatures]
    claimed = [key.name for key in trust.keys if key.key_id in stated]
    if claimed:
        return Refusal(
            "bad_signature",
            f"says that {claimed[0]} signed it, but the signature does not fit: it was changed after signing, or "
            "another key made it. Fetch it again from its issuer",
            {"key": claimed[0]},
        )
    trusted = ", ".join(key.name for key in trust.keys) or "none"
    return Refusal(
        "untrusted_key",
        f"is signed by no trusted key (it names {', '.join(map(repr, filter(None, stated))) or 'none'}; trusted: "
        f"{trusted}). If its signer deserves it, add the public key to trust.keys",
        {"key_ids": stated, "trusted": [key.name for key in trust.keys]},
    )


def _refuse_statement(statement: Statement, purpose: Purpose, trust: Trust, key: TrustedKey) -> Refusal | None:
    about = {"key": key.name}
    if statement.method != purpose.method:
        return Refusal(
            "wrong_method",
            f"vouches for {statement.method}, but the source's custody.method is {purpose.method}; name what was "
            f"signed (by {key.name})",
            about | {"method": statement.method},
        )
    if statement.source is not None and statement.source != purpose.source:
        return Refusal(
            "wrong_scope",
            f"was signed by {key.name} for source {statement.source!r} and for no other; have it attested for "
            f"{purpose.source!r}",
            about,
        )
    dated = statement.signed_at or statement.valid_until
    if dated is not None and trust.as_of is None:
        return as_of_missing("it", about)
    if statement.valid_until is not None and trust.as_of is not None and trust.as_of > statement.valid_until:
        return Refusal(
            "manifest_expired",
            f"(signed by {key.name}) was valid until {statement.valid_until}; as_of is {trust.as_of}. Have it attested "
            "anew",
            about | {"valid_until": str(statement.valid_until)},
        )
    if statement.signed_at is not None and trust.as_of is not None and trust.as_of < statement.signed_at:
        return Refusal(
            "signed_later",
            f"says that {key.name} signed it on {statement.signed_at}, after as_of, which is {trust.as_of}. Name a "
            "later as_of, or the manifest that stood then",
            about | {"signed_at": str(statement.signed_at)},
        )
    return None


class _AboutSubject(ValueError):
    """Something is wrong with one subject."""

    def __init__(self, problem: str, subject: str) -> None:
        super().__init__(problem)
        self.subject = subject


@dataclass(frozen=True)
class Statement:
    """The in-toto statement inside; what it does not say does not restrict."""

    method: str
    column: str
    source: str | None
    issuer: str | None
    signed_at: date | None
    valid_until: date | None
    subjects: tuple[Subject, ...]
    leaf_lists: tuple[LeafList, ...]

    @cached_property
    def by_subject(self) -> Mapping[str, LeafList]:
        return {entry.subject: entry for entry in self.leaf_lists}

    @classmethod
    def parse(cls, payload: bytes) -> Statement:
        """ValueError names the member that is missing or wrong."""
        statement = _Members(parse_json(payload), "the statement")
        for member, wanted in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
            if (stated := statement.text(member)) != wanted:
                raise ValueError(f"`{member}` is {stated!r}; a custody statement's is {wanted!r}")
        predicate = statement.members("predicate")
        subjects = tuple(
            Subject(_safe(entry.text("name"), "a subject"), entry.members("digest").digest("sha256"))
            for entry in statement.each("subject")
        )
        leaf_lists = tuple(
            LeafList(
                entry.digest("subject"),
                entry.count("documents", _MOST_DOCUMENTS),
                entry.digest("sha256"),
                _safe(entry.text("file"), "a leaf list"),
            )
            for entry in predicate.each("leaves")
        )
        _check_names(subjects, leaf_lists)
        return cls(
            method=predicate.line("method"),
            column=predicate.line("column"),
            source=predicate.optional("source"),
            issuer=predicate.optional("issuer"),
            signed_at=predicate.day("signed_at"),
            valid_until=predicate.day("valid_until"),
            subjects=subjects,
            leaf_lists=leaf_lists,
        )


def is_digest(name: str) -> bool:
    return len(name) == 2 * DIGEST_BYTES and set(name) <= set("0123456789abcdef")


def _safe(name: str, what: str) -> str:
    if problem := unsafe_name(name):
        raise _AboutSubject(f"{what} is named {name!r}, which {problem}", name)
    return name


def _check_names(subjects: Sequence[Subject], leaf_lists: Sequence[LeafList]) -> None:
    digests: dict[str, str] = {}
    for subject in subjects:
        if subject.name in digests:
            alike = "the same digest" if digests[subject.name] == subject.digest else "different digests"
            raise _AboutSubject(f"subject {subject.name!r} stands twice, with {alike}", subject.name)
        digests[subject.name] = subject.digest
    listed: set[str] = set()
    for entry in leaf_lists:
        if entry.subject in listed:
            raise _AboutSubject(f"subject {entry.subject} has two leaf lists", entry.subject)
        listed.add(entry.subject)
    if without := set(digests.values()) ^ listed:
        lone = min(without)
        raise _AboutSubject(f"subjects and leaf lists do not belong together: {lone} has only one of the two", lone)


class _Members:
    """Typed access to a JSON object whose shape nobody has checked."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{place} must be an object")
        self._value = value
        self._place = place

    def _get(self, name: str, kind: type, says: str) -> Any:
        value = self._value.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"`{name}` of {self._place} must be {says}")
        return value

    def text(self, name: str) -> str:
        value: str = self._get(name, str, "text")
        return value

    def line(self, name: str) -> str:
        """Text that evidence and reports repeat."""
        value = self.text(name)
        if problem := unsafe_line(value):
            raise ValueError(f"`{name}` of {self._place} {problem}")
        return value

    def optional(self, name: str) -> str | None:
        return None if self._value.get(name) is None else self.line(name)

    def day(self, name: str) -> date | None:
        stated = self.optional(name)
        try:
            return None if stated is None else date.fromisoformat(stated)
        except ValueError:
            raise ValueError(f"`{name}` of {self._place} is {stated!r}, which is no day such as 2027-01-01") from None

    def digest(self, name: str) -> str:
        value = self.text(name)
        if not is_digest(value):
            raise ValueError(f"`{name}` of {self._place} must be a sha256 in {2 * DIGEST_BYTES} lower-case hex digits")
        return value

    def count(self, name: str, most: int) -> int:
        value: int = self._get(name, int, "a whole number")
        if value < 0:
            raise ValueError(f"`{name}` of {self._place} must not be negative")
        if value > most:
            raise ValueError(f"`{name}` of {self._place} is larger than {most:,}")
        return value

    def members(self, name: str) -> _Members:
        return _Members(self._get(name, dict, "an object"), f"`{name}`")

    def each(self, name: str) -> list[_Members]:
        entries = self._get(name, list, "a list")
        if not entries:
            raise ValueError(f"`{name}` of {self._place} is empty")
        return [_Members(entry, f"`{name}[{place}]`") for place, entry in enumerate(entries)]
