"""Earlier indexes that new documents are compared with: `dedup.against`.

Of an earlier index everything is read and nothing is written: the facts of its documents, the fates that say which of
them its own dedup kept, and the text of those that a new document resembles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.catalog import sketch
from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.index import Index
from pipeline.inspection import Inspection
from pipeline.settings import minhash_params
from transforms import files
from transforms.batches import DedupTask, Origin
from transforms.kernels.columns import ColumnMap
from transforms.kernels.hashing import fingerprint
from transforms.kernels.schemas import Fate
from transforms.sidecars import SourceSettings

_ORIGINS = {"earlier": Origin.EARLIER, "best": Origin.EARLIER_IF_NO_WORSE}


@dataclass(frozen=True)
class EarlierIndex:
    """One index of `dedup.against`, its splits numbered after those of this index."""

    root: str
    fates: str  # key of its fates: what it held when it was looked at
    content: str  # the same by what was read and what became of it, wherever the files lie
    keep: str
    tasks: tuple[DedupTask, ...]
    settings: Mapping[str, SourceSettings]  # by `DedupTask.settings`
    documents: int

    @property
    def weight(self) -> int:
        return sum(task.split.weight for task in self.tasks)


def load_earlier(config: Config, own: Index, first_split: int) -> tuple[EarlierIndex, ...]:
    """All earlier indexes of a config, by path; what cannot be compared with is exit 2."""
    seen = {_real(own.root)}
    found: list[EarlierIndex] = []
    for number, against in enumerate(config.dedup.against):
        key = f"dedup.against.{number}.index"
        if _real(against.index) in seen:
            whose = "the index of this config itself" if _real(against.index) == _real(own.root) else "named twice"
            raise UsageError(
                "earlier_index_repeated", f"{key}: {against.index!r} is {whose}. Name each earlier index once.", key=key
            )
        seen.add(_real(against.index))
    for against in sorted(config.dedup.against, key=lambda against: against.index):
        inspection = _inspect(against.index)
        _refuse_other_sketch(config, against.index, inspection)
        earlier = _number(config, inspection, against.keep, first_split)
        if earlier.tasks:
            found.append(earlier)
            first_split += len(earlier.tasks)
    return tuple(found)


def _real(path: str) -> str:
    return os.path.realpath(path) if files.is_local(path) else path


def _inspect(root: str) -> Inspection:
    index = Index(root)
    current = index.current() if index.exists() else None
    inspection = Inspection.of(index, current) if current else None
    if inspection is None:
        raise UsageError(
            "no_earlier_index",
            f"dedup.against: {root!r} holds no finished index. Give the folder that the earlier config names as "
            "`index`, or run `anchormix index` with that config.",
            index=root,
        )
    stored = index.facts_files()
    ledger = index.facts_ledger()
    for part in inspection.parts.values():
        shard = part.split.facts_name.split("/")[0]
        if not part.known or not ledger[shard].get("files", {}).items() <= stored[shard].items():
            raise UsageError(
                "earlier_index_damaged",
                f"dedup.against: {root!r}: facts of {part.split.source}/{part.split.shard} are gone or incomplete. Run "
                "`anchormix index` with the config of that index.",
                index=root,
            )
    return inspection


def _refuse_other_sketch(config: Config, root: str, inspection: Inspection) -> None:
    """Signatures and shingles of two indexes can only be compared where they were made in the same way."""
    wanted = sketch(config)
    ledger = inspection.index.facts_ledger()
    for part in inspection.parts.values():
        made = ledger[part.split.facts_name.split("/")[0]].get("sketch", {})
        for what, value in wanted.items():
            if made.get(what) != value:
                raise UsageError(
                    "earlier_index_incompatible",
                    f"dedup.against: {root!r} was indexed with {what} {made.get(what, 'unknown')}, and this config and "
                    f"version have {value}. {_REMEDY.get(what, _INDEX_AGAIN)}",
                    index=root,
                    what=what,
                    found=made.get(what),
                    wanted=value,
                )


_INDEX_AGAIN = "Run `anchormix index` with the config of that index, with this version."
_REMEDY = {
    name: f"Set {name} alike in both configs and index again." for name in ("dedup.permutations", "dedup.shingle")
}


def _number(config: Config, inspection: Inspection, keep: str, first_split: int) -> EarlierIndex:
    tasks: list[DedupTask] = []
    readers: dict[str, SourceSettings] = {}
    documents = 0
    for part in inspection.parts.values():
        kept = _kept(part.account)
        if not kept:
            continue
        split = replace(part.split, index=first_split + len(tasks))
        task = DedupTask(split, _ORIGINS[keep], part.fates, inspection.index.root, part.split.index)
        tasks.append(task)
        readers[task.settings] = SourceSettings(
            columns=ColumnMap(text=part.text), minhash=minhash_params(config), artefacts=False
        )
        documents += kept
    content = _content(inspection)
    return EarlierIndex(inspection.index.root, inspection.key, content, keep, tuple(tasks), readers, documents)


def _content(inspection: Inspection) -> str:
    """Digests of the files that were read, and the accounts of what became of their documents, in order."""
    ledger = inspection.index.facts_ledger()
    told: list[str] = []
    for part in inspection.parts.values():
        summaries = ledger[part.split.facts_name.split("/")[0]]["summaries"]
        told += [summary["file_digest"] for summary in summaries]
        told.append(json.dumps(part.account, sort_keys=True))
    return fingerprint(*told)


def _kept(account: Mapping[str, Any]) -> int:
    return sum(documents for _, fate, documents, _ in account["cells"] if fate == Fate.KEPT.label)


def judge_earlier(reports: Sequence[Mapping[str, Any]]) -> None:
    """Exit 2 when the text of earlier documents, which comparing takes, is not there any more."""
    gone = sorted({(report["index"], report["path"]) for report in reports if report["kind"] == "earlier_changed"})
    if not gone:
        return
    root, path = gone[0]
    raise UsageError(
        "earlier_text_gone",
        f"dedup.against: {path!r}"
        + (f" and {len(gone) - 1} more" if gone[1:] else "")
        + f" no longer holds what the index {root!r} was made from, and documents that resemble new ones must be read "
        "again. Restore the file, or run `anchormix index` with the config of that index so that it forgets it.",
        index=root,
        paths=[path for _, path in gone],
    )
