"""Looking at single documents of a finished index: what it holds of them, and their text, read again from the input.

Nothing here builds or judges. An input that was moved, changed or removed since is said of the documents it held, one
by one: whoever looks at twenty of them still sees the other nineteen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.catalog import Shard, SplitRange
from pipeline.errors import UsageError
from pipeline.index import Index
from transforms import sidecars
from transforms.batches import PLACE_BITS, Split, addresses, groups, place_of, split_of
from transforms.kernels.columns import AUTO, Auto, ColumnMap, Join, Messages, MissingColumn, TextColumn
from transforms.kernels.hashing import text_digests
from transforms.kernels.records import UnreadableFile, read_texts_at
from transforms.kernels.schemas import ID_BYTES, Fate, Provenance, Status
from transforms.sidecars import file_format, opener

__all__ = ["Document", "Inspection", "Text", "how_to_read", "read_table"]

_FACTS = ["row", "part", "status", "digest", "doc_id", "n_tokens"]
_FATES = [
    *("fate", "provenance", "partner", "partner_position", "partner_index"),
    *("shared", "union", "represents", "reason"),
]

MOST_CHARACTERS = 1 << 20
"""Of a text that are kept for looking at; its digest is of all of it."""


def how_to_read(shard: Shard, text: TextColumn) -> dict[str, Any]:
    """What reading the text of a shard again takes, for the ledger: the index outlives the config it was made from."""
    return {"path": shard.path, "kind": shard.kind, "compression": shard.compression, "text": _text_to_json(text)}


def _text_to_json(text: TextColumn) -> Any:
    if isinstance(text, Auto):
        return None
    if isinstance(text, Join):
        return {"join": list(text.paths), "separator": text.separator}
    return {"messages": text.path, "count": list(text.count)} if isinstance(text, Messages) else text


def _text_from_json(told: Any) -> TextColumn:
    if told is None:
        return AUTO
    if isinstance(told, str):
        return told
    if "join" in told:
        return Join(tuple(told["join"]), told["separator"])
    return Messages(told["messages"], tuple(told["count"]))


@dataclass(frozen=True)
class Document:
    """What an index holds of one document. `address` and `witness` are numbers of this index, not for users."""

    address: int
    source: str
    shard: str
    row: int
    part: int
    id: str | None  # None where there is no text
    doc_id: str | None
    tokens: int
    provenance: str
    fate: str
    reason: str | None
    partner: str | None  # id of the witness
    witness: int | None  # its address; None for documents without one
    partner_index: str | None  # the earlier index that holds the witness, at its own address; None: this index
    shared: int
    union: int
    represents: int

    @property
    def similarity(self) -> float | None:
        """Exact Jaccard to the witness, as fates/ have it."""
        return round(self.shared / self.union, 6) if self.union else None

    def place(self) -> dict[str, Any]:
        names = ("source", "shard", "row", "part", "id", "doc_id", "provenance", "fate")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Text:
    """A text as its input holds it now, or why it cannot be shown."""

    value: str | None
    characters: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class _Part:
    """A split of the index, and where its two tables are."""

    split: Split
    fates: str
    text: TextColumn
    known: bool  # whether the ledger says how to read it
    account: Mapping[str, Any]  # what became of its documents


class Inspection:
    """One finished layer of fates, and the facts, edges and inputs beneath it."""

    def __init__(self, index: Index, key: str, done: Mapping[str, Any]) -> None:
        self.index = index
        self.key = key
        self._done = done

    @classmethod
    def of(cls, index: Index, key: str) -> Inspection | None:
        """None where the layer, or files of it, are gone."""
        done = index.layer("fates", key)
        return cls(index, key, done) if done is not None else None

    @cached_property
    def parts(self) -> dict[int, _Part]:
        """By split number, in the order of addresses."""
        ledger = self.index.facts_ledger()
        found = {}
        for part in self._done["parts"]:
            number = int(part["partition"])
            key, name = part["facts"].split("/")
            account, entry = part["account"], ledger.get(key, {})
            reading = entry.get("input", {})
            ranges = {r.name: r for r in map(SplitRange.stored, entry.get("splits", ()))}
            here = ranges.get(name, SplitRange(None, 0, 0))
            split = Split(
                index=number,
                source=account["source"],
                shard=account["shard"],
                path=reading.get("path", ""),
                kind=reading.get("kind", ""),
                compression=reading.get("compression", ""),
                row_groups=here.row_groups,
                first_row=here.first_row,
                weight=here.weight,
                facts=self.index.path("facts", key, f"{name}.parquet"),
                whole=here.first_row == 0,
            )
            fates = self.index.path("fates", self.key, part["file"])
            known = bool(reading) and name in ranges
            found[number] = _Part(split, fates, _text_from_json(reading.get("text")), known, account)
        return dict(sorted(found.items()))

    @property
    def sources(self) -> list[str]:
        return sorted({part.split.source for part in self.parts.values()})

    def edge_files(self, kind: str) -> Iterator[pa.Table]:
        """The tables of `exact` or `pairs`, one at a time."""
        key = self._done.get("edges", "")  # layers of older versions do not say it
        done = self.index.layer("edges", key) if key else None
        if done is None:
            raise _damaged(self.index.path("edges", key), "files of it are gone")
        own = np.uint64(len(self.parts) << PLACE_BITS)  # what has a higher address is of an earlier index
        for part in done["parts"]:
            if part["kind"] == kind:
                table = read_table(self.index.path("edges", key, part["file"]))
                yield table.filter(pa.array(table[1].to_numpy() < own))

    def fates(self, split: int, columns: list[str]) -> pa.Table:
        return read_table(self.parts[split].fates, columns)

    def facts(self, split: int, columns: list[str]) -> pa.Table:
        return read_table(self.parts[split].split.facts, columns)

    def address_of(self, source: str, shard: str, row: int, part: int) -> int | None:
        """The address of the document at a place of the input."""
        mine = [p for p in self.parts.values() if (p.split.source, p.split.shard) == (source, shard)]
        before = [p for p in mine if p.split.first_row <= row]
        if not before:
            return None
        number = max(before, key=lambda p: p.split.first_row).split.index
        facts = self.facts(number, ["row", "part"])
        places = np.flatnonzero((facts["row"].to_numpy() == row) & (facts["part"].to_numpy() == part))
        return int(addresses(number, places)[0]) if len(places) else None

    def documents(self, wanted: Iterable[int]) -> dict[int, Document]:
        """What the index holds of these addresses."""
        found: dict[int, Document] = {}
        for split, places in _by_split(wanted):
            part = self.parts[split]
            facts = self.facts(split, _FACTS).take(pa.array(places)).to_pylist()
            fates = self.fates(split, _FATES).take(pa.array(places)).to_pylist()
            for place, fact, fate in zip(places.tolist(), facts, fates, strict=True):
                address = split << PLACE_BITS | place
                found[address] = _document(address, part.split, fact, fate)
        return found

    def witnesses(self, documents: Iterable[Document]) -> dict[int, tuple[Inspection, Document]]:
        """By the address of a removed document its witness, and where that is inspected.

        A witness in an earlier index is left out where that index is gone, or holds something else there by now.
        """
        found: dict[int, tuple[Inspection, Document]] = {}
        by_index: dict[str | None, list[Document]] = defaultdict(list)
        for document in documents:
            if document.witness is not None:
                by_index[document.partner_index].append(document)
        for root, removed in by_index.items():
            there = self if root is None else _current(root)
            if there is None:
                continue
            known = {d.witness for d in removed if d.witness is not None and d.witness >> PLACE_BITS in there.parts}
            held = there.documents(known)
            for document in removed:
                witness = held.get(document.witness or 0)
                if witness is not None and witness.id == document.partner:
                    found[document.address] = there, witness
        return found

    def texts(self, documents: Iterable[Document]) -> dict[int, Text]:
        """The texts of documents by address, each read from its input again and compared with its digest."""
        by_address = {document.address: document for document in documents}
        found: dict[int, Text] = {}
        for split, places in _by_split(by_address):
            here = {place: by_address[split << PLACE_BITS | place] for place in places.tolist()}
            for place, text in self._texts(split, here).items():
                found[split << PLACE_BITS | place] = text
        return found

    def _texts(self, number: int, documents: Mapping[int, Document]) -> dict[int, Text]:
        part = self.parts[number]
        where = f"{part.split.source}/{part.split.shard}"
        if not part.known:
            why = f"the index no longer knows the file of {where}; run `anchormix index` with its config again"
            return {place: Text(None, problem=why) for place in documents}
        places = {(document.row, document.part): place for place, document in documents.items()}
        found: dict[int, Text] = {}
        problem = f"{part.split.path} no longer holds this row: the file has changed since the index"
        try:
            for batch in self.read_again(number, np.array(sorted({row for row, _ in places}), np.int64)):
                digests = text_digests(batch["text"])
                numbers = zip(batch["row"].to_pylist(), batch["part"].to_pylist(), strict=True)
                for at, key in enumerate(numbers):
                    if key in places:
                        same = digests[at, :ID_BYTES].tobytes().hex() == documents[places[key]].id
                        found[places[key]] = _text(batch["text"][at].as_py(), same, part.split.path)
        except UnreadableFile as error:
            problem = f"{error.path} {error.problem}; it was moved, removed or changed since the index"
        except MissingColumn as error:
            problem = f"{error}; the file has changed since the index"
        return {place: found.get(place, Text(None, problem=problem)) for place in documents}

    def read_again(
        self, number: int, rows: npt.NDArray[np.int64], parts: npt.NDArray[Any] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Row, part and text of documents of a split, as `read_texts_at` gives them; whoever asks compares digests."""
        part = self.parts[number]
        return read_texts_at(
            opener(part.split),
            part.split.path,
            file_format(part.split),
            ColumnMap(text=part.text),
            rows,
            parts,
            row_groups=part.split.row_groups,
            first_row=part.split.first_row,
        )


def _current(root: str) -> Inspection | None:
    index = Index(root)
    key = index.current() if index.exists() else None
    return Inspection.of(index, key) if key else None


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """A table of the index, or a diagnosis."""
    try:
        return sidecars.read_table(path, columns)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from None


def _damaged(path: str, problem: object) -> UsageError:
    return UsageError(
        "stale_index",
        f"index: {path!r} cannot be read ({problem}): the index is damaged, or being built right now. Run `anchormix "
        "index` with its config.",
        path=path,
    )


def _by_split(wanted: Iterable[int]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Split numbers with the places asked of each, ascending."""
    found = np.unique(np.fromiter(wanted, np.uint64))
    order, runs = groups(split_of(found))
    for split, start, end in runs:
        yield split, place_of(found[order[start:end]])


def _document(address: int, split: Split, fact: Mapping[str, Any], fate: Mapping[str, Any]) -> Document:
    has_text = fact["status"] in (Status.OK, Status.EMPTY)
    return Document(
        address=address,
        source=split.source,
        shard=split.shard,
        row=fact["row"],
        part=fact["part"],
        id=fact["digest"][:ID_BYTES].hex() if has_text else None,
        doc_id=fact["doc_id"],
        tokens=fact["n_tokens"],
        provenance=Provenance(fate["provenance"]).label,
        fate=Fate(fate["fate"]).label,
        reason=fate["reason"],
        partner=fate["partner"].hex() if fate["partner"] is not None else None,
        witness=fate["partner_position"],
        partner_index=fate["partner_index"],
        shared=fate["shared"],
        union=fate["union"],
        represents=fate["represents"],
    )


def _text(value: str | None, same: bool, path: str) -> Text:
    if value is None or not same:
        return Text(None, problem=f"{path} holds another text at this row now: the file has changed since the index")
    return Text(value[:MOST_CHARACTERS], len(value))
