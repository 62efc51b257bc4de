"""Splits, addresses, packing and the bounds of an element."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from transforms.batches import (
    PLACE_BITS,
    Split,
    addresses,
    chunks_of_bytes,
    groups,
    pack,
    place_of,
    split_of,
    unpack,
    unpack_all,
)

DTYPES = [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float64, np.bool_]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        st.one_of(arrays.array_shapes(max_dims=1, min_side=0), st.tuples(st.integers(0, 5), st.integers(1, 9))),
        elements={"allow_nan": False} if dtype is np.float64 else None,
    )
)


@given(st.lists(ARRAYS, max_size=5))
def test_unpack_gives_back_what_was_packed(given: list[Any]) -> None:
    found = unpack(pack(*given))
    assert len(found) == len(given)
    for mine, theirs in zip(given, found, strict=True):
        assert theirs.dtype == mine.dtype
        assert theirs.shape == mine.shape
        assert np.array_equal(mine, theirs)


@given(ARRAYS)
def test_packing_looks_at_values_not_at_memory(given: Any) -> None:
    strided = np.repeat(given, 2, axis=0)[::2]
    swapped = given.astype(given.dtype.newbyteorder(">"))
    assert pack(strided) == pack(given) == pack(swapped)


def test_unpacking_does_not_copy() -> None:
    data = pack(np.arange(1000))
    assert np.shares_memory(unpack(data)[0], np.frombuffer(data, np.uint8))


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6))
def test_packets_of_one_layout_are_joined(parts: list[list[int]]) -> None:
    packets = [pack(np.array(part, np.int64), np.array(part, np.uint8)) for part in parts]
    expected = [number for part in parts for number in part]
    found = unpack_all(packets)
    assert [column.tolist() for column in found] == ([expected, expected] if parts else [])


def test_packets_of_different_layouts_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        unpack_all([pack(np.arange(2)), pack(np.arange(2), np.arange(2))])


@given(st.lists(st.integers(0, 6)))
def test_groups_are_the_runs_of_a_stable_sort(keys: list[int]) -> None:
    order, runs = groups(np.array(keys, np.int64))
    found = {key: order[start:end].tolist() for key, start, end in runs}
    assert found == {key: [at for at, value in enumerate(keys) if value == key] for key in sorted(set(keys))}
    assert list(found) == sorted(found)


@given(st.lists(st.integers(0, 50)), st.integers(1, 100))
def test_chunks_cover_everything_and_hold_the_bound(sizes: list[int], most: int) -> None:
    chunks = chunks_of_bytes(np.array(sizes, np.int64), most)
    assert [at for start, end in chunks for at in range(start, end)] == list(range(len(sizes)))
    for (start, end), following in zip_longest(chunks, chunks[1:]):
        assert end > start
        assert end == start + 1 or sum(sizes[start:end]) <= most
        if following:  # no chunk ends early
            assert sum(sizes[start : end + 1]) > most


def test_one_item_above_the_bound_stands_alone() -> None:
    assert chunks_of_bytes(np.array([3, 20, 3, 3], np.int64), 10) == [(0, 1), (1, 2), (2, 4)]


@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 2**32 - 1)), min_size=1))
def test_addresses_sort_by_split_and_place_and_come_apart_again(documents: list[tuple[int, int]]) -> None:
    made = np.concatenate([addresses(split, np.array([place], np.int64)) for split, place in documents])
    assert split_of(made).tolist() == [split for split, _ in documents]
    assert place_of(made).tolist() == [place for _, place in documents]
    assert [documents[at] for at in np.argsort(made, kind="stable")] == sorted(documents)
    assert made.dtype == np.uint64
    assert int(made[0]) == documents[0][0] << PLACE_BITS | documents[0][1]


@pytest.mark.parametrize("row_groups", [None, (0, 3)])
def test_a_split_survives_its_bytes(row_groups: tuple[int, int] | None) -> None:
    split = Split(
        index=3,
        source="prensa ñ",
        shard="a/b.parquet",
        path="/data/a/b.parquet",
        kind="parquet",
        compression="none",
        row_groups=row_groups,
        first_row=0,
        weight=17,
        facts="/index/facts/0123abcd/00000-00003.parquet",
        whole=True,
    )
    assert Split.from_bytes(split.to_bytes()) == split
    assert split.facts_name == "0123abcd/00000-00003"
