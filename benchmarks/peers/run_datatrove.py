"""datatrove's four MinHash stages on a folder of Parquet shards; runs in datatrove's own environment.

    python run_datatrove.py CORPUS WORK --bands 9 --rows 13 --shingle 5 --workers 2 [--clusters]

Stages, executors and their order are those of datatrove's example for one machine. WORK then holds kept/, and with
--clusters also removed/, both with the cluster of every document; phases.json says how long each stage took.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
)
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter


def stages(arguments: argparse.Namespace) -> list[tuple[str, list[Any], int]]:
    """Name, pipeline and number of tasks of each stage."""
    config = MinhashConfig(
        n_grams=arguments.shingle, num_buckets=arguments.bands, hashes_per_bucket=arguments.rows, seed=1
    )
    work = arguments.work
    tasks = min(arguments.workers, len(list(arguments.corpus.glob("*.parquet"))))
    removed = ParquetWriter(f"{work}/removed") if arguments.clusters else None

    def reader() -> ParquetReader:
        return ParquetReader(str(arguments.corpus), text_key="text", id_key="id", glob_pattern="*.parquet")

    return [
        ("signatures", [reader(), MinhashDedupSignature(f"{work}/signatures", config)], tasks),
        ("buckets", [MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config)], arguments.bands),
        (
            "clusters",
            [
                MinhashDedupCluster(
                    f"{work}/buckets", f"{work}/remove", config=config, save_cluster_id=arguments.clusters
                )
            ],
            1,
        ),
        (
            "write",
            [
                reader(),
                MinhashDedupFilter(
                    f"{work}/remove", exclusion_writer=removed, load_cluster_ids=arguments.clusters
                ),
                ParquetWriter(f"{work}/kept"),
            ],
            tasks,
        ),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    for name in ("bands", "rows", "shingle", "workers"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--clusters", action="store_true", help="also say which documents were found alike")
    arguments = parser.parse_args()
    phases = {}
    for name, pipeline, tasks in stages(arguments):
        started = time.perf_counter()
        logs = f"{arguments.work}/logs/{name}"
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(arguments.workers, tasks), logging_dir=logs).run()
        phases[name] = time.perf_counter() - started
    (arguments.work / "phases.json").write_text(json.dumps(phases))


if __name__ == "__main__":
    main()
