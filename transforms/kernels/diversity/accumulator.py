"""Everything that is known of a set of documents, as one monoid made of several."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.kernels.diversity.encoding import Columns, encode_columns
from transforms.kernels.diversity.frequencies import Frequencies
from transforms.kernels.diversity.lengths import Lengths
from transforms.kernels.diversity.lexical import Lexical
from transforms.kernels.diversity.metric import Documents, Metric, Monoid
from transforms.kernels.diversity.params import DiversityParams
from transforms.kernels.diversity.sample import Sample, most_sample_bytes
from transforms.kernels.diversity.similarity import SIMILARITY_BYTES, Similarity
from transforms.kernels.diversity.table import BIN_ROWS, Table
from transforms.kernels.diversity.texts import MOST_TEXT_BYTES, Texts
from transforms.kernels.text import Words

__all__ = ["Accumulator", "most_bytes"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
UInts = npt.NDArray[np.uint64]


class Accumulator:
    """Everything the metrics need to know about a set of documents; a commutative monoid.

    `zero()` is the identity, `add` and `merge` change it in place, `+` does not. Equal sets of documents have equal
    bytes, however they were split, ordered and merged. It grows with its content up to `most_bytes(params)`. Not to be
    shared between threads that add.
    """

    def __init__(self, params: DiversityParams | None = None) -> None:
        self.params = params or DiversityParams()
        self._lengths, self._frequencies = Lengths(), Frequencies(self.params)
        self.sample = Sample(self.params.sample)
        self._parts: list[Monoid] = [self._lengths, self._frequencies, self.sample]
        if self.params.full:
            self._parts += [Lexical(), Similarity(), Texts(self.params.texts)]

    @classmethod
    def zero(cls, params: DiversityParams | None = None) -> Accumulator:
        return cls(params)

    def add(
        self,
        words: Words,
        select: Bools | Ints | None = None,
        texts: pa.Array | None = None,
        languages: UInts | None = None,
    ) -> None:
        """Count the documents, or those that `select` marks or numbers. N-grams do not cross documents.

        Numbers cost time for the numbered documents only: the way to share out one batch to many accumulators. The
        full metrics need the `texts` that the words were split from, too. `languages` has the `language_key` of each
        document of the batch; left out, none says its language.
        """
        n_documents = len(words.offsets) - 1
        if self.params.full and (texts is None or len(texts) != n_documents):
            raise ValueError(
                f"the full metrics need the texts of all {n_documents} documents, got "
                f"{'none' if texts is None else len(texts)}: pass what the words were split from."
            )
        documents = Documents(words, _chosen(select, n_documents), texts, languages)
        for part in self._parts:
            part.add(documents)

    def merge(self, other: Accumulator) -> None:
        if self.params != other.params:
            raise ValueError(
                f"cannot merge diversity measured with {other.params} into {self.params}: "
                "measure both again with the same sizes."
            )
        for part, other_part in zip(self._parts, other._parts, strict=True):
            part.merge(other_part)

    @property
    def words(self) -> Table:
        """How often each word occurs."""
        return self._frequencies.tables[0]

    @property
    def tokens(self) -> int:
        return int(self._frequencies.totals[0])

    def __add__(self, other: Accumulator) -> Accumulator:
        total = Accumulator(self.params)
        total.merge(self)
        total.merge(other)
        return total

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Accumulator) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Accumulator(documents={self._lengths.documents}, tokens={self.tokens})"

    def __reduce__(self) -> tuple[Callable[[bytes], Accumulator], tuple[bytes]]:
        return Accumulator.from_bytes, (self.to_bytes(),)

    def to_bytes(self) -> bytes:
        """The content in its one encoding: equal content, equal bytes."""
        p = self.params
        sizes = p.words, p.ngrams, p.bins, p.sample, p.texts, p.full
        return encode_columns([np.array(sizes, np.int64), *(c for part in self._parts for c in part.columns())])

    @classmethod
    def from_bytes(cls, data: bytes) -> Accumulator:
        columns = Columns(data)
        words, ngrams, bins, sample, texts, full = columns.take().tolist()
        accumulator = cls(DiversityParams(words, ngrams, bins, sample, texts, bool(full)))
        for part in accumulator._parts:
            part.read(columns)
        return accumulator

    def values(self) -> list[Metric]:
        """All metrics that are defined, in a fixed order."""
        return [metric for part in self._parts for metric in part.values()]


def _chosen(select: Bools | Ints | None, documents: int) -> Ints:
    """The numbers of the selected documents."""
    if select is None:
        return np.arange(documents)
    if select.dtype == np.bool_ and select.shape == (documents,):
        return np.flatnonzero(select)
    if select.dtype == np.int64 and select.ndim == 1:
        outside = select[(select < 0) | (select >= documents)]
        if len(outside):
            raise ValueError(
                f"select numbers document {outside[0]}, the batch has {documents} documents: "
                "number them from 0, in the order of the batch."
            )
        return select.astype(np.int64, copy=False)
    raise ValueError(
        f"select has dtype {select.dtype} and shape {select.shape}, the batch has {documents} documents: "
        "pass one bool for each document, int64 numbers of documents, or None for all."
    )


def most_bytes(params: DiversityParams) -> int:
    """Bound on the memory of an accumulator, but for some kilobytes."""
    slots = 2 * 16 * (params.words + 3 * params.ngrams)  # at most two for each hash, of the hash and its count
    bins = 8 * BIN_ROWS * params.bins
    full = 3 * bins + SIMILARITY_BYTES + params.texts + MOST_TEXT_BYTES
    return slots + bins + most_sample_bytes(params.sample) + full * params.full
