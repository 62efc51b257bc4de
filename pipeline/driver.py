"""The commands that run pipelines, from config to verdict: bring the index up to date, plan, mix, verify, publish."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import (
    __version__,
    beam_start,  # noqa: F401  the first: others import Beam
    publish,
    settings,
)
from pipeline.baselines import Judged, judge_baselines, prepare_baseline, write_baseline
from pipeline.cards import write_cards
from pipeline.catalog import FACTS_VERSION
from pipeline.claims import grown, make_claims, survival_of
from pipeline.config import Config
from pipeline.dataflow import refuse_local_paths
from pipeline.errors import UsageError, VerificationFailed
from pipeline.exclusions import remaining_texts
from pipeline.gates import judge_gates
from pipeline.heldout import HeldOutCheck
from pipeline.index import Index
from pipeline.layers import EDGES_VERSION, FATES_VERSION, IndexBuilder, Indexed
from pipeline.manifest import (
    build_manifest,
    group_columns,
    write_manifest,
)
from pipeline.mix_folder import MixFolder
from pipeline.object_stores import connect
from pipeline.origins import custody_manifests
from pipeline.outcome import Outcome
from pipeline.parent import load_parent, parent_line, succeeding, told_parent
from pipeline.planning import Planned, count_strata, forecast_layout, judge_layout, make_plan, mix_tasks
from pipeline.progress import make_progress
from pipeline.report import plan_table, survival_tables, sweep_table, verdict_table, write_report
from pipeline.submit import make_runner
from pipeline.survival import differing_provenance, near_duplicate_rates
from pipeline.sweep import parse_axes, sweep, sweep_cells
from pipeline.tokens import counter_of
from pipeline.verify import Verification, audit_mix, verify_mix
from pipeline.verify_origins import CustodyCheck
from transforms import files
from transforms.diversity import Baseline
from transforms.exchange import gathered
from transforms.kernels.audit import ShardAudit
from transforms.kernels.hashing import fingerprint
from transforms.kernels.mixture import floor_table, shrinking
from transforms.kernels.tokens import TokenizerFile
from transforms.mixture import MixSettings, WriteMix, writers_for
from transforms.sidecars import read_table


def run(config: Config, beam: Sequence[str], quiet: bool, command: Sequence[str]) -> Outcome:
    return _mix(config, beam, quiet, command, build=True)


def mix(config: Config, beam: Sequence[str], quiet: bool, command: Sequence[str]) -> Outcome:
    return _mix(config, beam, quiet, command, build=False)


def bring_up_to_date(config: Config, beam: Sequence[str], quiet: bool) -> Outcome:
    builder = _builder(config, beam, quiet, build=True)
    with builder.working():
        indexed = builder.bring_up_to_date()
    rebuilt = ", ".join(builder.rebuilt) or "nothing: it was up to date"
    text = f"index {config.index}: {indexed.facts.documents:,} documents in {len(indexed.facts.shards):,} shards; "
    text += f"built {rebuilt}.\n"
    survived = survival_of(config, indexed)
    text += survival_tables(survived)
    notes = [*differing_provenance(indexed.fates.duplicates), *indexed.warnings]
    text += "".join(f"\nNote: {note}" for note in notes)
    text += (
        f"\nNext: anchormix plan, or anchormix mix, with the same config; anchormix duplicates {config.index} shows "
        "what dedup removed."
    )
    return Outcome(
        text,
        output=config.index,
        totals=_index_totals(indexed),
        details={
            "rebuilt": builder.rebuilt,
            "survival": survived,
            "duplicates": indexed.fates.duplicates,
            "removal": dict(indexed.fates.removal),
            "stages": builder.runner.effort.to_json(),
        },
    )


def plan(config: Config, beam: Sequence[str], quiet: bool, swept: Sequence[str] = ()) -> Outcome:
    """What the mix would hold; with `swept`, many ratios at once instead."""
    axes = parse_axes(swept)
    params = settings.mixture_params(config)
    builder = _builder(config, beam, quiet, build=False)
    parent = load_parent(config)
    with builder.working():
        indexed = builder.bring_up_to_date()
        counted = count_strata(config, params, builder, indexed)
        if axes:
            return _swept(config, sweep(counted.supply, params, axes))
        planned = make_plan(config, params, builder, indexed, counted)
        layout = forecast_layout(config, builder, indexed, planned)
    table = floor_table(counted.supply, params, planned.floors)
    sizes = [{"floor": str(floor), "largest": size} for floor, size in table]
    summary = planned.plan.summary() | {"layout": layout, "row_group": config.mix.row_group}
    summary["notes"] += shrinking(counted.supply, params)
    survived = survival_of(config, indexed, planned)
    bands = settings.told_bands(config)
    text = plan_table(summary, sizes, survived, bands)
    if parent is not None:
        text += f"\n{parent_line(parent)}; what of it stays, leaves and comes back is told by `anchormix mix`"
    return Outcome(
        text,
        output=config.index,
        totals=summary["totals"],
        details={
            "plan": summary,
            "floor_table": sizes,
            "bands": bands,
            "parent": parent and parent.identity,
            "survival": survived,
            "duplicates": indexed.fates.duplicates,
            "stages": builder.runner.effort.to_json(),
        },
    )


def _swept(config: Config, rows: list[dict[str, Any]]) -> Outcome:
    feasible = sum(row["feasible"] for row in rows)
    return Outcome(
        sweep_table(*sweep_cells(rows, config.mix.measure)),
        output=config.index,
        totals={"plans": len(rows), "feasible": feasible},
        details={"measure": config.mix.measure, "sweep": rows},
    )


def _builder(config: Config, beam: Sequence[str], quiet: bool, build: bool) -> IndexBuilder:
    runner = make_runner(beam, make_progress(quiet))
    connect(runner.arguments)
    if runner.on_dataflow:
        refuse_local_paths(config)
    return IndexBuilder(config, Index(config.index), runner, build)


def _index_totals(indexed: Indexed) -> dict[str, int]:
    shards = indexed.facts.shards
    names = ("documents", "empty", "bad_records", "tokens", "text_bytes")
    return {name: sum(shard.total(name) for shard in shards) for name in names} | {"shards": len(shards)}


def _mix(config: Config, beam: Sequence[str], quiet: bool, command: Sequence[str], build: bool) -> Outcome:
    started = time.time()
    params = settings.mixture_params(config)
    builder = _builder(config, beam, quiet, build)
    standing = publish.published(config.output)
    if standing is None:
        publish.check_place(config.output)
    parent = load_parent(config)
    with publish.destination(config.output, standing is None) as publish_to, builder.working():
        indexed = builder.bring_up_to_date()
        if standing is not None:  # its gates were judged when it was made: they count in what a plan is called
            planned = make_plan(config, params, builder, indexed)
            digest = _mix_digest(config, indexed, planned, builder.tokenizer, parent)
            return _already_published(config, standing, digest, builder.rebuilt)
        sources = [source.name for source in config.sources]
        packed = files.join(builder.scratch, "held-out")
        baseline = prepare_baseline(indexed.facts, indexed.reference, sources, packed)
        measured = _judge_inputs(config, builder, indexed, baseline)
        planned = make_plan(config, params, builder, indexed)
        digest = _mix_digest(config, indexed, planned, builder.tokenizer, parent)
        with publish.staging(config.output, builder.run_id, scratch=builder.local_scratch) as folder:
            written = _write(config, builder, indexed, planned, digest, folder, measured, baseline)
            with builder.runner.effort.stage("verify"):
                judged = judge_baselines([*measured, *written.diversity])
                made = _describe(config, builder, indexed, planned, digest, folder, judged, parent)
                verification = verify_mix(
                    folder,
                    tokenizer=builder.tokenizer,
                    audits=made.audits,
                    custody_audited=True,
                    held_out=made.held_out,
                    staged=True,
                )
            if not verification.passed:
                raise verification_failed(config.output, verification)
            _write_run(folder, command, builder, indexed, parent, started)
            write_report(folder)
            builder.index.check_lease()
            publish_to(folder)
    manifest = made.manifest
    text = verdict_table(manifest, verification, planned.plan.summary(), config.output)
    return Outcome(
        text,
        output=config.output,
        totals=manifest["totals"],
        details={
            "plan": digest,
            "logical_digest": verification.logical_digest,
            "rebuilt": builder.rebuilt,
            **_told_of(manifest),
        },
    )


def _told_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What `--json` tells of a mix, from its manifest; an earlier version may not have stated all of it."""
    lists, objects = ("summary", "gates"), ("survival", "duplicates", "baseline")
    return {
        **{name: manifest.get(name, []) for name in lists},
        **{name: manifest.get(name, {}) for name in objects},
        **{name: manifest.get(name) for name in ("parent", "succession")},
    }


@dataclass(frozen=True)
class Described:
    manifest: dict[str, Any]
    audits: list[ShardAudit]
    held_out: HeldOutCheck | None


def _describe(
    config: Config,
    builder: IndexBuilder,
    indexed: Indexed,
    planned: Planned,
    digest: str,
    folder: Path,
    judged: Judged,
    parent: MixFolder | None,
) -> Described:
    """Judge what was written, and say beside it what it is: tables, manifest and cards."""
    diversity = publish.write_diversity(folder, [*judged.reports, *near_duplicate_rates(indexed.fates.accounts)])
    gates = judge_gates(config.diversity.fail_if, diversity)
    publish.write_inputs(folder, indexed)
    publish.copy_custody(folder / "custody", indexed.custody)
    publish.write_config(folder, config)
    claims = make_claims(config, indexed, planned, digest, builder.tokenizer, gates, parent)
    claims = replace(claims, baseline=write_baseline(folder, config, indexed.reference, judged))
    inputs = read_table(str(folder / "inputs.parquet"))
    # Fates are taken from the index; what they verify is held against the signatures once more.
    custody = CustodyCheck(folder, indexed.custody.trust, inputs, claims.methods, claims.custody)
    held_out = HeldOutCheck.of(config)
    with publish.flushing(folder):
        audits = audit_mix(
            folder,
            claims.measure,
            config.mix.human_floor,
            group_by=group_columns([*claims.floors, *claims.caps]),
            count_tokens=counter_of(config, builder.tokenizer),
            manifests=custody_manifests(inputs),
            visitors=[custody.check, *([held_out.check] if held_out else [])],
        )
    notes = [*claims.notes, *grown(config, audits)]
    if config.exclude:
        notes += remaining_texts(folder, audits)
    if held_out is not None:
        held_out.judge()
        notes += [held_out.unlooked] if held_out.unlooked else []
    claims = replace(claims, notes=notes)
    if parent is not None:
        claims = succeeding(config, claims, parent, MixFolder.staged(folder, build_manifest(claims, audits)))
    manifest = build_manifest(claims, audits)
    write_manifest(folder, manifest, Path(config.sign.key) if config.sign else None)
    write_cards(folder, manifest)
    return Described(manifest, audits, held_out)


def _judge_inputs(config: Config, builder: IndexBuilder, indexed: Indexed, baseline: Baseline) -> list[bytes]:
    """Judge the gates of input scopes, where there are any, before anything is planned; returns what was measured."""
    from pipeline import graphs

    gates = config.diversity.fail_if
    if not any(gate.of_input for gate in gates):
        return []
    report = files.join(builder.scratch, "inputs.report")
    splits, reference = indexed.facts.tasks(), indexed.reference.tasks()
    params = settings.diversity_params(config)
    builder.runner.run("measure", indexed.facts.weight, graphs.inputs(splits, reference, params, baseline, report))
    measured = gathered(report)
    judged = judge_baselines(measured).reports
    rows = publish.diversity_table([*judged, *near_duplicate_rates(indexed.fates.accounts)])
    judge_gates(gates, rows, inputs_only=True)
    return measured


@dataclass(frozen=True)
class Written:
    shards: list[dict[str, Any]]
    diversity: list[bytes]


def _write(
    config: Config,
    builder: IndexBuilder,
    indexed: Indexed,
    planned: Planned,
    digest: str,
    folder: Path,
    measured: Sequence[bytes],
    baseline: Baseline,
) -> Written:
    """Write shards and fates; what is `measured` of the input already is not measured again."""
    from pipeline import graphs

    # Workers that reach a store and not this disk stage there.
    elsewhere = not files.is_local(config.output) and not files.is_local(builder.scratch)
    staged = files.join(builder.scratch, "staged") if elsewhere else str(folder)
    report = files.join(builder.scratch, "mix.report")
    statistics = files.join(builder.scratch, "diversity.report")
    transform = WriteMix(
        sources=settings.source_settings(config),
        draw=settings.draw(config),
        settings=MixSettings(
            measure=config.mix.measure,
            floor=config.mix.human_floor,
            row_group=config.mix.row_group,
            shards=planned.plan.n_shards,
            kept=config.kept_columns,
            plan_digest=digest,
            config_digest=config.meaning_digest(),
            licenses={source.name: source.license for source in config.sources},
            strict=config.mix.layout == "strict",
            diversity=settings.diversity_params(config),
            writers=writers_for(planned.plan.n_shards, planned.plan.totals.bytes),
        ),
        plan=planned.path,
        staging=staged,
        report=report,
        scratch=builder.runner.scratch(files.join(builder.scratch, "mix")),
        measure=partial(baseline.row, "output_shard"),
    )
    tasks = mix_tasks(indexed)
    splits, reference = ([], []) if measured else (indexed.facts.tasks(), indexed.reference.tasks())
    graph = graphs.mix(tasks, splits, reference, transform, baseline, statistics)
    builder.runner.run("mix", indexed.facts.weight, graph)
    reports = [json.loads(part) for part in gathered(report)]
    builder.judge_unchanged(indexed.facts, reports)
    judge_layout(reports)
    if elsewhere:
        publish.fetch_staged(staged, folder, reports)
    return Written(publish.settle_names(folder, reports), gathered(statistics))


def _mix_digest(
    config: Config, indexed: Indexed, planned: Planned, tokenizer: TokenizerFile | None, parent: MixFolder | None
) -> str:
    """Names everything that decides `data/`, and nothing else: no path, no time of a file, no split.

    The keys of the index's layers would not do: they change when a shard is moved, touched or cut up differently.
    """
    return fingerprint(
        FACTS_VERSION,
        EDGES_VERSION,
        FATES_VERSION,
        planned.plan.digest,
        config.meaning_digest(),
        indexed.facts.input_digest,
        indexed.custody.key,
        *([indexed.reference.input_digest] if indexed.reference.shards else []),
        *([f"known\0{indexed.edges.registry.input_digest}"] if indexed.edges.registry.shards else []),
        *(f"judge\0{digest}" for digest in indexed.fates.judges),
        *(f"{earlier.content}\0{earlier.keep}" for earlier in indexed.edges.earlier),
        *([] if tokenizer is None else [f"tokenizer\0{tokenizer.digest}"]),
        *([] if parent is None else [f"parent\0{parent.identity['manifest_sha256']}"]),
    )


def _already_published(config: Config, standing: Mapping[str, Any], digest: str, rebuilt: list[str]) -> Outcome:
    if standing.get("plan") != digest:
        raise UsageError(
            "output_exists",
            f"output: {config.output!r} holds a mix with another plan ({standing.get('plan')}; this config and input "
            f"make {digest}). A published mix is never overwritten: name another `output`.",
            output=config.output,
            published=standing.get("plan"),
            planned=digest,
        )
    text = f"{config.output} already holds exactly this mix; nothing to do.\nNext: anchormix verify {config.output}"
    return Outcome(
        text,
        status="unchanged",
        output=config.output,
        totals=dict(standing["totals"]),
        details={
            "plan": digest,
            "logical_digest": standing["logical_digest"],
            "rebuilt": rebuilt,
            **_told_of(standing),
        },
    )


def verification_failed(output: str, verification: Verification) -> VerificationFailed:
    first = "; ".join(str(finding) for finding in verification.findings[:3])
    return VerificationFailed(
        "verification_failed",
        f"{output}: verification failed, so nothing was published: {first}",
        findings=[str(finding) for finding in verification.findings],
    )


def _write_run(
    folder: Path,
    command: Sequence[str],
    builder: IndexBuilder,
    indexed: Indexed,
    parent: MixFolder | None,
    started: float,
) -> None:
    """The only file of an output that says when, where and how."""
    content = {
        "command": list(command),
        "beam": list(builder.runner.arguments),
        "rebuilt": builder.rebuilt,
        "fates": indexed.fates.key,
        "stages": builder.runner.effort.to_json(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "version": __version__,
        **({} if parent is None else {"parent": told_parent(parent)}),
    }
    (folder / "run.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
