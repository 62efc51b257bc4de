"""Object stores, through Beam's FileSystems: paths with a scheme, such as s3://bucket/key or gs://bucket/key.

Whatever fails is a `StoreError`: it says what the store answered, or that it did not. A store has no folders and no
rename, and the last of two writers wins; `write` therefore takes a condition, which S3 holds and other stores are asked
about beforehand.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import io
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

MISSING = "missing"  # there is no such object
NO_BUCKET = "no_bucket"
DENIED = "denied"  # no credentials, or not enough of them
TAKEN = "taken"  # the condition of a write does not hold: somebody else was first
UNSUPPORTED = "unsupported"
SILENT = "silent"  # no answer, a broken one, or one that says to come again; nobody's config is at fault
UNAVAILABLE = "unavailable"  # nothing here speaks to such a store
FAILED = "failed"

EXTRAS = {"s3": ("boto3", "aws"), "gs": ("google.cloud.storage", "gcp")}
"""By scheme the module that must be installed, and the extra that brings it."""

_PATIENCE_SECONDS = 60
_READ_AHEAD_BYTES = 4 << 20  # a request each, which costs as much time as a megabyte
_WHOLE_BYTES = 32 << 20  # of one request where all of an object is wanted


class StoreError(Exception):
    """What a store said of a path, in words; `kind` is one of the constants above.

    It is no OSError, on purpose: who takes a file that cannot be read for a fact about the input, or about custody,
    must not take a network that is down for one.
    """

    def __init__(self, path: str, problem: str, kind: str = FAILED) -> None:
        super().__init__(path, problem, kind)
        self.path = path
        self.problem = problem
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"

    def __reduce__(self) -> tuple[Any, ...]:
        return NoSuchObject if isinstance(self, NoSuchObject) else StoreError, (self.path, self.problem, self.kind)


class NoSuchObject(StoreError, FileNotFoundError):
    """There is no such object: a fact about the input, as with a local file."""

    def __init__(self, path: str, problem: str = "no such object", kind: str = MISSING) -> None:
        super().__init__(path, problem, kind)
        self.errno = errno.ENOENT
        self.strerror = problem
        self.filename = path


@dataclass(frozen=True)
class FileInfo:
    """What tells one version of a file from another without reading it."""

    path: str
    size: int
    version: str


def patience() -> int:
    """Seconds to wait for an answer; requests are tried again a few times, each as long."""
    asked = os.environ.get("ANCHORMIX_STORE_SECONDS", "")
    return int(asked) if asked.isdecimal() and int(asked) else _PATIENCE_SECONDS


def scheme(path: str) -> str:
    return path.partition("://")[0].lower()


def _is_s3(path: str) -> bool:
    return scheme(path) == "s3"


def _s3() -> Any:
    """The module that speaks to S3; importing it takes boto3 and a second."""
    from transforms import s3

    return s3


def file_systems(path: str) -> Any:
    """Beam's registry, ready for a path of this scheme; imported only now, because it costs a second."""
    module, extra = EXTRAS.get(scheme(path), ("", ""))
    if module and not _installed(module):
        problem = f"{scheme(path)}:// needs packages that are not installed; pip install 'anchormix[{extra}]'"
        raise StoreError(path, problem, UNAVAILABLE)
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.options.value_provider import RuntimeValueProvider

    if FileSystems._pipeline_options is None and RuntimeValueProvider.runtime_options is None:
        FileSystems.set_options(PipelineOptions([]))  # no pipeline was made yet, and none may ever be
    if _is_s3(path):
        _s3().reuse_client()
    return FileSystems


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False


@contextlib.contextmanager
def _telling(path: str) -> Iterator[None]:
    """Turns what a file system raises, which may be anything, into a `StoreError`."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise _told(path, error) from error


def _told(path: str, error: BaseException) -> StoreError:
    inner = getattr(error, "exception_details", None)  # Beam's wrapping, with the true reason by path
    reason = next(iter(inner.values()), None) if isinstance(inner, dict) else None
    if isinstance(reason, StoreError):
        return reason
    if isinstance(reason, BaseException):
        return _told(path, reason)
    code = getattr(error, "code", None)
    if isinstance(error, FileNotFoundError) or code == 404:
        return NoSuchObject(path)
    if "Unable to get filesystem" in str(error):
        return StoreError(path, f"no file system that is installed knows {scheme(path)}://", UNAVAILABLE)
    kind = FAILED
    if isinstance(code, int):
        kind = DENIED if code in (401, 403) else TAKEN if code in (409, 412) else SILENT if code >= 500 else FAILED
    elif isinstance(error, (ConnectionError, TimeoutError)) or type(error).__name__ == "RetryError":
        kind = SILENT
    elif type(error).__name__ == "DefaultCredentialsError":
        kind = DENIED
    reason_told = " ".join((error.strerror if isinstance(error, OSError) and error.strerror else str(error)).split())
    return StoreError(path, f"{reason_told or type(error).__name__}"[:500], kind)


def listed(prefix: str) -> Iterator[FileInfo]:
    """Every object whose path begins so, in no particular order; what only marks a folder is none."""
    with _telling(prefix):
        systems = file_systems(prefix)
        if _is_s3(prefix):
            found: Iterable[FileInfo] = _s3().listed(prefix)
        else:
            entries = systems.match([f"{_unescapable(prefix)}**"])[0].metadata_list
            found = (FileInfo(e.path, e.size_in_bytes, f"{e.last_updated_in_seconds}") for e in entries)
        for entry in found:
            if entry.path.startswith(prefix) and not entry.path.endswith("/"):
                yield entry


def _unescapable(prefix: str) -> str:
    """As much of a prefix as Beam does not take for a pattern: there is no way to quote."""
    return re.split(r"[*?[]", prefix)[0]


def info(path: str) -> FileInfo | None:
    """Size and version of an object; None where there is none."""
    with _telling(path):
        systems = file_systems(path)
        if _is_s3(path):
            found: FileInfo | None = _s3().info(path)
            return found
        if not systems.exists(path):
            return None
        entry = systems.get_filesystem(path).metadata(path)
        return FileInfo(path, entry.size_in_bytes, f"{entry.last_updated_in_seconds}")


def exists(path: str) -> bool:
    with _telling(path):
        return bool(file_systems(path).exists(path))


def open_input(path: str) -> IO[bytes]:
    """A seekable binary file; what its reading raises is a `StoreError`."""
    from apache_beam.io.filesystem import CompressionTypes

    with _telling(path):
        source = file_systems(path).open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    return io.BufferedReader(_Source(path, source), _READ_AHEAD_BYTES)


class _Source(io.RawIOBase):
    """Beam's handle, which would read 16 MiB ahead at every seek, without its buffer, and with words for what fails."""

    def __init__(self, path: str, source: Any) -> None:
        self._path = path
        self._whole = source
        self._source = getattr(source, "raw", source)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _telling(self._path):
            data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        pieces = []
        with _telling(self._path):
            while piece := self._source.read(_WHOLE_BYTES):
                pieces.append(piece)
        return b"".join(pieces)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _telling(self._path):
            self._source.seek(offset, whence)
            return int(self._source.tell())

    def tell(self) -> int:
        return int(self._source.tell())

    def close(self) -> None:
        if not self.closed:
            with contextlib.suppress(Exception):
                self._whole.close()
        super().close()


def read(path: str) -> tuple[bytes, str] | None:
    """An object and what names this version of it in `write`; None where there is none."""
    with _telling(path):
        systems = file_systems(path)
        if _is_s3(path):
            found: tuple[bytes, str] | None = _s3().read(path)
            return found
        if not systems.exists(path):
            return None
    with open_input(path) as source:
        data = source.read()
    return data, hashlib.sha256(data).hexdigest()


def write(path: str, body: IO[bytes], condition: str | None = None) -> str:
    """Write all that is left of a local file as one object, whole or not at all; gives what names this version.

    `condition` is "*" where nothing may stand there yet, or the name of the version to replace. An error of the kind
    TAKEN says that it does not hold. S3 judges it in the moment of writing; of other stores it is asked just before.
    """
    start = body.tell()
    size = body.seek(0, os.SEEK_END) - start
    body.seek(start)
    with _telling(path):
        systems = file_systems(path)
        if _is_s3(path):
            try:
                return str(_s3().write(path, body, size, condition))
            except StoreError as error:  # a server of an older kind, that has no conditions
                if condition is None or error.kind != UNSUPPORTED:
                    raise
            body.seek(start)
        if condition is not None:
            standing = read(path)
            if (standing is not None) if condition == "*" else (standing is None or standing[1] != condition):
                raise StoreError(path, "another writer was first", TAKEN)
        if _is_s3(path):
            return str(_s3().write(path, body, size))
        _write_whole(systems, path, body)
    body.seek(start)
    return hashlib.file_digest(body, "sha256").hexdigest() if condition is not None else ""  # type: ignore[arg-type]


def _write_whole(systems: Any, path: str, body: IO[bytes]) -> None:
    """Beam closes a handle that is left by an exception, which publishes what was written so far: that is removed."""
    from apache_beam.io.filesystem import CompressionTypes

    sink = systems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
    try:
        shutil.copyfileobj(body, sink, 8 << 20)
    except BaseException:
        with contextlib.suppress(Exception):
            sink.close()
        with contextlib.suppress(Exception):
            systems.delete([path])
        raise
    sink.close()


def age(path: str) -> float | None:
    """Seconds since an object was written, by the store's own clock where it tells it; None where there is none."""
    with _telling(path):
        systems = file_systems(path)
        if _is_s3(path):
            found: float | None = _s3().age(path)
            return found
        if not systems.exists(path):
            return None
        return time.time() - float(systems.last_updated(path))


def delete(paths: list[str]) -> None:
    """Remove objects; those that are gone already are fine."""
    if not paths:
        return
    with _telling(paths[0]):
        file_systems(paths[0]).delete(paths)
