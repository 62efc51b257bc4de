"""Diversity of a set of documents, as one mergeable accumulator of integers.

`Accumulator` is put together from monoids that each know one thing: `Lengths`, `Frequencies` of words and n-grams,
`Sample`, some whole documents by the hashes of their words, and for the full metrics `Lexical`, how soon words return,
`Similarity` of documents, and `Texts`, a sample of them.
"""

from transforms.kernels.diversity.accumulator import Accumulator, most_bytes
from transforms.kernels.diversity.keys import language_key
from transforms.kernels.diversity.metric import Metric
from transforms.kernels.diversity.params import DiversityParams

__all__ = ["Accumulator", "DiversityParams", "Metric", "language_key", "most_bytes"]
