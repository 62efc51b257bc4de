"""Where compiled kernels are kept: never where another user could put code for this one to run.

A cache of numba's holds pickles, and reading a pickle runs what it says. So a folder is used only if this user owns it,
nobody else may write there, and nobody else may put another in its place.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
SOURCES = Path(__file__).parent


def choose() -> None:
    """Set numba's variable, unless somebody has, or what numba does by itself is right.

    That is to write beside the sources. It then compiles a function anew if its file changed, but not if one changed
    that it calls into: good enough for a working copy, and wrong where an upgrade puts new sources in the old ones'
    place.
    """
    if VARIABLE in os.environ:
        return
    beside = all(_writable(folder) for folder in _beside(SOURCES))
    if beside and not _is_installed(SOURCES):
        return
    name = f"kernels-{_version(SOURCES)}"
    if beside:
        os.environ[VARIABLE] = str(SOURCES / "__pycache__" / name)
        return
    for base in _bases():
        with contextlib.suppress(OSError):
            if private := private_folder(base, name):
                os.environ[VARIABLE] = str(private)
                return
    os.environ[VARIABLE] = own = tempfile.mkdtemp(prefix="anchormix-kernels-")
    # For as long as this process lives, and those that it starts and that inherit the variable.
    atexit.register(_remove_in, os.getpid(), own)


def private_folder(base: Path, name: str) -> Path | None:
    """A folder in which only this user can write, and that nobody else can replace; made if it is not there."""
    base.parent.mkdir(mode=0o700, exist_ok=True)
    if not _keeps_names(base.parent):
        return None
    for folder in (base, base / name):
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _is_ours_alone(folder):
            return None
    return folder if _writable(folder) else None


def _keeps_names(folder: Path) -> bool:
    """Whether nobody else can rename what this user puts there: it is ours, or sticky as /tmp is."""
    found = folder.stat()
    return found.st_uid in (os.geteuid(), 0) and (not _others_write(found) or bool(found.st_mode & stat.S_ISVTX))


def _is_ours_alone(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not _others_write(found)


def _others_write(found: os.stat_result) -> bool:
    return bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _bases() -> Iterator[Path]:
    """Folders that outlive a process, the best first."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if os.path.isabs(home):
        yield Path(home, "anchormix")
    yield Path(tempfile.gettempdir(), f"anchormix-{os.geteuid()}")


def _beside(sources: Path) -> Iterator[Path]:
    """Every folder that numba would write to."""
    for folder in {path.parent for path in sources.rglob("*.py")}:
        cache = folder / "__pycache__"
        yield cache if cache.exists() else folder


def _is_installed(sources: Path) -> bool:
    """Whether an installer put the sources where they are: its record lies beside the package."""
    return any(sources.parents[1].glob("anchormix-*.dist-info"))


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _version(sources: Path) -> str:
    """Of all kernels together."""
    digest = hashlib.sha256()
    for path in sorted(sources.rglob("*.py")):
        digest.update(f"{path.relative_to(sources)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _remove_in(process: int, folder: str) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
