"""Scores of a deduplication against the truth, none of which asks which of two duplicates was kept."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from peers.tools import Found
from peers.truth import Truth

BIN = 0.05
BINS = np.round(np.arange(0.3, 1.0, BIN), 2)
"""Lower ends; the last bin holds 1 itself."""


class Score(NamedTuple):
    removed: int
    precision: float
    """Share of the removed documents that have a kept one at or above the threshold."""
    recall: float
    """Of the removals needed, the share that was made: what the plain algorithm would still remove is missing."""
    ari: float
    """Adjusted Rand index of the clusters found against the components of all pairs at or above the threshold."""


def score(truth: Truth, found: Found, threshold: Fraction) -> Score:
    removed = ~found.kept
    # Rounding to 12 digits keeps similarities equal to the threshold on its side.
    justified = int((removed & (truth.closest_among(found.kept) >= round(float(threshold), 12))).sum())
    left, _ = truth.greedy(threshold, among=found.kept)
    missing = int(found.kept.sum() - left.sum())
    return Score(
        removed=int(removed.sum()),
        precision=ratio(justified, int(removed.sum())),
        recall=ratio(justified, justified + missing),
        ari=adjusted_rand_index(found.cluster, truth.clusters(threshold)),
    )


def ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def pairs_resolved(truth: Truth, found: Found) -> list[tuple[int, int]]:
    """Per bin of similarity: pairs of which at least one document is gone, and all pairs."""
    gone = ~(found.kept[truth.pairs.better] & found.kept[truth.pairs.worse])
    return binned(truth.pairs.similarity, gone)


def binned(similarity: npt.NDArray[np.float64], hit: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    place = np.clip(np.searchsorted(BINS, similarity, side="right") - 1, 0, len(BINS) - 1)
    hits = np.bincount(place[hit], minlength=len(BINS))
    return list(zip(hits.tolist(), np.bincount(place, minlength=len(BINS)).tolist(), strict=True))


def adjusted_rand_index(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
    """Hubert and Arabie: pairs together in both clusterings, corrected for chance; 1 is the same clustering."""

    def pairs_within(labels: npt.NDArray[np.int64]) -> float:
        sizes = np.unique(labels, return_counts=True)[1].astype(np.float64)
        return float((sizes * (sizes - 1) / 2).sum())

    _, first = np.unique(one, return_inverse=True)
    _, second = np.unique(other, return_inverse=True)
    both = pairs_within(first.astype(np.int64) * (second.max() + 1) + second)
    a, b = pairs_within(first), pairs_within(second)
    expected = a * b / (len(one) * (len(one) - 1) / 2)
    most = (a + b) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)
