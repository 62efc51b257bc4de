"""A published mix, opened: its claims, and whether its files are there as a whole. `verify` recounts what they hold."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.attest import parse_envelope
from pipeline.config_kinds import is_url
from pipeline.errors import UsageError
from pipeline.manifest import MANIFEST, SIGNED_MANIFEST, dump_manifest, statement
from pipeline.publish import SUCCESS
from pipeline.verify_consistent import Claimed
from transforms.kernels.audit import Totals

__all__ = ["MixFolder"]

_BROKEN = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading bytes raises that are not, or no longer, what they should be."""


@dataclass(frozen=True)
class MixFolder:
    """A mix that is whole as far as names, sizes and the manifest tell."""

    path: Path
    claimed: Claimed

    @classmethod
    def open(cls, path: str | Path, key: str | None = None) -> MixFolder:
        """Exit 2 where there is no published mix, or files of it are gone or cut off. `key` is the config key that
        names it, for the message."""
        folder = Path(path)
        told = _Told(str(path), key)
        if is_url(str(path)):
            raise told.refusal("not_local", "is a URL, and a mix is only read from a local or mounted folder")
        if not folder.is_dir():
            raise told.refusal("no_mix", "is no folder; name the output folder of a mix that was published")
        if not (folder / MANIFEST).exists() and not (folder / "data").exists():
            raise told.refusal("no_mix", f"is not a mix: it has neither {MANIFEST} nor data/")
        if not (folder / SUCCESS).exists():
            says = f"has no {SUCCESS}, which is written last: it was not published, or not copied as a whole"
            raise told.refusal("unfinished_mix", says)
        try:
            claimed = Claimed.parse((folder / MANIFEST).read_bytes())
            mix = cls(folder, claimed)
            mix._require_claims()
            mix._require_files()
        except _BROKEN as error:
            raise told.damaged(error) from None
        return mix

    @classmethod
    def staged(cls, path: Path, manifest: Mapping[str, Any]) -> MixFolder:
        """A mix that is being made, whose manifest is not written yet."""
        return cls(path, Claimed.parse(dump_manifest(manifest)))

    def _require_claims(self) -> None:
        """What is rested on below has the shape it should have; a file from elsewhere can hold anything."""
        fields = self.claimed.fields
        totals, achieved, parent = fields["totals"], fields["achieved"], fields.get("parent")
        if not all(isinstance(totals[name], int) for name in Totals._fields):
            raise ValueError(f"{MANIFEST} counts {totals}")
        standings = [standing.get("overall") for standing in achieved.values()]
        if not all(isinstance(part, Mapping | None) for part in (parent, *standings)):
            raise ValueError(f"{MANIFEST} does not say what was achieved, or names a parent that is none")
        _ = self.identity

    def _require_files(self) -> None:
        lying = {f"data/{path.name}" for path in (self.path / "data").glob("*") if path.is_file()}
        for says, names in (
            ("not in it", lying - self.claimed.shards.keys()),
            ("gone", self.claimed.shards.keys() - lying),
        ):
            if names:
                raise ValueError(f"{MANIFEST} lists the shards, and {min(names)} is {says}")
        for name, shard in sorted(self.claimed.shards.items()):
            size = (self.path / name).stat().st_size
            if size != shard["file_bytes"]:
                raise ValueError(f"{name} has {size:,} bytes, and {MANIFEST} says {shard['file_bytes']}")
        signed = self.path / SIGNED_MANIFEST
        if signed.exists() and parse_envelope(signed.read_bytes()).payload != statement(self.claimed.content):
            raise ValueError(f"{SIGNED_MANIFEST} was signed over another {MANIFEST}")

    @cached_property
    def identity(self) -> dict[str, str]:
        """What the mix is, wherever it lies: what it says, its manifest, its plan."""
        return {
            "logical_digest": str(self.claimed.fields["logical_digest"]),
            "manifest_sha256": hashlib.sha256(self.claimed.content).hexdigest(),
            "plan": str(self.claimed.fields["plan"]),
        }

    @property
    def shards(self) -> list[Path]:
        return [self.path / name for name in sorted(self.claimed.shards)]

    @property
    def fates(self) -> list[Path]:
        return sorted((self.path / "fates").glob("part-*.parquet"))

    def batches(self, path: Path, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Some columns of one Parquet file of the mix, every column one array a batch."""
        with self.reading(path), pq.ParquetFile(path) as file:
            yield from file.iter_batches(rows, columns=columns)

    def table(self, name: str, columns: list[str]) -> pa.Table:
        with self.reading(self.path / name):
            return pq.read_table(self.path / name, columns=columns).select(columns)

    @contextlib.contextmanager
    def reading(self, path: Path) -> Iterator[None]:
        """Turns what a broken file raises into the diagnosis of a damaged mix."""
        try:
            yield
        except _BROKEN as error:
            raise self.damaged(f"{path.relative_to(self.path)}: {error}") from None

    def damaged(self, says: object) -> UsageError:
        """The diagnosis that something in this folder is not what it should be."""
        return _Told(str(self.path)).damaged(says)


@dataclass(frozen=True)
class _Told:
    """A folder as messages name it, by the config key that names it where one does."""

    path: str
    key: str | None = None

    def refusal(self, code: str, says: str) -> UsageError:
        details = {"path": self.path} if self.key is None else {"path": self.path, "key": self.key}
        named = self.path if self.key is None else f"{self.key}: {self.path!r}"
        return UsageError(code, f"{named} {says}.", **details)

    def damaged(self, error: object) -> UsageError:
        told = " ".join(str(error).split())
        return self.refusal(
            "damaged_mix",
            f"is damaged ({told}). `anchormix verify {self.path}` says all that is wrong; fetch an intact copy or make "
            "the mix again",
        )
