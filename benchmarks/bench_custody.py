"""What custody costs: the same corpus mixed with signed text and without, side by side.

    python benchmarks/bench_custody.py                              200 MB, five rounds
    python benchmarks/bench_custody.py --megabytes 1000 --rounds 3

Each round runs both from an empty index, in alternating order, so that whatever else the machine does hits both. The
floor is 0 in both, so both write the same documents; without custody the signed source is declared human instead. What
is compared is the CPU time of each whole process; wall time stands beside it, and means something on an idle machine.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from statistics import median

import yaml
from bench_run import Run, generated, timed, warm_up


def without_custody(config: Path) -> Path:
    """The config beside it in which nothing is signed."""
    content = yaml.safe_load(config.read_text())
    for source in content["sources"]:
        if source.pop("custody", None):
            source["declare"] = "human"
    return _written(config, content, "bare", trust=None)


def with_custody(config: Path) -> Path:
    return _written(config, yaml.safe_load(config.read_text()), "signed")


def _written(config: Path, content: dict, name: str, **changes: object) -> Path:  # type: ignore[type-arg]
    content |= {"output": f"out/{name}", "index": f"out/{name}.index", "mix": {"floors": {"human_verified": 0}}}
    content = {key: value for key, value in (content | changes).items() if value is not None}
    path = config.with_name(f"{name}.yaml")
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def once(config: Path) -> Run:
    shutil.rmtree(config.parent / "out", ignore_errors=True)
    return timed("run", str(config))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200, help="size of the generated corpus")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="where the corpus goes; default: a temporary folder")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="anchormix-bench-"))
    try:
        warm_up(work)
        config = generated(arguments.megabytes, work)
        signed, bare = with_custody(config), without_custody(config)
        runs: list[tuple[Run, Run]] = []
        for number in range(arguments.rounds):
            if number % 2:
                second = once(bare)
                runs.append((once(signed), second))
            else:
                first = once(signed)
                runs.append((first, once(bare)))
            told = "  ".join(f"{r.cpu:6.2f} s CPU {r.wall:6.2f} s wall" for r in runs[-1])
            print(f"round {number + 1}: with {told.replace('wall  ', 'wall, without ', 1)}", flush=True)
        documents = [run.answer["totals"]["documents"] for run in runs[0]]  # type: ignore[index]
        print(f"documents in the mix: {documents[0]:,} with, {documents[1]:,} without")
        for what in ("cpu", "wall"):
            ratios = sorted(getattr(a, what) / getattr(b, what) for a, b in runs)
            best = min(getattr(a, what) for a, _ in runs) / min(getattr(b, what) for _, b in runs)
            print(
                f"{what:>4}: custody costs {(best - 1) * 100:+.1f}% of the best of each, "
                f"{(median(ratios) - 1) * 100:+.1f}% in the median round"
            )
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
