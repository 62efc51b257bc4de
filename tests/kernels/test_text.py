"""Words against a plain definition in Python, written without the tables or the bit masks."""

from __future__ import annotations

import importlib.util
import sys
import unicodedata
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels import text
from transforms.kernels.text import Words, blank, split_words, valid_utf8

UNSPACED_NAMES = (
    "AHOM",
    "BOPOMOFO",
    "CJK COMPATIBILITY IDEOGRAPH",
    "CJK UNIFIED IDEOGRAPH",
    "HALFWIDTH KATAKANA",
    "HANGZHOU NUMERAL",
    "HENTAIGANA",
    "HIRAGANA",
    "IDEOGRAPHIC ANNOTATION",
    "IDEOGRAPHIC CLOSING",
    "IDEOGRAPHIC ITERATION",
    "IDEOGRAPHIC NUMBER",
    "KATAKANA",
    "KHITAN SMALL SCRIPT",
    "KHMER",
    "LAO",
    "MASU MARK",
    "MYANMAR",
    "NEW TAI LUE",
    "NUSHU",
    "OLD CHINESE",
    "TAI LE",
    "TAI THAM",
    "TAI VIET",
    "TANGUT",
    "THAI",
    "VERTICAL IDEOGRAPHIC",
    "VERTICAL KANA",
)

MASK = (1 << 64) - 1


def kind_of(character: str) -> str:
    category = unicodedata.category(character)[0]
    if category == "M":
        return "mark"
    if category in "LN":
        # Python has no names for the Tangut ideographs.
        name = unicodedata.name(character, "TANGUT" if 0x17000 <= ord(character) < 0x18D80 else "")
        return "unspaced" if name.startswith(UNSPACED_NAMES) else "spaced"
    return "separator"


def plain_words(document: str) -> list[str]:
    """The words of a document before folding, straight from the definition."""
    words: list[str] = []
    open_kind = None
    for character in document:
        kind = kind_of(character)
        if kind == "separator":
            open_kind = None
        elif open_kind is None or kind == "unspaced" or (kind == "spaced" and open_kind == "unspaced"):
            words.append(character)
            open_kind = "unspaced" if kind == "unspaced" else "spaced"
        else:
            words[-1] += character
    return words


def mix(value: int) -> int:
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * multiplier & MASK
    return value ^ value >> 33


def plain_hash(word: str) -> int:
    folded = word.casefold().encode()
    state = 0x2545F4914F6CDD1D
    for start in range(0, len(folded), 8):
        state = (state ^ int.from_bytes(folded[start : start + 8], "little")) * 0x9E3779B97F4A7C15 & MASK
        state ^= state >> 32
    return mix(state)


def plain_count(document: str | None) -> int:
    if document is None or not document.strip():
        return 0
    return max(1, sum((len(word) + 15) // 16 for word in plain_words(document)))


def assert_words(found: Words, documents: list[str | None]) -> None:
    expected = [[plain_hash(word) for word in plain_words(document or "")] for document in documents]
    got = [found.hashes[a:b].tolist() for a, b in pairwise(found.offsets)]
    assert got == expected
    assert found.counted.tolist() == [plain_count(document) for document in documents]
    assert (found.hashes.dtype, found.offsets.dtype, found.counted.dtype) == (np.uint64, np.int64, np.int64)


def words_of(document: str) -> list[int]:
    return split_words(pa.array([document])).hashes.tolist()


SCRIPTS = {
    "chinese": ("我們在這裡。", ["我", "們", "在", "這", "裡"]),
    "chinese beyond the basic plane": ("𠮷野家", ["𠮷", "野", "家"]),
    "japanese": ("カタカナとひらがな、漢字", list("カタカナとひらがな漢字")),
    "japanese long vowel": ("コーヒー", ["コ", "ー", "ヒ", "ー"]),
    "japanese decomposed voicing": ("か\u3099き", ["か\u3099", "き"]),
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
    "fullwidth": ("\uff21\uff22\uff11", ["\uff41\uff42\uff11"]),
    "emoji": ("hi👋🏽there 👨‍👩‍👧 ok", ["hi", "there", "ok"]),
    "emoji keycap is a digit and a mark": ("1\ufe0f\u20e3", ["1\ufe0f\u20e3"]),
    "combining marks": ("cafe\u0301 nai\u0308ve", ["cafe\u0301", "nai\u0308ve"]),
    "mark alone": ("a \u0301 b", ["a", "\u0301", "b"]),
    "apostrophe, hyphen and underscore divide": ("don't re-do snake_case", ["don", "t", "re", "do", "snake", "case"]),
    "typographic punctuation": ("“quoted”—and…more", ["quoted", "and", "more"]),
    "superscripts and fractions are numbers": ("x² ½cup", ["x²", "½cup"]),
    "no-break and ideographic spaces": ("a\u00a0b\u3000c", ["a", "b", "c"]),
    "mixed in one run": (
        "iPhone手机Pro是2026年ไทยabc",
        [*["iphone", "手", "机", "pro", "是", "2026", "年", "ไ", "ท", "ย", "abc"]],
    ),
    "nothing but punctuation": ("?!… ---", []),
}


@pytest.mark.parametrize(("document", "words"), SCRIPTS.values(), ids=SCRIPTS.keys())
def test_words_of_every_script(document: str, words: list[str]) -> None:
    assert [plain_hash(word) for word in words] == words_of(document)
    assert_words(split_words(pa.array([document])), [document])


def test_all_scripts_in_one_document_and_one_batch() -> None:
    documents = [document for document, _ in SCRIPTS.values()]
    whole = "".join(documents)
    assert_words(split_words(pa.array([*documents, whole, whole * 40])), [*documents, whole, whole * 40])


CHARACTERS = st.one_of(
    st.sampled_from("aZ09 _-.\n\x00'@[`{/:"),
    st.sampled_from("éßİΣсЯ漢かーไท\u0301\u0e35\u3099\u200d\u00a0\u3000“👋𐐀𠮷ﬃﷺ"),
    st.characters(exclude_categories=["Cs"]),
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
    most = sum((len(document) + 1) // 2 for document in documents)
    assert split_words(array).offsets[-1] <= most


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
    }
    assert split_words(pa.array(list(counted))).counted.tolist() == list(counted.values())


def test_empty_arrays() -> None:
    for string_type in (pa.string(), pa.large_string()):
        words = split_words(pa.array([], string_type))
        assert (words.hashes.size, words.offsets.tolist(), words.counted.size) == (0, [0], 0)
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


def test_tables_agree_with_this_python_at_every_code_point() -> None:
    index, pages, expansions = text._tables()
    with np.load(text.TABLES_FILE) as tables:
        assigned = np.unpackbits(tables["assigned"]).astype(bool)
        assert str(tables["unicode_version"]) == text.UNICODE_VERSION
    code_points = np.arange(0x110000)
    entries = pages[index[code_points >> text.PAGE_BITS], code_points & 0xFF].tolist()
    compared = 0
    for code_point in range(sys.maxunicode + 1):
        character = chr(code_point)
        if not assigned[code_point] or 0xD800 <= code_point <= 0xDFFF:
            assert entries[code_point] == text.OTHER
            continue
        entry = entries[code_point]
        kind = entry & 7
        if kind == text.EXPANSION:
            where, length = entry >> 8, entry >> 3 & 31
            members = expansions[where : where + length].tolist()
            folded = b"".join((member >> 3).to_bytes(4, "little").rstrip(b"\0") for member in members)
            kinds = [member & 7 for member in members]
        else:
            spelled = character.encode()
            folded = (int.from_bytes(spelled, "little") + (entry >> 3)).to_bytes(len(spelled), "little")
            kinds = [kind]
        assert folded.decode() == character.casefold(), hex(code_point)
        expected = ["separator", "separator", "spaced", "mark", "unspaced"]
        if kind == text.EXPANSION:
            # split_words allots no room for words that only an expansion makes.
            assert {expected[kind] for kind in kinds} <= {"spaced", "mark"}, hex(code_point)
        else:
            assert expected[kind] == kind_of(character), hex(code_point)
        assert (kind == text.SPACE) == character.isspace(), hex(code_point)
        compared += 1
    assert compared > 280_000


def test_the_script_makes_the_shipped_tables() -> None:
    if unicodedata.unidata_version != text.UNICODE_VERSION:
        pytest.skip(f"tables are of Unicode {text.UNICODE_VERSION}, this Python knows {unicodedata.unidata_version}")
    path = text.TABLES_FILE.parents[2] / "scripts" / "make_unicode_tables.py"
    specification = importlib.util.spec_from_file_location("make_unicode_tables", path)
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    with np.load(text.TABLES_FILE) as shipped:
        for name, array in script.build().items():
            assert np.array_equal(shipped[name], array), name
