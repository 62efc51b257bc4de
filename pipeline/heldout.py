"""Held-out human text stays held out: what must never be, looked for once more, and the stop that follows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import settings
from pipeline.catalog import Shard, find_reference, reference_source
from pipeline.config import Config
from pipeline.errors import GuardTripped
from transforms import files
from transforms.kernels.audit import AuditedRows, Finding, Findings
from transforms.kernels.heldout import HeldOutTexts, Matches
from transforms.kernels.records import FileFormat, UnreadableFile, read_records
from transforms.kernels.schemas import Status
from transforms.sidecars import unreachable

if TYPE_CHECKING:
    from pipeline.layers import Facts, Fates

LEAK = "held_out_leak"
_TOLD = 5


def judge_reference_shards(inputs: Facts, reference: Facts) -> None:
    """Exit 6 when a file of the reference is read as a source, too, under whatever name."""
    digests = {read.shard.key: read.digest for read in (*inputs.shards, *reference.shards) if read.documents}
    refuse_shared([read.shard for read in inputs.shards], [read.shard for read in reference.shards], digests.get)


def refuse_shared(
    inputs: Iterable[Shard], reference: Sequence[Shard], digest: Callable[[str], str | None] | None = None
) -> None:
    """The same by names alone or, where the sha256 of a shard is known by its key, by bytes."""
    shared = list(_shared(inputs, reference, digest or (lambda key: None)))
    if not shared:
        return
    told = [f"{held_out.name!r} {how} as {mine.source}/{mine.name}" for mine, held_out, how in shared]
    more = f"; and {len(told) - _TOLD:,} more" if told[_TOLD:] else ""
    raise GuardTripped(
        LEAK,
        f"diversity.reference: {'; '.join(told[:_TOLD])}{more}. What is held out cannot be a source as well: "
        f"take the file out of sources.{shared[0][0].source}.files, or out of diversity.reference.",
        shards=[
            {"reference": held_out.name, "source": mine.source, "shard": mine.name} for mine, held_out, _ in shared
        ],
    )


def _shared(
    inputs: Iterable[Shard], reference: Sequence[Shard], digest: Callable[[str], str | None]
) -> Iterator[tuple[Shard, Shard, str]]:
    by_path = {_real(shard.path): shard for shard in reference}
    by_digest = {found: shard for shard in reference if (found := digest(shard.key))}
    for shard in inputs:
        if _real(shard.path) in by_path:
            yield shard, by_path[_real(shard.path)], "is the same file"
        elif (same := by_digest.get(digest(shard.key) or "")) is not None:
            yield shard, same, "has the same bytes"


def _real(path: str) -> str:
    return os.path.realpath(path) if files.is_local(path) else path


class Leak(NamedTuple):
    """A row of a written mix that is like a held-out text; sorts by the file it stands in, and where."""

    file: str
    row: int
    row_group: int
    id: str
    source: str
    shard: str
    shard_row: int
    shared: int  # exact Jaccard as two integers,
    union: int  # both 0 where the text is the same
    reference: str  # file and row of the held-out text

    def told(self) -> str:
        how = (
            f"near {self.reference}, Jaccard {self.shared}/{self.union}" if self.union else f"that of {self.reference}"
        )
        return f"the text of {self.source}/{self.shard} row {self.shard_row} ({self.id}) is {how}"

    def to_json(self) -> dict[str, Any]:
        jaccard = f"{self.shared}/{self.union}" if self.union else "1"
        told = {name: getattr(self, name) for name in ("id", "source", "shard", "file", "row", "reference")}
        return {**told, "shard_row": self.shard_row, "jaccard": jaccard}


_MOST_LEAKS = 1000  # of which more is kept than their number


class HeldOutCheck:
    """Looks at every row of a mix while its shards are recounted: whether it is like a held-out text.

    Neither index nor fates are asked: held-out texts are those that the files hold now, rows those of the mix. The same
    text is found by its digest; near ones by the shingles of both, all of them.
    """

    def __init__(self, texts: HeldOutTexts, places: Sequence[tuple[str, npt.NDArray[np.int64]]]) -> None:
        self.texts = texts
        self.count = 0
        self._names = [name for name, _ in places]
        self._rows = np.concatenate([np.empty(0, np.int64), *(rows for _, rows in places)])
        self._ends = np.cumsum([len(rows) for _, rows in places])
        self._leaks: list[Leak] = []
        self._lock = threading.Lock()

    @classmethod
    def of(cls, config: Config) -> HeldOutCheck | None:
        """Over the reference of a config, read anew; None where there is none."""
        shards = find_reference(config)
        if not shards:
            return None
        places: list[tuple[str, npt.NDArray[np.int64]]] = []
        texts = HeldOutTexts.of(_texts(config, shards, places), config.dedup.shingle, settings.threshold(config))
        return cls(texts, places)

    @property
    def unlooked(self) -> str | None:
        """What is not looked for, where there is more held-out text than that takes."""
        if self.texts.near is not None:
            return None
        return (
            "diversity.reference: too much text to look in the written mix for what is near it, so only equal texts "
            "were looked for; near ones are held out as the index found them"
        )

    @property
    def leaks(self) -> list[Leak]:
        """The first ones, in the order of files and rows."""
        return sorted(self._leaks)[:_MOST_LEAKS]

    def check(self, rows: AuditedRows) -> Iterable[Finding]:
        same = self.texts.same_as(rows.digests)
        first = np.flatnonzero(pc.fill_null(pc.equal(rows.rows["copy"], 0), True).to_numpy(zero_copy_only=False))
        first = np.setdiff1d(first, same.rows)
        near = self.texts.near_to(rows.rows["text"].take(pa.array(first)))
        _, once = np.unique(near.rows, return_index=True)
        near = Matches(first[near.rows[once]], *(column[once] for column in near[1:]))
        columns = (np.concatenate(both).tolist() for both in zip(same, near, strict=True))
        found = [self._leak(rows, *match) for match in zip(*columns, strict=True)]
        if found:
            with self._lock:
                self.count += len(found)
                self._leaks = sorted([*self._leaks, *found])[:_MOST_LEAKS]
        return ()

    def _leak(self, rows: AuditedRows, row: int, text: int, shared: int, union: int) -> Leak:
        place = int(np.searchsorted(self._ends, text, side="right"))
        values = {name: rows.rows[name][row].as_py() for name in ("id", "source", "shard", "row")}
        return Leak(
            file=rows.shard,
            row=rows.first_row + row,
            row_group=rows.row_group,
            id=str(values["id"]),
            source=str(values["source"]),
            shard=str(values["shard"]),
            shard_row=-1 if values["row"] is None else values["row"],
            shared=shared,
            union=union,
            reference=f"{self._names[place]} row {self._rows[text]}",
        )

    def add_to(self, findings: Findings, level: str) -> None:
        expected = "no document that is like held-out text (diversity.reference)"
        leaks = self.leaks
        for number, leak in enumerate(leaks, start=1):
            finding = Finding(level, "held_out", expected, leak.told(), leak.file, leak.row_group, leak.row)
            findings.add(finding, 1 if number < len(leaks) else 1 + self.count - len(leaks))

    def judge(self) -> None:
        """Exit 6 when anything held out stands in the mix that was written."""
        if not self.count:
            return
        leaks = self.leaks
        told = "".join(f"\n  {leak.told()}" for leak in leaks[:_TOLD])
        more = f"\n  and {self.count - _TOLD:,} more" if self.count > _TOLD else ""
        if any(not leak.union for leak in leaks):
            advice = (
                "The index should have held the same texts out: it, or the reference, was changed behind its back. "
                "Remove the index folder and run again."
            )
        else:
            advice = (
                "Signatures propose what is compared, and miss a pair close to dedup.threshold now and then. Leave "
                "these documents out by `exclude: [{ids: [...]}]`; --json lists them under `error.details.leaks`."
            )
        raise GuardTripped(
            LEAK,
            f"diversity.reference: {self.count:,} rows of the mix that was written are held out, so nothing was "
            f"published.{told}{more}\n{advice}",
            rows=self.count,
            leaks=[leak.to_json() for leak in leaks],
        )


def _texts(
    config: Config, shards: Sequence[Shard], places: list[tuple[str, npt.NDArray[np.int64]]]
) -> Iterator[pa.Array]:
    """The texts of the reference, batch by batch; `places` is told where each is from."""
    columns = settings.column_map(config, reference_source(config))
    for shard in shards:
        form: Any = (shard.kind, shard.compression)
        try:
            for batch in read_records(partial(files.open_input, shard.path), shard.path, FileFormat(*form), columns):
                readable = pa.array(batch["status"].to_numpy() == Status.OK)
                places.append((shard.name, batch["row"].filter(readable).to_numpy()))
                yield batch["text"].filter(readable)
        except UnreadableFile as error:
            if unreachable(error) and error.__cause__ is not None:
                raise error.__cause__ from None  # a store's silence must not pass for an empty reference
            continue  # a counted bad record, or the run would have ended


def holding_warnings(fates: Fates) -> Iterator[str]:
    """Documents that hold held-out text within more of their own: they stay, and their owner is told."""
    holding = sum(account["holds_held_out"] for account in fates.accounts)
    if holding:
        several = "1 document holds" if holding == 1 else f"{holding:,} documents hold"
        yield (
            f"diversity.reference: {several} a held-out text among more text. Only what has the text of a held-out "
            "document, or is near it, is held out; leave the others out by `exclude` if that is not enough"
        )


def empty_warnings(reference: Facts) -> Iterator[str]:
    """Files were named and nothing stands in them, so nothing is held out: not what their owner thinks."""
    if reference.shards and not any(summary.readable for summary in reference.summaries):
        files = "1 file holds" if len(reference.shards) == 1 else f"{len(reference.shards):,} files hold"
        yield f"diversity.reference: its {files} no document that could be read, so nothing is held out"


def told_reference(reference: Facts) -> dict[str, Any] | None:
    """For the manifest: what was held out, by content; None where nothing was."""
    if not reference.shards:
        return None
    return {
        "documents": sum(summary.readable for summary in reference.summaries),
        "digest": reference.input_digest,
        "files": [
            {
                "shard": read.shard.name,
                "sha256": read.digest or None,
                "bytes": read.shard.size,
                "documents": sum(summary.readable for summary in read.summaries),
            }
            for read in reference.shards
        ],
    }
