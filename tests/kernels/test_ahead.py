"""Reading ahead changes nothing but the time it takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.kernels.ahead import read_ahead


@given(st.lists(st.integers(), max_size=30))
def test_same_items_in_the_same_order(items: list[int]) -> None:
    assert list(read_ahead(items)) == items


def broken() -> Iterator[int]:
    yield 1
    yield 2
    raise OSError("the disk is gone")


def test_what_making_an_item_raises_is_raised_after_the_items_before_it() -> None:
    ahead = read_ahead(broken())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


def test_only_a_few_items_are_made_ahead_and_none_after_the_user_gave_up() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    ahead = read_ahead(endless())
    assert [next(ahead) for _ in range(5)] == list(range(5))
    ahead.close()
    assert 5 <= len(made) <= 9
    assert not any(thread.name == "anchormix-ahead" for thread in threading.enumerate())


def test_none_is_an_item_like_any_other() -> None:
    assert list(read_ahead([None, 1, None])) == [None, 1, None]
