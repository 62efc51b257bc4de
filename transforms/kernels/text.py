"""UTF-8 to words, straight from Arrow's buffers: validity, blankness, hashes of case-folded words, the `words` count.

A word is a maximal run of letters, marks and digits. In scripts written without spaces every character is a word of
its own, together with the marks that follow it.

ASCII is settled 64 bytes at a time by bit masks. A run between two ASCII separators that holds other characters is
decoded by the Unicode tables instead. Both ways hash the UTF-8 bytes of the folded word, eight at a time, so a word
has one hash however it was spelled.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from transforms.kernels.hashing import ByteSpans, byte_spans, mix64

__all__ = ["UNICODE_VERSION", "Words", "blank", "split_words", "valid_utf8"]

UNICODE_VERSION = "14.0.0"
"""Of the shipped tables. Words and their hashes depend on it, on nothing that the interpreter brings along."""

TABLES_FILE = Path(__file__).with_name("unicode_tables.npz")

# What a code point is; the two that divide words come first. An EXPANSION stands for the several characters that it
# folds to, each with its own class, so a richer normalisation (whose characters may fall apart into words and
# separators) is a matter of the tables.
OTHER, SPACE, SPACED, MARK, UNSPACED, EXPANSION = range(6)
CLASS_BITS = 3
LENGTH_BITS = 5
PAGE_BITS = 8

_CLASS_MASK = (1 << CLASS_BITS) - 1
_LENGTH_MASK = (1 << LENGTH_BITS) - 1
_PAGE_MASK = np.uint64((1 << PAGE_BITS) - 1)
_PAGE_SHIFT = np.uint64(PAGE_BITS)
_CHARACTERS_PER_COUNT = 16

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_LAST_BIT = np.uint64(63)
_BYTE = np.uint64(0xFF)
_CONTINUED = np.uint64(0x3F)
_SIX = np.uint64(6)
_HALF = np.uint64(32)
_WORD_SEED = np.uint64(0x2545F4914F6CDD1D)
_LANE_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)

# Eight bytes at once: the same byte in every place, or carries that reach the high bit when a byte is large enough.
_HIGH_BITS = np.uint64(0x8080808080808080)
_ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_CASE_BITS = np.uint64(0x2020202020202020)
_FROM_A = np.uint64(0x1F1F1F1F1F1F1F1F)
_AFTER_Z = np.uint64(0x0505050505050505)
_FROM_0 = np.uint64(0x5050505050505050)
_AFTER_9 = np.uint64(0x4646464646464646)
_GATHER_BITS = np.uint64(0x0102040810204080)
_GATHER_SHIFT = np.uint64(56)
_TO_BIT_0 = np.uint64(7)


class Words(NamedTuple):
    """The words of a batch, in order: document i owns hashes[offsets[i]:offsets[i + 1]]."""

    hashes: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    counted: NDArray[np.int64]
    """What the `words` counter says: one per started 16 characters of each word, and at least one per document that
    is not blank."""


def _spans(values: pa.Array) -> ByteSpans:
    """byte_spans with the eight bytes at least that loading eight at once needs: Arrow need not pad its buffers."""
    spans = byte_spans(values)
    if spans.data.size >= 8:
        return spans
    padded = np.zeros(8, np.uint8)
    padded[: spans.data.size] = spans.data
    padded.flags.writeable = False
    return spans._replace(data=padded)


@cache
def _tables() -> tuple[NDArray[np.uint16], NDArray[np.int32], NDArray[np.int64]]:
    with np.load(TABLES_FILE, allow_pickle=False) as tables:
        return tables["index"], tables["pages"], tables["expansions"]


def split_words(text: pa.Array) -> Words:
    """Hashes and counts the words of each document of a string array. The text must be valid UTF-8."""
    data, starts, stops = _spans(text)
    # A word is divided from the next by a byte at least, or is a character of three; so this is enough, and what
    # stays unused of it is never backed by memory. (Folding never expands a character to several words.)
    most = int((stops - starts + 1).sum()) // 2
    hashes = np.empty(most, np.uint64)
    offsets = np.zeros(len(starts) + 1, np.int64)
    counted = np.zeros(len(starts), np.int64)
    _split(data, starts, stops, *_tables(), hashes, offsets, counted)
    counted[(counted == 0) & ~blank(text)] = 1
    return Words(hashes[: offsets[-1]], offsets, counted)


def valid_utf8(data: pa.Array) -> NDArray[np.bool_]:
    """Which values are strict UTF-8: no surrogates, no overlong forms, nothing above U+10FFFF. Nulls are."""
    valid = np.empty(len(data), np.bool_)
    _validate(*_spans(data), valid)
    return valid


def blank(text: pa.Array) -> NDArray[np.bool_]:
    """Which values are null, empty, or whitespace only, as `str.isspace` sees it."""
    is_blank = np.empty(len(text), np.bool_)
    index, pages, _ = _tables()
    _find_blank(*_spans(text), index, pages, is_blank)
    return is_blank


@intrinsic
def _load_eight(typing_context: Any, data: Any, position: Any) -> Any:
    """data[position : position + 8] as one little-endian number, at any alignment, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        wide = context.get_value_type(types.uint64)
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), wide.as_pointer())
        return builder.load(address, align=1)

    return types.uint64(data, types.int64), generate


@intrinsic
def _lowest_bit(typing_context: Any, bits: Any) -> Any:
    """The place of the lowest set bit of a uint64; 64 if there is none."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, False))

    return types.int64(types.uint64), generate


@njit(inline="always")
def _eight_bytes(data: NDArray[np.uint8], position: int) -> np.uint64:
    """The eight bytes from `position`, zeros behind the end of the buffer. From the end on they mean nothing.

    Near the end an earlier load is shifted: a branch here would cost a tenth of the speed.
    """
    loadable = min(position, data.size - 8)
    return _load_eight(data, loadable) >> np.uint64(8 * (position - loadable) & 63)


@njit(inline="always")
def _word_bits(lane: np.uint64) -> np.uint64:
    """One bit per byte that may belong to a word: ASCII letters and digits, and whatever is not ASCII."""
    plain = lane & _LOW_BITS
    lower = plain | _CASE_BITS
    letters = (lower + _FROM_A) & ~(lower + _AFTER_Z)
    digits = (plain + _FROM_0) & ~(plain + _AFTER_9)
    found = (letters | digits | lane) & _HIGH_BITS
    return ((found >> _TO_BIT_0) * _GATHER_BITS) >> _GATHER_SHIFT


@njit(inline="always")
def _word_mask(data: NDArray[np.uint8], position: int, stop: int) -> np.uint64:
    """_word_bits of the 64 bytes from `position`, zeros from `stop` on."""
    mask = _ZERO
    for i in range(8):
        mask |= _word_bits(_eight_bytes(data, position + 8 * i)) << np.uint64(8 * i)
    if stop - position < 64:
        mask &= (_ONE << np.uint64(stop - position)) - _ONE
    return mask


@njit(inline="always")
def _absorb(state: np.uint64, lane: np.uint64) -> np.uint64:
    state = (state ^ lane) * _LANE_MULTIPLY
    return state ^ (state >> _HALF)


# Without _nrt=False numba counts references to the arrays atomically around every inlined call, which is three
# quarters of the time. These kernels allocate nothing, and their callers hold the arrays.
@njit(nogil=True, cache=True, _nrt=False)
def _split(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    index: NDArray[np.uint16],
    pages: NDArray[np.int32],
    expansions: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    counted: NDArray[np.int64],
) -> None:
    n_words = 0
    for document in range(starts.size):
        start, stop = starts[document], stops[document]
        n_counted = 0
        run_start = start
        in_run = _ZERO
        # One place more than there are bytes: what is still open there ends there.
        for block in range(start, stop + 1, 64):
            mask = _word_mask(data, block, stop)
            before = (mask << _ONE) | in_run
            begins = mask & ~before
            ends = before & ~mask
            if in_run == _ZERO:
                run_start = block + _lowest_bit(begins)
                begins &= begins - _ONE
            while ends != _ZERO:
                run_stop = block + _lowest_bit(ends)
                ends &= ends - _ONE
                n_words, n_counted = _take_run(
                    data, run_start, run_stop, index, pages, expansions, hashes, n_words, n_counted
                )
                run_start = block + _lowest_bit(begins)
                begins &= begins - _ONE
            in_run = mask >> _LAST_BIT
        counted[document] = n_counted
        offsets[document + 1] = n_words


@njit(inline="always")
def _take_run(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    index: NDArray[np.uint16],
    pages: NDArray[np.int32],
    expansions: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    n_words: int,
    n_counted: int,
) -> tuple[int, int]:
    """Adds the words between two ASCII separators: one if all is ASCII, else what decoding finds."""
    state = _WORD_SEED
    high = _ZERO
    position = start
    while position < stop and high == _ZERO:
        lane = _eight_bytes(data, position)
        # Digits have the case bit already, so setting it folds letters and changes nothing else.
        lane = (lane | _CASE_BITS) & (_ALL_BITS >> np.uint64(max(64 - 8 * (stop - position), 0)))
        high = lane & _HIGH_BITS
        state = _absorb(state, lane)
        position += 8
    if high != _ZERO:
        return _decode_run(data, start, stop, index, pages, expansions, hashes, n_words, n_counted)
    hashes[np.uint64(n_words)] = mix64(state)
    return n_words + 1, n_counted + _counts(stop - start)


@njit(inline="always")
def _counts(characters: int) -> int:
    return (characters + _CHARACTERS_PER_COUNT - 1) // _CHARACTERS_PER_COUNT


@njit(inline="always")
def _decode(lane: np.uint64) -> tuple[np.uint64, int]:
    """The code point that the lowest bytes spell, and how many they are; below 2**21 even if they are malformed."""
    first = lane & _BYTE
    if first < np.uint64(0x80):
        return first, 1
    second = lane >> np.uint64(8) & _CONTINUED
    if first < np.uint64(0xE0):
        return (first & np.uint64(0x1F)) << _SIX | second, 2
    third = lane >> np.uint64(16) & _CONTINUED
    if first < np.uint64(0xF0):
        return ((first & np.uint64(0x0F)) << _SIX | second) << _SIX | third, 3
    fourth = lane >> np.uint64(24) & _CONTINUED
    return (((first & np.uint64(0x07)) << _SIX | second) << _SIX | third) << _SIX | fourth, 4


@njit(inline="always")
def _spelled_length(spelled: np.uint64) -> int:
    first = spelled & _BYTE
    if first < np.uint64(0x80):
        return 1
    if first < np.uint64(0xE0):
        return 2
    return 3 if first < np.uint64(0xF0) else 4


@njit(inline="always")
def _decode_run(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    index: NDArray[np.uint16],
    pages: NDArray[np.int32],
    expansions: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    n_words: int,
    n_counted: int,
) -> tuple[int, int]:
    """Adds the words of a run by the Unicode tables."""
    state, lane, filled = _WORD_SEED, _ZERO, 0
    characters = 0
    word = OTHER  # what the open word began as; OTHER while none is open
    expansion, pending = np.int64(0), np.int64(0)
    fresh = 0  # 1 until the character just decoded is counted, which its expansion must be only once
    position = start
    while position < stop or pending > 0:
        if pending > 0:
            entry = expansions[expansion]
            kind, spelled = entry & _CLASS_MASK, np.uint64(entry >> CLASS_BITS)
            length = _spelled_length(spelled)
            expansion += 1
            pending -= 1
        else:
            following = _eight_bytes(data, position)
            character, length = _decode(following)
            position += length
            fresh = 1
            entry = np.int64(pages[index[character >> _PAGE_SHIFT], character & _PAGE_MASK])
            # Malformed text may end inside a character. It must not be a word: no room is allotted for one so short.
            kind = entry & _CLASS_MASK if position <= stop else np.int64(OTHER)
            if kind == EXPANSION:
                expansion, pending = entry >> (CLASS_BITS + LENGTH_BITS), entry >> CLASS_BITS & _LENGTH_MASK
                continue
            spelled = (following & (_ONE << np.uint64(8 * length)) - _ONE) + np.uint64(entry >> CLASS_BITS)

        continues = (kind == SPACED and word == SPACED) or (kind == MARK and word != OTHER)
        if not continues:
            if word != OTHER:
                hashes[np.uint64(n_words)] = _word_hash(state, lane, filled)
                n_words += 1
                n_counted += _counts(characters)
                state, lane, filled = _WORD_SEED, _ZERO, 0
                characters = 0
            word = SPACED if kind == MARK else kind
            if kind <= SPACE:
                word = OTHER
                continue
        characters += fresh
        fresh = 0

        bits = 8 * length
        lane |= spelled << np.uint64(filled)
        filled += bits
        if filled >= 64:
            state = _absorb(state, lane)
            filled -= 64
            lane = spelled >> np.uint64(bits - filled)

    if word != OTHER:
        hashes[np.uint64(n_words)] = _word_hash(state, lane, filled)
        n_words += 1
        n_counted += _counts(characters)
    return n_words, n_counted


@njit(inline="always")
def _word_hash(state: np.uint64, lane: np.uint64, filled: int) -> np.uint64:
    """Closes a word; `filled` bits of its last lane are in use."""
    if filled > 0:
        state = _absorb(state, lane)
    return mix64(state)


@njit(nogil=True, cache=True, _nrt=False)
def _validate(
    data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64], valid: NDArray[np.bool_]
) -> None:
    for document in range(starts.size):
        position, stop = starts[document], stops[document]
        sound = True
        while sound and position < stop:
            if position + 8 <= stop and _load_eight(data, position) & _HIGH_BITS == _ZERO:
                position += 8
                continue
            first = data[position]
            if first < 0x80:
                position += 1
                continue
            # The second byte's range is what rules out overlong forms, surrogates and values above U+10FFFF.
            length, low, high = 0, 0x80, 0xBF
            if 0xC2 <= first <= 0xDF:
                length = 2
            elif 0xE0 <= first <= 0xEF:
                length = 3
                if first == 0xE0:
                    low = 0xA0
                elif first == 0xED:
                    high = 0x9F
            elif 0xF0 <= first <= 0xF4:
                length = 4
                if first == 0xF0:
                    low = 0x90
                elif first == 0xF4:
                    high = 0x8F
            sound = length > 0 and position + length <= stop and low <= data[position + 1] <= high
            if sound and length > 2:
                sound = data[position + 2] & 0xC0 == 0x80
            if sound and length > 3:
                sound = data[position + 3] & 0xC0 == 0x80
            position += length
        valid[document] = sound


@njit(nogil=True, cache=True, _nrt=False)
def _find_blank(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    index: NDArray[np.uint16],
    pages: NDArray[np.int32],
    is_blank: NDArray[np.bool_],
) -> None:
    for document in range(starts.size):
        position, stop = starts[document], stops[document]
        only_space = True
        while only_space and position < stop:
            character, length = _decode(_eight_bytes(data, position))
            only_space = pages[index[character >> _PAGE_SHIFT], character & _PAGE_MASK] & _CLASS_MASK == SPACE
            position += length
        is_blank[document] = only_space
