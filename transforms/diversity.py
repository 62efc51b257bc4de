"""Diversity per scope: accumulators written by FACTS and MIX, added up by one CombineFn, turned into metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from transforms import files
from transforms.batches import Split
from transforms.exchange import Gather
from transforms.kernels.diversity import Accumulator, DiversityParams, most_bytes
from transforms.kernels.diversity.held_out import HeldOut
from transforms.kernels.metric_names import BASELINE_SCOPES
from transforms.pool import PooledDoFn
from transforms.sidecars import SplitDiversity, diversity_path

Scoped = tuple[bytes, bytes]
"""(JSON of [scope, name], accumulator), or of a scope that is complete: (FINISHED, its row of metrics)"""

FINISHED = b""

_MOST_HELD_BYTES = 72 << 20  # of scopes that a worker holds before it passes them on


def scope_key(scope: str, name: str) -> bytes:
    return json.dumps([scope, name]).encode()


@dataclass(frozen=True)
class Baseline:
    """What scopes are held against: the packed `HeldOut` at `path`, if there is held-out text.

    `n_files` says of how many input files a scope is a mixture, by source and, under None, of all that was read.
    """

    path: str | None = None
    n_files: Mapping[str | None, int] | None = None

    def row(self, scope: str, name: str, total: Accumulator, source: str | None = None) -> bytes:
        """The metrics of one scope, with how it stands among human works."""
        metrics = total.values()
        row: dict[str, Any] = {"scope": scope, "name": name}
        if self.path is not None and scope != "reference":
            held_out = _held_out(self.path)
            metrics += held_out.metrics(total)
            if scope in BASELINE_SCOPES:
                row["baseline"] = held_out.standing(total, source, self._files_of(scope, source))
        row["values"] = [[metric.name, metric.value, metric.n, metric.method] for metric in metrics]
        return json.dumps(row, sort_keys=True).encode()

    def _files_of(self, scope: str, source: str | None) -> int:
        """A provenance or a generator may be that of a single file, which differs most from others."""
        alone = scope in ("input_shard", "provenance", "generator")
        return 1 if alone else (self.n_files or {}).get(source, 1)


@lru_cache(maxsize=1)
def _held_out(path: str) -> HeldOut:
    return HeldOut.from_bytes(files.read_bytes(path))


@dataclass
class ReadSplitStatistics(beam.PTransform):
    """Splits in; out come the finished rows of their shards, and what they add to every larger scope.

    There may be far more shards than fit into memory side by side, so one worker reads all splits of a shard and only
    metrics leave it. Larger scopes are added up for a whole bundle before they travel.
    """

    params: DiversityParams
    baseline: Baseline

    def expand(self, splits: Any) -> Any:
        return (
            splits
            | "ByShard" >> beam.Map(_by_shard).with_output_types(tuple[bytes, bytes])
            | "GroupSplits" >> beam.GroupByKey()
            | "AddUpShards" >> beam.ParDo(_AddUpShards(self.params, self.baseline)).with_output_types(Scoped)
        )


def _by_shard(element: bytes) -> tuple[bytes, bytes]:
    split = Split.from_bytes(element)
    return scope_key(split.source, split.shard), element


@dataclass
class ReadReferenceStatistics(beam.PTransform):
    """Splits of held-out text in; what they add to the scope `reference`, as a whole and by language, out."""

    params: DiversityParams

    def expand(self, splits: Any) -> Any:
        return splits | "AddUpReference" >> beam.ParDo(_AddUpReference(self.params)).with_output_types(Scoped)


class _AddUp(PooledDoFn):
    """Holds scopes that elements add to, from any thread, and passes them on when they are many, or the bundle ends."""

    def __init__(self, params: DiversityParams) -> None:
        self._params = params
        self._most_scopes = _MOST_HELD_BYTES // most_bytes(params)

    def start_bundle(self) -> None:
        self._held: dict[tuple[str, str], Accumulator] = {}
        self._lock = Lock()  # of what is held

    def finish_bundle(self) -> Iterator[Any]:
        yield from super().finish_bundle()
        window = GlobalWindow()
        for part in self._passed_on():
            yield WindowedValue(part, window.max_timestamp(), [window])

    def _hold(self, parts: Iterable[tuple[str, str, Accumulator]]) -> list[Scoped]:
        """Add (scope, name, part) to what is held; returns what has to be passed on to make room, mostly nothing."""
        with self._lock:
            for scope, name, part in parts:
                self._held.setdefault((scope, name), Accumulator.zero(self._params)).merge(part)
            return self._passed_on() if len(self._held) > self._most_scopes else []

    def _passed_on(self) -> list[Scoped]:
        held, self._held = self._held, {}
        return [(scope_key(scope, name), part.to_bytes()) for (scope, name), part in held.items()]


class _AddUpShards(_AddUp):
    def __init__(self, params: DiversityParams, baseline: Baseline) -> None:
        super().__init__(params)
        self._baseline = baseline

    def work(self, element: tuple[bytes, Iterable[bytes]]) -> Iterator[Scoped]:
        key, splits = element
        source, shard = json.loads(key)
        languages: dict[str, Accumulator] = {}
        for split in map(Split.from_bytes, splits):
            for language, part in SplitDiversity.read(diversity_path(split.facts)).items():
                if language in languages:
                    languages[language].merge(part)
                else:
                    languages[language] = part
        whole = Accumulator.zero(self._params)
        for part in languages.values():
            whole.merge(part)
        yield FINISHED, self._baseline.row("input_shard", f"{source}/{shard}", whole, source)
        named = (("language", language, part) for language, part in languages.items() if language)
        yield from self._hold([*named, ("source", source, whole)])

    def _passed_on(self) -> list[Scoped]:
        corpus = Accumulator.zero(self._params)
        sources = [part for (scope, _), part in self._held.items() if scope == "source"]
        for part in sources:
            corpus.merge(part)
        return [*super()._passed_on(), *([(scope_key("corpus", "all"), corpus.to_bytes())] if sources else [])]


class _AddUpReference(_AddUp):
    def work(self, element: bytes) -> Iterator[Scoped]:
        split = Split.from_bytes(element)
        for language, part in SplitDiversity.read(diversity_path(split.facts)).items():
            names = ["all", f"language:{language}"] if language else ["all"]
            yield from self._hold(("reference", name, part) for name in names)


@dataclass
class AddUpWritten(beam.PTransform):
    """What `WriteMix` gives in; out come the finished rows of the shards, and what was written of every larger scope.

    A shard is whole when it is written, so only metrics of it travel: there may be hundreds.
    """

    params: DiversityParams

    def expand(self, written: Any) -> Any:
        return written | "AddUp" >> beam.ParDo(_AddUpWritten(self.params)).with_output_types(Scoped)


class _AddUpWritten(_AddUp):
    def work(self, element: tuple[bytes, bytes]) -> Iterator[Scoped]:
        key, data = element
        shard, provenance, generator = json.loads(key)
        if shard is not None:
            yield FINISHED, data
            return
        part = Accumulator.from_bytes(data)
        scopes = [("mix", "all"), ("provenance", provenance), *([("generator", generator)] if generator else [])]
        yield from self._hold((scope, name, part) for scope, name in scopes)


@dataclass
class MeasureDiversity(beam.PTransform):
    """Scoped parts in; one row of metrics per scope and name, gathered in the file `report`."""

    report: str
    baseline: Baseline

    def expand(self, parts: Any) -> Any:
        finished = parts | "Finished" >> beam.FlatMapTuple(_finished_row).with_output_types(bytes)
        added_up = (
            parts
            | "Unfinished" >> beam.Filter(_is_unfinished).with_output_types(Scoped)
            | "AddUp" >> beam.CombinePerKey(AddAccumulators())
            | "Values" >> beam.ParDo(_Measure(self.baseline)).with_output_types(bytes)
        )
        return (finished, added_up) | "Rows" >> beam.Flatten() | Gather(self.report)


def _finished_row(key: bytes, value: bytes) -> Iterator[bytes]:
    if key == FINISHED:
        yield value


def _is_unfinished(part: Scoped) -> bool:
    return part[0] != FINISHED


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
    ) -> list[Accumulator] | bytes:
        return [_merged([held, element])] if held else element

    def merge_accumulators(self, parts: Iterable[list[Accumulator] | bytes], *args: Any, **kwargs: Any) -> bytes:
        first, *others = parts
        return _merged([first, *others]).to_bytes() if others else self.compact(first)

    def compact(self, held: list[Accumulator] | bytes, *args: Any, **kwargs: Any) -> bytes:
        return held if isinstance(held, bytes) else _merged([held]).to_bytes()

    def extract_output(self, held: list[Accumulator] | bytes, *args: Any, **kwargs: Any) -> bytes:
        return self.compact(held)

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


class _Measure(beam.DoFn):
    def __init__(self, baseline: Baseline) -> None:
        self._baseline = baseline

    def process(self, element: Scoped) -> Iterator[bytes]:
        key, total = element
        scope, name = json.loads(key)
        yield self._baseline.row(scope, name, Accumulator.from_bytes(total), name if scope == "source" else None)
