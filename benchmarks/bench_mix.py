"""Time `anchormix mix` alone, on a standing index, for several numbers of output shards.

    python benchmarks/bench_mix.py                                      a generated corpus of 1 GB; 1, 8, 64, 512 shards
    python benchmarks/bench_mix.py --megabytes 4000 --shards 16 1024

Each line is a process of its own, timed from outside: it looks whether the index is up to date, plans, reads the chosen
texts, writes them, measures their diversity, reads them back and verifies them. MB are raw text that was written. Start
is what the same command takes to refuse an output that exists with another plan: interpreter, imports, the index and
the plan, before any text is read.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_run import ROOT, generated, timed, warm_up


def measure(config: Path, shards: int) -> str:
    cores = os.cpu_count() or 1
    shutil.rmtree(config.parent / "out" / "mix", ignore_errors=True)
    run = timed("mix", str(config), "--set", f"mix.shards={shards}")
    written = json.loads((config.parent / "out" / "mix" / "manifest.json").read_text())["totals"]
    megabytes = written["bytes"] / 1e6
    return (
        f"{written['shards']:5} shards  {megabytes:8.0f} MB  {run.wall:6.1f} s  "
        f"{megabytes / run.wall / cores:6.1f} MB/s/core  {megabytes / run.cpu:6.1f} MB per CPU s  "
        f"{run.peak_bytes / 1e9:5.2f} GB peak"
    )


def start(config: Path, other_shards: int) -> float:
    """Seconds of the command up to the first text: a standing mix with another plan is refused there."""
    asked = ["mix", str(config), "--set", f"mix.shards={other_shards}", "--json", "--quiet"]
    command = [sys.executable, "-m", "pipeline", *asked]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if json.loads(done.stdout)["error"]["code"] != "output_exists":
        raise SystemExit(f"expected a refusal, got {done.stdout}{done.stderr}")
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the generated corpus")
    parser.add_argument("--shards", nargs="+", type=int, default=[1, 8, 64, 512], help="numbers of output shards")
    parser.add_argument("--work", type=Path, help="where the corpus goes; default: a temporary folder")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="anchormix-bench-"))
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    try:
        warm_up(work)
        config = generated(arguments.megabytes, work)
        timed("index", str(config))
        for shards in arguments.shards:
            print(measure(config, shards), flush=True)
        print(f"start     {start(config, arguments.shards[-1] + 1):.1f} s of each line")
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
