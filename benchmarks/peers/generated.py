"""Documents whose near-duplicates are planted, in words that every tool splits alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

VOCABULARY = 20_000
FAMILY_WORDS = (60, 600)
TEMPLATE_WORDS = 250
BODY_WORDS = 100
BOILERPLATE = (0.45, 0.65, 0.75)  # Jaccard of pages that have nothing else in common: just below each threshold
LEAST_EDITED, MOST_EDITED = 0.999, 0.35  # Jaccard to the original that edits aim at


@dataclass(frozen=True)
class Documents:
    name: str
    texts: list[str]
    labels: list[str] | None = None


class Writer:
    """Seeded documents of words of a to z with single spaces, the frequent ones drawn most often."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        letters = self._rng.integers(ord("a"), ord("z") + 1, (VOCABULARY, 9)).astype(np.uint8)
        lengths = self._rng.integers(3, 10, VOCABULARY)
        self._words = [bytes(row[:length]).decode() for row, length in zip(letters, lengths, strict=True)]
        weights = 1 / (np.arange(VOCABULARY) + 2.7)
        self._weights = weights / weights.sum()

    def words(self, count: int) -> npt.NDArray[np.int64]:
        return self._rng.choice(VOCABULARY, count, p=self._weights)

    def edited(self, words: npt.NDArray[np.int64], similarity: float) -> npt.NDArray[np.int64]:
        """Words replaced at a rate that brings shingles of five to about that Jaccard similarity."""
        rate = 1 - (2 * similarity / (1 + similarity)) ** (1 / 5)
        changed = self._rng.random(len(words)) < rate
        return np.where(changed, self.words(len(words)), words)

    def similarity(self) -> float:
        return float(self._rng.uniform(MOST_EDITED, LEAST_EDITED))

    def text(self, words: npt.NDArray[np.int64]) -> str:
        return " ".join(self._words[word] for word in words)

    def families(self, count: int) -> Documents:
        """Originals with one to three edited copies each: small buckets, all similarities alike often."""
        texts, labels = [], []
        for family in range(count):
            original = self.words(int(self._rng.integers(*FAMILY_WORDS)))
            copies = [self.edited(original, self.similarity()) for _ in range(self._rng.integers(1, 4))]
            texts += [self.text(words) for words in (original, *copies)]
            labels += [str(family)] * (len(copies) + 1)
        return Documents("generated families", texts, labels)

    def template_pages(self, count: int) -> Documents:
        """Pages of one template, filled in to different degrees: buckets with hundreds of members."""
        template = self.words(TEMPLATE_WORDS)
        # Two pages share about the product of what each keeps of the template.
        pages = [self.edited(template, float(self._rng.uniform(0.6, LEAST_EDITED))) for _ in range(count)]
        return Documents("pages of one template", [self.text(words) for words in pages])

    def boilerplate_pages(self, count: int) -> Documents:
        """Pairs of pages alike in their bodies, under boilerplate that makes all others nearly alike as well."""
        texts, labels = [], []
        for group, share in enumerate(BOILERPLATE):
            boilerplate = self.words(round(BODY_WORDS * 2 * share / (1 - share)))
            for pair in range(count // len(BOILERPLATE) // 2):
                body = self.words(BODY_WORDS)
                bodies = (body, self.edited(body, self.similarity()))
                texts += [self.text(np.concatenate([boilerplate, each])) for each in bodies]
                labels += [f"{group} {pair}"] * 2
        return Documents("pairs under boilerplate", texts, labels)
