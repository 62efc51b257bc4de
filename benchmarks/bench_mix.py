"""Time the mix stage on a standing index, for several numbers of output shards.

    python benchmarks/bench_mix.py                                      a generated corpus of 1 GB; 1, 8, 64, 512 shards
    python benchmarks/bench_mix.py --megabytes 4000 --shards 16 1024

Each line is a process of its own: `anchormix mix`, which looks whether the index is up to date, plans, mixes, reads the
mix back and verifies it. `alone` is its mix stage as the output's run.json tells it: reading the chosen texts, checking
them, regrouping them, writing shards and dropped rows, measuring diversity. `command` is the whole process, timed from
outside. MB are raw text that was written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench_run import generated, timed, warm_up


def measure(config: Path, shards: int) -> str:
    cores = os.cpu_count() or 1
    output = config.parent / "out" / "mix"
    shutil.rmtree(output, ignore_errors=True)
    run = timed("mix", str(config), "--set", f"mix.shards={shards}")
    written = json.loads((output / "manifest.json").read_text())["totals"]
    stages = json.loads((output / "run.json").read_text())["stages"]
    (alone,) = (stage for stage in stages if stage["stage"] == "mix")
    megabytes = written["bytes"] / 1e6
    return (
        f"{written['shards']:5} shards  {megabytes:6.0f} MB  "
        f"alone {alone['seconds']:5.1f} s, {megabytes / alone['seconds'] / cores:5.1f} MB/s/core, "
        f"{megabytes / alone['cpu_seconds']:5.1f} MB per CPU s  "
        f"command {run.wall:5.1f} s, {megabytes / run.wall / cores:5.1f} MB/s/core  {run.peak_bytes / 1e9:5.2f} GB peak"
    )


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
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
