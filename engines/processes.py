"""Servers in the background: started in a session of their own, waited for, found again by another call, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class EngineError(Exception):
    """Told without a traceback."""


@dataclass
class Server:
    name: str
    process: subprocess.Popen[bytes]
    log: Path


def launch(name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Server:
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
    return Server(name, process, log)


def wait_until(ready: Callable[[], bool], servers: Sequence[Server], seconds: float) -> None:
    """Wait for servers that were launched, or say why it is in vain; then all of them are ended."""
    deadline = time.monotonic() + seconds
    while not ready():
        ended = next((server for server in servers if server.process.poll() is not None), None)
        if ended is None and time.monotonic() < deadline:
            time.sleep(0.2)
            continue
        end([server.process.pid for server in servers], 0)
        if ended is not None:
            raise EngineError(f"{ended.name} ended at once (exit {ended.process.returncode}); {ended.log} says why")
        names, logs = (
            ", ".join(words) for words in zip(*((each.name, str(each.log)) for each in servers), strict=True)
        )
        raise EngineError(f"{names}: not ready within {seconds:.0f} s; logs: {logs}")


def runs(pid: int, word: str) -> bool:
    """Whether this is still the process that was started with this word in its call: ids are given out again."""
    shown = subprocess.run(["ps", "-ww", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True).stdout
    return word in shown and not shown.startswith("Z")


def end(leaders: Iterable[int], patience: float) -> None:
    """End sessions with all that was started in them, after so many seconds by force."""
    signalled = [leader for leader in leaders if _signal(leader, signal.SIGTERM)]
    deadline = time.monotonic() + patience
    while any(_signal(leader, 0) for leader in signalled):
        if time.monotonic() > deadline:
            for leader in signalled:
                _signal(leader, signal.SIGKILL)
            return
        time.sleep(0.1)
        _reap()


def _signal(leader: int, kind: int) -> bool:
    try:
        os.killpg(leader, kind)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _reap() -> None:
    """A child of this very call that has ended counts as a member of its session until it was waited for."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("localhost", port)) == 0
