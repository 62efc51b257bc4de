"""Wall time, CPU time and memory of a command with all the processes it starts.

    python benchmarks/peers/measure.py --limit 600 --log run.log --folder . -- COMMAND ...

Prints one line of JSON. CPU seconds are what the system charges for every process of the tree: orphans, such as the
pool servers of multiprocessing, fall to this process, which waits for them. Memory is the largest sum of proportional
set sizes (PSS), so pages that several processes share count once, and never less than the largest resident set of one
process. PSS is looked at some times a second, so a shorter peak of several processes together may be missed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LOOK_SECONDS = 0.1
LOOK_SHARE = 0.02  # of the time at most is spent looking: a look walks the page tables of what is measured
STRAGGLER_SECONDS = 10.0  # for processes that end by themselves after the command did


@dataclass(frozen=True)
class Usage:
    wall: float
    cpu: float
    peak_bytes: int
    exit_code: int
    over_limit: bool


def measure(
    command: list[str], log: Path, *, folder: Path, limit: float, environment: Mapping[str, str] | None = None
) -> Usage:
    """Run a command under a watcher of its own, so that nothing this process did before is charged to it."""
    watcher = [sys.executable, __file__, "--limit", str(limit), "--log", str(log), "--folder", str(folder)]
    answer = subprocess.run(
        [*watcher, "--", *command], env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, check=True
    )
    return Usage(**json.loads(answer.stdout))


def watch(command: list[str], log: Path, folder: Path, limit: float) -> Usage:
    control_process(PR_SET_CHILD_SUBREAPER, 1)
    with log.open("wb") as told:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=told, stderr=subprocess.STDOUT, start_new_session=True)
        peak = 0
        over_limit = False
        patience = 0.0
        try:
            while process.poll() is None and not over_limit:
                looked = time.perf_counter()
                peak = max(peak, sum(map(proportional_bytes, descendants())))
                over_limit = time.perf_counter() - started > limit
                pause = max(LOOK_SECONDS, (time.perf_counter() - looked) / LOOK_SHARE)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(pause)
            wall = time.perf_counter() - started
            patience = 0.0 if over_limit else STRAGGLER_SECONDS
        finally:  # also when this watcher is told to stop
            end_all(patience)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = max(peak, used.ru_maxrss * 1024)
    return Usage(wall, used.ru_utime + used.ru_stime, peak, process.returncode or 0, over_limit)


def control_process(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def end_all(patience: float) -> None:
    """Wait for what is left of the tree, then end it: only descendants of this process, by their ids."""
    until = time.perf_counter() + patience
    while True:
        try:
            reaped, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if reaped:
            continue
        if time.perf_counter() >= until:
            for process in descendants():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def descendants() -> list[int]:
    """Every process below this one."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The name stands in parentheses and may hold anything; state and parent follow it.
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        own = children.get(waiting.pop(), [])
        found += own
        waiting += own
    return found


def proportional_bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds until the command is ended")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="where the command's own output goes")
    parser.add_argument("--folder", type=Path, default=Path("."), help="where the command runs")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    # Whoever asked may be ended by force; the tree that is measured must not outlive it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    control_process(PR_SET_PDEATHSIG, signal.SIGTERM)
    usage = watch(arguments.command, arguments.log, arguments.folder, arguments.limit)
    print(json.dumps(asdict(usage)))


if __name__ == "__main__":
    main()
