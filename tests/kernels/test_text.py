"""Words against the plain definition of the oracle, which knows neither the tables nor the bit masks."""

# ruff: noqa: RUF001 - characters that look like others are what is tested

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import oracle
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from transforms.kernels.minhash import shingle_hashes
from transforms.kernels.text import Words, blank, count_words, split_words, valid_utf8
from transforms.kernels.text_unicode import TABLES_FILE

MASK = (1 << 64) - 1


def mix(value: int) -> int:
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * multiplier & MASK
    return value ^ value >> 33


def plain_hash(word: str) -> int:
    folded = word.encode()
    state = 0x2545F4914F6CDD1D
    for start in range(0, len(folded), 8):
        state = (state ^ int.from_bytes(folded[start : start + 8], "little")) * 0x9E3779B97F4A7C15 & MASK
        state ^= state >> 32
    return mix(state)


def assert_words(found: Words, documents: list[str | None]) -> None:
    expected = [[plain_hash(word) for word in oracle.split_words(document or "")] for document in documents]
    got = [found.hashes[a:b].tolist() for a, b in pairwise(found.offsets)]
    assert got == expected
    assert found.counted.tolist() == [oracle.count_tokens(document or "") for document in documents]
    assert count_words(pa.array(documents, pa.string())).tolist() == found.counted.tolist()
    assert (found.hashes.dtype, found.offsets.dtype, found.counted.dtype) == (np.uint64, np.int64, np.int64)


def words_of(document: str) -> list[int]:
    return split_words(pa.array([document])).hashes.tolist()


SCRIPTS = {
    "chinese": ("我們在這裡。", ["我", "們", "在", "這", "裡"]),
    "chinese beyond the basic plane": ("𠮷野家", ["𠮷", "野", "家"]),
    "japanese": ("カタカナとひらがな、漢字", list("カタカナとひらがな漢字")),
    "japanese long vowel": ("コーヒー", ["コ", "ー", "ヒ", "ー"]),
    "japanese decomposed voicing": ("か\u3099き", ["が", "き"]),
    "thai vowels and tones are marks": ("ที่นี่ดี", ["ที่", "นี่", "ดี"]),
    "thai prefixed vowel": ("ไทย", ["ไ", "ท", "ย"]),
    "lao": ("ລາວ", ["ລ", "າ", "ວ"]),
    "khmer": ("ខ្មែរ", ["ខ្", "មែ", "រ"]),
    "myanmar": ("မြန်မာ", ["မြ", "န်", "မာ"]),
    "arabic": ("السَّلامُ عليكم، ٢٠٢٦", ["السَّلامُ", "عليكم", "٢٠٢٦"]),
    "hindi": ("हिन्दी में लिखा।", ["हिन्दी", "में", "लिखा"]),
    "tamil": ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
    "cyrillic": ("Привет, МИР!", ["привет", "мир"]),
    "korean": ("안녕하세요 세계", ["안녕하세요", "세계"]),
    "greek final sigma": ("ΣΊΣΥΦΟΣ σίσυφος", ["σίσυφοσ", "σίσυφοσ"]),
    "german": ("Straße STRASSE", ["strasse", "strasse"]),
    "turkish dotted i": ("İstanbul", ["i\u0307stanbul"]),
    "ligature": ("eﬃcient", ["efficient"]),
    "kelvin sign folds to ascii": ("300\u212a", ["300k"]),
    "folding that changes the length in bytes": ("Ⱥẞ", ["ⱥss"]),
    "folding beyond the basic plane": ("𐐀𐐁", ["𐐨𐐩"]),
    "fullwidth latin": ("Ｈｅｌｌｏ，\u3000Ｗｏｒｌｄ！１２", ["hello", "world", "12"]),
    "emoji divide": ("hi👋there ☕ok", ["hi", "there", "ok"]),
    "emoji joined, toned and with a variation selector": ("a👨\u200d👩\u200d👧 b👋🏽c ❤\ufe0fd", ["a", "b", "c", "d"]),
    "emoji flag of tags": ("x🏴\U000e0067\U000e0062\U000e007fy", ["x", "y"]),
    "emoji keycap is a digit and a mark": ("1\ufe0f\u20e3", ["1\u20e3"]),
    "combining marks": ("cafe\u0301 nai\u0308ve", ["café", "naïve"]),
    "marks in any order": ("q\u0307\u0323 q\u0323\u0307 ạ\u0302 a\u0302\u0323", [*["q\u0323\u0307"] * 2, *["ậ"] * 2]),
    "marks that do not compose": ("x\u0301 \u0915\u093c", ["x\u0301", "\u0915\u093c"]),
    "a mark blocked by one of its class": ("a\u0300\u0301", ["à\u0301"]),
    "composition that Unicode excludes": ("\u0958", ["\u0915\u093c"]),
    "mark alone": ("a \u0301 b", ["a", "\u0301", "b"]),
    "apostrophe, hyphen and underscore divide": ("don't re-do snake_case", ["don", "t", "re", "do", "snake", "case"]),
    "typographic punctuation": ("“quoted”—and…more", ["quoted", "and", "more"]),
    "superscripts are digits, fractions two numbers": ("x² ½cup", ["x2", "1", "2cup"]),
    "ligatures": ("ﬁnd eﬀort ĳs ﬆ", ["find", "effort", "ijs", "st"]),
    "squared and circled": ("㎏ ①Ⓐ ™", ["kg", "1a", "tm"]),
    "one character of four words": ("㍿です", ["株", "式", "会", "社", "で", "す"]),
    "one character that holds spaces": ("ﷺ", ["صلى", "الله", "عليه", "وسلم"]),
    "halfwidth katakana with voiced marks": ("ｶﾞｷﾞ ﾊﾟ ｱ", ["ガ", "ギ", "パ", "ア"]),
    "japanese voiced marks that stand apart": ("か゛", ["か", "\u3099"]),
    "hangul jamo": ("\u1112\u1161\u11ab\u1100\u1173\u11af 한글", ["한글", "한글"]),
    "hangul compatibility jamo": ("\u3131\u314f \u314b\u314b", ["가", "\u110f\u110f"]),
    "halfwidth hangul": ("\uffa1\uffc2", ["가"]),
    "arabic presentation forms": ("ﻻ ﺍﻟﺴﻼﻡ", ["لا", "السلام"]),
    "thai sara am": ("น้ำ", ["น้\u0e4d", "า"]),
    "soft hyphen and zero-width space join": ("co\u00adoperate zero\u200bwidth", ["cooperate", "zerowidth"]),
    "zero-width joiner and non-joiner": ("می\u200cخواهم क्\u200dष", ["میخواهم", "क्ष"]),
    "direction marks and byte order mark": ("\ufeffab\u200ec\u202ed\u2060e", ["abcde"]),
    "a mark composes through what is dropped": ("e\u200d\u0301 e\u034f\u0301", ["é", "é"]),
    "variation selectors": ("葛\U000e0100 漢\ufe00", ["葛", "漢"]),
    "homoglyphs of other scripts stay apart": ("scope ѕсоре Αα Аа", ["scope", "ѕсоре", "αα", "аа"]),
    "negated signs are signs": ("a=\u0338b <\u0338c ∃\u0338d", ["a", "b", "c", "d"]),
    "iota below stays behind the marks of its letter": ("ᾳ\u0301 ᾴ Α\u0345\u0301 Ά\u0345", [*["άι"] * 4]),
    "accents that stand alone": ("it´s", ["it", "\u0301s"]),
    "kangxi radicals": ("⼈⼝", ["人", "口"]),
    "no-break and ideographic spaces": ("a\u00a0b\u3000c", ["a", "b", "c"]),
    "mixed in one run": (
        "iPhone手机Pro是2026年ไทยabc",
        [*["iphone", "手", "机", "pro", "是", "2026", "年", "ไ", "ท", "ย", "abc"]],
    ),
    "nothing but punctuation": ("?!… ---", []),
}


@pytest.mark.parametrize(("document", "words"), SCRIPTS.values(), ids=SCRIPTS.keys())
def test_words_of_every_script(document: str, words: list[str]) -> None:
    assert oracle.split_words(document) == words
    assert [plain_hash(word) for word in words] == words_of(document)
    assert_words(split_words(pa.array([document])), [document])


SHINGLES = {
    "short": ("Ｔｗｏ words", ["two words"]),
    "one word": ("ﬁ", ["fi"]),
    "nothing": ("…", []),
    "as long as one": ("a b c d e", ["a b c d e"]),
    "chinese": ("我們在這裡。吃飯", ["我們在這裡", "們在這裡吃", "在這裡吃飯"]),
    "japanese": ("ｶﾞｷﾞグゲゴ", ["ガギグゲゴ"]),
    "thai": ("ที่นี่ดีมาก", ["ที่นี่ดีมา", "นี่ดีมาก"]),
    "mixed": ("My 手机 is 新的!", ["my 手机 is 新", "手机 is 新的"]),
    "accents composed or not": ("E\u0301te\u0301 à la mer É", ["été à la mer é"]),
    "zero-width": ("a\u200bb c\u00add e f g h", ["ab cd e f g", "cd e f g h"]),
}


@pytest.mark.parametrize(("document", "expected"), SHINGLES.values(), ids=SHINGLES.keys())
def test_shingles_of_five(document: str, expected: list[str]) -> None:
    found = shingle_hashes(split_words(pa.array([document])), 5)
    alone = shingle_hashes(split_words(pa.array(expected, pa.string())), 5)
    assert alone.offsets.tolist() == list(range(len(expected) + 1))
    assert found.hashes.tolist() == alone.hashes.tolist()


def test_all_scripts_in_one_document_and_one_batch() -> None:
    documents = [document for document, _ in SCRIPTS.values()]
    whole = "".join(documents)
    assert_words(split_words(pa.array([*documents, whole, whole * 40])), [*documents, whole, whole * 40])


@cache
def assigned() -> NDArray[np.uint8]:
    with np.load(TABLES_FILE) as tables:
        return np.unpackbits(tables["assigned"])


def is_known(character: str) -> bool:
    """Whether the tables know the character; this Python may know more."""
    return bool(assigned()[ord(character)])


CHARACTERS = st.one_of(
    st.sampled_from("aZ09 _-.\n\x00'@[`{/:"),
    st.sampled_from("éßİΣсЯ漢かーไท\u0301\u0e35\u3099\u200d\u00a0\u3000“👋𐐀𠮷ﬃﷺ½"),
    st.characters(exclude_categories=["Cs"]).filter(is_known),
)
DOCUMENTS = st.lists(st.none() | st.text(CHARACTERS, max_size=200), max_size=8)


@given(DOCUMENTS, st.sampled_from([pa.string(), pa.large_string()]), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_words_are_what_the_definition_says(
    documents: list[str | None], string_type: pa.DataType, before: int, after: int
) -> None:
    padded = ["hidden"] * before + documents + [None] * after
    found = split_words(pa.array(padded, string_type).slice(before, len(documents)))
    assert_words(found, documents)


@pytest.mark.parametrize("length", [*range(0, 20), *range(55, 75), 127, 128, 129, 1000])
def test_word_lengths_around_the_widths_of_lane_and_block(length: int) -> None:
    documents = [
        "x" * length,
        " " * length + "end",
        "a" * length + " b",
        ("ab " * length)[:length],
        "é" * length,
        "x" * length + "é",
        "é" + "x" * length,
        "漢" * length,
    ]
    assert_words(split_words(pa.array(documents)), list(documents))
    for document in documents:
        assert_words(split_words(pa.array([document])), [document])


def test_words_do_not_depend_on_what_surrounds_the_document() -> None:
    assert words_of("end") == split_words(pa.array(["end", "less", "ly"])).hashes[:1].tolist()


def test_hashes_never_change() -> None:
    found = split_words(pa.array(["The Quick brown Straße, 漢字 и Привет internationalisation"]))
    assert [f"{value:016x}" for value in found.hashes.tolist()] == PINNED


PINNED = [
    "b7c0c15b4c698716",
    "198558054e739a35",
    "f9ea0747eefd5e3b",
    "0229404dac7a3364",
    "80038f111d723a57",
    "13caf8664c7a63bd",
    "273f207d287cf6dd",
    "632ac36ec425a017",
    "a9abbbbf44cb486c",
]


def test_nulls_own_no_words_even_where_the_buffer_gives_them_bytes() -> None:
    offsets = pa.py_buffer(np.array([0, 3, 6, 9], np.int32))
    validity = pa.py_buffer(bytes([0b101]))
    array = pa.Array.from_buffers(pa.string(), 3, [validity, offsets, pa.py_buffer(b"oneXXXtwo")])
    assert_words(split_words(array), ["one", None, "two"])
    assert blank(array).tolist() == [False, True, False]


def test_a_buffer_without_padding_is_not_read_beyond_its_end() -> None:
    backing = b"plain word" + "né".encode() + b"TRAILING BYTES OF SOMEONE ELSE"
    for size in (1, 4, 7, 9, 10, 13):
        offsets = pa.py_buffer(np.array([0, size], np.int32))
        array = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(backing).slice(0, size)])
        assert_words(split_words(array), [backing[:size].decode()])


BROKEN = st.lists(st.sampled_from([b"0", b" ", b"\xe4", b"\xb8", b"\xf0", b"\xc2", b"\xa0", b"\xe0\x80", b"\xff"]))


@given(st.lists(st.binary(max_size=80) | BROKEN.map(b"".join), min_size=1, max_size=5))
@settings(max_examples=500, deadline=None)
def test_malformed_text_gives_some_words_within_bounds(documents: list[bytes]) -> None:
    offsets = pa.py_buffer(np.cumsum([0, *map(len, documents)]).astype(np.int32))
    array = pa.Array.from_buffers(pa.string(), len(documents), [None, offsets, pa.py_buffer(b"".join(documents))])
    found = split_words(array)
    assert (np.diff(found.offsets) <= [2 * len(document) for document in documents]).all()
    assert (found.hashes.size, found.offsets[0]) == (found.offsets[-1], 0)
    assert count_words(array).tolist() == found.counted.tolist()


def test_counting() -> None:
    counted = {
        "": 0,
        " \u3000\n": 0,
        "...": 1,
        "👋": 1,
        "one two": 2,
        "x" * 16: 1,
        "x" * 17: 2,
        "ß" * 16: 1,
        "é" * 33: 3,
        "漢" * 17: 17,
        "ที่": 1,
        "a\u0301" * 8: 1,
        "a\u0301" * 9: 2,
        "漢" + "\u0301" * 16: 2,
        "½cup": 1,
        "㍿": 1,
        "ﷺ": 1,
        "n\u0303" * 9: 2,
        "co\u00adoperate": 2,
        "น้ำ": 2,
    }
    assert split_words(pa.array(list(counted))).counted.tolist() == list(counted.values())
    assert count_words(pa.array(list(counted))).tolist() == list(counted.values())


def test_outsiders_count_what_the_kernel_counts() -> None:
    page = (TABLES_FILE.parents[2] / "docs" / "text.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "def n_tokens" in block)
    names: dict[str, Any] = {}
    exec(code, names)
    documents = [document for document, _ in SCRIPTS.values()] + ["", " ", "x" * 33, "n\u0303" * 9, "ｶﾞ" * 3]
    documents.append("".join(filter(is_known, map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))))
    counted = split_words(pa.array(documents)).counted.tolist()
    assert counted == [names["n_tokens"](document) for document in documents]
    assert names["UNSPACED"] == oracle.UNSPACED_SCRIPTS


def test_the_page_says_which_characters_are_dropped() -> None:
    page = (TABLES_FILE.parents[2] / "docs" / "text.md").read_text(encoding="utf-8")
    listed = re.search(r"Default_Ignorable_Code_Point\): U\+([^.]*)\.", page)
    assert listed is not None
    dropped = set()
    for ends in re.split(r",\s+", listed[1]):
        first, _, last = ends.partition("-")
        dropped |= set(range(int(first, 16), int(last or first, 16) + 1))
    assert dropped == set(oracle.IGNORABLE)


def test_empty_arrays() -> None:
    for string_type in (pa.string(), pa.large_string()):
        words = split_words(pa.array([], string_type))
        assert (words.hashes.size, words.offsets.tolist(), words.counted.size) == (0, [0], 0)
        assert count_words(pa.array([], string_type)).tolist() == []
    assert split_words(pa.nulls(2, pa.string())).offsets.tolist() == [0, 0, 0]


def test_what_is_not_a_string_array_is_refused() -> None:
    with pytest.raises(TypeError, match=r"cannot read bytes from int64.*large_string"):
        split_words(pa.array([1]))
    with pytest.raises(TypeError, match="combining chunks"):
        split_words(pa.chunked_array([["a"]]))


@given(st.lists(st.none() | st.text(st.sampled_from(" \t\n\x1c\x85\u00a0\u2003\u3000\u200b\ufeffax。"))))
@settings(deadline=None)
def test_blank_is_what_strip_leaves_nothing_of(documents: list[str | None]) -> None:
    expected = [document is None or not document.strip() for document in documents]
    assert blank(pa.array(documents, pa.string())).tolist() == expected


def is_strict(value: bytes | None) -> bool:
    try:
        return value is None or value.decode("utf-8", errors="strict") is not None
    except UnicodeDecodeError:
        return False


EDGES = [
    *(chr(c).encode("utf-8", "surrogatepass") for c in (0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF)),
    *(chr(c).encode("utf-8", "surrogatepass") for c in (0xD7FF, 0xD800, 0xDFFF, 0xE000)),
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x9f\xbf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xff",
    b"\x80",
    b"\xe2\x82",
    b"\xf0\x9f\x91",
]


@given(st.lists(st.none() | st.lists(st.sampled_from(EDGES) | st.binary(max_size=9)).map(b"".join)))
@settings(max_examples=300, deadline=None)
def test_valid_utf8_agrees_with_python(values: list[bytes | None]) -> None:
    for binary_type in (pa.binary(), pa.large_binary()):
        assert valid_utf8(pa.array(values, binary_type)).tolist() == [is_strict(value) for value in values]


def test_valid_utf8_of_every_edge_at_every_alignment() -> None:
    values = [b"a" * before + edge + b"b" * after for edge in EDGES for before in range(9) for after in (0, 1, 9)]
    found = valid_utf8(pa.array(values))
    assert found.tolist() == [is_strict(value) for value in values]
    assert 0 < found.sum() < len(values)
