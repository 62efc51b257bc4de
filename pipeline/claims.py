"""What a manifest claims of a mix that was planned and written, from its config, its index and its plan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, cast

from pipeline import __version__, publish
from pipeline.config import Config, Rule
from pipeline.gates import GateResult, unjudged_notes
from pipeline.heldout import told_reference
from pipeline.layers import Indexed
from pipeline.manifest import NO_VALUE, MixClaims, RuleClaim, SourceAccount, named_rules
from pipeline.mix_folder import MixFolder
from pipeline.origins import Made
from pipeline.planning import Planned
from pipeline.survival import differing_provenance, survival
from pipeline.tokens import told_tokens
from transforms.kernels import mixture as kernel
from transforms.kernels.audit import ShardAudit, Totals
from transforms.kernels.mixture import RuleOutcome, Stratum
from transforms.kernels.tokens import TokenizerFile

__all__ = ["accounts", "grown", "make_claims", "survival_of"]


def make_claims(
    config: Config,
    indexed: Indexed,
    planned: Planned,
    digest: str,
    tokenizer: TokenizerFile | None = None,
    gates: Sequence[GateResult] = (),
    parent: MixFolder | None = None,
) -> MixClaims:
    custody = indexed.custody
    return MixClaims(
        measure=cast(Any, config.mix.measure),
        floors=[_claim(rule) for rule in config.mix.floors],
        caps=[_claim(rule) for rule in config.mix.caps]
        + [RuleClaim(f"source:{n}", p.max_share) for n, p in sorted(config.mix.sources.items()) if p.max_share],
        sources=accounts(config, indexed, planned),
        plan=digest,
        config_digest=config.meaning_digest(),
        input_digest=indexed.facts.input_digest,
        seed=config.seed,
        as_of=config.as_of.isoformat() if config.as_of else None,
        code_version=__version__,
        parent=None if parent is None else parent.identity,
        tokens=told_tokens(config, tokenizer),
        size=None if config.mix.size == "max" else int(config.mix.size),
        epochs=dict(config.mix.epochs),
        exempt=_let_off(planned),
        binding=list(_binding(planned)),
        methods={source.name: source.custody.method for source in config.sources if source.custody},
        custody=publish.used_manifests(custody),
        made=_made(planned),
        contested=indexed.fates.contested,
        survival=survival_of(config, indexed, planned),
        duplicates=indexed.fates.duplicates,
        gates=[gate.to_json() for gate in gates],
        reference=told_reference(indexed.reference),
        notes=[
            *_no_floor(config),
            *planned.plan.notes,
            *_learned(planned),
            *_contested(indexed),
            *unjudged_notes(gates),
            *differing_provenance(indexed.fates.duplicates),
            *indexed.warnings,
        ],
    )


def _let_off(planned: Planned) -> dict[str, list[str]]:
    """Groups that cannot hold a rule with `otherwise: exempt`, by the rule's name in the manifest."""
    params = planned.plan.params
    names = named_rules(map(_claim, params.floors), map(_claim, params.caps))
    let_off: dict[str, list[str]] = {}
    for rule, (name, _, _) in zip((*params.floors, *params.caps), names, strict=True):
        groups = sorted(group for of, group in planned.plan.exempt if of == rule)
        if groups:
            let_off[name] = groups
    return let_off


def _binding(planned: Planned) -> Iterator[dict[str, Any]]:
    """Why the plan left documents out: the rules that bound it, and the groups that a rule left out."""
    bound = [(outcome.kind, outcome.rule, outcome.group) for outcome in planned.plan.rules if outcome.binds]
    for kind, rule, group in (*bound, *(("left_out", rule, group) for rule, group in planned.plan.dropped)):
        share = None if rule.share is None else [rule.share.numerator, rule.share.denominator]
        yield {"kind": kind, "of": rule.of, "by": rule.by, "group": group, "share": share, "amount": rule.amount}


def _learned(planned: Planned) -> Iterator[str]:
    """The weights that were learned elsewhere: the config names their file, and a file can change."""
    portions = planned.plan.params.portions
    if portions is not None:
        told = ", ".join(f"{source} {portion}" for source, portion in sorted(portions.items()))
        yield f"sources were weighed as learned elsewhere (mix.weights): {told}"


def _no_floor(config: Config) -> Iterator[str]:
    if not any(rule.of == "human_verified" and (rule.share or rule.amount) for rule in config.mix.floors):
        yield "no floor of verified human text was asked: the mix promises none"


def _contested(indexed: Indexed) -> Iterator[str]:
    contested = indexed.fates.contested
    if contested["documents"]:
        yield (
            f"contested: {contested['documents']:,} verified documents that were read ({contested['tokens']:,} tokens) "
            "carry evidence against being human; custody outranks it, so they count as verified. Their `evidence` "
            "says what was found"
        )


def grown(config: Config, audits: Sequence[ShardAudit]) -> Iterator[str]:
    """What the layout had to do to hold the floor in every row group."""
    longest = max((group.rows for audit in audits for group in audit.row_groups), default=0)
    if longest > config.mix.row_group:
        yield (
            f"row groups have up to {longest:,} rows, and mix.row_group asks for {config.mix.row_group:,}: the floor "
            "leaves too little slack to cut sooner. A lower floor, or larger shards, would bring them nearer."
        )


def _claim(rule: Rule | kernel.Rule) -> RuleClaim:
    return RuleClaim(rule.of, rule.share, rule.amount, rule.by, rule.otherwise)


def accounts(config: Config, indexed: Indexed, planned: Planned) -> dict[str, SourceAccount]:
    """What became of every document: dropped on the way to the plan, left out by it, or in the mix."""
    left: dict[str, Counter[str]] = {source.name: Counter() for source in config.sources}
    binding = [rule for rule in planned.plan.rules if rule.kind == "cap" and rule.binds]
    for outcome in planned.plan.strata:
        missing = outcome.available.documents - outcome.distinct.documents
        if missing:
            reason = "over_cap" if any(_in_scope(outcome.stratum, cap) for cap in binding) else "not_selected"
            left[outcome.stratum.source][reason] += missing
    found: dict[str, SourceAccount] = {}
    by_source = indexed.fates.by_source
    for source in config.sources:
        counts = by_source.get(source.name, Counter())
        dropped: Counter[str] = Counter()
        tags: Counter[str] = Counter()
        for (provenance, fate), documents in counts.items():
            tags[provenance] += documents
            if fate != "kept":
                dropped[fate] += documents
        bad = sum(s.total("bad_records") for s in indexed.facts.shards if s.shard.source == source.name)
        total = sum(counts.values())
        found[source.name] = SourceAccount(total, dict(dropped + left[source.name]), dict(tags), bad)
    return found


def _made(planned: Planned) -> Made:
    """How the text of each generator was made, as planned."""
    found: dict[tuple[str, str, str | None], dict[str, Totals]] = defaultdict(dict)
    for outcome in planned.plan.strata:
        stratum, taken = outcome.stratum, outcome.taken
        if stratum.kind is None or not taken.documents:
            continue
        total = Totals(taken.documents, outcome.distinct.documents, taken.tokens, taken.bytes)
        kinds = found[stratum.source, stratum.provenance.label, stratum.generator]
        kinds[stratum.kind] = kinds[stratum.kind].plus(total) if stratum.kind in kinds else total
    return found


def _in_scope(stratum: Stratum, cap: RuleOutcome) -> bool:
    """Whether a cap counts this stratum, in the group it speaks of."""
    if not cap.rule.covers(stratum):
        return False
    return cap.rule.by is None or (stratum.value(cap.rule.by) or NO_VALUE) == cap.group


def survival_of(config: Config, indexed: Indexed, planned: Planned | None = None) -> dict[str, Any]:
    """What every step left of what was read; with a plan, up to the mix."""
    names = [source.name for source in config.sources]
    if planned is None:
        return survival(indexed.fates.accounts, names)
    taken: dict[tuple[str, str], tuple[int, int]] = {}
    for outcome in planned.plan.strata:
        key = outcome.stratum.source, outcome.stratum.provenance.label
        documents, tokens = taken.get(key, (0, 0))
        taken[key] = documents + outcome.distinct.documents, tokens + outcome.distinct.tokens
    return survival(indexed.fates.accounts, names, taken)
