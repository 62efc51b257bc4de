"""The pipelines: which transforms, in which order. Settings come in, nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apache_beam as beam

from transforms.dedup import FindDuplicates
from transforms.diversity import MeasureDiversity, ReadSplitStatistics, of_shard
from transforms.documents import ExtractFacts
from transforms.exchange import Gather
from transforms.mixture import CountStrata, WriteMix
from transforms.provenance import SettleFates
from transforms.rounds import AdvanceRounds, PrepareRounds
from transforms.sidecars import SourceSettings

Define = Callable[[beam.Pipeline], None]


def _tasks(pipeline: beam.Pipeline, tasks: Sequence[bytes]) -> Any:
    """Tasks spread over workers; callers put the largest first."""
    return pipeline | "Tasks" >> beam.Create(list(tasks), reshuffle=False) | "SpreadTasks" >> beam.Reshuffle()


def facts(splits: Sequence[bytes], settings: Mapping[str, SourceSettings], report: str) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = _tasks(pipeline, splits) | "ExtractFacts" >> ExtractFacts(settings) | "Report" >> Gather(report)

    return define


def edges(splits: Sequence[bytes], transform: FindDuplicates) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = _tasks(pipeline, splits) | "FindDuplicates" >> transform

    return define


def fates(tasks: Sequence[bytes], transform: SettleFates) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = _tasks(pipeline, tasks) | "SettleFates" >> transform

    return define


def ranks(tasks: Sequence[bytes], transform: PrepareRounds) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = _tasks(pipeline, tasks) | "PrepareRounds" >> transform

    return define


def rounds(tasks: Sequence[bytes], transform: AdvanceRounds) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = _tasks(pipeline, tasks) | "AdvanceRounds" >> transform

    return define


def totals(tasks: Sequence[bytes], transform: CountStrata) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = _tasks(pipeline, tasks) | "CountStrata" >> transform

    return define


def mix(tasks: Sequence[bytes], splits: Sequence[bytes], transform: WriteMix, diversity: str) -> Define:
    """Write the mix, and measure what went in and what came out."""

    def define(pipeline: beam.Pipeline) -> None:
        written = _tasks(pipeline, tasks) | "WriteMix" >> transform
        read = (
            pipeline
            | "Splits" >> beam.Create(list(splits), reshuffle=False)
            | "SpreadSplits" >> beam.Reshuffle()
            | "ReadStatistics" >> ReadSplitStatistics()
        )
        _ = (
            (read, written | "ScopesOfShards" >> beam.FlatMap(of_shard).with_output_types(tuple[bytes, bytes]))
            | "Statistics" >> beam.Flatten()
            | "MeasureDiversity" >> MeasureDiversity(diversity)
        )

    return define
