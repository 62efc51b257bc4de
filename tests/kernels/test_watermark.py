"""The watermark test against a reading in plain Python, its hash against published vectors, its p against scipy."""

from __future__ import annotations

import hashlib
import random
import re
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from transforms.kernels.watermark import (
    WatermarkKey,
    count_green_ids,
    count_greens,
    green_words,
    sip_hash,
    upper_tail,
)

KEY = bytes(range(16))
LOW, HIGH = np.frombuffer(KEY, "<u8").astype(np.uint64)


def sip(data: bytes) -> int:
    return int(sip_hash(np.frombuffer(data, np.uint8), 0, len(data), LOW, HIGH))


def rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & (2**64 - 1)


def plain_sip(data: bytes, key: bytes) -> int:
    """SipHash-2-4 as its paper writes it."""
    low, high = (int.from_bytes(key[place : place + 8], "little") for place in (0, 8))
    v = [low ^ 0x736F6D6570736575, high ^ 0x646F72616E646F6D, low ^ 0x6C7967656E657261, high ^ 0x7465646279746573]

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) % 2**64
            v[1] = rotated(v[1], 13) ^ v[0]
            v[0] = rotated(v[0], 32)
            v[2] = (v[2] + v[3]) % 2**64
            v[3] = rotated(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) % 2**64
            v[3] = rotated(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) % 2**64
            v[1] = rotated(v[1], 17) ^ v[2]
            v[2] = rotated(v[2], 32)

    padded = data + bytes((7 - len(data)) % 8) + bytes([len(data) % 256])
    for place in range(0, len(padded), 8):
        lane = int.from_bytes(padded[place : place + 8], "little")
        v[3] ^= lane
        rounds(2)
        v[0] ^= lane
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_the_hash_is_siphash() -> None:
    """The two vectors that its authors published: of no bytes, and of fifteen."""
    assert sip(b"") == 0x726FDB47DD0E0E31
    assert sip(bytes(range(15))) == 0xA129CA6149BE45E5


@given(st.binary(max_size=300))
def test_the_hash_of_any_bytes(data: bytes) -> None:
    assert sip(data) == plain_sip(data, KEY)


def plain_counts(text: str, key: WatermarkKey) -> tuple[int, int]:
    words = [word.lower() for word in re.findall(rb"[A-Za-z0-9\x80-\xff]+", text.encode())]
    hashes = [plain_sip(word, key.key) for word in words]
    if key.context:
        spans = [hashes[end - key.context : end + 1] for end in range(key.context, len(hashes))]
        hashes = [plain_sip(b"".join(value.to_bytes(8, "little") for value in span), key.key) for span in spans]
    return len(set(hashes)), sum(value < key.threshold for value in set(hashes))


KEYS = [
    WatermarkKey(KEY, "unigram", Fraction(1, 4)),
    WatermarkKey(KEY, "kgw", Fraction(1, 2), 1),
    WatermarkKey(KEY, "kgw", Fraction(2, 3), 4),
]
TEXTS = st.text(st.sampled_from("aAbBz09 ,.\n\u00e9\u0416\u4e2d'"), max_size=80)


@pytest.mark.parametrize("key", KEYS)
@settings(max_examples=60)
@given(st.lists(TEXTS | st.none(), max_size=5))
def test_counts_are_those_of_a_plain_reading(key: WatermarkKey, texts: list[str | None]) -> None:
    for kind in (pa.string(), pa.large_string()):
        greens = count_greens(pa.array(texts, kind), key)
        assert list(zip(greens.distinct.tolist(), greens.green.tolist(), strict=True)) == [
            plain_counts(text or "", key) for text in texts
        ]


@pytest.mark.parametrize("key", KEYS)
def test_a_long_text_and_a_slice_count_the_same(key: WatermarkKey) -> None:
    rng = random.Random(1)
    text = " ".join("".join(rng.choices("abcdefgh", k=rng.randint(1, 12))) for _ in range(5000))
    array = pa.array(["x y", text, text + " " + text, "z"])
    greens = count_greens(array, key)
    assert (greens.distinct[1], greens.green[1]) == plain_counts(text, key)
    assert count_greens(array.slice(1, 1), key).green.tolist() == [greens.green[1]]
    # Repetition is no new evidence: the seam between the halves adds a sequence for each place in the context.
    assert 0 <= greens.distinct[2] - greens.distinct[1] <= key.context


@pytest.mark.parametrize("context", [0, 1, 2, 5])
def test_token_ids_count_as_their_bytes(context: int) -> None:
    key = WatermarkKey(KEY, "kgw" if context else "unigram", Fraction(1, 3), context)
    rng = np.random.default_rng(context)
    documents = [rng.integers(0, size, 40).astype(np.uint32) for size in (1, 5, 2**32)] + [np.empty(0, np.uint32)]
    offsets = np.cumsum([0, *map(len, documents)])
    greens = count_green_ids(np.concatenate(documents), offsets, key)
    for place, ids in enumerate(documents):
        spans = {ids[end - context : end + 1].astype("<u4").tobytes() for end in range(context, len(ids))}
        green = sum(plain_sip(span, KEY) < key.threshold for span in spans)
        assert (greens.distinct[place], greens.green[place]) == (len(spans), green)


@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_p_is_the_tail_of_the_binomial(hits: int, more: int, share: float) -> None:
    trials = hits + more
    found = upper_tail(np.array([hits]), np.array([trials]), share)[0]
    assert found == pytest.approx(binom.sf(hits - 1, trials, share), rel=1e-9, abs=1e-300)


def test_a_text_without_units_has_no_p() -> None:
    greens = count_greens(pa.array(["", None, "one", "..."]), WatermarkKey(KEY, "kgw", Fraction(1, 2), 1))
    assert np.isnan(greens.p_values(Fraction(1, 2))).all()
    assert np.isnan(greens.z(Fraction(1, 2))).all()


def words_of(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(count)]


@pytest.mark.parametrize("key", KEYS)
def test_the_generator_and_the_test_agree_on_what_is_green(key: WatermarkKey) -> None:
    rng = random.Random(3)
    words = words_of(rng, 60)
    for place in range(key.context, len(words)):
        (green,) = green_words(key, words[:place], [words[place]])
        told = count_greens(pa.array([" ".join(words[place - key.context : place + 1]).upper()]), key)
        assert (told.distinct[0], told.green[0]) == (1, int(green))
    assert not green_words(WatermarkKey(KEY, "kgw", context=2), ["one"], ["two"]).any()


@pytest.mark.parametrize(("scheme", "context"), [("unigram", 0), ("kgw", 1)])
def test_power_and_false_positives(scheme: str, context: int) -> None:
    """Over random keys p is no smaller than it says; of marked texts of 100 words nearly all are found at 1e-6."""
    rng = random.Random(5)
    gamma = Fraction(1, 4)
    plain = pa.array([" ".join(words_of(rng, 100)) for _ in range(200)])
    p = np.concatenate(
        [
            count_greens(plain, WatermarkKey(hashlib.md5(b"%d" % n).digest(), scheme, gamma, context)).p_values(gamma)
            for n in range(40)
        ]
    )
    for level in (0.1, 0.01, 0.001):
        # Four standard deviations: true once in thirty thousand times, and the draw is fixed anyway.
        assert (p <= level).mean() <= level + 4 * (level / len(p)) ** 0.5
    assert (p <= 0.1).mean() > 0.05
    key = WatermarkKey(KEY, scheme, gamma, context)
    marked = []
    for _ in range(100):
        out = words_of(rng, 1)
        while len(out) < 100:
            choices = words_of(rng, 3)
            green = green_words(key, out, choices)
            out.append(next((word for word, is_green in zip(choices, green, strict=True) if is_green), choices[0]))
        marked.append(" ".join(out))
    assert (count_greens(pa.array(marked), key).p_values(gamma) <= 1e-6).mean() >= 0.95
    other = WatermarkKey(KEY[::-1], scheme, gamma, context)
    assert (count_greens(pa.array(marked), other).p_values(gamma) <= 1e-3).mean() <= 0.02


@pytest.mark.parametrize("key", [*KEYS, WatermarkKey.fresh(tokenizer="tokenizer.json")])
def test_a_key_file_reads_back(key: WatermarkKey) -> None:
    assert WatermarkKey.from_bytes(key.to_bytes()) == key


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((b'"key": "0', b'"key": "'), "hexadecimal"),
        ((b'"key": "00', b'"key": "'), "15 bytes"),
        ((b"1/4", b"5/4"), "above 0 and below 1"),
        ((b"1/4", b"1/0"), "gamma"),
        ((b"unigram", b"bigram"), "valid are unigram, kgw"),
        ((b'"context": 0', b'"context": 1'), "knows no context"),
        ((b'"context": 0', b'"context": "x"'), "whole number"),
        ((b'"version": 1', b'"version": 2'), "version 2"),
        ((b'"version": 1', b'"version": 1, "delta": 2'), "delta"),
        ((b"anchormix-watermark-key", b"other"), "no watermark key"),
        ((b"{", b""), "not JSON"),
    ],
)
def test_a_wrong_key_file_is_told_without_its_secret(change: tuple[bytes, bytes], says: str) -> None:
    data = WatermarkKey(KEY, "unigram", Fraction(1, 4)).to_bytes()
    assert change[0] in data
    with pytest.raises(ValueError, match=says) as caught:
        WatermarkKey.from_bytes(data.replace(*change, 1))
    assert KEY.hex()[4:] not in str(caught.value)
