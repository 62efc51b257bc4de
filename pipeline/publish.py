"""The output folder: staged beside its place, complete before it appears, and never touched again.

A mix is written into a staging folder on the same file system and renamed into place; its `_SUCCESS` is written last.
So a reader sees no mix, or a whole one. On an object store, which knows no rename, `publish_store` does it otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline import publish_store
from pipeline.config import Config
from pipeline.custody import Custody, signed_bytes
from pipeline.errors import UsageError
from pipeline.layers import Indexed, custody_verdicts
from pipeline.object_stores import fetch
from transforms import files
from transforms.sidecars import read_table

SUCCESS = "_SUCCESS"
_STAGING = ".staging-"
_FLUSHED_AT_ONCE = 8

INPUTS_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("rows", pa.int64()),
        pa.field("documents", pa.int64()),
        pa.field("bad_records", pa.int64()),
        pa.field("custody_verdict", pa.string()),
        pa.field("custody_manifest", pa.string()),
    ]
)

DIVERSITY_SCHEMA = pa.schema(
    [
        pa.field("scope", pa.string()),
        pa.field("name", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("n", pa.int64()),
        pa.field("method", pa.string()),
    ]
)


def published(output: str) -> dict[str, Any] | None:
    """The manifest of what already stands at `output`; None where nothing stands there."""
    if not files.is_local(output):
        return publish_store.standing(output)
    folder = Path(output)
    with _writing(output):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return None
    with contextlib.suppress(OSError, ValueError):
        if (folder / SUCCESS).exists():
            manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
            return manifest
    raise UsageError(
        "output_exists",
        f"output: {output!r} exists and is not a published mix. A mix is only ever written to a folder that is new or "
        "empty: name another one, or move this one away.",
        output=output,
    )


def check_place(output: str) -> None:
    """Refuse, before any work is done, a place where no folder can be made; makes nothing itself."""
    if not files.is_local(output):
        return  # it was listed already, and is about to be claimed
    above = Path(output).absolute().parent
    with _writing(output):
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(above))
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(above))


@contextlib.contextmanager
def _writing(output: str, key: str = "output") -> Iterator[None]:
    """Turns what the file system says of a folder into words about the key that named it."""
    try:
        yield
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise UsageError(
            "output_not_writable",
            f"{key}: {output!r} cannot be made ({error.strerror or error}{where}). Name a folder under `{key}` that "
            "this account may make, or mend what stands in its way.",
            output=output,
        ) from None


@contextlib.contextmanager
def staging(
    output: str,
    run_id: str,
    below: Sequence[str] = ("data", "fates", "custody"),
    key: str = "output",
    scratch: str = "",
) -> Iterator[Path]:
    """A folder for one attempt, which is gone afterwards, unless `publish` moved it into place.

    It lies beside a local `output`, or below `scratch` where a store has to be filled by uploads. `below` are the
    folders that it begins with, `key` is what messages call `output`.
    """
    if not files.is_local(output):
        folder = Path(scratch) / "staging"
        folder.mkdir(parents=True)
        for name in below:
            (folder / name).mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    parent = Path(output).parent
    with _writing(output, key):
        parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{Path(output).name}{_STAGING}"
    for left_over in parent.glob(f"{glob.escape(prefix)}*"):
        with contextlib.suppress(FileNotFoundError), _held(left_over) as ours:
            if ours:
                shutil.rmtree(left_over, ignore_errors=True)
    folder = parent / f"{prefix}{run_id}"
    with _writing(output, key):
        folder.mkdir()
    with _held(folder):
        for name in below:
            (folder / name).mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def destination(output: str, is_free: bool) -> Iterator[Callable[[Path], None]]:
    """What publishes a staged mix at `output`. Nothing keeps a second run away from a local folder until one of them is
    renamed into place; on a store a place that is free is claimed from the beginning."""
    if files.is_local(output) or not is_free:
        if not files.is_local(output):
            publish_store.take_dead_claim_away(output)
        yield lambda folder: publish(folder, output)
        return
    with publish_store.claimed(output) as claimed:
        yield claimed.publish


def fetch_staged(staged: str, folder: Path, reports: Sequence[Mapping[str, Any]]) -> None:
    """Bring here what workers staged where this machine's disk is not theirs."""
    below = {"shard": "data", "fates": "fates"}
    names = [f"{below[r['kind']]}/{r['staged']}" for r in reports if r["kind"] in below]
    fetch([(files.join(staged, name), str(folder / name)) for name in names])


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Whether this run holds a staging folder; a run that lives, from another index perhaps, holds its own."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except OSError as error:  # file systems without locks cannot tell
            ours = not isinstance(error, BlockingIOError)
        yield ours
    finally:
        os.close(handle)


@contextlib.contextmanager
def flushing(folder: Path) -> Iterator[None]:
    """Have what is staged by now put on disk while the driver works on; `publish` then finds little left to do."""
    with ThreadPoolExecutor(1) as beside:
        flushed = beside.submit(_flush_all, folder)
        yield
        flushed.result()


def publish(folder: Path, output: str, key: str = "output") -> None:
    """Make a staged folder appear: everything on disk first, `_SUCCESS` next, one rename last."""
    _flush_all(folder)
    (folder / SUCCESS).write_bytes(b"")
    _flush(folder / SUCCESS)
    with contextlib.suppress(OSError):
        os.rmdir(output)  # an empty folder may stand there
    try:
        os.rename(folder, output)
    except OSError:
        if not os.path.exists(output):
            raise
        raise UsageError(
            "output_exists",
            f"{key}: while this run worked, {output!r} came into being. What is published is never overwritten: name "
            f"another `{key}`, or run the same command again to compare.",
            output=output,
        ) from None


def _flush_all(folder: Path) -> None:
    """Side by side, so that the file system can put many small files on disk in one go."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:
        for _ in pool.map(_flush, paths):
            pass


def _flush(path: Path) -> None:
    with open(path, "rb") as written:
        os.fsync(written.fileno())


def settle_names(folder: Path, reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give staged files their names; whatever no report names was written by an attempt that did not count."""
    shards = sorted((report for report in reports if report["kind"] == "shard"), key=lambda r: int(r["shard"]))
    for report in shards:
        os.rename(folder / "data" / report["staged"], folder / "data" / report["name"])
    fates = sorted((report for report in reports if report["kind"] == "fates"), key=lambda r: int(r["split"]))
    for number, report in enumerate(fates):
        os.rename(folder / "fates" / report["staged"], folder / "fates" / f"part-{number:05d}.parquet")
    for below, named in (
        ("data", {r["name"] for r in shards}),
        ("fates", {f"part-{n:05d}.parquet" for n in range(len(fates))}),
    ):
        for path in (folder / below).iterdir():
            if path.name not in named:
                path.unlink()
    return [dict(report) for report in shards]


def write_inputs(folder: Path, indexed: Indexed) -> None:
    rows = []
    verdicts = custody_verdicts(indexed.facts, indexed.custody)
    for shard in indexed.facts.shards:
        rows.append(
            {
                "source": shard.shard.source,
                "shard": shard.shard.name,
                "sha256": shard.digest or None,
                "bytes": shard.shard.size,
                "rows": shard.total("documents"),
                "documents": shard.total("documents"),
                "bad_records": shard.total("bad_records"),
                "custody_verdict": verdicts[shard.shard.source, shard.shard.name],
                "custody_manifest": indexed.custody.manifest_of(shard.shard.source, shard.digest),
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, INPUTS_SCHEMA), folder / "inputs.parquet", compression="zstd")


def copy_custody(folder: Path, custody: Custody) -> None:
    """The manifests and leaf lists that verified anything, so that the mix can be checked without its inputs."""
    for source in custody.sources.values():
        for manifest in source.manifests:
            content = signed_bytes(manifest.path, manifest.digest)
            files.write_bytes(str(folder / f"{manifest.digest}.dsse.json"), content)
        for subject, leaves in source.subjects.items():
            copied = folder / f"{leaves.manifest_digest}.leaves" / f"{subject}.leaves"
            files.write_bytes(str(copied), signed_bytes(leaves.path, leaves.digest))


def used_manifests(custody: Custody) -> list[dict[str, Any]]:
    return [
        {"source": name, "manifest": used.digest, "key": used.key, "method": used.method, "issuer": used.issuer}
        for name, source in sorted(custody.sources.items())
        for used in source.manifests
    ]


def diversity_table(reports: Sequence[bytes]) -> pa.Table:
    """The rows of all scopes, sorted."""
    rows = []
    for scope in map(json.loads, reports):
        for metric, value, n, method in scope["values"]:
            rows.append((scope["scope"], scope["name"], metric, float(value), n, method))
    rows.sort()
    columns = list(zip(*rows, strict=True)) or [()] * len(DIVERSITY_SCHEMA)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, DIVERSITY_SCHEMA, strict=True)], DIVERSITY_SCHEMA)


def write_diversity(folder: Path, reports: Sequence[bytes]) -> pa.Table:
    """Returns what was written, read from the disk again: what is judged is what is published."""
    path = folder / "diversity.parquet"
    pq.write_table(diversity_table(reports), path, compression="zstd")
    return read_table(str(path))


def write_config(folder: Path, config: Config) -> None:
    text = yaml.safe_dump(config.resolved(), sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
