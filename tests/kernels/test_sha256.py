"""The compiled pass and the plain one give what hashlib gives."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transforms.kernels import sha256


@pytest.mark.parametrize("found", [True, False])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=st.lists(st.binary(max_size=300), max_size=12), before=st.binary(max_size=5))
def test_each_value_is_hashed_as_hashlib_does(
    values: list[bytes], before: bytes, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sha256, "_FOUND", found and sha256._FOUND)
    edges = np.cumsum([len(before), *map(len, values)]).astype(np.int64)
    data = np.frombuffer(before + b"".join(values), np.uint8)
    found_digests = sha256.sha256_each(data, edges[:-1], edges[1:])
    assert found_digests.dtype == np.uint8
    assert found_digests.tobytes() == b"".join(hashlib.sha256(value).digest() for value in values)
    assert found_digests.shape == (len(values), 32)
    assert [stop - start for start, stop in pairwise(edges.tolist())] == [len(value) for value in values]


def test_what_openssl_refuses_is_hashed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sha256, "_hash_spans", lambda *_: False)
    digests = sha256.sha256_each(np.frombuffer(b"abc", np.uint8), np.array([0, 1]), np.array([1, 3]))
    assert digests.tobytes() == hashlib.sha256(b"a").digest() + hashlib.sha256(b"bc").digest()
