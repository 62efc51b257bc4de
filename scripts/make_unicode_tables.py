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

from transforms.kernels.text import (  # noqa: E402
    CLASS_BITS,
    EXPANSION,
    LENGTH_BITS,
    MARK,
    OTHER,
    PAGE_BITS,
    SPACE,
    SPACED,
    TABLES_FILE,
    UNICODE_VERSION,
    UNSPACED,
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


def is_unspaced(code_point: int) -> bool:
    return any(first <= code_point <= last for first, last in UNSPACED_BLOCKS)


def classify(code_point: int) -> int:
    character = chr(code_point)
    category = unicodedata.category(character)[0]
    if category == "M":
        return MARK
    if category in "LN":
        return UNSPACED if is_unspaced(code_point) else SPACED
    return SPACE if character.isspace() else OTHER


def spell(code_point: int) -> int:
    """The UTF-8 bytes as one number, the first byte lowest."""
    return int.from_bytes(chr(code_point).encode(), "little")


def build() -> dict[str, NDArray[np.generic]]:
    """The arrays of the npz: two-stage entries, expansions, the assigned code points and the Unicode version.

    An entry holds the class in its low bits. Above it stands what must be added to the UTF-8 bytes, read as one
    number, to fold the character: nothing for most, so pages of uncased scripts are alike and shared. A character
    that folds to several, or to other than as many bytes, is an EXPANSION: above the class stand where in
    `expansions` its characters are, as their bytes and class, and how many.
    """
    entries = np.zeros(DECODABLE, dtype=np.int32)
    expansions: list[int] = []
    for code_point in range(CODE_POINTS):
        folded = [ord(character) for character in chr(code_point).casefold()]
        if folded == [code_point]:
            entries[code_point] = classify(code_point)
            continue
        change = spell(folded[0]) - spell(code_point)
        is_in_place = len(folded) == 1 and len(chr(folded[0]).encode()) == len(chr(code_point).encode())
        if is_in_place and abs(change) < 1 << 31 - CLASS_BITS:
            entries[code_point] = change << CLASS_BITS | classify(code_point)
        else:
            where = len(expansions) << LENGTH_BITS | len(folded)
            entries[code_point] = where << CLASS_BITS | EXPANSION
            expansions += [spell(character) << CLASS_BITS | classify(character) for character in folded]
    pages, index = np.unique(entries.reshape(-1, 1 << PAGE_BITS), axis=0, return_inverse=True)
    assigned = [unicodedata.category(chr(code_point)) != "Cn" for code_point in range(CODE_POINTS)]
    return {
        "index": index.reshape(-1).astype(np.uint16),
        "pages": pages,
        "expansions": np.array(expansions, dtype=np.int64),
        "assigned": np.packbits(assigned),
        "unicode_version": np.array(unicodedata.unidata_version),
    }


def main() -> None:
    if unicodedata.unidata_version != UNICODE_VERSION:
        sys.exit(
            f"this Python knows Unicode {unicodedata.unidata_version}, transforms/kernels/text.py says "
            f"{UNICODE_VERSION}: change UNICODE_VERSION there if the tables are to move, or run a Python that matches"
        )
    np.savez_compressed(TABLES_FILE, allow_pickle=False, **build())
    print(f"{TABLES_FILE}: Unicode {UNICODE_VERSION}, {TABLES_FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
