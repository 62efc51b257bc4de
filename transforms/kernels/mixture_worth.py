"""What a mix with repeats is worth: shares of distinct text, and shares with repeats discounted.

Text that a model sees R more times after the first is worth U + U * R_STAR * (1 - exp(-R / R_STAR)) of fresh text,
where U is what is distinct (Muennighoff et al. 2023, fitted on language models): per token almost all at two epochs,
two thirds at sixteen. The floor counts plain tokens; these numbers say beside it how much of them is repetition.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

R_STAR = 15.387756

I64 = npt.NDArray[np.int64]


class VerifiedShares(NamedTuple):
    """Verified human text in a mix: as counted, without repeats, and with repeats discounted."""

    verified: int
    whole: int
    verified_distinct: int
    whole_distinct: int
    effective: float | None  # share, cut off after six decimals; None of an empty mix


def worth(distinct: int, taken: int) -> float:
    """Fresh text that `taken` is worth, of which `distinct` is not repeated."""
    if not distinct:
        return 0.0
    repeats = taken / distinct - 1
    return distinct + distinct * R_STAR * -math.expm1(-repeats / R_STAR)


def verified_shares(verified: npt.NDArray[np.bool_], taken: I64, distinct: I64) -> VerifiedShares:
    """Shares of verified text, given what is taken of each stratum with and without repeats."""
    worths = [worth(d, t) for d, t in zip(distinct.tolist(), taken.tolist(), strict=True)]
    whole = math.fsum(worths)
    part = math.fsum(w for w, counts in zip(worths, verified.tolist(), strict=True) if counts)
    return VerifiedShares(
        int(taken[verified].sum()),
        int(taken.sum()),
        int(distinct[verified].sum()),
        int(distinct.sum()),
        math.floor(part / whole * 10**6 + 1e-6) / 10**6 if whole else None,
    )
