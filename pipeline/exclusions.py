"""What `exclude` did not do: entries that are of no document, and texts that are in the mix from another document."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import settings
from pipeline.config import Config
from transforms.kernels.audit import ShardAudit
from transforms.kernels.hashing import parsed_ids
from transforms.kernels.schemas import Fate

if TYPE_CHECKING:
    from pipeline.layers import Fates

__all__ = ["REMAINING", "exclusion_warnings", "remaining_texts"]

REMAINING = (
    "because other documents have the same text: to take down a text wherever it stands, exclude its `ids`; "
    "`anchormix explain` shows where it was read"
)
_MOST_NAMED = 5


def exclusion_warnings(config: Config, fates: Fates) -> Iterator[str]:
    """Exclusions, or ids of theirs, that are of no document here: what they were meant for may be in the mix."""
    documents: Counter[int] = Counter()
    listed: dict[int, set[int]] = defaultdict(set)
    for account in fates.accounts:
        for number, count, places in account.get("exclusions", ()):
            documents[number] += count
            listed[number].update(places)
    for number, (place, exclusion) in enumerate(settings.exclusions(config)):
        key, names = ("ids", exclusion.ids) if exclusion.ids else ("doc_ids", exclusion.doc_ids)
        missing = [name for at, name in enumerate(names) if at not in listed[number]]
        if missing:
            several = f"{len(missing):,} of {len(names):,} {key} are" if names[1:] else "this id is"
            more = f" and {len(missing) - _MOST_NAMED:,} more" if missing[_MOST_NAMED:] else ""
            told = ", ".join(missing[:_MOST_NAMED]) + more
            yield f"exclude[{place}].{key} ({exclusion.reason}): {several} of no document here: {told}"
        elif not documents[number]:
            yield f"exclude[{place}] ({exclusion.reason}): no document here is of it, so it excludes nothing"


def remaining_texts(out: Path, audits: Sequence[ShardAudit]) -> Iterator[str]:
    """A sentence on texts that were excluded in one place and stand in the mix from another; holds the excluded ids."""
    found = [np.empty(0, "S16")]
    for path in sorted((out / "fates").glob("part-*.parquet")):
        fates = pq.read_table(path, columns=["id", "fate"])
        found.append(parsed_ids(fates.filter(pc.equal(fates["fate"], Fate.EXCLUDED.label))["id"].combine_chunks()))
    excluded = np.unique(np.concatenate(found))
    texts = 0
    for audit in audits:
        ids = np.ascontiguousarray(audit.ids[audit.copies == 0].astype(">u8")).view("S16").reshape(-1)
        texts += int(np.isin(ids, excluded).sum())
    if texts:
        told = "1 text is" if texts == 1 else f"{texts:,} texts are"
        yield f"exclude: {told} excluded in one place and in the mix from another, {REMAINING}"
