"""The script of documents that state no language, against the names that Python has for their characters."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transforms.kernels.scripts import languages_or_scripts

SCRIPTS = (
    "LATIN",
    "GREEK",
    "CYRILLIC",
    "HEBREW",
    "ARABIC",
    "DEVANAGARI",
    "BENGALI",
    "TAMIL",
    "THAI",
    "HANGUL",
    "GEORGIAN",
)
LETTERS = [
    chr(code)
    for code in (*range(0x80, 0x1D00), *range(0x1E00, 0x2000))
    if unicodedata.category(chr(code)) in ("Lu", "Ll", "Lo") and unicodedata.name(chr(code)).split()[0] in SCRIPTS
]


def names_of(stated: list[str | None], texts: list[str | None]) -> list[str]:
    names, codes = languages_or_scripts(pa.array(stated, pa.string()), pa.array(texts, pa.string()))
    return [names[code] for code in codes]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("The quick brown fox", "Latin"),
        ("Größe, naïveté, čeština", "Latin"),
        ("Съешь ещё этих булок, say", "Cyrillic"),
        ("ξεσκεπάζω", "Greek"),
        ("الحمد لله", "Arabic"),
        ("שלום", "Hebrew"),
        ("नमस्ते", "Devanagari"),
        ("สวัสดี", "Thai"),
        ("안녕하세요 漢字", "Hangul"),
        ("天地玄黃宇宙洪荒", "Han"),
        ("日本語の文章です", "Japanese"),
        ("日の丸" + "漢" * 40, "Han"),
    ],
)
def test_a_text_is_of_the_script_of_most_of_its_letters(text: str, script: str) -> None:
    assert names_of([None, ""], [text, f"123 {text} !?"]) == [f"script:{script}"] * 2


def test_what_is_stated_counts_and_what_has_no_letters_has_no_name() -> None:
    assert names_of(["de", None, None, "xx", None, None], ["Слово", None, "", "", "12 34 \u00d7\u00f7 😀", "a"]) == (
        ["de", "", "", "xx", "", "script:Latin"]
    )
    assert names_of([], []) == []


@given(st.lists(st.text(st.sampled_from(LETTERS), min_size=1, max_size=12), min_size=1, max_size=6))
@example(["aΩ"])
@settings(max_examples=200, deadline=None)
def test_letters_belong_to_the_script_in_their_name(texts: list[str]) -> None:
    for text, found in zip(texts, names_of([None] * len(texts), list(texts)), strict=True):
        counted = Counter(unicodedata.name(letter).split()[0] for letter in text)
        most = {f"script:{name.capitalize()}" for name, count in counted.items() if count == max(counted.values())}
        assert found in most


def test_only_the_beginning_of_a_text_is_read_and_slices_are() -> None:
    texts = pa.array(["x", "a" * 4096 + "я" * 10_000, "я" * 3000 + "a" * 10_000])[1:]
    names, codes = languages_or_scripts(pa.nulls(2, pa.string()), texts)
    assert [names[code] for code in codes] == ["script:Latin", "script:Cyrillic"]
