"""The levels `custody` and `reproduced`: whether the rows of a mix are the documents they are said to be.

Both look at every row while the shards are being recounted, by the digest of the text as it stands in the file.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from pipeline.attest import (
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Envelope,
    load_public_key,
    parse_envelope,
    parse_json,
)
from pipeline.config_blocks import Block
from pipeline.config_guards import Trust, TrustedKey
from pipeline.config_yaml import At, Origin, read_tree
from pipeline.errors import UsageError
from pipeline.verify_consistent import Claimed
from transforms.kernels.audit import AuditedRows, Finding
from transforms.kernels.hashing import text_digests
from transforms.kernels.provenance import covered, leaf_array
from transforms.kernels.schemas import DIGEST_BYTES, Provenance
from transforms.kernels.strata import distinct_rows

__all__ = [
    "CUSTODY",
    "REPRODUCED",
    "CustodyCheck",
    "Origins",
    "ReadTexts",
    "check_reproduced",
    "read_trust",
]

CUSTODY = "custody"
REPRODUCED = "reproduced"

_PART_BITS = 31  # parts are int32 from 0
_MOST_ROWS = 1 << (63 - _PART_BITS)

ReadTexts = Callable[[str, str, NDArray[np.int64]], Iterable[pa.RecordBatch]]
"""(source, shard, sorted rows) to batches with the columns row, part and text of those rows, read from the input."""


def read_trust(path: Path) -> Trust:
    """The keys to trust: the `trust` section of a config, or a file that holds `keys` and `revoked` alone."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "bad_trust", f"--trust {path}: {error}; name a YAML file with `keys`", path=str(path)
        ) from None
    at = At(Origin(str(path), os.path.abspath(path.parent)))
    tree = read_tree(text, at, os.environ)
    if isinstance(tree, dict) and "trust" in tree:
        tree, at = tree["trust"], at / "trust"
    trust: Trust = Block(Trust).parse(tree, at)
    return trust


class _Subject(NamedTuple):
    """What a custody manifest says of one file."""

    leaf_list: Path
    sha256: str
    documents: int


@dataclass(frozen=True)
class _Manifest:
    """One custody manifest of the mix; `problem` says why it vouches for nothing."""

    digest: str
    problem: str | None = None
    method: str = ""
    source: str | None = None
    valid_until: date | None = None
    subjects: Mapping[str, _Subject] | None = None
    signers: tuple[TrustedKey, ...] = ()

    def vouches_for(self, source: str, as_of: date | None) -> str | None:
        """None if it does; else why it does not."""
        if self.problem:
            return self.problem
        if self.source not in (None, source):
            return f"it is bound to source {self.source!r}"
        if _expired(self.valid_until, as_of):
            return f"it was valid until {self.valid_until}, and the mix is judged at {as_of or 'no stated day'}"
        if any(
            (key.sources is None or source in key.sources)
            and (key.methods is None or self.method in key.methods)
            and not _expired(key.valid_until, as_of)
            for key in self.signers
        ):
            return None
        names = ", ".join(key.name for key in self.signers)
        return f"{names} may not sign {self.method} for source {source!r} at {as_of or 'no stated day'}"


def _expired(valid_until: date | None, as_of: date | None) -> bool:
    """A date that cannot be judged, because the mix names no day, counts as past."""
    return valid_until is not None and (as_of is None or as_of > valid_until)


class CustodyCheck:
    """Every human_verified row is a leaf of a manifest in custody/ that a trusted key signed."""

    def __init__(self, out: Path, trust: Trust, inputs: pa.Table, claimed: Claimed) -> None:
        self.folder = out / "custody"
        self.trust = trust
        self.claimed = claimed
        self.as_of = _day(claimed.fields.get("as_of"))
        self.keys = {key.name: load_public_key(key.public_key) for key in trust.keys}
        self.shards = {
            (row["source"], row["shard"]): (row["sha256"], row["custody_verdict"], row["custody_manifest"])
            for row in inputs.to_pylist()
        }
        self.manifests: dict[str, _Manifest] = {}
        self.leaves: dict[tuple[str, str], NDArray[np.uint8] | str] = {}
        self.lock = threading.Lock()

    def check(self, rows: AuditedRows) -> Iterator[Finding]:
        verified = pc.equal(rows.rows["provenance"], Provenance.HUMAN_VERIFIED.label)
        at = np.flatnonzero(pc.fill_null(verified, False).to_numpy(zero_copy_only=False))
        if len(at) == 0:
            return
        taken = pa.array(at)
        codes, origins = distinct_rows([rows.rows["source"].take(taken), rows.rows["shard"].take(taken)])
        for code, (source, shard) in enumerate(origins):
            mine = at[codes == code]
            leaves = self._leaves_of(source, shard)
            if isinstance(leaves, str):
                uncovered, why = mine, leaves
            else:
                digests = np.ascontiguousarray(rows.digests[mine])
                uncovered, why = mine[~covered(digests, leaves)], "its text is no leaf of that shard's manifest"
            for row in uncovered.tolist():
                expected = f"a leaf of a manifest over {source}/{shard} that a trusted key signed"
                at_row = rows.first_row + row
                yield Finding(CUSTODY, "not_in_custody", expected, why, rows.shard, rows.row_group, at_row)

    def _leaves_of(self, source: str, shard: str) -> NDArray[np.uint8] | str:
        """The leaves that vouch for one input shard, or why there are none."""
        if (source, shard) not in self.shards:
            return "inputs.parquet does not list that shard"
        sha256, verdict, digest = self.shards[source, shard]
        if verdict != "verified" or not digest:
            return f"inputs.parquet says of that shard: {verdict or 'no custody'}"
        with self.lock:
            manifest = self.manifests.get(digest) or self._read_manifest(digest)
            self.manifests[digest] = manifest
            problem = manifest.vouches_for(source, self.as_of)
            if problem is None and self.claimed.methods.get(source) != manifest.method:
                problem = f"its method is {manifest.method}, the mix claims {self.claimed.methods.get(source)}"
            if problem:
                return f"manifest {digest}: {problem}"
            if (digest, sha256) not in self.leaves:
                self.leaves[digest, sha256] = _read_leaves(manifest, sha256)
            return self.leaves[digest, sha256]

    def _read_manifest(self, digest: str) -> _Manifest:
        path = self.folder / f"{digest}.dsse.json"
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError("its bytes have another sha256 than its name says")
            envelope = parse_envelope(content)
            statement = parse_json(envelope.payload)
            kinds = (envelope.payload_type, statement["_type"], statement["predicateType"])
            if kinds != (PAYLOAD_TYPE, STATEMENT_TYPE, PREDICATE_TYPE):
                raise ValueError(f"it is a {kinds[2]}, not a {PREDICATE_TYPE}")
            predicate = statement["predicate"]
            named = {str(subject["digest"]["sha256"]) for subject in statement["subject"]}
            folder = self.folder / f"{digest}.leaves"
            return _Manifest(
                digest,
                problem=self._distrust(digest, envelope),
                method=str(predicate["method"]),
                source=predicate.get("source"),
                valid_until=_day(predicate.get("valid_until")),
                subjects={
                    entry["subject"]: _Subject(
                        folder / f"{entry['subject']}.leaves", str(entry["sha256"]), int(entry["documents"])
                    )
                    for entry in predicate["leaves"]
                    if entry["subject"] in named and _is_digest(entry["subject"])
                },
                signers=self._signers(envelope),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return _Manifest(digest, problem=f"cannot be used: {error}")

    def _distrust(self, digest: str, envelope: Envelope) -> str | None:
        if digest in self.trust.revoked:
            return "it is revoked"
        if self._signers(envelope):
            return None
        revoked = [name for name, key in self.keys.items() if envelope.signed_by(key)]
        return f"its key {revoked[0]} is revoked" if revoked else "no trusted key signed it"

    def _signers(self, envelope: Envelope) -> tuple[TrustedKey, ...]:
        def signed(key: TrustedKey) -> bool:
            public: Ed25519PublicKey = self.keys[key.name]
            return key.name not in self.trust.revoked and envelope.signed_by(public)

        return tuple(filter(signed, self.trust.keys))


def _read_leaves(manifest: _Manifest, sha256: str) -> NDArray[np.uint8] | str:
    subject = (manifest.subjects or {}).get(sha256)
    if subject is None:
        return f"manifest {manifest.digest}: no subject of it has the sha256 {sha256} of that shard"
    try:
        data = subject.leaf_list.read_bytes()
        if hashlib.sha256(data).hexdigest() != subject.sha256 or len(data) != subject.documents * DIGEST_BYTES:
            return f"{subject.leaf_list.name} is not the leaf list that manifest {manifest.digest} signs"
        return leaf_array(data)
    except (OSError, ValueError) as error:
        return f"leaf list of manifest {manifest.digest}: {error}"


def _is_digest(name: Any) -> bool:
    return isinstance(name, str) and len(name) == 64 and set(name) <= set("0123456789abcdef")


def _day(value: Any) -> date | None:
    return None if value is None else date.fromisoformat(str(value))


class Origins:
    """Where every row of a mix says it came from, with the digest of its text: about 50 bytes a row."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]]] = {}
        self.lock = threading.Lock()

    def collect(self, rows: AuditedRows) -> Iterable[Finding]:
        codes, origins = distinct_rows([rows.rows["source"], rows.rows["shard"]])
        numbers = [pc.fill_null(rows.rows[name], -1).to_numpy().astype(np.int64) for name in ("row", "part")]
        for code, origin in enumerate(origins):
            mine = codes == code
            with self.lock:
                self.rows.setdefault(origin, []).append((numbers[0][mine], numbers[1][mine], rows.digests[mine]))
        return ()


def check_reproduced(origins: Origins, read_texts_at: ReadTexts) -> Iterator[Finding]:
    """Read every input row that the mix names once more, shard by shard."""
    for (source, shard), parts in sorted(origins.rows.items(), key=str):
        row, part, digests = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        name = f"{source}/{shard}"
        if row.min() < 0 or row.max() >= _MOST_ROWS or part.min() < 0:
            yield Finding(REPRODUCED, "other_input", f"rows of {name} from 0", f"rows {row.min()} to {row.max()}")
            continue
        try:
            keys, again = _read_again(read_texts_at(source, shard, np.unique(row)))
        except Exception as error:  # whatever a reader raises, this input is not what the mix was made from
            yield Finding(REPRODUCED, "other_input", f"{name}, which can be read again", str(error))
            continue
        wanted = _keys(row, part)
        at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        exists = keys[at] == wanted if len(keys) else np.zeros(len(wanted), np.bool_)
        same = exists & (again[at] == digests).all(axis=1) if len(keys) else exists
        for wrong in np.flatnonzero(~same).tolist():
            expected = f"{name} row {row[wrong]}, part {part[wrong]}: text with sha256 {digests[wrong].tobytes().hex()}"
            found = again[at[wrong]].tobytes().hex() if exists[wrong] else "no such document"
            yield Finding(REPRODUCED, "other_text", expected, found)


def _read_again(batches: Iterable[pa.RecordBatch]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Sorted keys of the documents read, and the digests of their texts."""
    keys, digests = [np.empty(0, np.int64)], [np.empty((0, DIGEST_BYTES), np.uint8)]
    for batch in batches:
        numbers = (batch[name].to_numpy().astype(np.int64) for name in ("row", "part"))
        keys.append(_keys(*numbers))
        digests.append(text_digests(batch["text"]))
    joined = np.concatenate(keys)
    order = np.argsort(joined, kind="stable")
    return joined[order], np.concatenate(digests)[order]


def _keys(row: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.int64]:
    """(row, part) as one number."""
    return (row << _PART_BITS) | part
