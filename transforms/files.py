"""Opening, listing and writing files wherever Beam's FileSystems reach, with a straight road for local ones."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import io
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa

from transforms import stores
from transforms.stores import FileInfo, StoreError

__all__ = [
    "TORN",
    "FileInfo",
    "StoreError",
    "any_below",
    "atomic_output",
    "copy_here",
    "exists",
    "file_digest",
    "file_info",
    "fixed_prefix",
    "is_local",
    "join",
    "list_files",
    "make_folder",
    "open_input",
    "read_bytes",
    "read_view",
    "remove",
    "remove_tree",
    "write_bytes",
]

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")
_WILDCARD = re.compile(r"\[[*?[]\]|[*?[]")

TORN = ".tmp"
"""How the names of local files end that are still being written, or that a killed process left unfinished."""


def is_local(path: str) -> bool:
    return not _SCHEME.match(path)


def join(folder: str, *names: str) -> str:
    return "/".join([folder.rstrip("/"), *names])


def list_files(pattern: str) -> list[FileInfo]:
    """Every file that a glob matches, sorted by path; symlinks count as the file they lead to."""
    if is_local(pattern):
        import glob

        paths = sorted(glob.glob(pattern, recursive=True))
        # A link that leads nowhere is a file that cannot be read; a folder or a pipe is none.
        return [_local_info(path) for path in paths if os.path.isfile(path) or not os.path.exists(path)]
    first = _WILDCARD.search(pattern)
    if first is None:
        found = stores.info(pattern)
        return [found] if found else []
    names = pattern.split("/")
    listed = stores.listed(pattern[: first.start()])
    return sorted((entry for entry in listed if _matches(entry.path.split("/"), names)), key=lambda entry: entry.path)


def _matches(path: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a glob matches as it would local files: a wildcard stays inside a folder, `**` stands for any number of
    folders, and a name that begins with a dot is only matched by one that does."""
    if not names:
        return not path
    if names[0] == "**":
        if len(names) == 1:
            return bool(path) and not any(part.startswith(".") for part in path)
        if _matches(path, names[1:]):
            return True
        return bool(path) and not path[0].startswith(".") and _matches(path[1:], names)
    if not path or (path[0].startswith(".") and not names[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(path[0], names[0]) and _matches(path[1:], names[1:])


def file_info(path: str) -> FileInfo | None:
    """Size and version of one file; None where there is none."""
    if is_local(path):
        return _local_info(path) if os.path.exists(path) else None
    return stores.info(path)


def any_below(folder: str) -> bool:
    """Whether anything lies below a folder of a store, where folders are but parts of names."""
    return next(iter(stores.listed(f"{folder.rstrip('/')}/")), None) is not None


def _local_info(path: str) -> FileInfo:
    try:
        stat = os.stat(path)
    except OSError:
        return FileInfo(path, 0, "gone")  # reading it will say why
    return FileInfo(path, stat.st_size, f"{stat.st_mtime_ns}")


def exists(path: str) -> bool:
    return os.path.exists(path) if is_local(path) else stores.exists(path)


def open_input(path: str) -> Any:
    """A seekable binary file; local ones are memory-mapped so that kernels and Arrow read them in place."""
    if is_local(path):
        return pa.memory_map(path) if os.path.getsize(path) else io.BytesIO()
    return stores.open_input(path)


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
        stores.write(path, staged)


def write_bytes(path: str, data: bytes) -> None:
    with atomic_output(path) as sink:
        sink.write(data)


def remove_tree(path: str) -> None:
    """Remove a folder and all below it; what is already gone is fine."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(StoreError):  # what cannot be removed is litter, not a failure
        stores.delete([entry.path for entry in stores.listed(f"{path.rstrip('/')}/")])


def remove(path: str) -> None:
    """Remove one file; one that is gone is fine."""
    if is_local(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    stores.delete([path])


def copy_here(path: str, local: str) -> None:
    """Bring a file to a local path, whole."""
    with contextlib.closing(open_input(path)) as source, atomic_output(local) as sink:
        shutil.copyfileobj(source, sink, 8 << 20)


def fixed_prefix(pattern: str) -> str:
    """The folder above a glob's first wildcard: what shard names are relative to."""
    # [*], [?] and [[] are how a glob spells the character itself.
    wildcard = next((match.start() for match in _WILDCARD.finditer(pattern) if len(match[0]) == 1), len(pattern))
    folder = pattern[: pattern.rfind("/", 0, wildcard) + 1]
    return _WILDCARD.sub(lambda match: match[0][1:2] or match[0], folder)
