"""Diversity per scope: accumulators written by FACTS and MIX, added up by one CombineFn, turned into metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from transforms.batches import Split
from transforms.exchange import Gather
from transforms.kernels.diversity import Accumulator
from transforms.sidecars import SplitDiversity, diversity_path

Scoped = tuple[bytes, bytes]
"""(JSON of [scope, name], accumulator)"""


def scoped(scope: str, name: str, part: Accumulator) -> Scoped:
    return json.dumps([scope, name]).encode(), part.to_bytes()


@dataclass
class ReadSplitStatistics(beam.PTransform):
    """Splits in; their accumulators out, once for each scope they count in."""

    def expand(self, splits: Any) -> Any:
        return splits | "ReadAccumulators" >> beam.FlatMap(_of_split).with_output_types(Scoped)


def _of_split(element: bytes) -> Iterator[Scoped]:
    split = Split.from_bytes(element)
    whole = Accumulator.zero()
    for language, part in SplitDiversity.read(diversity_path(split.facts)).items():
        if language:
            yield scoped("language", language, part)
        whole.merge(part)
    yield scoped("input_shard", f"{split.source}/{split.shard}", whole)
    yield scoped("source", split.source, whole)
    yield scoped("corpus", "all", whole)


def of_shard(element: tuple[bytes, bytes]) -> Iterator[Scoped]:
    """The scopes of the mix that one part of a written shard counts in."""
    key, part = element
    shard, provenance, generator = json.loads(key)
    names = [("output_shard", shard), ("provenance", provenance), ("mix", "all")]
    for scope, name in [*names, *([("generator", generator)] if generator else [])]:
        yield json.dumps([scope, name]).encode(), part


@dataclass
class MeasureDiversity(beam.PTransform):
    """Scoped accumulators in; one row of metrics per scope and name, gathered in the file `report`."""

    report: str

    def expand(self, parts: Any) -> Any:
        return (
            parts
            | "AddUp" >> beam.CombinePerKey(AddAccumulators())
            | "Values" >> beam.MapTuple(_rows).with_output_types(bytes)
            | Gather(self.report)
        )


class AddAccumulators(beam.CombineFn):
    """Lifts the kernel's monoid; bytes only where elements cross workers."""

    def create_accumulator(self, *args: Any, **kwargs: Any) -> Accumulator:
        return Accumulator.zero()

    def add_input(self, accumulator: Accumulator, element: bytes, *args: Any, **kwargs: Any) -> Accumulator:
        accumulator.merge(Accumulator.from_bytes(element))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Accumulator], *args: Any, **kwargs: Any) -> Accumulator:
        merged = Accumulator.zero()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator: Accumulator, *args: Any, **kwargs: Any) -> Accumulator:
        return accumulator


def _rows(key: bytes, total: Accumulator) -> bytes:
    scope, name = json.loads(key)
    values = [[metric.name, metric.value, metric.n, metric.method] for metric in total.values()]
    return json.dumps({"scope": scope, "name": name, "values": values}, sort_keys=True).encode()
