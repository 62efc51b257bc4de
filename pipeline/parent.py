"""`mix.parent`: the mix that this one succeeds, and what became of its verified human text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipeline.config import Config
from pipeline.diff_documents import REPLACED, compare_documents
from pipeline.errors import GuardTripped
from pipeline.human_text import TAKEN_DOWN, HumanText, human_text
from pipeline.manifest import SIGNED_MANIFEST, MixClaims, decimal
from pipeline.mix_folder import MixFolder
from pipeline.publish import SUCCESS

__all__ = ["load_parent", "parent_line", "succeeding", "told_parent"]

_KEY = "mix.parent"


def load_parent(config: Config) -> MixFolder | None:
    """Exit 2 where the config names a parent that is no published mix, or not a whole one."""
    return None if config.mix.parent is None else MixFolder.open(config.mix.parent, _KEY)


def parent_line(parent: MixFolder) -> str:
    """What the parent holds, for the terminal."""
    totals = parent.claimed.fields["totals"]
    return f"parent {parent.path}: {totals['documents']:,} documents, {totals['tokens']:,} tokens"


def told_parent(parent: MixFolder) -> dict[str, Any]:
    """Where the parent lay and what was looked at, for run.json: the manifest holds no path."""
    signed = [f"{SIGNED_MANIFEST} is over this manifest"] if (parent.path / SIGNED_MANIFEST).exists() else []
    checked = [f"{SUCCESS} is there", "the manifest is one", "data/ holds its shards, in their sizes", *signed]
    return {"path": str(parent.path), **parent.identity, "checked": checked}


def succeeding(config: Config, claims: MixClaims, parent: MixFolder, staged: MixFolder) -> MixClaims:
    """The claims with what became of the parent's verified text; exit 6 where more was lost than the config allows."""
    human = human_text(compare_documents(parent, staged))
    if not human.within(config.mix.max_human_loss):
        raise GuardTripped(
            "human_text_lost",
            f"mix.parent: {_lost(human)}. mix.max_human_loss allows {float(config.mix.max_human_loss):g}. Nothing was "
            "published. Bring back the sources, keys or sizes that it left with, exclude with a reason what has to go, "
            "or raise mix.max_human_loss.",
            allowed=str(config.mix.max_human_loss),
            **human.to_json(),
        )
    return replace(claims, succession=human.to_json(), notes=[*claims.notes, *_notes(human)])


def _notes(human: HumanText) -> Iterator[str]:
    if human.lost.documents:
        yield f"parent: {_lost(human)}. `anchormix diff` with the parent shows all of it, and ends with exit code 4"
    for kind, how in ((TAKEN_DOWN, "taken down by `exclude`"), (REPLACED, "replaced by verified near-duplicates")):
        amount = human.amount(kind)
        if amount.documents:
            yield f"parent: verified documents of it that were {how}: {amount.documents:,} ({amount.tokens:,} tokens)"


def _lost(human: HumanText) -> str:
    reasons = ", ".join(f"{amount.documents:,} {why}" for why, amount in human.reasons().items())
    share = decimal(human.lost.tokens, human.old.tokens)
    return (
        f"{human.lost.documents:,} of {human.old.documents:,} documents of its verified human text "
        f"({human.lost.tokens:,} tokens, a share of {share}) are no verified text of this mix: {reasons}"
    )
