"""How much of what was read each step left, by source and by provenance, and which provenance gave way to which.

Everything here follows from the accounts of the fates and from the plan: no document is looked at again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.manifest import decimal
from transforms.kernels.diversity.metric import rounded
from transforms.kernels.schemas import Fate, Provenance

__all__ = [
    "IN_MIX",
    "KINDS",
    "LOST_AT",
    "STEPS",
    "differing_provenance",
    "duplicates",
    "near_duplicate_rates",
    "survival",
]

LOST_AT: Mapping[str, tuple[Fate, ...]] = {
    "readable": (Fate.EMPTY, Fate.BAD_RECORD, Fate.BAD_FILE),
    "after_exact": (Fate.EXACT_DUPLICATE,),
    "after_near": (Fate.NEAR_DUPLICATE,),
    "after_against": (Fate.SEEN_BEFORE,),
    "after_exclusions": (Fate.EXCLUDED, Fate.HELD_OUT),
}
"""The fates that each step takes out. A document has one fate, so nothing is taken out twice."""

KINDS: Mapping[str, Fate] = {
    "exact": Fate.EXACT_DUPLICATE,
    "near": Fate.NEAR_DUPLICATE,
    "seen_before": Fate.SEEN_BEFORE,
}
"""What people call the three ways in which a document can be a duplicate."""

IN_MIX = "in_mix"
STEPS = ("read", *LOST_AT, IN_MIX)

Amount = tuple[int, int]
"""Documents and their tokens; a document that the mix repeats counts once."""


def survival(
    accounts: Iterable[Mapping[str, Any]],
    sources: Iterable[str],
    taken: Mapping[tuple[str, str], Amount] | None = None,
) -> dict[str, Any]:
    """Documents and tokens that each step left, and their share of what was read.

    Args:
        accounts: of the splits, as the fates hold them.
        sources: names of all sources; one without documents is listed, too.
        taken: what the mix holds of each (source, provenance); without it the last step is left out.
    """
    by_source: dict[str, Counter[str]] = {name: Counter() for name in sources}
    by_provenance: dict[str, Counter[str]] = {}
    all_in_all: Counter[str] = Counter()

    def groups(source: str, provenance: str) -> Iterator[Counter[str]]:
        yield all_in_all
        yield by_source[source]
        yield by_provenance.setdefault(provenance, Counter())

    for account in accounts:
        for provenance, fate, documents, tokens in account["cells"]:
            for group in groups(account["source"], provenance):
                group[f"{fate} documents"] += documents
                group[f"{fate} tokens"] += tokens
    for (source, provenance), (documents, tokens) in (taken or {}).items():
        for group in groups(source, provenance):
            group[f"{IN_MIX} documents"] += documents
            group[f"{IN_MIX} tokens"] += tokens
    steps = STEPS if taken is not None else STEPS[:-1]
    in_keep_order = sorted(by_provenance, key=lambda label: Provenance.from_label(label))
    return {
        "all": _steps(all_in_all, steps),
        "by_source": {name: _steps(by_source[name], steps) for name in sorted(by_source)},
        "by_provenance": {name: _steps(by_provenance[name], steps) for name in in_keep_order},
    }


def _steps(group: Mapping[str, int], steps: Sequence[str]) -> dict[str, Any]:
    left = {what: sum(group.get(f"{fate.label} {what}", 0) for fate in Fate) for what in ("documents", "tokens")}
    read = dict(left)
    told: dict[str, Any] = {}
    for step in steps:
        for what in left:
            if step == IN_MIX:
                left[what] = group.get(f"{IN_MIX} {what}", 0)
            left[what] -= sum(group.get(f"{fate.label} {what}", 0) for fate in LOST_AT.get(step, ()))
        told[step] = dict(left) | {f"{what}_share": decimal(left[what], read[what]) for what in left}
    return told


def near_duplicate_rates(accounts: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Rows of metrics: of the documents that diversity is measured of, the share that went as near-duplicates."""
    unreadable = {fate.label for fate in LOST_AT["readable"]}
    removed: Counter[tuple[str, str]] = Counter()
    measured: Counter[tuple[str, str]] = Counter()
    for account in accounts:
        source = str(account["source"])
        for scope in (("input_shard", f"{source}/{account['shard']}"), ("source", source), ("corpus", "all")):
            for _, fate, documents, _ in account["cells"]:
                measured[scope] += documents * (fate not in unreadable)
                removed[scope] += documents * (fate == Fate.NEAR_DUPLICATE.label)
    rows = []
    for (kind, name), n in sorted(measured.items()):
        if n:
            values = [["near_duplicate_rate", rounded(removed[kind, name] / n), n, "exact"]]
            rows.append(json.dumps({"scope": kind, "name": name, "values": values}).encode())
    return rows


def duplicates(accounts: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Removed documents by kind of duplicate, provenance of what stayed and provenance of what went, in keep order."""
    added: Counter[tuple[str, str, str]] = Counter()
    weights: Counter[tuple[str, str, str]] = Counter()
    for account in accounts:
        for fate, kept, removed, documents, tokens in account["duplicates"]:
            added[fate, kept, removed] += documents
            weights[fate, kept, removed] += tokens
    kinds = {fate.label: kind for kind, fate in KINDS.items()}
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for key in sorted(added, key=lambda key: tuple(map(Provenance.from_label, key[1:]))):
        fate, kept, removed = key
        pair = {"kept": kept, "removed": removed, "documents": added[key], "tokens": weights[key]}
        found[kinds[fate]].append(pair)
    return found


def differing_provenance(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """A sentence on the texts that were read under several provenances, of which only one could stay."""
    differing = [pair for pair in found["exact"] if pair["kept"] != pair["removed"]]
    if differing:
        told = ", ".join(f"{pair['documents']:,} {pair['removed']} for {pair['kept']}" for pair in differing)
        total = sum(pair["documents"] for pair in differing)
        yield (
            f"same text, other provenance: {total:,} {'copy' if total == 1 else 'copies'} gave way to a document of "
            f"another provenance ({told}), which keeps its own tag and evidence. `anchormix duplicates` shows examples"
        )
