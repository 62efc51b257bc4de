"""Candidates of buckets that are too large for one worker: whatever the packets and partitions, and none lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import apache_beam as beam
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import dedup, exchange
from transforms.batches import pack, spread, unpack
from transforms.exchange import packet, received
from transforms.kernels import dedup as kernel

LIMIT = 50
Pairs = set[tuple[int, int]]
Packet = tuple[int, bytes]


def sent(columns: Sequence[np.ndarray], partitions: int, packets: int, seed: int) -> list[Packet]:
    """Records as `_GroupTexts` sends them, in any order."""
    rng = np.random.default_rng(seed)
    found = []
    for number, rows in enumerate(np.array_split(rng.permutation(len(columns[0])), packets)):
        homes = columns[0][rows] % np.uint64(partitions)
        for home in np.unique(homes).tolist():
            mine = rows[homes == home]
            found.append((home, packet(pack(*(column[mine] for column in columns)), number)))
    return [found[place] for place in rng.permutation(len(found))]


def paired(packets: Iterable[Packet], partitions: int, limit: int | None) -> tuple[Pairs, list[Packet], int]:
    """Candidate pairs, what goes on to be paired within smaller buckets, and the most records of one bucket held."""
    values: dict[int, list[bytes]] = defaultdict(list)
    for home, value in packets:
        values[home].append(exchange._INLINE + value)
    pairs: Pairs = set()
    on: list[Packet] = []
    stage = dedup._PairUp(partitions, limit)
    for home, arrived in values.items():
        for output in stage.work((home, arrived)):
            if isinstance(output, beam.pvalue.TaggedOutput):
                on.append(output.value)
                continue
            (body,) = received([exchange._INLINE + output[1]])
            left, right = unpack(body)
            assert np.all(spread(left) % np.uint64(partitions) == output[0])
            pairs |= set(zip(left.tolist(), right.tolist(), strict=True))
    bands = [unpack(body)[0] for value in on for body in received([exchange._INLINE + value[1]])]
    largest = int(np.unique(np.concatenate(bands), return_counts=True)[1].max()) if bands else 0
    return pairs, on, largest


def all_pairs(columns: Sequence[np.ndarray], partitions: int, packets: int, seed: int) -> tuple[Pairs, int]:
    pairs, on, largest = paired(sent(columns, partitions, packets, seed), partitions, LIMIT)
    within, further, _ = paired(on, partitions, None)
    assert not further
    return pairs | within, largest


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=4),
    st.integers(1, 40),
    st.booleans(),
    st.integers(1, 5),
    st.integers(1, 9),
)
def test_large_buckets_are_cut_up_by_content_alone(
    buckets: list[int], following: int, earlier: bool, partitions: int, packets: int
) -> None:
    rng = np.random.default_rng(sum(buckets))
    band = np.repeat(rng.integers(0, 1 << 62, len(buckets)), buckets).astype(np.uint64)
    size = len(band)
    columns = [
        band,
        rng.integers(0, 3, size).astype(np.uint8),
        rng.integers(0, 1 << 62, size).astype(np.uint64),
        np.arange(size).astype(np.uint64),
        (rng.random(size) < 0.3) & earlier,
        rng.integers(0, following, size).astype(np.uint64),
    ]
    found, largest = all_pairs(columns, partitions, packets, 1)
    again, _ = all_pairs(columns, 6 - partitions, 10 - packets, 2)
    assert found == again
    assert largest <= 2 * LIMIT  # on average a part is no larger than the limit; digests decide
    is_earlier = columns[4]
    assert all(band[a] == band[b] and a < b and not (is_earlier[a] and is_earlier[b]) for a, b in found)
    assert len(found) <= 2 * kernel.PIVOTS * size
    for name, members in zip(*np.unique(band, return_counts=True), strict=True):
        here = np.flatnonzero(band == name)
        pivots = here[np.argsort(columns[2][here])][: kernel.PIVOTS]
        if members > LIMIT:  # every member meets every pivot of the whole bucket
            wanted = {(min(p, m), max(p, m)) for p in pivots.tolist() for m in here.tolist() if p != m}
            assert {(a, b) for a, b in wanted if not (is_earlier[a] and is_earlier[b])} <= found


def test_in_a_bucket_that_is_cut_up_all_meet_what_is_held_out() -> None:
    size = 8 * LIMIT
    rng = np.random.default_rng(5)
    anchor = np.zeros(size, np.uint8)
    anchor[rng.permutation(size)[: kernel.PIVOTS]] = kernel.REFERENCE
    digests = rng.integers(0, 1 << 62, size).astype(np.uint64)
    columns = [np.zeros(size, np.uint64), np.zeros(size, np.uint8), digests, np.arange(size).astype(np.uint64), anchor]
    columns.append(rng.integers(0, 9, size).astype(np.uint64))
    found, _ = all_pairs(columns, 3, 4, 1)
    for reference in np.flatnonzero(anchor).tolist():
        for new in np.flatnonzero(anchor == 0).tolist():
            assert (min(new, reference), max(new, reference)) in found


def test_a_bucket_at_the_limit_is_paired_as_ever() -> None:
    columns = [np.zeros(LIMIT, np.uint64), np.zeros(LIMIT, np.uint8), *([np.arange(LIMIT).astype(np.uint64)] * 2)]
    columns += [np.zeros(LIMIT, np.bool_), np.zeros(LIMIT, np.uint64)]
    expected, on, _ = paired(sent(columns, 1, 3, 1), 1, None)
    assert not on
    assert paired(sent(columns, 1, 3, 1), 1, LIMIT)[:2] == (expected, [])
    assert paired(sent(columns, 1, 3, 1), 1, LIMIT - 1)[1]


def test_pairs_of_pivots_are_verified_where_the_others_are() -> None:
    """A worker holds the texts of a partition's pairs, so no partition may get all members of a large bucket."""
    partitions, others = 8, 20_000
    left = np.zeros(others, np.uint64)
    right = np.arange(1, others + 1).astype(np.uint64)
    few = (np.full(30, others + 7, np.uint64), np.arange(others + 8, others + 38).astype(np.uint64))
    packets = [exchange._INLINE + packet(pack(*pair), number) for number, pair in enumerate(((left, right), few))]
    homes: dict[int, int] = {}
    wanted: set[tuple[int, int]] = set()
    for output in dedup._DistinctPairs(partitions, dedup._FirstSplits()).work((3, packets)):
        is_wanted = isinstance(output, beam.pvalue.TaggedOutput)
        key, value = output.value if is_wanted else output
        (body,) = received([exchange._INLINE + value])
        one, other = unpack(body[1:])
        if is_wanted:
            assert len(set(zip(one.tolist(), other.tolist(), strict=True)) & wanted) == 0
            wanted |= set(zip(one.tolist(), other.tolist(), strict=True))
        else:
            homes[key] = homes.get(key, 0) + len(one)
            ends = set(one.tolist()) | set(other.tolist())
            assert all(key == 3 or end == 0 or spread(np.array([end], np.uint64)) % np.uint64(8) == key for end in ends)
    assert sum(homes.values()) == others + 30
    assert max(homes.values()) < 2 * others // partitions
    assert {home for home, place in wanted if place == 0} == set(range(partitions))
    assert {home for home, place in wanted if place > others} == {3}
