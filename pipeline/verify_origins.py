"""The levels `custody` and `reproduced`: whether the rows of a mix are the documents they are said to be.

Both look at every row while the shards are being recounted, by the digest of the text as it stands in the file.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import config_guards
from pipeline.config_blocks import Block
from pipeline.config_kinds import nearest
from pipeline.config_yaml import At, Origin, read_tree
from pipeline.custody import VERIFIED
from pipeline.custody_manifest import SignedManifest, is_digest, judge
from pipeline.errors import UsageError
from pipeline.trust import Purpose, Refusal, Trust, load_trust
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


def read_trust(path: Path, as_of: date | None) -> Trust:
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
    listed: config_guards.Trust = Block(config_guards.Trust).parse(tree, at)
    _require_known(listed, path)
    return load_trust(listed.keys, listed.revoked, as_of)


def _require_known(listed: config_guards.Trust, path: Path) -> None:
    """A misspelt revocation would leave in force what it meant."""
    names = [key.name for key in listed.keys]
    for revoked in listed.revoked:
        if revoked not in names and not is_digest(revoked):
            near = nearest(revoked, names)
            raise UsageError(
                "bad_trust",
                f"--trust {path}: revoked: {revoked!r} is neither a key there nor the sha256 of a manifest; "
                + (f"did you mean {near!r}? " if near else "")
                + f"keys: {', '.join(names) or 'none'}",
                path=str(path),
                nearest=near,
            )


class CustodyCheck:
    """Every human_verified row is a leaf of a manifest in custody/ that a trusted key signed for its source.

    `inputs` says which manifest each input shard is under. It is only a pointer: what it points at has to be signed,
    and the text of the row has to be one of its leaves.
    """

    def __init__(
        self,
        out: Path,
        trust: Trust,
        inputs: pa.Table,
        methods: Mapping[str, str],
        claims: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.folder = out / "custody"
        self.trust = trust
        self.methods = methods
        self.shards = {
            (row["source"], row["shard"]): (row["sha256"], row["custody_verdict"], row["custody_manifest"])
            for row in inputs.to_pylist()
        }
        self.claims = {(claim.get("source"), claim.get("manifest")): claim for claim in claims}
        self.manifests: dict[tuple[str, str], SignedManifest | str] = {}
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
        if verdict != VERIFIED or not digest:
            return f"inputs.parquet says of that shard: {verdict or 'no custody'}"
        with self.lock:
            if (source, digest) not in self.manifests:
                self.manifests[source, digest] = self._judge(source, digest)
            manifest = self.manifests[source, digest]
            if isinstance(manifest, str):
                return f"manifest {digest}: {manifest}"
            if (digest, sha256) not in self.leaves:
                self.leaves[digest, sha256] = self._read_leaves(manifest, sha256)
            return self.leaves[digest, sha256]

    def _judge(self, source: str, digest: str) -> SignedManifest | str:
        """The manifest as it lies in custody/, or why it vouches for nothing."""
        if source not in self.methods:
            return f"the mix claims no custody method for source {source!r}"
        if not is_digest(digest):
            return "is not named by a sha256"
        try:
            content = (self.folder / f"{digest}.dsse.json").read_bytes()
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        if hashlib.sha256(content).hexdigest() != digest:
            return "its bytes have another sha256 than its name says"
        signed = judge(content, Purpose(source, self.methods[source]), self.trust)
        return signed.problem if isinstance(signed, Refusal) else self._misquoted(signed, source) or signed

    def _misquoted(self, signed: SignedManifest, source: str) -> str | None:
        """What manifest.json says of the manifest, where that is something else than it says itself."""
        claim = self.claims.get((source, signed.digest))
        said = {"method": signed.statement.method, "issuer": signed.statement.issuer}
        wrong = [name for name in said if claim is not None and claim.get(name) != said[name]]
        return f"its {wrong[0]} is {said[wrong[0]]!r}; the mix claims {(claim or {})[wrong[0]]!r}" if wrong else None

    def _read_leaves(self, manifest: SignedManifest, sha256: str) -> NDArray[np.uint8] | str:
        subject = manifest.statement.by_subject.get(sha256)
        if subject is None:
            return f"manifest {manifest.digest}: no subject of it has the sha256 {sha256} of that shard"
        path = self.folder / f"{manifest.digest}.leaves" / f"{subject.subject}.leaves"
        try:
            data = _mapped(path)
            if hashlib.sha256(data).hexdigest() != subject.digest:
                return f"{path.name} is not the leaf list that manifest {manifest.digest} signs"
            return leaf_array(data)
        except (OSError, ValueError) as error:
            return f"leaf list of manifest {manifest.digest}: {error}"


_LEAST_MAPPED = 1 << 20


def _mapped(path: Path) -> Any:
    """The bytes of a file; large ones stay on disk, for all leaf lists of a mix together may not fit in memory."""
    if path.stat().st_size < _LEAST_MAPPED:
        return path.read_bytes()
    with pa.memory_map(str(path)) as source:
        return source.read_buffer()


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
