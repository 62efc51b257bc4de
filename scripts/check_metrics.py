"""Check the diversity metrics against other libraries, on the same tokens: `python scripts/check_metrics.py`.

The libraries are no dependency of the project. `scripts/check_metrics.txt` pins them and says how to install them. Each
line names a metric, our value, theirs, and how far they are apart; the call fails if two that mean the same differ by
more than one part in a billion, as values are rounded to ten digits. Where a library is known to mean
something else, the line says so, and docs/metrics.md says why.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import nltk
import numpy as np
import pyarrow as pa
import scipy.optimize
import scipy.stats
from lexical_diversity import lex_div
from lexicalrichness import LexicalRichness
from numpy.typing import NDArray
from vendi_score import vendi

sys.path.insert(0, str(Path(__file__).parents[1]))

from transforms.kernels.diversity import Accumulator, DiversityParams
from transforms.kernels.diversity.similarity import features_of
from transforms.kernels.text import split_words

TOLERANCE = 1e-9
ROUNDED_BY_THEM = 1e-3

SONNET = """
From fairest creatures we desire increase that thereby beauty might never die but as the riper should by time decease
his tender heir might bear his memory but thou contracted to thine own bright eyes feeds thy light with flame of self
substantial fuel making a famine where abundance lies thyself thy foe to thy sweet self too cruel thou that art now the
fresh ornament of the world and only herald to the gaudy spring within thine own bud buries thy content and tender churl
makes waste in niggarding pity the world or else this glutton be to eat the due of the world by the grave and thee
"""


class Line(NamedTuple):
    metric: str
    library: str
    ours: float
    theirs: float
    within: float | None = TOLERANCE  # None: they mean something else

    @property
    def apart(self) -> float:
        return abs(self.ours - self.theirs) / max(abs(self.theirs), 1e-300) if self.ours != self.theirs else 0.0

    @property
    def verdict(self) -> str:
        if self.within is None:
            return "means something else"
        return "same" if self.apart <= self.within else "DIFFERS"


def main() -> int:
    warnings.simplefilter("ignore")
    failed = 0
    for title, texts in examples():
        print(f"\n{title}: {len(texts)} documents, {sum(len(text.split()) for text in texts):,} words")
        for line in compared(texts):
            failed += line.verdict == "DIFFERS"
            print(
                f"  {line.metric:18} {line.ours:<16.10g} {line.theirs:<16.10g} {line.apart:8.1e}  "
                f"{line.verdict:20} {line.library}"
            )
    print(f"\n{failed} of them differ." if failed else "\nAll values that mean the same are the same.")
    return int(failed > 0)


def examples() -> Iterator[tuple[str, list[str]]]:
    """One document at a time for what libraries define on one, and several for what they define on a corpus."""
    yield "a sonnet", [" ".join(SONNET.lower().split())]
    draws = np.random.default_rng(11)
    for vocabulary, length in ((300, 400), (5_000, 2_000)):
        yield f"a Zipf text of {vocabulary} words", generated(draws, 1, length, vocabulary)
    yield "short Zipf documents", generated(draws, 40, 60, 50)
    yield "long Zipf documents", generated(draws, 500, 200, 30_000)


def generated(draws: np.random.Generator, documents: int, length: int, vocabulary: int) -> list[str]:
    weights = 1 / np.arange(1, vocabulary + 1)
    drawn = draws.choice(vocabulary, (documents, length), p=weights / weights.sum())
    return [" ".join(f"w{word}" for word in row) for row in drawn.tolist()]


def compared(texts: list[str]) -> Iterator[Line]:
    words = split_words(pa.array(texts))
    accumulator = Accumulator.zero(DiversityParams(ngrams=1 << 20, full=True))
    accumulator.add(words, None, pa.array(texts))
    ours = {metric.name: metric.value for metric in accumulator.values()}
    documents = [text.split() for text in texts]
    yield from of_frequencies(ours, documents)
    if len(texts) == 1:
        yield from of_one_text(ours, texts[0], documents[0])
    else:
        yield from of_a_corpus(ours, texts)
    if len(texts) > 1:
        yield from of_vectors(ours, features_of(words))


def of_vectors(ours: dict[str, float], features: NDArray[np.float64]) -> Iterator[Line]:
    scaled = features * np.sqrt(len(features) / (features**2).sum())
    for order in (1, 2):
        name = f"vendi_{order}"
        theirs = float(vendi.score_dual(scaled, q=order, normalize=False))
        yield Line(name, "vendi_score.score_dual, the same vectors", ours[name], theirs)
        theirs = float(vendi.score_dual(features, q=order))
        yield Line(name, "vendi_score.score_dual, each scaled to 1 again", ours[name], theirs, 1e-4)
        theirs = float(vendi.score_K(features @ features.T, q=order, normalize=True))
        yield Line(name, "vendi_score.score_K, all pairs", ours[name], theirs, 1e-4)


def of_frequencies(ours: dict[str, float], documents: list[list[str]]) -> Iterator[Line]:
    words = nltk.FreqDist(word for document in documents for word in document)
    total = words.N()
    yield Line("types", "nltk.FreqDist.B", ours["types"], words.B())
    yield Line("hapaxes", "nltk.FreqDist.hapaxes", ours["hapaxes"], len(words.hapaxes()))
    yield Line("good_turing", "nltk.FreqDist.Nr(1) / N", ours["good_turing"], words.Nr(1) / total)
    unseen = words.Nr(1) * (words.Nr(1) - 1) / (2 * (words.Nr(2) + 1))
    yield Line("chao1", "from nltk.FreqDist.Nr", ours["chao1"], words.B() + unseen)
    for size in (1, 2, 3, 4):
        grams = nltk.FreqDist(gram for document in documents for gram in nltk.ngrams(document, size))
        yield Line(f"distinct_{size}", "nltk.ngrams", ours[f"distinct_{size}"], grams.B() / grams.N())
        entropy = float(scipy.stats.entropy(list(grams.values()), base=2))
        yield Line(f"entropy_{size}", "scipy.stats.entropy", ours[f"entropy_{size}"], entropy)
    yield Line("zipf", "scipy.stats.zipf, greatest likelihood", ours["zipf"], zipf_exponent(words), 1e-6)
    missing = scipy.stats.hypergeom(total, np.array(list(words.values())), 42).pmf(0)
    yield Line("hdd_42", "scipy.stats.hypergeom", ours["hdd_42"], float((1 - missing).sum() / 42))


def zipf_exponent(words: Any) -> float:
    counts = np.array(list(words.values()))

    def unlikeliness(exponent: float) -> float:
        return -float(scipy.stats.zipf.logpmf(counts, exponent).mean())

    found = scipy.optimize.minimize_scalar(unlikeliness, bounds=(1.01, 30), method="bounded", options={"xatol": 1e-12})
    # The best place of a smooth function is known to half of its digits; its slope has them all.
    step = 1e-4

    def slope(exponent: float) -> float:
        return unlikeliness(exponent + step) - unlikeliness(exponent - step)

    return 1 / (float(scipy.optimize.brentq(slope, found.x - 0.01, found.x + 0.01, xtol=1e-13)) - 1)


def of_one_text(ours: dict[str, float], text: str, words: list[str]) -> Iterator[Line]:
    rich = LexicalRichness(text, preprocessor=None, tokenizer=str.split)
    yield Line("yule_k", "lexicalrichness.yulek", ours["yule_k"], float(rich.yulek))
    yield Line("simpson", "lexicalrichness.simpsond", ours["simpson"], float(rich.simpsond))
    yield Line("mattr_50", "lexicalrichness.mattr(50)", ours["mattr_50"], rich.mattr(window_size=50))
    yield Line("mattr_50", "lexical_diversity.mattr", ours["mattr_50"], lex_div.mattr(words, window_length=50))
    yield Line("mtld", "lexicalrichness.mtld(0.72)", ours["mtld"], rich.mtld(threshold=0.72))
    yield Line("mtld", "lexical_diversity.mtld", ours["mtld"], lex_div.mtld(words), None)
    yield Line("hdd_42", "lexicalrichness.hdd(42)", ours["hdd_42"], float(rich.hdd(draws=42)))
    yield Line("hdd_42", "lexical_diversity.hdd", ours["hdd_42"], lex_div.hdd(words))
    theirs = module_of_diversity("ngram_diversity").ngram_diversity_score([text], num_n=4)
    ours_added = sum(ours[f"distinct_{size}"] for size in (1, 2, 3, 4))
    yield Line("distinct_1..4", "diversity.ngram_diversity_score", ours_added, theirs, ROUNDED_BY_THEM)


def of_a_corpus(ours: dict[str, float], texts: list[str]) -> Iterator[Line]:
    theirs = module_of_diversity("self_repetition").self_repetition_score(texts, verbose=False)
    yield Line("self_repetition_4", "diversity.self_repetition_score", ours["self_repetition_4"], float(theirs))
    theirs = module_of_diversity("compression").compression_ratio(texts, algorithm="gzip")
    yield Line("compression_ratio", "diversity.compression_ratio, gzip", ours["compression_ratio"], theirs, None)
    theirs = module_of_diversity("ngram_diversity").ngram_diversity_score(texts, num_n=4)
    ours_added = sum(ours[f"distinct_{size}"] for size in (1, 2, 3, 4))
    yield Line("distinct_1..4", "diversity.ngram_diversity_score", ours_added, theirs, None)


def module_of_diversity(name: str) -> ModuleType:
    """One file of the package `diversity`: importing all of it would load language models."""
    package = importlib.util.find_spec("diversity")
    if package is None or package.origin is None:
        raise SystemExit("the package diversity is missing: scripts/check_metrics.txt says how to install it")
    spec = importlib.util.spec_from_file_location(f"of_diversity_{name}", Path(package.origin).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
