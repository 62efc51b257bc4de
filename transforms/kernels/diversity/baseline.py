"""Whether a set of documents differs from held-out human text: at equal size, against works like itself.

Human works differ from one another more than random documents of one pile do. So what is measured of a set is held
against what the same measure says of works of the reference, each cut to the same number of words in documents of
like length; a set made from several files is held against as many works shuffled together. Measures are standardised
by how works differ, and only the greatest of them counts, against the greatest of as many that vary together as the
works' do (max-T): one p-value for each set, however many measures there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import xxhash

from transforms.kernels.diversity.equal_size import (
    Drawn,
    distinct,
    draw,
    in_pieces,
    is_in,
    joined,
    usual_length,
    word_pairs,
)
from transforms.kernels.diversity.metric import rounded
from transforms.kernels.diversity.reference import Reference
from transforms.kernels.diversity.sample import SampledTexts
from transforms.kernels.diversity.table import Floats, UInts

__all__ = [
    "FALSE_DISCOVERIES",
    "LEAST_SIZE",
    "LEAST_WORKS",
    "MEASURES",
    "MOST_SIZE",
    "Against",
    "Comparison",
    "Measure",
    "NoBaseline",
    "Null",
    "Shape",
    "adjusted",
    "largest_size",
]

FALSE_DISCOVERIES = 0.05
"""The greatest share of the scopes said to differ that may do so by chance."""
LEAST_SIZE, MOST_SIZE = 1 << 10, 1 << 15
LEAST_WORKS = 8
"""Fewer say too little of how works differ: of eight, a measure lies five deviations off once in a thousand times."""
MOST_LONGER = 4
"""A work whose documents are this many times shorter than a set's would have more topics in as many words."""

_DRAWS = 128
_COMMON_PERCENT = 75
_MOST_EXAMPLES = 12
_SIMULATED = (1 << 16) - 1
_SCORED = 8
_STILL = 1e-12
_RIDGE = 1e-6
_LEVELS = (0.9, 0.95, 0.99)
_LEAST_BEYOND = 0.8


@dataclass(frozen=True)
class Measure:
    """One of the compared metrics.

    The alarm of a measure is one-sided: text that is richer than the works of the reference is no sign of loss, and
    where it is of another kind, the divergence says so. `least_effect` is the least relative change that counts.
    """

    name: str
    group: str  # tails: early; repetition: late; shape
    alarm: str  # below | above
    least_effect: float

    def effect(self, value: float, usual: float) -> float:
        """The relative change in the direction of the alarm."""
        if not usual:
            return 0.0
        return 1 - value / usual if self.alarm == "below" else value / usual - 1


MEASURES = (
    Measure("types", "tails", "below", 0.10),
    Measure("hapaxes", "tails", "below", 0.10),
    Measure("chao1", "tails", "below", 0.10),
    Measure("tail_coverage", "tails", "below", 0.10),
    Measure("distinct_2", "repetition", "below", 0.05),
    Measure("distinct_4", "repetition", "below", 0.02),
    Measure("entropy_1", "repetition", "below", 0.02),
    Measure("simpson", "repetition", "above", 0.20),
    Measure("jsd_reference", "shape", "above", 0.10),
)


class Shape(NamedTuple):
    """What the works of a null are made to look like."""

    size: int  # words
    longest: int  # document
    works: int  # shuffled together


class NoBaseline(Exception):
    """There is nothing to compare with; the message says why."""


@dataclass(frozen=True)
class Comparison:
    """One set against its null; `values` and what follows are in the order of MEASURES."""

    shape: Shape
    domain: str | None
    works: int  # of the reference that the null rests on
    strays: float  # how much further than Student's t says these differ from one another
    p: float
    values: tuple[float, ...]
    usual: tuple[float, ...]  # medians of the null
    low: tuple[float, ...]
    high: tuple[float, ...]  # between which nine in ten of the null lie
    scores: tuple[float, ...]  # standard deviations beyond the mean, in the direction of the alarm
    significant: tuple[bool, ...]  # at 5% for the set as a whole
    common: int  # words that three in four draws of the null have
    absent: tuple[int, ...] = field(default=())  # of those, what the set lacks, the most expected first
    absent_pairs: tuple[int, ...] = field(default=())

    @property
    def effects(self) -> tuple[float, ...]:
        triples = zip(MEASURES, self.values, self.usual, strict=True)
        return tuple(measure.effect(value, usual) for measure, value, usual in triples)

    @property
    def driver(self) -> int:
        """The measure that is furthest off."""
        return int(np.argmax(self.scores))

    @property
    def is_large(self) -> bool:
        """Whether a measure that is off is off by enough to matter."""
        found = zip(MEASURES, self.effects, self.significant, strict=True)
        return any(off and effect >= measure.least_effect for measure, effect, off in found)


def largest_size(words: int, most: int) -> int:
    """The largest power of two of words that can be drawn."""
    return 1 << min(words, most).bit_length() - 1 if words else 0


class Against:
    """One language's reference, with the nulls that have been asked of it."""

    def __init__(self, reference: Reference, most_size: int = MOST_SIZE) -> None:
        self.reference = reference
        self.most_size = most_size
        self._null = lru_cache(maxsize=64)(self._make_null)

    def compare(self, texts: SampledTexts, domain: str | None, n_files: int) -> Comparison:
        """`texts` against works of that domain, or of all; `n_files` is from how many files the texts were taken."""
        shape, works = self._shape(texts, domain, n_files)
        return self._null(domain, shape, works).judge(draw(texts, shape.size), self.reference)

    def _shape(self, texts: SampledTexts, domain: str | None, n_files: int) -> tuple[Shape, tuple[int, ...]]:
        length = usual_length(texts)
        longest = 1 << max(0, round(np.log2(max(1.0, length))))
        mine = [n for n, work in enumerate(self.reference.works) if domain is None or work.domain == domain]
        fitting = [n for n in mine if self.reference.usual_lengths[n] * MOST_LONGER >= length]
        size = largest_size(len(texts.words), self.most_size)
        if size < LEAST_SIZE:
            raise NoBaseline(f"fewer than {LEAST_SIZE:,} words, which is the least that is compared")
        if len(mine) < LEAST_WORKS:
            whose = {None: "of this language", "": "outside the folders of other sources"}.get(domain, f"in {domain}/")
            raise NoBaseline(f"the reference has {_files(len(mine))} {whose}, and a comparison needs {LEAST_WORKS}")
        if len(fitting) < LEAST_WORKS:
            raise NoBaseline(
                f"fewer than {LEAST_WORKS} files of the reference have documents at least a quarter as long"
            )
        while size >= LEAST_SIZE:
            large = {n: len(self.reference.works[n].texts.words) for n in fitting}
            together = min(n_files, len(fitting) // LEAST_WORKS)
            works = tuple(n for n in fitting if large[n] * together >= size)
            if len(works) >= max(LEAST_WORKS * together, len(fitting) * 3 // 4):
                return Shape(size, longest, together), works
            size //= 2
        raise NoBaseline(
            f"files of the reference are too small: a comparison needs {LEAST_WORKS} of at least {LEAST_SIZE:,} words"
        )

    def _make_null(self, domain: str | None, shape: Shape, works: tuple[int, ...]) -> Null:
        return Null(self.reference, domain, shape, works)


class Null:
    """What the measures say of works of the reference: each draw is of works that no other of its round has."""

    def __init__(self, reference: Reference, domain: str | None, shape: Shape, works: Sequence[int]) -> None:
        self.shape, self.domain, self.works = shape, domain, len(works)
        seed = xxhash.xxh3_64_intdigest(repr((domain, shape, [reference.works[n].name for n in works])).encode())
        draws = np.random.Generator(np.random.PCG64(seed))
        texts = {n: in_pieces(reference.works[n].texts, shape.longest) for n in works}
        self.groups = len(works) // shape.works
        rounds: list[Floats] = []
        measured: list[list[float]] = []
        self._without: list[Reference] = []
        seen: list[UInts] = []
        seen_pairs: list[UInts] = []
        for _ in range(max(1, _DRAWS // self.groups)):
            dealt = draws.permutation(np.array(works, np.int64))
            rows = []
            for group in range(self.groups):
                together = sorted(dealt[group * shape.works : (group + 1) * shape.works].tolist())
                pool = joined([texts[n] for n in together])
                drawn = draw(pool, shape.size, draws.permutation(len(pool.offsets) - 1))
                others = reference.without(together)
                if len(self._without) < _SCORED:
                    self._without.append(others)
                values = measures_of(drawn, [others])
                measured.append(values)
                rows.append(standardisable(values, shape.size))
                seen.append(distinct(drawn.words).astype(np.uint64))
                seen_pairs.append(word_pairs(drawn))
            rounds.append(np.array(rows))
        self._judge_rounds(rounds, draws)
        self._measured = np.array(measured)
        self._common = _common(seen)
        self._common_pairs = _common(seen_pairs)

    def _judge_rounds(self, rounds: list[Floats], draws: np.random.Generator) -> None:
        """Mean and spread of the measures, and how far the greatest of them strays by chance.

        Another work strays from the mean of so many by a little more than they do; that their spread itself is
        estimated makes it Student's, with the works of one round for degrees of freedom. Works stray further than
        that in turn, because a few are unlike all others: each is held against the rest of its round, and where they
        stray more than they should, scores are scaled down by as much.
        """
        self._freedom = self.groups - 1
        residuals = np.concatenate([values - values.mean(axis=0) for values in rounds])
        covariance = residuals.T @ residuals / (self._freedom * len(rounds))
        spread = np.sqrt(np.diag(covariance))
        self._varies = spread > _STILL
        spread = np.where(self._varies, spread, 1.0)
        self._mean = np.concatenate(rounds).mean(axis=0)
        correlation = covariance / np.outer(spread, spread) * (1 - _RIDGE)  # measures may say the same
        np.fill_diagonal(correlation, 1.0)
        # Unlike eigenvectors, whose signs are up to the library, this root is the same on every machine.
        normal = draws.standard_normal((_SIMULATED, len(MEASURES))) @ np.linalg.cholesky(correlation).T
        by = np.sqrt(draws.chisquare(self._freedom, _SIMULATED) / self._freedom)
        self._greatest = np.sort((normal / by[:, None])[:, self._varies].max(axis=1, initial=0.0))
        strayed = np.concatenate([_against_the_others(values[:, self._varies]) for values in rounds])
        levels = [100 * level for level in _LEVELS if self.groups * (1 - level) >= _LEAST_BEYOND]
        ratios = np.percentile(strayed, levels) / np.percentile(self._greatest, levels) if self._varies.any() else []
        self.strays = max([1.0, *(float(ratio) for ratio in ratios)])
        self._scale = spread * np.sqrt(1 + 1 / self.groups) * self.strays

    def judge(self, drawn: Drawn, reference: Reference) -> Comparison:
        values = measures_of(drawn, self._without)
        scores = (standardisable(values, self.shape.size) - self._mean) / self._scale
        scores = np.where(self._varies, scores, 0.0)
        chances = np.array([self._chance(score) for score in scores.tolist()])
        words = distinct(drawn.words).astype(np.uint64)
        low, usual, high = np.percentile(self._measured, [5, 50, 95], axis=0)
        return Comparison(
            shape=self.shape,
            domain=self.domain,
            works=self.works,
            strays=_short(self.strays),
            p=_short(float(chances.min())),
            values=tuple(map(rounded, values)),
            usual=tuple(map(rounded, usual.tolist())),
            low=tuple(map(rounded, low.tolist())),
            high=tuple(map(rounded, high.tolist())),
            scores=tuple(map(_short, scores.tolist())),
            significant=tuple((chances <= 0.05).tolist()),
            common=len(self._common),
            absent=_absent(self._common, words),
            absent_pairs=_absent(self._common_pairs, word_pairs(drawn)),
        )

    def _chance(self, score: float) -> float:
        """That the greatest of all measures strays so far: simulated, and far out, where hardly any did, at most the
        sum of the chances of each."""
        from scipy.special import stdtr

        beyond = _SIMULATED - int(np.searchsorted(self._greatest, score))
        simulated = (1 + beyond) / (1 + _SIMULATED)
        return min(simulated, float(stdtr(self._freedom, -score)) * int(self._varies.sum()), 1.0)


def measures_of(drawn: Drawn, references: Sequence[Reference]) -> list[float]:
    """Values in the order of MEASURES; what depends on the reference, as a mean over these."""
    counted = drawn.counted()
    counts, size, met = counted.counts, counted.total, references[0].meet(counted)
    types, once, twice = len(counts), int((counts == 1).sum()), int((counts == 2).sum())
    distinct = [1 - repeated / max(1, ngrams) for repeated, ngrams in (drawn.repeated(2), drawn.repeated(4))]
    return [
        float(types),
        float(once),
        types + once * max(0, once - 1) / (2 * (twice + 1)),
        float(np.mean([reference.coverage(met).share for reference in references])),
        *distinct,
        float(np.log2(size) - (counts * np.log2(counts)).sum() / size),
        float((counts * (counts - 1.0)).sum() / max(1.0, size * (size - 1.0))),
        float(np.mean([reference.divergence(met) for reference in references])),
    ]


def standardisable(values: Sequence[float], size: int) -> Floats:
    """The measures on scales on which works spread about evenly, turned so that more is more alarming."""
    types, once, unseen, coverage, distinct_2, distinct_4, entropy, simpson, divergence = values
    return np.array(
        [
            -np.log(types + 1),
            -np.log(once + 1),
            -np.log(unseen + 1),
            -np.log(coverage + 1e-4),
            np.log(1 - distinct_2 + 1 / size),
            np.log(1 - distinct_4 + 1 / size),
            -entropy,
            np.log(simpson + 1 / size**2),
            divergence,
        ]
    )


def adjusted(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's q: the least false-discovery rate at which each of these sets is found."""
    order = np.argsort(p, kind="stable")[::-1]
    ranks = np.arange(len(p), 0, -1)
    least = np.minimum.accumulate(np.minimum(1.0, np.asarray(p, np.float64)[order] * len(p) / ranks))
    found = np.empty(len(p))
    found[order] = least
    return [_short(q) for q in found.tolist()]


def _against_the_others(values: Floats) -> Floats:
    """How far the greatest measure of each row strays from the other rows, in their deviations."""
    rows = len(values)
    inner = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0, ddof=1) * np.sqrt(1 - 1 / rows), _STILL)
    outer = inner * np.sqrt((rows - 2) / np.maximum(rows - 1 - inner**2, _STILL))
    return np.asarray(outer.max(axis=1, initial=0.0))


def _common(seen: list[UInts]) -> UInts:
    """What most draws have, the most frequent first."""
    words, draws = np.unique(np.concatenate(seen), return_counts=True)
    enough = draws * 100 >= _COMMON_PERCENT * len(seen)
    words, draws = words[enough], draws[enough]
    return words[np.lexsort((words, -draws))]


def _absent(common: UInts, words: UInts) -> tuple[int, ...]:
    return tuple(common[~is_in(common, words)][:_MOST_EXAMPLES].tolist())


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _files(number: int) -> str:
    return f"{number} file{'' if number == 1 else 's'}"
