"""From the config's words to the settings of kernels and transforms: the one place that knows both."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from pipeline.catalog import KNOWN_SYNTHETIC, is_anchor, known_source, reference_source
from pipeline.config import UNSTATED, Auto, Config, Join, Messages, Source
from pipeline.config import Rule as ConfigRule
from pipeline.detectors import NO_DETECTORS, Detectors
from pipeline.environment import whole_number
from pipeline.weights import learned_weights
from transforms.batches import MAX_BATCH_ROWS
from transforms.kernels import bands, columns, diversity, minhash, mixture
from transforms.kernels.provenance import SourceRules
from transforms.kernels.recognisers import Claim
from transforms.kernels.tokens import TokenizerFile
from transforms.planned import Draw
from transforms.provenance import Exclusion, FateRules
from transforms.sidecars import SourceSettings


def source_settings(
    config: Config, detectors: Detectors = NO_DETECTORS, tokenizer: TokenizerFile | None = None
) -> dict[str, SourceSettings]:
    """How each source is read, text that documents are compared with among them.

    Detectors only where documents are scored, because a watermark key is a secret; the tokenizer only where tokens are
    counted, because it may be large.
    """
    return {
        source.name: SourceSettings(
            columns=column_map(config, source, NO_DETECTORS if is_anchor(source.name) else detectors),
            minhash=minhash_params(config),
            artefacts=config.evidence.artefacts,
            detectors=() if is_anchor(source.name) else detectors.specs,
            tokenizer=None if is_anchor(source.name) else tokenizer,
            diversity=diversity.DiversityParams() if source.name == KNOWN_SYNTHETIC else diversity_params(config),
            batch_rows=whole_number("ANCHORMIX_BATCH_ROWS", MAX_BATCH_ROWS, "rows", least=1),
        )
        for source in (*config.sources, known_source(config), reference_source(config))
    }


def minhash_params(config: Config) -> minhash.MinHashParams:
    return minhash.MinHashParams(config.dedup.permutations, config.dedup.shingle)


def diversity_params(config: Config) -> diversity.DiversityParams:
    return diversity.DiversityParams(full=config.diversity.metrics == "full")


def column_map(config: Config, source: Source, detectors: Detectors = NO_DETECTORS) -> columns.ColumnMap:
    named = source.columns
    text = named.text
    if isinstance(text, Join):
        read: columns.TextColumn = columns.Join(text.join)
    elif isinstance(text, Messages):
        read = columns.Messages(text.messages, text.count or ())
    else:
        read = columns.AUTO if isinstance(text, Auto) else text
    return columns.ColumnMap(
        text=read,
        doc_id=_column(named.id),
        language=_column(named.language),
        license=_column(named.license),
        url=_column(named.url),
        date=_column(named.date),
        generator=_column(named.generator),
        label=None if isinstance(named.label, Auto) else named.label,
        # Anchors are compared, never counted as tokens of a mix: they need not have what documents have.
        n_tokens=None if is_anchor(source.name) else config.tokens.column,
        keep=tuple((kept.name, kept.path) for kept in source.keep),
        scores=tuple(spec.target for spec in detectors.specs if spec.is_column),
    )


def _column(named: str | Auto | None) -> columns.Column:
    return columns.AUTO if isinstance(named, Auto) else named


def fate_rules(
    config: Config, cards: Mapping[str, tuple[Claim, ...]], detectors: Detectors = NO_DETECTORS
) -> FateRules:
    return FateRules(
        sources={source.name: source_rules(source, cards.get(source.name, ())) for source in config.sources},
        priorities={source.name: source.priority for source in config.sources},
        exclusions=tuple(exclusion for _, exclusion in exclusions(config)),
        detectors=detectors.rules,
    )


def exclusions(config: Config) -> list[tuple[int, Exclusion]]:
    """What is excluded, each with its place in the config; in an order of its own, because fates of a config stand for
    every order in which it could be written. Stated reasons come first: of several, a document has the first."""
    found = [
        (place, Exclusion(rule.reason or UNSTATED, rule.source, rule.generator, _ids(rule.ids), _ids(rule.doc_ids)))
        for place, rule in enumerate(config.exclude)
    ]
    return sorted(found, key=lambda entry: (entry[1].reason == UNSTATED, repr(entry[1])))


def _ids(listed: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(sorted(set(listed or ())))


def source_rules(source: Source, card: tuple[Claim, ...]) -> SourceRules:
    return SourceRules(
        source=source.name,
        declare=source.declare,
        synthetic_generator=source.synthetic.generator if source.synthetic else None,
        synthetic_kind=source.synthetic.kind if source.synthetic else None,
        labels=tuple(sorted(source.labels.items())),
        card=card,
    )


def draw(config: Config) -> Draw:
    """Strata tell apart what a rule groups by; sources and generators are told apart anyway."""
    by = {rule.by for rule in (*config.mix.floors, *config.mix.caps) if rule.by} - {"source", "generator"}
    return Draw(config.seed, tuple(group_column(name) for name in sorted(by)))


def group_column(name: str) -> str:
    """A rule's `by` as a column of facts."""
    return name if name == "language" else f"keep.{name}"


def mixture_params(config: Config) -> mixture.MixtureParams:
    """What the planner is asked for; raises where the file of learned weights cannot be used."""
    mix = config.mix
    return mixture.MixtureParams(
        measure=mix.measure,
        size=None if mix.size == "max" else int(mix.size),
        floors=tuple(map(_rule, mix.floors)),
        caps=tuple(map(_rule, mix.caps)),
        weights={name: portion.weight for name, portion in mix.sources.items()},
        portions=learned_weights(config),
        max_shares={name: p.max_share for name, p in mix.sources.items() if p.max_share is not None},
        epochs=dict(mix.epochs),
        if_short=mix.if_short,
        temperature=mix.temperature,
        layout=mix.layout,
        shards=None if mix.shards == "auto" else int(mix.shards),
        shard_bytes=mix.shard_bytes,
        seed=config.seed,
        row_group=mix.row_group,
    )


def _rule(rule: ConfigRule) -> mixture.Rule:
    return mixture.Rule(rule.of, rule.share, rule.amount, rule.by, rule.otherwise)


def removal_edges() -> int:
    """The most edges that one worker takes at removal; beyond, partitions decide in rounds."""
    return whole_number("ANCHORMIX_REMOVAL_EDGES", _REMOVAL_EDGES, "edges")


_REMOVAL_EDGES = 100_000_000


def told_bands(config: Config) -> dict[str, Any]:
    return bands.told_bands(float(config.dedup.threshold), config.dedup.permutations)


def threshold(config: Config) -> Fraction:
    return Fraction(config.dedup.threshold)
