"""UTF-8 to words, straight from Arrow's buffers: validity, blankness, hashes of normal words, the `words` count.

docs/text.md says what a word is, what its normal form is, and what is counted.

ASCII is settled 64 bytes at a time by bit masks. A run between two ASCII separators that holds other characters is
decoded by the Unicode tables instead, each character mapped to its normal form alone. That is right as long as no
mark composes with what stands before it or is out of order; the words where one may be are left to `text_normal`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.hashing import ByteSpans, byte_spans, mix64
from transforms.kernels.text_lanes import (
    WORD_SEED,
    OpenWord,
    absorb,
    absorb_character,
    eight_bytes,
    load_eight,
    lowest_bit,
    word_hash,
)
from transforms.kernels.text_normal import Room, make_room, normal_words
from transforms.kernels.text_normal import count_words as count_normal_words
from transforms.kernels.text_unicode import (
    CLASS_MASK,
    COMBINING_MASK,
    COUNTS_BIT,
    CROWDED,
    FOLLOWS,
    LEADS,
    LENGTH_BITS,
    LENGTH_MASK,
    MARK,
    OTHER,
    REWRITTEN,
    SPACE,
    SPACED,
    UNICODE_VERSION,
    UNLIKE,
    VALUE_SHIFT,
    Tables,
    continues,
    decode,
    entry_at,
    entry_of,
    load_tables,
)

__all__ = ["UNICODE_VERSION", "Words", "blank", "count_words", "split_words", "valid_utf8"]

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_LAST_BIT = np.uint64(63)
_BYTE = np.uint64(0xFF)

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
    """Of the words of the normalised text."""
    offsets: NDArray[np.int64]
    counted: NDArray[np.int64]
    """What the `words` counter says of the text as it stands: one per started 16 characters of each word, and at least
    one per document that is not blank."""


def _spans(values: pa.Array) -> ByteSpans:
    """byte_spans with the eight bytes at least that loading eight at once needs: Arrow need not pad its buffers."""
    spans = byte_spans(values)
    if spans.data.size >= 8:
        return spans
    padded = np.zeros(8, np.uint8)
    padded[: spans.data.size] = spans.data
    padded.flags.writeable = False
    return spans._replace(data=padded)


def split_words(text: pa.Array) -> Words:
    """Hashes and counts the words of each document of a string array. The text must be valid UTF-8."""
    data, starts, stops = _spans(text)
    # A word is divided from the next by a byte at least, or is a character of three; so half of the bytes are enough,
    # and what stays unused of them is never backed by memory. Characters that are rewritten to more words than that
    # draw on what is spare, and where they are many the kernel says how much was wanting.
    most = int((stops - starts + 1).sum()) // 2
    room = make_room(most // 4 + 64)
    offsets = np.zeros(len(starts) + 1, np.int64)
    counted = np.zeros(len(starts), np.int64)
    while True:
        n_spare = int(room.words[0])
        hashes = np.empty(most + n_spare, np.uint64)
        _split(data, starts, stops, load_tables(), hashes, offsets, counted, room)
        wanting = max(0, -int(room.words[0]))
        if wanting == 0 and room.wanted[0] == 0:
            break
        room = make_room(n_spare + wanting, room)
    counted[(counted == 0) & ~blank(text)] = 1
    return Words(hashes[: offsets[-1]], offsets, counted)


def count_words(text: pa.Array) -> NDArray[np.int64]:
    """The `counted` of `split_words` alone, in less than half of its time: no word of ASCII is looked at."""
    data, starts, stops = _spans(text)
    longest = int((stops - starts).max(initial=0))
    room = make_room(longest // 4 + 64)
    counted = np.zeros(len(starts), np.int64)
    while True:
        n_spare = int(room.words[0])
        # Words are decoded into the same place, one run after the other.
        hashes = np.empty(longest // 2 + 1 + n_spare, np.uint64)
        _count(data, starts, stops, load_tables(), hashes, counted, room)
        wanting = max(0, -int(room.words[0]))
        if wanting == 0 and room.wanted[0] == 0:
            break
        room = make_room(n_spare + wanting, room)
    counted[(counted == 0) & ~blank(text)] = 1
    return counted


def valid_utf8(data: pa.Array) -> NDArray[np.bool_]:
    """Which values are strict UTF-8: no surrogates, no overlong forms, nothing above U+10FFFF. Nulls are."""
    valid = np.empty(len(data), np.bool_)
    _validate(*_spans(data), valid)
    return valid


def blank(text: pa.Array) -> NDArray[np.bool_]:
    """Which values are null, empty, or whitespace only, as `str.isspace` sees it."""
    is_blank = np.empty(len(text), np.bool_)
    _find_blank(*_spans(text), load_tables(), is_blank)
    return is_blank


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
        mask |= _word_bits(eight_bytes(data, position + 8 * i)) << np.uint64(8 * i)
    if stop - position < 64:
        mask &= (_ONE << np.uint64(stop - position)) - _ONE
    return mask


@njit(inline="always")
def _high_mask(data: NDArray[np.uint8], position: int, stop: int) -> np.uint64:
    """One bit for each of the 64 bytes from `position` that is not ASCII, zeros from `stop` on."""
    mask = _ZERO
    for i in range(8):
        found = eight_bytes(data, position + 8 * i) & _HIGH_BITS
        mask |= (((found >> _TO_BIT_0) * _GATHER_BITS) >> _GATHER_SHIFT) << np.uint64(8 * i)
    if stop - position < 64:
        mask &= (_ONE << np.uint64(stop - position)) - _ONE
    return mask


# Without _nrt=False numba counts references to the arrays atomically around every inlined call, which is three
# quarters of the time. These kernels allocate nothing, and their callers hold the arrays.
@njit(nogil=True, cache=True, _nrt=False)
def _split(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    tables: Tables,
    hashes: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    counted: NDArray[np.int64],
    room: Room,
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
                run_start = block + lowest_bit(begins)
                begins &= begins - _ONE
            while ends != _ZERO:
                run_stop = block + lowest_bit(ends)
                ends &= ends - _ONE
                # Adds the words between two ASCII separators: one if all is ASCII, else what decoding finds.
                state = WORD_SEED
                high = _ZERO
                position = run_start
                while position < run_stop and high == _ZERO:
                    lane = eight_bytes(data, position)
                    # Digits have the case bit already, so setting it folds letters and changes nothing else.
                    lane = (lane | _CASE_BITS) & (_ALL_BITS >> np.uint64(max(64 - 8 * (run_stop - position), 0)))
                    high = lane & _HIGH_BITS
                    state = absorb(state, lane)
                    position += 8
                if high == _ZERO:
                    hashes[np.uint64(n_words)] = mix64(state)
                    n_words += 1
                    n_counted += _counts(run_stop - run_start)
                else:
                    n_words, n_counted = _decode_run(
                        data, start, run_start, run_stop, tables, hashes, n_words, n_counted, room
                    )
                run_start = block + lowest_bit(begins)
                begins &= begins - _ONE
            in_run = mask >> _LAST_BIT
        counted[document] = n_counted
        offsets[document + 1] = n_words


@njit(nogil=True, cache=True, _nrt=False)
def _count(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    tables: Tables,
    hashes: NDArray[np.uint64],
    counted: NDArray[np.int64],
    room: Room,
) -> None:
    """As `_split`, but runs of ASCII are only measured."""
    for document in range(starts.size):
        start, stop = starts[document], stops[document]
        n_counted = 0
        run_start = start
        in_run = _ZERO
        high_before = False  # in the open run, in blocks before this one
        for block in range(start, stop + 1, 64):
            mask = _word_mask(data, block, stop)
            high = _high_mask(data, block, stop)
            before = (mask << _ONE) | in_run
            begins = mask & ~before
            ends = before & ~mask
            if in_run == _ZERO:
                run_start = block + lowest_bit(begins)
                begins &= begins - _ONE
            while ends != _ZERO:
                run_stop = block + lowest_bit(ends)
                # What is not ASCII stands in runs, and earlier runs have taken theirs.
                of_run = high & (ends ^ (ends - _ONE))
                ends &= ends - _ONE
                if of_run == _ZERO and not high_before:
                    n_counted += _counts(run_stop - run_start)
                else:
                    high ^= of_run
                    high_before = False
                    _, n_counted = _decode_run(data, start, run_start, run_stop, tables, hashes, 0, n_counted, room)
                run_start = block + lowest_bit(begins)
                begins &= begins - _ONE
            high_before |= high != _ZERO
            in_run = mask >> _LAST_BIT
        counted[document] = n_counted


@njit(inline="always")
def _counts(characters: int) -> int:
    return (characters + 15) >> 4


@njit(inline="always")
def _decode_run(
    data: NDArray[np.uint8],
    document_start: int,
    start: int,
    stop: int,
    tables: Tables,
    hashes: NDArray[np.uint64],
    n_words: int,
    n_counted: int,
    room: Room,
) -> tuple[int, int]:
    """Adds the words of a run by the Unicode tables."""
    counted_before = n_counted
    is_counted = True  # so far; a run that counts otherwise than it normalises is counted again
    open_word = (WORD_SEED, _ZERO, 0)
    word = OTHER  # what the open word began as; OTHER while none is open
    characters = 0  # of the open word, as it stands in the text
    first = position = start - 1 if start > document_start and _is_negatable(data[start - 1]) else start
    # Whether a mark may change what stands before `tail_stop`, and its combining class. Nearly all characters are
    # plain, so it is kept up only where it is asked for.
    tail, tail_stop = 0, -1
    settled = first  # where a word or separator begins, so that normalising may begin anew there
    # Words, and what they count for, that ended inside of rewritten characters since it was there.
    ended, ended_counted, ended_since = 0, 0, -1
    while position < stop:
        following = eight_bytes(data, position)
        character, length = decode(following)
        position += length
        entry = entry_of(character, tables)
        if position > stop:
            entry = OTHER  # malformed text ends inside a character; no room is allotted for a word so short
        kind = entry & CLASS_MASK
        if entry & (REWRITTEN | FOLLOWS | COMBINING_MASK):
            if tail_stop != position - length:
                # Behind a plain character a mark is in order, so of those that do not compose nothing need be known.
                is_asked = entry & (REWRITTEN | FOLLOWS) != 0
                tail = _look_back(data, first, position - length, tables) if is_asked else LEADS
            tail_stop = position
            is_settled = True
            if entry & REWRITTEN:
                member, pending = entry >> (VALUE_SHIFT + LENGTH_BITS), entry >> VALUE_SHIFT & LENGTH_MASK
                is_counted &= entry & UNLIKE == 0
                if entry & CROWDED:
                    room.words[0] -= pending
                    if room.words[0] < 0:
                        pending = 0
                if ended_since != settled:
                    ended, ended_counted, ended_since = 0, 0, settled
                ended -= n_words
                ended_counted -= n_counted
                while pending > 0 and is_settled:
                    entry = tables.rewritten[np.uint64(member)]
                    member += 1
                    pending -= 1
                    kind = entry & CLASS_MASK
                    is_settled, tail = _follow(entry, tail)
                    if not continues(kind, word):
                        word, characters, n_words, n_counted, open_word = _begin(
                            kind, word, characters, n_words, n_counted, open_word, hashes
                        )
                    if kind > SPACE:
                        characters += entry >> COUNTS_BIT & 1
                        spelled = np.uint64(entry >> VALUE_SHIFT)
                        open_word = absorb_character(open_word, spelled, _spelled_length(spelled))
                ended += n_words
                ended_counted += n_counted
                if is_settled:
                    continue
            else:
                is_settled, tail = _follow(entry, tail)
            if not is_settled:
                if ended_since == settled:
                    n_words -= ended
                    n_counted -= ended_counted
                position, n_words, n_more, is_like = normal_words(
                    data, settled, position, stop, tables, hashes, n_words, room
                )
                n_counted += n_more
                is_counted &= is_like
                settled, ended_since = position, -1
                open_word = (WORD_SEED, _ZERO, 0)
                word = OTHER
                characters = 0
                tail, tail_stop = 0, position
                continue

        if not continues(kind, word):
            word, characters, n_words, n_counted, open_word = _begin(
                kind, word, characters, n_words, n_counted, open_word, hashes
            )
            if kind != MARK:
                settled = position - length
            if kind <= SPACE:
                continue
        characters += 1
        spelled = (following & (_ONE << np.uint64(8 * length)) - _ONE) + np.uint64(entry >> VALUE_SHIFT)
        open_word = absorb_character(open_word, spelled, length)

    if word != OTHER:
        hashes[np.uint64(n_words)] = word_hash(open_word)
        n_words += 1
        n_counted += _counts(characters)
    if not is_counted:
        n_counted = counted_before + count_normal_words(data, start, stop, tables)[0]
    return n_words, n_counted


@njit(inline="always")
def _is_negatable(byte: int) -> bool:
    """Whether it is one of < = >, the only separators in ASCII that a mark makes another character of."""
    return 0x3C <= byte <= 0x3E


@njit(inline="always")
def _begin(
    kind: int,
    word: int,
    characters: int,
    n_words: int,
    n_counted: int,
    open_word: OpenWord,
    hashes: NDArray[np.uint64],
) -> tuple[int, int, int, int, OpenWord]:
    """Closes the word that is open, if any, and opens the next, unless the character is no part of one."""
    if word != OTHER:
        hashes[np.uint64(n_words)] = word_hash(open_word)
        n_words += 1
        n_counted += _counts(characters)
        characters = 0
        open_word = (WORD_SEED, _ZERO, 0)
    word = SPACED if kind == MARK else kind
    if kind <= SPACE:
        word = OTHER
    return word, characters, n_words, n_counted, open_word


@njit(inline="always")
def _follow(entry: int, tail: int) -> tuple[bool, int]:
    """Whether the character neither composes with what stands before it nor is out of order; and the new tail."""
    kind, combining = entry & CLASS_MASK, entry & COMBINING_MASK
    # What has no combining class composes only with what stands right before it.
    is_apart = combining == 0 and tail & COMBINING_MASK != 0
    composes = entry & FOLLOWS != 0 and (kind != MARK or (tail & LEADS != 0 and not is_apart))
    is_settled = not composes and not 0 < combining < tail & COMBINING_MASK
    return is_settled, tail & LEADS | combining if kind == MARK and combining != 0 else entry


@njit(inline="always")
def _look_back(data: NDArray[np.uint8], first: int, position: int, tables: Tables) -> int:
    """The tail before `position`, where a plain character of a run that begins at `first` stands, if any."""
    if position <= first:
        return 0
    position -= 1
    while position > first and data[position] & 0xC0 == 0x80:
        position -= 1
    return entry_at(data, position, tables)[0] & LEADS


@njit(inline="always")
def _spelled_length(spelled: np.uint64) -> int:
    first = spelled & _BYTE
    if first < np.uint64(0x80):
        return 1
    if first < np.uint64(0xE0):
        return 2
    return 3 if first < np.uint64(0xF0) else 4


@njit(nogil=True, cache=True, _nrt=False)
def _validate(
    data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64], valid: NDArray[np.bool_]
) -> None:
    for document in range(starts.size):
        position, stop = starts[document], stops[document]
        sound = True
        while sound and position < stop:
            if position + 8 <= stop and load_eight(data, position) & _HIGH_BITS == _ZERO:
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
    tables: Tables,
    is_blank: NDArray[np.bool_],
) -> None:
    for document in range(starts.size):
        position, stop = starts[document], stops[document]
        only_space = True
        while only_space and position < stop:
            entry, _, length = entry_at(data, position, tables)
            only_space = entry & CLASS_MASK == SPACE
            position += length
        is_blank[document] = only_space
