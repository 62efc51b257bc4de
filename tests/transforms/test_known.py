"""Candidates for known texts that stand in longer ones, from samples of shingles alone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from transforms import exchange, known
from transforms.batches import DedupTask, Origin, Split, addresses, unpack
from transforms.exchange import received
from transforms.kernels.schemas import DIGEST_BYTES, Status

NEW, REGISTRY = 0, 1


def task_of(split: int, origin: Origin) -> DedupTask:
    whole = Split(
        index=split,
        source="",
        shard="",
        path="",
        kind="jsonl",
        compression="none",
        row_groups=None,
        first_row=0,
        weight=1,
        facts=str(split),
        whole=True,
    )
    return DedupTask(whole, origin)


def facts_of(samples: Sequence[Sequence[int]], texts: Sequence[int] | None = None) -> pa.Table:
    """Facts of documents with these samples; `texts` tells which of them are the same text."""
    size = len(samples)
    texts = range(size) if texts is None else texts
    digests = [bytes([text % 256, text // 256]).ljust(DIGEST_BYTES, b"\1") for text in texts]
    return pa.table(
        {
            "status": pa.array([Status.OK] * size, pa.uint8()),
            "n_shingles": pa.array([1_000] * size, pa.int32()),
            "sample": pa.array([sorted(sample) for sample in samples], pa.list_(pa.uint32())),
            "digest": pa.array(digests, pa.binary(DIGEST_BYTES)),
            "origin": pa.nulls(size, pa.string()),
            "generator": pa.nulls(size, pa.string()),
        }
    )


def candidates(tables: dict[int, pa.Table], folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, int]]:
    """Places of new documents beside places of known texts that they may hold."""
    monkeypatch.setattr(known, "read_facts", lambda split, columns: tables[split.index].select(columns))
    path = folder / "samples"
    path.write_bytes(known.sampled([task_of(REGISTRY, Origin.KNOWN)]))
    finder = known.FindHeld(str(path), Fraction(4, 5), 3)
    found = set()
    for _, body in finder.work(task_of(NEW, Origin.OWN).to_bytes()):
        for packed in received([exchange._INLINE + body]):
            left, right = unpack(packed)
            right = right - addresses(REGISTRY, np.zeros(1, np.int64))[0]
            found |= set(zip(left.tolist(), right.tolist(), strict=True))
    return found


def test_what_all_known_texts_share_makes_few_candidates_and_hides_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_HITS_AT_ONCE", 100)  # so that documents are looked at in many parts
    size, head = 200, range(12)
    registry = [[*head, *range(1_000 + 20 * text, 1_020 + 20 * text)] for text in range(size)]
    begin_alike = [[*head, *range(100_000 + 50 * text, 100_050 + 50 * text)] for text in range(size)]
    hold_one = [[*sample, *range(200_000 + text, 200_020 + text)] for text, sample in enumerate(registry)]
    tables = {NEW: facts_of(begin_alike + hold_one), REGISTRY: facts_of(registry)}
    found = candidates(tables, tmp_path, monkeypatch)
    assert {(size + text, text) for text in range(size)} <= found
    assert len(found) <= size + 2 * size * known.MOST_OWNERS  # and not documents times known texts


def test_copies_of_a_known_text_do_not_crowd_out_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = 5 * known.MOST_OWNERS
    sample, other = [1, 2, 3], [1, 2, 3, 4, 5]
    registry = facts_of([sample] * copies + [other], [0] * copies + [1])
    found = candidates({NEW: facts_of([[*other, 9], [7, 8]]), REGISTRY: registry}, tmp_path, monkeypatch)
    assert found == {(0, 0), (0, copies)}


def test_nothing_known_or_nothing_sampled_is_no_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for new, registry in [([[1, 2]], [[]]), ([[]], [[1, 2]]), ([], [[1]]), ([[1]], [])]:
        tables = {NEW: facts_of(new), REGISTRY: facts_of(registry)}
        assert candidates(tables, tmp_path, monkeypatch) == set()
        known._samples.cache_clear()


@pytest.fixture(autouse=True)
def no_samples_of_other_tests() -> None:
    known._samples.cache_clear()
