"""What a shard's writer refuses, and the helpers that deal documents to strata and shards."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from transforms.kernels import strata
from transforms.kernels.hashing import hex_ids
from transforms.kernels.layout import MAX_ROW_GROUP_BYTES, refusal
from transforms.mixture import MixSettings, writers_for
from transforms.planned import Assignments, Draw


def refused(ends: list[int], sizes: list[int], *, strict: bool) -> str | None:
    told = refusal(np.array(ends), np.array(sizes), 3, strict)
    return told and told["reason"]


def test_a_row_group_that_no_reader_could_hold_is_refused() -> None:
    half = MAX_ROW_GROUP_BYTES // 2
    assert refused([2, 3], [half, half, 1], strict=False) is None
    assert refused([2, 3], [half, half + 1, 1], strict=False) == "row_group_bytes"


def test_grown_row_groups_are_refused_only_when_the_layout_is_strict() -> None:
    assert refused([3, 6], [1] * 6, strict=True) is None
    assert refused([4, 6], [1] * 6, strict=True) == "row_group_grown"
    assert refused([4, 6], [1] * 6, strict=False) is None


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=20))
def test_ids_are_the_hex_of_the_first_half_of_a_digest(digests: list[bytes]) -> None:
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    assert hex_ids(rows).to_pylist() == [digest[:16].hex() for digest in digests]


VALUES = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None])), max_size=40)


@given(VALUES, st.randoms())
def test_distinct_rows_are_numbered_by_value_whatever_their_order(
    rows: list[tuple[object, object]], random: object
) -> None:
    random.shuffle(rows)  # type: ignore[attr-defined]
    columns = [pa.array([r[0] for r in rows], pa.string()), pa.array([r[1] for r in rows], pa.int64())]
    codes, values = strata.distinct_rows(columns)
    assert [values[code] for code in codes] == rows
    assert len(values) == len(set(rows))
    assert values == sorted(values, key=lambda row: [(value is not None, value) for value in row])
    encoded = [column.dictionary_encode() for column in columns]  # as other programs write them
    assert [found.tolist() if isinstance(found, np.ndarray) else found for found in strata.distinct_rows(encoded)] == [
        codes.tolist(),
        values,
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 2**40)), max_size=60))
def test_cell_totals_are_exact_sums(rows: list[tuple[int, int, int]]) -> None:
    columns = [np.array([row[k] for row in rows], np.int64) for k in range(3)]
    ones = np.ones(len(rows), np.int64)
    totals = strata.cell_totals(columns[0], columns[1], ones, columns[2], columns[2])
    expected: dict[tuple[int, int], list[int]] = {}
    for stratum, bucket, tokens in rows:
        cell = expected.setdefault((stratum, bucket), [0, 0])
        cell[0] += 1
        cell[1] += tokens
    found = zip(*(column.tolist() for column in totals), strict=True)
    assert [(s, b, [d, t]) for s, b, d, t, _ in found] == [(*key, value) for key, value in sorted(expected.items())]


def test_assignments_are_found_by_cell() -> None:
    plan = Assignments(("x", "y"), *(np.array(c) for c in ([0, 1, 1], [7, 0, 0], [0, 0, 1], [3, 1, 2])))
    asked = np.array([7, strata.BUCKETS, 8, strata.BUCKETS + 1, -5])
    first, copies = Assignments.from_bytes(plan.to_bytes()).lookup().of(asked)
    assert copies.tolist() == [1, 2, 0, 0, 0]
    assert plan.shard[first[1] : first[1] + 2].tolist() == [1, 2]
    nothing = Assignments((), *[np.zeros(0, np.int64)] * 4).lookup()
    assert nothing.of(asked)[1].tolist() == [0] * 5


def test_copies_stand_in_different_places_and_depend_on_text_and_seed_alone() -> None:
    digests = np.random.default_rng(1).integers(0, 256, (50, 32), np.uint8)
    draw = Draw(7, ())
    zeros, ones = np.zeros(50, np.int64), np.ones(50, np.int64)
    assert np.array_equal(draw.row_order(digests, zeros), draw.row_order(digests[::-1].copy(), zeros)[::-1])
    assert not np.intersect1d(draw.row_order(digests, zeros), draw.row_order(digests, ones)).size
    assert not np.array_equal(draw.row_order(digests, zeros), Draw(8, ()).row_order(digests, zeros))


@given(st.integers(1, 3000), st.integers(0, 1 << 40))
def test_every_writer_has_shards_that_follow_each_other(shards: int, text_bytes: int) -> None:
    writers = writers_for(shards, text_bytes)
    settings = MixSettings("tokens", Fraction(1, 2), 8192, shards, (), "plan", "config", {}, writers=writers)
    found = settings.writer_of(np.arange(shards))
    assert np.unique(found).tolist() == list(range(writers))
    assert (np.diff(found) >= 0).all()
    assert np.ptp(np.bincount(found)) <= 1
    if writers < shards:
        assert text_bytes <= writers * (64 << 20)
