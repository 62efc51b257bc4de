"""The Vendi score: how many documents that have nothing in common would be as diverse as these.

A document is a vector of 256 features: each word adds or takes one at a place that its hash names, and the vector is
scaled to length 1. The product of two such vectors is, but for chance meetings of words, the cosine of the documents'
word counts. The score is the exponential of the entropy (of order 1 or 2) of the eigenvalues of the matrix of all
products, divided by the number of documents. The sum of the vectors' outer products has the same eigenvalues and does
not grow with the documents. Vectors are rounded to multiples of 2^-16, so the sum is one of integers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, uint64

from transforms.kernels.diversity.encoding import Column, Columns, unzigzag, zigzag
from transforms.kernels.diversity.metric import Documents, Metric, rounded
from transforms.kernels.diversity.table import Floats, Ints, UInts
from transforms.kernels.text import Words

__all__ = ["FEATURES", "SIMILARITY_BYTES", "Similarity", "features_of"]

FEATURES = 256
_PRODUCTS = FEATURES * (FEATURES + 1) // 2  # a symmetric matrix, its lower triangle row by row
SIMILARITY_BYTES = 8 * _PRODUCTS

SCALE = 1 << 16
_FEATURE_BITS = 8
_FEATURE_SHIFT = np.uint64(48)  # apart from the bits that bin words, so that the same words do not meet in both
_SIGN_SHIFT = np.uint64(56)

_AT_ONCE = 64
"""Documents whose products are added together: while they are, a row of the matrix stays in the first-level cache."""
_MOST_IN_64_BITS = 1 << 30
"""Documents of which each product is below 2^32 and a bit; the sums of more become Python integers."""

_NOTHING = 1e-40
"""The square of what rounding leaves of zero in a matrix of trace 1, and less."""

METHOD = f"features-{FEATURES}"


class Similarity:
    """A monoid: the documents that have words, and the sum of the outer products of their vectors."""

    def __init__(self, most_in_64_bits: int = _MOST_IN_64_BITS) -> None:
        self.documents = 0
        self._most = most_in_64_bits
        self._sums: npt.NDArray[Any] = np.zeros(0, np.int64)  # until there are documents

    def add(self, documents: Documents) -> None:
        words, numbers = documents.words, documents.numbers
        for start in range(0, len(numbers), self._most):
            some = numbers[start : start + self._most]
            sums = np.zeros(_PRODUCTS, np.int64)
            vectors, products = np.empty((_AT_ONCE, FEATURES)), np.empty(FEATURES)
            self._add(_add_products(words.hashes, words.offsets, some, vectors, products, sums), sums)

    def merge(self, other: Similarity) -> None:
        self._add(other.documents, other._sums)

    def _add(self, documents: int, sums: npt.NDArray[Any]) -> None:
        if documents == 0:
            return
        before = self._sums if self.documents else np.zeros(_PRODUCTS, np.int64)
        self.documents += documents
        if self.documents > self._most:
            before = before.astype(object)
        self._sums = before + sums

    def columns(self) -> list[Column]:
        """Sums in two halves where 64 bits may not do."""
        sums, low = self._sums, np.empty(0, np.int64)
        if sums.dtype == object:
            sums, low = (sums >> 32).astype(np.int64), (sums & 0xFFFFFFFF).astype(np.int64)
        return [np.array([self.documents]), zigzag(sums), low]

    def read(self, columns: Columns) -> None:
        documents = int(columns.take()[0])
        sums, low = unzigzag(columns.take()), columns.take()
        self._add(documents, (sums.astype(object) << 32) + low.astype(np.int64) if len(low) else sums)

    def values(self) -> list[Metric]:
        if self.documents == 0:
            return []
        matrix = np.zeros((FEATURES, FEATURES))
        below = np.tril_indices(FEATURES)
        matrix[below] = self._sums.astype(np.float64)
        matrix[below[1], below[0]] = matrix[below]
        matrix /= np.trace(matrix)
        order_2 = 1 / float(np.square(matrix).sum())
        shares = _eigenvalues(matrix)
        shares = shares[shares > 0]
        order_1 = math.exp(-float((shares * np.log(shares)).sum()))
        most = min(self.documents, FEATURES)
        return [
            Metric(name, rounded(min(max(1.0, score), most)), self.documents, METHOD)
            for name, score in (("vendi_1", order_1), ("vendi_2", order_2))
        ]


def _eigenvalues(matrix: Floats) -> Floats:
    """Of a symmetric matrix of trace 1, which is overwritten.

    Linear algebra libraries spread this over threads, which gets in the way of other workers, takes ten times as long
    on a busy machine, and makes the last digits depend on their number.
    """
    from scipy.linalg import eigvalsh_tridiagonal

    diagonal, beside = np.zeros(len(matrix)), np.zeros(len(matrix) - 1)
    _make_tridiagonal(matrix, diagonal, beside, np.empty(len(matrix)), np.empty(len(matrix)))
    eigenvalues: Floats = eigvalsh_tridiagonal(diagonal, beside, lapack_driver="sterf")
    return eigenvalues


def features_of(words: Words) -> Floats:
    """The vectors of a few documents that have words, a row each, as they are added up."""
    vectors = np.zeros((len(words.offsets) - 1, FEATURES))
    for document, vector in enumerate(vectors):
        _make_vector(words.hashes, words.offsets[document], words.offsets[document + 1], vector)
    return vectors / SCALE


@njit(nogil=True, cache=True, _nrt=False)
def _make_vector(words: UInts, start: int, end: int, vector: Floats) -> None:
    for feature in range(FEATURES):
        vector[feature] = 0.0
    for at in range(start, end):
        feature = (words[at] >> _FEATURE_SHIFT) & uint64(FEATURES - 1)
        vector[feature] += 1.0 - 2.0 * ((words[at] >> _SIGN_SHIFT) & uint64(1))
    squares = 0.0
    for feature in range(FEATURES):
        squares += vector[feature] * vector[feature]
    if squares == 0.0:  # all words have met their opposites
        feature = (words[start] >> _FEATURE_SHIFT) & uint64(FEATURES - 1)
        vector[feature] = squares = 1.0
    length = math.sqrt(squares)
    for feature in range(FEATURES):
        vector[feature] = np.rint(vector[feature] / length * SCALE)


@njit(nogil=True, cache=True, _nrt=False)
def _add_products(words: UInts, offsets: Ints, documents: Ints, vectors: Floats, products: Floats, sums: Ints) -> int:
    """Add the products of all documents that have words, and tell how many these are."""
    made, added = 0, 0
    for document in documents:
        if offsets[document + 1] > offsets[document]:
            _make_vector(words, offsets[document], offsets[document + 1], vectors[made])
            made += 1
        if made == vectors.shape[0]:
            _add_outer_products(vectors, made, products, sums)
            added += made
            made = 0
    _add_outer_products(vectors, made, products, sums)
    return added + made


@njit(nogil=True, cache=True, _nrt=False)
def _add_outer_products(vectors: Floats, made: int, products: Floats, sums: Ints) -> None:
    """Floating point, since that is fast everywhere, and exact: sums stay below 2^53."""
    start = 0
    for row in range(FEATURES):
        for column in range(row + 1):
            products[column] = 0.0
        for index in range(made):
            factor = vectors[index, row]
            for column in range(row + 1):
                products[column] += factor * vectors[index, column]
        for column in range(row + 1):
            sums[start + column] += np.int64(products[column])
        start += row + 1


@njit(nogil=True, cache=True, _nrt=False)
def _make_tridiagonal(matrix: Floats, diagonal: Floats, beside: Floats, mirror: Floats, product: Floats) -> None:
    """Householder's reduction: each step mirrors what is left of the matrix so that a column has one entry below its
    diagonal. `mirror` and `product` are space for a column each."""
    size = matrix.shape[0]
    for step in range(size - 1):
        diagonal[step] = matrix[step, step]
        squares = 0.0
        for row in range(step + 1, size):
            mirror[row] = matrix[row, step]
            squares += mirror[row] * mirror[row]
        if squares < _NOTHING:
            continue
        beside[step] = math.copysign(math.sqrt(squares), -mirror[step + 1])
        mirror[step + 1] -= beside[step]
        half = squares - beside[step] * matrix[step + 1, step]  # of the squared length of the mirror's normal
        for row in range(step + 1, size):
            product[row] = 0.0
        for row in range(step + 1, size):
            factor = mirror[row] / half
            for column in range(step + 1, size):
                product[column] += factor * matrix[row, column]
        along = 0.0
        for row in range(step + 1, size):
            along += mirror[row] * product[row]
        along /= 2.0 * half
        for row in range(step + 1, size):
            product[row] -= along * mirror[row]
        for row in range(step + 1, size):
            of_mirror, of_product = mirror[row], product[row]
            for column in range(step + 1, size):
                matrix[row, column] -= of_mirror * product[column] + of_product * mirror[column]
    diagonal[size - 1] = matrix[size - 1, size - 1]
