"""Custody: which shards and documents the signed manifests of a source cover, judged at `as_of`.

A shard is *verified* if its sha256 is a subject of a manifest that its source names, that a trusted key signed for
that source and method, that is valid and not revoked; its documents are human_verified where their digest is also a
leaf of that subject. A shard with a subject's name but other bytes is *altered*. Any other shard is *unlisted*.
Where several manifests of a source sign the same bytes, the one named last counts.

What is revoked covers nothing, and says so. Anything else that is wrong with a manifest stops the run: a manifest
that silently covers nothing would look like text that lost its author.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.custody_manifest import MAX_MANIFEST_BYTES, LeafList, SignedManifest, judge
from pipeline.errors import AnchormixError, CustodyFailed, UsageError
from pipeline.trust import AS_OF_MISSING, REVOKED, Purpose, Refusal, Trust, load_trust
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
    "Altered",
    "Custody",
    "Leaves",
    "SourceCustody",
    "UsedManifest",
    "altered_shards",
    "changed_meanwhile",
    "decide",
    "load_custody",
    "shard_verdict",
    "signed_bytes",
]

VERIFIED, ALTERED, UNLISTED = "verified", "altered", "unlisted"

_BLOCK = 8 << 20


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
    subjects: tuple[tuple[str, str], ...]  # name, sha256 of the file


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
    used: dict[str, UsedManifest] = {}
    warnings: list[str] = []
    for path in manifests:
        about = _About(path, source)
        signed = judge(_manifest_bytes(about), Purpose(source, method), trust)
        if isinstance(signed, Refusal) and signed.code == REVOKED:
            warnings.append(about.told(signed.problem))
            continue
        if isinstance(signed, Refusal):
            raise about.error(signed)
        if signed.digest in used:
            continue  # the same bytes, named twice
        covered = _read_leaves(signed, about)
        changed = [digest for digest, leaves in covered.items() if _other_leaves(subjects.get(digest), leaves)]
        if changed:
            warnings.append(_superseded(about, changed, subjects, covered))
        subjects.update(covered)
        used[signed.digest] = _used(signed, path, covered)
        for subject in signed.statement.subjects:
            names.setdefault(subject.name, set()).add(subject.digest)
    counting = {leaves.manifest_digest for leaves in subjects.values()}
    return SourceCustody(
        source,
        subjects,
        {name: frozenset(digests) for name, digests in names.items()},
        tuple(manifest for digest, manifest in used.items() if digest in counting),
        tuple(warnings),
    )


def _other_leaves(earlier: Leaves | None, later: Leaves) -> bool:
    return earlier is not None and earlier.digest != later.digest


def _superseded(
    about: _About, digests: Sequence[str], earlier: Mapping[str, Leaves], later: Mapping[str, Leaves]
) -> str:
    first = min(digests)
    was, now = earlier[first], later[first]
    return about.told(
        f"signs other leaves for {len(digests):,} files than sha256:{was.manifest_digest}, which the source names "
        f"before it, so its leaves count (file {first}: {was.count:,} documents of column {was.column!r} before, "
        f"{now.count:,} of column {now.column!r} now)"
    )


@dataclass(frozen=True)
class _About:
    """Words and errors that name the manifest and its source."""

    path: str
    source: str

    def told(self, problem: str) -> str:
        return f"sources.{self.source}.custody: {self.path} {problem}"

    def error(self, refusal: Refusal) -> AnchormixError:
        details = {**refusal.details, "manifest": self.path, "source": self.source}
        if refusal.code == AS_OF_MISSING:
            return UsageError(refusal.code, self.told(f"cannot be judged: {refusal.problem}"), **details)
        return CustodyFailed(refusal.code, self.told(refusal.problem), **details)


def _manifest_bytes(about: _About) -> bytes:
    try:
        return _read_at_most(about.path, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise UsageError(
            "manifest_missing",
            f"sources.{about.source}.custody.manifest: {about.path} cannot be read ({error.strerror or error}); "
            "name a manifest that `anchormix attest` wrote",
            manifest=about.path,
            source=about.source,
        ) from None


def _read_at_most(path: str, limit: int) -> bytes:
    """The file, or as much of it as shows that it is larger. Reads in blocks: `limit` may be any number."""
    blocks = []
    left = limit + 1
    with contextlib.closing(files.open_input(path)) as source:
        while left > 0 and (block := source.read(min(left, _BLOCK))):
            blocks.append(block)
            left -= len(block)
    return b"".join(blocks)


def _read_leaves(signed: SignedManifest, about: _About) -> dict[str, Leaves]:
    """What a manifest covers, every leaf list checked."""
    folder, slash, _ = about.path.rpartition("/")
    statement = signed.statement
    covered = {}
    for entry in statement.leaf_lists:
        path = f"{folder}{slash}{entry.file}"
        if refusal := _refuse_leaf_list(entry, path, signed.key.name):
            raise about.error(refusal)
        covered[entry.subject] = Leaves(
            path=path,
            count=entry.documents,
            digest=entry.digest,
            manifest_digest=signed.digest,
            key=signed.key.name,
            issuer=statement.issuer,
            method=statement.method,
            column=statement.column,
        )
    return covered


def _used(signed: SignedManifest, path: str, covered: Mapping[str, Leaves]) -> UsedManifest:
    statement = signed.statement
    lists = tuple((entry.file, covered[entry.subject].path) for entry in statement.leaf_lists)
    subjects = tuple((subject.name, subject.digest) for subject in statement.subjects)
    return UsedManifest(path, signed.digest, signed.key.name, statement.method, statement.issuer, lists, subjects)


def _refuse_leaf_list(entry: LeafList, path: str, key: str) -> Refusal | None:
    about = {"key": key, "subject": entry.subject, "leaf_list": path}
    where = f"(signed by {key}), of subject {entry.subject}:"
    size = entry.documents * DIGEST_BYTES
    try:
        content = _read_at_most(path, size)
    except OSError as error:
        return Refusal(
            "leaf_list_missing",
            f"{where} the leaf list {path} cannot be read ({error.strerror or error}); keep the folder of leaf lists "
            "beside the manifest",
            about,
        )
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content):,} bytes"
        return Refusal(
            "leaf_list_changed",
            f"{where} it signs {entry.documents:,} leaves ({size:,} bytes) in {path}, which has {found}; "
            "fetch it again",
            about,
        )
    if hashlib.sha256(content).hexdigest() != entry.digest:
        return Refusal(
            "leaf_list_changed", f"{where} it signs {path} with another sha256 than the file has; fetch it again", about
        )
    try:
        leaf_array(content)
    except ValueError as error:
        return Refusal("leaf_list_unsorted", f"{where} it signs {path}, but {error}", about)
    return None


def signed_bytes(path: str, digest: str) -> bytes:
    """A manifest or leaf list read once more; CustodyFailed if it is no longer what was judged."""
    try:
        content = files.read_bytes(path)
    except OSError as error:
        raise changed_meanwhile([path], error.strerror or str(error)) from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise changed_meanwhile([path], "its bytes are others now")
    return content


def changed_meanwhile(paths: Sequence[str], why: str) -> CustodyFailed:
    return CustodyFailed(
        "custody_changed",
        f"{', '.join(paths[:5])} changed while the run was using it ({why}). Run the same command again once nothing "
        "writes there",
        paths=list(paths),
    )


@dataclass(frozen=True)
class Altered:
    """A shard that has the name of a signed file and other bytes, with what was signed under that name."""

    shard: str
    manifest: str
    key: str
    subject: str

    def __str__(self) -> str:
        return f"{self.shard} (subject {self.subject} of {self.manifest}, signed by {self.key})"


@dataclass(frozen=True)
class Custody:
    """The custody of all sources; sources without any have unlisted shards only."""

    sources: Mapping[str, SourceCustody]
    trust: Trust

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
        return ShardCustody(leaves.path, leaves.digest, leaves.detail) if leaves else None

    def altered(self, source: str, shard_name: str) -> Altered:
        """What was signed under the name of a shard whose verdict is `altered`."""
        custody = self.sources[source]
        name = shard_name if shard_name in custody.names else min(custody.names_like(shard_name))
        for used in custody.manifests:
            if name in dict(used.subjects):
                return Altered(shard_name, used.path, used.key, name)
        return Altered(shard_name, "a manifest superseded since", "a trusted key", name)

    def manifest_of(self, source: str, file_sha256: str) -> str | None:
        """sha256 of the manifest that verifies a shard."""
        leaves = self._leaves(source, file_sha256)
        return leaves.manifest_digest if leaves else None

    def _leaves(self, source: str, file_sha256: str) -> Leaves | None:
        custody = self.sources.get(source)
        return custody.subjects.get(file_sha256) if custody else None


_SHOWN = 5


def altered_shards(custody: Custody, source: str, shards: Sequence[str]) -> CustodyFailed:
    """The diagnosis for shards that changed after signing."""
    found = [custody.altered(source, shard) for shard in shards]
    more = f" and {len(found) - _SHOWN:,} more" if found[_SHOWN:] else ""
    return CustodyFailed(
        "altered_shard",
        f"sources.{source}.custody: changed after signing: {', '.join(map(str, found[:_SHOWN]))}{more}. Restore the "
        "signed files, have their custodian sign these, or set on_mismatch: demote to use them as unverified.",
        source=source,
        shards=list(shards),
        manifest=found[0].manifest,
        key=found[0].key,
        subject=found[0].subject,
    )


def load_custody(config: Config) -> Custody:
    """Reads the keys and verifies every manifest that the config names."""
    trust = load_trust(config.trust.keys, config.trust.revoked, config.as_of)
    return Custody(
        {
            source.name: decide(source.name, source.custody.method, source.custody.manifest, trust)
            for source in config.sources
            if source.custody is not None
        },
        trust,
    )
