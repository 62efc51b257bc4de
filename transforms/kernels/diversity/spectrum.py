"""Metrics that follow from how often words or n-grams occur: of the tail, of repetition, and of the law they follow.

While a table is complete they are counted. Above, what is asked of the distinct words themselves is read from the
sample, and every sum over words of a function of their share comes from the chain rule: what the function says of
the bins, which is exact, less what each bin loses by being taken for one word, which the sample estimates. A frequent
word, nearly alone in its bin, contributes next to nothing to that second part, so it does not matter whether it was
sampled. Sums of squares come from the bins alone, less the collisions that are expected of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np

from transforms.kernels.diversity.metric import Metric, rounded
from transforms.kernels.diversity.table import BIN_BITS, BIN_ROWS, COUNT, KEY, Floats, Table

__all__ = [
    "HDD_DRAWS",
    "Spectrum",
    "concentration_metrics",
    "distinct_metric",
    "entropy_metric",
    "hdd_metric",
    "tail_metrics",
]

HDD_DRAWS = 42

_ZETA_EXPONENTS = (1.01, 64.0)
"""Their laws have a mean logarithm of counts of 100 and of 4e-20, beyond what counts of 64 bits can have."""
_HALVINGS = 50  # of that range: to 1e-13
_FIRST_COUNTS = np.arange(1.0, 50.0)
_FIRST_LOGARITHMS = np.log(_FIRST_COUNTS)


class Spectrum:
    """What a table tells of its n-grams: the counts that occur, and how many distinct n-grams have each."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.entries = table.entries()
        counts, types = np.unique(self.entries[:, COUNT], return_counts=True)
        self.counts, self.types = counts.astype(np.float64), types.astype(np.float64)

    def types_of(self, count: int) -> int:
        return int(self.types[self.counts == count].sum())

    def mean(self, of_counts: Floats) -> float:
        """Over distinct n-grams, of what is given for each count that occurs."""
        return float((self.types * of_counts).sum() / self.types.sum())

    def sum(self, of_counts: Callable[[Floats], Floats]) -> float:
        """The sum over all distinct n-grams of a function of their counts that is 0 at 0: above level 0 the median
        of the estimates by the rows of bins."""
        table = self.table
        if table.exact:
            return float((self.types * of_counts(self.counts)).sum())
        keys, counts = self.entries[:, KEY], self.entries[:, COUNT].astype(np.float64)
        of_types, mask = of_counts(counts), np.uint64(table.n_bins - 1)
        estimates = []
        for row, totals in enumerate(table.bins.astype(np.float64)):
            of_bins = of_counts(np.maximum(totals, 1.0)) * (totals > 0)
            place = ((keys >> np.uint64(BIN_BITS * row)) & mask).astype(np.int64)
            lost = of_types - of_bins[place] / totals[place] * counts
            estimates.append(float(of_bins.sum() + lost.sum() * 2.0**table.level))
        return statistics.median(estimates)

    @property
    def method(self) -> str:
        """Of such a sum."""
        table = self.table
        return table.method if table.exact else f"bins-{BIN_ROWS}x{table.n_bins}+{table.method}"


def tail_metrics(spectrum: Spectrum, tokens: int) -> list[Metric]:
    words = spectrum.table
    types = min(words.types, tokens)
    once, twice = (spectrum.types_of(times) << words.level for times in (1, 2))
    once = min(once, types)
    metrics = [
        Metric("types", float(types), tokens, words.method),
        Metric("hapaxes", float(once), tokens, words.method),
    ]
    if tokens:
        unseen = once * max(0, once - 1) / (2 * (twice + 1))
        metrics += [
            Metric("good_turing", rounded(once / tokens), tokens, words.method),
            Metric("chao1", rounded(types + unseen), tokens, words.method),
        ]
    if words.used:
        metrics += [
            Metric("heaps", rounded(_heaps(spectrum)), tokens, words.method),
            Metric("zipf", rounded(_zipf(spectrum)), tokens, words.method),
        ]
    return metrics


def distinct_metric(name: str, table: Table, total: int) -> list[Metric]:
    return [Metric(name, rounded(min(1.0, table.types / total)), total, table.method)] if total else []


def entropy_metric(name: str, spectrum: Spectrum, total: int) -> list[Metric]:
    if not total:
        return []
    surprise = spectrum.sum(lambda counts: counts * np.log2(counts))
    entropy = min(max(0.0, math.log2(total) - surprise / total), math.log2(total))
    return [Metric(name, rounded(entropy), total, spectrum.method)]


def hdd_metric(spectrum: Spectrum, tokens: int) -> list[Metric]:
    """The types that a draw of 42 words is expected to hold, a word."""
    if tokens < HDD_DRAWS:
        return []
    expected = spectrum.sum(lambda counts: _drawn(counts, tokens))
    drawn = min(max(1.0, expected), HDD_DRAWS)
    return [Metric("hdd_42", rounded(drawn / HDD_DRAWS), tokens, spectrum.method)]


def concentration_metrics(spectrum: Spectrum, tokens: int) -> list[Metric]:
    words = spectrum.table
    if not tokens:
        return []
    if words.exact:
        method = words.method
        squares = spectrum.sum(np.square)
    else:
        method = f"bins-{BIN_ROWS}x{words.n_bins}"
        # Of all ordered pairs of tokens that are different words, one in n_bins meets in a bin by chance.
        met = np.square(words.bins.astype(np.float64)).sum(axis=1)
        squares = statistics.median(((met * words.n_bins - tokens * tokens) / (words.n_bins - 1)).tolist())
    repeated = max(0.0, squares - tokens)
    metrics = []
    if tokens > 1:
        metrics.append(Metric("simpson", rounded(repeated / (tokens * (tokens - 1))), tokens, method))
    metrics.append(Metric("yule_k", rounded(1e4 * repeated / tokens**2), tokens, method))
    return metrics


def _heaps(spectrum: Spectrum) -> float:
    """The exponent by which the vocabulary grows from a random half of the words to all of them.

    A word that occurs c times is missing from a half with probability 2^-c.
    """
    return -math.log2(1 - spectrum.mean(np.exp2(-spectrum.counts)))


def _zipf(spectrum: Spectrum) -> float:
    """The exponent s of the law by which the word of rank r occurs in proportion to r^-s, of greatest likelihood.

    Under it the number of words that occur c times is in proportion to c^-a with a = 1 + 1/s: a zeta law, whose
    exponent depends on nothing but the mean logarithm of the counts. There the sample is as good as all words.
    """
    mean = spectrum.mean(np.log(spectrum.counts))
    if mean == 0:
        return 0.0
    low, high = _ZETA_EXPONENTS
    for _ in range(_HALVINGS):  # what SciPy would do in a millisecond, after a third of a second of loading
        middle = (low + high) / 2
        if _mean_logarithm(middle) > mean:
            low = middle
        else:
            high = middle
    return 1 / (middle - 1)


def _mean_logarithm(exponent: float) -> float:
    """Of numbers drawn from the zeta law: -zeta'(a) / zeta(a), both sums from 50 on by Euler's formula."""
    a, first, log = exponent, 50.0, math.log(50.0)
    powers = _FIRST_COUNTS**-a
    power, cubic = first**-a, a * (a + 1) * (a + 2)
    zeta = first / (a - 1) + 1 / 2 + a / (12 * first) - cubic / (720 * first**3)
    slope = first / (a - 1) * (log + 1 / (a - 1)) + log / 2 + (a * log - 1) / (12 * first)
    slope += (3 * a * a + 6 * a + 2 - cubic * log) / (720 * first**3)
    return float((_FIRST_LOGARITHMS @ powers + power * slope) / (powers.sum() + power * zeta))


def _drawn(counts: Floats, tokens: int) -> Floats:
    """The chance that a draw of 42 words without replacement holds a word that occurs so often."""
    missing = np.zeros_like(counts)
    with np.errstate(divide="ignore"):  # what occurs more often than all but 41 words is missing with chance 0
        for drawn in range(HDD_DRAWS):
            missing += np.log1p(-np.minimum(1.0, counts / (tokens - drawn)))
    return -np.expm1(missing)
