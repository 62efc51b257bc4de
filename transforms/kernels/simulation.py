"""Text that models write from the text of models: generations of a word model, and what of human words is left.

    pool = Pool.of(words)
    generations = simulate(pool, Fraction(1, 2), SimulationParams(generations=10, order=3), seed=0)

The human text, n words, is generation 0. Each later generation is a training text of n words as well: a share of it
human documents, drawn anew without replacement; the rest written by the model that was trained on the generation
before. Words are those of the diversity metrics. A word that a training text does not hold is one that its model
cannot write, so it returns only with human text.

For `order` 1 chance alone decides, and what to expect is known in closed form. A word of which the training text
holds x occurs in the next one h + Poisson((1 - a) x) times, where a is the human share and h what the drawn human
documents hold of it. With H the generating function of h, a word is gone after k generations with probability

    s_k^c  H(s_0) H(s_1) ... H(s_(k-1)),    s_0 = 0,  s_(j+1) = exp((1 - a) (s_j - 1))

where c is its count in the human text. Without human text that is s_k^c, and for a word seen once and one generation
1/e is lost. Simpson's index S, the chance that two words are the same, then rises by
1 - S_k = (1 - 1/n)^k (1 - S_0) in expectation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numba import njit, uint64
from numpy.typing import NDArray

from transforms.kernels.diversity import Accumulator, DiversityParams, Metric
from transforms.kernels.diversity.metric import rounded
from transforms.kernels.hashing import mix64
from transforms.kernels.language_model import BOUNDARY, MOST_ORDER, Ids, sample, train
from transforms.kernels.text import Words

__all__ = [
    "BANDS",
    "Generation",
    "Pool",
    "SimulationParams",
    "expected_kept",
    "expected_simpson",
    "simulate",
    "training_texts",
]

BANDS = ((1, 1), (2, 3), (4, 7), (8, 15), (16, None))
"""Of counts in the human text, both ends included: rare words are lost first, so they are told apart."""

MOST_GENERATIONS = 100
# Large enough that up to a million words nothing is estimated but n-grams, and those to half a percent.
_SKETCHES = DiversityParams(words=1 << 20, ngrams=1 << 16)
_MEASURED = (
    *("types", "hapaxes", "good_turing", "entropy_1", "simpson"),
    *("distinct_1", "distinct_2", "distinct_3", "distinct_4"),
)


@dataclass(frozen=True)
class SimulationParams:
    generations: int = 10
    order: int = 3

    def __post_init__(self) -> None:
        for name, value, most in (
            ("generations", self.generations, MOST_GENERATIONS),
            ("order", self.order, MOST_ORDER),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"{name} is {value}; it must be from 1 to {most}")


@dataclass(frozen=True)
class Pool:
    """The human text: its words as numbers, and how often each occurs."""

    text: Ids
    """Documents with a boundary before, between and behind them."""
    starts: NDArray[np.int64]
    """Where the first word of each document stands in the text, and where one more document would begin."""
    counts: NDArray[np.int64]
    """By number; none of the boundary."""
    hashes: NDArray[np.uint64]
    """Of the words, by number."""

    @classmethod
    def of(cls, words: Words) -> Pool:
        """The documents with words; there must be one."""
        lengths = np.diff(words.offsets)
        lengths = lengths[lengths > 0]
        if not len(lengths):
            raise ValueError("there is no word to simulate with")
        hashes, numbers = np.unique(words.hashes, return_inverse=True)
        starts = np.concatenate([[1], 1 + np.cumsum(lengths + 1)])
        text = np.full(starts[-1], BOUNDARY, np.int32)
        is_word = np.ones(len(text), np.bool_)
        is_word[0] = False
        is_word[starts[1:] - 1] = False
        text[is_word] = numbers + 1
        counts = np.bincount(text, minlength=len(hashes) + 1)
        counts[BOUNDARY] = 0
        return cls(text, starts, counts, np.concatenate([np.zeros(1, np.uint64), hashes]))

    @property
    def words(self) -> int:
        return int(self.counts.sum())

    @property
    def documents(self) -> int:
        return len(self.starts) - 1

    def bands(self) -> list[NDArray[np.bool_]]:
        """Which words belong to each of BANDS."""
        return [(self.counts >= least) & (self.counts <= (most or self.words)) for least, most in BANDS]


@dataclass(frozen=True)
class Generation:
    """A training text, measured."""

    number: int
    types_kept: float
    """The share of the words of the human text, each counted once, that are still there."""
    kept: tuple[float | None, ...]
    """The same, by BANDS; None where the human text has no such word."""
    metrics: dict[str, float]
    """Of `diversity`, of the whole training text."""


def simulate(pool: Pool, human: Fraction, params: SimulationParams, seed: int) -> Iterator[Generation]:
    """Generation 0, the human text itself, and those after it, measured."""
    for number, text in enumerate(training_texts(pool, human, params, seed)):
        yield _measure(number, text, pool)


def training_texts(pool: Pool, human: Fraction, params: SimulationParams, seed: int) -> Iterator[Ids]:
    """The same as texts: numbers of words, and boundaries."""
    words, text = pool.words, pool.text
    human_words = words * human.numerator // human.denominator
    key = _mixed(seed, human.numerator, human.denominator, params.order)
    yield text
    for number in range(1, params.generations + 1):
        written = np.empty(0, np.int32)
        if human_words < words:
            written = sample(train(text, params.order), words - human_words, _mixed(key, number, 0))
        drawn = _draw_documents(pool, human_words, _mixed(key, number, 1))
        text = np.concatenate([drawn, written[1:] if len(drawn) else written])
        yield text


def expected_kept(pool: Pool, human: Fraction, generations: int) -> list[tuple[float, ...]]:
    """What `order` 1 is expected to keep in generations 0 and up, of all words, then by BANDS; nan: no such words."""
    share = float(human)
    bands = [pool.counts > 0, *pool.bands()]
    document = np.repeat(np.arange(pool.documents), np.diff(pool.starts) - 1)
    at, times = np.unique(document * len(pool.counts) + pool.text[pool.text != BOUNDARY], return_counts=True)
    word = at % len(pool.counts)
    expected = [tuple(1.0 if band.any() else np.nan for band in bands)]
    point, gone_from_human = 0.0, np.zeros(len(pool.counts))
    with np.errstate(divide="ignore"):  # what is certain to be there is gone with a chance of 0
        for _ in range(generations):
            of_documents = np.log(1 - share + share * point**times) if share else np.zeros(len(word))
            gone_from_human += np.bincount(word, of_documents, len(pool.counts))
            point = float(np.exp((1 - share) * (point - 1)))
            kept = -np.expm1(gone_from_human + pool.counts * np.log(point))
            expected.append(tuple(float(kept[band].mean()) if band.any() else np.nan for band in bands))
    return expected


def expected_simpson(pool: Pool, generations: int) -> list[float]:
    """For `order` 1 without human text, generations 0 and up."""
    words = pool.words
    if words < 2:
        return []
    first = float((pool.counts * (pool.counts - 1)).sum()) / (words * (words - 1))
    return [rounded(1 - (1 - 1 / words) ** number * (1 - first)) for number in range(generations + 1)]


def _draw_documents(pool: Pool, words: int, key: int) -> Ids:
    """Documents of the pool, each once at most, of so many words together; the last one is cut."""
    if not words:
        return np.empty(0, np.int32)
    order = np.argsort(_keys(pool.documents, np.uint64(key)), kind="stable")
    lengths = np.diff(pool.starts) - 1
    ends = np.cumsum(lengths[order])
    taken = int(np.searchsorted(ends, words)) + 1
    text = np.full(1 + words + taken, BOUNDARY, np.int32)
    _copy_documents(pool.text, pool.starts, order[:taken], words, text)
    return text


@njit(nogil=True, cache=True, _nrt=False)
def _copy_documents(
    source: Ids, starts: NDArray[np.int64], documents: NDArray[np.int64], words: int, text: Ids
) -> None:
    length = 1
    for index in range(documents.shape[0]):
        at, end = starts[documents[index]], starts[documents[index] + 1] - 1
        while at < end and words > 0:
            text[length] = source[at]
            at += 1
            length += 1
            words -= 1
        length += 1


@njit(nogil=True, cache=True)
def _keys(count: int, key: Any) -> NDArray[np.uint64]:
    keys = np.empty(count, np.uint64)
    for index in range(count):
        keys[index] = mix64(mix64(uint64(index)) ^ uint64(key))
    return keys


def _mixed(*numbers: int) -> int:
    """A key of 64 bits for each sequence of numbers."""
    key = np.uint64(0)
    for number in numbers:
        (key,) = _keys(1, key ^ np.uint64(number % 2**64))
    return int(key)


def _measure(number: int, text: Ids, pool: Pool) -> Generation:
    is_there = np.bincount(text, minlength=len(pool.counts)) > 0
    there = [float(is_there[band].mean()) if band.any() else None for band in pool.bands()]
    is_word = text != BOUNDARY
    ends = np.flatnonzero(~is_word)
    offsets = ends - np.arange(len(ends))
    accumulator = Accumulator(_SKETCHES)
    accumulator.add(Words(pool.hashes[text[is_word]], offsets, np.diff(offsets)))
    return Generation(
        number,
        types_kept=rounded(float(is_there[pool.counts > 0].mean())),
        kept=tuple(rounded(share) if share is not None else None for share in there),
        metrics={metric.name: metric.value for metric in _named(accumulator.values())},
    )


def _named(metrics: list[Metric]) -> Iterator[Metric]:
    return (metric for metric in metrics if metric.name in _MEASURED)
