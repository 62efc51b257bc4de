"""Servers and pools of workers that know nothing of the project, and commands without rights."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from engine_runs import PATIENCE


def ran(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=PATIENCE)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def bare(temporary: Path) -> dict[str, str]:
    """What a worker's process knows of the machine: no home, and nothing of the environment of these tests."""
    return {"PATH": os.environ["PATH"], "HOME": "/dev/null", "TMPDIR": str(temporary), "LC_ALL": "C.UTF-8"}


@contextlib.contextmanager
def read_only(tree: Path) -> Iterator[None]:
    """No file or folder of a tree can be made, as long as permissions bind whoever tries."""
    folders = [path for path in (tree, *tree.rglob("*")) if path.is_dir() and not path.is_symlink()]
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


def without_privileges() -> list[str]:
    """Of root, only the name is left: permissions of files bind it as they bind others."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not on PATH: as root, nothing else makes permissions of files bind a command")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


Server = contextlib.AbstractContextManager[str]
"""That runs inside of a `with`, which gives its address."""


@contextlib.contextmanager
def background(
    call: Sequence[str | Path], port: int, folder: Path, name: str, more: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A server in a process group of its own, which knows nothing of the project; its words go to a log in a folder."""
    environment = {**bare(folder), **(more or {})}
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(call, stdout=log, stderr=log, env=environment, cwd="/", start_new_session=True)
    try:
        _wait_for(port, process)
        yield f"localhost:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}; exit code {process.poll()}")


def job_service(folder: Path) -> Server:
    """Beam's own in Python: it stages, and has its local engine carry jobs out on the workers that they ask for."""
    port = free_port()
    module = "apache_beam.runners.portability.local_job_service_main"
    call = [sys.executable, "-m", module, f"--port={port}", f"--staging_dir={folder / 'artifacts'}"]
    return background(call, port, folder, "job-service")


def worker_pool(boot: Path, folder: Path, kernels: Path, more: Mapping[str, str] | None = None) -> Server:
    """Workers are started by a program, and compiled kernels outlive them."""
    port = free_port()
    module = "apache_beam.runners.worker.worker_pool_main"
    call = [boot.parent / "bin" / "python", "-m", module, f"--service_port={port}", f"--container_executable={boot}"]
    return background(call, port, folder, "worker-pool", {"NUMBA_CACHE_DIR": str(kernels), **(more or {})})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
