"""The script that measures what the metrics detect, on text of which the answer is known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

import detect_collapse


def written(rng: np.random.Generator, vocabulary: int, words: int) -> str:
    """Words of Zipf's law, without digits, which would be words as well but no spelling."""
    weights = 1 / np.arange(1, vocabulary + 1)
    drawn = rng.choice(vocabulary, words, p=weights / weights.sum())
    return " ".join("".join("abcdefghij"[int(digit)] for digit in f"{number:04d}") for number in drawn)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pairs of six domains: `poor` has a third of the words that people have, `same` as many."""
    rng = np.random.default_rng(1)
    rows = []
    for number in range(60):
        place = {"domain": f"domain-{number % 6}", "pair_id": str(number), "dataset": f"source-{number % 2}"}
        for label, generator, vocabulary in (
            ("human", "", 3000),
            ("synthetic", "poor", 1000),
            ("synthetic", "same", 3000),
        ):
            text = written(rng, vocabulary, int(rng.integers(100, 200)))
            rows.append({"text": text, "label": label, "generator": generator, **place})
    path = tmp_path_factory.mktemp("detect") / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_the_texts_of_a_pair_have_the_same_length(pairs: Path) -> None:
    found = detect_collapse.read_pairs(pairs)
    assert {generator: len(own) for generator, own in found.items()} == {"poor": 60, "same": 60}
    assert all(len(pair.human.split()) == len(pair.model.split()) for own in found.values() for pair in own)


def test_poorer_text_is_told_from_text_that_is_as_rich(pairs: Path) -> None:
    lines = list(detect_collapse.compare_with_people(pairs, permutations=40))
    (row,) = (line for line in lines if line.startswith("| `types`"))
    _, _, _, poor, poor_right, same, _, _ = (cell.strip() for cell in row.split("|"))
    assert poor.startswith("-")
    assert poor.endswith("*")
    assert poor_right == "6/6"
    assert not same.endswith("*")


def test_text_written_anew_is_ranked_by_generation(pairs: Path) -> None:
    (corpus, *others) = detect_collapse.read_corpora([pairs], 1000)
    assert others
    assert sum(len(text.split()) for text in corpus.texts) == 1000
    chain = detect_collapse.written_anew(corpus, "0", 2)
    assert chain[0] == detect_collapse.measure(corpus.texts), "generation 0 is the corpus itself, spelled as it was"
    assert detect_collapse.right_pairs([values["types"] for values in chain], -1) > 0.95


def test_ranks() -> None:
    assert detect_collapse.right_pairs([1, 2, 3], 1) == 1
    assert detect_collapse.right_pairs([1, 2, 3], -1) == 0
    assert detect_collapse.right_pairs([5, 5, 5], 1) == 0.5
    assert detect_collapse.right_pairs([1, 3, 2], 1) == pytest.approx(2 / 3)
