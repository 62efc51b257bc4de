"""`anchormix explain`: why one document is, or is not, in a mix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

from pipeline.errors import UsageError
from pipeline.index import Index
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


def explain(out: Path, document: str | None, doc_id: str | None) -> Outcome:
    """Look in the mix, in its dropped documents, then in the index it was made from."""
    if not (out / SUCCESS).exists():
        raise UsageError("not_a_mix", f"{str(out)!r} is not a published mix: it has no {SUCCESS}.", output=str(out))
    wanted = pc.field("id") == document if document else pc.field("doc_id") == doc_id
    found = [*_in_mix(out, wanted), *_dropped(out, wanted)]
    unseen: str | None = None
    if not any(entry["where"] == "mix" for entry in found):
        indexed, unseen = _in_index(out, document, doc_id, {_place(entry) for entry in found})
        found += indexed
    if not found:
        name = document or doc_id
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


def _witness(out: Path, row: dict[str, Any]) -> dict[str, Any] | None:
    if row["partner"] is None:
        return None
    for found in _in_mix(out, pc.field("id") == row["partner"]):
        return found
    return None


def _in_index(
    out: Path, document: str | None, doc_id: str | None, known: set[tuple[Any, ...]]
) -> tuple[list[dict[str, Any]], str | None]:
    """Documents that dedup kept but the plan left out; and what cannot be seen, where the index is gone."""
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    index = Index(config["index"])
    try:
        ledger = index.facts_ledger()
    except UsageError as error:
        return [], f"not seen: the index ({error.message})"
    if not ledger:
        return (
            [],
            f"not seen: the index {config['index']!r} is not here, so documents that were not selected are unknown",
        )
    fates = _fates_by_sidecar(index, out)
    found = []
    for key, entry in sorted(ledger.items()):
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
                told = {"where": "index", **row, **_fate_of(fates.get(f"{key}/{name}"), place)}
                if _place(told) not in known:
                    found.append(told)
    return found, None


def _matches(facts: pa.Table, document: str | None, doc_id: str | None) -> list[int]:
    if doc_id is not None:
        hits = pc.equal(facts["doc_id"], doc_id).fill_null(False)
    else:
        try:
            head = bytes.fromhex(document or "")
        except ValueError:
            return []
        hits = pc.starts_with(facts["digest"].cast(pa.binary()), head)
    places: list[int] = pc.indices_nonzero(hits).to_pylist()
    return places


def _fates_by_sidecar(index: Index, out: Path) -> dict[str, str]:
    """Path of the fates beside each facts sidecar, in the layer that the mix was made from."""
    key = json.loads((out / "run.json").read_bytes())["fates"]
    done = index.layer("fates", key) or {"parts": []}
    return {part["facts"]: index.path("fates", key, part["file"]) for part in done["parts"]}


def _fate_of(path: str | None, place: int) -> dict[str, Any]:
    if path is None or not Path(path).exists():
        return {"fate": "unknown", "provenance": None, "evidence": []}
    row = pq.read_table(path, columns=["fate", "provenance", "generator", "evidence", "partner_position"]).slice(
        place, 1
    )
    told = row.to_pylist()[0]
    fate = Fate(told["fate"])
    position = told.pop("partner_position")
    told["partner_place"] = None if position is None else [position >> PLACE_BITS, position & int(PLACE_MASK)]
    return {
        **told,
        "fate": "not_selected" if fate == Fate.KEPT else fate.label,
        "provenance": Provenance(told["provenance"]).label,
    }


def _lines(entry: dict[str, Any]) -> Iterator[str]:
    place = f"{entry['source']}/{entry['shard']} row {entry['row']}"
    if entry["where"] == "mix":
        yield f"{entry['id']} ({place}) is in the mix: {entry['file']}, copy {entry['copy']}"
        yield f"  {entry['provenance']}, {entry['n_tokens']:,} tokens, stands for {entry['represents']:,} documents"
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
        if entry["fate"] == "not_selected":
            yield "  dedup kept it; the plan left it out to hold the rules (see `anchormix plan`)"
    for piece in entry.get("evidence") or []:
        yield f"  evidence: {piece['strength']} {piece['kind']} by {piece['rule']}: {piece['detail']}"
