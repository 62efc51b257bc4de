"""Words whose characters reorder or compose: decomposed, put in order and composed, as NFKC demands.

What `text` cannot settle character by character comes here: from where the word begins to the first place behind the
trouble where another one does. It goes by segments, each up to the next character that nothing before it can change.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.text_lanes import WORD_SEED, absorb_character, word_hash
from transforms.kernels.text_unicode import (
    CLASS_MASK,
    COMBINING_MASK,
    COMBINING_SHIFT,
    CROWDED,
    FOLLOWS,
    LENGTH_BITS,
    LENGTH_MASK,
    MARK,
    OTHER,
    PAGE_MASK,
    PAGE_SHIFT,
    POINT_BITS,
    POINT_MASK,
    REWRITTEN,
    SPACE,
    SPACED,
    VALUE_SHIFT,
    Tables,
    continues,
    entry_at,
    entry_of,
)

__all__ = ["Room", "count_words", "make_room", "normal_words"]

_FEW = 16  # up to here sorting by insertion is the fastest; beyond, it must not become quadratic
_CLASSES = 256
_SEGMENT = 1024  # characters; text that people write has a handful

_SYLLABLES, _LEADS, _VOWELS, _TAILS = 0xAC00, 0x1100, 0x1161, 0x11A7
_N_LEADS, _N_VOWELS, _N_TAILS = 19, 21, 28
_N_SYLLABLES = _N_LEADS * _N_VOWELS * _N_TAILS

_ZERO = np.uint64(0)


class Room(NamedTuple):
    """What the kernels may fill besides hashes, because they allocate nothing, and what they say was wanting."""

    words: NDArray[np.int64]
    """How many more words than its bytes account for the text may have; below 0, how many are wanting."""
    wanted: NDArray[np.int64]
    """Characters of the longest segment that `points` was too small for; 0 if there was none."""
    points: NDArray[np.int64]
    """The characters of a segment."""
    spare_points: NDArray[np.int64]
    """As many as `points`."""
    places: NDArray[np.int64]
    """One for each combining class."""


def make_room(words: int, before: Room | None = None) -> Room:
    """Room for so many words more, and for segments of usual length, or those for which there was too little before."""
    n_points = _SEGMENT if before is None else max(len(before.points), int(before.wanted[0]) + LENGTH_MASK)
    points = np.empty((2, n_points), np.int64)
    return Room(np.array([words]), np.zeros(1, np.int64), points[0], points[1], np.empty(_CLASSES, np.int64))


@njit(nogil=True, cache=True, _nrt=False)
def normal_words(
    data: NDArray[np.uint8],
    position: int,
    behind: int,
    stop: int,
    tables: Tables,
    hashes: NDArray[np.uint64],
    n_words: int,
    room: Room,
) -> tuple[int, int, int, bool]:
    """Adds the words from `position` on, where none is open, until one ends at or after `behind`.

    Returns where that is, the sum of words, what those of the text as it stands count for, and whether they end there,
    too.
    """
    start = position
    open_word = (WORD_SEED, _ZERO, 0)
    word = OTHER
    while position < stop:
        if position >= behind and _begins_anew(entry_at(data, position, tables)[0], word):
            break
        position, n = _segment(data, position, stop, tables, room)
        if n > 1:
            _sort(room, n)
            n = _compose(room.points, n, tables)
        for place in range(n):
            point = np.uint64(room.points[place] & POINT_MASK)
            kind = entry_of(point, tables) & CLASS_MASK
            if not continues(kind, word):
                if word != OTHER:
                    hashes[np.uint64(n_words)] = word_hash(open_word)
                    n_words += 1
                    open_word = (WORD_SEED, _ZERO, 0)
                word = SPACED if kind == MARK else kind
                if kind <= SPACE:
                    word = OTHER
                    continue
            spelled, length = _encode(point)
            open_word = absorb_character(open_word, spelled, length)
    if word != OTHER:
        hashes[np.uint64(n_words)] = word_hash(open_word)
        n_words += 1
    n_counted, raw_word = count_words(data, start, position, tables)
    ends = position >= stop or _begins_anew(entry_at(data, position, tables)[0], raw_word)
    return position, n_words, n_counted, ends


@njit(nogil=True, cache=True, _nrt=False)
def count_words(data: NDArray[np.uint8], position: int, stop: int, tables: Tables) -> tuple[int, int]:
    """What words count for as they stand in the text, one per started 16 characters, and what the last began as."""
    n_counted = 0
    word, characters = OTHER, 0
    while position < stop:
        entry, _, length = entry_at(data, position, tables)
        position += length
        kind = entry & CLASS_MASK if position <= stop else OTHER
        if continues(kind, word):
            characters += 1
        else:
            word = SPACED if kind == MARK else kind
            characters = 1
            if kind <= SPACE:
                word, characters = OTHER, 0
        n_counted += int(characters & 15 == 1)
    return n_counted, word


@njit(inline="always")
def _begins_anew(entry: int, word: int) -> bool:
    """Whether no open word reaches the character, and nothing before the character can change it."""
    kind = entry & CLASS_MASK
    is_settled = entry & (REWRITTEN | FOLLOWS | COMBINING_MASK) == 0
    return is_settled and kind != MARK and not continues(kind, word)


@njit(inline="always")
def _segment(
    data: NDArray[np.uint8],
    position: int,
    stop: int,
    tables: Tables,
    room: Room,
) -> tuple[int, int]:
    """The decomposed characters up to the next one that nothing before it can change: one at least, then its marks."""
    points = room.points
    n = 0
    n_left_out = 0
    while position < stop:
        entry, character, length = entry_at(data, position, tables)
        if n > 0 and entry & (FOLLOWS | COMBINING_MASK) == 0:
            break
        position += length
        if position > stop:
            entry, character = OTHER, _ZERO  # malformed text ends inside a character: a separator
        if entry & CROWDED:
            room.words[0] -= entry >> VALUE_SHIFT & LENGTH_MASK
            if room.words[0] < 0:
                continue
        if n + LENGTH_MASK > points.size:
            n_left_out += LENGTH_MASK
            continue
        page = tables.decomposed_page_of[character >> PAGE_SHIFT]
        where = np.int64(tables.decomposed_pages[page, character & PAGE_MASK])
        if where == 0:
            points[n] = (entry & COMBINING_MASK) >> COMBINING_SHIFT << POINT_BITS | np.int64(character)
            n += 1
        else:
            for place in range(where >> LENGTH_BITS, (where >> LENGTH_BITS) + (where & LENGTH_MASK)):
                points[n] = tables.decomposed[place]
                n += 1
    if n_left_out > 0:
        room.wanted[0] = max(room.wanted[0], n + n_left_out)
    return position, n


@njit(inline="always")
def _sort(room: Room, n: int) -> None:
    """Puts marks that stand together in the order of their combining classes, equal ones as they were."""
    points = room.points
    start = 0
    while start < n:
        if points[start] <= POINT_MASK:
            start += 1
            continue
        end = start + 1
        while end < n and points[end] > POINT_MASK:
            end += 1
        if end - start <= _FEW:
            for i in range(start + 1, end):
                point = points[i]
                j = i
                while j > start and points[j - 1] >> POINT_BITS > point >> POINT_BITS:
                    points[j] = points[j - 1]
                    j -= 1
                points[j] = point
        else:
            _sort_many(room, start, end)
        start = end


@njit(nogil=True, cache=True, _nrt=False)
def _sort_many(room: Room, start: int, end: int) -> None:
    """Linear, so that no text can make it slow."""
    points, unsorted, places = room.points, room.spare_points, room.places
    for i in range(places.size):
        places[i] = 0
    for i in range(start, end):
        unsorted[i] = points[i]
        places[points[i] >> POINT_BITS] += 1
    place = start
    for i in range(places.size):
        count = places[i]
        places[i] = place
        place += count
    for i in range(start, end):
        combining = unsorted[i] >> POINT_BITS
        points[places[combining]] = unsorted[i]
        places[combining] += 1


@njit(inline="always")
def _compose(points: NDArray[np.int64], n: int, tables: Tables) -> int:
    """Composes in place, drops the combining classes, and returns how many characters are left."""
    kept = 0
    starter = -1
    before = -1  # class of what was kept last, if that is not the starter itself
    for place in range(n):
        point, combining = points[place] & POINT_MASK, points[place] >> POINT_BITS
        if starter >= 0 and before < combining:
            composite = _composite(points[starter], point, tables)
            if composite != 0:
                points[starter] = composite
                continue
        points[kept] = point
        if combining == 0:
            starter, before = kept, -1
        else:
            before = combining
        kept += 1
    return kept


@njit(inline="always")
def _composite(first: int, second: int, tables: Tables) -> int:
    """What two characters compose to; 0 if they do not."""
    if _LEADS <= first < _LEADS + _N_LEADS and _VOWELS <= second < _VOWELS + _N_VOWELS:
        return _SYLLABLES + ((first - _LEADS) * _N_VOWELS + second - _VOWELS) * _N_TAILS
    if _SYLLABLES <= first < _SYLLABLES + _N_SYLLABLES and _TAILS < second < _TAILS + _N_TAILS:
        return first + second - _TAILS if (first - _SYLLABLES) % _N_TAILS == 0 else 0
    pair = first << POINT_BITS | second
    low, high = 0, tables.pairs.size
    while low < high:
        middle = (low + high) >> 1
        if tables.pairs[middle] < pair:
            low = middle + 1
        else:
            high = middle
    return tables.composites[low] if low < tables.pairs.size and tables.pairs[low] == pair else 0


@njit(inline="always")
def _encode(point: np.uint64) -> tuple[np.uint64, int]:
    """The UTF-8 bytes of a code point as one number, and how many they are."""
    low = point & np.uint64(0x3F) | np.uint64(0x80)
    if point < np.uint64(0x80):
        return point, 1
    if point < np.uint64(0x800):
        return point >> np.uint64(6) | np.uint64(0xC0) | low << np.uint64(8), 2
    middle = point >> np.uint64(6) & np.uint64(0x3F) | np.uint64(0x80)
    if point < np.uint64(0x10000):
        return point >> np.uint64(12) | np.uint64(0xE0) | middle << np.uint64(8) | low << np.uint64(16), 3
    upper = point >> np.uint64(12) & np.uint64(0x3F) | np.uint64(0x80)
    first = point >> np.uint64(18) | np.uint64(0xF0)
    return first | upper << np.uint64(8) | middle << np.uint64(16) | low << np.uint64(24), 4
