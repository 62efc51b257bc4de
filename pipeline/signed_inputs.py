"""How the custody of one document of a published mix came about, from what lies in the mix alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.custody import ALTERED, VERIFIED
from pipeline.manifest import MANIFEST
from transforms.kernels.schemas import DIGEST_BYTES, ID_BYTES

__all__ = ["SignedInputs"]


@dataclass(frozen=True)
class SignedInputs:
    """The input shards of a mix, and the signed manifests that it carries along."""

    out: Path
    methods: Mapping[str, str]  # of sources that have custody
    manifests: Mapping[tuple[str, str], Mapping[str, Any]]  # what is said of each, by source and sha256

    @classmethod
    def of(cls, out: Path) -> SignedInputs:
        manifest = json.loads((out / MANIFEST).read_bytes())
        used = {(entry["source"], entry["manifest"]): entry for entry in manifest["custody"]}
        return cls(out, manifest["methods"], used)

    def of_document(self, entry: Mapping[str, Any]) -> dict[str, Any] | None:
        """The verdict on a document's shard and whether its text is a leaf; None where no custody was asked for."""
        if entry["source"] not in self.methods:
            return None
        wanted = (pc.field("source") == entry["source"]) & (pc.field("shard") == entry["shard"])
        rows = ds.dataset(self.out / "inputs.parquet").to_table(filter=wanted).to_pylist()
        if not rows:
            return None
        verdict, subject, digest = (rows[0][name] for name in ("custody_verdict", "sha256", "custody_manifest"))
        told: dict[str, Any] = {"verdict": verdict, "subject": subject, "manifest": digest, "leaf": None}
        if verdict != VERIFIED:
            why = "was changed after signing" if verdict == ALTERED else "is in no manifest that counts"
            return told | {"told": f"its shard {why}, so its text is not verified"}
        used = self.manifests.get((entry["source"], digest), {})
        about = {name: used.get(name) for name in ("method", "issuer", "key")}
        vouching = ", ".join(f"{name} {value}" for name, value in about.items() if value)
        place = f"custody/{digest}.dsse.json ({vouching})"
        leaf = self._is_leaf(digest, subject, entry["id"])
        is_leaf = {
            True: "is a leaf",
            False: "is not verified: it is no leaf",
            None: "cannot be compared with the leaves",
        }
        return told | about | {"leaf": leaf, "told": f"its text {is_leaf[leaf]} of subject {subject} in {place}"}

    def _is_leaf(self, manifest: str, subject: str, document: str | None) -> bool | None:
        """By the half of the digest that an id is; `verify --trust` compares all of it."""
        try:
            leaves = (self.out / "custody" / f"{manifest}.leaves" / f"{subject}.leaves").read_bytes()
        except OSError:
            return None
        if document is None:
            return None
        half = bytes.fromhex(document)
        low, high = 0, len(leaves) // DIGEST_BYTES
        while low < high:
            middle = (low + high) // 2
            if leaves[middle * DIGEST_BYTES : middle * DIGEST_BYTES + ID_BYTES] < half:
                low = middle + 1
            else:
                high = middle
        return leaves[low * DIGEST_BYTES : low * DIGEST_BYTES + ID_BYTES] == half
