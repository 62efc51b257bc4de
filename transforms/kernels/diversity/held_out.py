"""What held-out human text says of a set of documents: metrics against it, and how the set stands among its works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from transforms.kernels.diversity.accumulator import Accumulator
from transforms.kernels.diversity.baseline import (
    LEAST_SIZE,
    MEASURES,
    MOST_SIZE,
    Against,
    Comparison,
    NoBaseline,
    largest_size,
)
from transforms.kernels.diversity.encoding import Columns, encode_columns
from transforms.kernels.diversity.equal_size import draw
from transforms.kernels.diversity.keys import language_key
from transforms.kernels.diversity.metric import Metric, rounded
from transforms.kernels.diversity.reference import RARE_BANDS, Reference, band_name
from transforms.kernels.scripts import SCRIPT

__all__ = ["HeldOut"]


class HeldOut:
    """The references of all languages, by `language_key`."""

    def __init__(self, references: Mapping[str, Reference]) -> None:
        self._references = dict(sorted(references.items()))
        self._against = {language_key(name): Against(reference) for name, reference in self._references.items()}
        works = [work for reference in references.values() for work in reference.works]
        self._domains = {work.domain for work in works} - {""}
        self._unstated = any(not name or name.startswith(SCRIPT) for name in self._references)

    def to_bytes(self) -> bytes:
        columns = [np.array([len(self._references)])]
        for name, reference in self._references.items():
            columns += [np.frombuffer(name.encode(), np.uint8), *reference.columns()]
        return encode_columns(columns)

    @classmethod
    def from_bytes(cls, data: bytes) -> HeldOut:
        columns = Columns(data)
        found = {}
        for _ in range(int(columns.take()[0])):
            name = columns.take().tobytes().decode()
            found[name] = Reference.read(columns)
        return cls(found)

    def metrics(self, total: Accumulator) -> list[Metric]:
        """Of the language that a set has most of; none where it is small, or there is no reference of that language."""
        language, words = _main_language(total)
        size = largest_size(words, MOST_SIZE)
        if language not in self._against or size < LEAST_SIZE:
            return []
        reference = self._against[language].reference
        met = reference.meet(draw(total.sample.texts(language), size).counted())
        method, coverage = reference.method(size), reference.coverage(met)
        found = [Metric("jsd_reference", rounded(reference.divergence(met)), size, method)]
        if coverage.types.sum():
            found.append(Metric("tail_coverage", rounded(coverage.share), size, method))
        for band, types, seen in zip(RARE_BANDS, coverage.types.tolist(), coverage.seen.tolist(), strict=True):
            if types:
                found.append(Metric(f"tail_coverage_{band_name(band)}", rounded(seen / types), size, method))
                found.append(Metric(f"missing_rare_{band_name(band)}", float(types - seen), size, method))
        return found

    def standing(self, total: Accumulator, source: str | None, n_files: int) -> dict[str, Any]:
        """How a set stands among works of the reference, or why that cannot be said: under `none`.

        `source` is the one that all its documents are of. Where works are of domains, which have the names of sources,
        those of this domain count, or for a source without one those without a domain. `n_files` says of how many files
        the set is a mixture.
        """
        language, words = _main_language(total)
        all_words = sum(total.sample.words_by_language().values())
        told: dict[str, Any] = {"language": language, "of_words": rounded(words / all_words) if all_words else 0.0}
        if language not in self._against:
            return told | {"none": "language", "unstated": self._unstated}
        domain = None if source is None or not self._domains else source if source in self._domains else ""
        try:
            found = self._against[language].compare(total.sample.texts(language), domain, n_files)
        except NoBaseline as error:
            return told | {"none": str(error)}
        return told | _told(found)


def _main_language(total: Accumulator) -> tuple[int, int]:
    """The language of most sampled words, and how many are of it."""
    words = total.sample.words_by_language()
    return max(words.items(), key=lambda item: (item[1], -item[0]), default=(0, 0))


def _told(found: Comparison) -> dict[str, Any]:
    measures = {}
    for place, measure in enumerate(MEASURES):
        measures[measure.name] = {
            "value": found.values[place],
            "usual": found.usual[place],
            "low": found.low[place],
            "high": found.high[place],
            "score": found.scores[place],
            "effect": rounded(found.effects[place]),
            "significant": found.significant[place],
        }
    return {
        "p": found.p,
        "size": found.shape.size,
        "longest": found.shape.longest,
        "together": found.shape.works,
        "works": found.works,
        "strays": found.strays,
        "domain": found.domain,
        "is_large": found.is_large,
        "driver": MEASURES[found.driver].name,
        "measures": measures,
        "common": found.common,
        "absent": [f"{word:08x}" for word in found.absent],
        "absent_pairs": [f"{pair:016x}" for pair in found.absent_pairs],
    }
