"""Pairs at a threshold from signatures alone: next to none missed, few others proposed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from transforms.kernels import signed
from transforms.kernels.bands import candidate_probability
from transforms.kernels.minhash import MinHashParams, signatures
from transforms.kernels.text import split_words


@pytest.mark.parametrize("permutations", [16, 64, 128, 256])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8, 0.95, 1.0])
def test_short_bands_miss_next_to_nothing_and_are_no_shorter_than_that_takes(
    threshold: float, permutations: int
) -> None:
    bands = signed.short_bands(threshold, permutations)
    assert bands.bands * bands.rows <= permutations
    if bands.rows > 1:
        assert 1 - candidate_probability(bands, threshold) <= signed.MISSED
    assert 1 <= signed.least_agreement(threshold, permutations) <= permutations


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_what_is_proposed_is_what_every_pair_of_signatures_says(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed, "_PAIRS_AT_ONCE", at_once)
    rng = np.random.default_rng(at_once)
    texts = [" ".join(map(str, rng.integers(0, 10**6, 40))) for _ in range(60)]
    edited = [" ".join([*text.split()[: 40 - k % 12], "end"]) for k, text in enumerate(texts * 3)]
    params = MinHashParams(128, 5)
    few, many = (signatures(split_words(pa.array(side, pa.large_string())), params)[0] for side in (texts, edited))
    bands, least = signed.short_bands(0.8, 128), signed.least_agreement(0.8, 128)
    found = {
        pair
        for rows, owners in signed.likely_near(many, signed.sign_texts(few, bands), bands, least)
        for pair in zip(rows.tolist(), owners.tolist(), strict=True)
    }
    agreed = (many[:, None, :] == few[None, :, :]).sum(axis=2)
    in_bands = (
        (many[:, None, :] == few[None, :, :])[:, :, : bands.bands * bands.rows]
        .reshape(len(many), len(few), bands.bands, bands.rows)
        .all(axis=3)
        .any(axis=2)
    )
    assert found == set(zip(*(ends.tolist() for ends in np.nonzero((agreed >= least) & in_bands)), strict=True))
    assert len(found) > 100
