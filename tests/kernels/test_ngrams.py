"""The n-gram detector against a plain reading; training that depends on the set of documents; damaged models."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels.ngrams import FEATURES, LONGEST, SHORTEST, NgramModel, ngram_counts, score_ngrams
from transforms.kernels.ngrams_training import TrainingError, area_under_curve, caught_at, train

MODEL = NgramModel.from_logit(np.random.default_rng(0).normal(size=FEATURES), 0.25, {"human": 3})


def plain_features(data: bytes) -> list[int]:
    """Multiply and fold, as the module describes it, in Python integers."""
    folded = bytes(ord("0") if ord("0") <= byte <= ord("9") else byte for byte in data)
    found = []
    for end in range(1, len(folded) + 1):
        for size in range(SHORTEST, LONGEST + 1):
            if size <= end:
                gram = int.from_bytes(folded[end - size : end], "little") + (size << 40)
                gram = gram * 0x9E3779B97F4A7C15 % 2**64
                found.append((gram ^ gram >> 32) * 0x9E3779B97F4A7C15 % 2**64 >> 46)
    return found


@settings(max_examples=60)
@given(st.lists(st.text(max_size=30) | st.none(), max_size=6))
def test_scores_are_means_of_weights(texts: list[str | None]) -> None:
    expected = []
    for text in texts:
        features = plain_features((text or "").encode())
        total = sum(int(MODEL.weights[feature]) for feature in features)
        expected.append(total / len(features) * MODEL.step + MODEL.intercept if features else float("nan"))
        counted, counts = ngram_counts((text or "").encode())
        assert np.repeat(counted, counts).tolist() == sorted(features)
    for kind in (pa.string(), pa.large_string()):
        # Not nearly: whole weights have one sum in any order.
        np.testing.assert_array_equal(score_ngrams(pa.array(texts, kind), MODEL), np.array(expected, np.float64))


def test_digits_are_one_character() -> None:
    assert score_ngrams(pa.array(["in 1984 or"]), MODEL) == score_ngrams(pa.array(["in 2071 or"]), MODEL)
    assert score_ngrams(pa.array(["in 1984 or"]), MODEL) != score_ngrams(pa.array(["in 19x4 or"]), MODEL)


def test_a_model_reads_back() -> None:
    again = NgramModel.from_bytes(MODEL.to_bytes())
    assert (again.weights == MODEL.weights).all()
    assert (again.step, again.intercept, again.training, again.digest) == (
        *(MODEL.step, MODEL.intercept),
        *({"human": 3}, MODEL.digest),
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "x"}, "no model of n-grams"),
        ({"version": 9}, "reads 1"),
        ({"weights": "AAAA"}, "damaged"),
        ({"weights": 3}, "damaged"),
        ({"weights": None}, "damaged"),
        ({"step": "x"}, "damaged"),
        ({"step": float("nan")}, "damaged"),
        ({"training": 3}, "damaged"),
    ],
)
def test_a_damaged_model_is_told(change: dict[str, object], says: str) -> None:
    fields = {**json.loads(MODEL.to_bytes()), **change}
    with pytest.raises(ValueError, match=says):
        NgramModel.from_bytes(json.dumps(fields).encode())
    with pytest.raises(ValueError, match="not JSON"):
        NgramModel.from_bytes(MODEL.to_bytes()[:-40])


def labelled(count: int, seed: int = 0) -> tuple[list[bytes], np.ndarray, list[str]]:
    """Human texts of many letters, and of the same group synthetic ones that like the letter e."""
    rng = random.Random(seed)
    texts, synthetic, groups = [], [], []
    for place in range(count):
        for is_synthetic in (False, True):
            letters = "abcdefghij " + ("eee" if is_synthetic else "")
            texts.append("".join(rng.choices(letters, k=120)).encode())
            synthetic.append(is_synthetic)
            groups.append(f"g{place}")
    return texts, np.array(synthetic), groups


def test_training_separates_what_differs_and_holds_a_third_out() -> None:
    texts, synthetic, groups = labelled(120)
    made = train(texts, synthetic, groups)
    told = made.model.training
    assert told["cross_validation"]["auroc"] > 0.95
    assert told["held_out"]["auroc"] > 0.95
    assert told["cross_validation"]["human"] + told["held_out"]["human"] == told["human"] == 120
    out = {groups[place] for place in made.order[made.held_out].tolist()}
    assert not out & {groups[place] for place in made.order[~made.held_out].tolist()}
    assert 20 <= len(out) <= 60
    # What the model says is the logit that training measured, but for the rounding of weights.
    scores = score_ngrams(pa.array([text.decode() for text in texts]), made.model)
    assert area_under_curve(scores, synthetic) > 0.95


def test_neither_order_nor_repetition_matters() -> None:
    texts, synthetic, groups = labelled(60)
    order = [*random.Random(1).sample(range(len(texts)), len(texts)), 0, 5, 7]
    one = train(texts, synthetic, groups)
    two = train([texts[at] for at in order], synthetic[order], [groups[at] for at in order])
    assert one.model.to_bytes() == two.model.to_bytes()


def test_a_text_that_is_said_to_be_both_is_left_out() -> None:
    texts, synthetic, groups = labelled(65)
    both = train([*texts, texts[0]], np.append(synthetic, ~synthetic[0]), [*groups, groups[0]])
    assert (both.model.training["contradictions"], both.model.training["human"]) == (1, 64)


def test_noise_is_not_learned() -> None:
    """Labels that the texts know nothing of: whatever is measured must be near one half."""
    texts, synthetic, _ = labelled(200, seed=4)
    rng = np.random.default_rng(0)
    human = [text for text, is_synthetic in zip(texts, synthetic, strict=True) if not is_synthetic]
    made = train(human, rng.permutation(np.arange(len(human)) % 2 == 0))
    assert 0.35 < made.model.training["cross_validation"]["auroc"] < 0.65


@pytest.mark.parametrize(
    ("count", "groups", "says"),
    [(20, None, "only 1?[0-9] human documents"), (200, ["one"] * 400, "only 0|too few groups")],
)
def test_too_little_to_train_on_is_told(count: int, groups: list[str] | None, says: str) -> None:
    texts, synthetic, _ = labelled(count)
    with pytest.raises(TrainingError, match=says):
        train(texts, synthetic, groups)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_the_chance_of_the_right_order(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([float(score) for score, _ in pairs])
    synthetic = np.array([kind for _, kind in pairs])
    if synthetic.all() or not synthetic.any():
        return
    wins = [(s > h) + (s == h) / 2 for s in scores[synthetic] for h in scores[~synthetic]]
    assert area_under_curve(scores, synthetic) == pytest.approx(sum(wins) / len(wins))


def test_what_is_caught_keeps_to_its_false_positives() -> None:
    rng = np.random.default_rng(2)
    scores, synthetic = rng.normal(size=1000), np.arange(1000) < 500
    scores[synthetic] += 3
    caught = caught_at(scores, synthetic, 0.01)
    threshold = np.sort(scores[~synthetic])[::-1][5]
    assert (scores[~synthetic] > threshold).mean() <= 0.01
    assert caught == (scores[synthetic] > threshold).mean() > 0.5
