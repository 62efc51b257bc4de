"""Time one run on each runner that works on this machine alone: wall and CPU seconds, and memory of all processes.

    python benchmarks/bench_runners.py                                 the samples and a generated corpus of 200 MB
    python benchmarks/bench_runners.py --megabytes 200 1000            other sizes
    python benchmarks/bench_runners.py --runners prism --rounds 3 --exchange shuffle

Every run is a process of its own on a fresh index, its children included: their CPU seconds are added, and their
resident memory is summed at up to 20 looks a second, of which the largest sum is the peak. A line holds the best of
all rounds, which are interleaved, so that what else the machine does hits all alike. The bytes of `data/` are compared
with those of the default runner, and a run that fails says how. Needs /proc, and Go for Prism, which is left out
where there is none.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench_run import ROOT, generated, start_anew, warm_up

PRISM = ROOT / "engines" / "prism" / "binary"
LOOK_SECONDS = 0.05
PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")

RUNNERS = {
    "threads": [],
    "multi_threading": ["--direct_running_mode=multi_threading"],
    "multi_processing": ["--direct_running_mode=multi_processing"],
    "portable": ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"],
    "prism": ["--runner=PrismRunner"],
}


@dataclass(frozen=True)
class Outcome:
    wall: float
    cpu: float
    peak_bytes: int
    data: str  # digest of what was published; empty after a failure
    failure: str = ""


@dataclass
class Family:
    """A process and all that descend from it, also those whose parent has ended."""

    root: int
    seen: dict[int, float] = field(default_factory=dict)  # CPU seconds by process id, as of the last look
    peak_bytes: int = 0

    def look(self) -> None:
        """Read /proc once."""
        parents, times, resident = {}, {}, {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                pid = int(entry.name)
                parents[pid] = int(fields[1])
                times[pid] = (int(fields[11]) + int(fields[12])) / TICK
                resident[pid] = int(fields[21]) * PAGE
        family = {pid for pid in (self.root, *self.seen) if pid in times}
        for _ in range(8):  # generations
            family |= {pid for pid, parent in parents.items() if parent in family}
        for pid in family:
            self.seen[pid] = max(times[pid], self.seen.get(pid, 0.0))
        self.peak_bytes = max(self.peak_bytes, sum(resident[pid] for pid in family))

    def end(self) -> None:
        """Kill what is left."""
        self.look()
        for pid in self.seen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def measure(config: Path, beam: list[str], exchange: str, patience: float) -> Outcome:
    start_anew(config)
    call = [sys.executable, "-m", "pipeline", "run", str(config), "--json", "--quiet", "--", *beam]
    environment = {**os.environ, "ANCHORMIX_EXCHANGE": exchange}
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = subprocess.Popen(call, cwd=ROOT, stdout=told, stderr=log, env=environment)
        family = Family(process.pid)
        ended = 0
        try:
            while not ended and time.monotonic() - started < patience:
                family.look()
                time.sleep(LOOK_SECONDS)
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            wall = time.monotonic() - started
        finally:
            family.end()
        told.seek(0)
        lines = told.read().decode().splitlines()
    if not ended:
        process.wait()
        return Outcome(wall, 0, family.peak_bytes, "", f"not done within {patience:.0f} s")
    if status:
        error = json.loads(lines[-1])["error"]["message"] if lines else f"exit {os.waitstatus_to_exitcode(status)}"
        return Outcome(wall, 0, family.peak_bytes, "", error)
    mix = Path(json.loads(lines[-1])["output"])
    # The system counts a process that was waited for to its last tick; looks also see those that nobody waited for.
    cpu = max(usage.ru_utime + usage.ru_stime, sum(family.seen.values()))
    return Outcome(wall, cpu, family.peak_bytes, digest(mix / "data"))


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        whole.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def compare(name: str, config: Path, runners: dict[str, list[str]], arguments: argparse.Namespace) -> None:
    outcomes: dict[str, list[Outcome]] = {runner: [] for runner in runners}
    for _ in range(arguments.rounds):
        for runner, beam in runners.items():
            if not any(outcome.failure for outcome in outcomes[runner]):
                outcomes[runner].append(measure(config, beam, arguments.exchange, arguments.patience))
                print(f"{name}, {runner}: {outcomes[runner][-1]}", file=sys.stderr, flush=True)
    reference = next((outcome.data for outcome in outcomes.get("threads", []) if outcome.data), "")
    for runner, found in outcomes.items():
        failure = next((outcome.failure for outcome in found if outcome.failure), "")
        figures = "failed | | " if failure else figures_of(found)
        same = {outcome.data == reference for outcome in found}
        told = failure or ("yes" if same == {True} else "not compared" if not reference else "NO")
        peak = min(outcome.peak_bytes for outcome in found) / 1e9
        print(f"| {name} | {runner} | {figures} | {peak:.2f} | {told} |", flush=True)


def figures_of(found: list[Outcome]) -> str:
    return f"{min(outcome.wall for outcome in found):.1f} | {min(outcome.cpu for outcome in found):.1f}"


def runners_asked(names: list[str]) -> dict[str, list[str]]:
    runners = {name: RUNNERS[name] for name in names}
    if "prism" in runners:
        if shutil.which("go") is None:
            print("go is not on PATH: Prism is left out", file=sys.stderr)
            del runners["prism"]
        else:
            binary = subprocess.run([PRISM], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
            runners["prism"] = [*runners["prism"], f"--prism_location={binary}"]
    return runners


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", nargs="*", type=int, default=[200], help="sizes of the generated corpora")
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=list(RUNNERS), help="default: all")
    parser.add_argument("--rounds", type=int, default=1, help="the best of so many (default: 1)")
    parser.add_argument(
        "--exchange",
        choices=["files", "shuffle"],
        default="",
        help="what carries packets; default: as each runner does",
    )
    parser.add_argument("--patience", type=float, default=1800, help="seconds after which a run is given up")
    parser.add_argument("--work", type=Path, help="where generated corpora go; default: a temporary folder")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="anchormix-bench-"))
    runners = runners_asked(arguments.runners)
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}\n")
    print("| input | runner | wall s | CPU s | peak GB | same bytes |")
    print("|---|---|---|---|---|---|", flush=True)
    try:
        warm_up(work)
        compare("samples", work / "warm-up" / "quickstart.yaml", runners, arguments)
        for megabytes in arguments.megabytes:
            config = generated(megabytes, work)
            compare(f"{megabytes} MB", config, runners, arguments)
            shutil.rmtree(config.parent)
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
