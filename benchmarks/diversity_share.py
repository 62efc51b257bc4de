"""Run `anchormix ARGUMENTS` and tell on stderr which share of the process's CPU time went into diversity.

    python benchmarks/diversity_share.py run CONFIG --json --quiet

Counted is what would not be done without it: accumulators filled, added up, stored, read and turned into metrics, and
the words of written rows, which nothing else needs. `bench_run.py` runs this after each whole run that it times.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.cli import main
from transforms.kernels.diversity import Accumulator
from transforms.mixture import PartDiversity
from transforms.sidecars import SplitDiversity

MEASURED = {
    Accumulator: ("add", "merge", "to_bytes", "from_bytes", "values"),
    SplitDiversity: ("add", "to_bytes", "read"),
    PartDiversity: ("add", "whole"),
}


class Stopwatch:
    """CPU seconds of all threads inside of the measured functions; one that another one calls is not counted twice."""

    def __init__(self) -> None:
        self._inside = threading.local()
        self._spent: list[float] = []

    def measured(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._inside, "now", False):
                return function(*args, **kwargs)
            self._inside.now = True
            started = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._spent.append(time.thread_time() - started)
                self._inside.now = False

        return timed

    @property
    def seconds(self) -> float:
        return sum(self._spent)


def share() -> float:
    stopwatch = Stopwatch()
    for kind, names in MEASURED.items():
        for name in names:
            found = inspect.getattr_static(kind, name)
            if isinstance(found, staticmethod | classmethod):
                setattr(kind, name, type(found)(stopwatch.measured(found.__func__)))
            else:
                setattr(kind, name, stopwatch.measured(found))
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
    return stopwatch.seconds / time.process_time()


if __name__ == "__main__":
    print(f"{share():.4f}", file=sys.stderr)
