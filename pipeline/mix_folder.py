"""A published mix, opened: its claims, and whether its files are there as a whole. `verify` recounts what they hold."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.attest import parse_envelope
from pipeline.config_kinds import is_url
from pipeline.errors import UsageError
from pipeline.manifest import MANIFEST, SIGNED_MANIFEST, statement
from pipeline.publish import SUCCESS
from pipeline.verify_consistent import Claimed

__all__ = ["MixFolder"]

_BROKEN = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)
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
        named = f"{key}: {str(path)!r}" if key else str(path)
        if is_url(str(path)):
            raise _refused("not_local", named, "is a URL, and a mix is only read from a local or mounted folder", path)
        if not folder.is_dir():
            raise _refused("no_mix", named, "is no folder; name the output folder of a mix that was published", path)
        if not (folder / MANIFEST).exists() and not (folder / "data").exists():
            raise _refused("no_mix", named, f"is not a mix: it has neither {MANIFEST} nor data/", path)
        if not (folder / SUCCESS).exists():
            says = f"has no {SUCCESS}, which is written last: it was not published, or not copied as a whole"
            raise _refused("unfinished_mix", named, says, path)
        try:
            claimed = Claimed.parse((folder / MANIFEST).read_bytes())
            mix = cls(folder, claimed)
            mix._require_files()
        except _BROKEN as error:
            raise _damaged(named, folder, error) from None
        return mix

    @classmethod
    def staged(cls, path: Path) -> MixFolder:
        """A mix that is about to be published, by whoever wrote it."""
        return cls(path, Claimed.parse((path / MANIFEST).read_bytes()))

    def _require_files(self) -> None:
        lying = {f"data/{path.name}" for path in (self.path / "data").glob("*") if path.is_file()}
        if stray := sorted(lying - self.claimed.shards.keys()):
            raise ValueError(f"{stray[0]} is not in {MANIFEST}")
        for name, shard in sorted(self.claimed.shards.items()):
            size = (self.path / name).stat().st_size
            if size != shard["file_bytes"]:
                raise ValueError(f"{name} has {size:,} bytes, and {MANIFEST} says {shard['file_bytes']:,}")
        signed = self.path / SIGNED_MANIFEST
        if signed.exists() and parse_envelope(signed.read_bytes()).payload != statement(self.claimed.content):
            raise ValueError(f"{SIGNED_MANIFEST} was signed over another {MANIFEST}")

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.claimed.content)
        return found

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
            raise _damaged(str(self.path), self.path, f"{path.relative_to(self.path)}: {error}") from None


def _damaged(named: str, folder: Path, error: object) -> UsageError:
    told = " ".join(str(error).split())
    return UsageError(
        "damaged_mix",
        f"{named} is damaged ({told}). `anchormix verify {folder}` says all that is wrong; fetch an intact copy, or "
        "make the mix again.",
        path=str(folder),
    )


def _refused(code: str, named: str, says: str, path: object) -> UsageError:
    return UsageError(code, f"{named} {says}.", path=str(path))
