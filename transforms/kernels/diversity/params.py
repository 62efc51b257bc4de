"""The sizes of the sketches, and which metrics they serve."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.kernels.diversity.table import BIN_BITS

__all__ = ["DiversityParams"]


@dataclass(frozen=True)
class DiversityParams:
    """Sizes of the sketches. Accumulators merge only with equals.

    `words` and `ngrams` are the most distinct items kept for n = 1 and for each n above; their estimates err by about
    1.2/sqrt(size) (0.9% and 1.9% with these defaults). `bins` are the bins of a row. `sample` are the words of the
    documents that scopes are compared by at equal size. `full` measures what costs more, too: bins for n-grams,
    windows of words, likeness of documents, and a sample of `texts` bytes of text.
    """

    words: int = 1 << 14
    ngrams: int = 1 << 12
    bins: int = 1 << 13
    sample: int = 1 << 15
    texts: int = 1 << 20
    full: bool = False

    def __post_init__(self) -> None:
        mosts = {"words": 1 << 24, "ngrams": 1 << 24, "bins": 1 << BIN_BITS, "sample": 1 << 24, "texts": 1 << 30}
        for name, most in mosts.items():
            size = getattr(self, name)
            if size < 2 or size > most or size & (size - 1):
                raise ValueError(
                    f"DiversityParams.{name} is {size}; it must be a power of two from 2 to {most}. "
                    "Leave it out for the default."
                )
