"""Texts gathered from chunks are those that Arrow would take."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    taken = ChunkedTexts(column).take(rows)
    taken.validate(full=True)
    assert taken.type == pa.string()
    assert taken.to_pylist() == column.take(pa.array(rows)).to_pylist()
