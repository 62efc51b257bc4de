"""`anchormix explain`: why one document is, or is not, in a mix."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

from pipeline.errors import UsageError
from pipeline.index import Index
from pipeline.manifest import MANIFEST, RuleClaim
from pipeline.outcome import Outcome
from pipeline.publish import SUCCESS
from transforms import files
from transforms.batches import PLACE_BITS, PLACE_MASK
from transforms.kernels.schemas import Fate, Provenance

_SHOWN = [
    *("id", "doc_id", "source", "provenance", "generator", "evidence", "n_tokens", "n_bytes", "represents", "copy"),
    *("language", "license", "shard", "row", "part"),
]
_EXCERPT = 200
_ID = re.compile("[0-9a-f]{32}")
_DUPLICATES = (Fate.EXACT_DUPLICATE.label, Fate.NEAR_DUPLICATE.label)
_MOST_LISTED = 1000  # of the documents that one stands for
_MOST_SHOWN = 10
_LEFT_OUT = ("over_cap", "not_selected")


def explain(out: Path, document: str | None, doc_id: str | None) -> Outcome:
    """Look in the mix, in its dropped documents, then in the index it was made from."""
    document = None if document is None else _whole_id(document)
    if not (out / SUCCESS).exists():
        raise UsageError("not_a_mix", f"{str(out)!r} is not a published mix: it has no {SUCCESS}.", output=str(out))
    wanted = pc.field("id") == document if document is not None else pc.field("doc_id") == doc_id
    mixed, dropped = list(_in_mix(out, wanted)), list(_dropped(out, wanted))
    for entry in mixed:
        entry["stands_for"] = _stood_for(out, entry["id"])
    unseen: str | None = None
    indexed: list[dict[str, Any]] = []
    if dropped or not mixed:
        shards = {(entry["source"], entry["shard"]) for entry in dropped} if mixed else None
        indexed, unseen = _in_index(out, document, doc_id, shards)
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
        rows = ds.dataset(path).to_table(columns=[*_SHOWN, "text"], filter=wanted)
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


def _in_index(
    out: Path, document: str | None, doc_id: str | None, shards: set[tuple[str, str]] | None
) -> tuple[list[dict[str, Any]], str | None]:
    """What the index holds of a document, in these shards or in all; and what cannot be seen, where it is gone."""
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    index = Index(config["index"])
    try:
        ledger = index.facts_ledger()
        fates = _fates_by_sidecar(index, out) if ledger else {}
    except UsageError as error:
        return [], f"not seen: the index ({error.message})"
    if not ledger:
        return (
            [],
            f"not seen: the index {config['index']!r} is not here, so documents that were not selected, and evidence "
            "about dropped ones, are unknown",
        )
    manifest = json.loads((out / MANIFEST).read_bytes())
    found = []
    for key, entry in sorted(ledger.items()):
        if shards is not None and (entry["source"], entry["shard"]) not in shards:
            continue
        for groups, _, _ in entry["splits"]:
            name = "whole" if groups is None else f"{groups[0]:05d}-{groups[1]:05d}"
            path = index.path("facts", key, f"{name}.parquet")
            if not files.exists(path):
                continue
            facts = pq.read_table(path, columns=["row", "part", "digest", "doc_id", "n_tokens", "language"])
            for place in _matches(facts, document, doc_id):
                row = {name: facts[name][place].as_py() for name in ("row", "part", "doc_id", "n_tokens", "language")}
                row |= {
                    "id": facts["digest"][place].as_py()[:16].hex(),
                    "source": entry["source"],
                    "shard": entry["shard"],
                }
                found.append({"where": "index", **row, **_fate_of(fates.get(f"{key}/{name}"), place)})
                if found[-1]["fate"] == Fate.KEPT.label:
                    found[-1] |= _left_out(manifest, found[-1])
    return found, None


def _matches(facts: pa.Table, document: str | None, doc_id: str | None) -> list[int]:
    if doc_id is not None:
        hits = pc.equal(facts["doc_id"], doc_id).fill_null(False)
    else:
        hits = pc.starts_with(facts["digest"].cast(pa.binary()), bytes.fromhex(document or ""))
    places: list[int] = pc.indices_nonzero(hits).to_pylist()
    return places


def _fates_by_sidecar(index: Index, out: Path) -> dict[str, str]:
    """Path of the fates beside each facts sidecar, in the layer that the mix was made from."""
    key = json.loads((out / "run.json").read_bytes())["fates"]
    done = index.layer("fates", key) or {"parts": []}
    return {part["facts"]: index.path("fates", key, part["file"]) for part in done["parts"]}


def _fate_of(path: str | None, place: int) -> dict[str, Any]:
    if path is None or not Path(path).exists():
        return {"fate": "unknown", "provenance": None, "generator": None, "evidence": None}
    columns = ["fate", "provenance", "generator", "kind", "evidence", "partner_position"]
    row = pq.read_table(path, columns=columns).slice(place, 1)
    told = row.to_pylist()[0]
    fate = Fate(told["fate"])
    position = told.pop("partner_position")
    told["partner_place"] = None if position is None else [position >> PLACE_BITS, position & int(PLACE_MASK)]
    return {
        **told,
        "fate": fate.label,
        "provenance": Provenance(told["provenance"]).label,
    }


def _left_out(manifest: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Why the plan did without a document that dedup kept, as far as the manifest's counts can tell; and the rules."""
    counted = manifest["sources"].get(entry["source"], {}).get("dropped", {})
    caps = [rule for rule in map(RuleClaim.from_json, manifest["caps"]) if _counted_by(rule, entry)]
    # A document that no cap counts is over none.
    reasons = [reason for reason in _LEFT_OUT if counted.get(reason) and (caps or reason != "over_cap")]
    rules = [_told(rule, "at most") for rule in caps]
    if reasons != ["over_cap"]:
        rules += [_told(rule, "at least") for rule in map(RuleClaim.from_json, manifest["floors"])]
        rules += [] if manifest["size"] is None else [f"at most {manifest['size']:,} {manifest['measure']} in all"]
    return {"fate": " or ".join(reasons or _LEFT_OUT), "rules": rules}


def _counted_by(rule: RuleClaim, entry: Mapping[str, Any]) -> bool:
    names = {entry["provenance"], entry["kind"], f"source:{entry['source']}", f"generator:{entry['generator']}"}
    if entry["provenance"] in (Provenance.HUMAN_VERIFIED.label, Provenance.HUMAN.label):
        names.add("human_any")
    return rule.of in names


def _told(rule: RuleClaim, bound: str) -> str:
    return f"{bound} {rule.share if rule.share is not None else format(rule.amount or 0, ',')} of {rule.name}"


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
            yield f"  witness {entry['partner']}, similarity {entry['similarity']}"
        if entry["witness"]:
            witness = entry["witness"]
            origin = f"{witness['source']}/{witness['shard']} row {witness['row']}"
            yield f"  the witness is in the mix: {witness['file']}, from {origin}"
    else:
        yield f"{entry['id']} ({place}) is not in the mix: {entry['fate']}"
        if "rules" in entry:
            told = entry["fate"] if " or " not in entry["fate"] else f"left out by the plan ({entry['fate']})"
            rules = "; ".join(entry["rules"]) or "none is recorded"
            yield f"  dedup kept it; {told}, to hold the rules: {rules}. Which of them bind, `anchormix plan` says"
        elif entry["fate"] == "unknown":
            yield "  the index no longer holds what this mix was made from, so its fate cannot be told"
    for piece in entry.get("evidence") or []:
        yield f"  evidence: {piece['strength']} {piece['kind']} by {piece['rule']}: {piece['detail']}"
