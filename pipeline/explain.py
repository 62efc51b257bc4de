"""`anchormix explain`: why one document is, or is not, in a mix."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import yaml

from pipeline.catalog import SplitRange
from pipeline.clusters import Cluster, cluster_lines, cluster_of
from pipeline.errors import UsageError
from pipeline.index import Index
from pipeline.inspection import Inspection, read_table
from pipeline.manifest import MANIFEST, NO_VALUE
from pipeline.outcome import Outcome
from pipeline.publish import SUCCESS
from pipeline.signed_inputs import SignedInputs
from transforms import files
from transforms.kernels.schemas import KEEP_PREFIX, Fate, Provenance

_SHOWN = [
    *("id", "doc_id", "source", "provenance", "generator", "evidence", "n_tokens", "n_bytes", "represents", "copy"),
    *("language", "license", "shard", "row", "part"),
]
_EXCERPT = 200
_ID = re.compile("[0-9a-f]{32}")
_DUPLICATES = (Fate.EXACT_DUPLICATE.label, Fate.NEAR_DUPLICATE.label)
_MOST_LISTED = 1000  # of the documents that one stands for
_MOST_SHOWN = 10


def explain(out: Path, document: str | None, doc_id: str | None) -> Outcome:
    """Look in the mix, in its dropped documents, then in the index it was made from."""
    document = None if document is None else _whole_id(document)
    if not (out / SUCCESS).exists():
        raise UsageError("not_a_mix", f"{str(out)!r} is not a published mix: it has no {SUCCESS}.", output=str(out))
    wanted = pc.field("id") == document if document is not None else pc.field("doc_id") == doc_id
    mixed, dropped = list(_in_mix(out, wanted)), list(_dropped(out, wanted))
    for entry in mixed:
        entry["stands_for"] = _stood_for(out, entry["id"])
    index, unseen = _index_of(out)
    indexed: list[dict[str, Any]] = []
    if index is not None and (dropped or not mixed):
        shards = {(entry["source"], entry["shard"]) for entry in dropped} if mixed else None
        try:
            indexed = _in_index(out, index, document, doc_id, shards)
        except UsageError as error:
            index, unseen = None, f"not seen: the index ({error.message})"
    at_hand = {_place(entry): entry for entry in indexed}
    for entry in dropped:
        seen = at_hand.pop(_place(entry), {})
        entry |= {name: seen.get(name) for name in ("provenance", "generator", "evidence")}
    known = {_place(entry) for entry in mixed}
    left_out = [] if mixed else [entry for place, entry in at_hand.items() if place not in known]
    found = [*mixed, *dropped, *left_out]
    if not found:
        name = document if document is not None else doc_id
        hint = f" {unseen}." if unseen else ""
        raise UsageError(
            "unknown_document",
            f"no document {name!r} is in {out} or among its dropped documents.{hint} Ids are 32 hexadecimal digits of "
            "the sha256 of the text (--id), or what the source calls it (--doc-id).",
            id=document,
            doc_id=doc_id,
        )
    if index is not None:
        unseen = _add_clusters(index, found)
    signed = SignedInputs.of(out)
    for entry in found:
        entry["custody"] = signed.of_document(entry)
    lines = [line for entry in found for line in _lines(entry)]
    return Outcome(
        "\n".join([*lines, *([unseen] if unseen else [])]),
        output=str(out),
        totals={"found": len(found)},
        details={"documents": found, "not_seen": unseen},
    )


def _whole_id(given: str) -> str:
    document = given.lower()
    if not _ID.fullmatch(document):
        raise UsageError(
            "bad_call",
            f"--id {given!r} is not the id of a document: ids are exactly 32 hexadecimal digits, the first half of the "
            "sha256 of the text. Give the whole id, or what the source calls the document as --doc-id.",
            id=given,
        )
    return document


def _place(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry["source"], entry["shard"], entry["row"], entry["part"]


def _in_mix(out: Path, wanted: pc.Expression) -> Iterator[dict[str, Any]]:
    for path in sorted((out / "data").glob("*.parquet")):
        shard = ds.dataset(path)
        if shard.count_rows(filter=wanted) == 0:  # reads one column, where rows would need all of them
            continue
        rows = shard.to_table(columns=[*_SHOWN, "text"], filter=wanted)
        for row in rows.to_pylist():
            text = row.pop("text")
            yield {"where": "mix", "file": f"data/{path.name}", **row, "text": text[:_EXCERPT]}


def _dropped(out: Path, wanted: pc.Expression) -> Iterator[dict[str, Any]]:
    parts = sorted((out / "fates").glob("part-*.parquet"))
    if not parts:
        return
    dataset = ds.dataset(parts)
    for row in dataset.to_table(filter=wanted).to_pylist():
        yield {"where": "dropped", **row, "witness": _witness(out, row)}


def _stood_for(out: Path, document: str) -> list[dict[str, Any]]:
    """The duplicates that left the mix because this document stayed."""
    parts = sorted((out / "fates").glob("part-*.parquet"))
    if not parts:
        return []
    gone = (pc.field("partner") == document) & pc.field("fate").isin(_DUPLICATES)
    columns = ["source", "shard", "row", "part", "id", "doc_id", "fate", "similarity"]
    rows: list[dict[str, Any]] = ds.dataset(parts).head(_MOST_LISTED, columns=columns, filter=gone).to_pylist()
    return rows


def _witness(out: Path, row: dict[str, Any]) -> dict[str, Any] | None:
    if row["partner"] is None:
        return None
    for found in _in_mix(out, pc.field("id") == row["partner"]):
        return found
    return None


@dataclass(frozen=True)
class _Sidecar:
    """The facts of a split, and the fates beside them where they are still there."""

    source: str
    shard: str
    facts: str
    fates: str | None


@dataclass(frozen=True)
class _MixedFrom:
    """The index that a mix was made from; its layer of fates may be gone."""

    index: Index
    ledger: Mapping[str, Any]
    inspection: Inspection | None

    def sidecars(self) -> Iterator[_Sidecar]:
        if self.inspection is not None:
            for part in self.inspection.parts.values():
                yield _Sidecar(part.split.source, part.split.shard, part.split.facts, part.fates)
            return
        for key, entry in sorted(self.ledger.items()):
            for stored in map(SplitRange.stored, entry["splits"]):
                path = self.index.path("facts", key, f"{stored.name}.parquet")
                if files.exists(path):
                    yield _Sidecar(entry["source"], entry["shard"], path, None)


def _index_of(out: Path) -> tuple[_MixedFrom | None, str | None]:
    """The index that a mix names, or what cannot be seen without it."""
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    index = Index(config["index"])
    try:
        ledger = index.facts_ledger()
        key = json.loads((out / "run.json").read_bytes())["fates"]
        inspection = Inspection.of(index, key) if ledger else None
    except UsageError as error:
        return None, f"not seen: the index ({error.message})"
    if not ledger:
        return None, (
            f"not seen: the index {config['index']!r} is not here, so documents that were not selected, clusters of "
            "duplicates, and evidence about dropped ones, are unknown"
        )
    return _MixedFrom(index, ledger, inspection), None


def _in_index(
    out: Path, index: _MixedFrom, document: str | None, doc_id: str | None, shards: set[tuple[str, str]] | None
) -> list[dict[str, Any]]:
    """What the index holds of a document, in these shards or in all."""
    manifest = json.loads((out / MANIFEST).read_bytes())
    grouped = {rule["by"] for rule in manifest["binding"]} - {None, "source", "generator"}
    found = []
    for sidecar in index.sidecars():
        if shards is not None and (sidecar.source, sidecar.shard) not in shards:
            continue
        stored = {name: name if name == "language" else KEEP_PREFIX + name for name in grouped}
        columns = ["row", "part", "digest", "doc_id", "n_tokens", "language", *stored.values()]
        facts = read_table(sidecar.facts, list(dict.fromkeys(columns)))
        for place in _matches(facts, document, doc_id):
            row = {name: facts[name][place].as_py() for name in ("row", "part", "doc_id", "n_tokens", "language")}
            row |= {
                "id": facts["digest"][place].as_py()[:16].hex(),
                "source": sidecar.source,
                "shard": sidecar.shard,
            }
            found.append({"where": "index", **row, **_fate_of(sidecar.fates, place)})
            if found[-1]["fate"] == Fate.KEPT.label:
                held = {name: column for name, column in stored.items() if column in facts.column_names}
                values = {name: facts[column][place].as_py() for name, column in held.items()}
                own = {name: found[-1][name] for name in ("source", "generator")}
                found[-1] |= _left_out(manifest, {**found[-1], "groups": {**values, **own}})
    return found


def _add_clusters(index: _MixedFrom, found: Sequence[dict[str, Any]]) -> str | None:
    """Say of every entry which documents are linked to it; the reason, where that cannot be seen."""
    inspection = index.inspection
    if inspection is None:
        return "not seen: clusters of duplicates, because the index no longer holds the fates of this mix"
    known: dict[int, Cluster] = {}
    try:
        for entry in found:
            address = inspection.address_of(entry["source"], entry["shard"], entry["row"], entry["part"])
            if address is None:
                continue
            if address not in known:
                known[address] = cluster_of(inspection, address, _MOST_LISTED)
                entry["told"] = list(cluster_lines(known[address], _MOST_SHOWN))
            entry["cluster"] = known[address].to_json()
    except UsageError as error:
        return f"not seen: clusters of duplicates ({error.message})"
    return None


def _matches(facts: pa.Table, document: str | None, doc_id: str | None) -> list[int]:
    if doc_id is not None:
        hits = pc.equal(facts["doc_id"], doc_id).fill_null(False)
    else:
        hits = pc.starts_with(facts["digest"].cast(pa.binary()), bytes.fromhex(document or ""))
    places: list[int] = pc.indices_nonzero(hits).to_pylist()
    return places


def _fate_of(path: str | None, place: int) -> dict[str, Any]:
    if path is None:
        return {"fate": "unknown", "provenance": None, "generator": None, "evidence": None}
    columns = ["fate", "provenance", "generator", "kind", "evidence"]
    told = read_table(path, columns).slice(place, 1).to_pylist()[0]
    return {**told, "fate": Fate(told["fate"]).label, "provenance": Provenance(told["provenance"]).label}


def _left_out(manifest: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Why the plan did without a document that dedup kept: the rules that bound its stratum."""
    bound = [rule for rule in manifest["binding"] if _bounds(rule, entry)]
    gone = [rule for rule in bound if rule["kind"] == "left_out"]
    caps = [rule for rule in bound if rule["kind"] == "cap"]
    rules = [_told(rule, manifest["measure"]) for rule in gone or caps or bound]
    return {"fate": "over_cap" if caps else "not_selected", "rules": rules}


def _bounds(rule: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether a rule that binds stands in the way of more documents like this one."""
    if rule["kind"] == "size":
        return True
    value = entry["groups"].get(rule["by"])
    elsewhere = rule["by"] is not None and rule["group"] != (NO_VALUE if value is None else value)
    if rule["kind"] == "left_out":
        return not elsewhere and (rule["by"] != "generator" or _counted_by(rule["of"], entry))
    if rule["kind"] == "cap":
        return not elsewhere and _counted_by(rule["of"], entry)
    # A floor keeps out what it does not count, in its own group; that of a generator is a part of the whole mix.
    return not _counted_by(rule["of"], entry) and (not elsewhere or rule["by"] == "generator")


def _counted_by(of: str, entry: Mapping[str, Any]) -> bool:
    names = {entry["provenance"], entry["kind"], f"source:{entry['source']}", f"generator:{entry['generator']}"}
    if entry["provenance"] in (Provenance.HUMAN_VERIFIED.label, Provenance.HUMAN.label):
        names.add("human_any")
    return of in names


def _told(rule: Mapping[str, Any], measure: str) -> str:
    asked = format(rule["amount"], ",") if rule["share"] is None else str(Fraction(*rule["share"]))
    where = "" if rule["by"] is None else f" in {rule['by']} {rule['group']}"
    if rule["kind"] == "size":
        return f"at most {asked} {measure} in all"
    if rule["kind"] == "left_out":
        return f"{asked} of {rule['of']}{where}, which cannot be held, so all of it is left out (otherwise: drop)"
    return f"{'at least' if rule['kind'] == 'floor' else 'at most'} {asked} of {rule['of']}{where}"


def _duplicates(entry: dict[str, Any]) -> Iterator[str]:
    listed: Sequence[dict[str, Any]] = entry["stands_for"]
    for other in listed[:_MOST_SHOWN]:
        alike = "" if other["similarity"] is None else f", similarity {other['similarity']}"
        origin = f"{other['source']}/{other['shard']} row {other['row']}"
        yield f"  stands for {other['id']} ({origin}): {other['fate']}{alike}"
    more = entry["represents"] - 1 - min(len(listed), _MOST_SHOWN)
    if more > 0:
        yield f"  and for {more:,} more: rows of fates/ with the partner {entry['id']}"


def _lines(entry: dict[str, Any]) -> Iterator[str]:
    place = f"{entry['source']}/{entry['shard']} row {entry['row']}"
    if entry["where"] == "mix":
        yield f"{entry['id']} ({place}) is in the mix: {entry['file']}, copy {entry['copy']}"
        yield f"  {entry['provenance']}, {entry['n_tokens']:,} tokens, stands for {entry['represents']:,} documents"
        yield from _duplicates(entry)
    elif entry["where"] == "dropped":
        yield f"{entry['id'] or place} ({place}) was dropped: {entry['fate']}" + (
            f", {entry['reason']}" if entry["reason"] else ""
        )
        if entry["partner"]:
            where = f" in the earlier index {entry['partner_index']}" if entry["partner_index"] else ""
            what = "held-out text" if entry["fate"] == Fate.HELD_OUT.label else "witness"
            yield f"  {what} {entry['partner']}{where}, similarity {entry['similarity']}"
        if entry["witness"]:
            witness = entry["witness"]
            origin = f"{witness['source']}/{witness['shard']} row {witness['row']}"
            yield f"  the witness is in the mix: {witness['file']}, from {origin}"
    else:
        yield f"{entry['id']} ({place}) is not in the mix: {entry['fate']}"
        if "rules" in entry:
            rules = "; ".join(entry["rules"])
            because = f"what binds documents like it: {rules}" if rules else "the next whole bucket would not fit"
            yield f"  dedup kept it; {entry['fate']}: {because}"
        elif entry["fate"] == "unknown":
            yield "  the index no longer holds what this mix was made from, so its fate cannot be told"
    yield from (f"  {line}" for line in entry.pop("told", ()))
    yield from _trail(entry)


def _trail(entry: dict[str, Any]) -> Iterator[str]:
    """What is known of where the text is from, strongest first, and how custody came to its verdict."""
    evidence = entry.get("evidence")
    for piece in evidence or []:
        yield f"  evidence: {piece['strength']} {piece['kind']} by {piece['rule']}: {piece['detail']}"
    if evidence == []:
        yield "  evidence: none, so nothing is known of where it is from"
    if entry["custody"] is not None:
        yield f"  custody: {entry['custody']['told']}"
