"""Digests against hashlib, draws against their definition and uniformity, fingerprints against their collisions."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels.hashing import byte_spans, draws, fingerprint, mix64, text_digests

DOCUMENTS = st.lists(st.none() | st.text(max_size=50), max_size=6)


@given(DOCUMENTS, st.sampled_from([pa.string(), pa.large_string()]), st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_digests_are_sha256_of_the_raw_bytes(
    documents: list[str | None], string_type: pa.DataType, before: int
) -> None:
    padded = ["hidden"] * before + documents + [None]
    digests = text_digests(pa.array(padded, string_type).slice(before, len(documents)))
    expected = [bytes(32) if text is None else hashlib.sha256(text.encode()).digest() for text in documents]
    assert [row.tobytes() for row in digests] == expected
    assert (digests.dtype, digests.shape) == (np.uint8, (len(documents), 32))


def test_digests_read_bytes_that_are_not_text_too() -> None:
    digests = text_digests(pa.array([b"\xff\x00"], pa.large_binary()))
    assert digests.tobytes() == hashlib.sha256(b"\xff\x00").digest()


def test_spans_hide_what_a_null_owns() -> None:
    offsets = pa.py_buffer(np.array([0, 2, 4], np.int32))
    array = pa.Array.from_buffers(pa.binary(), 2, [pa.py_buffer(b"\x01"), offsets, pa.py_buffer(b"abcd")])
    spans = byte_spans(array)
    assert (spans.starts.tolist(), spans.stops.tolist()) == ([0, 2], [2, 2])
    assert not spans.data.flags.writeable


def test_mix64_is_a_bijection_that_is_pinned() -> None:
    assert int(mix64(np.uint64(1))) == 0xB456BCFC34C2CB2C
    assert int(mix64(np.uint64(0))) == 0


def digests_of(count: int) -> np.ndarray:
    return text_digests(pa.array([str(i) for i in range(count)]))


def test_draws_are_pinned() -> None:
    assert [f"{draw:016x}" for draw in draws(digests_of(3), 7).tolist()] == PINNED_DRAWS


PINNED_DRAWS = ["d0df027cc8220f11", "3e856787d1f329a0", "080c1354206c2e0e"]


@given(st.integers(), st.binary(max_size=5))
@settings(max_examples=50, deadline=None)
def test_draws_depend_on_the_document_alone_not_on_its_place(seed: int, salt: bytes) -> None:
    digests = digests_of(20)
    drawn = draws(digests, seed, salt)
    assert drawn.dtype == np.uint64
    assert np.array_equal(draws(digests[::-1], seed, salt), drawn[::-1])
    assert np.array_equal(draws(np.ascontiguousarray(digests[:, :16]), seed, salt), drawn)
    assert draws(digests[:0], seed, salt).shape == (0,)


def test_every_one_of_the_first_16_bytes_counts_and_no_other_does() -> None:
    digest = digests_of(1)
    for place in range(32):
        changed = digest.copy()
        changed[0, place] ^= 1
        assert (draws(changed, 1)[0] != draws(digest, 1)[0]) == (place < 16)


def test_seed_and_salt_are_told_apart() -> None:
    digest = digests_of(1)
    calls = [(1, b""), (2, b""), (-1, b""), (1, b"1"), (11, b""), (1, b":"), (2**70, b"")]
    assert len({int(draws(digest, seed, salt)[0]) for seed, salt in calls}) == len(calls)


def test_draws_are_uniform_and_seeds_independent() -> None:
    digests = digests_of(20_000)
    first, second = draws(digests, 1), draws(digests, 2)
    for drawn in (first, second):
        counts = np.bincount((drawn >> np.uint64(56)).astype(np.int64), minlength=256)
        # Chi squared with 255 degrees of freedom: beyond 360 once in 20,000 tries.
        assert ((counts - 78.125) ** 2 / 78.125).sum() < 360
    unit = np.stack([first, second]).astype(float) / 2**64
    assert abs(np.corrcoef(unit)[0, 1]) < 0.03


def test_draws_refuse_what_is_no_digest() -> None:
    for wrong in (np.zeros((2, 8), np.uint8), np.zeros(32, np.uint8), np.zeros((2, 32), np.int64)):
        with pytest.raises(ValueError, match=r"16 or more.*text_digests"):
            draws(wrong, 1)


def test_fingerprints_frame_their_parts() -> None:
    calls: list[tuple[str | bytes | int, ...]] = [
        *[(), ("",), ("", ""), (b"",), ("ab", "c"), ("a", "bc"), ("abc",), (b"ab", "c"), (1,), ("1",), (11,)],
        *[(1, 1), (-1,), ("s1:a",), ("a",)],
    ]
    assert len({fingerprint(*parts) for parts in calls}) == len(calls)
    assert fingerprint("a", b"b", 3) == hashlib.sha256(b"s1:ab1:bi1:3").hexdigest()[:32]


def test_fingerprint_refuses_floats_whose_text_it_would_have_to_choose() -> None:
    with pytest.raises(TypeError, match=r"cannot fingerprint 0.5 of type float"):
        fingerprint(0.5)  # type: ignore[arg-type]
