"""The level `consistent`: the files of a mix, recounted, agree with each other and with every claim about them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.attest import parse_json
from pipeline.manifest import (
    MANIFEST,
    RuleClaim,
    Standing,
    documents_out,
    evaluate,
    group_columns,
    human_floor,
    input_digest,
    mix_measures,
    named_rules,
    recounted,
)
from pipeline.origins import made_as, summarise
from pipeline.survival import IN_MIX, LOST_AT, STEPS
from transforms.kernels.audit import CONSISTENT, Finding, Measure, ShardAudit, sum_totals
from transforms.kernels.strata import distinct_rows

__all__ = ["COUNTED_ONLY", "Claimed", "check_inputs", "check_mix", "differences", "read_claims", "read_inputs"]

COUNTED_ONLY = frozenset({"over_cap", "not_selected"})
"""Reasons that rules give: counts in the manifest, no rows in fates."""
_PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError)


@dataclass(frozen=True)
class Claimed:
    """The manifest as written, with the parts that checks rest on already parsed."""

    content: bytes
    fields: Mapping[str, Any]
    measure: Measure
    floors: tuple[RuleClaim, ...]
    caps: tuple[RuleClaim, ...]
    methods: Mapping[str, str]
    shards: Mapping[str, Mapping[str, Any]]  # by path
    sources: Mapping[str, Mapping[str, Any]]
    size: int | None
    epochs: Mapping[str, int]
    exempt: Mapping[str, Sequence[str]]
    tokens: Mapping[str, Any]

    @classmethod
    def parse(cls, content: bytes) -> Claimed:
        """Raises ValueError where the manifest is not one; a tampered file can hold anything."""
        try:
            fields = parse_json(content)
            if fields["measure"] not in ("tokens", "bytes", "documents"):
                raise ValueError(f"measure is {fields['measure']!r}")
            return cls(
                content=content,
                fields=fields,
                measure=fields["measure"],
                floors=tuple(map(RuleClaim.from_json, fields["floors"])),
                caps=tuple(map(RuleClaim.from_json, fields["caps"])),
                methods={str(source): str(method) for source, method in fields["methods"].items()},
                shards={str(shard["path"]): dict(shard) for shard in fields["shards"]},
                sources={str(name): _account(source) for name, source in fields["sources"].items()},
                size=None if fields["size"] is None else int(fields["size"]),
                epochs={str(provenance): int(most) for provenance, most in fields["epochs"].items()},
                exempt={str(rule): list(groups) for rule, groups in fields["exempt"].items()},
                tokens=dict(fields["tokens"]),
            )
        except (ArithmeticError, AttributeError, KeyError, StopIteration, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error

    @cached_property
    def custody(self) -> tuple[Mapping[str, Any], ...]:
        """What is said of each custody manifest in use."""
        told = self.fields.get("custody")
        return tuple(used for used in told if isinstance(used, Mapping)) if isinstance(told, list) else ()

    @property
    def counter(self) -> str:
        """What counted tokens: `words`, `column`, or the `file` of a tokenizer."""
        return str(self.tokens.get("counter") or next(iter(self.tokens), "nothing that it names"))

    @property
    def tokenizer(self) -> str | None:
        """sha256 of the tokenizer that counted them, where one did."""
        return str(self.tokens.get("sha256")) if "file" in self.tokens else None

    @property
    def counted_by(self) -> str:
        """The same for people."""
        return f"the tokenizer {self.tokens['file']} with sha256 {self.tokenizer}" if self.tokenizer else self.counter

    @cached_property
    def as_of(self) -> date | None:
        """The day at which validity is judged; a word that is no day judges nothing valid."""
        try:
            return date.fromisoformat(self.fields["as_of"])
        except (KeyError, TypeError, ValueError):
            return None

    @cached_property
    def group_by(self) -> tuple[str, ...]:
        return group_columns([*self.floors, *self.caps])


def _account(source: Mapping[str, Any]) -> Mapping[str, Any]:
    dropped = {str(reason): int(count) for reason, count in source["dropped"].items()}
    return {"documents_in": int(source["documents_in"]), "dropped": dropped}


def read_claims(out: Path) -> Claimed | Finding:
    """The manifest at `out`, or what is wrong with it."""
    try:
        return Claimed.parse((out / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        return _finding("bad_manifest", f"{MANIFEST} as a mix is published with", error)


def read_inputs(out: Path) -> pa.Table | Finding:
    try:
        table = pq.ParquetFile(out / "inputs.parquet").read(use_threads=False)
        return table.select(["source", "shard", "sha256", "documents", "custody_verdict", "custody_manifest"])
    except _PARQUET_ERRORS as error:
        return _finding("bad_inputs", "inputs.parquet with one row per input shard", error)


def check_mix(
    claimed: Claimed, audits: Sequence[ShardAudit], asked: Sequence[RuleClaim], expect: str | None
) -> Iterator[Finding]:
    """Everything about the rows: the claims that follow from them, and the rules over the whole mix."""
    again = recounted(audits, claimed.floors, claimed.caps, claimed.methods, claimed.custody)
    if "by_issuer" not in (claimed.fields.get("provenance") or {}):
        del again["provenance"]["by_issuer"]  # what is not claimed needs no proof
    for name, value in again.items():
        yield from differences(name, value, claimed.fields.get(name))
    if expect is not None and expect != again["logical_digest"]:
        yield _finding("unexpected_digest", f"the logical digest {expect}, as asked", again["logical_digest"])
    yield from _check_summary(claimed, audits)
    yield from _check_copies(audits)
    yield from _check_epochs(claimed, audits)
    yield from _check_rules(claimed, audits, asked)
    yield from _check_certificates(claimed, audits)


def _check_summary(claimed: Claimed, audits: Sequence[ShardAudit]) -> Iterator[Finding]:
    """Everything in it is counted again, but how synthetic text was made: of that only the sums are."""
    summary = claimed.fields.get("summary")
    if summary is None:
        return
    try:
        again = summarise(audits, claimed.methods, claimed.custody, made_as(summary))
    except (TypeError, ValueError) as error:
        yield _finding("manifest_disagrees", "a summary that adds up to what the shards hold", error)
    else:
        yield from differences("summary", again, summary)


def differences(path: str, counted: Any, claimed: Any) -> Iterator[Finding]:
    """Where the manifest says something else than the recount, leaf by leaf."""
    if isinstance(counted, dict) and isinstance(claimed, dict):
        for name in sorted(counted.keys() | claimed.keys()):
            yield from differences(f"{path}.{name}", counted.get(name), claimed.get(name))
    elif isinstance(counted, list) and isinstance(claimed, list) and len(counted) == len(claimed):
        for place, (ours, theirs) in enumerate(zip(counted, claimed, strict=True)):
            yield from differences(f"{path}[{place}]", ours, theirs)
    elif counted != claimed or isinstance(counted, bool) != isinstance(claimed, bool):
        yield _finding("manifest_disagrees", f"{path} = {_short(counted)}, as counted", f"{path} = {_short(claimed)}")


def _short(value: Any) -> str:
    told = json.dumps(value, ensure_ascii=False, default=str)
    return told if len(told) <= 120 else told[:117] + "..."


def _check_copies(audits: Sequence[ShardAudit]) -> Iterator[Finding]:
    """Copies of a document are numbered 0 to k-1 over the whole mix, each once.

    Ids are as good as random, so ranges of them hold about as many each, and one range at a time is sorted.
    """
    ranges = 1 + sum(len(audit.ids) for audit in audits) // _MOST_SORTED
    for number in range(ranges):
        least, most = (np.uint64(bound) for bound in (number * 2**64 // ranges, (number + 1) * 2**64 // ranges - 1))
        some = [(least <= audit.ids[:, 0]) & (audit.ids[:, 0] <= most) for audit in audits]
        ids = [audit.ids[chosen] for audit, chosen in zip(audits, some, strict=True)]
        copies = [audit.copies[chosen] for audit, chosen in zip(audits, some, strict=True)]
        if ids:
            yield from _check_numbers(np.concatenate(ids), np.concatenate(copies).astype(np.int64))


_MOST_SORTED = 1 << 25  # ids: some 3 GB


def _check_numbers(ids: npt.NDArray[np.uint64], copies: npt.NDArray[np.int64]) -> Iterator[Finding]:
    order = np.lexsort((copies, ids[:, 1], ids[:, 0]))
    ids, copies = ids[order], copies[order]
    same = np.r_[False, (ids[1:] == ids[:-1]).all(axis=1)] if len(ids) else np.empty(0, np.bool_)
    expected = np.where(same, np.r_[0, copies[:-1] + 1] if len(copies) else copies, 0)
    for at in np.flatnonzero(copies != expected).tolist():
        name = f"{int(ids[at, 0]):016x}{int(ids[at, 1]):016x}"
        repeated = same[at] and copies[at] == copies[at - 1]
        what = "repeated_copy" if repeated else "missing_copy"
        yield _finding(what, f"copy {expected[at]} of document {name} next, each copy once", f"copy {copies[at]}")


def _check_epochs(claimed: Claimed, audits: Sequence[ShardAudit]) -> Iterator[Finding]:
    for audit in audits:
        for provenance, most in sorted(audit.most_copies.items()):
            allowed = claimed.epochs.get(provenance, 1)
            if most > allowed:
                yield _finding("too_many_copies", f"{provenance} at most {allowed} times", f"{most} times", audit.shard)


def _check_rules(claimed: Claimed, audits: Sequence[ShardAudit], asked: Sequence[RuleClaim]) -> Iterator[Finding]:
    measures = mix_measures(audits)
    held = list(named_rules(claimed.floors, claimed.caps))
    for name, rule, floor in (*held, *(("", rule, True) for rule in asked)):
        let_off = claimed.exempt.get(name, ())
        if let_off and rule.otherwise != "exempt":
            yield _finding("exempt_unasked", f"{name}: otherwise is {rule.otherwise}, so no group is let off", let_off)
        for standing in evaluate(rule, measures, claimed.group_by) if rule.recountable else ():
            excused = standing.group in let_off
            if not excused and not rule.holds(standing.numerator, standing.denominator, floor=floor):
                yield _broken(rule, standing, floor)
    total = sum_totals(total for audit in audits for total in audit.totals.values()).measured(claimed.measure)
    if claimed.size is not None and total > claimed.size:
        yield _finding("size_exceeded", f"at most {claimed.size} {claimed.measure}", total)


def _broken(rule: RuleClaim, standing: Standing, floor: bool) -> Finding:
    asked = rule.share if rule.share is not None else rule.amount
    group = f" ({rule.by} {standing.group})" if rule.by else ""
    what, bound = ("floor_broken", "at least") if floor else ("cap_broken", "at most")
    return _finding(what, f"{bound} {asked} of {rule.of}{group}", f"{standing.numerator}/{standing.denominator}")


def _check_certificates(claimed: Claimed, audits: Sequence[ShardAudit]) -> Iterator[Finding]:
    floor = human_floor(claimed.floors)
    wanted = {
        "version": 1,
        "plan": claimed.fields.get("plan"),
        "config_digest": claimed.fields.get("config_digest"),
        "floor": [floor.numerator, floor.denominator],
    }
    for audit in audits:
        for name, value in wanted.items() if audit.certificate is not None else ():
            found = (audit.certificate or {}).get(name)
            if found != value:
                what = "certificate_disagrees"
                yield _finding(what, f"{name} = {value!r}, as in the manifest", f"{name} = {found!r}", audit.shard)


def check_inputs(out: Path, claimed: Claimed, audits: Sequence[ShardAudit], inputs: pa.Table) -> Iterator[Finding]:
    """Documents in = out + dropped for every source, against inputs.parquet, fates/ and the recount."""
    read: Counter[str] = Counter()
    for source, documents in zip(inputs["source"].to_pylist(), inputs["documents"].to_pylist(), strict=True):
        read[source] += documents
    counted = documents_out(audits)
    fates, problems = _count_fates(out)
    yield from problems
    for name in sorted({*claimed.sources, *read, *counted, *(source for source, _ in fates)}):
        account = claimed.sources.get(name, {"documents_in": 0, "dropped": {}})
        dropped: Mapping[str, int] = account["dropped"]
        gone = sum(dropped.values())
        conserved = {
            "documents_in": (read[name], account["documents_in"]),
            "documents_out": (account["documents_in"] - gone, counted.get(name, 0)),
        }
        reasons = {reason for source, reason in fates if source == name} | set(dropped) - COUNTED_ONLY
        conserved |= {f"dropped.{r}": (dropped.get(r, 0), fates[name, r]) for r in sorted(reasons)}
        for what, (expected, found) in conserved.items():
            if expected != found:
                yield _finding("not_conserved", f"sources.{name}.{what} = {expected}", found)
    for name, account in claimed.fields["sources"].items():
        if account.get("documents_out") != counted.get(name, 0):
            expected_out = f"sources.{name}.documents_out = {counted.get(name, 0)}, as counted"
            yield _finding("manifest_disagrees", expected_out, account.get("documents_out"))
    yield from _check_survival(claimed, audits)
    digest = input_digest(inputs)
    if claimed.fields.get("input_digest") != digest:
        found = claimed.fields.get("input_digest")
        yield _finding("manifest_disagrees", f"input_digest = {digest}, from inputs.parquet", f"input_digest = {found}")


def _check_survival(claimed: Claimed, audits: Sequence[ShardAudit]) -> Iterator[Finding]:
    """Documents left by every step, against the accounts and the recount; who claims nothing has nothing to prove."""
    survival = claimed.fields.get("survival")
    if not survival:
        return
    in_mix: dict[str, Counter[str]] = {"by_source": Counter(), "by_provenance": Counter()}
    for audit in audits:
        for (source, provenance, *_), total in audit.totals.items():
            in_mix["by_source"][str(source)] += total.documents
            in_mix["by_provenance"][str(provenance)] += total.documents
    expected: Counter[tuple[str, ...]] = Counter()
    for group, counts in in_mix.items():
        expected.update({(group, name, IN_MIX): documents for name, documents in counts.items()})
    expected["all", IN_MIX] = in_mix["by_source"].total()
    for name, account in claimed.sources.items():
        expected["by_source", name, IN_MIX] += 0
        left = account["documents_in"]
        for step in STEPS[:-1]:
            left -= sum(account["dropped"].get(fate.label, 0) for fate in LOST_AT.get(step, ()))
            expected["by_source", name, step] = left
            expected["all", step] += left
    for path, documents in expected.items():
        found = _claimed_at(survival, [*path, "documents"])
        if found != documents:
            yield _finding(
                "manifest_disagrees", f"survival.{'.'.join(path)}.documents = {documents}, as counted", found
            )


def _claimed_at(claim: Any, names: Sequence[str]) -> Any:
    for name in names:
        claim = claim.get(name) if isinstance(claim, Mapping) else None
    return claim


def _count_fates(out: Path) -> tuple[Counter[tuple[str, str]], list[Finding]]:
    counts: Counter[tuple[str, str]] = Counter()
    problems = []
    for path in sorted((out / "fates").glob("*.parquet")):
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["source", "fate"], use_threads=False):
                    codes, pairs = distinct_rows([batch["source"], batch["fate"]])
                    counts.update(dict(zip(pairs, np.bincount(codes).tolist(), strict=True)))
        except _PARQUET_ERRORS as error:
            problems.append(_finding("bad_fates", f"{path.name} with the fate of each dropped document", error))
    return counts, problems


def _finding(what: str, expected: object, found: object, shard: str | None = None) -> Finding:
    return Finding(CONSISTENT, what, str(expected), " ".join(str(found).split()), shard)
