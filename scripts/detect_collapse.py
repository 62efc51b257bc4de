"""Do the metrics detect what they claim? `python scripts/detect_collapse.py PAIRS.parquet [HUMAN.parquet ...]`

Three measurements at equal size, printed as the tables of docs/metrics.md.

1. Text of models against the human text that it was made from. PAIRS has columns `text`, `label` (human, synthetic),
   `generator`, `domain` and `pair_id`. Both texts of a pair are cut to the words of the shorter one, so that size,
   documents and their lengths are the same on both sides. A permutation test swaps the texts of pairs: its p is the
   chance of a change as large if it did not matter who wrote which. Then each domain is held against the human text
   of all others, as the reference of a config would be.
2. Corpora that a word model has written anew from its own text, again and again. The human rows of all files are
   joined by `source`, or `dataset`, and cut into corpora of equal size. A metric is right about a pair of generations,
   or of human shares, if the one with less human text left is the less diverse one.
3. What `differs_from_baseline` says of both: domains against the human text of other domains, and corpora written anew
   against other corpora of their source.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from transforms.kernels.diversity import Accumulator, DiversityParams, language_key
from transforms.kernels.diversity.baseline import FALSE_DISCOVERIES, LEAST_SIZE, LEAST_WORKS
from transforms.kernels.diversity.held_out import HeldOut
from transforms.kernels.diversity.reference import Reference
from transforms.kernels.language_model import BOUNDARY
from transforms.kernels.simulation import Pool, SimulationParams, training_texts
from transforms.kernels.text import split_words

# Which way a metric moves as diversity is lost, by when docs/metrics.md expects it to.
DIRECTIONS = {
    **dict.fromkeys(("types", "hapaxes", "good_turing", "chao1", "heaps"), -1),
    "zipf": 1,
    **dict.fromkeys(("distinct_1", "distinct_2", "distinct_3", "distinct_4"), -1),
    **dict.fromkeys(("entropy_1", "entropy_2", "entropy_3", "entropy_4", "mattr_50", "mtld", "hdd_42"), -1),
    **dict.fromkeys(("self_repetition_4", "template_rate", "compression_ratio", "simpson", "yule_k"), 1),
    **dict.fromkeys(("vendi_1", "vendi_2"), -1),
}
FULL = DiversityParams(words=1 << 16, ngrams=1 << 16, full=True)  # large enough to count everything here
SHARES = ("0", "1/10", "3/10", "1/2", "7/10")
GENERATIONS = 10
SPREADS = 2.0  # of human text of the same size, beyond which a metric has left it
WORD = re.compile(r"[^\W_]+")

Values = dict[str, float]


def measure(texts: Sequence[str]) -> Values:
    accumulator = Accumulator(FULL)
    array = pa.array(texts, pa.large_string())
    accumulator.add(split_words(array), texts=array)
    return {metric.name: metric.value for metric in accumulator.values() if metric.name in DIRECTIONS}


def words_of(text: str) -> list[str]:
    return WORD.findall(text.lower())


# Text of models and of people


@dataclass(frozen=True)
class Pair:
    domain: str
    human: str
    model: str


def read_pairs(path: Path) -> dict[str, list[Pair]]:
    """By generator; both texts cut to the words of the shorter one."""
    texts: dict[str, dict[str, tuple[str, list[str]]]] = defaultdict(dict)
    columns = ["text", "label", "generator", "domain", "pair_id"]
    for row in pq.read_table(path, columns=columns).to_pylist():
        if row["label"] in ("human", "synthetic") and row["pair_id"]:
            writer = row["generator"] if row["label"] == "synthetic" else ""
            texts[row["pair_id"]].setdefault(writer, (row["domain"], words_of(row["text"])))
    pairs: dict[str, list[Pair]] = defaultdict(list)
    for _, by_writer in sorted(texts.items()):
        if "" in by_writer:
            domain, human = by_writer.pop("")
            for generator, (_, model) in by_writer.items():
                length = min(len(human), len(model))
                if length:
                    pairs[generator].append(Pair(domain, " ".join(human[:length]), " ".join(model[:length])))
    return {generator: found for generator, found in sorted(pairs.items()) if len(found) >= 50}


def change(pairs: Sequence[Pair], swapped: np.ndarray | None = None) -> dict[str, tuple[float, float]]:
    """Of each metric the value of human and of model text."""
    swap = np.zeros(len(pairs), bool) if swapped is None else swapped
    human = measure([p.model if s else p.human for p, s in zip(pairs, swap, strict=True)])
    model = measure([p.human if s else p.model for p, s in zip(pairs, swap, strict=True)])
    return {name: (human[name], model[name]) for name in human if name in model}


def compare_with_people(path: Path, permutations: int) -> Iterator[str]:
    by_generator = read_pairs(path)
    rows: dict[str, list[str]] = {name: [] for name in DIRECTIONS}
    for generator, pairs in by_generator.items():
        rng = np.random.default_rng(0)
        swaps = [rng.random(len(pairs)) < 0.5 for _ in range(permutations)]
        with ThreadPoolExecutor() as threads:
            by_chance = list(threads.map(lambda swap, pairs=pairs: change(pairs, swap), swaps))
        found = change(pairs)
        domains = defaultdict(list)
        for pair in pairs:
            domains[pair.domain].append(pair)
        in_domains = [change(own) for _, own in sorted(domains.items())]
        words = sum(len(pair.human.split()) for pair in pairs)
        yield f"{generator}: {len(pairs)} pairs, {words:,} words a side, {len(domains)} domains"
        for name, direction in DIRECTIONS.items():
            human, model = found[name]
            differences = np.array([drawn[name][1] - drawn[name][0] for drawn in by_chance])
            beyond = int((np.abs(differences) >= abs(model - human) - 1e-12).sum())
            p = (1 + beyond) / (1 + permutations)
            right = [direction * (m - h) > 0 for h, m in (d[name] for d in in_domains if name in d) if m != h]
            moved = f"{100 * (model / human - 1):+.1f}%" if human else f"{model:+.3f}"
            rows[name].append(f"{moved}{'' if p >= 0.05 else ' *'} | {sum(right)}/{len(right)}")
    yield ""
    yield "| metric | falls or rises | " + " | ".join(f"{g} | right" for g in by_generator) + " |"
    yield "|---" * (2 + 2 * len(by_generator)) + "|"
    for name, cells in rows.items():
        yield f"| `{name}` | {'falls' if DIRECTIONS[name] < 0 else 'rises'} | {' | '.join(cells)} |"
    n_domains = len({pair.domain for pairs in by_generator.values() for pair in pairs})
    possible = range(n_domains // 2 + 1, n_domains + 1)
    enough = next(k for k in possible if scipy.stats.binomtest(k, n_domains).pvalue < 0.05)
    yield f"\n{enough} of {n_domains} domains and more, or {n_domains - enough} and fewer: p < 0.05 by the sign test."


BANDS = {"seen once": (1, 1), "2-3 times": (2, 3), "4-7 times": (4, 7)}


def against_reference(path: Path) -> Iterator[str]:
    """Each domain against the human text of all others: who is farther from it, who has fewer of its rare words."""
    by_generator = read_pairs(path)
    rows: dict[str, list[str]] = defaultdict(list)
    for pairs in by_generator.values():
        domains = sorted({pair.domain for pair in pairs})
        counts = {d: [_counted(pairs, d, side) for side in ("human", "model")] for d in domains}
        every = sum((human for human, _ in counts.values()), Counter[str]())
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for human, model in counts.values():
            reference = every - human
            found["Jensen-Shannon divergence"].append((_divergence(reference, human), _divergence(reference, model)))
            for band, (least, most) in BANDS.items():
                rare = {word for word, count in reference.items() if least <= count <= most}
                found[f"coverage, {band}"].append((len(rare & human.keys()), len(rare & model.keys())))
        for name, values in found.items():
            direction = 1 if name.startswith("Jensen") else -1
            right = [direction * (model - human) > 0 for human, model in values if model != human]
            human, model = np.sum(values, axis=0)
            rows[name].append(f"{100 * (model / human - 1):+.1f}% | {sum(right)}/{len(right)}")
    yield "| against human text of other domains | " + " | ".join(f"{g} | right" for g in by_generator) + " |"
    yield "|---" * (1 + 2 * len(by_generator)) + "|"
    for name, cells in rows.items():
        yield f"| {name} | {' | '.join(cells)} |"


def _counted(pairs: Sequence[Pair], domain: str, side: str) -> Counter[str]:
    return Counter(word for pair in pairs if pair.domain == domain for word in getattr(pair, side).split())


def _divergence(left: Counter[str], right: Counter[str]) -> float:
    """In bits, from 0 to 1."""
    words = sorted({*left, *right})
    p, q = (np.array([counts[word] for word in words]) / counts.total() for counts in (left, right))
    return float(scipy.stats.entropy((p + q) / 2, base=2) - (_entropy(p) + _entropy(q)) / 2)


def _entropy(shares: np.ndarray) -> float:
    return float(scipy.stats.entropy(shares, base=2))


# Corpora written anew


@dataclass(frozen=True)
class Corpus:
    source: str
    texts: tuple[str, ...]


def read_corpora(paths: Sequence[Path], words: int) -> list[Corpus]:
    """Human text by source, cut into corpora of so many words; documents stay whole but for the last one."""
    by_source: dict[str, list[list[str]]] = defaultdict(list)
    for path in paths:
        table = pq.read_table(path)
        source = "source" if "source" in table.schema.names else "dataset"
        for row in table.to_pylist():
            if row["label"] == "human":
                found = words_of(row["text"])
                # A novel would be a corpus of one document: long ones are cut into chapters, so to say.
                by_source[row[source]] += [found[at : at + 1000] for at in range(0, len(found), 1000)]
    corpora = []
    for source, documents in sorted(by_source.items()):
        np.random.default_rng(0).shuffle(documents)  # type: ignore[arg-type]
        own: list[str] = []
        room = words
        for document in filter(None, documents):
            own.append(" ".join(document[:room]))
            room -= min(room, len(document))
            if not room:
                corpora.append(Corpus(source, tuple(own)))
                own, room = [], words
    counted = Counter(corpus.source for corpus in corpora)  # one alone has no spread
    return [corpus for corpus in corpora if counted[corpus.source] > 1]


def written_anew(corpus: Corpus, share: str, order: int) -> list[Values]:
    """Metrics of each generation."""
    return [measure(texts) for texts in texts_written_anew(corpus, share, order)]


def texts_written_anew(corpus: Corpus, share: str, order: int) -> Iterator[list[str]]:
    words = split_words(pa.array(corpus.texts))
    spelled = sorted({word for text in corpus.texts for word in text.split()})
    own = split_words(pa.array(spelled))
    spelling = {int(own.hashes[own.offsets[place]]): word for place, word in enumerate(spelled)}
    pool = Pool.of(words)
    names = ["", *(spelling.get(int(key), "") for key in pool.hashes[1:])]
    params = SimulationParams(GENERATIONS, order)
    for text in training_texts(pool, Fraction(share), params, seed=0):
        ends = np.flatnonzero(text == BOUNDARY)
        yield [" ".join(names[number] for number in text[a + 1 : b]) for a, b in pairwise(ends)]


def right_pairs(values: Sequence[float], direction: int) -> float:
    """The share of pairs of which the later one is less diverse; ties count half. 2 x this - 1 is Kendall's tau."""
    signs = [np.sign(direction * (later - earlier)) for earlier, later in combinations(values, 2)]
    return float(np.mean([(sign + 1) / 2 for sign in signs]))


def mean_and_range(by_source: dict[str, list[float]]) -> str:
    """The mean over sources, and where 95% of the means lie if sources are drawn again."""
    means = np.array([np.mean(values) for values in by_source.values()])
    rng = np.random.default_rng(0)
    drawn = means[rng.integers(0, len(means), (2000, len(means)))].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{means.mean():.2f} ({low:.2f} to {high:.2f})"


def compare_generations(paths: Sequence[Path], words: int, order: int) -> Iterator[str]:
    corpora = read_corpora(paths, words)
    sources = sorted({corpus.source for corpus in corpora})
    counts = ", ".join(f"{source} {sum(c.source == source for c in corpora)}" for source in sources)
    yield f"{len(corpora)} corpora of {words:,} words: {counts}; n-grams of {order} words"
    jobs = [(corpus, share) for corpus in corpora for share in SHARES]
    with ThreadPoolExecutor() as threads:
        chains = dict(zip(jobs, threads.map(lambda job: written_anew(*job, order), jobs), strict=True))
    yield ""
    yield "| metric | right: generations | tau | right: shares | worst source, generations | leaves human text |"
    yield "|---|---|---|---|---|---|"
    for name, direction in DIRECTIONS.items():
        generations, shares, leaves = defaultdict(list), defaultdict(list), []
        for source in sources:
            own = [corpus for corpus in corpora if corpus.source == source]
            spread = float(np.std([chains[c, "0"][0].get(name, np.nan) for c in own], ddof=1))
            for corpus in own:
                line = [values.get(name, np.nan) for values in chains[corpus, "0"]]
                last = [chains[corpus, share][-1].get(name, np.nan) for share in reversed(SHARES)]
                if np.isnan([*line, *last]).any():
                    continue
                generations[source].append(right_pairs(line, direction))
                shares[source].append(right_pairs(last, direction))
                beyond = [direction * (value - line[0]) > SPREADS * spread for value in line]
                leaves.append(beyond.index(True) if True in beyond else GENERATIONS + 1)
        worst = min(generations, key=lambda source: float(np.mean(generations[source])))
        tau = 2 * float(np.mean([np.mean(values) for values in generations.values()])) - 1
        median = float(np.median(leaves))
        told = f"generation {median:g}" if median <= GENERATIONS else "not in ten"
        yield (
            f"| `{name}` | {mean_and_range(generations)} | {tau:+.2f} | {mean_and_range(shares)} | "
            f"{worst} {np.mean(generations[worst]):.2f} | {told} |"
        )


# The comparison with held-out text


WRITTEN = (("0", 0), ("0", 1), ("0", 2), ("0", 5), ("0", 10), ("1/10", 10), ("3/10", 10), ("1/2", 10), ("7/10", 10))
"""Human share and generation."""


def accumulated(texts: Sequence[str]) -> Accumulator:
    total = Accumulator()
    total.add(split_words(pa.array(texts, pa.large_string())))
    return total


def held_out(works: dict[str, Sequence[str]]) -> HeldOut:
    parts = [(name, "", accumulated(texts)) for name, texts in works.items()]
    return HeldOut({"": Reference.of(lambda: iter(parts), language_key(None))})


def is_off(held: HeldOut, texts: Sequence[str]) -> tuple[bool, float, str] | None:
    """Whether the text differs by p and size of the change, how far it is off, and by what; None: no baseline."""
    told = held.standing(accumulated(texts), None, 1)
    if "none" in told:
        return None
    score = told["measures"][told["driver"]]["score"]
    return told["p"] <= FALSE_DISCOVERIES and told["is_large"], score, told["driver"]


def hold_models_against_people(path: Path) -> Iterator[str]:
    yield "| text, against the human text of other domains | differs | measure furthest off |"
    yield "|---|---|---|"
    by_generator = read_pairs(path)
    some = next(iter(by_generator.values()))
    human = {d: [p.human for p in some if p.domain == d] for d in sorted({p.domain for p in some})}
    large = {d: texts for d, texts in human.items() if sum(len(t.split()) for t in texts) >= LEAST_SIZE}
    against = {d: held_out({name: texts for name, texts in large.items() if name != d}) for d in large}
    writers = {"people": large} | {
        generator: {d: [p.model for p in pairs if p.domain == d] for d in large}
        for generator, pairs in by_generator.items()
    }
    for writer, texts in writers.items():
        found = [told for d in large if (told := is_off(against[d], texts[d])) is not None]
        drivers = Counter(driver for differs, _, driver in found if differs)
        yield f"| {writer} | {sum(differs for differs, _, _ in found)} of {len(found)} | {_most(drivers)} |"


def hold_generations_against_people(paths: Sequence[Path], words: int, order: int) -> Iterator[str]:
    by_source: dict[str, list[Corpus]] = defaultdict(list)
    for corpus in read_corpora(paths, words):
        by_source[corpus.source].append(corpus)
    found: dict[tuple[str, int], list[tuple[bool, float, str]]] = defaultdict(list)
    ranked, n_corpora, sources = [], 0, []
    for source, corpora in by_source.items():
        taken = corpora[: max(0, min(8, len(corpora) - LEAST_WORKS))]
        if not taken:
            continue
        sources.append(source)
        n_corpora += len(taken)
        held = held_out({f"{n:03d}": corpus.texts for n, corpus in enumerate(corpora[len(taken) :])})
        for corpus in taken:
            for share in dict.fromkeys(share for share, _ in WRITTEN):
                told = [is_off(held, texts) for texts in texts_written_anew(corpus, share, order)]
                for number in (number for s, number in WRITTEN if s == share):
                    found[share, number] += [one for one in [told[number]] if one is not None]
                scores = [one[1] for one in told if one is not None]
                if share == "0" and len(scores) > 1:
                    ranked.append(right_pairs(scores, 1))
    yield f"{n_corpora} corpora of {words:,} words against others of their source ({', '.join(sources)})"
    yield f"how far a generation is off is right of {np.mean(ranked):.2f} of pairs of generations"
    yield ""
    yield "| human share | generation | differs | measure furthest off |"
    yield "|---|---|---|---|"
    for share, number in WRITTEN:
        told = found[share, number]
        drivers = Counter(driver for differs, _, driver in told if differs)
        human = "human text" if number == 0 else f"{100 * float(Fraction(share)):g}%"
        yield f"| {human} | {number} | {sum(differs for differs, _, _ in told)} of {len(told)} | {_most(drivers)} |"


def _most(drivers: Counter[str]) -> str:
    return ", ".join(f"`{name}` {count}" for name, count in drivers.most_common(3)) or "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="Parquet with human and model text of the same prompts")
    parser.add_argument("human", type=Path, nargs="*", help="more Parquet with human text, for recursion alone")
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--words", type=int, default=12_000, help="of each corpus that is written anew")
    parser.add_argument("--order", type=int, default=3, help="of the word model")
    arguments: Any = parser.parse_args()
    for line in compare_with_people(arguments.pairs, arguments.permutations):
        print(line, flush=True)
    print()
    for line in against_reference(arguments.pairs):
        print(line, flush=True)
    print()
    for line in compare_generations([arguments.pairs, *arguments.human], arguments.words, arguments.order):
        print(line, flush=True)
    print()
    for line in hold_models_against_people(arguments.pairs):
        print(line, flush=True)
    print()
    shorter = arguments.words // 4  # works are many, so that they are small
    for line in hold_generations_against_people([arguments.pairs, *arguments.human], shorter, arguments.order):
        print(line, flush=True)


if __name__ == "__main__":
    main()
