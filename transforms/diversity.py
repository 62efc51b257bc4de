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
    """Lifts the kernel's monoid.

    What crosses workers is always bytes, with Beam's own bytes coder: a coder that runs Python code (pickle among
    them) can be interrupted in the middle of an element while the local runner's threads send what is buffered,
    which tears the stream of elements apart.
    """

    def create_accumulator(self, *args: Any, **kwargs: Any) -> list[Accumulator] | bytes:
        return []

    def add_input(
        self, held: list[Accumulator] | bytes, element: bytes, *args: Any, **kwargs: Any
    ) -> list[Accumulator]:
        return [_merged([held, element])]

    def merge_accumulators(self, parts: Iterable[list[Accumulator] | bytes], *args: Any, **kwargs: Any) -> bytes:
        return _merged(parts).to_bytes()

    def compact(self, held: list[Accumulator] | bytes, *args: Any, **kwargs: Any) -> bytes:
        return _merged([held]).to_bytes()

    def extract_output(self, held: list[Accumulator] | bytes, *args: Any, **kwargs: Any) -> bytes:
        return _merged([held]).to_bytes()

    def get_accumulator_coder(self) -> beam.coders.Coder:
        return beam.coders.BytesCoder()


def _merged(parts: Iterable[list[Accumulator] | bytes]) -> Accumulator:
    total: Accumulator | None = None
    for part in parts:
        for accumulator in part if isinstance(part, list) else [Accumulator.from_bytes(part)]:
            if total is None:
                total = accumulator
            else:
                total.merge(accumulator)
    return total or Accumulator.zero()


def _rows(key: bytes, total: bytes) -> bytes:
    scope, name = json.loads(key)
    values = [[metric.name, metric.value, metric.n, metric.method] for metric in Accumulator.from_bytes(total).values()]
    return json.dumps({"scope": scope, "name": name, "values": values}, sort_keys=True).encode()
