"""Where the text of a mix comes from: per source, method, issuer, generator and kind, in numbers.

Method and issuer are counted on disk, by the custody manifest of the input shard that each verified row names. How
synthetic text was made is no column of a mix, so that split is the plan's; its sums have to be what was counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from transforms.kernels.audit import Manifests, ShardAudit, Totals, sum_totals
from transforms.kernels.schemas import Provenance

__all__ = ["UNNAMED", "Made", "by_issuer", "custody_manifests", "made_as", "summarise"]

UNNAMED = "unnamed"
"""The issuer of manifests that name none, and the method of sources that claim none."""

Made = Mapping[tuple[str, str, str | None], Mapping[str, Totals]]
"""How text was made (rephrase, generated): totals by source, provenance and generator, then by kind."""

_VERIFIED = Provenance.HUMAN_VERIFIED.label
_NOTHING = Totals(0, 0, 0, 0)


def custody_manifests(inputs: pa.Table) -> Manifests:
    """The custody manifest of each input shard, from the rows of inputs.parquet."""
    columns = (inputs[name].to_pylist() for name in ("source", "shard", "custody_manifest"))
    return {(source, shard): manifest for source, shard, manifest in zip(*columns, strict=True)}


def _issuers(custody: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, Any], str | None]:
    return {(used.get("source"), used.get("manifest")): used.get("issuer") for used in custody}


def by_issuer(audits: Sequence[ShardAudit], custody: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Verified text by who vouches for it."""
    issuers = _issuers(custody)
    found: dict[str, list[Totals]] = defaultdict(list)
    for audit in audits:
        for key, total in audit.verified_by.items():
            found[str(issuers.get(key) or UNNAMED)].append(total)
    return {issuer: sum_totals(parts)._asdict() for issuer, parts in sorted(found.items())}


def summarise(
    audits: Sequence[ShardAudit], methods: Mapping[str, str], custody: Iterable[Mapping[str, Any]], made: Made
) -> list[dict[str, Any]]:
    """One entry per source, provenance, method, issuer, generator and kind; ValueError if `made` does not add up."""
    counted: dict[tuple[str, str, str | None], Totals] = defaultdict(lambda: _NOTHING)
    vouched: dict[tuple[str, str | None], Totals] = defaultdict(lambda: _NOTHING)
    issuers = _issuers(custody)
    for audit in audits:
        for (source, provenance, generator, *_), total in audit.totals.items():
            key = str(source), str(provenance), None if provenance == _VERIFIED else generator
            counted[key] = counted[key].plus(total)
        for (source, manifest), total in audit.verified_by.items():
            name = source, issuers.get((source, manifest))
            vouched[name] = vouched[name].plus(total)
    if stray := sorted(map(str, made.keys() - counted.keys())):
        raise ValueError(f"the mix holds nothing of {stray[0]}, whose kinds are told")
    entries = []
    for (source, provenance, generator), total in counted.items():
        told = {"source": source, "provenance": provenance, "generator": generator}
        if provenance == _VERIFIED:
            method = methods.get(source, UNNAMED)
            entries += [
                _entry(part, **told, method=method, issuer=issuer)
                for (owner, issuer), part in vouched.items()
                if owner == source
            ]
            continue
        kinds = made.get((source, provenance, generator), {})
        if kinds and sum_totals(kinds.values()) != total:
            raise ValueError(f"the kinds of {source}, {provenance}, {generator} do not add up to {total}")
        entries += [_entry(part, **told, kind=kind) for kind, part in kinds.items()] or [_entry(total, **told)]
    return sorted(entries, key=lambda entry: [(entry[name] is not None, entry[name]) for name in _NAMES])


_NAMES = ("source", "provenance", "method", "issuer", "generator", "kind")


def _entry(total: Totals, **told: str | None) -> dict[str, Any]:
    return {name: told.get(name) for name in _NAMES} | total._asdict()


def made_as(summary: Iterable[Mapping[str, Any]]) -> Made:
    """The kinds that a summary tells; ValueError where it is none."""
    found: dict[tuple[str, str, str | None], dict[str, Totals]] = defaultdict(dict)
    for entry in _entries(summary):
        if entry["kind"] is not None:
            kinds = found[str(entry["source"]), str(entry["provenance"]), entry["generator"]]
            kinds[str(entry["kind"])] = Totals(*(int(entry[name]) for name in Totals._fields))
    return found


def _entries(summary: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for entry in summary:
        if not isinstance(entry, Mapping) or not {*_NAMES, *Totals._fields} <= entry.keys():
            raise ValueError("an entry of the summary lacks a member")
        yield entry
