"""Documents made from others: a synthetic ancestor means that a document is not human.

A column `derived_from` names ancestors, by their id of the user's own or by the id of their text. First the splits
write down who names whom, then who among all documents is named, and what those are; the closure over both is small,
because only documents with ancestors are in it, and is the driver's to make (`kernels/ancestry.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms import files
from transforms.batches import addresses
from transforms.kernels.hashing import hex_ids
from transforms.kernels.schemas import Provenance, Status
from transforms.pool import PooledDoFn
from transforms.sidecars import digests_of, read_facts, read_table, write_part
from transforms.tagging import FateRules, FateTask, tag_task

NAMES_SCHEMA = pa.schema([pa.field("document", pa.uint64()), pa.field("ancestor", pa.string())])
NAMED_SCHEMA = pa.schema(
    [pa.field("document", pa.uint64()), pa.field("ancestor", pa.string()), pa.field("synthetic", pa.bool_())]
)


class WriteNames(PooledDoFn):
    """Who names whom: one row per document and ancestor."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def work(self, element: bytes) -> Iterator[bytes]:
        split = FateTask.from_bytes(element).split
        facts = read_facts(split, ["status", "derived_from"])
        told = facts["derived_from"].combine_chunks()
        places = np.flatnonzero((facts["status"].to_numpy() == Status.OK) & told.is_valid().to_numpy(False))
        if len(places) == 0:
            return
        ancestors = _ancestors(told.take(pa.array(places)))
        rows = np.repeat(places, pc.list_value_length(ancestors).to_numpy())
        table = pa.table([addresses(split.index, rows), ancestors.flatten()], schema=NAMES_SCHEMA)
        yield write_part(self._folder, "names", split.index, table)


def _ancestors(told: pa.StringArray) -> pa.ListArray:
    """The ancestors of each document: the value itself, or the strings of a JSON list."""
    codes = pc.dictionary_encode(told)
    lists = [_listed(value) for value in codes.dictionary.to_pylist()]
    return pa.array(lists, pa.list_(pa.string())).take(codes.indices)


def _listed(value: str) -> list[str]:
    if value.startswith("["):
        try:
            items = json.loads(value)
        except ValueError:
            return [value.strip()]
        return sorted({item.strip() if isinstance(item, str) else json.dumps(item) for item in items if item})
    return [value.strip()] if value.strip() else []


class FindNamed(PooledDoFn):
    """The documents of one split that somebody names, and whether each is synthetic by itself."""

    def __init__(self, rules: FateRules, names: str, folder: str) -> None:
        self._rules = rules
        self._names = names
        self._folder = folder

    def work(self, element: bytes) -> Iterator[bytes]:
        wanted = read_table(self._names)["ancestor"].combine_chunks()
        task = FateTask.from_bytes(element)
        facts = read_facts(task.split, ["status", "digest", "doc_id"])
        readable = pa.array(facts["status"].to_numpy() == Status.OK)
        own = facts["doc_id"].combine_chunks()
        texts = hex_ids(digests_of(facts))
        by_own = pc.and_(readable, pc.is_in(own, wanted))
        by_text = pc.and_(readable, pc.is_in(texts, wanted))
        if not pc.any(pc.or_(by_own, by_text)).as_py():
            return
        tags = tag_task(task, self._rules).tags
        synthetic = pa.array(tags.provenance == Provenance.SYNTHETIC)
        document = pa.array(addresses(task.split.index, np.arange(facts.num_rows)))
        parts = [
            pa.table([document.filter(hit), named.filter(hit), synthetic.filter(hit)], schema=NAMED_SCHEMA)
            for hit, named in ((by_own, own), (by_text, texts))
        ]
        yield write_part(self._folder, "named", task.split.index, pa.concat_tables(parts))


def read_parts(folder: str, reports: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """All parts of one kind, in the order of their splits."""
    in_order = sorted(reports, key=lambda report: int(report["partition"]))
    tables = [read_table(files.join(folder, report["file"])) for report in in_order]
    return pa.concat_tables(tables) if tables else schema.empty_table()
