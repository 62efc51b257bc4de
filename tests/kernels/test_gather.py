"""Texts gathered from chunks are those that Arrow would take."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import TypingError

from transforms.kernels.copying import copy_items
from transforms.kernels.gather import ChunkedTexts

CHUNKS = st.lists(st.lists(st.text(max_size=12), max_size=6), max_size=6)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@settings(deadline=None)
@given(chunks=CHUNKS, cut=st.integers(0, 3), data=st.data())
def test_rows_of_any_order_and_number_are_taken(
    chunks: list[list[str]], cut: int, data: st.DataObject, kind: pa.DataType
) -> None:
    column = pa.chunked_array([pa.array(chunk, kind).slice(cut) for chunk in chunks], kind)
    row = st.integers(0, max(0, len(column) - 1))
    rows = np.array(data.draw(st.lists(row, max_size=12 if len(column) else 0)), np.int64)
    texts = ChunkedTexts.of(column.chunks)
    taken = texts.take(rows)
    taken.validate(full=True)
    assert taken.type == pa.string()
    assert taken.to_pylist() == column.take(pa.array(rows)).to_pylist()
    chosen = texts.at(rows)
    assert len(chosen) == len(rows)
    assert chosen.take(np.arange(len(rows))[::-1]).to_pylist() == taken.to_pylist()[::-1]
    assert [row for start, end in chosen.runs() for row in range(start, end)] == list(range(len(rows)))
    both = ChunkedTexts.joined([texts, chosen])
    assert both.take(np.arange(len(both))).to_pylist() == column.to_pylist() + taken.to_pylist()


def test_neighbours_of_one_array_are_told() -> None:
    texts = ChunkedTexts.of([pa.array(["a", "b", "c"]), pa.array([], pa.string()), pa.array(["d"])])
    assert texts.runs() == [(0, 3), (3, 4)]
    assert texts.at(np.array([2, 3, 0, 1])).runs() == [(0, 1), (1, 2), (2, 4)]
    assert texts.at(np.array([], np.int64)).runs() == ChunkedTexts.of([]).runs() == []


def test_texts_are_put_where_they_fit() -> None:
    texts = ChunkedTexts.of([pa.array(["one", "zwei"]), pa.array(["три"])])
    room = pa.allocate_buffer(13)
    taken = texts.take(np.array([2, 1, 0]), room)
    assert taken.to_pylist() == ["три", "zwei", "one"]
    assert taken.buffers()[2].address == room.address
    crowded = texts.take(np.array([2, 1, 0, 0]), room)  # what is said of sizes elsewhere may be wrong
    assert crowded.to_pylist() == ["три", "zwei", "one", "one"]
    assert taken.to_pylist() == ["три", "zwei", "one"]


def test_texts_outside_of_their_array_are_refused() -> None:
    for offsets in ([0, 4, 2, 6], [0, 8, 8, 6], [0, -2, 4, 6]):
        data = pa.py_buffer(np.array(offsets, np.int64))
        broken = pa.Array.from_buffers(pa.large_string(), 3, [None, data, pa.py_buffer(b"abcdef")])
        with pytest.raises(ValueError, match="damaged"):
            ChunkedTexts.of([broken])


@njit
def _copied(target, place, source, first, count):  # type: ignore[no-untyped-def]
    copy_items(target, place, source, first, count)


@pytest.mark.parametrize("kind", [np.uint8, np.uint64, np.float32])
def test_items_are_copied_and_no_other_is_touched(kind: type[np.generic]) -> None:
    source = np.arange(10).astype(kind)
    source.flags.writeable = False
    target = np.full(8, 99, kind)
    _copied(target, 2, source, 5, 3)
    assert target.tolist() == [99, 99, 5, 6, 7, 99, 99, 99]
    _copied(target, 8, source, 10, 0)
    assert target.tolist() == [99, 99, 5, 6, 7, 99, 99, 99]


def test_items_of_another_type_or_spread_out_are_not_copied() -> None:
    for target, source in (
        (np.zeros(4, np.uint8), np.zeros(4, np.uint16)),
        (np.zeros(8, np.uint8)[::2], np.zeros(4, np.uint8)),
    ):
        with pytest.raises(TypingError):
            _copied(target, 0, source, 0, 4)
