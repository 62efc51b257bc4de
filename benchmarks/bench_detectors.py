"""What the two detectors find, and how fast: one page of tables.

    python benchmarks/bench_detectors.py LABELLED.parquet [--human HUMAN.parquet]

LABELLED has the columns text, label (human or synthetic; other rows are left out), generator, domain, pair_id, dataset
and lang. HUMAN has text, lang and date, and is never trained on: what was written before 2022-11-30 shows how the same
detector errs on other languages and ages. Every score is of a document that the model had not seen, nor another of its
pair. A figure with few documents behind it says little: their numbers stand beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from transforms.kernels.ngrams import FEATURES, NgramModel, score_ngrams  # noqa: E402
from transforms.kernels.ngrams_training import area_under_curve, caught_at, fit, shares_of  # noqa: E402
from transforms.kernels.watermark import WatermarkKey, count_greens, green_words  # noqa: E402

FOLDS = 5
FALSE_POSITIVES = 0.01
LEAST = 30
"""Synthetic documents; a generator with fewer is told together with the others of its data set."""
ROUNDS = 5
KEYS = 200
CUTOFF = "2022-11-30"


@dataclass(frozen=True)
class Corpus:
    texts: list[str]
    synthetic: np.ndarray
    generator: np.ndarray
    domain: np.ndarray
    pair: np.ndarray
    dataset: np.ndarray
    language: np.ndarray


def read(path: Path) -> Corpus:
    rows = [row for row in pq.read_table(path).to_pylist() if row["label"] in ("human", "synthetic")]
    counts = Counter(row["generator"] for row in rows)
    return Corpus(
        [row["text"] for row in rows],
        np.array([row["label"] == "synthetic" for row in rows]),
        np.array(
            [row["generator"] if counts[row["generator"]] >= LEAST else f"others of {row['dataset']}" for row in rows]
        ),
        np.array([row["domain"] for row in rows]),
        np.array([row["pair_id"] or f"row {place}" for place, row in enumerate(rows)]),
        np.array([row["dataset"] for row in rows]),
        np.array([row["lang"] or "not stated" for row in rows]),
    )


def folds_of(names: np.ndarray) -> np.ndarray:
    """A fold per document, the same for equal names."""
    return np.array([int(hashlib.sha256(str(name).encode()).hexdigest()[:8], 16) % FOLDS for name in names])


def unseen_scores(shares: Any, corpus: Corpus, fold: np.ndarray, train_on: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Scores of the `test` documents, each by a model of the `train_on` documents of other folds."""
    scores = np.full(len(corpus.texts), np.nan)
    for number in range(FOLDS):
        learn, ask = np.flatnonzero(train_on & (fold != number)), np.flatnonzero(test & (fold == number))
        if len(ask):
            weights, intercept = fit(shares[learn], corpus.synthetic[learn])
            scores[ask] = shares[ask] @ weights + intercept
    return scores


def line(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def told(name: str, scores: np.ndarray, synthetic: np.ndarray) -> None:
    caught = caught_at(scores, synthetic, FALSE_POSITIVES)
    counts = f"{int(synthetic.sum())}", f"{int((~synthetic).sum())}"
    line(name, *counts, f"{area_under_curve(scores, synthetic):.3f}", f"{caught:.2f}")


def head(title: str, first: str) -> None:
    print(f"\n{title}\n")
    line(first, "synthetic", "human", "AUROC", "TPR at 1% FPR")
    line("---", "---:", "---:", "---:", "---:")


def by_part(scores: np.ndarray, corpus: Corpus, parts: np.ndarray, human: np.ndarray) -> None:
    """Each part of the synthetic documents against all given human ones."""
    for part in sorted(set(parts[corpus.synthetic].tolist())):
        chosen = np.flatnonzero(((corpus.synthetic & (parts == part)) | human) & np.isfinite(scores))
        if corpus.synthetic[chosen].sum() >= LEAST:
            told(str(part), scores[chosen], corpus.synthetic[chosen])


def n_grams(corpus: Corpus, human_file: Path | None) -> None:
    shares = shares_of([text.encode() for text in corpus.texts])
    everything = np.ones(len(corpus.texts), bool)
    human = ~corpus.synthetic
    pair = folds_of(corpus.pair)

    head("N-grams, seen generators and subjects, unseen texts", "generator")
    scores = unseen_scores(shares, corpus, pair, everything, everything)
    told("all", scores, corpus.synthetic)
    by_part(scores, corpus, corpus.generator, human)
    # Where people and models wrote about the same things, only the hand differs.
    paired = sorted({d for d in set(corpus.dataset) if len(set(corpus.synthetic[corpus.dataset == d])) == 2})
    for dataset in paired:
        mine = corpus.dataset == dataset
        head(f"N-grams, within {dataset} alone: the same subjects by both hands", "trained without")
        own = unseen_scores(shares, corpus, pair, mine, mine)
        told("nothing", own[mine], corpus.synthetic[mine])
        for generator in sorted(set(corpus.generator[mine & corpus.synthetic])):
            of_it = mine & (corpus.generator == generator)
            without = unseen_scores(shares, corpus, pair, mine & ~of_it, of_it | (mine & human))
            chosen = of_it | (mine & human)
            told(f"{generator}, asked about it", without[chosen], corpus.synthetic[chosen])
        apart = unseen_scores(shares, corpus, folds_of(corpus.domain), mine, mine)
        told("the subject asked about", apart[mine], corpus.synthetic[mine])

        head(f"N-grams, trained on {dataset} alone, asked about the rest", "generator")
        learn = np.flatnonzero(mine)
        weights, intercept = fit(shares[learn], corpus.synthetic[learn])
        rest = np.where(mine, np.nan, shares @ weights + intercept)
        by_part(rest, corpus, corpus.generator, human & ~mine)

    head("N-grams, by language of the synthetic text; all human text is English", "language")
    languages = np.where(
        np.isin(corpus.language, ["en", "not stated"]), corpus.language, "other, all of them translations"
    )
    by_part(scores, corpus, languages, human)
    if human_file is not None:
        elsewhere(shares, corpus, human_file, scores)


def elsewhere(shares: Any, corpus: Corpus, path: Path, scores: np.ndarray) -> None:
    """Human text of other languages above the score that 1% of the English human text exceeds."""
    rows = [row for row in pq.read_table(path).to_pylist() if row["date"] and row["date"] <= CUTOFF]
    weights, intercept = fit(shares, corpus.synthetic)
    found = shares_of([row["text"].encode() for row in rows]) @ weights + intercept
    of_human = np.sort(scores[~corpus.synthetic])[::-1]
    threshold = of_human[int(FALSE_POSITIVES * len(of_human))]
    print("\nHuman text of other corpora above the score that 1% of the human text above exceeds\n")
    line("language", "documents", "wrongly spoken against")
    line("---", "---:", "---:")
    language = np.array([row["lang"] for row in rows])
    for name in sorted(set(language)):
        mine = language == name
        line(name, str(int(mine.sum())), f"{(found[mine] > threshold).mean():.0%}")


# Watermarks


def followers(texts: Sequence[str]) -> dict[str, list[str]]:
    """Which words follow which: a generator of sorts, whose choices a watermark can lean on."""
    found: dict[str, list[str]] = {}
    for text in texts:
        words = text.split()
        for first, second in pairwise(words):
            found.setdefault(first, []).append(second)
    return found


def bare(word: str) -> str:
    """The word as the test counts it; a piece that is no single word cannot be marked."""
    kept = "".join(char for char in word.lower() if char.isalnum() or ord(char) > 127)
    return kept if kept and kept.encode() in word.lower().encode() else ""


def marked(
    key: WatermarkKey, after: dict[str, list[str]], vocabulary: list[str], words: int, rng: random.Random
) -> str:
    """Text of a bigram model that, of four continuations that come to mind, takes a green one if there is one."""
    out = [rng.choice(vocabulary)]
    while len(out) < words:
        known = after.get(out[-1]) or vocabulary
        choices = [rng.choice(known) for _ in range(4)]
        before = [bare(word) for word in out[-4:]]
        green = green_words(key, [word for word in before if word], [bare(choice) for choice in choices])
        preferred = [choice for choice, is_green in zip(choices, green, strict=True) if is_green]
        out.append(preferred[0] if preferred else choices[0])
    return " ".join(out)


def edited(text: str, share: float, vocabulary: list[str], rng: random.Random) -> str:
    return " ".join(rng.choice(vocabulary) if rng.random() < share else word for word in text.split())


SCHEMES = (("unigram", 0), ("kgw", 1))
LEVELS = (1e-2, 1e-3, 1e-5)


def watermarks(corpus: Corpus) -> None:
    humans = [text for text, synthetic in zip(corpus.texts, corpus.synthetic, strict=True) if not synthetic]
    array = pa.array(humans)
    print(f"\nWatermarks, false positives: {len(humans)} human texts under {KEYS} random keys, gamma 1/4\n")
    line("scheme", *(f"p at most {level:g}" for level in LEVELS), "the worst key, p at most 0.01")
    line("---", "---:", "---:", "---:", "---:")
    for scheme, context in SCHEMES:
        shares = []
        for number in range(KEYS):
            key = WatermarkKey(hashlib.sha256(b"%d" % number).digest()[:16], scheme, Fraction(1, 4), context)
            p = count_greens(array, key).p_values(key.gamma)
            shares.append([(p <= level).mean() for level in LEVELS])
        mean = np.mean(shares, axis=0)
        line(scheme, *(f"{share:.2g}" for share in mean), f"{np.max(shares, axis=0)[0]:.2g}")

    after, vocabulary = followers(humans), sorted({word for text in humans for word in text.split()})
    print("\nWatermarks, found at p of at most 1e-5: 100 texts of a bigram model that takes the green word of four\n")
    line("scheme", "words", "as written", "10% of words replaced", "30% replaced", "50% replaced")
    line("---", "---:", "---:", "---:", "---:", "---:")
    for scheme, context in SCHEMES:
        key = WatermarkKey(hashlib.sha256(b"power").digest()[:16], scheme, Fraction(1, 4), context)
        for words in (50, 100, 200, 400):
            rng = random.Random(words)
            made = [marked(key, after, vocabulary, words, rng) for _ in range(100)]
            cells = []
            for share in (0.0, 0.1, 0.3, 0.5):
                asked = pa.array([edited(text, share, vocabulary, rng) for text in made])
                cells.append(f"{(count_greens(asked, key).p_values(key.gamma) <= 1e-5).mean():.2f}")
            line(scheme, str(words), *cells)


# Speed


def speed(texts: Sequence[str]) -> None:
    array = pa.array(list(texts) * max(1, 20_000_000 // sum(len(text.encode()) for text in texts)))
    size = sum(len(value.encode()) for value in array.to_pylist())
    rng = np.random.default_rng(0)
    model = NgramModel.from_logit(rng.normal(size=FEATURES), 0.0, {})
    key = hashlib.sha256(b"speed").digest()[:16]
    print(f"\nSpeed on one core, {size / 1e6:.0f} MB of text, best of {ROUNDS}\n")
    line("detector", "MB per CPU second")
    line("---", "---:")
    cases: Iterator[tuple[str, Callable[[], Any]]] = iter(
        [
            ("n-grams", lambda: score_ngrams(array, model)),
            ("watermark, unigram", lambda: count_greens(array, WatermarkKey(key))),
            ("watermark, kgw", lambda: count_greens(array, WatermarkKey(key, "kgw", Fraction(1, 2), 1))),
        ]
    )
    for name, call in cases:
        call()
        times = []
        for _ in range(ROUNDS):
            started = time.thread_time()
            call()
            times.append(time.thread_time() - started)
        line(name, f"{size / 1e6 / min(times):.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labelled", type=Path)
    parser.add_argument("--human", type=Path, help="more human text, with lang and date")
    given = parser.parse_args()
    corpus = read(given.labelled)
    n_grams(corpus, given.human)
    watermarks(corpus)
    speed(corpus.texts)


if __name__ == "__main__":
    main()
