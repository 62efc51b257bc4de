"""Held-out texts found in others: exactly those that brute force over sets of shingles finds."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import oracle
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels import heldout
from transforms.kernels.hashing import text_digests
from transforms.kernels.heldout import HeldOutTexts

WORDS = ["one", "two", "three", "four", "five", "six"]
THRESHOLDS = [Fraction(1, 2), Fraction(4, 5), Fraction(19, 20), Fraction(1)]
texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join), max_size=12)


def array(values: list[str]) -> pa.Array:
    return pa.array(values, pa.large_string())


def plain(others: list[str], held_out: list[str], threshold: Fraction) -> set[tuple[int, int, Fraction]]:
    found = set()
    for row, text in enumerate(others):
        mine = oracle.shingles(tuple(oracle.split_words(text)))
        for number, other in enumerate(held_out):
            theirs = oracle.shingles(tuple(oracle.split_words(other)))
            similarity = Fraction(len(mine & theirs), len(mine | theirs) or 1)
            if similarity >= threshold:
                found.add((row, number, similarity))
    return found


@settings(deadline=None, max_examples=150)
@given(texts, texts, texts, st.sampled_from(THRESHOLDS), st.integers(1, 40))
def test_near_texts_are_what_brute_force_finds(
    one: list[str], other: list[str], others: list[str], threshold: Fraction, at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heldout, "_PAIRS_AT_ONCE", at_once)
        held_out = HeldOutTexts.of([array(one), array(other)], 5, threshold)
        found = held_out.near_to(array(others))
    pairs = [
        (row, text, Fraction(shared, union))
        for row, text, shared, union in zip(*(column.tolist() for column in found), strict=True)
    ]
    assert set(pairs) == plain(others, one + other, threshold)


@settings(deadline=None)
@given(texts, texts)
def test_equal_texts_are_found_by_their_digests(held_out: list[str], others: list[str]) -> None:
    found = HeldOutTexts.of([array(held_out)], 5, Fraction(4, 5)).same_as(text_digests(array(others)))
    assert found.rows.tolist() == [row for row, text in enumerate(others) if text in held_out]
    for row, number in zip(found.rows.tolist(), found.texts.tolist(), strict=True):
        assert held_out[number] == others[row]


def test_too_much_text_is_looked_for_by_digests_alone() -> None:
    held_out = HeldOutTexts.of([array(["one two three four five six"] * 5)] * 3, 5, Fraction(4, 5), most=12)
    assert held_out.near is None
    assert held_out.count == 15
    assert len(held_out.near_to(array(["one two three four five six"])).rows) == 0
    assert len(held_out.same_as(text_digests(array(["one two three four five six"]))).rows) == 1


def test_what_all_held_out_texts_share_is_not_what_is_looked_for() -> None:
    """A notice in every text leads to none of them, so other texts with that notice are compared with none."""
    rng = random.Random(1)
    notice = " ".join(f"notice{k}" for k in range(40))
    own = [" ".join(f"w{rng.randrange(10**9)}" for _ in range(60)) for _ in range(300)]
    held_out = HeldOutTexts.of([array([f"{text} {notice}" for text in own])], 5, Fraction(4, 5))
    assert held_out.near is not None
    _, several = np.unique(held_out.near.chosen, return_counts=True)
    assert several.max() == 1
