"""Clusters of a hundred thousand and more: time grows with what there is, and the answer is the plain one."""

from __future__ import annotations

import time
from collections.abc import Callable

import clusters
import numpy as np
import pytest

from transforms.kernels import dedup, rounds

SHAPES = [(clusters.CHAIN, 200_000, 0), (clusters.STAR, 200_000, 0), (clusters.RANDOM, 150_000, 450_000)]


def cpu_seconds(work: Callable[[], object]) -> float:
    """The best of some, after one that may compile."""
    work()
    taken = []
    for _ in range(4):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def removal_of(shape: str, documents: int, edges: int) -> Callable[[], dedup.Removal]:
    left, right = clusters.edges_of(shape, documents, edges)
    rank = np.random.default_rng(3).permutation(documents)
    return lambda: dedup.greedy_removal(documents, rank[left], rank[right])


def round_of(shape: str, documents: int, edges: int) -> Callable[[], rounds.Texts]:
    """All texts in one partition, which decides everything in one round."""
    left, right = clusters.edges_of(shape, documents, edges)
    rank = np.random.default_rng(3).permutation(documents)
    ends = np.stack([rank[left], rank[right]]).astype(np.uint64)
    links = rounds.Links(ends.min(axis=0), ends.max(axis=0))

    def work() -> rounds.Texts:
        worse, counts = np.unique(links.worse, return_counts=True)
        return rounds.advance(rounds.start(worse, counts, links.better), links, 1)[0]

    return work


@pytest.mark.parametrize("made", [removal_of, round_of])
@pytest.mark.parametrize(("shape", "documents", "edges"), SHAPES)
def test_twice_as_much_takes_about_twice_as_long(
    made: Callable[..., Callable[[], object]], shape: str, documents: int, edges: int
) -> None:
    once = cpu_seconds(made(shape, documents, edges))
    twice = cpu_seconds(made(shape, 2 * documents, 2 * edges))
    assert twice < 6 * once + 0.05


@pytest.mark.parametrize(("shape", "documents", "edges"), SHAPES)
def test_one_partition_decides_everything_in_one_round(shape: str, documents: int, edges: int) -> None:
    removal, texts = removal_of(shape, documents, edges)(), round_of(shape, documents, edges)()
    assert np.all(texts.decided != 0)
    kept = np.ones(documents, np.bool_)
    kept[texts.names.astype(np.int64)] = texts.decided > 0
    assert np.array_equal(kept, removal.kept)


def test_a_chain_removes_nothing_through_a_chain() -> None:
    left, right = clusters.edges_of(clusters.CHAIN, 100_000)
    rank = np.random.default_rng(4).permutation(100_000)
    removal = dedup.greedy_removal(100_000, rank[left], rank[right])
    gone = np.flatnonzero(~removal.kept)
    assert np.all(removal.kept[removal.witness[gone]])
    place = np.argsort(rank)
    assert np.all(np.abs(place[gone] - place[removal.witness[gone]]) == 1)
    assert 1 / 2 < len(gone) / 100_000 < 2 / 3  # of three neighbours one stays at least; not one of all


def test_three_million_random_edges_equal_the_plain_walk() -> None:
    left, right = clusters.edges_of(clusters.RANDOM, 1_000_000, 3_000_000)
    rank = np.random.default_rng(5).permutation(1_000_000)
    removal = dedup.greedy_removal(1_000_000, rank[left], rank[right])
    place = np.argsort(rank)
    gone = np.flatnonzero(~removal.kept)
    witness = dict(zip(place[gone].tolist(), place[removal.witness[gone]].tolist(), strict=True))
    assert witness == clusters.plain_greedy(rank, left, right)


def test_a_bucket_of_many_holds_few_pairs_at_a_time() -> None:
    size = 300_000
    documents = np.arange(size).astype(np.uint64)
    same = dedup.Banded(documents * np.uint64(0), np.zeros(size, np.uint8), documents, documents, np.zeros(size, bool))
    parts = [len(left) for left, _ in dedup.candidate_pairs(same)]
    assert max(parts) <= dedup.MOST_PAIRS
    assert size * dedup.PIVOTS // 2 - size < sum(parts) <= size * dedup.PIVOTS
