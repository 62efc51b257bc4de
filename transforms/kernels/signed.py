"""Which of many texts may be near one of a few, from signatures alone, so that next to none is missed.

Bands that decide what is exchanged have to be selective, and miss some pairs at the threshold. Where one side is small
enough for every worker to hold, shorter bands may propose more, because their signatures are at hand to reject it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from transforms.kernels.bands import Bands, candidate_probability
from transforms.kernels.minhash import band_hashes

MISSED = 1e-6
"""The greatest probability with which the bands miss a pair at the threshold."""

_DEVIATIONS = 5.5  # of an estimate from its expectation that reject no pair: 2 in 10^8
_PAIRS_AT_ONCE = 1 << 20

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


class SignedTexts(NamedTuple):
    """Signatures of texts, and the hashes of their short bands in rising order beside the texts they are of."""

    signatures: npt.NDArray[np.uint32]
    hashes: U64
    owners: I64


def short_bands(threshold: float, permutations: int) -> Bands:
    """The most rows a band that miss a pair at the threshold with a probability of at most MISSED."""
    for rows in range(permutations, 0, -1):
        bands = Bands(permutations // rows, rows)
        if 1 - candidate_probability(bands, threshold) <= MISSED:
            return bands
    return Bands(permutations, 1)


def least_agreement(threshold: float, permutations: int) -> int:
    """The slots of two signatures that agree at the least, where the Jaccard is at the threshold or above."""
    deviation = math.sqrt(permutations * threshold * (1 - threshold))
    return max(1, math.floor(permutations * threshold - _DEVIATIONS * deviation))


def sign_texts(signatures: npt.NDArray[np.uint32], bands: Bands) -> SignedTexts:
    hashes = band_hashes(signatures, bands)
    order = np.argsort(hashes, axis=None, kind="stable")
    return SignedTexts(signatures, hashes.reshape(-1)[order], (order // bands.bands).astype(np.int64))


def likely_near(
    signatures: npt.NDArray[np.uint32], texts: SignedTexts, bands: Bands, least: int
) -> Iterator[tuple[I64, I64]]:
    """Rows of `signatures` beside texts that share a band and agree in at least so many slots; a pair may repeat."""
    hashes = band_hashes(signatures, bands)
    first = np.searchsorted(texts.hashes, hashes.reshape(-1), "left")
    several = np.searchsorted(texts.hashes, hashes.reshape(-1), "right") - first
    hits = np.flatnonzero(several)
    rows, first, several = hits // bands.bands, first[hits], several[hits]
    ends = np.cumsum(several)
    start = 0
    while start < len(hits):
        end = max(start + 1, int(np.searchsorted(ends, ends[start] + _PAIRS_AT_ONCE)))
        count = several[start:end]
        at = np.repeat(first[start:end] - np.cumsum(count) + count, count) + np.arange(count.sum())
        left, right = np.repeat(rows[start:end], count), texts.owners[at]
        near = np.empty(len(left), np.bool_)
        _agree(signatures, texts.signatures, left, right, least, near)
        yield left[near], right[near]
        start = end


@njit(nogil=True, cache=True)
def _agree(one: Any, other: Any, left: Any, right: Any, least: int, near: Any) -> None:
    for pair in range(len(left)):
        agreed = 0
        for slot in range(one.shape[1]):
            agreed += one[left[pair], slot] == other[right[pair], slot]
        near[pair] = agreed >= least
