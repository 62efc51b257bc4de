"""Descent from synthetic text, against a walk from each document up all its ancestors."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from transforms.ancestry import NAMED_SCHEMA, NAMES_SCHEMA, _listed
from transforms.kernels.ancestry import descendants, unresolved

DOCUMENTS = st.integers(0, 12)


@given(st.lists(st.tuples(DOCUMENTS, DOCUMENTS), max_size=30), st.sets(DOCUMENTS))
def test_a_document_is_found_if_any_ancestor_is_synthetic(links: list[tuple[int, int]], synthetic: set[int]) -> None:
    names = pa.table(
        [pa.array([c for c, _ in links], pa.uint64()), pa.array([f"d{p}" for _, p in links], pa.string())],
        schema=NAMES_SCHEMA,
    )
    there = range(10)  # 10 to 12 are named, and nobody goes by those names
    named = pa.table(
        [
            pa.array(there, pa.uint64()),
            pa.array([f"d{document}" for document in there]),
            pa.array([document in synthetic for document in there]),
        ],
        schema=NAMED_SCHEMA,
    )

    def descends(document: int, seen: frozenset[int]) -> bool:
        parents = {p for c, p in links if c == document and p != document and p < 10}
        return any(p in synthetic or (p not in seen and descends(p, seen | {p})) for p in parents)

    found = descendants(names, named)
    wanted = {c for c, _ in links if descends(c, frozenset({c}))}
    assert set(found["document"].to_pylist()) == wanted
    assert found.num_rows == len(wanted)
    assert unresolved(names, named) == len({p for _, p in links if p >= 10})


def test_names_are_a_value_or_the_items_of_a_list() -> None:
    assert _listed(" a-1 ") == ["a-1"]
    assert _listed('["b", "a", "b", 7, null, ""]') == ["7", "a", "b"]
    assert _listed("[not json") == ["[not json"]
    assert _listed("  ") == []
