"""Kernels from the cache need no compiler, and get one where they are not in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import Cache

from transforms.kernels import kernel_start

ROOT = Path(__file__).resolve().parents[2]

CALLS = """
import sys
import numpy as np
import pyarrow as pa
from transforms.kernels import dedup, gather, minhash, text

documents = pa.array(["one two three", "un deux", "три"])
words = text.split_words(documents)
shingles = minhash.sorted_sets(minhash.shingle_hashes(words, 1))
taken, sizes = dedup.take_sets(np.array([2, 0]), shingles.hashes, shingles.offsets)
assert sizes.tolist() == [1, 3] and taken.tolist() == [*shingles.hashes[-1:], *shingles.hashes[:3]]
assert gather.ChunkedTexts.of([documents]).take(np.array([1])).to_pylist() == ["un deux"]
assert text.count_words(documents).tolist() == words.counted.tolist()
print("scipy.linalg" in sys.modules)
"""


def test_kernels_from_the_cache_load_no_compiler(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    told = [
        subprocess.run(
            [sys.executable, "-c", CALLS], env=environment, capture_output=True, text=True, check=True, timeout=300
        ).stdout.strip()
        for _ in range(2)
    ]
    assert told == ["True", "False"], "compiled the first time, linked the second"


def test_a_version_that_is_not_known_starts_as_it_always_did(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Cache.load_overload
    for known in (((0, 1), (0, 2)), ((9, 0), (9, 1))):
        monkeypatch.setattr(kernel_start, "_KNOWN", known)
        monkeypatch.setattr(Cache, "load_overload", before)
        kernel_start.link_without_compiler()
        assert Cache.load_overload is before
