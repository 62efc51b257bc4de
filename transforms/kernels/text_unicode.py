"""The Unicode tables: what each code point is, what it normalises to, and how entries are laid out.

An entry is one number. Of a code point (`pages`) it holds the class of the character as it stands in the text; of a
character that others are rewritten to (`rewritten`), its own class. Above come the flags, the combining class and:

- of a code point that normalises to one of as many bytes: what to add to its UTF-8 bytes, read as one number. Nothing
  for most, so pages of scripts without case are alike and shared;
- of a REWRITTEN one: where in `rewritten` its characters begin, and how many they are, none if it is dropped;
- of a member of `rewritten`: its UTF-8 bytes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.text_lanes import eight_bytes

__all__ = ["UNICODE_VERSION", "Tables", "continues", "decode", "entry_at", "entry_of", "load_tables"]

UNICODE_VERSION = "14.0.0"
"""Of the shipped tables. Words and their hashes depend on it, on nothing that the interpreter brings along."""

TABLES_FILE = Path(__file__).with_name("unicode_tables.npz")

# What a character is; the two that divide words come first.
OTHER, SPACE, SPACED, MARK, UNSPACED = range(5)
CLASS_MASK = 0b111
REWRITTEN = 1 << 3  # to none, to several, or to one that differs in class or in length
LEADS = 1 << 4  # may be changed by a mark that FOLLOWS
FOLLOWS = 1 << 5  # may compose with what stands before it
CROWDED = 1 << 6  # makes more words than its bytes account for, see `split_words`
UNLIKE = 1 << 7  # of a REWRITTEN one: words of the text as it stands are not to be counted on what it becomes
COUNTS_BIT = 7  # of any other one: whether it counts as a character of the text as it stands
COMBINING_SHIFT = 8
COMBINING_MASK = 0xFF << COMBINING_SHIFT
VALUE_SHIFT = 16

LENGTH_BITS = 5
LENGTH_MASK = (1 << LENGTH_BITS) - 1
PAGE_BITS = 8

# Members of `decomposed` and keys of `pairs`.
POINT_BITS = 21
POINT_MASK = (1 << POINT_BITS) - 1

PAGE_MASK = np.uint64((1 << PAGE_BITS) - 1)
PAGE_SHIFT = np.uint64(PAGE_BITS)

_BYTE = np.uint64(0xFF)
_CONTINUED = np.uint64(0x3F)
_SIX = np.uint64(6)


class Tables(NamedTuple):
    """All arrays are read-only, which the compiler turns to account, and shared by every caller."""

    page_of: NDArray[np.uint16]
    """Page of `pages` of each 256 code points."""
    pages: NDArray[np.int64]
    rewritten: NDArray[np.int64]
    """What REWRITTEN code points normalise to, each standing alone."""
    decomposed_page_of: NDArray[np.uint16]
    decomposed_pages: NDArray[np.int32]
    """Where in `decomposed` a code point's characters begin, and how many they are; 0 if it is its own."""
    decomposed: NDArray[np.int64]
    """Folded and wholly decomposed characters, their combining class above them."""
    pairs: NDArray[np.int64]
    """Two characters that compose, as one sorted number. Hangul is left to arithmetic."""
    composites: NDArray[np.int64]


@cache
def load_tables() -> Tables:
    with np.load(TABLES_FILE, allow_pickle=False) as stored:
        tables = Tables(*(stored[name] for name in Tables._fields))
    for array in tables:
        array.flags.writeable = False
    return tables


@njit(inline="always")
def decode(lane: np.uint64) -> tuple[np.uint64, int]:
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
def entry_of(character: np.uint64, tables: Tables) -> int:
    return int(tables.pages[tables.page_of[character >> PAGE_SHIFT], character & PAGE_MASK])


@njit(inline="always")
def entry_at(data: NDArray[np.uint8], position: int, tables: Tables) -> tuple[int, np.uint64, int]:
    """Entry of the character at `position`, its code point, and its length in bytes."""
    character, length = decode(eight_bytes(data, position))
    return entry_of(character, tables), character, length


@njit(inline="always")
def continues(kind: int, word: int) -> bool:
    """Whether a character of a class belongs to the word that is open, if one is, as what it began with."""
    return (kind == SPACED and word == SPACED) or (kind == MARK and word != OTHER)
