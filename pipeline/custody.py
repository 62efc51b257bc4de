"""Trust decisions: which shards and documents the signed manifests of a source cover, judged at `as_of`.

A shard is *verified* if its sha256 is a subject of a manifest that its source names, that a trusted key signed for
that source and method, that is valid and not revoked; its documents are human_verified where their digest is also a
leaf of that subject. A shard with a subject's name but other bytes is *altered*. Any other shard is *unlisted*.

What is revoked covers nothing, and says so. Anything else that is wrong with a manifest stops the run: a manifest
that silently covers nothing would look like text that lost its author.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.attest import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Envelope,
    key_id,
    load_public_key,
    parse_envelope,
    parse_json,
    unsafe_name,
)
from pipeline.errors import CustodyFailed, UsageError
from transforms import files
from transforms.kernels.hashing import fingerprint
from transforms.kernels.provenance import leaf_array
from transforms.kernels.schemas import DIGEST_BYTES

if TYPE_CHECKING:
    from pipeline.config import Config
    from transforms.provenance import ShardCustody

__all__ = [
    "ALTERED",
    "UNLISTED",
    "VERIFIED",
    "Custody",
    "Leaves",
    "SourceCustody",
    "Trust",
    "TrustedKey",
    "UsedManifest",
    "decide",
    "load_custody",
    "load_trust",
    "shard_verdict",
    "signers",
]

VERIFIED, ALTERED, UNLISTED = "verified", "altered", "unlisted"

MAX_MANIFEST_BYTES = 64 << 20
"""Some 300,000 files; whoever signs more splits the manifest."""


class KeyEntry(Protocol):
    """A trusted key as the config states it; None does not restrict."""

    @property
    def name(self) -> str: ...
    @property
    def public_key(self) -> str: ...
    @property
    def sources(self) -> Collection[str] | None: ...
    @property
    def methods(self) -> Collection[str] | None: ...
    @property
    def valid_until(self) -> date | None: ...


@dataclass(frozen=True)
class TrustedKey:
    name: str
    key: Ed25519PublicKey
    sources: frozenset[str] | None
    methods: frozenset[str] | None
    valid_until: date | None

    @cached_property
    def key_id(self) -> str:
        return key_id(self.key)


@dataclass(frozen=True)
class Trust:
    """Whom the owner trusts, and the day at which validity is judged."""

    keys: tuple[TrustedKey, ...]
    revoked: frozenset[str]  # names of keys, and digests of manifests or of their payloads
    as_of: date | None

    def is_revoked(self, key: TrustedKey) -> bool:
        """A key is revoked under every name it goes by."""
        return any(other.name in self.revoked and other.key_id == key.key_id for other in self.keys)


def load_trust(keys: Iterable[KeyEntry], revoked: Iterable[str], as_of: date | None) -> Trust:
    """Reads the public keys; UsageError if a name stands twice or a file holds no Ed25519 public key."""
    loaded: dict[str, TrustedKey] = {}
    for entry in keys:
        if entry.name in loaded:
            raise UsageError(
                "duplicate_key",
                f"trust.keys names {entry.name!r} twice; a revocation could not tell the two apart, so rename one",
                key=entry.name,
            )
        loaded[entry.name] = TrustedKey(
            entry.name,
            _public_key(entry),
            _restriction(entry.sources),
            _restriction(entry.methods),
            entry.valid_until,
        )
    return Trust(tuple(loaded.values()), frozenset(name.removeprefix("sha256:") for name in revoked), as_of)


def _public_key(entry: KeyEntry) -> Ed25519PublicKey:
    try:
        return load_public_key(entry.public_key)
    except UsageError as error:
        message = f"trust.keys.{entry.name}.public_key: {error.message}"
        raise UsageError(error.code, message, **error.details) from None


def _restriction(allowed: Collection[str] | None) -> frozenset[str] | None:
    return None if allowed is None else frozenset(allowed)


def signers(envelope: Envelope, trust: Trust) -> tuple[TrustedKey, ...]:
    """The trusted keys whose signature the envelope really bears, revoked ones among them."""
    return tuple(key for key in trust.keys if envelope.signed_by(key.key))


@dataclass(frozen=True)
class Leaves:
    """The signed leaf list of one subject, and under what it counts."""

    path: str
    count: int
    digest: str
    manifest_digest: str
    key: str
    issuer: str | None
    method: str
    column: str

    @property
    def detail(self) -> str:
        """What the evidence of a document that it covers says."""
        issuer = f"issuer {self.issuer}, " if self.issuer else ""
        return f"{self.method}, {issuer}key {self.key}, manifest sha256:{self.manifest_digest}"


@dataclass(frozen=True)
class UsedManifest:
    """A manifest that covers something: what a published mix has to carry along to be checked again."""

    path: str
    digest: str
    key: str
    method: str
    issuer: str | None
    leaf_lists: tuple[tuple[str, str], ...]  # name in the manifest, path


@dataclass(frozen=True)
class SourceCustody:
    """Everything that the manifests of one source cover."""

    source: str
    subjects: Mapping[str, Leaves]  # by sha256 of the file, in hex
    names: Mapping[str, frozenset[str]]  # of subjects, to the digests signed under that name
    manifests: tuple[UsedManifest, ...] = ()
    warnings: tuple[str, ...] = ()

    @cached_property
    def _names_by_base(self) -> Mapping[str, tuple[str, ...]]:
        by_base: dict[str, list[str]] = {}
        for name in self.names:
            by_base.setdefault(name.rpartition("/")[2], []).append(name)
        return {base: tuple(names) for base, names in by_base.items()}

    def names_like(self, shard: str) -> tuple[str, ...]:
        """Subjects that may be this shard, named from a folder further up or further down."""
        candidates = self._names_by_base.get(shard.rpartition("/")[2], ())
        return tuple(
            name for name in candidates if f"/{shard}".endswith(f"/{name}") or f"/{name}".endswith(f"/{shard}")
        )


def shard_verdict(
    custody: SourceCustody, shard_name: str, file_sha256: str, present: Collection[str] = frozenset()
) -> str:
    """'verified', 'altered' or 'unlisted'.

    `present` holds the digests of all shards of the source, where they are known. A subject whose own bytes are still
    there under another name was not altered: a new file merely shares the last part of its name, as `part-0.parquet`
    does in every folder.
    """
    if file_sha256 in custody.subjects:
        return VERIFIED
    if shard_name in custody.names:
        return ALTERED
    alike = custody.names_like(shard_name)
    return ALTERED if any(custody.names[name].isdisjoint(present) for name in alike) else UNLISTED


def decide(source: str, method: str, manifests: Sequence[str], trust: Trust) -> SourceCustody:
    """Verifies the manifests of one source and joins what they cover; CustodyFailed says which one fails, and why."""
    subjects: dict[str, Leaves] = {}
    names: dict[str, set[str]] = {}
    used: list[UsedManifest] = []
    warnings: list[str] = []
    for path in manifests:
        signed = _open(path, source, method, trust)
        if isinstance(signed, str):
            warnings.append(signed)
            continue
        used.append(signed.manifest)
        for digest, leaves in signed.subjects.items():
            earlier = subjects.setdefault(digest, leaves)
            if earlier.digest != leaves.digest:
                raise _Failure(path, source).because(
                    "conflicting_leaves",
                    f"and another manifest of the source (sha256:{earlier.manifest_digest}) sign the same file with "
                    f"other leaves, of columns {leaves.column!r} and {earlier.column!r}; name only one of the two",
                    subject=digest,
                )
        for name, digest in signed.names:
            names.setdefault(name, set()).add(digest)
    frozen = {name: frozenset(digests) for name, digests in names.items()}
    return SourceCustody(source, subjects, frozen, tuple(used), tuple(warnings))


@dataclass(frozen=True)
class _Signed:
    manifest: UsedManifest
    subjects: Mapping[str, Leaves]
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Failure:
    """Raises errors that name the manifest and its source."""

    path: str
    source: str

    def because(self, code: str, problem: str, **details: Any) -> CustodyFailed:
        message = f"sources.{self.source}.custody: {self.path} {problem}"
        return CustodyFailed(code, message, manifest=self.path, source=self.source, **details)

    @contextlib.contextmanager
    def reading(self, code: str, what: str) -> Iterator[None]:
        """Turns the ValueErrors of readers into diagnoses."""
        try:
            yield
        except ValueError as error:
            raise self.because(
                code, f"{what}: {error}. Ask its issuer for a whole copy, or have it attested anew"
            ) from None


def _open(path: str, source: str, method: str, trust: Trust) -> _Signed | str:
    """What one manifest covers, or, where it was revoked, a sentence that says so."""
    fail = _Failure(path, source)
    content = _manifest_bytes(fail)
    with fail.reading("bad_manifest", "is no signed manifest"):
        envelope = parse_envelope(content)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise fail.because(
            "wrong_payload_type",
            f"holds a payload of type {envelope.payload_type!r}; a custody manifest's is {PAYLOAD_TYPE!r}",
            payload_type=envelope.payload_type,
        )
    manifest_digest = hashlib.sha256(content).hexdigest()
    # The payload's digest as well: white space or another signature changes the envelope, never what was signed.
    if trust.revoked & {manifest_digest, hashlib.sha256(envelope.payload).hexdigest()}:
        return f"sources.{source}.custody: {path} (sha256:{manifest_digest}) is revoked and covers nothing"
    found = signers(envelope, trust)
    if not found:
        raise _not_signed(fail, envelope, trust)
    keys = [key for key in found if not trust.is_revoked(key)]
    if not keys:
        return f"sources.{source}.custody: {path} is signed by {found[0].name}, which is revoked, and covers nothing"
    with fail.reading("bad_statement", "is signed, but its statement cannot be used"):
        statement = _Statement.parse(envelope.payload)
    key = _accepting(keys, source, method, trust, fail)
    _accept_statement(statement, source, method, trust, fail, key)
    return _read_leaves(statement, manifest_digest, key, fail)


def _manifest_bytes(fail: _Failure) -> bytes:
    try:
        content = _read_at_most(fail.path, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise UsageError(
            "manifest_missing",
            f"sources.{fail.source}.custody.manifest: {fail.path} cannot be read ({error.strerror or error}); "
            "name a manifest that `anchormix attest` wrote",
            manifest=fail.path,
            source=fail.source,
        ) from None
    if len(content) > MAX_MANIFEST_BYTES:
        raise fail.because(
            "manifest_too_large",
            f"is larger than {MAX_MANIFEST_BYTES >> 20} MiB; attest the files in several manifests",
            limit=MAX_MANIFEST_BYTES,
        )
    return content


def _read_at_most(path: str, limit: int) -> bytes:
    """The file, or as much of it as shows that it is larger."""
    with contextlib.closing(files.open_input(path)) as source:
        content: bytes = source.read(limit + 1)
        return content


def _not_signed(fail: _Failure, envelope: Envelope, trust: Trust) -> CustodyFailed:
    stated = [stated for stated, _ in envelope.signatures]
    claimed = [key.name for key in trust.keys if key.key_id in stated]
    if claimed:
        return fail.because(
            "bad_signature",
            f"says that {claimed[0]} signed it, but the signature does not fit: it was changed after signing. "
            "Fetch it again from its issuer",
            key=claimed[0],
        )
    trusted = ", ".join(key.name for key in trust.keys) or "none"
    return fail.because(
        "untrusted_key",
        f"is signed by no trusted key (it names {', '.join(filter(None, stated)) or 'none'}; trusted: {trusted}). "
        "If its signer deserves it, add the public key to trust.keys",
        key_ids=stated,
        trusted=[key.name for key in trust.keys],
    )


def _accepting(keys: Sequence[TrustedKey], source: str, method: str, trust: Trust, fail: _Failure) -> TrustedKey:
    """The first of the signing keys that may speak for the source; otherwise what is wrong with the first."""
    refusals = []
    for key in keys:
        refusal = _refusal(key, source, method, trust, fail)
        if refusal is None:
            return key
        refusals.append(refusal)
    raise refusals[0]


def _refusal(key: TrustedKey, source: str, method: str, trust: Trust, fail: _Failure) -> CustodyFailed | None:
    if key.sources is not None and source not in key.sources:
        allowed = ", ".join(sorted(key.sources))
        return fail.because(
            "wrong_scope",
            f"is signed by {key.name}, which is trusted for {allowed} only. Widen trust.keys.{key.name}.sources if it "
            "may speak for this source too",
            key=key.name,
        )
    if key.methods is not None and method not in key.methods:
        allowed = ", ".join(sorted(key.methods))
        return fail.because(
            "wrong_method",
            f"is used as {method} and signed by {key.name}, which is trusted for {allowed} only",
            key=key.name,
            method=method,
        )
    if key.valid_until is not None and _day(trust, f"trust.keys.{key.name}") > key.valid_until:
        return fail.because(
            "key_expired",
            f"is signed by {key.name}, which was valid until {key.valid_until}; as_of is {trust.as_of}. "
            "Have it signed with a valid key",
            key=key.name,
            valid_until=str(key.valid_until),
        )
    return None


def _day(trust: Trust, dated: str) -> date:
    if trust.as_of is None:
        raise UsageError(
            "as_of_missing",
            f"{dated} carries a date, so the config has to say at which day to judge it: as_of: 2027-01-01. "
            "The clock is never asked, so that a mix can be made again",
            dated=dated,
        )
    return trust.as_of


@dataclass(frozen=True)
class _Subject:
    name: str
    digest: str


@dataclass(frozen=True)
class _LeafList:
    subject: str
    documents: int
    digest: str
    file: str


@dataclass(frozen=True)
class _Statement:
    method: str
    column: str
    source: str | None
    issuer: str | None
    valid_until: date | None
    subjects: tuple[_Subject, ...]
    leaf_lists: tuple[_LeafList, ...]

    @classmethod
    def parse(cls, payload: bytes) -> _Statement:
        """ValueError names the member that is missing or wrong."""
        statement = _Members(parse_json(payload), "the statement")
        for member, wanted in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
            if (stated := statement.text(member)) != wanted:
                raise ValueError(f"`{member}` is {stated!r}; a custody statement's is {wanted!r}")
        predicate = statement.members("predicate")
        subjects = tuple(
            _Subject(_safe(entry.text("name"), "a subject"), entry.members("digest").digest("sha256"))
            for entry in statement.each("subject")
        )
        leaf_lists = tuple(
            _LeafList(
                entry.digest("subject"),
                entry.count("documents"),
                entry.digest("sha256"),
                _safe(entry.text("file"), "a leaf list"),
            )
            for entry in predicate.each("leaves")
        )
        _check_names(subjects, leaf_lists)
        valid_until = predicate.optional("valid_until")
        return cls(
            predicate.text("method"),
            predicate.text("column"),
            predicate.optional("source"),
            predicate.optional("issuer"),
            None if valid_until is None else date.fromisoformat(valid_until),
            subjects,
            leaf_lists,
        )


def _safe(name: str, what: str) -> str:
    if problem := unsafe_name(name):
        raise ValueError(f"{what} is named {name!r}, which {problem}")
    return name


def _check_names(subjects: tuple[_Subject, ...], leaf_lists: tuple[_LeafList, ...]) -> None:
    digests: dict[str, str] = {}
    for subject in subjects:
        if digests.setdefault(subject.name, subject.digest) != subject.digest:
            raise ValueError(f"subject {subject.name!r} stands twice, with different digests")
    listed = [entry.subject for entry in leaf_lists]
    if len(set(listed)) < len(listed):
        raise ValueError("a subject has two leaf lists")
    if without := set(digests.values()) ^ set(listed):
        raise ValueError(f"subjects and leaf lists do not belong together: {min(without)} has only one of the two")


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

    def optional(self, name: str) -> str | None:
        return None if self._value.get(name) is None else self.text(name)

    def digest(self, name: str) -> str:
        value = self.text(name)
        if len(value) != 2 * DIGEST_BYTES or not set(value) <= set("0123456789abcdef"):
            raise ValueError(f"`{name}` of {self._place} must be a sha256 in {2 * DIGEST_BYTES} lower-case hex digits")
        return value

    def count(self, name: str) -> int:
        value: int = self._get(name, int, "a whole number")
        if value < 0:
            raise ValueError(f"`{name}` of {self._place} must not be negative")
        return value

    def members(self, name: str) -> _Members:
        return _Members(self._get(name, dict, "an object"), f"`{name}`")

    def each(self, name: str) -> list[_Members]:
        entries = self._get(name, list, "a list")
        if not entries:
            raise ValueError(f"`{name}` of {self._place} is empty")
        return [_Members(entry, f"`{name}[{place}]`") for place, entry in enumerate(entries)]


def _accept_statement(
    statement: _Statement, source: str, method: str, trust: Trust, fail: _Failure, key: TrustedKey
) -> None:
    if statement.method != method:
        raise fail.because(
            "wrong_method",
            f"vouches for {statement.method}, but the source's custody.method is {method}; name what was signed",
            key=key.name,
            method=statement.method,
        )
    if statement.source is not None and statement.source != source:
        raise fail.because(
            "wrong_scope",
            f"was signed for source {statement.source!r} and for no other; have it attested for {source!r}",
            key=key.name,
        )
    if statement.valid_until is not None and _day(trust, fail.path) > statement.valid_until:
        raise fail.because(
            "manifest_expired",
            f"was valid until {statement.valid_until}; as_of is {trust.as_of}. Have it attested anew",
            key=key.name,
            valid_until=str(statement.valid_until),
        )


def _read_leaves(statement: _Statement, manifest_digest: str, key: TrustedKey, fail: _Failure) -> _Signed:
    folder, slash, _ = fail.path.rpartition("/")
    subjects = {}
    for entry in statement.leaf_lists:
        path = f"{folder}{slash}{entry.file}"
        _check_leaf_list(entry, path, fail, key)
        subjects[entry.subject] = Leaves(
            path,
            entry.documents,
            entry.digest,
            manifest_digest,
            key.name,
            statement.issuer,
            statement.method,
            statement.column,
        )
    lists = tuple((entry.file, subjects[entry.subject].path) for entry in statement.leaf_lists)
    used = UsedManifest(fail.path, manifest_digest, key.name, statement.method, statement.issuer, lists)
    return _Signed(used, subjects, tuple((subject.name, subject.digest) for subject in statement.subjects))


def _check_leaf_list(entry: _LeafList, path: str, fail: _Failure, key: TrustedKey) -> None:
    about = {"key": key.name, "subject": entry.subject, "leaf_list": path}
    size = entry.documents * DIGEST_BYTES
    try:
        content = _read_at_most(path, size)
    except OSError as error:
        raise fail.because(
            "leaf_list_missing",
            f"names the leaf list {path}, which cannot be read ({error.strerror or error}); keep the folder of leaf "
            "lists beside the manifest",
            **about,
        ) from None
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content):,} bytes"
        raise fail.because(
            "leaf_list_changed",
            f"signs {entry.documents:,} leaves ({size:,} bytes) in {path}, which has {found}; fetch it again",
            **about,
        )
    if hashlib.sha256(content).hexdigest() != entry.digest:
        raise fail.because(
            "leaf_list_changed", f"signs {path} with another sha256 than the file has; fetch it again", **about
        )
    try:
        leaf_array(content)
    except ValueError as error:
        raise fail.because("leaf_list_unsorted", f"signs {path}, but {error}", **about) from None


@dataclass(frozen=True)
class Custody:
    """The custody of all sources; sources without any have unlisted shards only."""

    sources: Mapping[str, SourceCustody]

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(warning for custody in self.sources.values() for warning in custody.warnings)

    @cached_property
    def key(self) -> str:
        """Changes whenever a document's provenance or evidence could."""
        covered = [
            (source, subject, leaves.digest, leaves.detail)
            for source, custody in sorted(self.sources.items())
            for subject, leaves in sorted(custody.subjects.items())
        ]
        return fingerprint(json.dumps(covered))

    def verdict(self, source: str, shard_name: str, file_sha256: str, present: Collection[str] = frozenset()) -> str:
        custody = self.sources.get(source)
        return UNLISTED if custody is None else shard_verdict(custody, shard_name, file_sha256, present)

    def of(self, source: str, shard_name: str, file_sha256: str) -> ShardCustody | None:
        """What the documents of a shard are checked against; None where it is not verified."""
        from transforms.provenance import ShardCustody

        leaves = self._leaves(source, file_sha256)
        return ShardCustody(leaves.path, leaves.detail) if leaves else None

    def manifest_of(self, source: str, file_sha256: str) -> str | None:
        """sha256 of the manifest that verifies a shard."""
        leaves = self._leaves(source, file_sha256)
        return leaves.manifest_digest if leaves else None

    def _leaves(self, source: str, file_sha256: str) -> Leaves | None:
        custody = self.sources.get(source)
        return custody.subjects.get(file_sha256) if custody else None


def load_custody(config: Config) -> Custody:
    """Reads the keys and verifies every manifest that the config names."""
    trust = load_trust(config.trust.keys, config.trust.revoked, config.as_of)
    return Custody(
        {
            source.name: decide(source.name, source.custody.method, source.custody.manifest, trust)
            for source in config.sources
            if source.custody is not None
        }
    )
