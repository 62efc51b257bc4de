"""What is measured, what a measurement is, and what can be added up: the words of this package."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.kernels.diversity.encoding import Column, Columns
from transforms.kernels.text import Words

__all__ = ["Documents", "Metric", "Monoid", "rounded"]

SIGNIFICANT_DIGITS = 10
"""Right to one part in a billion; what the mathematical libraries of two machines may disagree on is beyond."""


class Metric(NamedTuple):
    """One number about a set of documents."""

    name: str
    value: float
    n: int  # how many observations it rests on: documents, words, n-grams or windows
    method: str  # `exact`, or the sketch it was estimated from: `sample-16384`, `bins-3x8192`, `buckets-32` ...


class Documents(NamedTuple):
    """What is added: the words of a batch, the numbers of those of its documents that count, for the full metrics
    the texts of the batch, and the `language_key` of each text where it is known."""

    words: Words
    numbers: npt.NDArray[np.int64]
    texts: pa.Array | None = None
    languages: npt.NDArray[np.uint64] | None = None

    def lengths(self) -> npt.NDArray[np.int64]:
        """In words."""
        offsets = self.words.offsets
        return offsets[self.numbers + 1] - offsets[self.numbers]


class Monoid(Protocol):
    """One accumulator; built without content it is zero. `merge` is associative and commutative, and adding documents
    is merging what each of them alone would give."""

    def add(self, documents: Documents) -> None: ...

    def merge(self, other: Any) -> None: ...

    def values(self) -> list[Metric]: ...

    def columns(self) -> list[Column]:
        """The content: equal content, equal columns."""

    def read(self, columns: Columns) -> None:
        """Take the content from columns; it must be zero."""


def rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
