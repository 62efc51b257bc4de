"""Dedup kernels against plain Python on random input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.kernels import dedup

SETS = st.lists(st.sets(st.integers(0, 40), max_size=25), min_size=2, max_size=12)


def packed(sets: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    rows = [np.array(sorted(values), np.uint64) for values in sets]
    return np.concatenate([*rows, np.empty(0, np.uint64)]), np.cumsum([0, *map(len, rows)])


@given(SETS)
def test_shared_and_union_equal_python_sets(sets: list[set[int]]) -> None:
    hashes, offsets = packed(sets)
    left, right = np.triu_indices(len(sets), 1)
    shared, union = dedup.shared_and_union(left, right, hashes, offsets)
    assert shared.tolist() == [len(sets[a] & sets[b]) for a, b in zip(left, right, strict=True)]
    assert union.tolist() == [len(sets[a] | sets[b]) for a, b in zip(left, right, strict=True)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=30))
def test_exact_groups_name_the_first_document_of_each_text(digests: list[tuple[int, int]]) -> None:
    high = np.array([d[0] for d in digests], np.uint64)
    low = np.array([d[1] for d in digests], np.uint64)
    documents = np.arange(len(digests), dtype=np.uint64)[::-1].copy()
    groups = dedup.exact_groups(high, low, documents)
    best = {d: min(int(documents[i]) for i, e in enumerate(digests) if e == d) for d in digests}
    assert sorted(int(documents[i]) for i in groups.first) == sorted(best.values())
    assert len(groups.first) + len(groups.copies) == len(digests)
    for row, leader in zip(groups.copies, groups.copy_of, strict=True):
        assert int(documents[leader]) == best[digests[row]]
        assert row != leader


def pairs_of(*columns: np.ndarray, most: int = dedup.MOST_PAIRS) -> tuple[np.ndarray, np.ndarray]:
    """All candidate pairs, which come in parts of at most so many."""
    parts = list(dedup.candidate_pairs(dedup.Banded(*columns), most))
    assert all(len(left) == len(right) <= most for left, right in parts)
    empty = np.empty(0, np.uint64)
    left, right = (np.concatenate([empty, *ends]) for ends in (zip(*parts, strict=True) if parts else ((), ())))
    assert len(np.unique(np.stack([left, right]), axis=1).T) == len(left)
    return left, right


@given(st.lists(st.integers(0, 3), max_size=60), st.randoms(), st.integers(1, 200))
def test_small_buckets_are_compared_exhaustively_whatever_the_order(
    bands: list[int], random: object, most: int
) -> None:
    size = len(bands)
    rows = list(range(size))
    random.shuffle(rows)  # type: ignore[attr-defined]
    band = np.array(bands, np.uint64)[rows]
    documents = np.array(rows, np.uint64)
    length = (documents % np.uint64(3)).astype(np.uint8)
    digest = documents * np.uint64(7919) % np.uint64(101)
    left, right = pairs_of(band, length, digest, documents, np.zeros(len(rows), np.bool_), most=most)
    found = set(zip(left.tolist(), right.tolist(), strict=True))
    members = {b: [i for i, c in enumerate(bands) if c == b] for b in bands}
    exhaustive = {(i, j) for m in members.values() if len(m) <= 33 for i in m for j in m if i < j}
    assert exhaustive <= found
    assert all(bands[i] == bands[j] and i < j for i, j in found)


@pytest.mark.parametrize("held_out", [0, 1, 40, 150])
@pytest.mark.parametrize("most", [dedup.MOST_PAIRS, 1_000])
def test_in_a_hot_bucket_new_documents_meet_all_that_is_held_out(held_out: int, most: int) -> None:
    size = 3_000
    rng = np.random.default_rng(held_out)
    anchor = np.zeros(size, np.uint8)
    anchor[rng.permutation(size)[:100]] = dedup.ANCHOR
    anchor[rng.permutation(size)[:held_out]] = dedup.REFERENCE
    documents = np.arange(size).astype(np.uint64)
    digest = rng.permutation(size).astype(np.uint64)
    columns = (np.zeros(size, np.uint64), rng.integers(0, 3, size).astype(np.uint8), digest, documents, anchor)
    parts = list(dedup.candidate_pairs(dedup.Banded(*columns), most))
    left, right = (np.concatenate(ends).astype(np.int64) for ends in zip(*parts, strict=True))
    assert all(len(ends) <= most for ends, _ in parts)
    assert not ((anchor[left] != dedup.NEW) & (anchor[right] != dedup.NEW)).any()
    met = set(zip(left.tolist(), right.tolist(), strict=True))
    for reference in np.flatnonzero(anchor == dedup.REFERENCE).tolist():
        for new in np.flatnonzero(anchor == dedup.NEW).tolist():
            assert (min(new, reference), max(new, reference)) in met


def test_where_much_is_held_out_pairs_stay_linear() -> None:
    size = 200_000
    documents = np.arange(size).astype(np.uint64)
    anchor = (documents % np.uint64(2)).astype(np.uint8) * dedup.REFERENCE
    columns = (documents * np.uint64(0), np.zeros(size, np.uint8), documents, documents, anchor.astype(np.uint8))
    pairs = sum(len(left) for left, _ in dedup.candidate_pairs(dedup.Banded(*columns)))
    assert pairs <= 2 * dedup.PIVOTS * size


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.booleans()), max_size=33))
def test_earlier_documents_meet_new_ones_only_and_same_texts_are_known(
    members: list[tuple[int, int, bool]],
) -> None:
    band, digest, earlier = (np.array([member[k] for member in members]) for k in range(3))
    documents = np.arange(len(members), dtype=np.uint64)
    length = np.zeros(len(members), np.uint8)
    found = pairs_of(band.astype(np.uint64), length, digest.astype(np.uint64), documents, earlier.astype(np.bool_))
    wanted = {
        (i, j)
        for i, (b, d, e) in enumerate(members)
        for j, (c, f, g) in enumerate(members)
        if i < j and b == c and not (e and g) and not ((e or g) and d == f)
    }
    assert set(zip(found[0].tolist(), found[1].tolist(), strict=True)) == wanted


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=40))
def test_texts_that_others_hold_are_all_found(rows: list[tuple[int, int, bool]]) -> None:
    high, low = (np.array([row[k] for row in rows], np.uint64) for k in range(2))
    first = {row[:2]: place for place, row in reversed(list(enumerate(rows))) if row[2]}
    ours = np.array(sorted(first.values()), np.int64)
    others = np.array([place for place, row in enumerate(rows) if not row[2]], np.int64)
    mine, theirs = dedup.same_texts(high, low, ours, others)
    wanted = {(first[rows[other][:2]], other) for other in others.tolist() if rows[other][:2] in first}
    assert set(zip(mine.tolist(), theirs.tolist(), strict=True)) == wanted
    assert len(mine) == len(wanted)


def test_a_large_bucket_costs_a_linear_number_of_pairs() -> None:
    size = 20_000
    documents = np.arange(size, dtype=np.uint64)
    band = np.zeros(size, np.uint64)
    own = np.zeros(size, np.bool_)
    left, _ = pairs_of(band, np.zeros(size, np.uint8), documents, documents, own)
    assert len(left) <= dedup.PIVOTS * size
    pivots, counts = np.unique(left, return_counts=True)
    assert len(pivots) == dedup.PIVOTS
    assert np.array_equal(counts, size - 1 - pivots)  # each pivot meets everything after it


@given(
    st.integers(1, 25).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(
                st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] != e[1]),
                max_size=60,
            ),
        )
    )
)
def test_removal_equals_the_plain_greedy_walk(case: tuple[int, list[tuple[int, int]]]) -> None:
    size, edges = case
    left = np.array([e[0] for e in edges], np.int64)
    right = np.array([e[1] for e in edges], np.int64)
    removal = dedup.greedy_removal(size, left, right)
    kept: set[int] = set()
    for document in range(size):
        neighbours = {a + b - document for a, b in edges if document in (a, b)}
        better_kept = sorted(kept & neighbours)
        if better_kept:
            assert not removal.kept[document]
            assert removal.witness[document] == better_kept[0]
            assert {left[removal.edge[document]], right[removal.edge[document]]} == {document, better_kept[0]}
        else:
            kept.add(document)
            assert removal.kept[document]
            assert removal.witness[document] == -1


def test_distinct_pairs_are_sorted_and_unique() -> None:
    left, right = dedup.distinct_pairs(np.array([3, 1, 3, 1], np.uint64), np.array([4, 2, 4, 9], np.uint64))
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(1, 2), (1, 9), (3, 4)]


def test_log2_length_is_coarse() -> None:
    assert dedup.log2_length(np.array([0, 1, 2, 3, 4, 1023, 1024])).tolist() == [0, 1, 2, 2, 3, 10, 11]
