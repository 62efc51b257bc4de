"""`anchormix duplicates`: pairs of a removed document and the one that stayed for it, to be judged by eye.

The sample is drawn by a hash of both ids, the place and a seed: it is the same on every machine, and most of it stays
when shards come or go.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.comparison import compare, excerpt, printable
from pipeline.errors import UsageError
from pipeline.index import Index
from pipeline.inspection import Document, Inspection, Text
from pipeline.manifest import MANIFEST
from pipeline.outcome import Outcome
from pipeline.survival import KINDS
from transforms import files
from transforms.batches import addresses
from transforms.kernels.hashing import draws
from transforms.kernels.schemas import ID_BYTES
from transforms.sidecars import digests_of, fixed_rows

__all__ = ["Pair", "Sample", "duplicates", "example_pairs", "pair_lines", "sample_pairs"]

_SHOWN = 160  # characters of each text
_KIND_OF = {fate.label: kind for kind, fate in KINDS.items()}
_SALT = b"duplicates"


@dataclass(frozen=True)
class Pair:
    """A removed document and its witness; None where the earlier index that held it no longer does."""

    removed: Document
    kept: Document | None
    removed_text: Text
    kept_text: Text

    @property
    def kind(self) -> str:
        return _KIND_OF[self.removed.fate]

    def to_json(self, width: int = _SHOWN) -> dict[str, Any]:
        told: dict[str, Any] = {
            "kind": self.kind,
            "jaccard": self.removed.similarity,
            "shared": self.removed.shared,
            "union": self.removed.union,
        }
        sides = {"removed": self.removed, "kept": self.kept}
        texts = {"removed": self.removed_text, "kept": self.kept_text}
        for name, document in sides.items():
            place = document.place() if document else {"id": self.removed.partner}
            value, problem = texts[name].value, texts[name].problem
            told[name] = place | {"text": None if value is None else value[:width], "problem": problem}
        told["kept"]["index"] = self.removed.partner_index
        left, right = texts["removed"].value, texts["kept"].value
        if left is not None and right is not None:
            compared = compare(left, right, width)
            told["same_characters"] = compared.same
            told["removed"]["differs"] = [list(span) for span in compared.left.differs]
            told["kept"]["differs"] = [list(span) for span in compared.right.differs]
            for name, later in zip(("removed", "kept"), compared.later or (), strict=False):
                told[name]["later"] = {"text": later.text, "differs": [list(span) for span in later.differs]}
        return told


@dataclass(frozen=True)
class Sample:
    """Some of the removed documents, and how many there are, by kind."""

    pairs: tuple[Pair, ...]
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def sample_pairs(
    inspection: Inspection,
    count: int,
    seed: int = 0,
    source: str | None = None,
    kinds: Collection[str] = tuple(KINDS),
) -> Sample:
    """Up to `count` of the documents that dedup removed, of one source or of all; texts are read again for these."""
    counts: Counter[str] = Counter({kind: 0 for kind in kinds})
    keys, chosen = np.empty(0, np.uint64), np.empty(0, np.uint64)
    for split, part in inspection.parts.items():
        if source is not None and part.split.source != source:
            continue
        fates = inspection.fates(split, ["fate", "partner"])
        fate = fates["fate"].to_numpy()
        for kind in kinds:
            counts[kind] += int((fate == KINDS[kind]).sum())
        places = np.flatnonzero(np.isin(fate, [int(KINDS[kind]) for kind in kinds]))
        if len(places):
            found = _keys(inspection, split, places, fates["partner"], seed)
            keys, chosen = np.concatenate([keys, found]), np.concatenate([chosen, addresses(split, places)])
            best = np.lexsort((chosen, keys))[:count]
            keys, chosen = keys[best], chosen[best]
    return Sample(tuple(_pairs(inspection, chosen.tolist())), counts)


def _keys(
    inspection: Inspection, split: int, places: npt.NDArray[np.int64], partners: pa.ChunkedArray, seed: int
) -> npt.NDArray[np.uint64]:
    """One draw per removed document: from its id and its witness's, and from its place, which tells copies apart."""
    here = inspection.parts[split].split
    facts = inspection.facts(split, ["digest", "row", "part"]).take(pa.array(places))
    chosen = pc.fill_null(partners.take(pa.array(places)), pa.scalar(bytes(ID_BYTES), partners.type))
    own = draws(digests_of(facts), seed, f"{here.source}\0{here.shard}".encode())
    kept = draws(fixed_rows(chosen, ID_BYTES), seed, _SALT)
    rows = facts["row"].to_numpy().astype(np.uint64) << np.uint64(20) | facts["part"].to_numpy().astype(np.uint64)
    both = np.stack([own ^ rows, kept], axis=1).astype("<u8")
    return draws(both.view(np.uint8), seed, _SALT)


def _pairs(inspection: Inspection, chosen: Iterable[int]) -> Iterator[Pair]:
    chosen = list(chosen)
    removed = inspection.documents(chosen)
    kept = inspection.witnesses(removed.values())
    texts = inspection.texts(removed.values())
    by_index: dict[str, list[int]] = defaultdict(list)
    for address, (there, _) in kept.items():
        by_index[there.index.root].append(address)
    kept_texts: dict[int, Text] = {}
    for addresses_there in by_index.values():
        there = kept[addresses_there[0]][0]
        read = there.texts(kept[address][1] for address in addresses_there)
        kept_texts.update({address: read[kept[address][1].address] for address in addresses_there})
    for address in chosen:
        document = removed[address]
        _, witness = kept.get(address, (None, None))
        gone = Text(None, problem=f"{document.partner_index} no longer holds this document, {document.partner}")
        yield Pair(document, witness, texts[address], kept_texts.get(address, gone))


def example_pairs(inspection: Inspection, source: str, count: int) -> tuple[Pair, ...]:
    """Near-duplicates that a source lost, for a diagnosis."""
    return sample_pairs(inspection, count, source=source, kinds=("near",)).pairs


def pair_lines(pair: Pair, width: int = _SHOWN) -> Iterator[str]:
    """One pair for people: what it is, the two places, and the texts one below the other."""
    near = pair.kind != "exact"
    alike = f", exact Jaccard {pair.removed.similarity} ({pair.removed.shared:,} of {pair.removed.union:,} shingles)"
    yield _TOLD[pair.kind] + (alike if near and pair.removed.union else "")
    yield f"  removed  {_place(pair.removed)}"
    where = f"in {printable(pair.removed.partner_index)}: " if pair.removed.partner_index else ""
    yield f"  kept     {where}{_place(pair.kept) if pair.kept else pair.removed.partner}"
    yield from _texts(pair, width)


_TOLD = {"exact": "same text", "near": "near duplicate", "seen_before": "seen before, in an earlier index"}


def _place(document: Document) -> str:
    own = f", doc_id {printable(document.doc_id)}" if document.doc_id is not None else ""
    where = printable(f"{document.source}/{document.shard}")
    return f"{where} row {document.row}, {document.provenance}, id {document.id}{own}"


def _texts(pair: Pair, width: int) -> Iterator[str]:
    removed, kept = pair.removed_text, pair.kept_text
    if removed.value is None or kept.value is None:
        for name, text in (("removed", removed), ("kept", kept)):
            shown = excerpt(text.value, width).marked("", "") if text.value is not None else f"-- {text.problem}"
            yield f"  {name:<7}| {shown}"
        return
    compared = compare(removed.value, kept.value, width)
    if removed.value == kept.value:
        yield f"  both   | {compared.left.marked('', '')}"
        return
    yield f"  removed| {compared.left.marked('[-', '-]')}"
    yield f"  kept   | {compared.right.marked('{+', '+}')}"
    if compared.later:
        yield f"  their first {compared.same:,} characters are the same; from there on"
        yield f"  removed| {compared.later[0].marked('[-', '-]')}"
        yield f"  kept   | {compared.later[1].marked('{+', '+}')}"


def duplicates(folder: str, count: int, seed: int, source: str | None, kind: str | None) -> Outcome:
    """Show a sample of what dedup removed, as the index in `folder` holds it."""
    inspection = _inspection(folder)
    if source is not None and source not in inspection.sources:
        raise UsageError(
            "unknown_source",
            f"--source {source!r}: the index {folder!r} has no such source; it has "
            f"{', '.join(inspection.sources) or 'none'}.",
            source=source,
            sources=inspection.sources,
        )
    kinds = tuple(KINDS) if kind is None else (kind,)
    sample = sample_pairs(inspection, count, seed, source, kinds)
    of = f" of source {source!r}" if source is not None else ""
    counted = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in sample.counts.items() if n)
    lines = [f"{len(sample.pairs):,} of the {sample.total:,} documents{of} that dedup removed ({counted}); seed {seed}"]
    for number, pair in enumerate(sample.pairs, start=1):
        lines += ["", *(f"{f'{number}.' if not at else '':<4}{line}" for at, line in enumerate(pair_lines(pair)))]
    if not sample.pairs:
        lines = [f"dedup removed no document{of}" + (f" as {kind.replace('_', ' ')}" if kind else "")]
    sides = [
        side
        for pair in sample.pairs
        for side in (
            (None, pair.removed.address, pair.removed_text),
            (pair.removed.partner_index, pair.removed.witness, pair.kept_text),
        )
    ]
    unread = {(index, address) for index, address, text in sides if text.problem is not None}
    return Outcome(
        "\n".join(lines),
        output=folder,
        totals={"removed": sample.total, **sample.counts, "sampled": len(sample.pairs), "texts_not_read": len(unread)},
        details={"pairs": [pair.to_json() for pair in sample.pairs], "seed": seed},
    )


def _inspection(folder: str) -> Inspection:
    if files.exists(files.join(folder, MANIFEST)):
        raise UsageError(
            "not_an_index",
            f"{folder!r} is a published mix. This command reads an index: name the folder that its config.yaml "
            "has under `index`.",
            path=folder,
        )
    index = Index(folder)
    key = index.current() if index.exists() else None
    if key is None:
        raise UsageError(
            "not_an_index",
            f"{folder!r} holds no finished index. Name the folder that a config has under `index`, and run "
            "`anchormix index` with that config first.",
            path=folder,
        )
    inspection = Inspection.of(index, key)
    if inspection is None:
        raise UsageError(
            "stale_index",
            f"{folder!r} is damaged, or being built right now: files of its fates are gone. Run `anchormix index` "
            "with its config.",
            path=folder,
        )
    return inspection
