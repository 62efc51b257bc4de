"""The worst window is that of a plain loop over all windows, however rows are cut into batches."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transforms.kernels.windows import Window, WorstWindow, worst_of

ROWS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40)


@given(ROWS, st.integers(1, 12), st.integers(1, 7))
def test_the_worst_window_is_that_of_a_plain_loop(rows: list[tuple[int, bool]], length: int, batch: int) -> None:
    found = WorstWindow(length)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        found.add(np.array([n for n, _ in part], np.int64), np.array([b for _, b in part], np.bool_))
    starts = range(len(rows) - length + 1) if len(rows) >= length else range(1 if rows else 0)
    sums = [(sum(n for n, b in rows[s : s + length] if b), sum(n for n, _ in rows[s : s + length])) for s in starts]
    shares = [Fraction(part, whole) for part, whole in sums if whole]
    worst = found.worst
    assert (worst is None) == (not rows)
    if worst is not None:
        assert worst.rows == min(length, len(rows))
        assert (worst.part, worst.whole) == sums[worst.first]
        assert (Fraction(worst.part, worst.whole) if worst.whole else None) == (min(shares) if shares else None)


def test_the_worst_of_several_shards_is_the_first_of_equals() -> None:
    half, third, nothing = Window(0, 5, 1, 2), Window(3, 5, 2, 6), Window(1, 5, 0, 0)
    assert worst_of({"c": third, "b": half, "a": nothing, "d": Window(0, 5, 1, 3), "e": None}) == ("c", third)
    assert worst_of({"a": nothing}) is None
