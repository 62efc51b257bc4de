"""The pipelines: which transforms, in which order. Settings come in, nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import apache_beam as beam

from transforms.dedup import FindDuplicates
from transforms.diversity import AddUpWritten, Baseline, MeasureDiversity, ReadReferenceStatistics, ReadSplitStatistics
from transforms.documents import ExtractFacts
from transforms.exchange import Gather
from transforms.forecast import ForecastLayout
from transforms.kernels.diversity import DiversityParams
from transforms.mixture import CountStrata, WriteMix
from transforms.pool import Tasks
from transforms.provenance import SettleFates
from transforms.rounds import AdvanceRounds, PrepareRounds
from transforms.sidecars import SourceSettings

Define = Callable[[beam.Pipeline], None]


def facts(splits: Sequence[bytes], settings: Mapping[str, SourceSettings], report: str) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = pipeline | "Tasks" >> Tasks(splits) | "ExtractFacts" >> ExtractFacts(settings) | "Report" >> Gather(report)

    return define


def each(tasks: Sequence[bytes], work: beam.DoFn, report: str) -> tuple[Define, str]:
    """A DoFn over tasks, and the file that its reports are gathered in."""

    def define(pipeline: beam.Pipeline) -> None:
        _ = pipeline | "Tasks" >> Tasks(tasks) | "Work" >> beam.ParDo(work) | "Report" >> Gather(report)

    return define, report


def edges(splits: Sequence[bytes], transform: FindDuplicates) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = pipeline | "Tasks" >> Tasks(splits) | "FindDuplicates" >> transform

    return define


def fates(tasks: Sequence[bytes], transform: SettleFates) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = pipeline | "Tasks" >> Tasks(tasks) | "SettleFates" >> transform

    return define


def ranks(tasks: Sequence[bytes], transform: PrepareRounds) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = pipeline | "Tasks" >> Tasks(tasks) | "PrepareRounds" >> transform

    return define


def rounds(tasks: Sequence[bytes], transform: AdvanceRounds) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = pipeline | "Tasks" >> Tasks(tasks) | "AdvanceRounds" >> transform

    return define


def totals(tasks: Sequence[bytes], transform: CountStrata) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = pipeline | "Tasks" >> Tasks(tasks) | "CountStrata" >> transform

    return define


def layout(tasks: Sequence[bytes], transform: ForecastLayout) -> Define:
    def define(pipeline: beam.Pipeline) -> None:
        _ = pipeline | "Tasks" >> Tasks(tasks) | "ForecastLayout" >> transform

    return define


def inputs(
    splits: Sequence[bytes], reference: Sequence[bytes], params: DiversityParams, baseline: Baseline, report: str
) -> Define:
    """Measure what would go into a mix, and what was held out, before there is one."""

    def define(pipeline: beam.Pipeline) -> None:
        read = pipeline | "Splits" >> Tasks(splits) | "ReadStatistics" >> ReadSplitStatistics(params, baseline)
        held_out = pipeline | "Reference" >> Tasks(reference) | "ReadReference" >> ReadReferenceStatistics(params)
        _ = (read, held_out) | "Statistics" >> beam.Flatten() | "MeasureDiversity" >> MeasureDiversity(report, baseline)

    return define


def mix(
    tasks: Sequence[bytes],
    splits: Sequence[bytes],
    reference: Sequence[bytes],
    transform: WriteMix,
    baseline: Baseline,
    diversity: str,
) -> Define:
    """Write the mix, and measure what went in, what came out, and what was held out."""

    def define(pipeline: beam.Pipeline) -> None:
        written = pipeline | "Tasks" >> Tasks(tasks) | "WriteMix" >> transform
        params = transform.settings.diversity
        read = pipeline | "Splits" >> Tasks(splits) | "ReadStatistics" >> ReadSplitStatistics(params, baseline)
        held_out = pipeline | "Reference" >> Tasks(reference) | "ReadReference" >> ReadReferenceStatistics(params)
        mixed = written | "AddUpWritten" >> AddUpWritten(params)
        _ = (
            (read, held_out, mixed)
            | "Statistics" >> beam.Flatten()
            | "MeasureDiversity" >> MeasureDiversity(diversity, baseline)
        )

    return define
