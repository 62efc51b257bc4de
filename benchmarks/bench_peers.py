"""Time deduplication by anchormix and by other tools side by side, on the same files of this machine.

    python benchmarks/bench_peers.py                              a generated corpus of 100 MB
    python benchmarks/bench_peers.py --megabytes 100 300 1000     growth; --limit SECONDS ends what takes longer
    python benchmarks/bench_peers.py FOLDER                       any folder of parquet, jsonl or csv files
    python benchmarks/bench_peers.py --peers datatrove            only against this one

Each peer runs in an environment of its own in .bench-peers, made on the first call from the pinned requirements in
benchmarks/peers/. All tools read the same Parquet shards, at the same threshold, with the same shingle size, the same
number of permutations or the nearest they allow, and every core the way their documentation says. anchormix runs its
dedup-only path, `anchormix index`, which also detects languages and marks and measures diversity, but writes no text;
what the others take to write their output is told apart and taken off in the second ratio.

Wall time is taken from outside and includes interpreter start and imports. CPU time is that of all processes; memory
is the largest sum of their proportional set sizes. peers/measure.py says how.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench_run import ROOT, warm_up
from peers.corpus import Corpus, prepare
from peers.environments import CannotInstall
from peers.measure import Usage, measure
from peers.tools import PEERS, Anchormix, Job, Tool

sys.path.insert(0, str(ROOT))

GOALS = {"datatrove": 25.0, "text-dedup": 12.0}
"""Wall time on all cores in wall times of anchormix, for each release and mode of a tool."""
SHOWN_LINES = 15


@dataclass(frozen=True)
class Run:
    tool: str
    usage: Usage
    writing: float  # seconds of the wall time that only wrote the output
    removed: int
    failure: str = ""

    @property
    def is_whole(self) -> bool:
        return not self.failure and not self.usage.over_limit


def best_run(tool: Tool, corpus: Corpus, arguments: argparse.Namespace, work: Path) -> Run:
    """The fastest of `--repeat` runs; one that fails or takes too long is not repeated."""
    runs: list[Run] = []
    for _ in range(arguments.repeat):
        runs.append(one_run(tool, corpus, arguments, work))
        if not runs[-1].is_whole:
            return runs[-1]
    return min(runs, key=lambda run: run.usage.wall)


def one_run(tool: Tool, corpus: Corpus, arguments: argparse.Namespace, work: Path) -> Run:
    folder = work / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    job = Job(corpus, folder, arguments.threshold, arguments.permutations, arguments.shingle)
    command = tool.command(job)
    for shard in corpus.shards:  # everyone finds the input in the page cache
        shard.read_bytes()
    log = folder / "log"
    usage = measure(
        command.words, log, folder=command.folder, limit=arguments.limit, environment=command.environment
    )  # fmt: skip
    told = log.read_text(errors="replace")
    if usage.over_limit:
        return Run(tool.name, usage, 0.0, 0)
    if usage.exit_code:
        return Run(tool.name, usage, 0.0, 0, "\n".join(told.splitlines()[-SHOWN_LINES:]))
    writing = sum(seconds for name, seconds in tool.phases(job, told).items() if name in tool.writing)
    return Run(tool.name, usage, writing, corpus.documents - tool.kept_documents(job))


def table(corpus: Corpus, runs: list[Run], limit: float) -> Iterator[str]:
    """Markdown, so that it can be shown as it is."""
    cores = os.cpu_count() or 1
    ours = runs[0]
    yield (
        "| tool | wall | times ours | without writing | CPU | MB/s/core | documents/s/core | peak memory "
        "| documents removed |"
    )
    yield "| --- " * 9 + "|"
    for run in runs:
        if run.failure:
            yield f"| {run.tool} | failed | | | | | | {run.usage.peak_bytes / 1e9:.2f} GB | |"
        elif run.usage.over_limit:
            least = f"> {limit / ours.usage.wall:.1f}" if ours.is_whole else ""
            yield (
                f"| {run.tool} | > {limit:.0f} s | {least} | | > {run.usage.cpu:.0f} s | | "
                f"| {run.usage.peak_bytes / 1e9:.2f} GB | |"
            )
        else:
            wall = run.usage.wall
            times = [f"{wall / ours.usage.wall:.1f}", f"{(wall - run.writing) / ours.usage.wall:.1f}"]
            yield (
                f"| {run.tool} | {wall:.1f} s | {' | '.join(times if ours.is_whole else ['', ''])} "
                f"| {run.usage.cpu:.1f} s | {corpus.megabytes / wall / cores:.2f} "
                f"| {corpus.documents / wall / cores:,.0f} | {run.usage.peak_bytes / 1e9:.2f} GB | {run.removed:,} |"
            )


def goals(runs: list[Run], limit: float) -> Iterator[str]:
    """Whether the ratios aimed at are reached, by the smaller of the two ratios."""
    ours = runs[0].usage.wall
    for run in runs[1:]:
        goal = next((times for name, times in GOALS.items() if run.tool.startswith(name)), None)
        if goal is None or run.failure or not runs[0].is_whole:
            continue
        # One that was ended at the limit would have taken at least that long.
        ratio = (limit if run.usage.over_limit else run.usage.wall - run.writing) / ours
        is_open = run.usage.over_limit and ratio < goal
        verdict = "reached" if ratio >= goal else "open, raise --limit" if is_open else "NOT reached"
        yield f"- {goal:.0f} times {run.tool}, without writing: {verdict} ({ratio:.1f})"


def growth(measured: list[tuple[Corpus, list[Run]]]) -> Iterator[str]:
    """Wall time and memory of each tool, size by size."""
    yield "| tool | " + " | ".join(f"{corpus.megabytes:,.0f} MB" for corpus, _ in measured) + " |"
    yield "| --- " * (len(measured) + 1) + "|"
    for place, run in enumerate(measured[0][1]):
        runs = [row[place] for _, row in measured]
        cells = [f"{r.usage.wall:.1f} s, {r.usage.peak_bytes / 1e9:.2f} GB" if r.is_whole else "" for r in runs]
        yield f"| {run.tool} | " + " | ".join(cells) + " |"


def corpora(arguments: argparse.Namespace, work: Path) -> Iterator[tuple[str, Corpus]]:
    """What to measure on, one at a time: each is removed before the next is made."""
    plans = [(folder.name, folder.resolve(), 0) for folder in arguments.folders]
    plans = plans or [(f"generated, {size} MB", work / "generated", size) for size in arguments.megabytes]
    for name, folder, size in plans:
        if size:
            maker = [sys.executable, str(ROOT / "benchmarks" / "make_corpus.py"), str(folder), "--megabytes", str(size)]
            subprocess.run(maker, check=True, stdout=subprocess.DEVNULL)
        shards = work / "shards"
        column = "text" if size else arguments.column
        data = folder / "shards" if size else folder
        yield name, prepare(data, shards, column=column, multiple_of=2 * (os.cpu_count() or 1))
        shutil.rmtree(shards)
        if size:
            shutil.rmtree(folder)


def installed(names: list[str]) -> list[Tool]:
    tools: list[Tool] = []
    for name in names:
        try:
            PEERS[name].install()
        except CannotInstall as error:
            print(f"{name} does not run here: {error}\n")
        else:
            tools.append(PEERS[name])
    return tools


def compare(name: str, corpus: Corpus, tools: list[Tool], arguments: argparse.Namespace, work: Path) -> list[Run]:
    print(f"\n{name}: {corpus.megabytes:,.1f} MB of text in {corpus.documents:,} documents\n")
    runs = []
    for tool in tools:
        print(f"  {tool.name} ...", file=sys.stderr, flush=True)
        runs.append(best_run(tool, corpus, arguments, work))
    print("\n".join(table(corpus, runs, arguments.limit)), end="\n\n")
    print("\n".join(goals(runs, arguments.limit)), flush=True)
    for run in runs:
        if run.failure:
            print(f"\n{run.tool} failed with exit code {run.usage.exit_code}; the end of its output:\n{run.failure}")
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="folders to measure on, instead of a generated corpus")
    parser.add_argument("--megabytes", nargs="+", type=int, default=[100], help="sizes of the generated corpora")
    parser.add_argument("--column", default="text", help="the text column of FOLDERs")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="default: all of them")
    parser.add_argument("--limit", type=float, default=1800, help="seconds after which a run is ended")
    parser.add_argument("--repeat", type=int, default=1, help="the fastest of so many runs counts")
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--permutations", type=int, default=128)
    parser.add_argument("--shingle", type=int, default=5)
    parser.add_argument("--work", type=Path, help="where corpora and runs go; default: a temporary folder")
    arguments = parser.parse_args()
    tools = [Anchormix(), *installed(arguments.peers)]
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="anchormix-peers-", dir=arguments.work))
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; threshold {arguments.threshold}\n")
    try:
        warm_up(work)
        measured: list[tuple[Corpus, list[Run]]] = []
        for name, corpus in corpora(arguments, work):
            job = Job(corpus, work, arguments.threshold, arguments.permutations, arguments.shingle)
            if not measured:
                print("\n".join(f"- {tool.name}: {tool.settings(job)}" for tool in tools), flush=True)
            measured.append((corpus, compare(name, corpus, tools, arguments, work)))
        if len(measured) > 1:
            print("\n" + "\n".join(growth(measured)))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
