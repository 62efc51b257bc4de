"""The normal form of text, checked against `unicodedata` at every code point, in context and in random sequences."""

# ruff: noqa: RUF001 - characters that look like others are what is tested

from __future__ import annotations

import importlib.util
import random
import time
import unicodedata
from functools import cache
from itertools import pairwise
from types import ModuleType

import numpy as np
import oracle
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from transforms.kernels.text import count_words, split_words
from transforms.kernels.text_unicode import TABLES_FILE, UNICODE_VERSION


@cache
def known() -> list[str]:
    """Characters that the tables know; this Python may know more."""
    with np.load(TABLES_FILE) as tables:
        assigned = np.unpackbits(tables["assigned"]).astype(bool)
    assigned[list(oracle.IGNORABLE)] = True
    assigned[0xD800:0xE000] = False
    return [chr(code_point) for code_point in np.flatnonzero(assigned)]


HASHES: dict[str, int] = {}


def assert_as_defined(documents: list[str]) -> None:
    found = split_words(pa.array(documents, pa.large_string()))
    expected = [oracle.split_words(document) for document in documents]
    missing = sorted({word for words in expected for word in words} - HASHES.keys())
    learnt = split_words(pa.array(missing, pa.large_string()))
    assert np.diff(learnt.offsets).tolist() == [1] * len(missing)
    HASHES.update(zip(missing, learnt.hashes.tolist(), strict=True))
    wrong = []
    for document, words, (start, stop), counted in zip(
        documents, expected, pairwise(found.offsets.tolist()), found.counted.tolist(), strict=True
    ):
        if found.hashes[start:stop].tolist() != [HASHES[word] for word in words]:
            wrong.append((ascii(document), "words", ascii(words)))
        if counted != oracle.count_tokens(document):
            wrong.append((ascii(document), "counted", str(counted)))
    assert wrong == []
    assert count_words(pa.array(documents, pa.large_string())).tolist() == found.counted.tolist()


def test_words_have_one_hash_each() -> None:
    assert_as_defined(["".join(known())])
    assert len(set(HASHES.values())) == len(HASHES) > 100_000


def test_every_code_point_alone() -> None:
    assert len(known()) > 280_000
    assert_as_defined(known())


@pytest.mark.parametrize(
    "context",
    [
        "é{}",  # behind a letter that a mark may change, and a mark may be out of order
        "e\u0301{}\u0323x",  # where characters are composed, not mapped
        "{0}\u05b0\u0301{0}",  # before marks
        "漢{}ا1",
        "={}\u0338",
    ],
)
def test_every_code_point_in_context(context: str) -> None:
    assert_as_defined([context.format(character) for character in known()])


def test_the_normal_form_is_stable() -> None:
    for character in known():
        for text in (character, f"α{character}\u0323\u0345", f"{character}\u0301{character}"):
            normal = oracle.normalise(text)
            assert oracle.normalise(normal) == normal, ascii(text)


def test_canonically_equal_texts_have_the_same_words() -> None:
    documents = [f"{character}\u0323\u0301x" for character in known()]
    forms = [
        split_words(pa.array([unicodedata.normalize(form, text) for text in documents])) for form in ("NFC", "NFD")
    ]
    plain = split_words(pa.array(documents))
    for form in forms:
        assert np.array_equal(form.hashes, plain.hashes)
        assert np.array_equal(form.offsets, plain.offsets)


COMPOSING = "eaoιαωΑυᾳᾼǰİſßΐकন่ำたかハｶﾊ가각ᄀ<=>∃"
MARKS = "\u0301\u0300\u0323\u0327\u0338\u0345\u0308\u0342\u05b0\u064b\u0653\u093c\u094d\u0e38\u0e48\u3099ﾞ゛\u302a"
PARTS = "\u1100\u1161\u11a8\u3131\u314f\uffa1\uffc2\u09c7\u09be\u0bc6\u0bbe\u1b05\u1b35\u0f71\u0f72\u0344\u0f73"
OTHERS = "½①㎏㍿㌖ﷺﬁĳ²´\u037aｱＡ，…漢 -ab1\u00ad\u200b\u200c\u200d\ufe0f\u034f\u115f\U000e0100"
SEQUENCES = st.lists(
    st.text(st.sampled_from(COMPOSING + MARKS + PARTS + OTHERS), max_size=24)
    | st.text(st.sampled_from("ea<" + MARKS), max_size=60)
    | st.text(st.integers(0, len(known()) - 1).map(known().__getitem__), max_size=12)
)


@given(SEQUENCES)
@settings(max_examples=400, deadline=None)
def test_sequences_that_hypothesis_finds(documents: list[str]) -> None:
    assert_as_defined(documents)


@pytest.mark.parametrize("seed", range(4))
def test_random_sequences(seed: int) -> None:
    rng = random.Random(seed)
    marks = [character for character in known() if unicodedata.combining(character)]
    changing = [character for character in known() if oracle.normalise(character) != character]
    chosen = list(COMPOSING + MARKS + PARTS + OTHERS)
    mixtures = [[chosen], [chosen, marks], [chosen, marks, changing], [known(), marks], [changing, marks], [marks]]
    documents = []
    for _ in range(12_000):
        mixture = rng.choice(mixtures)
        length = rng.randint(0, rng.choice([4, 8, 40]))
        documents.append("".join(rng.choice(rng.choice(mixture)) for _ in range(length)))
    assert_as_defined(documents)


@pytest.mark.parametrize("length", [15, 16, 17, 18, 1000, 1023, 1024, 1025, 5000])
def test_as_many_marks_as_one_likes(length: int) -> None:
    rng = random.Random(length)
    marks = "".join(rng.choices("\u0301\u0323\u0327\u0338\u0345\u05b0", k=length))
    assert_as_defined([f"e{marks}f", f"a b{marks}", marks, f"{marks}\u1161", "x" * 100 + marks + "é" * 100])


@pytest.mark.parametrize("character", ["㌖", "㍿", "ﷺ", "½", "ำ", "´"])
def test_characters_of_many_words_find_room(character: str) -> None:
    assert_as_defined([character * 5000, f" {character}" * 5000, f"e\u0301{character}" * 3000])


def test_a_batch_after_one_that_wanted_room() -> None:
    assert_as_defined(["㍿" * 3000, "plain", "e" + "\u0323\u0301" * 3000, "", "fin é"])


def seconds(text: str) -> float:
    array = pa.array([text])
    split_words(array)
    started = time.thread_time()
    split_words(array)
    return time.thread_time() - started


@pytest.mark.parametrize(
    "unit",
    ["e\u0301", "\u0301\u0323", "か\u3099", "\u1100\u1161", "½", "\u00ad", "㍿", "ᾳ\u0301", "\u0e38\u0e48\u0e38"],
)
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    assert seconds(unit * 200_000) < 40 * seconds(unit * 20_000) + 0.2


def load_script() -> ModuleType:
    path = TABLES_FILE.parents[2] / "scripts" / "make_unicode_tables.py"
    specification = importlib.util.spec_from_file_location("make_unicode_tables", path)
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    return script


def test_the_script_and_the_oracle_drop_the_same() -> None:
    ranges = load_script().IGNORABLE
    assert {point for first, last in ranges for point in range(first, last + 1)} == set(oracle.IGNORABLE)
    for point in oracle.IGNORABLE:
        assert unicodedata.category(chr(point)) in {"Cf", "Mn", "Lo", "Cn"}


def test_the_tables_are_of_their_version() -> None:
    with np.load(TABLES_FILE) as tables:
        assert str(tables["unicode_version"]) == UNICODE_VERSION


def test_the_script_makes_the_shipped_tables() -> None:
    if unicodedata.unidata_version != UNICODE_VERSION:
        pytest.skip(f"tables are of Unicode {UNICODE_VERSION}, this Python knows {unicodedata.unidata_version}")
    made: dict[str, NDArray[np.generic]] = load_script().build()
    with np.load(TABLES_FILE) as shipped:
        assert set(shipped.files) == set(made)
        for name, array in made.items():
            assert np.array_equal(shipped[name], array), name
            assert shipped[name].dtype == array.dtype, name
