"""Held-out human text stays held out: what must never be, looked for once more, and the stop that follows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.catalog import Shard
from pipeline.errors import GuardTripped
from transforms import files

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
    told = [f"{held_out.name!r} is {how} as {mine.source}/{mine.name}" for mine, held_out, how in shared]
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
            yield shard, by_path[_real(shard.path)], "the same file"
        elif (same := by_digest.get(digest(shard.key) or "")) is not None:
            yield shard, same, "the same bytes"


def _real(path: str) -> str:
    return os.path.realpath(path) if files.is_local(path) else path


def holding_warnings(fates: Fates) -> Iterator[str]:
    """Documents that hold held-out text within more of their own: they stay, and their owner is told."""
    holding = sum(account["holds_held_out"] for account in fates.accounts)
    if holding:
        several = "1 document holds" if holding == 1 else f"{holding:,} documents hold"
        yield (
            f"diversity.reference: {several} a held-out text among more text. Only what has the text of a held-out "
            "document, or is near it, is held out; leave the others out by `exclude` if that is not enough"
        )


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
