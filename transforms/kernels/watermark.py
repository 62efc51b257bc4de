"""A watermark test for whoever holds the key: how much greener a text is than text made without it.

A generator that marks its output prefers *green* units. Which units are green only the key tells:

- **Units** are words: maximal runs of ASCII letters, ASCII digits and bytes of other characters, ASCII letters in lower
  case; no Unicode table takes part, so they never change. With the holder's own tokenizer file, units are its token
  ids, as four little-endian bytes each.
- **Hash** is SipHash-2-4 under the 128-bit key: of a word's bytes, and of a sequence of words the hash of their hashes,
  as eight little-endian bytes each. A sequence of token ids is hashed as their bytes.
- **Scheme** `unigram`: a unit is green if its hash is below gamma * 2^64, wherever it stands: one fixed green list.
  Scheme `kgw`: a unit is green if the hash of the `context` units before it and the unit itself is below that; every
  context has a green list of its own.

A test looks at each distinct unit (`unigram`) or sequence (`kgw`) of a document once, because repetition is no new
evidence. Of T distinct ones G are green. Had the key no part in the text, each would be green with probability gamma:
z = (G - gamma * T) / sqrt(T * gamma * (1 - gamma)), and p = P(Binomial(T, gamma) >= G), exactly. The chance lies in the
choice of the key, not of the text: under one `unigram` key the common words of a language lean the same way in every
document, which is why such a test should be calibrated on human text (docs/detectors.md).
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.hashing import byte_spans

__all__ = [
    "SCHEMES",
    "Greens",
    "WatermarkKey",
    "count_green_ids",
    "count_greens",
    "green_words",
    "sip_hash",
    "upper_tail",
]

SCHEMES = ("unigram", "kgw")
FORMAT = "anchormix-watermark-key"
LARGEST_CONTEXT = 16
KEY_BYTES = 16


@dataclass(frozen=True)
class WatermarkKey:
    """What decides which units are green: a secret of whoever marks text."""

    key: bytes
    scheme: str = "unigram"
    gamma: Fraction = Fraction(1, 2)
    context: int = 0
    tokenizer: str | None = None
    """Path of a tokenizer.json, as the key file names it; None for words."""

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"the key has {len(self.key)} bytes; valid are {2 * KEY_BYTES} hexadecimal digits")
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme is {self.scheme!r}; valid are {', '.join(SCHEMES)}")
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma is {self.gamma}; valid is a share above 0 and below 1, such as 0.5")
        least, most = (0, 0) if self.scheme == "unigram" else (1, LARGEST_CONTEXT)
        if not least <= self.context <= most:
            raise ValueError(
                f"context is {self.context} with scheme {self.scheme}; valid is "
                f"{'0, because a unigram list knows no context' if most == 0 else f'{least} to {most}'}"
            )

    @property
    def threshold(self) -> int:
        """Hashes below it are green."""
        return (self.gamma.numerator << 64) // self.gamma.denominator

    @classmethod
    def fresh(
        cls, scheme: str = "unigram", gamma: Fraction = Fraction(1, 2), context: int = 0, tokenizer: str | None = None
    ) -> WatermarkKey:
        return cls(secrets.token_bytes(KEY_BYTES), scheme, gamma, context, tokenizer)

    def to_bytes(self) -> bytes:
        fields: dict[str, Any] = {
            "format": FORMAT,
            "version": 1,
            "scheme": self.scheme,
            "gamma": str(self.gamma),
            "context": self.context,
            "key": self.key.hex(),
        }
        if self.tokenizer is not None:
            fields["tokenizer"] = self.tokenizer
        return (json.dumps(fields, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> WatermarkKey:
        """Raises ValueError, saying what is wrong; never with the key itself in it."""
        try:
            fields = json.loads(data)
        except ValueError:
            raise ValueError("is not JSON; `anchormix detector key` writes such a file") from None
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise ValueError(f'is no watermark key: its "format" is not {FORMAT!r}')
        unknown = sorted(fields.keys() - {"format", "version", "scheme", "gamma", "context", "key", "tokenizer"})
        if unknown or fields.get("version") != 1:
            told = f"unknown fields {', '.join(unknown)}" if unknown else f"version {fields.get('version')!r}"
            raise ValueError(f"has {told}, which this release does not know; it reads version 1")
        tokenizer, context = fields.get("tokenizer"), fields.get("context")
        if not isinstance(context, int) or isinstance(context, bool):
            raise ValueError(f"has the context {context!r}; valid is a whole number such as 1")
        if tokenizer is not None and not isinstance(tokenizer, str):
            raise ValueError(f"has the tokenizer {tokenizer!r}; valid is the path of a tokenizer.json, or none")
        try:
            key = bytes.fromhex(str(fields.get("key")))
            gamma = Fraction(str(fields.get("gamma")))
        except (ValueError, ZeroDivisionError):
            raise ValueError(
                f"needs a key of {2 * KEY_BYTES} hexadecimal digits and a gamma such as 0.5 or 1/4"
            ) from None
        return cls(key, str(fields.get("scheme")), gamma, context, tokenizer)


class Greens(NamedTuple):
    """Per document: distinct units or sequences, and how many of them are green."""

    distinct: NDArray[np.int64]
    green: NDArray[np.int64]

    def z(self, gamma: Fraction) -> NDArray[np.float64]:
        """Standard deviations above what text without the watermark has; NaN where there is nothing to count."""
        share = float(gamma)
        spread = np.sqrt(self.distinct * (share * (1 - share)))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.distinct > 0, (self.green - share * self.distinct) / spread, np.nan)

    def p_values(self, gamma: Fraction) -> NDArray[np.float64]:
        """Exact: the chance of so many green ones or more without the watermark; NaN where there is nothing."""
        return np.where(self.distinct > 0, upper_tail(self.green, self.distinct, float(gamma)), np.nan)


def upper_tail(hits: NDArray[np.int64], trials: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    """P(Binomial(trials, share) >= hits)."""
    from scipy.special import betainc  # a quarter of a second that only this test pays

    safe = np.maximum(hits, 1)
    tail = betainc(safe.astype(np.float64), np.maximum(trials - safe + 1, 1).astype(np.float64), share)
    return np.where(hits <= 0, 1.0, tail)


def count_greens(text: pa.Array, key: WatermarkKey) -> Greens:
    """Counts for each document of a string array; words as the module describes them."""
    data, starts, stops = byte_spans(text)
    return _counted(_count_words, key, data, starts, stops)


def count_green_ids(ids: NDArray[np.uint32], offsets: NDArray[np.int64], key: WatermarkKey) -> Greens:
    """The same over token ids: document i owns ids[offsets[i]:offsets[i + 1]]."""
    return _counted(_count_ids, key, ids, offsets[:-1].copy(), offsets[1:].copy())


def _counted(kernel: Any, key: WatermarkKey, units: Any, starts: Any, stops: Any) -> Greens:
    distinct = np.zeros(len(starts), np.int64)
    green = np.zeros(len(starts), np.int64)
    low, high = np.frombuffer(key.key, "<u8").astype(np.uint64)
    kernel(units, starts, stops, low, high, np.uint64(key.threshold), key.context, distinct, green)
    return Greens(distinct, green)


def green_words(key: WatermarkKey, before: list[str], candidates: list[str]) -> NDArray[np.bool_]:
    """Which candidates a marking generator should prefer after the words `before`: the same rule as the test."""
    low, high = np.frombuffer(key.key, "<u8").astype(np.uint64)
    context = before[len(before) - key.context :] if key.context else []
    if len(context) < key.context:
        return np.zeros(len(candidates), bool)  # the test does not look at a unit without its whole context
    head = [_word_hash(word, low, high) for word in context]
    hashes = []
    for candidate in candidates:
        word = _word_hash(candidate, low, high)
        sequence = np.array([*head, word], np.uint64).view(np.uint8)
        hashes.append(int(sip_hash(sequence, 0, len(sequence), low, high)) if key.context else int(word))
    return np.array([value < key.threshold for value in hashes], bool)


def _word_hash(word: str, low: np.uint64, high: np.uint64) -> np.uint64:
    data = np.frombuffer(word.encode().lower(), np.uint8)  # bytes.lower knows ASCII alone
    return np.uint64(sip_hash(data, 0, len(data), low, high))


_EIGHT = np.uint64(8)
_SEED_0 = np.uint64(0x736F6D6570736575)
_SEED_1 = np.uint64(0x646F72616E646F6D)
_SEED_2 = np.uint64(0x6C7967656E657261)
_SEED_3 = np.uint64(0x7465646279746573)
_LAST_ROUNDS = np.uint64(0xFF)


@njit(inline="always")
def _rotate(value, bits):  # type: ignore[no-untyped-def]
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@njit(inline="always")
def _round(v0, v1, v2, v3):  # type: ignore[no-untyped-def]
    v0 += v1
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 += v3
    v3 = _rotate(v3, 16) ^ v2
    v0 += v3
    v3 = _rotate(v3, 21) ^ v0
    v2 += v1
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


@njit(inline="always")
def _begin(low, high):  # type: ignore[no-untyped-def]
    return low ^ _SEED_0, high ^ _SEED_1, low ^ _SEED_2, high ^ _SEED_3


@njit(inline="always")
def _absorb(v0, v1, v2, v3, lane):  # type: ignore[no-untyped-def]
    v3 ^= lane
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ lane, v1, v2, v3


@njit(inline="always")
def _finish(v0, v1, v2, v3, tail, length):  # type: ignore[no-untyped-def]
    """The last lane holds the bytes that are left over, and the length in its top byte."""
    lane = tail | (np.uint64(length & 0xFF) << np.uint64(56))
    v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, lane)
    v2 ^= _LAST_ROUNDS
    for _ in range(4):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@njit(nogil=True, cache=True)
def sip_hash(data, start, stop, low, high):  # type: ignore[no-untyped-def]
    """SipHash-2-4 of data[start:stop] under the key of two little-endian halves."""
    v0, v1, v2, v3 = _begin(low, high)
    lane = np.uint64(0)
    filled = 0
    for at in range(start, stop):
        lane |= np.uint64(data[at]) << np.uint64(8 * filled)
        filled += 1
        if filled == 8:
            v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, lane)
            lane = np.uint64(0)
            filled = 0
    return _finish(v0, v1, v2, v3, lane, stop - start)


@njit(inline="always")
def _is_new(table, mask, value):  # type: ignore[no-untyped-def]
    """Enters the value into an open hash set, where 0 is an empty place; whether it was not there."""
    value |= np.uint64(value == np.uint64(0))  # one of 2^64 hashes gives up its place to its neighbour
    place = value & mask
    while table[place] != np.uint64(0):
        if table[place] == value:
            return False
        place = (place + np.uint64(1)) & mask
    table[place] = value
    return True


@njit(inline="always")
def _capacity(units):  # type: ignore[no-untyped-def]
    size = 16
    while size < 2 * units:
        size *= 2
    return size


@njit(inline="always")
def _sequence_hash(ring, count, context, low, high):  # type: ignore[no-untyped-def]
    """The hash of the last context + 1 word hashes, oldest first; the newest is number count - 1."""
    v0, v1, v2, v3 = _begin(low, high)
    for number in range(count - context - 1, count):
        v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, ring[number % ring.size])
    return _finish(v0, v1, v2, v3, np.uint64(0), 8 * (context + 1))


@njit(nogil=True, cache=True)
def _count_words(data, starts, stops, low, high, threshold, context, distinct, green):  # type: ignore[no-untyped-def]
    longest = 0
    for document in range(starts.size):
        longest = max(longest, stops[document] - starts[document])
    table = np.zeros(_capacity(longest // 2 + 1), np.uint64)
    ring = np.zeros(context + 1, np.uint64)
    for document in range(starts.size):
        start, stop = starts[document], stops[document]
        size = _capacity((stop - start) // 2 + 1)
        mask = np.uint64(size - 1)
        table[:size] = np.uint64(0)
        count = 0
        at = start
        while at < stop:
            v0, v1, v2, v3 = _begin(low, high)
            lane = np.uint64(0)
            length = 0
            while at < stop:
                byte = data[at]
                if np.uint8(65) <= byte <= np.uint8(90):
                    byte = np.uint8(byte | np.uint8(32))
                elif not (byte >= 128 or 97 <= byte <= 122 or 48 <= byte <= 57):
                    break
                lane |= np.uint64(byte) << np.uint64(8 * (length & 7))
                length += 1
                if length & 7 == 0:
                    v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, lane)
                    lane = np.uint64(0)
                at += 1
            at += 1
            if length == 0:
                continue
            value = _finish(v0, v1, v2, v3, lane, length)
            count += 1
            if context:
                ring[(count - 1) % ring.size] = value
                if count <= context:
                    continue
                value = _sequence_hash(ring, count, context, low, high)
            if _is_new(table, mask, value):
                distinct[document] += 1
                green[document] += value < threshold


@njit(nogil=True, cache=True)
def _count_ids(ids, starts, stops, low, high, threshold, context, distinct, green):  # type: ignore[no-untyped-def]
    longest = 0
    for document in range(starts.size):
        longest = max(longest, stops[document] - starts[document])
    table = np.zeros(_capacity(longest), np.uint64)
    for document in range(starts.size):
        start, stop = starts[document], stops[document]
        size = _capacity(stop - start)
        mask = np.uint64(size - 1)
        table[:size] = np.uint64(0)
        for last in range(start + context, stop):
            v0, v1, v2, v3 = _begin(low, high)
            lane = np.uint64(0)
            for number in range(context + 1):
                unit = np.uint64(ids[last - context + number])
                if number & 1:
                    v0, v1, v2, v3 = _absorb(v0, v1, v2, v3, lane | (unit << np.uint64(32)))
                    lane = np.uint64(0)
                else:
                    lane = unit
            value = _finish(v0, v1, v2, v3, lane, 4 * (context + 1))
            if _is_new(table, mask, value):
                distinct[document] += 1
                green[document] += value < threshold
