"""PLAN: counts what can be chosen, plans, and sees how the shards will be laid out, before any text is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from pipeline import graphs, settings
from pipeline.config import Config
from pipeline.errors import Infeasible, UsageError
from pipeline.layers import IndexBuilder, Indexed
from transforms import files
from transforms.batches import unpack
from transforms.exchange import gathered
from transforms.forecast import ForecastLayout, LayoutSettings
from transforms.kernels.layout import MAX_ROW_GROUP_BYTES
from transforms.kernels.mixture import (
    Cells,
    InfeasibleMixture,
    MixtureParams,
    Plan,
    Stratum,
    Supply,
    plan_supply,
)
from transforms.kernels.schemas import Fate, Provenance
from transforms.kernels.strata import BUCKETS, cell_totals
from transforms.mixture import CountStrata
from transforms.planned import Assignments, MixTask

_TABLE_FLOORS = ("0.1", "0.25", "0.5", "0.62", "0.67", "0.8", "1")
_PARTITIONS = 16
_SPLITS_A_SLICE = 1024
"""Each sends at most some hundred kB of a stratum, so a worker gets at most a few hundred MB of it."""


@dataclass(frozen=True)
class Counted:
    """What the index holds to choose from."""

    keys: tuple[str, ...]  # of the strata, as workers name them
    supply: Supply


@dataclass(frozen=True)
class Planned:
    """A plan, and where workers find it."""

    plan: Plan
    path: str

    @property
    def floors(self) -> list[Fraction]:
        """Floors that are told beside the one that was asked for."""
        return sorted({Fraction(text) for text in _TABLE_FLOORS} | {self.plan.params.human_floor})


def count_strata(config: Config, params: MixtureParams, builder: IndexBuilder, indexed: Indexed) -> Counted:
    """Add up the documents that can be chosen, by stratum and bucket; no text is read."""
    draw = settings.draw(config)
    report = files.join(builder.scratch, "totals.report")
    slices = min(BUCKETS, max(1, len(indexed.facts.splits) // _SPLITS_A_SLICE))
    partitions = max(_PARTITIONS, slices)
    scratch = builder.runner.scratch(files.join(builder.scratch, "totals"))
    transform = CountStrata(draw, partitions, slices, report, scratch)
    builder.runner.run("plan", indexed.facts.weight, graphs.totals(mix_tasks(indexed), transform))
    numbers: dict[str, int] = {}
    parts: list[list[Any]] = []
    for names, number, *totals in map(unpack, gathered(report)):
        known = [numbers.setdefault(key, len(numbers)) for key in json.loads(names.tobytes())]
        parts.append([np.array(known, np.int64)[number], *totals])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] or [np.empty(0, np.int64)] * 5
    cells = Cells(*cell_totals(*columns))
    supply = Supply([_stratum(key, draw.group_columns) for key in numbers], cells, params)
    _judge_counts(supply, builder, indexed)
    return Counted(tuple(numbers), supply)


def _judge_counts(supply: Supply, builder: IndexBuilder, indexed: Indexed) -> None:
    """Exit 2 where the fates hold other documents than were counted when they were written."""
    found: Counter[str] = Counter()
    for stratum, documents in zip(supply.strata, supply.totals(supply.cells)[0].tolist(), strict=True):
        found[stratum.source] += documents
    for source, counts in sorted(indexed.fates.by_source.items()):
        kept = sum(documents for (_, fate), documents in counts.items() if fate == Fate.KEPT.label)
        if kept == found[source]:
            continue
        folder = builder.index.path("fates", indexed.fates.key)
        raise UsageError(
            "damaged_index",
            f"index: the fates in {folder!r} let {found[source]:,} documents of source {source!r} stay, and their own "
            f"account says {kept:,}: files of the index were changed, or damaged, after they were made. Remove that "
            "folder and run `anchormix index` with the same config: it settles fates anew and reads no text.",
            path=folder,
            source=source,
            kept=kept,
            found=found[source],
        )


def _stratum(key: str, group_columns: Sequence[str]) -> Stratum:
    source, provenance, generator, kind, *values = json.loads(key)
    names = [name.removeprefix("keep.") for name in group_columns]
    return Stratum(source, Provenance(provenance), generator, kind, tuple(zip(names, values, strict=True)))


def make_plan(
    config: Config, params: MixtureParams, builder: IndexBuilder, indexed: Indexed, counted: Counted | None = None
) -> Planned:
    """Count what can be chosen, then plan; exit 3 when no mix holds the rules, or none could be laid out as asked."""
    counted = counted or count_strata(config, params, builder, indexed)
    try:
        plan = plan_supply(counted.supply, params)
    except InfeasibleMixture as error:
        gone = list(_gone(config, indexed, counted.supply))
        if gone:
            error.advice = f"Verified text was read, and the config takes it out: {'; '.join(gone)}"
        reasons = "".join(f"\n  {told}" for told in (*_dropped(config, indexed, counted.supply), *indexed.warnings))
        raise Infeasible("infeasible", f"mix: {error}{reasons}", **error.details, warnings=indexed.warnings) from None
    assign = plan.assign
    assignments = Assignments(
        counted.keys,
        *(np.asarray(column, np.int64) for column in (assign.stratum, assign.bucket, assign.copy, assign.shard)),
    )
    planned = Planned(plan, files.join(builder.scratch, "plan"))
    files.write_bytes(planned.path, assignments.to_bytes())
    # Elsewhere no row group can be refused: none is larger than its shard.
    if params.layout == "strict" or int(plan.shards.bytes.max()) > MAX_ROW_GROUP_BYTES:
        forecast_layout(config, builder, indexed, planned)
    return planned


def forecast_layout(config: Config, builder: IndexBuilder, indexed: Indexed, planned: Planned) -> list[dict[str, Any]]:
    """How each output shard will be cut into row groups, from the index alone; exit 3 where that is not allowed."""
    report = files.join(builder.scratch, "layout.report")
    mix = config.mix
    transform = ForecastLayout(
        settings.draw(config),
        LayoutSettings(mix.measure, mix.human_floor, mix.row_group, mix.layout == "strict"),
        planned.path,
        report,
        builder.runner.scratch(files.join(builder.scratch, "layout")),
    )
    builder.runner.run("plan", indexed.facts.weight, graphs.layout(mix_tasks(indexed), transform))
    reports = [json.loads(part) for part in gathered(report)]
    judge_layout(reports)
    return sorted((told for told in reports if told["kind"] == "layout"), key=lambda told: int(told["shard"]))


def judge_layout(reports: Sequence[Mapping[str, Any]]) -> None:
    """Exit 3 when a shard could only be written with row groups that the config or readers do not allow."""
    refused = sorted((r for r in reports if r["kind"] == "refused"), key=lambda r: (r["reason"], -int(r["found"])))
    if not refused:
        return
    worst = refused[0]
    if worst["reason"] == "row_group_bytes":
        problem = f"a row group would hold {worst['found']:,} bytes of text, and {worst['allowed']:,} are allowed"
        advice = "lower mix.row_group"
    else:
        problem = f"the floor needs a row group of {worst['found']:,} rows, and mix.row_group is {worst['allowed']:,}"
        advice = "raise mix.row_group, lower the floor, or set mix.layout: grow"
    raise Infeasible(
        worst["reason"],
        f"mix: {problem} (output shard {worst['shard']}, one of {len(refused)}). Nothing was published; {advice}.",
        refused=[dict(report) for report in refused],
    )


_KEYS = {
    Fate.EXCLUDED: "exclude",
    Fate.HELD_OUT: "diversity.reference",
    Fate.SEEN_BEFORE: "dedup.against",
}
"""Config keys that take text out, by the fate that they give it."""


def _gone(config: Config, indexed: Indexed, supply: Supply) -> Iterator[str]:
    """Where no verified text is left though some was read, which keys of the config took it out."""
    if not config.mix.human_floor or supply.verified.any():
        return
    for fate, key in _KEYS.items():
        cell = Provenance.HUMAN_VERIFIED.label, fate.label
        sources = {name: counts[cell] for name, counts in sorted(indexed.fates.by_source.items()) if counts[cell]}
        if sources:
            told = ", ".join(f"{documents:,} of {name}" for name, documents in sources.items())
            yield f"look at {key}, which leaves out {told}"


def _dropped(config: Config, indexed: Indexed, supply: Supply) -> Iterator[str]:
    """Where nothing is left to mix, what became of all that was read: no fates are published that could say it."""
    if len(supply.stratum):
        return
    for source in config.sources:
        fates: Counter[str] = Counter()
        for (_, fate), documents in indexed.fates.by_source.get(source.name, Counter()).items():
            fates[fate] += documents
        told = "".join(f", {documents:,} {fate}" for fate, documents in sorted(fates.items()))
        yield f"sources.{source.name}: documents read: {fates.total():,}{told}"


def mix_tasks(indexed: Indexed) -> list[bytes]:
    """Every split with its fates, the largest first."""
    splits = sorted(indexed.facts.splits, key=lambda split: (-split.weight, split.index))
    return [MixTask(split, indexed.fates.files[split.index]).to_bytes() for split in splits]
