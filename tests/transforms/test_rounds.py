"""Removal by one worker and in rounds: the same verdicts, byte for byte, whatever the partitions and pipelines."""

from __future__ import annotations

from pathlib import Path

import clusters
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transforms import rounds
from transforms.kernels import dedup
from transforms.kernels.schemas import Fate


def assert_justified(case: clusters.Ranked, verdicts: clusters.Verdicts) -> None:
    """Every removed document has a kept witness with the same text or an edge; together they stand for all."""
    text = dict(zip(case.document.tolist(), case.copy_of.tolist(), strict=True))
    edges = {
        (a, b): (80 + number % 20, 100)
        for number, (a, b) in enumerate(zip(case.left.tolist(), case.right.tolist(), strict=True))
    }
    edges |= {(a, b): (1, 1) for a, b in zip(*(end.tolist() for end in case.seen), strict=True)}
    is_earlier = dict(zip(case.document.tolist(), dedup.is_earlier(case.standing).tolist(), strict=True))
    gone = set(verdicts.gone[:, 0].tolist())
    for document, fate, witness, _, _, shared, union, _ in verdicts.gone.tolist():
        assert witness not in gone
        assert not is_earlier[document]
        assert is_earlier[witness] == (fate == Fate.SEEN_BEFORE)
        mine, its = sorted((text[document], text[witness]))
        if fate == Fate.EXACT_DUPLICATE:
            assert (mine, shared, union) == (its, 1, 1)
        else:
            assert edges[mine, its] == (shared, union)
    assert gone.isdisjoint(verdicts.more[:, 0].tolist())
    assert not any(is_earlier[document] for document in verdicts.more[:, 0].tolist())
    assert verdicts.more[:, 1].sum() == (verdicts.gone[:, 1] != Fate.SEEN_BEFORE).sum()


@st.composite
def cases(draw: st.DrawFn) -> clusters.Ranked:
    documents = draw(st.integers(2, 60))
    shape = draw(st.sampled_from([clusters.CHAIN, clusters.STAR, clusters.RANDOM]))
    left, right = clusters.edges_of(shape, documents, draw(st.integers(0, 150)), draw(st.integers(0, 99)))
    earlier = draw(st.integers(0, documents - 1))
    copies, excluded = draw(st.integers(0, 20)), draw(st.integers(0, 10))
    return clusters.ranked(left, right, documents, draw(st.integers(0, 99)), copies, excluded, earlier)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases(), partitions=st.integers(1, 5), per_pipeline=st.sampled_from([1, 2, 12]))
def test_both_ways_give_the_same_verdicts(
    case: clusters.Ranked, partitions: int, per_pipeline: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "ROUNDS", per_pipeline)
        verdicts, removed = clusters.in_rounds(case, folder, partitions)
    assert removed.undecided == 0
    assert verdicts == clusters.by_one_worker(case, folder)
    assert_justified(case, verdicts)


@pytest.mark.parametrize(
    ("shape", "documents", "edges"),
    [(clusters.CHAIN, 100_000, 0), (clusters.STAR, 100_000, 0), (clusters.RANDOM, 300_000, 900_000)],
)
def test_large_clusters_are_decided_in_one_pipeline(shape: str, documents: int, edges: int, tmp_path: Path) -> None:
    left, right = clusters.edges_of(shape, documents, edges)
    case = clusters.ranked(left, right, documents, seed=5)
    verdicts, removed = clusters.in_rounds(case, tmp_path, 16)
    assert removed.undecided == 0
    assert 1 <= removed.rounds <= rounds.ROUNDS
    assert verdicts == clusters.by_one_worker(case, tmp_path)
    gone, witness = (np.searchsorted(case.document, verdicts.gone[:, column]).tolist() for column in (0, 2))
    assert dict(zip(gone, witness, strict=True)) == clusters.plain_greedy(case.rank, left, right)
