"""`anchormix export`: the rows of a mix, unchanged and in order, in the formats that streaming loaders read.

One output shard per input shard, so that what holds in a shard of the mix holds in a shard of the export. The mix is
verified first, and every file that was read is held against its digest once more when it has been written out.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import __version__
from pipeline.card_facts import mix_name, share_of
from pipeline.config_kinds import is_url
from pipeline.errors import UsageError, VerificationFailed
from pipeline.manifest import MANIFEST, SIGNED_MANIFEST, RuleClaim, human_floor
from pipeline.outcome import Outcome
from pipeline.publish import publish, staging
from pipeline.verify import verify_mix
from pipeline.verify_consistent import read_claims
from transforms import files
from transforms.kernels.audit import Finding
from transforms.kernels.samples import MDS_VERSION, json_objects, mds_config, mds_samples, tar_end, tar_members
from transforms.kernels.schemas import Provenance, mix_schema

__all__ = ["export"]

_BATCH_ROWS = 1024  # a row group may hold a gigabyte of text; a worker holds one batch
_LARGEST_MDS = (1 << 32) - 1  # offsets have 32 bits
_ALWAYS_THERE = frozenset({"id", "text", "source", "provenance", "shard"})
"""Text columns of a mix that are never null; all others are written so that null and empty stay apart."""


@dataclass(frozen=True)
class _Shard:
    """A shard of the export, and the shard of the mix that it was made of."""

    path: str
    rows: int
    file_bytes: int
    sha256: str
    made_of: Mapping[str, Any]


class _Format(Protocol):
    name: str
    loader: str

    def shard_name(self, number: int, path: Path) -> str: ...

    def write(self, shard: pq.ParquetFile, target: Path) -> int:
        """The rows of a shard to a file; how many there were."""

    def finish(self, folder: Path, schema: pa.Schema, shards: list[_Shard]) -> None:
        """Whatever loaders read beside the shards."""


def export(out: Path, form: str, destination: str) -> Outcome:
    dest = _checked_place(out, destination)
    verification = verify_mix(out)
    error = verification.error()
    if error is not None:
        raise error
    manifest = _claims(out)
    writer = _FORMATS[form]
    with staging(str(dest), uuid.uuid4().hex[:12], (), "DEST") as folder:
        shards = _write_shards(out, manifest, writer, folder)
        schema = pq.read_schema(out / manifest["shards"][0]["path"]) if shards else mix_schema(())
        writer.finish(folder, schema, shards)
        for name in (MANIFEST, SIGNED_MANIFEST):
            if (out / name).exists():
                shutil.copyfile(out / name, folder / name)
        note = _note(manifest, form, schema, shards)
        (folder / "export.json").write_text(json.dumps(note, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(_readme(manifest, writer), encoding="utf-8")
        publish(folder, str(dest), "DEST")
    totals = {"shards": len(shards), "rows": sum(shard.rows for shard in shards)}
    several = "1 shard" if len(shards) == 1 else f"{len(shards):,} shards"
    text = f"{dest}: {totals['rows']:,} rows in {several} for {writer.name}, in the order of {out}."
    return Outcome(
        text,
        output=str(dest),
        totals={**totals, "file_bytes": sum(shard.file_bytes for shard in shards)},
        details={"format": form, "logical_digest": manifest["logical_digest"]},
    )


def _checked_place(out: Path, destination: str) -> Path:
    dest = Path(destination)
    if is_url(destination):
        raise UsageError(
            "bad_destination",
            f"DEST: {destination} is a URL; export to a folder of a local or mounted file system, and copy that.",
            dest=destination,
        )
    whole, mix = dest.resolve(), out.resolve()
    if whole == mix or mix in whole.parents:
        raise UsageError(
            "bad_destination",
            f"DEST: {dest} lies in the mix {out}, which never changes; name a folder outside of it.",
            dest=str(dest),
        )
    if os.path.lexists(dest) and not (dest.is_dir() and not any(dest.iterdir())):
        raise UsageError(
            "output_exists",
            f"DEST: {dest} exists, and an export overwrites nothing: name a folder that is new or empty, or move this "
            "one away.",
            dest=str(dest),
        )
    return dest


def _claims(out: Path) -> dict[str, Any]:
    claimed = read_claims(out)
    if isinstance(claimed, Finding):  # it was read a moment ago
        raise _changed(out, MANIFEST)
    return dict(claimed.fields)


def _changed(out: Path, name: str) -> VerificationFailed:
    return VerificationFailed(
        "changed_meanwhile",
        f"{out}: {name} changed while it was exported, so nothing was published. A published mix never changes: "
        "find out who writes there, and fetch an intact copy.",
        path=name,
    )


def _write_shards(out: Path, manifest: Mapping[str, Any], writer: _Format, folder: Path) -> list[_Shard]:
    def write(numbered: tuple[int, Mapping[str, Any]]) -> _Shard:
        number, told = numbered
        path = out / told["path"]
        target = folder / writer.shard_name(number, path)
        try:
            with pq.ParquetFile(path) as shard:
                rows = writer.write(shard, target)
        except (pa.ArrowException, OSError) as error:
            # What Arrow finds wrong with a file has no number; a full disk does, and is told as such.
            if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
                raise
            raise _changed(out, told["path"]) from None
        if rows != told["rows"] or files.file_digest(str(path)) != told["sha256"]:
            raise _changed(out, told["path"])
        return _Shard(target.name, rows, target.stat().st_size, files.file_digest(str(target)), told)

    shards = sorted(manifest["shards"], key=lambda shard: str(shard["path"]))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(write, enumerate(shards)))


def _batches(shard: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    for group in range(shard.num_row_groups):
        yield from shard.iter_batches(_BATCH_ROWS, row_groups=[group], use_threads=False)


class _Mds:
    """MosaicML's format: shard.NNNNN.mds with the place of every sample, and index.json."""

    name = "MosaicML Streaming"
    loader = """from streaming import StreamingDataset

for sample in StreamingDataset(local="PATH_OF_THIS_FOLDER", batch_size=1):
    sample["text"], sample["provenance"]"""

    def shard_name(self, number: int, path: Path) -> str:
        return f"shard.{number:05d}.mds"

    def write(self, shard: pq.ParquetFile, target: Path) -> int:
        config = self._config(shard.schema_arrow)
        described = json.dumps(config, sort_keys=True).encode()
        rows = shard.metadata.num_rows
        first = 4 + 4 * (rows + 1) + len(described)
        sizes = [np.empty(0, np.int64)]
        with target.open("wb") as sink:
            sink.seek(first)  # how large samples are, and so the table before them, is known at the end
            for batch in _batches(shard):
                samples = mds_samples(batch, config)
                sizes.append(pc.binary_length(samples).to_numpy())
                if sink.tell() + sizes[-1].sum() > _LARGEST_MDS:
                    raise _too_large(target.name)
                sink.write(_content(samples))
            offsets = first + np.cumsum(np.r_[0, np.concatenate(sizes)])
            if len(offsets) != rows + 1:
                return len(offsets) - 1
            sink.seek(0)
            sink.write(np.uint32(rows).astype("<u4").tobytes() + offsets.astype("<u4").tobytes() + described)
        return rows

    def finish(self, folder: Path, schema: pa.Schema, shards: list[_Shard]) -> None:
        config = self._config(schema)
        listed = [
            {
                **config,
                "raw_data": {
                    "basename": shard.path,
                    "bytes": shard.file_bytes,
                    "hashes": {"sha256": shard.sha256},
                },
                "samples": shard.rows,
                "zip_data": None,
            }
            for shard in shards
        ]
        index = {"shards": listed, "version": MDS_VERSION}
        (folder / "index.json").write_text(json.dumps(index, sort_keys=True), encoding="utf-8")

    def _config(self, schema: pa.Schema) -> dict[str, Any]:
        return mds_config(schema, frozenset(schema.names) - _ALWAYS_THERE)


def _too_large(name: str) -> UsageError:
    return UsageError(
        "shard_too_large",
        f"{name} would have more than the {_LARGEST_MDS:,} bytes that the format addresses: mix with more shards "
        "(mix.shards, or a smaller mix.shard_bytes), or export --to webdataset.",
        most=_LARGEST_MDS,
    )


class _WebDataset:
    """Tar shards: of each row KEY.txt, its text, and KEY.json, everything else."""

    name = "WebDataset"
    loader = """import webdataset

for sample in webdataset.WebDataset("PATH_OF_THIS_FOLDER/train-{00000..LAST}.tar", shardshuffle=False).decode():
    sample["txt"], sample["json"]["provenance"]"""

    def shard_name(self, number: int, path: Path) -> str:
        return f"train-{number:05d}.tar"

    def write(self, shard: pq.ParquetFile, target: Path) -> int:
        names = [name for name in shard.schema_arrow.names if name != "text"]
        rows = 0
        with target.open("wb") as sink:
            for batch in _batches(shard):
                keys = pc.binary_join_element_wise(batch["id"], batch["copy"].cast(pa.string()), "-")
                text = batch["text"].cast(pa.large_string()).view(pa.large_binary())
                sink.write(_content(tar_members(keys, [("txt", text), ("json", json_objects(batch, names))])))
                rows += batch.num_rows
            sink.write(tar_end())
        return rows

    def finish(self, folder: Path, schema: pa.Schema, shards: list[_Shard]) -> None:
        """Tars need no index; how many rows each has stands in export.json."""


_FORMATS: Mapping[str, _Format] = {"mds": _Mds(), "webdataset": _WebDataset()}


def _content(values: pa.Array) -> memoryview:
    """All values, one behind the other, without a copy."""
    _, _, data = values.buffers()
    ends = np.frombuffer(values.buffers()[1], np.int64, len(values) + 1, values.offset * 8)
    return memoryview(data)[int(ends[0]) : int(ends[-1])] if data is not None else memoryview(b"")


def _note(manifest: Mapping[str, Any], form: str, schema: pa.Schema, shards: list[_Shard]) -> dict[str, Any]:
    return {
        "format": form,
        "logical_digest": manifest["logical_digest"],
        "columns": schema.names,
        "rows": sum(shard.rows for shard in shards),
        "shards": [
            {
                "path": shard.path,
                "rows": shard.rows,
                "file_bytes": shard.file_bytes,
                "sha256": shard.sha256,
                "made_of": {name: shard.made_of[name] for name in ("path", "sha256", "tokens", "human_verified")},
            }
            for shard in shards
        ],
        "code_version": __version__,
    }


def _readme(manifest: Mapping[str, Any], writer: _Format) -> str:
    floor = human_floor(map(RuleClaim.from_json, manifest["floors"]))
    measure, shards = manifest["measure"], len(manifest["shards"])
    lines = [
        f"# {mix_name(manifest)} for {writer.name}",
        "",
        f"Every row of the mix with the logical digest `{manifest['logical_digest']}`, unchanged and in order: "
        f"{manifest['totals']['rows']:,} rows, and one shard here for each of its {shards:,}.",
        "",
        "```python",
        writer.loader.replace("LAST", f"{max(shards - 1, 0):05d}"),
        "```",
        "",
        f"Of all {measure}, {share_of(manifest, Provenance.HUMAN_VERIFIED.label)} are verified human text, and the "
        f"floor is {floor}: whoever reads a shard from its start, and stops anywhere, has read at least that. A loader "
        "that shuffles or samples rows keeps it on average alone. `provenance`, `source`, `generator` and `evidence` "
        "come along with each row.",
        "",
        f"`{MANIFEST}` is that of the mix: its digests are of Parquet files that this folder does not hold. "
        "`export.json` lists the shards here with their sha256, and of which file of the mix each was made.",
        "",
    ]
    return "\n".join(lines)
