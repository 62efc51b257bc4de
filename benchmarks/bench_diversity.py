"""Throughput of the diversity accumulator on one core: `python benchmarks/bench_diversity.py [PARQUET_OR_TEXT ...]`.

Without arguments it counts words drawn from a Zipf law, which are taken to be six bytes of text each. With `--full` it
measures the full metrics, whose words are numbers that are written out, and tells what each part of them costs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))

from transforms.kernels.diversity import Accumulator, DiversityParams
from transforms.kernels.diversity.metric import Documents
from transforms.kernels.text import Words, split_words

BATCH_BYTES = 8 << 20
BATCH_DOCUMENTS = 4096
SPLIT_BYTES = 64 << 20
BYTES_PER_WORD = 6

Batch = tuple[Words, int, pa.Array | None]
T = TypeVar("T")


def main(arguments: list[str]) -> None:
    params = DiversityParams(full="--full" in arguments)
    paths = [argument for argument in arguments if argument != "--full"]
    batches = list(batches_of(paths) if paths else generated_batches(20_000_000, params.full))
    warm_up(params)
    text_bytes = sum(size for _, size, _ in batches)
    tokens = sum(len(words.hashes) for words, _, _ in batches)
    print(f"{text_bytes / 1e6:,.0f} MB of text, {tokens / 1e6:,.1f} M words, {len(batches)} batches")

    whole = Accumulator.zero(params)
    report("add, one accumulator", seconds_to_add(whole, batches), text_bytes, tokens)
    splits = list(split_up(batches))
    parts = [Accumulator.zero(params) for _ in splits]
    spent = sum(seconds_to_add(part, split) for part, split in zip(parts, splits, strict=True))
    report(f"add, one accumulator per split ({len(splits)})", spent, text_bytes, tokens)

    if params.full:
        report_parts(batches, params, text_bytes, tokens)

    encoded, seconds = timed(whole.to_bytes)
    print(f"to_bytes    {seconds * 1e3:7.1f} ms, {len(encoded):,} bytes")
    again, seconds = timed(lambda: Accumulator.from_bytes(encoded))
    print(f"from_bytes  {seconds * 1e3:7.1f} ms")
    _, seconds = timed(lambda: again.merge(parts[0]))
    print(f"merge       {seconds * 1e3:7.1f} ms")
    metrics, seconds = timed(whole.values)
    print(f"values      {seconds * 1e3:7.1f} ms")
    for metric in metrics:
        print(f"  {metric.name:18} {metric.value:<18.9g} n={metric.n:<12} {metric.method}")


def batches_of(paths: list[str]) -> Iterator[Batch]:
    for path in paths:
        for name in sorted(Path(path).rglob("*")) if Path(path).is_dir() else [Path(path)]:
            if name.suffix == ".parquet":
                for rows in pq.ParquetFile(name).iter_batches(BATCH_DOCUMENTS, columns=["text"]):
                    yield as_batch(rows.column(0))
            elif name.is_file():
                lines = name.read_bytes().decode(errors="replace").splitlines()
                for start in range(0, len(lines), BATCH_DOCUMENTS):
                    yield as_batch(pa.array(lines[start : start + BATCH_DOCUMENTS]))


def as_batch(text: pa.Array) -> Batch:
    return split_words(text), text.nbytes, text


def generated_batches(tokens: int, with_text: bool, vocabulary: int = 2_000_000, length: int = 400) -> Iterator[Batch]:
    shares = np.cumsum(1 / np.arange(1, vocabulary + 1))
    draws = np.random.default_rng(1)
    per_batch = BATCH_BYTES // BYTES_PER_WORD // length * length
    offsets = np.arange(0, per_batch + 1, length, dtype=np.int64)
    for _ in range(tokens // per_batch):
        ids = np.searchsorted(shares, draws.random(per_batch) * shares[-1]).astype(np.uint64)
        if with_text:
            numbers = pa.ListArray.from_arrays(offsets.astype(np.int32), pa.array(ids).cast(pa.string()))
            yield as_batch(pc.binary_join(numbers, " "))
        else:
            yield Words(hashed(ids), offsets, np.diff(offsets)), per_batch * BYTES_PER_WORD, None


def hashed(ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread evenly, as the hashes of real words are."""
    mixed = (ids + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(29))


def split_up(batches: list[Batch]) -> Iterator[list[Batch]]:
    split: list[Batch] = []
    for batch in batches:
        split.append(batch)
        if sum(size for _, size, _ in split) >= SPLIT_BYTES:
            yield split
            split = []
    if split:
        yield split


def warm_up(params: DiversityParams) -> None:
    """Compile everything, levels that rise included."""
    words, _, text = next(generated_batches(2 * BATCH_BYTES // BYTES_PER_WORD, params.full))
    accumulator = Accumulator.zero(params)
    accumulator.add(words, None, text)
    (Accumulator.from_bytes(accumulator.to_bytes()) + accumulator).values()


def seconds_to_add(accumulator: Accumulator, batches: list[Batch]) -> float:
    def add_all() -> None:
        for words, _, text in batches:
            accumulator.add(words, None, text)

    return timed(add_all)[1]


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def report_parts(batches: list[Batch], params: DiversityParams, text_bytes: int, tokens: int) -> None:
    for part in Accumulator.zero(params)._parts:
        seconds = 0.0
        for words, _, text in batches:
            documents = Documents(words, np.arange(len(words.offsets) - 1), text)
            seconds += timed(lambda part=part, documents=documents: part.add(documents))[1]
        _, to_value = timed(part.values)
        report(f"  {type(part).__name__}, values in {to_value * 1e3:.1f} ms", seconds, text_bytes, tokens)


def report(what: str, seconds: float, text_bytes: int, tokens: int) -> None:
    print(f"{what:40} {text_bytes / seconds / 1e6:6.0f} MB/s  {tokens / seconds / 1e6:5.1f} M words/s")


if __name__ == "__main__":
    main(sys.argv[1:])
