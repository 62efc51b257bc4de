"""Verify a mix from its folder alone: no log, no index and no claim is believed.

Four levels, each reached or not on its own:

    consistent  the shards, recounted row by row, agree with the manifest, the rules and the accounts of dropped rows
    signed      the manifest and exactly these shards are signed by the key at hand
    custody     every human_verified row is a leaf of a manifest signed by a trusted key
    reproduced  the inputs, read again, still hold the text of every row

What no level can see is named in `not_checked`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.attest import PAYLOAD_TYPE, key_id, load_public_key, parse_envelope
from pipeline.config_kinds import nearest
from pipeline.config_rules import GROUPS, PREFIXES, PROVENANCES
from pipeline.errors import UsageError, VerificationFailed
from pipeline.manifest import MANIFEST, SIGNED_MANIFEST, RuleClaim, human_floor, statement
from pipeline.origins import custody_manifests
from pipeline.verify_consistent import Claimed, check_inputs, check_mix, read_claims, read_inputs
from pipeline.verify_origins import CUSTODY, REPRODUCED, CustodyCheck, Origins, ReadTexts, check_reproduced, read_trust
from transforms.kernels.audit import (
    CONSISTENT,
    AuditedRows,
    Finding,
    Findings,
    Manifests,
    Measure,
    ShardAudit,
    Visitor,
    audit_shard,
    logical_digest,
    sum_totals,
)
from transforms.kernels.text import count_words
from transforms.kernels.tokens import CountTokens, TokenizerFile, token_counter

if TYPE_CHECKING:
    from pipeline.heldout import HeldOutCheck

__all__ = ["LEVELS", "Level", "Verification", "audit_mix", "verify_mix"]

SIGNED = "signed"
LEVELS = (CONSISTENT, SIGNED, CUSTODY, REPRODUCED)
_SUCCESS = "_SUCCESS"
_OPTION = {SIGNED: "--key", CUSTODY: "--trust", REPRODUCED: "--inputs"}
_UNASKED = {
    SIGNED: "signed: no --key given, so whoever can write the folder could have written all of it",
    CUSTODY: "custody: no --trust given, so human_verified tags are taken as written",
    REPRODUCED: "reproduced: no --inputs given, so the inputs were not read again",
}

_FILES_AS_WRITTEN = (
    "fates/: id, doc_id, reason, partner and similarity are taken as written, because the text of dropped documents is "
    "not in the mix; only their number by source and fate is counted",
    "inputs.parquet: bytes, rows and bad_records are taken as written, and sha256 is not compared with the input files",
    "diversity.parquet, baseline.json, README.md, croissant.json, report.html, config.yaml, run.json: not read, "
    "and not signed",
)

_Read = TypeVar("_Read")
Status = Literal["reached", "failed", "not checked"]


@dataclass(frozen=True)
class Level:
    status: Status
    reason: str


@dataclass
class Verification:
    """What was found, level by level."""

    out: Path
    levels: dict[str, Level]
    findings: list[Finding]  # the first few of each kind
    counts: dict[tuple[str, str], int]  # of all, by level and kind
    logical_digest: str
    totals: dict[str, int]
    not_checked: list[str]
    tokens_from: str | None = None  # who counted them, where they were not recounted

    @property
    def passed(self) -> bool:
        return all(level.status != "failed" for level in self.levels.values())

    def error(self) -> VerificationFailed | None:
        """The diagnosis to raise when a level that had to be reached was not."""
        failed = [name for name, level in self.levels.items() if level.status == "failed"]
        if not failed:
            return None
        shown = [str(finding) for finding in self.findings[:5]]
        more = sum(self.counts.values()) - len(shown)
        rest = f"; and {more} more" if more > 0 else ""
        return VerificationFailed(
            "not_verified",
            f"{self.out} is not {' and not '.join(failed)}: {'; '.join(shown)}{rest}. "
            "Do not train on it; publish the mix again, or fetch an intact copy.",
            **self.to_json(),
        )

    def to_json(self) -> dict[str, Any]:
        counts = {f"{level}.{what}": count for (level, what), count in sorted(self.counts.items())}
        return {
            "levels": {name: asdict(level) for name, level in self.levels.items()},
            "finding_counts": counts,
            "findings": [asdict(finding) for finding in self.findings],
            "logical_digest": self.logical_digest,
            "totals": self.totals,
            "not_checked": self.not_checked,
        }


def verify_mix(
    out: Path,
    *,
    floors: Sequence[tuple[str, Fraction]] = (),
    key: Path | None = None,
    trust: Path | None = None,
    expect: str | None = None,
    inputs: ReadTexts | None = None,
    held_out: HeldOutCheck | None = None,
    tokenizer: TokenizerFile | None = None,
    workers: int | None = None,
    audits: Sequence[ShardAudit] | None = None,
    custody_audited: bool = False,
    staged: bool = False,
) -> Verification:
    """Verify the mix at `out`. Raises UsageError where there is none, or where an option cannot be used.

    `floors` are shares to hold beside the mix's own; human_verified holds in every shard, row group and prefix,
    anything else in the whole mix. `inputs` reads input texts again, and `held_out` looks for what the same
    config holds out. `tokenizer` is the one that the manifest names by
    its digest, with which tokens are counted again. `staged` is a mix that has no _SUCCESS yet.
    `audits` are what `audit_mix` found in this folder a moment ago, so that the driver reads it once, with a
    `CustodyCheck` among their visitors if `custody_audited`, and `held_out` if that is given; other levels, and floors
    asked for, need the rows themselves.
    """
    _require_mix(out)
    findings = Findings()
    asked = [_asked(of, share) for of, share in floors]
    public_key = None if key is None else load_public_key(key)
    claimed, table = _sorted_out(read_claims(out), findings), _sorted_out(read_inputs(out), findings)
    _require_sources(asked, claimed, table)
    _require_tokenizer(claimed, tokenizer)
    if not staged and not (out / _SUCCESS).exists():
        findings.add(Finding(CONSISTENT, "not_published", "_SUCCESS, which is written last", "no such file"))

    visitors: list[Visitor] = []
    if trust is not None:
        trusted = read_trust(trust, claimed.as_of if claimed else None)
        if table is not None and claimed is not None:
            visitors.append(CustodyCheck(out, trusted, table, claimed.methods, claimed.custody).check)
    origins = Origins() if inputs is not None else None
    if origins is not None:
        visitors.append(origins.collect)
    if held_out is not None and audits is None:
        visitors.append(held_out.check)

    count_tokens = _counter(claimed, tokenizer)
    if audits is None or visitors or asked:
        audits = audit_mix(
            out,
            claimed.measure if claimed else "tokens",
            human_floor([*(claimed.floors if claimed else ()), *asked]),
            workers,
            group_by=claimed.group_by if claimed else (),
            count_tokens=count_tokens,
            manifests=None if table is None else custody_manifests(table),
            visitors=visitors,
        )
    for audit in audits:
        findings.merge(audit.findings)
    _add(findings, _check_files(out, claimed, audits))
    if claimed is not None:
        _add(findings, check_mix(claimed, audits, asked, expect))
        if table is not None:
            _add(findings, check_inputs(out, claimed, audits, table))
        if public_key is not None:
            _add(findings, _check_signature(out, claimed, audits, public_key))
    if origins is not None and inputs is not None:
        _add(findings, check_reproduced(origins, inputs))
    if held_out is not None:
        held_out.add_to(findings, REPRODUCED)

    given = {
        CONSISTENT: True,
        SIGNED: key is not None,
        CUSTODY: trust is not None or custody_audited,
        REPRODUCED: inputs is not None,
    }
    usable = {SIGNED: claimed is not None, CUSTODY: claimed is not None and table is not None}
    levels = {name: _level(name, given[name], usable.get(name, True), findings) for name in LEVELS}
    if custody_audited and levels[CUSTODY].status == "reached":
        levels[CUSTODY] = Level("reached", "under the keys of the config")
    return Verification(
        out=out,
        levels=levels,
        findings=findings.kept,
        counts=dict(findings.counts),
        logical_digest=logical_digest(audits),
        totals=_totals(audits),
        not_checked=[*_not_checked(claimed, levels, asked, count_tokens is not None), *_held_out(claimed, held_out)],
        tokens_from=claimed.counted_by if claimed is not None and count_tokens is None else None,
    )


def _require_mix(out: Path) -> None:
    if not out.is_dir():
        raise UsageError("no_mix", f"{out}: no such folder; name the output folder of a mix", path=str(out))
    if not any((out / name).exists() for name in (MANIFEST, _SUCCESS, "data")):
        raise UsageError(
            "no_mix",
            f"{out} is not a mix: it has neither {MANIFEST} nor data/. Name the folder that `anchormix run` wrote.",
            path=str(out),
        )


def _asked(of: str, share: Fraction) -> RuleClaim:
    rule = RuleClaim(of, share)
    named = any(of.startswith(prefix) and of.removeprefix(prefix).strip() for prefix in PREFIXES)
    if not named and of not in PROVENANCES and of not in GROUPS:
        raise _unknown_floor(of, (*PROVENANCES, "human_any", *(f"{prefix}NAME" for prefix in PREFIXES)))
    if not rule.recountable:
        raise UsageError(
            "bad_floor",
            f"--floor {of}: how synthetic text was made is not a column of a mix, so it cannot be recounted; "
            "valid are a provenance, human_any, source:NAME and generator:NAME",
            of=of,
        )
    return rule


def _require_sources(asked: Sequence[RuleClaim], claimed: Claimed | None, table: pa.Table | None) -> None:
    """A floor on a source that the mix was never made from is a slip of the pen, not a broken floor."""
    if claimed is None or table is None:
        return
    known = {f"source:{name}" for name in (*claimed.sources, *table["source"].to_pylist())}
    for rule in asked:
        if rule.of.startswith("source:") and rule.of not in known:
            raise _unknown_floor(rule.of, sorted(known))


def _require_tokenizer(claimed: Claimed | None, tokenizer: TokenizerFile | None) -> None:
    if claimed is None or tokenizer is None or tokenizer.digest == claimed.tokenizer:
        return
    advice = f"name the file with sha256 {claimed.tokenizer}" if claimed.tokenizer else "leave the option out"
    raise UsageError(
        "other_tokenizer",
        f"--tokenizer {tokenizer.name}: its sha256 is {tokenizer.digest}, but the tokens of this mix were counted by "
        f"{claimed.counted_by}; {advice}",
        sha256=tokenizer.digest,
        expected=claimed.tokenizer,
    )


def _counter(claimed: Claimed | None, tokenizer: TokenizerFile | None) -> CountTokens | None:
    if claimed is None or claimed.counter == "words":
        return count_words
    return None if tokenizer is None else token_counter(tokenizer)


def _unknown_floor(of: str, valid: Sequence[str]) -> UsageError:
    near = nearest(of, valid)
    hint = f"did you mean {near!r}? " if near else ""
    return UsageError(
        "bad_floor",
        f"--floor {of}: nothing in a mix is counted under that name; {hint}valid are {', '.join(valid)}",
        of=of,
        nearest=near,
        valid=list(valid),
    )


def _sorted_out(read: _Read | Finding, findings: Findings) -> _Read | None:
    if isinstance(read, Finding):
        findings.add(read)
        return None
    return read


def _add(findings: Findings, found: Iterable[Finding]) -> None:
    for finding in found:
        findings.add(finding)


def audit_mix(
    out: Path,
    measure: Measure,
    floor: Fraction,
    workers: int | None = None,
    *,
    group_by: tuple[str, ...] = (),
    count_tokens: CountTokens | None = count_words,
    manifests: Manifests | None = None,
    visitors: Sequence[Visitor] = (),
) -> list[ShardAudit]:
    """Recount every shard that lies in data/, claimed or not. Kernels release the GIL, so threads are enough."""

    def visit(rows: AuditedRows) -> Iterable[Finding]:
        return [finding for visitor in visitors for finding in visitor(rows)]

    def audit(path: Path) -> ShardAudit:
        return audit_shard(
            path,
            measure,
            floor,
            count_tokens,
            group_by=group_by,
            manifests=manifests,
            visit=visit if visitors else None,
        )

    paths = sorted(path for path in (out / "data").glob("*.parquet") if path.is_file())
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return list(pool.map(audit, paths))


def _check_files(out: Path, claimed: Claimed | None, audits: Sequence[ShardAudit]) -> list[Finding]:
    """The manifest names exactly the files of data/: a reader takes whatever lies there."""
    if claimed is None:
        return []
    lying = {str(path.relative_to(out)) for path in (out / "data").rglob("*") if path.is_file()}
    found = [
        Finding(CONSISTENT, "unlisted_file", f"only files that {MANIFEST} lists", path)
        for path in sorted(lying - claimed.shards.keys())
    ]
    found += [
        Finding(CONSISTENT, "missing_shard", path, "no such file") for path in sorted(claimed.shards.keys() - lying)
    ]
    for audit in audits:
        listed = claimed.shards.get(f"data/{audit.shard}", {}).get("sha256", audit.sha256)
        if listed != audit.sha256:
            found.append(Finding(CONSISTENT, "other_bytes", f"sha256 {listed}", audit.sha256, audit.shard))
    return found


def _check_signature(
    out: Path, claimed: Claimed, audits: Sequence[ShardAudit], public_key: Ed25519PublicKey
) -> list[Finding]:
    """The signed statement is the one that the manifest here makes, and its subjects are the bytes that lie here."""
    try:
        if not (out / SIGNED_MANIFEST).exists():
            return [
                Finding(SIGNED, "not_signed", f"{SIGNED_MANIFEST}, a signed statement", "no such file: it is unsigned")
            ]
        envelope = parse_envelope((out / SIGNED_MANIFEST).read_bytes())
        signed = json.loads(envelope.payload)
        subjects = {subject["name"]: subject["digest"]["sha256"] for subject in signed["subject"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Finding(SIGNED, "bad_signature", f"{SIGNED_MANIFEST}, a signed statement", str(error))]
    if envelope.payload_type != PAYLOAD_TYPE or not envelope.signed_by(public_key):
        expected = f"a signature of the key given, {key_id(public_key)}"
        signers = ", ".join(name for name, _ in envelope.signatures)
        return [Finding(SIGNED, "bad_signature", expected, f"none that it verifies (they name {signers})")]
    here = {MANIFEST: hashlib.sha256(claimed.content).hexdigest()}
    here |= {f"data/{audit.shard}": audit.sha256 for audit in audits}
    found = [
        Finding(SIGNED, "other_subject", f"{name} with sha256 {subjects.get(name)}, as signed", str(here.get(name)))
        for name in sorted(subjects.keys() | here.keys())
        if subjects.get(name) != here.get(name)
    ]
    if not found and envelope.payload != statement(claimed.content):
        found.append(Finding(SIGNED, "other_statement", f"the statement that {MANIFEST} makes", "another one"))
    return found


def _level(name: str, asked: bool, usable: bool, findings: Findings) -> Level:
    if not asked:
        return Level("not checked", f"no {_OPTION[name]} given")
    count = findings.total(name)
    if count:
        return Level("failed", f"{count} finding{'s' if count > 1 else ''}")
    if not usable:
        return Level("failed", "what it rests on cannot be read")
    return Level("reached", "")


def _totals(audits: Sequence[ShardAudit]) -> dict[str, int]:
    total = sum_totals(total for audit in audits for total in audit.totals.values())
    human = sum(audit.human_verified for audit in audits)
    return {"shards": len(audits), **total._asdict(), "human_verified": human}


def _held_out(claimed: Claimed | None, held_out: HeldOutCheck | None) -> Iterator[str]:
    if held_out is not None:
        yield from [held_out.unlooked] if held_out.unlooked else []
    elif claimed is not None and claimed.fields.get("reference"):
        yield "held-out text: no --inputs that names it (diversity.reference), so it was not looked for in the mix"


def _not_checked(
    claimed: Claimed | None, levels: dict[str, Level], asked: Sequence[RuleClaim], tokens_counted: bool
) -> list[str]:
    told = [_UNASKED[name] for name, level in levels.items() if level.status == "not checked"]
    if not asked:
        told.append("floors: no --floor given, so the floors held are those that the manifest itself names")
    if claimed is None:
        return told
    if not tokens_counted:
        how = "; --tokenizer FILE counts again" if claimed.tokenizer else ""
        told.append(f"tokens: counted by {claimed.counted_by}, not recounted; n_tokens is taken as written{how}")
    told += [
        f"{rule.name}: how synthetic text was made is not a column of a mix, so this rule is not recounted"
        for rule in (*claimed.floors, *claimed.caps)
        if not rule.recountable
    ]
    told += [f"{rule}: let off {', '.join(map(str, groups))}" for rule, groups in sorted(claimed.exempt.items())]
    told.append("tags other than human_verified, and evidence: what the pipeline concluded, taken as written")
    told.append("language, license, doc_id, represents and kept columns: taken as written, also with --inputs")
    told.append("plan, config_digest, seed, as_of, parent, code_version: claims that a folder alone cannot prove")
    told += _FILES_AS_WRITTEN
    if levels[SIGNED].status != "reached":
        told.append(
            "epochs, binding, custody, notes, duplicates, baseline, gates, reference, succession, the kinds in "
            "summary, each source's tags and bad_records, survival's tokens and its steps by provenance in "
            f"{MANIFEST}: claims that nothing but a signature vouches for"
        )
    told += [str(claim) for claim in claimed.fields.get("not_checked") or () if str(claim) not in told]
    return told
