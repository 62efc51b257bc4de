"""What became of verified human text from one mix to the next: what was lost, and what left for good reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipeline.config import UNSTATED
from pipeline.diff_documents import REPLACED, Amount, Change, DocumentDiff
from pipeline.exclusions import REMAINING
from pipeline.manifest import decimal
from transforms.kernels.schemas import Fate, Provenance

__all__ = ["LOST", "TAKEN_DOWN", "HumanText", "human_text", "kind_of_loss", "listed", "remained_notes"]

LOST, TAKEN_DOWN = "lost", "taken_down"
"""How verified text left: with nothing to say for it, or excluded for a stated reason. The third way is REPLACED."""

_VERIFIED = Provenance.HUMAN_VERIFIED.label


def kind_of_loss(change: Change) -> str:
    """A take-down is somebody's decision and on record with its reason, and a near-duplicate that is verified text of
    the new mix stands for the old text: neither is a loss that a version must not have by accident."""
    if change.why == Fate.EXCLUDED.label and change.reason != UNSTATED:
        return TAKEN_DOWN
    return REPLACED if change.why == REPLACED else LOST


@dataclass(frozen=True)
class HumanText:
    """Verified text of two mixes; tokens count once for each document."""

    old: Amount
    new: Amount
    gone: Mapping[Change, Amount]  # verified in the old mix, and not in the new one
    came: Amount  # verified in the new mix, and not in the old one

    def amount(self, kind: str) -> Amount:
        return _total(amount for change, amount in self.gone.items() if kind_of_loss(change) == kind)

    @property
    def lost(self) -> Amount:
        return self.amount(LOST)

    def within(self, allowed: Fraction | None) -> bool:
        """Whether no more than this share was lost, of tokens and of documents; None allows all."""
        if allowed is None:
            return True
        pairs = zip(self.lost, self.old, strict=True)
        return all(lost * allowed.denominator <= old * allowed.numerator for lost, old in pairs)

    def reasons(self) -> dict[str, Amount]:
        """What was lost, by why."""
        found: dict[str, Amount] = defaultdict(Amount)
        for change, amount in self.gone.items():
            if kind_of_loss(change) == LOST:
                found[change.why] = found[change.why].plus(amount)
        return dict(sorted(found.items(), key=lambda entry: (-entry[1].tokens, entry[0])))

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {name: getattr(self, name)._asdict() for name in ("old", "new", "came")}
        told |= {kind: self.amount(kind)._asdict() for kind in (LOST, TAKEN_DOWN, REPLACED)}
        told["lost_share"] = decimal(self.lost.tokens, self.old.tokens)
        told["gone"] = [{"counts_as": kind_of_loss(change), **entry} for change, entry in _entries(self.gone)]
        return told


def human_text(documents: DocumentDiff) -> HumanText:
    gone: dict[Change, Amount] = defaultdict(Amount)
    for changes in (documents.left, documents.demoted):
        for change, amount in changes.items():
            if change.provenance == _VERIFIED:
                gone[change] = gone[change].plus(amount)
    came = [amount for change, amount in documents.came.items() if change.provenance == _VERIFIED]
    came += documents.promoted.values()
    return HumanText(documents.was_verified, documents.is_verified, dict(gone), _total(came))


def remained_notes(documents: DocumentDiff) -> Iterator[str]:
    """A sentence on texts that an exclusion took out in one place and that are in the mix from another."""
    remained = _total(documents.remained.values())
    if remained.documents:
        texts = "1 text" if remained.documents == 1 else f"{remained.documents:,} texts"
        yield (
            f"{texts} ({remained.tokens:,} tokens) of OLD that NEW excludes in one place are in NEW from another, "
            f"{REMAINING}"
        )


def listed(changes: Mapping[Change, Amount]) -> list[dict[str, Any]]:
    """Changes as JSON, the most tokens first."""
    return [entry for _, entry in _entries(changes)]


def _entries(changes: Mapping[Change, Amount]) -> Iterator[tuple[Change, dict[str, Any]]]:
    in_order = sorted(changes.items(), key=lambda entry: (-entry[1].tokens, *(str(part) for part in entry[0])))
    for change, amount in in_order:
        yield change, {**change._asdict(), **amount._asdict()}


def _total(amounts: Iterable[Amount]) -> Amount:
    total = Amount()
    for amount in amounts:
        total = total.plus(amount)
    return total
