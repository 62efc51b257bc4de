"""What is near-duplicate in a small corpus, by brute force: every pair of documents, on sets of shingles as documented.

Words and shingles are those of tests/oracle.py, which walks text character by character and shares no code with the
kernels. Intersections of all pairs are the product of the document-shingle matrix with its transpose.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from peers.tools import components

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from oracle import shingles, split_words  # noqa: E402

BLOCK = 512  # rows of the matrix of intersections that are held at a time
LEAST = Fraction(3, 10)
"""Pairs below it are never looked at: no threshold here is near."""

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Pairs of documents, the better-ranked first, with their Jaccard similarity as two integers."""

    better: I64
    worse: I64
    shared: I64
    union: I64

    @cached_property
    def similarity(self) -> npt.NDArray[np.float64]:
        """Rounded, so that it falls into the right bin; `at_least` is exact."""
        return np.round(self.shared / self.union, 12)

    def at_least(self, threshold: Fraction) -> Bools:
        return self.shared * threshold.denominator >= self.union * threshold.numerator


@dataclass(frozen=True)
class Truth:
    texts: list[str]
    sets: list[frozenset[tuple[str, ...]]]
    rank: I64
    """Of each document, 0 the best: the longer by powers of two, then the digest, then the position."""
    pairs: Pairs

    def greedy(self, threshold: Fraction, among: Bools | None = None) -> tuple[Bools, npt.NDArray[np.float64]]:
        """From best to worst, a document stays unless one that stays is too similar.

        Gives back who stays, and for each removed document its largest similarity to one that stays.
        """
        present = np.ones(len(self.texts), np.bool_) if among is None else among
        edges = self.pairs.at_least(threshold)
        neighbours: list[list[tuple[int, float]]] = [[] for _ in self.texts]
        for better, worse, similarity in zip(
            *(column[edges].tolist() for column in (self.pairs.better, self.pairs.worse, self.pairs.similarity)),
            strict=True,
        ):
            neighbours[worse].append((better, similarity))
        kept = present.copy()
        closest = np.zeros(len(self.texts))
        for document in np.argsort(self.rank).tolist():
            similar = [similarity for better, similarity in neighbours[document] if kept[better]]
            if present[document] and similar:
                kept[document] = False
                closest[document] = max(similar)
        return kept, closest

    def closest_among(self, kept: Bools) -> npt.NDArray[np.float64]:
        """Of each document, the largest similarity to another one of those."""
        closest = np.zeros(len(self.texts))
        for one, other in ((self.pairs.better, self.pairs.worse), (self.pairs.worse, self.pairs.better)):
            near = kept[other]
            np.maximum.at(closest, one[near], self.pairs.similarity[near])
        return closest

    def clusters(self, threshold: Fraction) -> I64:
        edges = self.pairs.at_least(threshold)
        return components(len(self.texts), self.pairs.better[edges], self.pairs.worse[edges])

    def similarity(self, left: int, right: int) -> Fraction:
        if self.texts[left] == self.texts[right]:
            return Fraction(1)
        union = len(self.sets[left] | self.sets[right])
        return Fraction(len(self.sets[left] & self.sets[right]), union) if union else Fraction(0)


def find_truth(texts: list[str]) -> Truth:
    words = [tuple(split_words(text)) for text in texts]
    sets = [shingles(each) for each in words]
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    order = sorted(range(len(texts)), key=lambda place: (-len(words[place]).bit_length(), digests[place], place))
    rank = np.empty(len(texts), np.int64)
    rank[order] = np.arange(len(texts))
    return Truth(texts, sets, rank, all_pairs(texts, sets, rank))


def all_pairs(texts: list[str], sets: list[frozenset[tuple[str, ...]]], rank: I64) -> Pairs:
    """Every pair of LEAST or more. Equal texts are a pair of similarity 1 even where they hold no word."""
    numbers: dict[tuple[str, ...] | str, int] = {}
    # A text without words is a set of one: itself.
    members: list[list[tuple[str, ...] | str]] = [list(each) or [text] for each, text in zip(sets, texts, strict=True)]
    columns = np.array([numbers.setdefault(item, len(numbers)) for each in members for item in each], np.int64)
    sizes = np.array([len(each) for each in members], np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    matrix = csr_matrix((np.ones(len(columns), np.int32), columns, starts), shape=(len(texts), len(numbers)))
    found: list[list[I64]] = []
    for first in range(0, len(texts), BLOCK):
        shared = (matrix[first : first + BLOCK] @ matrix.T).tocoo()
        left, right, count = shared.row.astype(np.int64) + first, shared.col.astype(np.int64), shared.data
        union = sizes[left] + sizes[right] - count
        taken = (left < right) & (count * LEAST.denominator >= union * LEAST.numerator)
        found.append([left[taken], right[taken], count[taken].astype(np.int64), union[taken]])
    left, right, shared, union = (np.concatenate(column) for column in zip(*found, strict=True))
    swap = rank[left] > rank[right]
    return Pairs(np.where(swap, right, left), np.where(swap, left, right), shared, union)
