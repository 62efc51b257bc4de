"""Scores to verdicts: p against counting, abstention, Bonferroni, and that no verdict makes a document more human."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels.detection import (
    DETECTED,
    HEURISTIC,
    PROOF,
    SILENT,
    Calibration,
    DetectorRule,
    buckets_of,
    judge,
    with_evidence,
)
from transforms.kernels.provenance import SourceRules, tag
from transforms.kernels.schemas import EVIDENCE, Provenance, p_column, score_column


def calibration(scores: list[float], language: str | None = "en", words: int = 200) -> Calibration:
    languages = pa.array([language] * len(scores), pa.string())
    return Calibration.of("d", languages, np.full(len(scores), words), np.array(scores), np.arange(len(scores)))


def facts(
    rows: int, scores: dict[str, list[float | None]], p: dict[str, list[float | None]] | None = None, **columns: Any
) -> pa.Table:
    table: dict[str, Any] = {
        "language": columns.pop("language", pa.array(["en"] * rows)),
        "n_words": columns.pop("n_words", np.full(rows, 200)),
        **columns,
    }
    for name, values in scores.items():
        table[score_column(name)] = pa.array(values, pa.float64())
        table[p_column(name)] = pa.array((p or {}).get(name, [None] * rows), pa.float64())
    return pa.table(table)


def all_readable(rows: int) -> np.ndarray:
    return np.ones(rows, bool)


@settings(max_examples=80)
@given(
    st.lists(st.integers(0, 30), min_size=0, max_size=60),
    st.lists(st.integers(0, 30) | st.none(), min_size=1, max_size=20),
    st.sampled_from([Fraction(1, 2), Fraction(1, 10), Fraction(1, 40)]),
    st.integers(1, 3),
)
def test_a_document_is_spoken_against_when_counting_says_so(
    human: list[int], scores: list[int | None], alpha: Fraction, rules: int
) -> None:
    held = calibration([float(score) for score in human])
    names = [f"d{number}" for number in range(rules)]
    given_scores = [None if score is None else float(score) for score in scores]
    table = facts(len(scores), {name: given_scores for name in names})
    found = judge(
        table,
        all_readable(len(scores)),
        [DetectorRule(name, "1", "classifier", "detected", alpha, 100, held) for name in names],
    )
    for place, score in enumerate(scores):
        against = False
        if score is not None and Fraction(1, len(human) + 1) <= alpha / rules:
            against = Fraction(1 + sum(each >= score for each in human), len(human) + 1) <= alpha / rules
        assert found.strength[place] == (DETECTED if against else SILENT)
    counts = found.counts["d0"]
    seen = counts["judged"] + counts["no_score"] + counts["short"] + counts["not_calibrated"]
    assert seen == len(scores)
    assert counts["against"] == int((found.strength != SILENT).sum())


def test_false_positives_keep_to_alpha() -> None:
    """Human text of the calibration's own kind, under three detectors that agree with each other."""
    rng = np.random.default_rng(7)
    alpha, rounds, size = Fraction(1, 20), 40, 500
    total = 0
    for _ in range(rounds):
        held = calibration(rng.gumbel(size=400).tolist())
        scores = rng.gumbel(size=size).tolist()
        rules = [DetectorRule(name, "1", "classifier", "detected", alpha, 1, held) for name in "abc"]
        total += int(
            (judge(facts(size, {name: scores for name in "abc"}), all_readable(size), rules).strength > 0).sum()
        )
    assert total / (rounds * size) <= float(alpha)


def test_language_and_length_have_calibrations_of_their_own() -> None:
    held = Calibration(
        "d", {("en", 7): np.zeros(99), ("de", 7): np.full(99, 5.0), ("en", 8): np.full(99, 5.0), ("", 7): np.zeros(9)}
    )
    languages = pa.array(["en", "EN-us", "de", "en", "fr", None, "en"])
    words = np.array([128, 255, 200, 256, 200, 200, 127])
    table = facts(7, {"d": [1.0] * 7}, language=languages, n_words=words)
    rule = DetectorRule("d", "1", "classifier", "detected", Fraction(1, 100), 100, held)
    found = judge(table, all_readable(7), [rule])
    assert found.strength.tolist() == [DETECTED, DETECTED, SILENT, SILENT, SILENT, SILENT, SILENT]
    assert found.counts["d"] == {"judged": 4, "against": 2, "no_score": 0, "short": 0, "not_calibrated": 3}


def test_lengths_are_powers_of_two() -> None:
    words = np.array([0, 1, 16, 31, 32, 127, 128, 16383, 16384, 10**9])
    lengths = buckets_of(pa.array(["en"] * len(words)), words).length
    assert lengths.tolist() == [4, 4, 4, 4, 5, 6, 7, 13, 14, 14]


def test_a_stated_p_counts_without_calibration_and_proves_only_where_it_is_tiny() -> None:
    table = facts(4, {"w": [9.0, 4.0, 1.0, None]}, {"w": [1e-9, 5e-4, 0.2, None]})
    rule = DetectorRule("w", "1", "watermark", "proof", Fraction(1, 1000), 1, states_p=True)
    found = judge(table, all_readable(4), [rule])
    assert found.strength.tolist() == [PROOF, DETECTED, SILENT, SILENT]
    held = DetectorRule("w", "1", "watermark", "proof", Fraction(1, 1000), 1, calibration([0.0] * 2000), True)
    assert judge(table, all_readable(4), [held]).strength.tolist() == [DETECTED, DETECTED, DETECTED, SILENT]


def test_a_hint_stays_a_hint() -> None:
    rule = DetectorRule("l", "1", "lexicon", "heuristic", Fraction(1, 10), 1, calibration([0.0] * 100))
    found = judge(facts(2, {"l": [1.0, -1.0]}), all_readable(2), [rule])
    assert found.strength.tolist() == [HEURISTIC, SILENT]


def test_what_cannot_be_read_is_not_judged() -> None:
    rule = DetectorRule("l", "1", "lexicon", "detected", Fraction(1, 10), 1, calibration([0.0] * 100))
    found = judge(facts(2, {"l": [1.0, 1.0]}), np.array([False, True]), [rule])
    assert found.strength.tolist() == [SILENT, DETECTED]
    assert found.counts["l"]["judged"] == 1


SAID = st.tuples(
    st.sampled_from([None, "human", "ai_assisted", "synthetic"]),
    st.sampled_from([None, "human", "gpt-4"]),
    st.booleans(),
    st.sampled_from([SILENT, HEURISTIC, DETECTED, PROOF]),
)
LABELS = tuple((name, name) for name in ("human", "ai_assisted", "synthetic"))


@settings(max_examples=100)
@given(st.lists(SAID, min_size=1, max_size=15), st.sampled_from(["human", "ai_assisted", "unknown"]))
def test_detectors_only_demote_and_custody_stays(said: list[tuple[Any, Any, bool, int]], declare: str) -> None:
    rows = len(said)
    spoken = [strength for *_, strength in said]
    table = facts(
        rows,
        {"d": [1.0 if strength else -1.0 for strength in spoken]},
        {"d": [1e-9] * rows},
        label=pa.array([label for label, *_ in said], pa.string()),
        generator=pa.array([generator for _, generator, *_ in said], pa.string()),
        origin=pa.nulls(rows, pa.string()),
        artefacts=pa.array([0] * rows, pa.uint64()),
    )
    held = np.array([in_custody for _, _, in_custody, _ in said])
    rules = SourceRules("web", declare, labels=LABELS)
    found = judge(table, all_readable(rows), [])._replace(strength=np.array(spoken, np.int64))
    without, with_them = tag(table, held, "by a key", rules), tag(table, held, "by a key", rules, findings=found)
    for place, strength in enumerate(spoken):
        before, after = int(without.provenance[place]), int(with_them.provenance[place])
        assert after >= before
        assert after == before or after == Provenance.SYNTHETIC
        if held[place]:
            assert after == Provenance.HUMAN_VERIFIED
            assert with_them.contested[place] == (without.contested[place] or strength >= DETECTED)
        if strength in (SILENT, HEURISTIC):
            assert after == before
        if strength == PROOF and not held[place]:
            assert after == Provenance.SYNTHETIC
        # Which of two copies stays must not hang on a detector.
        assert with_them.before_demotion[place] == without.before_demotion[place]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=12), st.integers(0, 3))
def test_evidence_is_what_was_there_and_what_was_found(rows: list[tuple[int, bool, bool]], cut: int) -> None:
    held = [[{"kind": "k", "rule": str(n), "strength": "s", "detail": "d"} for n in range(count)] for count, *_ in rows]
    before = pa.array([[], *held], EVIDENCE).slice(1)  # not at the start of its buffers
    names = ("b", "a")
    scores = {name: [1.0 if row[1 + at] else -1.0 for row in rows] for at, name in enumerate(names)}
    rules = [
        DetectorRule(name, "7", "classifier", "detected", Fraction(1, 5), 1, calibration([0.0] * 99)) for name in names
    ]
    found = judge(facts(len(rows), scores), all_readable(len(rows)), rules)
    after = with_evidence(before, found)
    after.validate(full=True)
    assert after.type == EVIDENCE
    for place, (entries, row) in enumerate(zip(after.to_pylist(), rows, strict=True)):
        assert entries[: row[0]] == held[place]
        spoken = [name for at, name in sorted(enumerate(names), key=lambda pair: pair[1]) if row[1 + at]]
        assert [entry["rule"] for entry in entries[row[0] :]] == [f"evidence.detectors.{name}" for name in spoken]
        for entry in entries[row[0] :]:
            assert (entry["kind"], entry["strength"]) == ("detector", "detected")
            assert entry["detail"] == (
                "classifier 7: score 1, p 0.01 against 99 human documents of 128 to 255 words, language en"
            )


def test_a_calibration_reads_back_and_its_digest_follows_its_scores() -> None:
    held = calibration([3.0, 1.0, float("nan"), 2.0])
    assert held.scores["en", 7].tolist() == [1.0, 2.0, 3.0]
    again = Calibration.from_bytes(held.to_bytes())
    assert (again.detector, again.digest, again.documents) == ("d", held.digest, 3)
    assert held.digest != calibration([3.0, 1.0]).digest != calibration([3.0, 1.0], "de").digest


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b"[]", "no calibration"),
        (b'{"format": "anchormix-detector-calibration", "version": 2}', "no calibration"),
        (b'{"format": "anchormix-detector-calibration", "version": 1, "detector": "d"}', "damaged"),
        (
            b'{"format": "anchormix-detector-calibration", "version": 1, "detector": "d",'
            b' "buckets": [{"language": "en", "length": 7, "scores": ["x"]}]}',
            "damaged",
        ),
        (
            b'{"format": "anchormix-detector-calibration", "version": 1, "detector": "d",'
            b' "buckets": [{"language": "en", "length": 7, "scores": [NaN]}]}',
            "not all numbers",
        ),
    ],
)
def test_a_damaged_calibration_is_told(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Calibration.from_bytes(data)
