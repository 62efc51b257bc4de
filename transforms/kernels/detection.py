"""From scores of detectors to what they say of a document: calibrated p-values, abstention, one verdict.

A score means nothing until it is compared with scores of human text. Among n human documents of the same language and
length the chance of a score as high as s is at most p = (1 + how many have s or more) / (n + 1), whatever the detector
is and however badly it works; that is all that is used of it. k detectors are combined by Bonferroni: one of them
speaks against a document if its p is at most alpha / k. Where n is too small for that ever to happen, where a document
is short, or where there is no score, the detector abstains. A detector may state p itself, if it can know it.

What speaks against a document can demote it and nothing else: no p, however large, says that a human wrote it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.kernels.schemas import EVIDENCE, p_column, score_column

__all__ = [
    "Calibration",
    "DetectorRule",
    "Findings",
    "buckets_of",
    "judge",
    "with_evidence",
]

SILENT, HEURISTIC, DETECTED, PROOF = range(4)
"""How strongly detectors speak against a document, all together."""
STRENGTHS = {"heuristic": HEURISTIC, "detected": DETECTED, "proof": PROOF}

PROOF_P = Fraction(1, 100_000)
"""A larger p is no proof, whatever the detector may claim: of ten million human documents it would convict hundreds."""

DEFAULT_ALPHA = Fraction(1, 1000)
DEFAULT_MIN_WORDS = 128

SHORTEST_LENGTH, LONGEST_LENGTH = 4, 14
"""Lengths are told apart by powers of two of words, from 16 to 16,384; what is beyond counts with the last."""

MOST_SCORES = 20_000
"""Of one language and length in a calibration: enough for an alpha of 1/20,000, and a file that travels to workers."""

FORMAT = "anchormix-detector-calibration"


class Buckets(NamedTuple):
    """The language and the length of each document, as calibration tells them apart."""

    language: pa.Array  # lower case, without region; empty where nobody says
    length: NDArray[np.int64]  # log2 of its words


def buckets_of(language: pa.Array | pa.ChunkedArray, n_words: NDArray[np.int64]) -> Buckets:
    primary = pc.replace_substring_regex(pc.utf8_lower(language.cast(pa.string())), "[-_].*", "")
    if isinstance(primary, pa.ChunkedArray):
        primary = primary.combine_chunks()
    length = np.frexp(np.maximum(n_words, 1).astype(np.float64))[1] - 1
    return Buckets(primary.fill_null(""), np.clip(length, SHORTEST_LENGTH, LONGEST_LENGTH).astype(np.int64))


def words_of_length(length: int) -> str:
    """The words that documents of a length have, for people."""
    if length == LONGEST_LENGTH:
        return f"{1 << length:,} words or more"
    return f"{0 if length == SHORTEST_LENGTH else 1 << length:,} to {(2 << length) - 1:,} words"


@dataclass(frozen=True)
class Calibration:
    """Scores of human text, by language and length, and which detector gave them."""

    detector: str
    """The digest of the detector: scores of another one mean something else."""
    scores: Mapping[tuple[str, int], NDArray[np.float64]]
    """In rising order."""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def documents(self) -> int:
        return sum(map(len, self.scores.values()))

    @classmethod
    def of(
        cls,
        detector: str,
        language: pa.Array,
        n_words: NDArray[np.int64],
        scores: NDArray[np.float64],
        order: NDArray[Any],
        about: Mapping[str, Any] | None = None,
    ) -> Calibration:
        """From human documents; of a crowded bucket those that come first in `order`, which says nothing of scores."""
        buckets = buckets_of(language, n_words)
        names = buckets.language.dictionary_encode()
        code = names.indices.to_numpy().astype(np.int64) * (LONGEST_LENGTH + 1) + buckets.length
        found: dict[tuple[str, int], NDArray[np.float64]] = {}
        usable = np.flatnonzero(np.isfinite(scores))
        usable = usable[np.argsort(order[usable], kind="stable")]
        for number in np.unique(code[usable]).tolist():
            chosen = usable[code[usable] == number][:MOST_SCORES]
            key = names.dictionary[number // (LONGEST_LENGTH + 1)].as_py(), number % (LONGEST_LENGTH + 1)
            found[key] = np.sort(scores[chosen])
        return cls(detector, found, dict(about or {}))

    def to_bytes(self) -> bytes:
        buckets = [
            {"language": language, "length": length, "words": words_of_length(length), "scores": scores.tolist()}
            for (language, length), scores in sorted(self.scores.items())
        ]
        told = {"format": FORMAT, "version": 1, "detector": self.detector, **self.about, "buckets": buckets}
        return (json.dumps(told, indent=None, separators=(", ", ": ")) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Calibration:
        """Raises ValueError, saying what is wrong."""
        try:
            told = json.loads(data)
        except ValueError:
            raise ValueError(
                "is not JSON; `anchormix detector train` and `anchormix detector calibrate` write such a file"
            ) from None
        if not isinstance(told, dict) or told.get("format") != FORMAT or told.get("version") != 1:
            raise ValueError(f'is no calibration that this release reads: its "format" is not {FORMAT!r}, version 1')
        try:
            scores: dict[tuple[str, int], NDArray[np.float64]] = {}
            for bucket in told["buckets"]:
                values = np.sort(np.array(bucket["scores"], np.float64))
                if values.ndim != 1 or not np.isfinite(values).all():
                    raise ValueError(f"scores of {bucket['language']!r} are not all numbers")
                scores[str(bucket["language"]), int(bucket["length"])] = values
            return cls(str(told["detector"]), scores)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"is damaged ({error}); calibrate anew") from None

    @property
    def digest(self) -> str:
        """Of what decides p-values."""
        digest = hashlib.sha256(self.detector.encode())
        for (language, length), scores in sorted(self.scores.items()):
            digest.update(f"\0{language}\0{length}\0{len(scores)}\0".encode() + scores.astype("<f8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class DetectorRule:
    """What FATES has to know of one detector."""

    name: str
    version: str
    kind: str
    strength: str
    """The most it can say."""
    alpha: Fraction = DEFAULT_ALPHA
    min_words: int = DEFAULT_MIN_WORDS
    calibration: Calibration | None = None
    states_p: bool = False
    """Whether it knows p itself, which counts where there is no calibration."""

    def threshold(self, rules: int) -> Fraction:
        return self.alpha / rules


class Findings(NamedTuple):
    """What all detectors together say of each document, and the counts of each."""

    strength: NDArray[np.int64]
    """SILENT where none speaks against it."""
    evidence: tuple[tuple[NDArray[np.int64], pa.StructArray], ...]
    """Per detector: rising places of documents, and a piece of evidence against each."""
    counts: dict[str, dict[str, int]]
    """Per detector: documents `judged`, those spoken `against`, and abstentions by reason."""


def judge(facts: pa.Table | pa.RecordBatch, readable: NDArray[np.bool_], rules: Sequence[DetectorRule]) -> Findings:
    """From `language`, `n_words` and the columns of each detector."""
    rows = facts.num_rows
    strength = np.zeros(rows, np.int64)
    evidence = []
    counts = {}
    if rules:
        n_words = facts.column("n_words").to_numpy()
        buckets = buckets_of(facts.column("language"), n_words)
        for rule in sorted(rules, key=lambda rule: rule.name):
            told, counts[rule.name] = _judge_one(facts, readable, n_words, buckets, rule, len(rules))
            places = np.flatnonzero(told.against)
            strength[places] = np.maximum(strength[places], told.strength[places])
            if len(places):
                evidence.append((places, _evidence(rule, told, places, buckets)))
    return Findings(strength, tuple(evidence), counts)


class _Told(NamedTuple):
    score: NDArray[np.float64]
    p: NDArray[np.float64]
    compared: NDArray[np.int64]  # human documents behind p; 0 where the detector states it
    against: NDArray[np.bool_]
    strength: NDArray[np.int64]


def _judge_one(
    facts: pa.Table | pa.RecordBatch,
    readable: NDArray[np.bool_],
    n_words: NDArray[np.int64],
    buckets: Buckets,
    rule: DetectorRule,
    rules: int,
) -> tuple[_Told, dict[str, int]]:
    threshold = rule.threshold(rules)
    score = _numbers(facts.column(score_column(rule.name)))
    stated = _numbers(facts.column(p_column(rule.name)))
    scored = readable & np.isfinite(score)
    long_enough = scored & (n_words >= rule.min_words)
    if rule.calibration is None:
        p, compared, able = stated, np.zeros(len(score), np.int64), np.isfinite(stated)
    else:
        p, compared = _conformal(score, long_enough, buckets, rule.calibration)
        # (1 + 0) / (n + 1) <= threshold, in integers
        least = -(-threshold.denominator // threshold.numerator)
        able = compared + 1 >= least
    judged = long_enough & able
    p = np.where(judged, p, 1.0)
    against = judged & (p <= float(threshold))
    strongest = STRENGTHS[rule.strength]
    capped = np.where(p * rules <= float(PROOF_P), strongest, min(strongest, DETECTED))
    told = _Told(score, p, compared, against, np.where(against, capped, SILENT))
    return told, {
        "judged": int(judged.sum()),
        "against": int(against.sum()),
        "no_score": int((readable & ~scored).sum()),
        "short": int((scored & ~long_enough).sum()),
        "not_calibrated": int((long_enough & ~able).sum()),
    }


def _numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pc.fill_null(array, float("nan")).to_numpy(zero_copy_only=False)


def _conformal(
    score: NDArray[np.float64], wanted: NDArray[np.bool_], buckets: Buckets, calibration: Calibration
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """p of each wanted document, and how many human ones it was compared with. A loop over buckets, not documents."""
    p = np.ones(len(score))
    compared = np.zeros(len(score), np.int64)
    names = buckets.language.dictionary_encode()
    languages = names.dictionary.to_pylist()
    code = names.indices.to_numpy().astype(np.int64) * (LONGEST_LENGTH + 1) + buckets.length
    places = np.flatnonzero(wanted)
    places = places[np.argsort(code[places], kind="stable")]
    for run in np.split(places, np.flatnonzero(np.diff(code[places])) + 1):
        if not len(run):
            continue
        language, length = divmod(int(code[run[0]]), LONGEST_LENGTH + 1)
        human = calibration.scores.get((languages[language], length))
        if human is None:
            continue
        at_least = len(human) - np.searchsorted(human, score[run], side="left")
        p[run] = (1 + at_least) / (len(human) + 1)
        compared[run] = len(human)
    return p, compared


_NAMES = {number: name for name, number in STRENGTHS.items()}


def _evidence(rule: DetectorRule, told: _Told, places: NDArray[np.int64], buckets: Buckets) -> pa.StructArray:
    score, p = np.char.mod("%.4g", told.score[places]), np.char.mod("%.2g", told.p[places])
    detail = _joined(f"{rule.kind} {rule.version}: score ", pa.array(score), ", p ", pa.array(p))
    if rule.calibration is not None:
        words = [words_of_length(length) for length in range(LONGEST_LENGTH + 1)]
        detail = _joined(
            detail,
            " against ",
            pa.array(told.compared[places]).cast(pa.string()),
            " human documents of ",
            pa.array(words).take(pa.array(buckets.length[places])),
            ", language ",
            pc.replace_substring_regex(buckets.language.take(pa.array(places)), "^$", "unknown"),
        )
    else:
        detail = _joined(detail, " by its own count")
    strengths = pa.array([_NAMES.get(number) for number in range(PROOF + 1)], pa.string())
    count = len(places)
    fields = list(EVIDENCE.value_type)
    columns = {
        "kind": pa.array(["detector"]).take(pa.array(np.zeros(count, np.int64))),
        "rule": pa.array([f"evidence.detectors.{rule.name}"]).take(pa.array(np.zeros(count, np.int64))),
        "strength": strengths.take(pa.array(told.strength[places])),
        "detail": detail,
    }
    return pa.StructArray.from_arrays([columns[f.name].cast(f.type) for f in fields], fields=fields)


def _joined(*parts: str | pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(*(pa.scalar(part) if isinstance(part, str) else part for part in parts), "")


def with_evidence(evidence: pa.ListArray, findings: Findings) -> pa.ListArray:
    """The evidence of each document, followed by what detectors found, in the order of their names."""
    if not findings.evidence:
        return evidence
    rows = len(evidence)
    starts = evidence.offsets.to_numpy().astype(np.int64)
    owners = [np.repeat(np.arange(rows), np.diff(starts))]
    values = [evidence.values.slice(int(starts[0]), int(starts[-1] - starts[0]))]
    for places, pieces in findings.evidence:
        owners.append(places)
        values.append(pieces)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")  # detectors stand behind what was there, which stays in order
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(np.bincount(owner, minlength=rows), out=offsets[1:])
    joined = pa.concat_arrays(values).take(pa.array(order))
    return pa.ListArray.from_arrays(pa.array(offsets), joined, type=EVIDENCE)
