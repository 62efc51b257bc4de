"""Writes transforms/kernels/unicode_tables.npz from this interpreter's `unicodedata`.

Shipping the tables, rather than asking the interpreter at run time, makes words and their hashes the same under
every Python version. Run it on purpose only: other tables are other words, so indexes made before are stale.

    python scripts/make_unicode_tables.py
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from transforms.kernels.text_unicode import (  # noqa: E402
    COMBINING_MASK,
    COMBINING_SHIFT,
    COUNTS_BIT,
    CROWDED,
    FOLLOWS,
    LEADS,
    LENGTH_BITS,
    LENGTH_MASK,
    MARK,
    OTHER,
    PAGE_BITS,
    POINT_BITS,
    REWRITTEN,
    SPACE,
    SPACED,
    TABLES_FILE,
    UNICODE_VERSION,
    UNLIKE,
    UNSPACED,
    VALUE_SHIFT,
)

CODE_POINTS = 0x110000
DECODABLE = 0x200000
"""What four bytes can spell: the page index reaches so far that even malformed text cannot index outside it."""

UNSPACED_BLOCKS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark and zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3031, 0x3035),  # vertical kana repeat marks
    (0x3038, 0x303C),  # more Hangzhou numerals, masu mark
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x3190, 0x31BF),  # Kanbun annotations, Bopomofo Extended
    (0x31F0, 0x31FF),  # Katakana Phonetic Extensions
    (0x3400, 0x4DBF),  # Han, Extension A
    (0x4E00, 0x9FFF),  # Han
    (0xA9E0, 0xA9FF),  # Myanmar Extended-B
    (0xAA60, 0xAADF),  # Myanmar Extended-A, Tai Viet
    (0xF900, 0xFAFF),  # Han compatibility ideographs
    (0xFF66, 0xFF9F),  # halfwidth Katakana
    (0x11700, 0x1174F),  # Ahom
    (0x16FE0, 0x18D8F),  # Tangut, Khitan and their marks
    (0x1AFF0, 0x1B2FF),  # Kana extensions, Nushu
    (0x20000, 0x3FFFF),  # Han, the supplementary planes
)
"""Scripts whose running text has no spaces between words; Tibetan is not among them, its syllables are divided."""


IGNORABLE = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x061C, 0x061C),  # Arabic letter mark
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian variation selectors and vowel separator
    (0x200B, 0x200F),  # zero-width space, non-joiner, joiner, direction marks
    (0x202A, 0x202E),  # direction embedding
    (0x2060, 0x206F),  # word joiner, invisible operators, direction isolates
    (0x3164, 0x3164),  # Hangul filler
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # byte order mark
    (0xFFA0, 0xFFA0),  # halfwidth Hangul filler
    (0xFFF0, 0xFFF8),  # reserved
    (0x1BCA0, 0x1BCA3),  # shorthand format controls
    (0x1D173, 0x1D17A),  # musical format controls
    (0xE0000, 0xE0FFF),  # tags and variation selectors
)
"""Default_Ignorable_Code_Point of the Unicode Character Database, which `unicodedata` lacks."""

HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)
HANGUL_VOWELS_AND_TAILS = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}
IOTA_BELOW = "\u0345"
"""The one mark that folds to a letter. It is put in order as the mark it was, and stays behind its letter's marks."""


def is_within(code_point: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code_point <= last for first, last in ranges)


def classify(character: str) -> int:
    category = unicodedata.category(character)[0]
    if category == "M":
        return MARK
    if category in "LN":
        return UNSPACED if is_within(ord(character), UNSPACED_BLOCKS) else SPACED
    return SPACE if character.isspace() else OTHER


def normalise(character: str) -> str:
    """What the character is alone; the rule stands in docs/text.md."""
    if is_within(ord(character), IGNORABLE):
        return ""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", character).casefold())


def decompose(character: str) -> list[tuple[str, int]]:
    """The folded characters that normalising begins from, with the combining class by which to put them in order."""
    if is_within(ord(character), IGNORABLE):
        return []
    found = []
    for part in unicodedata.normalize("NFKD", character):
        for folded in unicodedata.normalize("NFKD", part.casefold()):
            found.append((folded, unicodedata.combining(part if part == IOTA_BELOW else folded)))
    return found


def compositions() -> dict[tuple[str, str], str]:
    """Pairs of normalised characters that compose, but for Hangul."""
    found = {}
    for character in map(chr, range(CODE_POINTS)):
        parts = unicodedata.decomposition(character).split()
        if len(parts) != 2 or parts[0].startswith("<") or unicodedata.normalize("NFC", character) != character:
            continue
        first, second = (chr(int(part, 16)) for part in parts)
        if normalise(first) == first and normalise(second) == second:
            assert normalise(character) == character
            found[first, second] = character
    return found


class Entries:
    """What stands in the low bits of entries, and above them."""

    def __init__(self) -> None:
        self.pairs = compositions()
        self.first = {first for first, _ in self.pairs}
        self.second = {second for _, second in self.pairs}

    def may_lead(self, character: str) -> bool:
        if ord(character) in HANGUL_SYLLABLES:
            return True  # of all alike, so that their pages are
        return character in self.first or unicodedata.normalize("NFD", character) != character

    def may_follow(self, character: str) -> bool:
        return character in self.second or ord(character) in HANGUL_VOWELS_AND_TAILS

    def flags(self, character: str, combining: int) -> int:
        return (
            classify(character)
            | LEADS * self.may_lead(character)
            | FOLLOWS * self.may_follow(character)
            | 1 << COUNTS_BIT
            | combining << COMBINING_SHIFT
        )

    def of_member(self, place: int, characters: str, has_iota: bool) -> int:
        """The entry of one of the characters that another one is rewritten to."""
        character = characters[place]
        is_iota = has_iota and place == len(characters) - 1
        combining = unicodedata.combining(IOTA_BELOW if is_iota else character)
        flags = self.flags(character, combining)
        if any(unicodedata.combining(earlier) == 0 for earlier in characters[:place]):
            flags &= ~FOLLOWS  # with those before it it has composed as far as it can
        if place != len(characters) - 1:
            flags &= ~(1 << COUNTS_BIT)  # all of them are one character of the text
        return spell(character) << VALUE_SHIFT | flags

    def of_plain(self, character: str, normal: str) -> int | None:
        """The entry of a character that is not REWRITTEN; None if it is."""
        kind = classify(character)
        if normal and kind <= SPACE and all(classify(member) <= SPACE for member in normal):
            return kind | LEADS * self.may_lead(normal[-1])  # none of them is part of any word
        if len(normal) != 1 or len(normal.encode()) != len(character.encode()) or classify(normal) != kind:
            return None
        if normal != character and kind == MARK:
            return None
        change = spell(normal) - spell(character)
        return change * (1 << VALUE_SHIFT) | self.flags(normal, unicodedata.combining(normal))


class Run:
    """Words of characters in a row: those that ended, and what the open one began as, each with its characters."""

    def __init__(self, word: int) -> None:
        self.word = word  # OTHER while none is open
        self.size = 0 if word == OTHER else 1
        self.sizes: list[int] = []
        self.begun = 0

    def add(self, kind: int, size: int) -> None:
        if (kind == SPACED and self.word == SPACED) or (kind == MARK and self.word != OTHER):
            self.size += size
            return
        if self.size:
            self.sizes.append(self.size)
        self.word = OTHER if kind <= SPACE else SPACED if kind == MARK else kind
        self.size = size if kind > SPACE else 0
        self.begun += kind > SPACE


def is_crowded(character: str, normal: str) -> bool:
    """Whether it may break that twice the words, plus 1 where the next letter begins one, stay within the bytes."""
    for before in (OTHER, UNSPACED, SPACED):
        run = Run(before)
        for member in normal:
            run.add(classify(member), 1)
        if 2 * run.begun + (run.word != SPACED) > len(character.encode()) + (before != SPACED):
            return True
    return False


def is_unlike(character: str, normal: str) -> bool:
    """Whether counting what it becomes, the last of it as the one character that it is, differs from counting it."""
    for before in (OTHER, UNSPACED, SPACED):
        raw, normalised = Run(before), Run(before)
        raw.add(classify(character), 1)
        for place, member in enumerate(normal):
            normalised.add(classify(member), int(place == len(normal) - 1))
        if (raw.word, raw.size, raw.sizes) != (normalised.word, normalised.size, normalised.sizes):
            return True
    return False


def spell(character: str) -> int:
    """The UTF-8 bytes as one number, the first byte lowest."""
    return int.from_bytes(character.encode(), "little")


def paged(entries: NDArray[np.generic]) -> tuple[NDArray[np.uint16], NDArray[np.generic]]:
    pages, page_of = np.unique(entries.reshape(-1, 1 << PAGE_BITS), axis=0, return_inverse=True)
    return page_of.reshape(-1).astype(np.uint16), pages


def build() -> dict[str, NDArray[np.generic]]:
    """The arrays of the npz: those of `Tables`, the assigned code points and the Unicode version."""
    make = Entries()
    entries = np.zeros(DECODABLE, dtype=np.int64)
    rewritten: list[int] = []
    places = np.zeros(DECODABLE, dtype=np.int32)
    decomposed = [0]  # so that no place is 0
    for code_point in range(CODE_POINTS):
        if 0xD800 <= code_point <= 0xDFFF:
            continue
        character = chr(code_point)
        normal, parts = normalise(character), decompose(character)
        plain = make.of_plain(character, normal)
        if plain is not None:
            entries[code_point] = plain
        else:
            assert len(normal) <= LENGTH_MASK
            where = len(rewritten) << LENGTH_BITS | len(normal)
            lead = make.flags(*parts[0]) & (FOLLOWS | COMBINING_MASK) if parts else FOLLOWS
            entries[code_point] = (
                where << VALUE_SHIFT
                | lead
                | classify(character)
                | REWRITTEN
                | UNLIKE * is_unlike(character, normal)
                | CROWDED * is_crowded(character, normal)
            )
            has_iota = IOTA_BELOW in unicodedata.normalize("NFKD", character)
            rewritten += [make.of_member(place, normal, has_iota) for place in range(len(normal))]
        if parts != [(character, unicodedata.combining(character))] and code_point not in HANGUL_SYLLABLES:
            assert len(parts) <= LENGTH_MASK
            places[code_point] = len(decomposed) << LENGTH_BITS | len(parts)
            decomposed += [combining << POINT_BITS | ord(part) for part, combining in parts]
    page_of, pages = paged(entries)
    decomposed_page_of, decomposed_pages = paged(places)
    composed = sorted((ord(first) << POINT_BITS | ord(second), ord(it)) for (first, second), it in make.pairs.items())
    assigned = [unicodedata.category(chr(code_point)) != "Cn" for code_point in range(CODE_POINTS)]
    return {
        "page_of": page_of,
        "pages": pages,
        "rewritten": np.array(rewritten, dtype=np.int64),
        "decomposed_page_of": decomposed_page_of,
        "decomposed_pages": decomposed_pages,
        "decomposed": np.array(decomposed, dtype=np.int64),
        "pairs": np.array([pair for pair, _ in composed], dtype=np.int64),
        "composites": np.array([it for _, it in composed], dtype=np.int64),
        "assigned": np.packbits(assigned),
        "unicode_version": np.array(unicodedata.unidata_version),
    }


def main() -> None:
    if unicodedata.unidata_version != UNICODE_VERSION:
        sys.exit(
            f"this Python knows Unicode {unicodedata.unidata_version}, transforms/kernels/text_unicode.py says "
            f"{UNICODE_VERSION}: change UNICODE_VERSION there if the tables are to move, or run a Python that matches"
        )
    np.savez_compressed(TABLES_FILE, allow_pickle=False, **build())
    print(f"{TABLES_FILE}: Unicode {UNICODE_VERSION}, {TABLES_FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
