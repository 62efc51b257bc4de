"""Whom the owner of a mix trusts, and whether a key may vouch for a source: one judgement for runs and for `verify`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.attest import Envelope, key_id, load_public_key
from pipeline.errors import UsageError

__all__ = [
    "AS_OF_MISSING",
    "REVOKED",
    "Purpose",
    "Refusal",
    "Trust",
    "TrustedKey",
    "load_trust",
    "refuse_key",
    "signers",
]

REVOKED = "revoked"
AS_OF_MISSING = "as_of_missing"

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)


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
    def valid_from(self) -> date | None: ...
    @property
    def valid_until(self) -> date | None: ...


@dataclass(frozen=True)
class TrustedKey:
    name: str
    key: Ed25519PublicKey
    sources: frozenset[str] | None
    methods: frozenset[str] | None
    valid_from: date | None
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


@dataclass(frozen=True)
class Refusal:
    """Why something signed does not count. `problem` goes on after the name of the manifest."""

    code: str
    problem: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Purpose:
    """What a manifest is used for: to verify documents of `source` as of `method`."""

    source: str
    method: str


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
            entry.valid_from,
            entry.valid_until,
        )
    return Trust(tuple(loaded.values()), frozenset(map(_plain_digest, revoked)), as_of)


def _public_key(entry: KeyEntry) -> Ed25519PublicKey:
    try:
        return load_public_key(entry.public_key)
    except UsageError as error:
        message = f"trust.keys.{entry.name}.public_key: {error.message}"
        raise UsageError(error.code, message, **error.details) from None


def _restriction(allowed: Collection[str] | None) -> frozenset[str] | None:
    return None if allowed is None else frozenset(allowed)


def _plain_digest(revoked: str) -> str:
    digest = _DIGEST.fullmatch(revoked)
    return digest[1].lower() if digest else revoked


def signers(envelope: Envelope, trust: Trust) -> tuple[TrustedKey, ...]:
    """The trusted keys whose signature the envelope really bears, revoked ones among them."""
    return tuple(key for key in trust.keys if envelope.signed_by(key.key))


def refuse_key(key: TrustedKey, purpose: Purpose, signed_at: date | None, as_of: date | None) -> Refusal | None:
    """Why a trusted key that signed may not vouch for this; None if it may.

    `signed_at` is the day that the manifest itself states. It binds an honest signer only: whoever holds a key can
    write any day, so what has to stop a stolen key is its revocation.
    """
    about = {"key": key.name}
    if key.sources is not None and purpose.source not in key.sources:
        return Refusal(
            "wrong_scope",
            f"is signed by {key.name}, which is trusted for {', '.join(sorted(key.sources))} only. Widen "
            f"trust.keys.{key.name}.sources if it may speak for source {purpose.source!r} too",
            about,
        )
    if key.methods is not None and purpose.method not in key.methods:
        return Refusal(
            "wrong_method",
            f"is used as {purpose.method} and signed by {key.name}, which is trusted for "
            f"{', '.join(sorted(key.methods))} only",
            about | {"method": purpose.method},
        )
    window = about | {"valid_from": _text(key.valid_from), "valid_until": _text(key.valid_until)}
    if (key.valid_from or key.valid_until) and as_of is None:
        return as_of_missing(f"trust.keys.{key.name}", about)
    if key.valid_until is not None and as_of is not None and as_of > key.valid_until:
        return Refusal(
            "key_expired",
            f"is signed by {key.name}, which was valid until {key.valid_until}; as_of is {as_of}. "
            "Have it signed with a valid key",
            window,
        )
    if key.valid_from is not None and as_of is not None and as_of < key.valid_from:
        return Refusal(
            "key_not_yet_valid",
            f"is signed by {key.name}, which is valid from {key.valid_from} on; as_of is {as_of}. "
            "Name a later as_of, or a key that was valid then",
            window,
        )
    if signed_at is not None and not (key.valid_from or signed_at) <= signed_at <= (key.valid_until or signed_at):
        return Refusal(
            "signed_outside_window",
            f"says that it was signed on {signed_at}, when {key.name} was not valid "
            f"({key.valid_from or 'any day'} to {key.valid_until or 'any day'}). Have it signed with a key "
            "of that time",
            window | {"signed_at": str(signed_at)},
        )
    return None


def as_of_missing(dated: str, details: Mapping[str, Any]) -> Refusal:
    return Refusal(
        AS_OF_MISSING,
        f"{dated} carries a date, so the config has to say at which day to judge it: as_of: 2027-01-01. "
        "The clock is never asked, so that a mix can be made again",
        {"dated": dated, **details},
    )


def _text(day: date | None) -> str | None:
    return None if day is None else str(day)
