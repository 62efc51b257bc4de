"""Signing: key pairs, DSSE envelopes, and manifests that vouch for files document by document.

A manifest is an in-toto statement: its subjects are the sha256 of whole files, and for every subject it names a leaf
list, the sorted sha256 of each document's raw text. So both what a file is and what each document says are signed,
and one document can be checked without the file it came from.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from pipeline.config_sources import METHODS
from pipeline.errors import BadInput, UsageError
from pipeline.object_stores import input_error
from transforms import files as storage
from transforms.kernels.hashing import text_digests
from transforms.kernels.schemas import DIGEST_BYTES

__all__ = [
    "PAYLOAD_TYPE",
    "PREDICATE_TYPE",
    "STATEMENT_TYPE",
    "Envelope",
    "attest",
    "key_id",
    "load_private_key",
    "load_public_key",
    "parse_envelope",
    "parse_json",
    "sign_envelope",
    "unsafe_line",
    "unsafe_name",
    "write_keypair",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:x-anchormix:custody:v1"

_MOST_SIGNATURES = 64

ReadTexts = Callable[[str, str], Iterator[pa.Array]]
"""A path and a column to the texts of that file, batch by batch, null where a row has none."""


def write_keypair(name: str | os.PathLike[str]) -> tuple[Path, Path]:
    """An Ed25519 pair: NAME.key, readable by its owner only, and NAME.pub. Nothing is ever overwritten."""
    key_path, public_path = Path(f"{os.fspath(name)}.key"), Path(f"{os.fspath(name)}.pub")
    for path in (key_path, public_path):
        if os.path.lexists(path):
            raise _key_exists(path)
    key_path.parent.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    _create(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    try:
        _create(public_path, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    except BaseException:
        key_path.unlink()
        raise
    return key_path, public_path


def _create(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise _key_exists(path) from None
    with os.fdopen(descriptor, "wb") as sink:
        os.fchmod(descriptor, mode)
        sink.write(content)


def _key_exists(path: Path) -> UsageError:
    return UsageError(
        "key_exists",
        f"{path} exists, and a key that was overwritten can sign no more. Choose another name, or move the file away.",
        path=str(path),
    )


def load_private_key(path: str | os.PathLike[str]) -> Ed25519PrivateKey:
    content = _key_file(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        hint = "it is a public key" if b"PUBLIC KEY" in content else str(error)
        raise _bad_key(path, f"holds no private key that can be read without a password ({hint})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _bad_key(path, "holds a private key of another algorithm than Ed25519")
    return key


def load_public_key(path: str | os.PathLike[str]) -> Ed25519PublicKey:
    content = _key_file(path)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = "it is a private key, which belongs to its owner alone" if b"PRIVATE KEY" in content else str(error)
        raise _bad_key(path, f"holds no public key ({hint})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _bad_key(path, "holds a public key of another algorithm than Ed25519")
    return key


def _key_file(path: str | os.PathLike[str]) -> bytes:
    try:
        return storage.read_bytes(os.fspath(path))
    except OSError as error:
        raise _bad_key(path, f"cannot be read: {error.strerror or error}") from None


def _bad_key(path: str | os.PathLike[str], problem: str) -> UsageError:
    name = os.fspath(path)
    return UsageError(
        "bad_key", f"{name} {problem}. Keys are PEM files as `anchormix keygen NAME` writes them.", path=name
    )


def key_id(key: Ed25519PublicKey) -> str:
    """sha256 of the key's SubjectPublicKeyInfo in DER."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """What DSSE signs: the type and the payload, each behind its length, so that neither can pass for the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload: bytes, key_path: str | os.PathLike[str], payload_type: str = PAYLOAD_TYPE) -> dict[str, Any]:
    """A DSSE envelope over `payload`, signed with the private key at `key_path`."""
    key = load_private_key(key_path)
    signature = key.sign(_pre_authentication(payload_type, payload))
    return {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}],
    }


@dataclass(frozen=True)
class Envelope:
    """A DSSE envelope, read but not verified."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]  # key id as the signer states it, signature

    def signed_by(self, key: Ed25519PublicKey) -> bool:
        """Whether one of the signatures is this key's. What a signature says of its key proves nothing."""
        message = _pre_authentication(self.payload_type, self.payload)
        for _, signature in self.signatures:
            try:
                key.verify(signature, message)
            except InvalidSignature:
                continue
            return True
        return False


def parse_envelope(content: bytes) -> Envelope:
    """Reads an envelope's bytes; ValueError says what is wrong with them."""
    envelope = parse_json(content)
    payload_type, payload, signatures = (_member(envelope, n) for n in ("payloadType", "payload", "signatures"))
    if not isinstance(payload_type, str):
        raise ValueError("`payloadType` must be text")
    if not isinstance(signatures, list) or not signatures:
        raise ValueError("`signatures` must be a list of at least one: it is not signed")
    if len(signatures) > _MOST_SIGNATURES:
        raise ValueError(f"it has {len(signatures)} signatures; {_MOST_SIGNATURES} are read at most")
    pairs = []
    for place, entry in enumerate(signatures):
        stated = entry.get("keyid", "") if isinstance(entry, dict) else None
        if not isinstance(stated, str):
            raise ValueError(f"`signatures[{place}]` must hold a `sig`, and a `keyid` that is text")
        pairs.append((stated, _decoded(_member(entry, "sig"), f"signatures[{place}].sig")))
    return Envelope(payload_type, _decoded(payload, "payload"), tuple(pairs))


def parse_json(content: bytes) -> Any:
    """JSON of one reading only: a key given twice would say different things to different readers."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            raise ValueError("a key stands twice in one object")
        return members

    try:
        return json.loads(content, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not JSON: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping) or name not in value:
        raise ValueError(f"`{name}` is missing")
    return value[name]


def _decoded(value: Any, name: str) -> bytes:
    """DSSE allows the standard and the URL-safe alphabet."""
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be base64 text")
    try:
        return base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"`{name}` is not base64: {error}") from None


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, line ends, what turns the direction of writing round, and halves of characters."""

_LONGEST_LINE = 500

_LOCATION = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z]:[/\\]")


def unsafe_name(name: str) -> str | None:
    """Why a name in a manifest must not be used, or None: names are relative paths that stay below their folder."""
    if _LOCATION.match(name):
        return "is a location: what is found there can change; a subject is named by a relative path"
    if not name or name.startswith("/") or "\\" in name:
        return "is not a relative path with / between its parts"
    if _UNPRINTABLE.search(name):
        return "holds characters that no terminal shows as they are"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has an empty, `.` or `..` part, which may lead out of its folder"
    return None


def unsafe_line(text: str) -> str | None:
    """Why what a manifest says of itself must not be repeated in evidence and reports, or None."""
    if len(text) > _LONGEST_LINE:
        return f"is longer than {_LONGEST_LINE} characters"
    return "holds characters that no terminal shows as they are" if _UNPRINTABLE.search(text) else None


@dataclass(frozen=True)
class _Attested:
    """One file as it was read: its digest, and its documents' digests in rising order."""

    digest: str
    leaves: bytes
    skipped: int  # rows without readable text

    @property
    def documents(self) -> int:
        return len(self.leaves) // DIGEST_BYTES


def attest(
    files: Iterable[str | os.PathLike[str]],
    key_path: str | os.PathLike[str],
    method: str,
    output: str | os.PathLike[str],
    source: str | None = None,
    column: str = "text",
    valid_until: str | None = None,
    issuer: str | None = None,
    signed_at: str | None = None,
    read_texts: ReadTexts | None = None,
) -> dict[str, Any]:
    """Sign what `files` (paths or globs) hold under `column`; write the manifest `output` and its leaf lists.

    Leaf lists stand beside the manifest and are written before it, so that a manifest never names a list that is not
    there. Returns what was signed, in numbers and digests.
    """
    if method not in METHODS:
        raise UsageError(
            "bad_method", f"--method {method!r} is unknown; methods are {', '.join(METHODS)}", method=method
        )
    days = {"valid_until": _day("--valid-until", valid_until), "signed_at": _day("--signed-at", signed_at)}
    for option, line in (("--source", source), ("--column", column), ("--issuer", issuer)):
        if line is not None and (problem := unsafe_line(line)):
            raise UsageError("bad_text", f"{option} {line!r} {problem}", option=option)
    load_private_key(key_path)  # before hours of reading
    place, name = _split(os.fspath(output))
    paths = _resolve(files)
    names = _names(paths)
    attested = [_read(path, column, read_texts or _read_texts) for path in paths]
    by_digest = {entry.digest: entry for entry in attested}
    if not any(entry.documents for entry in by_digest.values()):
        raise UsageError(
            "nothing_to_attest",
            f"column {column!r} holds no text in any of {len(paths)} files, so there is nothing to vouch for; "
            "name the column that holds the text with --column",
            column=column,
        )
    stem = PurePosixPath(name).stem
    folder = f"{stem}.leaves"
    leaf_lists = {digest: f"{folder}/{digest}.leaves" for digest in by_digest}
    predicate: dict[str, Any] = {
        "method": method,
        "column": column,
        "leaves": [
            {
                "subject": digest,
                "documents": entry.documents,
                "sha256": hashlib.sha256(entry.leaves).hexdigest(),
                "file": leaf_lists[digest],
            }
            for digest, entry in sorted(by_digest.items())
        ],
    }
    optional = {"source": source, "issuer": issuer, **{name: day and day.isoformat() for name, day in days.items()}}
    predicate |= {name: value for name, value in optional.items() if value is not None}
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": entry.digest}}
            for name, entry in sorted(zip(names, attested, strict=True), key=lambda pair: pair[0])
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    content = json.dumps(sign_envelope(payload, key_path), sort_keys=True, indent=2).encode() + b"\n"
    replaced = _leaf_lists_of(place + name, stem)
    for digest, entry in by_digest.items():
        storage.write_bytes(place + leaf_lists[digest], entry.leaves)
    storage.write_bytes(place + name, content)
    for unused in replaced - set(leaf_lists.values()):
        storage.remove(place + unused)
    return {
        "manifest": place + name,
        "manifest_digest": hashlib.sha256(content).hexdigest(),
        "payload_digest": hashlib.sha256(payload).hexdigest(),
        "subjects": len(by_digest),
        "documents": sum(entry.documents for entry in by_digest.values()),
        "skipped": sum(entry.skipped for entry in by_digest.values()),
    }


def _day(option: str, value: str | None) -> date | None:
    try:
        return None if value is None else date.fromisoformat(value)
    except ValueError:
        raise UsageError(
            "bad_date", f"{option} {value!r} is no day; write it as 2027-01-01", option=option, value=value
        ) from None


def _split(path: str) -> tuple[str, str]:
    """A path as its folder, up to and with the last slash, and its name."""
    cut = path.rfind("/") + 1
    return path[:cut], path[cut:]


def _resolve(patterns: Iterable[str | os.PathLike[str]]) -> list[str]:
    """The files behind paths and globs, each once; local ones by their real paths."""
    found: set[str] = set()
    for pattern in [os.fspath(pattern) for pattern in patterns]:
        matches = [pattern] if os.path.isfile(pattern) else _matches(pattern)
        if not matches:
            problem = "is a folder; name files, as in DIR/*.parquet" if os.path.isdir(pattern) else "matches no file"
            raise UsageError("no_files", f"{pattern} {problem}", path=pattern)
        found.update(str(Path(match).resolve()) if storage.is_local(match) else match for match in matches)
    if not found:
        raise UsageError("no_files", "attest needs at least one file to vouch for")
    return sorted(found)


def _matches(pattern: str) -> list[str]:
    try:
        return [info.path for info in storage.list_files(pattern)]
    except storage.StoreError as error:
        raise input_error(error, "FILES", pattern) from None


def _names(paths: Sequence[str]) -> list[str]:
    """Paths below what all of them have in common."""
    folders = [_split(path)[0].split("/")[:-1] for path in paths]
    shared = [len(set(level)) == 1 for level in zip(*folders, strict=False)]
    above = [*shared, False].index(False)
    names = ["/".join(path.split("/")[above:]) for path in paths]
    for name in names:
        if problem := unsafe_name(name):
            raise UsageError("bad_name", f"{name!r} {problem}; rename the file", name=name)
    return names


def _read(path: str, column: str, read_texts: ReadTexts) -> _Attested:
    before = storage.file_info(path)
    digest = storage.file_digest(path)
    digests = []
    rows = 0
    for text in read_texts(path, column):
        present = text.drop_null()
        rows += len(text)
        digests.append(text_digests(present))
    leaves = np.concatenate(digests) if digests else np.empty((0, DIGEST_BYTES), np.uint8)
    words = leaves.view(">u8")
    ordered = leaves[np.lexsort(words.T[::-1])]
    changed = storage.file_info(path) != before
    # Size and time can be set back; what is signed as the bytes of these documents must be the bytes they came from.
    if changed or storage.file_digest(path) != digest:
        raise BadInput(
            "file_changed", f"{path} changed while it was read; attest it when nothing writes to it", path=path
        )
    return _Attested(digest, ordered.tobytes(), rows - len(ordered))


def _read_texts(path: str, column: str) -> Iterator[pa.Array]:
    from transforms.kernels.columns import ColumnMap, MissingColumn
    from transforms.kernels.records import UnreadableFile, detect_format, read_records

    try:
        kind = detect_format(path)
        texts = ColumnMap(text=column).text_only()
        for batch in read_records(lambda: storage.open_input(path), path, kind, texts, on_located=_refuse_parts(path)):
            yield batch.column("text")
    except MissingColumn as error:
        raise UsageError("missing_column", f"{error}; name the text with --column", path=path) from None
    except (UnreadableFile, ValueError) as error:
        raise BadInput("bad_file", f"{error}; a file is signed whole or not at all", path=path) from None


def _refuse_parts(path: str) -> Callable[[Any], None]:
    def look(located: Any) -> None:
        if located.makes_parts:
            raise UsageError(
                "custody_form",
                f"{path} is recognised as {located.data_set.name}: every row of that column makes several documents, "
                "and a manifest signs one text a row. Write the texts to a column of their own, one a row.",
                path=path,
            )

    return look


def _leaf_lists_of(manifest: str, stem: str) -> set[str]:
    """The leaf lists of the manifest that is about to be replaced; none if there is none, or it is no manifest."""
    try:
        statement = parse_json(parse_envelope(storage.read_bytes(manifest)).payload)
        names = {entry["file"] for entry in statement["predicate"]["leaves"]}
    except (OSError, ValueError, TypeError, KeyError):
        return set()
    own = re.compile(re.escape(f"{stem}.leaves/") + r"[0-9a-f]{64}\.leaves")
    return {name for name in names if isinstance(name, str) and own.fullmatch(name)}
