"""Opening, listing and writing files wherever Beam's FileSystems reach, with a straight road for local ones."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")

TORN = ".tmp"
"""How the names of local files end that are still being written, or that a killed process left unfinished."""


def is_local(path: str) -> bool:
    return not _SCHEME.match(path)


def join(folder: str, *names: str) -> str:
    return "/".join([folder.rstrip("/"), *names])


def _filesystems() -> Any:
    """Beam's registry, imported only when a path is not local: it costs a second."""
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


@dataclass(frozen=True)
class FileInfo:
    """What tells one version of a file from another without reading it."""

    path: str
    size: int
    version: str


def list_files(pattern: str) -> list[FileInfo]:
    """Every file that a glob matches, sorted by path; symlinks count as the file they lead to."""
    if is_local(pattern):
        import glob

        paths = sorted(glob.glob(pattern, recursive=True))
        # A link that leads nowhere is a file that cannot be read; a folder or a pipe is none.
        return [_local_info(path) for path in paths if os.path.isfile(path) or not os.path.exists(path)]
    match = _filesystems().match([pattern])[0]
    return sorted(
        (
            FileInfo(entry.path, entry.size_in_bytes, f"{entry.last_updated_in_seconds}")
            for entry in match.metadata_list
        ),
        key=lambda info: info.path,
    )


def _local_info(path: str) -> FileInfo:
    try:
        stat = os.stat(path)
    except OSError:
        return FileInfo(path, 0, "gone")  # reading it will say why
    return FileInfo(path, stat.st_size, f"{stat.st_mtime_ns}")


def exists(path: str) -> bool:
    return os.path.exists(path) if is_local(path) else bool(_filesystems().exists(path))


def open_input(path: str) -> Any:
    """A seekable binary file; local ones are memory-mapped so that kernels and Arrow read them in place."""
    if is_local(path):
        return pa.memory_map(path) if os.path.getsize(path) else io.BytesIO()
    from apache_beam.io.filesystem import CompressionTypes

    return _filesystems().open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def read_view(source: Any, length: int) -> memoryview:
    """The next `length` bytes; of a memory-mapped file without copying them."""
    view = memoryview(source.read_buffer(length) if isinstance(source, pa.NativeFile) else source.read(length))
    return view.cast("B")  # Arrow says signed bytes, which compare unequal to what `bytes` holds


def read_bytes(path: str) -> bytes:
    with open_input(path) as source:
        data: bytes = source.read()
        return data


def file_digest(path: str) -> str:
    """sha256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with contextlib.closing(open_input(path)) as source:
        while block := source.read(8 << 20):
            digest.update(block)
    return digest.hexdigest()


def make_folder(path: str) -> None:
    if is_local(path):
        os.makedirs(path, exist_ok=True)


@contextlib.contextmanager
def atomic_output(path: str) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` whole, or not at all.

    Local files are written under a name of their own and renamed. Elsewhere the bytes are staged on local disk and
    copied once complete, because an exception inside an open upload publishes what was written so far.
    """
    if is_local(path):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        scratch = f"{path}.{uuid.uuid4().hex}{TORN}"
        try:
            with open(scratch, "wb") as sink:
                yield sink
            os.replace(scratch, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            raise
        return
    with tempfile.TemporaryFile() as staged:
        yield staged
        staged.seek(0)
        from apache_beam.io.filesystem import CompressionTypes

        with _filesystems().create(path, compression_type=CompressionTypes.UNCOMPRESSED) as sink:
            shutil.copyfileobj(staged, sink, 8 << 20)


def write_bytes(path: str, data: bytes) -> None:
    with atomic_output(path) as sink:
        sink.write(data)


def remove_tree(path: str) -> None:
    """Remove a folder and all below it; what is already gone is fine."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(Exception):  # scratch that cannot be removed is litter, not a failure
        _filesystems().delete([path])


_WILDCARD = re.compile(r"\[[*?[]\]|[*?[]")


def fixed_prefix(pattern: str) -> str:
    """The folder above a glob's first wildcard: what shard names are relative to."""
    # [*], [?] and [[] are how a glob spells the character itself.
    wildcard = next((match.start() for match in _WILDCARD.finditer(pattern) if len(match[0]) == 1), len(pattern))
    folder = pattern[: pattern.rfind("/", 0, wildcard) + 1]
    return _WILDCARD.sub(lambda match: match[0][1:2] or match[0], folder)
