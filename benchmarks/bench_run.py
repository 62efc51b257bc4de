"""Time the whole `anchormix run` and the dedup-only path, with peak memory.

    python benchmarks/bench_run.py                          a generated corpus of 200 MB
    python benchmarks/bench_run.py --megabytes 500 1000     others; one line each
    python benchmarks/bench_run.py FOLDER                   any folder of parquet, jsonl or csv files

Each run is a process of its own, timed from outside: wall and CPU seconds include interpreter start and imports. Each
is repeated (`--runs`), and the one of median wall time is told, with the least and most of all in brackets. MB are raw
UTF-8 text; rates are per core of this machine. The first run of all compiles the kernels and is not counted. One more
run tells which share of its CPU time diversity takes.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".parquet", ".pq", ".jsonl", ".ndjson", ".csv", ".tsv")


@dataclass(frozen=True)
class Run:
    wall: float
    cpu: float
    peak_bytes: int
    answer: dict[str, object]


def timed(*arguments: str) -> Run:
    """Run anchormix, give back its `--json` line and what the operating system says of the process."""
    with tempfile.TemporaryFile() as told:
        started = os.times().elapsed
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments, "--json", "--quiet"], cwd=ROOT, stdout=told
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = os.times().elapsed - started
        told.seek(0)
        answer = json.loads(told.read() or b"{}")
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"anchormix {' '.join(arguments)} failed: {answer.get('error')}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, answer)


def corpus_config(folder: Path) -> Path:
    """A config over whatever lies in a folder: one source, nothing known, no floor."""
    found = sorted({path.suffix for path in folder.rglob("*") if path.suffix in SUFFIXES})
    if not found:
        raise SystemExit(f"{folder}: no file ends in {', '.join(SUFFIXES)}")
    work = Path(tempfile.mkdtemp(prefix="anchormix-bench-"))
    config = {
        "version": 1,
        "output": str(work / "out" / "mix"),
        "index": str(work / "out" / "index"),
        "max_bad_records": 10**9,
        "sources": [{"name": "bench", "files": [str(folder / f"**/*{suffix}") for suffix in found]}],
        "mix": {"floors": {"human_verified": 0}},
    }
    path = work / "bench.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def generated(megabytes: int, work: Path) -> Path:
    folder = work / f"corpus-{megabytes}"
    maker = [sys.executable, str(ROOT / "benchmarks" / "make_corpus.py"), str(folder), "--megabytes", str(megabytes)]
    subprocess.run(maker, check=True, stdout=subprocess.DEVNULL)
    return folder / "bench.yaml"


def measure(name: str, config: Path, repeats: int) -> None:
    cores = os.cpu_count() or 1
    for path, command in (("whole run", "run"), ("dedup only", "index")):
        runs = []
        for _ in range(repeats):
            start_anew(config)
            runs.append(timed(command, str(config)))
        runs.sort(key=lambda run: run.wall)
        run = runs[(repeats - 1) // 2]
        totals = index_totals(config)
        megabytes = totals["text_bytes"] / 1e6
        print(
            f"{name:>10}  {path:<10}  {megabytes:8.0f} MB  {totals['documents']:>10,} documents  {run.wall:7.1f} s "
            f"[{runs[0].wall:.1f} to {runs[-1].wall:.1f}]  "
            f"{megabytes / run.wall / cores:6.1f} MB/s/core  {megabytes / run.cpu:6.1f} MB per CPU s  "
            f"{totals['documents'] / run.wall / cores:8,.0f} documents/s/core  {run.peak_bytes / 1e9:5.2f} GB peak",
            flush=True,
        )

    start_anew(config)
    print(f"{name:>10}  diversity takes {diversity_share(config):.1%} of the CPU time of the whole run", flush=True)


def start_anew(config: Path) -> None:
    text = yaml.safe_load(config.read_text())
    for key in ("output", "index"):
        shutil.rmtree(config.parent / text[key], ignore_errors=True)


def diversity_share(config: Path) -> float:
    """Of one more run, which is slowed by being measured and therefore not timed."""
    script = [sys.executable, str(ROOT / "benchmarks" / "diversity_share.py"), "run", str(config), "--json", "--quiet"]
    done = subprocess.run(script, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return float(done.stderr.splitlines()[-1])


def index_totals(config: Path) -> dict[str, int]:
    """Documents and text that the index holds; asked again, it only looks."""
    return timed("index", str(config)).answer["totals"]  # type: ignore[return-value]


def warm_up(work: Path) -> None:
    """Compile every module, as an installation does, and every kernel before anything is timed."""
    for package in ("pipeline", "transforms"):
        compileall.compile_dir(ROOT / package, quiet=1)
    folder = work / "warm-up"
    subprocess.run(
        [sys.executable, "-m", "pipeline", "init", str(folder)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    timed("run", str(folder / "quickstart.yaml"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="folders to measure on, instead of a generated corpus")
    parser.add_argument("--megabytes", nargs="+", type=int, default=[200], help="sizes of the generated corpora")
    parser.add_argument("--work", type=Path, help="where generated corpora go; default: a temporary folder")
    parser.add_argument("--runs", type=int, default=3, help="how often each is repeated")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="anchormix-bench-"))
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    try:
        warm_up(work)
        for folder in arguments.folders:
            measure(folder.name, corpus_config(folder.resolve()), arguments.runs)
        for megabytes in [] if arguments.folders else arguments.megabytes:
            config = generated(megabytes, work)
            measure("generated", config, arguments.runs)
            shutil.rmtree(config.parent)
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
