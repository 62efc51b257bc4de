"""manifest.json: everything a mix claims of itself, and the signature over it.

The manifest is built from the audits of the written shards, so what it says of rows, tokens and shares was counted
on disk and not copied from a plan. `recounted` is that part; the verifier builds it again and compares.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.attest import STATEMENT_TYPE, sign_envelope
from pipeline.errors import AnchormixError
from pipeline.origins import UNNAMED, Made, by_issuer, summarise
from transforms.kernels.audit import Key, Measure, ShardAudit, Totals, logical_digest, sum_totals
from transforms.kernels.hashing import fingerprint
from transforms.kernels.schemas import Provenance
from transforms.kernels.windows import worst_of

__all__ = [
    "MANIFEST",
    "NO_VALUE",
    "PREDICATE_TYPE",
    "SIGNED_MANIFEST",
    "MixClaims",
    "RuleClaim",
    "SourceAccount",
    "Standing",
    "build_manifest",
    "decimal",
    "documents_out",
    "dump_manifest",
    "evaluate",
    "group_columns",
    "human_floor",
    "input_digest",
    "mix_measures",
    "named_rules",
    "recounted",
    "sign_manifest",
    "statement",
    "worst",
    "write_manifest",
]

MANIFEST = "manifest.json"
SIGNED_MANIFEST = "manifest.dsse.json"
PREDICATE_TYPE = "urn:x-anchormix:mix:v1"
VERSION = 1

NO_VALUE = "(none)"
"""Group of the documents that have no value in the column a rule groups by."""

_IN_KEY = ("source", "provenance", "generator")
_DECIMALS = 10**6


@dataclass(frozen=True)
class RuleClaim:
    """A floor or a cap as the mix was asked to hold it: a share, or an amount in the measure."""

    of: str
    share: Fraction | None = None
    amount: int | None = None
    by: str | None = None
    otherwise: str = "fail"

    @property
    def name(self) -> str:
        return f"{self.of} by {self.by}" if self.by else self.of

    def to_json(self) -> dict[str, Any]:
        share = None if self.share is None else [self.share.numerator, self.share.denominator]
        return {"of": self.of, "by": self.by, "share": share, "amount": self.amount, "otherwise": self.otherwise}

    @classmethod
    def from_json(cls, claim: Mapping[str, Any]) -> RuleClaim:
        share = None if claim["share"] is None else Fraction(*claim["share"])
        return cls(claim["of"], share, claim["amount"], claim["by"], claim["otherwise"])

    def holds(self, numerator: int, denominator: int, *, floor: bool) -> bool:
        """Whether a group with `numerator` of `denominator` obeys, in integers; a group of nothing does."""
        if self.share is not None:
            left, right = numerator * self.share.denominator, denominator * self.share.numerator
        else:
            left, right = numerator, self.amount or 0
        return left >= right if floor else left <= right

    @property
    def recountable(self) -> bool:
        """How synthetic text was made is not a column of a mix, so rules about it cannot be counted again."""
        return self.of not in ("rephrase", "generated")


@dataclass(frozen=True)
class SourceAccount:
    """What became of the documents of one source, but for those in the mix, which are counted on disk."""

    documents_in: int
    dropped: Mapping[str, int]  # by reason, over_cap and not_selected included
    tags: Mapping[str, int] = field(default_factory=dict)  # documents read, by provenance
    bad_records: int = 0


@dataclass(frozen=True)
class MixClaims:
    """All that a manifest says and the shards cannot."""

    measure: Measure
    floors: Sequence[RuleClaim]
    caps: Sequence[RuleClaim]
    sources: Mapping[str, SourceAccount]
    plan: str
    config_digest: str
    input_digest: str
    seed: int
    as_of: str | None
    code_version: str
    parent: Mapping[str, str] | None = None  # what the mix that this one succeeds says, its manifest and its plan
    succession: Mapping[str, Any] | None = None  # what became of the parent's verified text
    tokens: Mapping[str, Any] = field(default_factory=lambda: {"counter": "words"})
    size: int | None = None
    epochs: Mapping[str, int] = field(default_factory=dict)  # most copies of a document, by provenance; default 1
    methods: Mapping[str, str] = field(default_factory=dict)  # custody method, by source
    custody: Sequence[Mapping[str, Any]] = ()  # {manifest, key, method, ...} of each custody manifest used
    exempt: Mapping[str, Sequence[str]] = field(default_factory=dict)  # groups that a rule let off, by rule name
    binding: Sequence[Mapping[str, Any]] = ()  # rules, by group, that the mix would be another without
    made: Made = field(default_factory=dict)  # how synthetic text was made, as planned
    contested: Mapping[str, int] = field(default_factory=lambda: {"documents": 0, "tokens": 0})  # verified, yet doubted
    survival: Mapping[str, Any] = field(default_factory=dict)  # what each step left, as `pipeline.survival` tells it
    duplicates: Mapping[str, Any] = field(default_factory=dict)  # what was removed for what, by provenance
    gates: Sequence[Mapping[str, Any]] = ()  # how each bound of `diversity.fail_if` stands
    reference: Mapping[str, Any] | None = None  # what was held out, by content
    baseline: Mapping[str, Any] = field(default_factory=dict)  # what differs from held-out human text, by scope
    notes: Sequence[str] = ()
    not_checked: Sequence[str] = ()


@dataclass(frozen=True)
class Standing:
    """How one group stands under a rule: `numerator` of `denominator`, in the measure."""

    group: str | None
    numerator: int
    denominator: int
    shard: str | None = None
    row_group: int | None = None

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "numerator": self.numerator,
            "denominator": self.denominator,
            "share": decimal(self.numerator, self.denominator),
        }
        optional = {"group": self.group, "shard": self.shard, "row_group": self.row_group}
        return told | {name: value for name, value in optional.items() if value is not None}


def decimal(numerator: int, denominator: int) -> str | None:
    """A share cut off, never rounded up, after six decimals: 0.499999... must not read as a half."""
    if denominator == 0:
        return None
    whole, rest = divmod(numerator * _DECIMALS // denominator, _DECIMALS)
    return f"{whole}.{rest:06d}"


def named_rules(floors: Iterable[RuleClaim], caps: Iterable[RuleClaim]) -> Iterator[tuple[str, RuleClaim, bool]]:
    """Every rule under the name that `achieved` and `exempt` have for it, and whether it is a floor.

    The first rule of something has its plain name; a cap beside a floor, and an amount beside a share, say so.
    """
    taken = set()
    for rules, floor in ((floors, True), (caps, False)):
        for rule in rules:
            kind = "share" if rule.amount is None else "amount"
            names = [rule.name, f"{rule.name} ({kind})"] if floor else [rule.name]
            names += [] if floor else [f"{rule.name} (cap)", f"{rule.name} (cap, {kind})"]
            name = next(name for name in names if name not in taken)
            taken.add(name)
            yield name, rule, floor


def group_columns(rules: Iterable[RuleClaim]) -> tuple[str, ...]:
    """Columns beyond source, provenance and generator that rules group by."""
    return tuple(sorted({rule.by for rule in rules if rule.by is not None and rule.by not in _IN_KEY}))


def human_floor(rules: Iterable[RuleClaim]) -> Fraction:
    """The share of verified text that every shard, row group and prefix has to hold."""
    shares = [rule.share for rule in rules if rule.of == "human_verified" and rule.by is None]
    return max((share for share in shares if share is not None), default=Fraction(0))


def evaluate(rule: RuleClaim, measures: Mapping[Key, int], columns: Sequence[str]) -> list[Standing]:
    """Each group's standing under `rule`, sorted by group; one group, None, where the rule has no `by`.

    `by: generator` compares each generator that wrote any such text with the whole mix, any other `by` with the
    group's own total. Documents without a value are a group too.
    """
    place = None if rule.by is None else (*_IN_KEY, *columns).index(rule.by)
    numerators: Counter[str | None] = Counter()
    denominators: Counter[str | None] = Counter()
    for key, measure in measures.items():
        group = None if place is None else NO_VALUE if key[place] is None else key[place]
        denominators[group] += measure
        if _counts(rule.of, key):
            numerators[group] += measure
    if rule.by == "generator":
        denominators = Counter(dict.fromkeys(numerators, denominators.total()))
    elif rule.by is None:
        denominators[None] += 0  # the mix stands under the rule even when it is empty
    groups = sorted(denominators, key=lambda group: group or "")
    return [Standing(group, numerators[group], denominators[group]) for group in groups]


def _counts(of: str, key: Key) -> bool:
    source, provenance, generator, *_ = key
    kind, _, name = of.partition(":")
    if kind == "source":
        return source == name
    if kind == "generator" and name:
        return generator == name
    if of == "human_any":
        return provenance in (Provenance.HUMAN_VERIFIED.label, Provenance.HUMAN.label)
    return provenance == of


def worst(rule: RuleClaim, standings: Iterable[Standing], *, floor: bool) -> Standing | None:
    """The standing nearest to, or furthest beyond, what the rule allows; the first of equals."""
    found: Standing | None = None
    for standing in standings:
        if standing.denominator == 0 and rule.share is not None:
            continue
        if found is None or _beyond(rule, standing, found, floor):
            found = standing
    return found


def _beyond(rule: RuleClaim, new: Standing, old: Standing, floor: bool) -> bool:
    left, right = new.numerator, old.numerator
    if rule.share is not None:
        left, right = left * old.denominator, right * new.denominator
    return left < right if floor else left > right


def _achieved(rule: RuleClaim, audits: Sequence[ShardAudit], columns: Sequence[str], floor: bool) -> dict[str, Any]:
    if not rule.recountable:
        return {"not_recounted": "the columns of a mix do not say how synthetic text was made"}
    overall = evaluate(rule, _measures(_added_totals(audits), audits), columns)
    shards = (standing for audit in audits for standing in _in_shard(rule, audit, columns))
    row_groups = (standing for audit in audits for standing in _in_row_groups(rule, audit, columns))
    parts = {"overall": overall, "worst_shard": shards, "worst_row_group": row_groups}
    told = {name: worst(rule, standings, floor=floor) for name, standings in parts.items()}
    return {name: standing.to_json() if standing else None for name, standing in told.items()}


def _in_shard(rule: RuleClaim, audit: ShardAudit, columns: Sequence[str]) -> Iterator[Standing]:
    for standing in evaluate(rule, _measures(audit.totals, [audit]), columns):
        yield Standing(standing.group, standing.numerator, standing.denominator, audit.shard)


def _in_row_groups(rule: RuleClaim, audit: ShardAudit, columns: Sequence[str]) -> Iterator[Standing]:
    for number, row_group in enumerate(audit.row_groups):
        for standing in evaluate(rule, row_group.measures, columns):
            yield Standing(standing.group, standing.numerator, standing.denominator, audit.shard, number)


def _added_totals(audits: Iterable[ShardAudit]) -> dict[Key, Totals]:
    added: dict[Key, Totals] = {}
    for audit in audits:
        for key, total in audit.totals.items():
            added[key] = total.plus(added[key]) if key in added else total
    return added


def _measures(totals: Mapping[Key, Totals], audits: Sequence[ShardAudit]) -> dict[Key, int]:
    return {key: total.measured(audits[0].measure) for key, total in totals.items()} if audits else {}


def mix_measures(audits: Sequence[ShardAudit]) -> dict[Key, int]:
    """The whole mix in the measure, by key."""
    return _measures(_added_totals(audits), audits)


def recounted(
    audits: Sequence[ShardAudit],
    floors: Sequence[RuleClaim],
    caps: Sequence[RuleClaim],
    methods: Mapping[str, str],
    custody: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The part of a manifest that follows from the shards, given the rules, methods and issuers of custody."""
    audits = sorted(audits, key=lambda audit: audit.shard)
    columns = group_columns([*floors, *caps])
    totals = _added_totals(audits)
    languages: Counter[str] = Counter()
    licenses: Counter[str] = Counter()
    for audit in audits:
        languages += audit.languages
        licenses += audit.licenses
    return {
        "achieved": {name: _achieved(rule, audits, columns, floor) for name, rule, floor in named_rules(floors, caps)},
        "languages": dict(languages),
        "licenses": dict(licenses),
        "logical_digest": logical_digest(audits),
        "provenance": {
            "by_provenance": _summed(totals, lambda key: key[1]),
            "by_method": _summed(totals, lambda key: _method(key, methods)),
            "by_issuer": by_issuer(audits, custody),
            "by_generator": _summed(totals, lambda key: key[2]),
        },
        "shards": [_shard(audit) for audit in audits],
        "worst_window": _worst_window(audits),
        "totals": _totals_json(sum_totals(totals.values()))
        | {"human_verified": sum(audit.human_verified for audit in audits), "shards": len(audits)},
    }


def _worst_window(audits: Sequence[ShardAudit]) -> dict[str, Any] | None:
    """The run of rows with the least verified text, in the order in which a shard is read."""
    found = worst_of({audit.shard: audit.worst_window for audit in audits})
    if found is None:
        return None
    shard, window = found
    standing = Standing(None, window.part, window.whole, shard)
    return {"first_row": window.first, "rows": window.rows, **standing.to_json()}


def _totals_json(total: Totals) -> dict[str, int]:
    return dict(zip(Totals._fields, total, strict=True))


def _summed(totals: Mapping[Key, Totals], name_of: Callable[[Key], str | None]) -> dict[str, dict[str, int]]:
    """Totals added up by what `name_of` says of their key; what it has no name for is left out."""
    parts: dict[str, list[Totals]] = defaultdict(list)
    for key, total in totals.items():
        name = name_of(key)
        if name is not None:
            parts[name].append(total)
    return {name: _totals_json(sum_totals(found)) for name, found in parts.items()}


def _method(key: Key, methods: Mapping[str, str]) -> str | None:
    return methods.get(str(key[0]), UNNAMED) if key[1] == Provenance.HUMAN_VERIFIED.label else None


def _shard(audit: ShardAudit) -> dict[str, Any]:
    return _totals_json(audit.total) | {
        "path": f"data/{audit.shard}",
        "sha256": audit.sha256,
        "file_bytes": audit.file_bytes,
        "human_verified": audit.human_verified,
        "row_groups": len(audit.row_groups),
        "rows_digest": audit.rows_digest,
    }


def documents_out(audits: Iterable[ShardAudit]) -> dict[str, int]:
    """Distinct documents in the mix, by source."""
    counted: Counter[str] = Counter()
    for audit in audits:
        for key, total in audit.totals.items():
            counted[str(key[0])] += total.documents
    return dict(counted)


def build_manifest(claims: MixClaims, audits: Sequence[ShardAudit]) -> dict[str, Any]:
    """The manifest of a written mix; raises `not_conserved` if documents of a source are unaccounted for."""
    out = documents_out(audits)
    stray = sorted(out.keys() - claims.sources.keys())
    if stray:
        raise AnchormixError(
            "not_conserved",
            f"the mix holds documents of {', '.join(map(repr, stray))}, which no account covers; "
            f"accounts were given for {', '.join(map(repr, sorted(claims.sources)))}",
            sources=stray,
        )
    _check_survival(claims.survival, out)
    return recounted(audits, claims.floors, claims.caps, claims.methods, claims.custody) | {
        "version": VERSION,
        "summary": _summary(claims, audits),
        "measure": claims.measure,
        "floors": [rule.to_json() for rule in claims.floors],
        "caps": [rule.to_json() for rule in claims.caps],
        "size": claims.size,
        "epochs": dict(claims.epochs),
        "exempt": {rule: list(groups) for rule, groups in claims.exempt.items()},
        "binding": [dict(rule) for rule in claims.binding],
        "contested": dict(claims.contested),
        "survival": dict(claims.survival),
        "duplicates": dict(claims.duplicates),
        "baseline": dict(claims.baseline),
        "gates": [dict(gate) for gate in claims.gates],
        "reference": None if claims.reference is None else dict(claims.reference),
        "tokens": dict(claims.tokens),
        "sources": {name: _source(name, account, out.get(name, 0)) for name, account in claims.sources.items()},
        "methods": dict(claims.methods),
        "custody": [dict(used) for used in claims.custody],
        "plan": claims.plan,
        "config_digest": claims.config_digest,
        "input_digest": claims.input_digest,
        "seed": claims.seed,
        "as_of": claims.as_of,
        "parent": None if claims.parent is None else dict(claims.parent),
        "succession": None if claims.succession is None else dict(claims.succession),
        "code_version": claims.code_version,
        "notes": list(claims.notes),
        "not_checked": list(claims.not_checked),
    }


def _summary(claims: MixClaims, audits: Sequence[ShardAudit]) -> list[dict[str, Any]]:
    try:
        return summarise(audits, claims.methods, claims.custody, claims.made)
    except ValueError as error:
        raise AnchormixError(
            "not_conserved", f"{error}. This is a fault of anchormix, not of your data: please report it."
        ) from None


def _check_survival(survival: Mapping[str, Any], out: Mapping[str, int]) -> None:
    for name, steps in survival.get("by_source", {}).items():
        planned = steps["in_mix"]["documents"]
        if planned != out.get(name, 0):
            raise AnchormixError(
                "not_conserved",
                f"source {name!r}: {planned} documents were to survive, and {out.get(name, 0)} are in the mix. "
                "This is a fault of anchormix, not of your data: please report it.",
                source=name,
                planned=planned,
                documents_out=out.get(name, 0),
            )


def _source(name: str, account: SourceAccount, out: int) -> dict[str, Any]:
    dropped = {reason: count for reason, count in account.dropped.items() if count}
    accounted = out + sum(dropped.values())
    if account.documents_in != accounted or any(count < 0 for count in dropped.values()):
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "none"
        raise AnchormixError(
            "not_conserved",
            f"source {name!r}: {account.documents_in} documents went in, but {out} in the mix and "
            f"{sum(dropped.values())} dropped ({told}) make {accounted}. "
            "This is a fault of anchormix, not of your data: please report it.",
            source=name,
            documents_in=account.documents_in,
            documents_out=out,
            dropped=dropped,
        )
    return {
        "documents_in": account.documents_in,
        "documents_out": out,
        "dropped": dropped,
        "tags": {tag: count for tag, count in account.tags.items() if count},
        "bad_records": account.bad_records,
    }


def dump_manifest(manifest: Mapping[str, Any]) -> bytes:
    """Equal manifests are equal bytes."""
    return (json.dumps(manifest, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def input_digest(inputs: pa.Table) -> str:
    """What was read, from the rows of inputs.parquet in their order: every shard by source, name and bytes."""
    columns = (inputs[name].to_pylist() for name in ("source", "shard", "sha256"))
    return fingerprint(*(f"{source}\0{shard}\0{sha256 or ''}" for source, shard, sha256 in zip(*columns, strict=True)))


_PREDICATE = (
    *("logical_digest", "measure", "tokens", "floors", "caps", "totals"),
    *("plan", "config_digest", "input_digest", "parent"),
)
"""What a reader of the statement alone learns; all else is in the manifest, which is one of its subjects."""


def statement(manifest: bytes) -> bytes:
    """The in-toto Statement that a signature covers: its subjects are the manifest and every shard."""
    claims = json.loads(manifest)
    subjects = [{"name": MANIFEST, "digest": {"sha256": hashlib.sha256(manifest).hexdigest()}}]
    subjects += [{"name": shard["path"], "digest": {"sha256": shard["sha256"]}} for shard in claims["shards"]]
    told = {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": {name: claims[name] for name in _PREDICATE},
    }
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sign_manifest(manifest: bytes, key: Path) -> dict[str, Any]:
    """The DSSE envelope over `manifest` and its shards, signed with the private key at `key`."""
    return sign_envelope(statement(manifest), key)


def write_manifest(out: Path, manifest: Mapping[str, Any], key: Path | None = None) -> bytes:
    """Write manifest.json and, with a private key, manifest.dsse.json; returns the bytes of the former."""
    content = dump_manifest(manifest)
    (out / MANIFEST).write_bytes(content)
    if key is not None:
        envelope = json.dumps(sign_manifest(content, key), sort_keys=True, indent=2) + "\n"
        (out / SIGNED_MANIFEST).write_bytes(envelope.encode())
    return content
