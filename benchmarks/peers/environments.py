"""An environment for each peer, in the ignored folder `.bench-peers`, because their dependencies contradict each other.

Requirements are pinned down to the last package and installed without resolving, so every machine runs the same code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".bench-peers"
SHOWN_LINES = 12  # of pip's output when it fails


class CannotInstall(Exception):
    """Why a peer does not run here."""


def ensure(name: str, python: Path) -> Path:
    """The interpreter of an environment that holds exactly what requirements-NAME.txt names."""
    requirements = HERE / f"requirements-{name}.txt"
    folder = ENVIRONMENTS / name
    wanted = f"{python} {hashlib.sha256(requirements.read_bytes()).hexdigest()}"
    mark = folder / "installed"
    interpreter = folder / "bin" / "python"
    if mark.is_file() and mark.read_text() == wanted:
        return interpreter
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {requirements.name} into {folder} ...", file=sys.stderr, flush=True)
    _run([str(python), "-m", "venv", str(folder)])
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _run([*pip, "-r", str(requirements)])
    mark.write_text(wanted)
    return interpreter


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        told = "\n".join(done.stdout.splitlines()[-SHOWN_LINES:])
        raise CannotInstall(f"{' '.join(command)} failed:\n{told}")


@lru_cache
def python_from(least: tuple[int, int]) -> Path | None:
    """An interpreter of at least that version: this one, one on PATH, or one of pyenv's; the oldest that will do."""
    if sys.version_info[:2] >= least:
        return Path(sys.executable)
    versions = [(least[0], minor) for minor in range(least[1], least[1] + 4)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for major, minor in versions:
        name = f"python{major}.{minor}"
        on_path = shutil.which(name)
        found = [Path(on_path)] if on_path else []
        found += sorted(pyenv.glob(f"versions/{major}.{minor}.*/bin/{name}"))
        for candidate in found:
            # A shim may stand on PATH for a version that is not switched on.
            if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
                return candidate
    return None
