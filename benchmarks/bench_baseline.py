"""What comparing with held-out text costs, on one core: `python benchmarks/bench_baseline.py [WORKS]`.

Shards and works are of 40,000 words each, from a Zipf law with topics of their own, so that each comparison is of
32,768 words, and the reference has more distinct words than its table keeps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from transforms.kernels.diversity import Accumulator
from transforms.kernels.diversity.held_out import HeldOut
from transforms.kernels.diversity.reference import Reference
from transforms.kernels.text import Words

VOCABULARY = 200_000
LENGTH = 40_000
DOCUMENT = 200
SHARDS = 50

T = TypeVar("T")


def main(arguments: list[str]) -> None:
    draws = np.random.default_rng(1)
    names = draws.integers(0, 1 << 62, VOCABULARY).astype(np.uint64) << np.uint64(2)
    works = [(f"work-{n}", "", made(names, draws)) for n in range(int(arguments[0]) if arguments else 64)]
    shards = [made(names, draws) for _ in range(SHARDS)]
    reference, seconds = timed(lambda: Reference.of(lambda: iter(works), 0))
    print(f"reference of {len(works)} works      {seconds * 1e3:8.1f} ms, level {reference.level}")
    packed, seconds = timed(HeldOut({"": reference}).to_bytes)
    print(f"packed                     {seconds * 1e3:8.1f} ms, {len(packed):,} bytes")
    held_out, seconds = timed(lambda: HeldOut.from_bytes(packed))
    print(f"read                       {seconds * 1e3:8.1f} ms")
    _, first = timed(lambda: held_out.standing(shards[0], None, 1))
    _, seconds = timed(lambda: [(held_out.standing(shard, None, 1), held_out.metrics(shard)) for shard in shards])
    print(f"a null of a shape of its own {first * 1e3:6.1f} ms")
    print(f"each further shard         {seconds / SHARDS * 1e3:8.1f} ms")


def made(names: np.ndarray, draws: np.random.Generator) -> Accumulator:
    weights = 1 / (np.arange(1, VOCABULARY + 1) + 2.0)
    weights[draws.integers(100, VOCABULARY, 60)] += weights[100]
    shares = np.cumsum(weights)
    words = names[np.searchsorted(shares, draws.random(LENGTH) * shares[-1])]
    offsets = np.arange(0, LENGTH + 1, DOCUMENT)
    total = Accumulator.zero()
    total.add(Words(words, offsets, np.diff(offsets)))
    return total


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


if __name__ == "__main__":
    main(sys.argv[1:])
