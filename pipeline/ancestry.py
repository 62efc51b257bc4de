"""Which documents descend from synthetic text: asked of the splits, closed by the driver."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import graphs
from pipeline.submit import Runner
from transforms import files
from transforms.ancestry import NAMED_SCHEMA, NAMES_SCHEMA, FindNamed, WriteNames, read_parts
from transforms.batches import groups, split_of
from transforms.exchange import gathered
from transforms.kernels.ancestry import descendants, unresolved
from transforms.tagging import FateRules


def find_descendants(
    runner: Runner, tasks: Sequence[bytes], rules: FateRules, folder: str
) -> tuple[Mapping[int, str], int]:
    """Per split the file of its documents with synthetic ancestors; and how many names of ancestors name nobody here.

    Two small pipelines that read facts only; callers skip them where no document names an ancestor.
    """
    files.make_folder(folder)
    names = read_parts(folder, _reports(runner, graphs.each(tasks, WriteNames(folder), f"{folder}/1")), NAMES_SCHEMA)
    wanted = files.join(folder, "wanted.parquet")
    _write(wanted, pa.table({"ancestor": names["ancestor"].unique()}))
    finding = FindNamed(rules, wanted, folder)
    named = read_parts(folder, _reports(runner, graphs.each(tasks, finding, f"{folder}/2")), NAMED_SCHEMA)
    found = descendants(names, named)
    order, runs = groups(split_of(found["document"].to_numpy()))
    paths: dict[int, str] = {}
    for split, start, end in runs:
        paths[split] = files.join(folder, f"descendants-{split:05d}.parquet")
        _write(paths[split], found.take(pa.array(np.sort(order[start:end]))))
    return paths, unresolved(names, named)


def _reports(runner: Runner, graph: tuple[Any, str]) -> list[dict[str, Any]]:
    define, report = graph
    runner.run("ancestry", 0, define)
    return [json.loads(part) for part in gathered(report)]


def _write(path: str, table: pa.Table) -> None:
    with files.atomic_output(path) as sink:
        pq.write_table(table, sink)
