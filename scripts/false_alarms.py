"""How often human works are said to differ from human works: `python scripts/false_alarms.py PATH [--power]`.

PATH is a folder with a folder for each domain, and in it a text file for each work, whose documents are divided by
empty lines; or a Parquet file with columns `text`, `source` and `lang`, each row a work of the domain that both name.
Works are dealt to folds; those of one fold are shards, each held against the works of all other folds, so that every
work is judged once. `--together N` makes a shard, and a work, of N works of one domain. `--words N` looks at N words
at most. `--across` holds the works of each domain against every other domain instead.

`--power` adds works that were drawn again from their own words, for some generations, each with a share of words drawn
from the human work, and says how often these are found among as many human ones.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import stdtr

sys.path.insert(0, str(Path(__file__).parents[1]))

from transforms.kernels.diversity import Accumulator
from transforms.kernels.diversity.baseline import (
    FALSE_DISCOVERIES,
    LEAST_SIZE,
    MOST_SIZE,
    Against,
    Comparison,
    NoBaseline,
    adjusted,
)
from transforms.kernels.diversity.reference import Reference
from transforms.kernels.text import Words, split_words

FOLDS = 5
GENERATIONS = (1, 2, 5, 10)
HUMAN_SHARES = (0.0, 0.3, 0.7)
ALARMS = ("one metric", "max-T", "and BH", "and effect")


class Work(NamedTuple):
    name: str
    domain: str
    words: Words

    def measured(self) -> Accumulator:
        total = Accumulator.zero()
        total.add(self.words)
        return total


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--tagged", action="store_true", help="words of text files are followed by a slash and a tag")
    parser.add_argument("--together", type=int, default=1)
    parser.add_argument("--words", type=int, default=MOST_SIZE)
    parser.add_argument("--domains", nargs="*", help="only these")
    parser.add_argument("--across", action="store_true")
    parser.add_argument("--power", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    draws = np.random.default_rng(given.seed)
    works = [work for work in read_works(given.path, given.tagged) if not given.domains or work.domain in given.domains]
    works = [work for work in joined(works, given.together, draws) if len(work.words.hashes) >= LEAST_SIZE]
    sizes = sorted(len(work.words.hashes) for work in works)
    domains = sorted({work.domain for work in works})
    print(f"{len(works)} works of {len(domains)} domains, {sizes[0]:,} to {sizes[-1]:,} words each")
    if given.across:
        hold_across(works, given.words)
        return
    folds = [works[start::FOLDS] for start in range(FOLDS)]
    heading(["held against"])
    for told, same in (("all domains", False), ("their own domain", True)):
        rates(told, [found for number in range(FOLDS) for found in judged(folds, number, same, given.words)])
    if given.power:
        show_power(folds, given.words, draws)


def read_works(path: Path, tagged: bool) -> Iterator[Work]:
    if path.suffix == ".parquet":
        for number, row in enumerate(pq.read_table(path, columns=["text", "source", "lang"]).to_pylist()):
            yield as_work(f"row {number}", f"{row['source']} {row['lang']}", [row["text"]])
        return
    for file in sorted(path.glob("*/*")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if tagged:
            text = re.sub(r"(\S+)/\S+", r"\1", text)
        yield as_work(file.name, file.parent.name, re.split(r"\n\s*\n", text))


def as_work(name: str, domain: str, documents: list[str]) -> Work:
    return Work(name, domain, split_words(pa.array(documents, pa.large_string())))


def joined(works: list[Work], together: int, draws: np.random.Generator) -> list[Work]:
    """In a random order, and `together` of a domain as one."""
    by_domain: dict[str, list[Work]] = defaultdict(list)
    for place in draws.permutation(len(works)).tolist():
        by_domain[works[place].domain].append(works[place])
    made = []
    for domain, of_domain in sorted(by_domain.items()):
        for start in range(0, len(of_domain) - together + 1, together):
            parts = of_domain[start : start + together]
            hashes = np.concatenate([part.words.hashes for part in parts])
            lengths = np.concatenate([np.diff(part.words.offsets) for part in parts])
            made.append(Work(parts[0].name, domain, of_lengths(hashes, lengths)))
    return [made[place] for place in draws.permutation(len(made)).tolist()]


def of_lengths(hashes: np.ndarray, lengths: np.ndarray) -> Words:
    return Words(hashes, np.concatenate([[0], np.cumsum(lengths)]), lengths)


def against(works: Sequence[Work], words: int) -> Against:
    parts = [(f"{work.domain}/{work.name}", work.domain, work.measured()) for work in works]
    return Against(Reference.of(lambda: iter(parts), 0), words)


def compared(reference: Against, works: Sequence[Work], same_domain: bool) -> list[Comparison]:
    found = []
    for work in works:
        try:
            texts = work.measured().sample.texts(0)
            found.append(reference.compare(texts, work.domain if same_domain else None, 1))
        except NoBaseline:
            continue
    return found


def judged(folds: list[list[Work]], number: int, same_domain: bool, words: int) -> list[dict[str, bool]]:
    """The works of one fold as shards, against all others."""
    others = [work for place, fold in enumerate(folds) if place != number for work in fold]
    return alarms(compared(against(others, words), folds[number], same_domain))


def alarms(found: Sequence[Comparison]) -> list[dict[str, bool]]:
    """What each step of the judgement says of shards that are judged together."""
    told = []
    for one, q in zip(found, adjusted([one.p for one in found]) if found else [], strict=True):
        single = float(stdtr(one.works // one.shape.works - 1, -max(one.scores) * one.strays))
        is_found = q <= FALSE_DISCOVERIES
        steps = (single <= 0.05, one.p <= 0.05, is_found, is_found and one.is_large)
        told.append(dict(zip(ALARMS, steps, strict=True)))
    return told


def heading(names: Sequence[str]) -> None:
    print(f"{'':44}" + "".join(f"{name:>14}" for name in ("shards", *ALARMS)) + f"   ({', '.join(names)})")


def rates(told: str, found: Sequence[dict[str, bool]]) -> None:
    shares = [f"{np.mean([one[alarm] for one in found]):.1%}" if found else "-" for alarm in ALARMS]
    print(f"{told:44}" + "".join(f"{cell:>14}" for cell in (len(found), *shares)))


def hold_across(works: Sequence[Work], words: int) -> None:
    by_domain: dict[str, list[Work]] = defaultdict(list)
    for work in works:
        by_domain[work.domain].append(work)
    heading(["shards of one domain, held against another one"])
    for held_out, of_reference in sorted(by_domain.items()):
        reference = against(of_reference, words)
        for domain, shards in sorted(by_domain.items()):
            if domain != held_out:
                rates(f"{domain} against {held_out}", alarms(compared(reference, shards, False)))


def show_power(folds: list[list[Work]], words: int, draws: np.random.Generator) -> None:
    """Resampled works of the first fold, judged together with the human ones."""
    reference = against([work for fold in folds[1:] for work in fold], words)
    human = compared(reference, folds[0], False)
    heading(["resampled works among as many human ones"])
    for share in HUMAN_SHARES:
        for generations in GENERATIONS:
            changed = [work._replace(words=resampled(work.words, generations, share, draws)) for work in folds[0]]
            found = compared(reference, changed, False)
            rates(f"generation {generations}, {share:.0%} human", alarms([*found, *human])[: len(found)])


def resampled(words: Words, generations: int, share: float, draws: np.random.Generator) -> Words:
    pool, size = words.hashes, len(words.hashes)
    kept = round(share * size)
    for _ in range(generations):
        human = draws.choice(words.hashes, kept, replace=False)
        pool = draws.permutation(np.concatenate([human, draws.choice(pool, size - kept)]))
    return of_lengths(pool, np.diff(words.offsets))


if __name__ == "__main__":
    main(sys.argv[1:])
