"""FATES: what each document is, and what became of it. Reads no text.

Every split is tagged from its facts (`tagging`), duplicates are removed by rank (`removal`), and the splits write one
row of fates per row of facts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms import counters
from transforms.batches import PLACE_BITS, PLACE_MASK, DedupTask, Split, split_of, unpack
from transforms.exchange import Exchange, Gather, received
from transforms.kernels.schemas import FATES, ID_BYTES, Fate, Provenance, Status
from transforms.pool import PooledDoFn
from transforms.removal import VERDICTS
from transforms.sidecars import fixed_binary, fixed_rows, write_part
from transforms.tagging import Exclusion, FateRules, FateTask, ShardCustody, SplitTask, tag_split

__all__ = ["Exclusion", "FateRules", "FateTask", "SettleFates", "ShardCustody"]


@dataclass
class SettleFates(beam.PTransform):
    """`FateTask`s in; one fates file a split out, listed with its accounting in the file `report`."""

    rules: FateRules
    removal: beam.PTransform  # from tasks to verdicts: `RemoveDuplicates`, or `GiveVerdicts` after rounds
    earlier: Sequence[DedupTask]  # of earlier indexes, numbered after this index's own splits
    folder: str
    report: str
    scratch: str | None

    def expand(self, tasks: Any) -> Any:
        verdicts = tasks | "RemoveDuplicates" >> self.removal
        return (
            (tasks | "WriteTasks" >> beam.ParDo(SplitTask()), verdicts)
            | "WriteBySplit" >> Exchange(self.scratch)
            | "WriteFates" >> beam.ParDo(_WriteFates(self.rules, self.earlier, self.folder))
            | Gather(self.report)
        )


class _WriteFates(PooledDoFn):
    """One row of fates per row of facts, and the split's part of the accounting."""

    def __init__(self, rules: FateRules, earlier: Sequence[DedupTask], folder: str) -> None:
        self._rules = rules
        self._folder = folder
        self._first_earlier = earlier[0].split.index if earlier else 0
        self._indexes = [task.index for task in earlier]
        self._numbers = np.array([task.number for task in earlier], np.uint64)

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[bytes]:
        split, values = element
        bodies = received(values)
        tagged = tag_split(next(bodies), self._rules)
        size = len(tagged.status)
        fate = _FATE_OF_STATUS[tagged.status]
        fate[tagged.excluded] = Fate.EXCLUDED
        fate[tagged.held_out] = Fate.HELD_OUT
        partner = np.zeros((size, ID_BYTES), np.uint8)
        position = np.zeros(size, np.uint64)
        shared = np.zeros(size, np.int64)
        union = np.zeros(size, np.int64)
        represents = np.where(fate == Fate.KEPT, 1, 0)
        witnessed = np.full(size, _NO_WITNESS, np.uint8)  # provenance of the witness
        for body in bodies:
            if body[:1] == VERDICTS:
                places, *verdict = unpack(body[1:])
                fate[places], position[places], high, low, shared[places], union[places], witnessed[places] = verdict
                partner[places] = np.stack([high, low], axis=1).astype(">u8").view(np.uint8)
                represents[places] = 0
            else:
                places, more = unpack(body[1:])
                represents[places] += more
        index, position = self._elsewhere(position)
        unwitnessed = pa.array(union == 0)
        held_out = tagged.held_out
        matches = tagged.reference.filter(pa.array(held_out[tagged.reference["place"].to_numpy()])).combine_chunks()
        partner[held_out] = fixed_rows(matches["partner"], ID_BYTES)
        shared[held_out], union[held_out] = matches["shared"].to_numpy(), matches["whole"].to_numpy()
        alone = pa.array(union == 0)
        table = pa.table(
            {
                "fate": fate,
                "provenance": tagged.tags.provenance,
                "contested": tagged.tags.contested,
                "generator": tagged.tags.generator,
                "kind": tagged.tags.kind,
                "evidence": tagged.tags.evidence,
                "partner": pc.if_else(alone, None, fixed_binary(partner)),
                "partner_position": pc.if_else(unwitnessed, None, pa.array(position)),
                "partner_index": index,
                "shared": shared,
                "union": union,
                "represents": represents,
                "reason": pc.replace_with_mask(tagged.reasons, pa.array(held_out), matches["detail"].combine_chunks()),
            },
            schema=FATES,
        )
        counters.advance("fates", size, tagged.task.split.weight)
        written = json.loads(write_part(self._folder, "fates", split, table))
        custody = tagged.task.custody
        told = account(tagged.task.split, tagged.facts, table, custody is not None, witnessed)
        told["holds_held_out"] = int((tagged.holds_held_out & (fate == Fate.KEPT)).sum())
        if tagged.exclusions:
            told["exclusions"] = tagged.exclusions
        if tagged.detectors:
            told["detectors"] = tagged.detectors
        lost = {"lost_leaves": custody.leaves} if custody is not None and tagged.lost_leaves else {}
        yield json.dumps({**written, **lost, "account": told}, sort_keys=True).encode()

    def _elsewhere(self, position: npt.NDArray[np.uint64]) -> tuple[pa.Array, npt.NDArray[np.uint64]]:
        """The earlier index that holds each partner, null for this one, and the partner's address where it is held."""
        indexes = pa.nulls(len(position), pa.string())
        if not self._indexes:
            return indexes, position
        which = split_of(position) - self._first_earlier
        held = which >= 0
        which = np.maximum(which, 0)
        names = pa.array(self._indexes, pa.string()).take(pa.array(which))
        there = (self._numbers[which] << np.uint64(PLACE_BITS)) | (position & PLACE_MASK)
        return pc.if_else(pa.array(held), names, indexes), np.where(held, there, position)


_NO_WITNESS = 255

_FATE_OF_STATUS = np.zeros(4, np.uint8)
_FATE_OF_STATUS[[Status.OK, Status.EMPTY, Status.BAD_RECORD, Status.BAD_FILE]] = [
    Fate.KEPT,
    Fate.EMPTY,
    Fate.BAD_RECORD,
    Fate.BAD_FILE,
]


def account(
    split: Split, facts: pa.Table, fates: pa.Table, in_custody: bool, witnessed: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    """Documents and tokens of a split by provenance and fate: what conservation and the guards are judged on.

    Removed ones also by the provenance of their witness, `witnessed`. Of a shard that custody covers also its
    documents, and those among them that are no leaf.
    """
    fate = fates["fate"].to_numpy()
    provenance = fates["provenance"].to_numpy()
    tokens = facts["n_tokens"].to_numpy()
    cells = []
    for kind in np.unique(provenance):
        for outcome in np.unique(fate[provenance == kind]):
            here = (provenance == kind) & (fate == outcome)
            cells.append([Provenance(kind).label, Fate(outcome).label, int(here.sum()), int(tokens[here].sum())])
    contested = fates["contested"].to_numpy()
    verified = provenance == Provenance.HUMAN_VERIFIED
    readable = (facts["status"].to_numpy() == Status.OK) & in_custody
    return {
        "source": split.source,
        "shard": split.shard,
        "cells": cells,
        "duplicates": _duplicate_cells(fate, witnessed, provenance, tokens),
        "verified_tokens": int(tokens[verified].sum()),
        "contested_tokens": int(tokens[verified & contested].sum()),
        "contested_documents": int((verified & contested).sum()),
        "in_custody": int(readable.sum()),
        "no_leaf": int((readable & ~verified).sum()),
    }


def _duplicate_cells(
    fate: npt.NDArray[np.uint8],
    witnessed: npt.NDArray[np.uint8],
    provenance: npt.NDArray[np.uint8],
    tokens: npt.NDArray[np.int64],
) -> list[list[Any]]:
    """Removed documents as (fate, provenance of the witness, own provenance, documents, tokens)."""
    removed = np.flatnonzero(witnessed != _NO_WITNESS)
    if len(removed) == 0:
        return []
    kinds = np.stack([fate[removed], witnessed[removed], provenance[removed]], axis=1)
    found, number = np.unique(kinds, axis=0, return_inverse=True)
    number = number.reshape(-1)
    documents = np.bincount(number, minlength=len(found))
    weights = np.zeros(len(found), np.int64)
    np.add.at(weights, number, tokens[removed])
    return [
        [Fate(kind).label, Provenance(kept).label, Provenance(own).label, int(count), int(weight)]
        for (kind, kept, own), count, weight in zip(found.tolist(), documents, weights, strict=True)
    ]
