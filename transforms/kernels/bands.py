"""Bands of a signature: how many rows each has, and which pairs become candidates. Pure arithmetic, loads nothing."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

RECALL = 0.995
"""The least probability with which bands make a candidate of a pair RECALL_MARGIN above the threshold."""
RECALL_MARGIN = 0.05


class Bands(NamedTuple):
    """A signature cut into `bands` of `rows` slots: documents equal in a whole band become candidates."""

    bands: int
    rows: int


def candidate_probability(bands: Bands, similarity: float) -> float:
    """How probably a pair of this Jaccard similarity shares a band."""
    return 1.0 - (1.0 - similarity**bands.rows) ** bands.bands


def sought_similarity(threshold: float) -> float:
    """The similarity of which RECALL is promised: RECALL_MARGIN above the threshold, or half of what is left to 1."""
    return min(threshold + RECALL_MARGIN, (1 + threshold) / 2)


def choose_bands(threshold: float, permutations: int) -> Bands:
    """The most rows a band, hence the fewest false candidates, that still find RECALL of the pairs of a similarity
    RECALL_MARGIN above the threshold, using as many whole bands as there are slots for.

    Close to 1 only identical pairs are .05 above the threshold; they alone would ask for one band of everything, so
    there the margin shrinks.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    similarity = sought_similarity(threshold)
    for rows in range(permutations, 0, -1):
        bands = Bands(permutations // rows, rows)
        if candidate_probability(bands, similarity) >= RECALL:
            return bands
    needed = math.ceil(math.log(1 - RECALL) / math.log(1 - similarity))
    raise ValueError(
        f"{permutations} permutations cannot find {RECALL:.1%} of the pairs of similarity {similarity:.2f} "
        f"that a threshold of {threshold} asks for; use at least {needed} permutations or a higher threshold"
    )


def told_bands(threshold: float, permutations: int) -> dict[str, Any]:
    """The bands of a threshold with their S-curve: similarity to the probability that a pair becomes a candidate.

    Probabilities are rounded down to six digits: what nearly always happens never reads as certain.
    """
    bands = choose_bands(threshold, permutations)
    grid = {round(tenth / 10, 1) for tenth in range(1, 10)} | {threshold, sought_similarity(threshold)}
    return {
        "threshold": f"{threshold:g}",
        "permutations": permutations,
        "bands": bands.bands,
        "rows": bands.rows,
        "at_threshold": _told(bands, threshold),
        "sought": f"{sought_similarity(threshold):g}",
        "at_sought": _told(bands, sought_similarity(threshold)),
        "curve": {f"{similarity:g}": _told(bands, similarity) for similarity in sorted(grid)},
    }


def _told(bands: Bands, similarity: float) -> str:
    return f"{math.floor(candidate_probability(bands, similarity) * 1_000_000) / 1_000_000:.6f}"
