"""Streaming deduplication with Rensa or datasketch, as their documentation shows it; runs in their own environment.

    python run_sketches.py rensa|datasketch CORPUS WORK --threshold 0.8 --permutations 128 --shingle 5 [--shingles]

Both are libraries of sketches, so reading, splitting into words and writing are done here: one process, plain Python.
With --shingles the corpus brings its own shingles in the column `shingles`. WORK then holds kept.parquet, edges.parquet
(removed document, kept document that it was found alike) and phases.json.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORD = re.compile(r"\w+")
BATCH = 1024

Find = Callable[[int, list[bytes]], list[int]]
"""Takes a document; gives back the kept documents it is found alike. With none it is kept itself."""


def documents(corpus: Path, shingle: int, given: bool) -> Iterator[tuple[pa.RecordBatch, list[list[bytes]]]]:
    for path in sorted(corpus.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(BATCH):
            if given:
                yield batch, batch["shingles"].to_pylist()
            else:
                yield batch, [shingles(text, shingle) for text in batch["text"].to_pylist()]


def shingles(text: str, size: int) -> list[bytes]:
    words = WORD.findall(text.lower())
    starts = range(max(1, len(words) - size + 1)) if words else ()
    return list({" ".join(words[start : start + size]).encode() for start in starts})


def rensa(threshold: float, permutations: int) -> Find:
    from rensa import RMinHash, RMinHashDeduplicator

    deduplicator = RMinHashDeduplicator(threshold=threshold, num_perm=permutations, use_lsh=True, seed=42)

    def find(number: int, items: list[bytes]) -> list[int]:
        sketch = RMinHash(num_perm=permutations, seed=42)
        sketch.update(items)
        found = [int(key) for key in deduplicator.get_duplicates(sketch)]
        if not found:
            deduplicator.add(str(number), sketch)
        return found

    return find


def datasketch(threshold: float, permutations: int) -> Find:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=permutations)

    def find(number: int, items: list[bytes]) -> list[int]:
        sketch = MinHash(num_perm=permutations)
        if items:
            sketch.update_batch(items)
        found = [int(key) for key in index.query(sketch)]
        if not found:
            index.insert(str(number), sketch)
        return found

    return find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=["rensa", "datasketch"])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--threshold", type=float, required=True)
    parser.add_argument("--permutations", type=int, required=True)
    parser.add_argument("--shingle", type=int, required=True)
    parser.add_argument("--shingles", action="store_true", help="take them from the corpus")
    arguments = parser.parse_args()
    library = {"rensa": rensa, "datasketch": datasketch}[arguments.library]
    find = library(arguments.threshold, arguments.permutations)
    started = time.perf_counter()
    edges: list[tuple[int, int]] = []
    writing = 0.0
    number = 0
    with pq.ParquetWriter(
        arguments.work / "kept.parquet", pa.schema([("id", pa.string()), ("text", pa.string())]), compression="zstd"
    ) as writer:
        for batch, sets in documents(arguments.corpus, arguments.shingle, arguments.shingles):
            kept = []
            for items in sets:
                found = find(number, items)
                edges += [(number, other) for other in found]
                kept.append(not found)
                number += 1
            begun = time.perf_counter()
            writer.write_batch(batch.select(["id", "text"]).filter(pa.array(kept)))
            writing += time.perf_counter() - begun
    removed, alike = ([edge[side] for edge in edges] for side in (0, 1))
    pq.write_table(pa.table({"removed": removed, "kept": alike}), arguments.work / "edges.parquet")
    phases = {"dedup": time.perf_counter() - started - writing, "write": writing}
    (arguments.work / "phases.json").write_text(json.dumps(phases))


if __name__ == "__main__":
    main()
