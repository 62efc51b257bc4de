"""The cluster of a document: everything that equal texts and verified near-duplicate pairs link to it.

Clusters are for looking only. Nothing is ever removed because it is in one: a removed document has a witness of its
own, and two members may have nothing in common but neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.inspection import Document, Inspection
from transforms.batches import groups, place_of, split_of
from transforms.kernels.schemas import Fate

__all__ = ["Cluster", "Member", "cluster_lines", "cluster_of"]

MOST_STEPS = 32
"""A cluster is followed this far; each step reads the pairs of the index once."""

U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Member:
    """Another document of a cluster, as seen from the one that was asked for."""

    document: Document
    witness: Document | None
    steps: int  # pairs between the two; 0 for the same text
    similarity: float | None  # exact Jaccard of the two, where they are a pair

    def to_json(self) -> dict[str, Any]:
        return {
            **self.document.place(),
            "witness": self.witness.place() if self.witness else None,
            "similarity_to_witness": self.document.similarity,
            "steps": self.steps,
            "similarity": self.similarity,
        }


@dataclass(frozen=True)
class Cluster:
    address: int  # of the document that was asked for
    size: int  # the asked document included
    complete: bool  # False where it reaches further than was followed
    fates: Mapping[str, int]
    nearest: tuple[Member, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "documents": self.size,
            "complete": self.complete,
            "fates": dict(self.fates),
            "nearest": [member.to_json() for member in self.nearest],
        }


def cluster_of(inspection: Inspection, address: int, most: int) -> Cluster:
    """The cluster of a document, and its `most` nearest members: fewest pairs away, then most alike, then kept ones."""
    # Edges are between texts; a text goes by its first document, and its copies stand in `exact`.
    start = _first_of(inspection, np.uint64(address))
    found = _linked_texts(inspection, start)
    documents, texts = _with_copies(inspection, found.texts)
    at = np.searchsorted(found.texts, texts)
    steps, shared, union = found.steps[at], found.shared[at], found.union[at]
    alike = np.where(union > 0, shared / np.maximum(union, 1), 0.0)
    fates = _fates_of(inspection, documents)
    nearest = np.lexsort((documents, fates != Fate.KEPT, -alike, steps))
    nearest = nearest[documents[nearest] != address][:most]
    known = inspection.documents(documents[nearest].tolist())
    witnesses = inspection.witnesses(known.values())
    members = []
    for place in nearest.tolist():
        document = known[int(documents[place])]
        _, witness = witnesses.get(document.address, (None, None))
        similarity = round(float(alike[place]), 6) if union[place] else None
        members.append(Member(document, witness, int(steps[place]), similarity))
    counts = {fate.label: int((fates == fate).sum()) for fate in Fate if (fates == fate).any()}
    return Cluster(address, len(documents), found.complete, counts, tuple(members))


@dataclass(frozen=True)
class _Linked:
    """Texts of a cluster, sorted; per text the pairs to the start, and its Jaccard to it where they are one pair."""

    texts: U64
    steps: npt.NDArray[np.int64]
    shared: npt.NDArray[np.int64]
    union: npt.NDArray[np.int64]
    complete: bool


def _first_of(inspection: Inspection, address: np.uint64) -> np.uint64:
    for table in inspection.edge_files("exact"):
        hit = np.flatnonzero(table["document"].to_numpy() == address)
        if len(hit):
            return np.uint64(table["first"][int(hit[0])].as_py())
    return address


def _linked_texts(inspection: Inspection, start: np.uint64) -> _Linked:
    texts = frontier = np.array([start], np.uint64)
    steps = shared = union = np.zeros(1, np.int64)
    for step in range(1, MOST_STEPS + 1):
        others, of_both, of_any = _neighbours(inspection, frontier)
        frontier, at = np.unique(others, return_index=True)
        new = ~np.isin(frontier, texts)
        frontier, at = frontier[new], at[new]
        if len(frontier) == 0:
            break
        texts = np.concatenate([texts, frontier])
        steps = np.concatenate([steps, np.full(len(frontier), step)])
        near = step == 1  # only these are a pair with the start
        shared = np.concatenate([shared, of_both[at] * near])
        union = np.concatenate([union, of_any[at] * near])
    order = np.argsort(texts)
    return _Linked(texts[order], steps[order], shared[order], union[order], complete=len(frontier) == 0)


def _neighbours(inspection: Inspection, texts: U64) -> tuple[U64, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of every pair with one of the texts: the other one, and Jaccard as two integers."""
    found = [(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))]
    for table in inspection.edge_files("pairs"):
        left, right, shared, union = (table[name].to_numpy() for name in ("left", "right", "shared", "union"))
        for mine, others in ((left, right), (right, left)):
            hit = np.flatnonzero(np.isin(mine, texts))
            found.append((others[hit], shared[hit], union[hit]))
    others, of_both, of_any = (np.concatenate(column) for column in zip(*found, strict=True))
    return others, of_both, of_any


def _with_copies(inspection: Inspection, texts: U64) -> tuple[U64, U64]:
    """All documents that have these texts, and the text of each."""
    documents, of_text = [texts], [texts]
    for table in inspection.edge_files("exact"):
        first = table["first"].to_numpy()
        hit = np.flatnonzero(np.isin(first, texts))
        documents.append(table["document"].to_numpy()[hit])
        of_text.append(first[hit])
    return np.concatenate(documents), np.concatenate(of_text)


def _fates_of(inspection: Inspection, documents: U64) -> npt.NDArray[np.uint8]:
    fates = np.empty(len(documents), np.uint8)
    order, runs = groups(split_of(documents))
    for split, start, end in runs:
        rows = order[start:end]
        fates[rows] = inspection.fates(split, ["fate"])["fate"].to_numpy()[place_of(documents[rows])]
    return fates


def cluster_lines(cluster: Cluster, most: int) -> Iterator[str]:
    """A cluster for people; nothing for a document that is like no other."""
    if cluster.size == 1:
        return
    fates = ", ".join(f"{count:,} {fate}" for fate, count in cluster.fates.items())
    least = "" if cluster.complete else "at least "
    yield f"cluster of {least}{cluster.size:,} documents, itself included: {fates}"
    shown = cluster.nearest[:most]
    for member in shown:
        document = member.document
        yield f"  {document.id} ({_place(document)}): {document.fate}, {_likeness(member)}{_witness(member, cluster)}"
    more = cluster.size - 1 - len(shown)
    if more > 0:
        yield f"  and {more:,} more"


def _place(document: Document) -> str:
    return f"{document.source}/{document.shard} row {document.row}"


def _likeness(member: Member) -> str:
    if member.steps == 0:
        return "the same text"
    if member.similarity is not None:
        return f"similarity {member.similarity}"
    return f"{member.steps} pairs away"


def _witness(member: Member, cluster: Cluster) -> str:
    witness, document = member.witness, member.document
    if witness is None:
        return ""
    if document.partner_index is not None:
        return f"; its witness is {witness.id}, in {document.partner_index} ({_place(witness)})"
    if witness.address == cluster.address:
        return "; this document is its witness"
    return f"; its witness is {witness.id} ({_place(witness)}), similarity {document.similarity}"
