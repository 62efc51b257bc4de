"""`anchormix simulate`: what word models that learn from their own text keep of the verified human text."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from textwrap import wrap
from typing import Any

from pipeline.config import Config
from pipeline.errors import UsageError
from pipeline.index import Index
from pipeline.inspection import Inspection
from pipeline.layers import IndexBuilder
from pipeline.outcome import Outcome
from pipeline.progress import make_progress
from pipeline.submit import make_runner
from pipeline.verified_text import read_verified_text
from transforms.kernels.simulation import (
    BANDS,
    Generation,
    Pool,
    SimulationParams,
    expected_kept,
    expected_simpson,
    simulate,
)

__all__ = ["CAUTION", "Chain", "Simulation", "Taken", "band_names", "percent", "simulate_config"]

DEFAULT_SHARES = "0,0.1,0.3,0.5,0.7"
MOST_SHARES = 12
FEW_WORDS = 20_000
"""Below, so few words are rare that chance moves what is kept of them by a percent and more."""

_SHARE = re.compile(r"\d{1,9}(\.\d{1,9})?|\.\d{1,9}|\d{1,9}/0*[1-9]\d{0,8}", re.ASCII)

_SHOWN = ("entropy_1", "simpson", "distinct_2", "distinct_4")
_WIDTH = 110
_PLOT_HEIGHT, _PLOT_WIDTH = 11, 60
_MOST_COLUMNS, _LABEL_WIDTH = 30, 4
_MARKS = "ox+*#@&=~^sv"

MODELLED = (
    "Generation 0 is {documents} verified human documents, {words} words. Each later generation is a training text of "
    "as many words: the human share is documents drawn from those, anew each time and each one once at most; the rest "
    "is written by a model of {model} that was trained on the generation before."
)
CAUTION = (
    "This is a toy model: neither a forecast nor a bound. A model that generalises may keep more than one that counts "
    "words; one that prefers likely words, or is asked for uniform text, may keep less."
)


@dataclass(frozen=True)
class Chain:
    """The generations of one human share; for order 1 what theory expects of each, of all words and by band."""

    human: Fraction
    generations: tuple[Generation, ...]
    expected: tuple[tuple[float, ...], ...] | None

    @property
    def last(self) -> Generation:
        return self.generations[-1]


@dataclass(frozen=True)
class Simulation:
    chains: tuple[Chain, ...]
    params: SimulationParams
    seed: int
    words: int
    """Of each training text."""
    documents: int
    available: int
    """Words of all verified text that the index holds."""
    languages: tuple[str, ...]
    """That the verified text says it is in."""
    floor: Fraction
    simpson: tuple[float, ...] | None
    """What theory expects without human text, for order 1."""

    @property
    def told(self) -> str:
        size = self.params.order
        model = "single words" if size == 1 else f"{size}-word sequences with back-off"
        return MODELLED.format(documents=f"{self.documents:,}", words=f"{self.words:,}", model=model)

    @property
    def notes(self) -> list[str]:
        """What makes these numbers mean less."""
        notes = []
        if self.words < FEW_WORDS:
            notes.append(f"{self.words:,} words are few; another --seed shows how much chance moves these numbers.")
        if len(self.languages) > 1:
            some = ", ".join(self.languages[:5]) + (" ..." if len(self.languages) > 5 else "")
            notes.append(
                f"the text is in {len(self.languages)} languages ({some}). One model of several drifts between them, "
                "and loses more; --language looks at one."
            )
        return notes

    def to_json(self) -> dict[str, Any]:
        return {
            "words": self.words,
            "documents": self.documents,
            "verified_words": self.available,
            "languages": list(self.languages),
            "order": self.params.order,
            "seed": self.seed,
            "floor": str(self.floor),
            "notes": self.notes,
            "chains": [
                {"human": str(chain.human), "generations": list(self._generations(chain))} for chain in self.chains
            ],
        }

    def _generations(self, chain: Chain) -> Iterator[dict[str, Any]]:
        names = ("all", *band_names())
        for place, generation in enumerate(chain.generations):
            kept = dict(zip(names, (generation.types_kept, *generation.kept), strict=True))
            told: dict[str, Any] = {"generation": generation.number, "kept": kept, **generation.metrics}
            if chain.expected is not None:
                values = (None if math.isnan(value) else round(value, 10) for value in chain.expected[place])
                told["expected"] = {"kept": dict(zip(names, values, strict=True))}
                if self.simpson and chain.human == 0:
                    told["expected"]["simpson"] = self.simpson[place]
            yield told


@dataclass(frozen=True)
class Taken:
    """Which of the verified human text is taken."""

    words: int
    """At most."""
    source: str | None
    language: str | None


def simulate_config(
    config: Config, shares: str | None, params: SimulationParams, taken: Taken, seed: int, output: Path | None
) -> Outcome:
    """Run the chains on the text of a standing index; exit 2 where there is none, or none of it is verified."""
    from pipeline.simulate_page import check_place, write_page

    floor = config.mix.human_floor
    chosen = parse_shares(shares) if shares is not None else sorted({*parse_shares(DEFAULT_SHARES), floor})
    if output is not None:
        check_place(output)
    builder = IndexBuilder(config, Index(config.index), make_runner((), make_progress(quiet=True)), build=False)
    with builder.working():
        key = builder.bring_up_to_date().fates.key
        inspection = Inspection.of(builder.index, key)
        assert inspection is not None, "a layer that is fresh stands"
        human = read_verified_text(inspection, taken.words, seed, taken.source, taken.language)
    pool = Pool.of(human.words)

    def chain(share: Fraction) -> Chain:
        expected = tuple(expected_kept(pool, share, params.generations)) if params.order == 1 else None
        return Chain(share, tuple(simulate(pool, share, params, seed)), expected)

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # kernels release the GIL
        chains = tuple(threads.map(chain, chosen))
    simpson = tuple(expected_simpson(pool, params.generations)) if params.order == 1 else None
    of_text = pool.words, pool.documents, human.available, human.languages
    found = Simulation(chains, params, seed, *of_text, floor, simpson)
    text = "\n".join(_lines(found))
    if output is not None:
        write_page(found, output)
        text += f"\n\nwrote {output}"
    totals = {
        "words": found.words,
        "documents": found.documents,
        "verified_words": found.available,
        "verified_documents": human.documents,
        "generations": params.generations,
    }
    return Outcome(text, output=str(output) if output else None, totals=totals, details={"simulation": found.to_json()})


def band_names() -> list[str]:
    """How often the words of each band occur in the human text."""
    return [
        f"{least}+" if most is None else str(least) if least == most else f"{least}-{most}" for least, most in BANDS
    ]


def percent(share: Fraction) -> str:
    return f"{float(100 * share):.4g}%"


def parse_shares(text: str) -> list[Fraction]:
    """Exact shares from a list such as 0,0.1,1/3, ascending, each one once."""
    found = set()
    for part in map(str.strip, text.split(",")):
        if not _SHARE.fullmatch(part):
            raise _bad_shares(text, f"{part!r} is no share")
        if Fraction(part) > 1:
            raise _bad_shares(text, f"{part!r} is above 1")
        found.add(Fraction(part))
    if len(found) > MOST_SHARES:
        raise _bad_shares(text, f"these are {len(found)}")
    return sorted(found)


def _bad_shares(text: str, problem: str) -> UsageError:
    return UsageError(
        "bad_shares",
        f"--human {text!r}: {problem}; valid are up to {MOST_SHARES} shares from 0 to 1 with commas between them, "
        f"decimals of at most 9 digits or fractions, such as {DEFAULT_SHARES} or 0,1/3.",
        human=text,
    )


def _lines(found: Simulation) -> Iterator[str]:
    yield from wrap(found.told, _WIDTH)
    yield from (line for note in found.notes for line in wrap(f"Note: {note}", _WIDTH))
    yield ""
    last = found.params.generations
    yield f"Generation {last}: words of the human text that are still there, by how often they occurred in it"
    yield ""
    yield from _aligned(_table(found))
    yield ""
    yield "Words seen once in the human text, kept by generation"
    yield ""
    once = {percent(chain.human): [generation.kept[0] for generation in chain.generations] for chain in found.chains}
    yield from plot(once)
    yield ""
    yield from _summary(found)
    yield from wrap(CAUTION, _WIDTH)


def _table(found: Simulation) -> Iterator[list[str]]:
    yield ["human share", "all", *band_names(), *_SHOWN]
    first = found.chains[0].generations[0]
    yield ["human text", *_kept((first.types_kept, *first.kept)), *(f"{first.metrics[name]:.4g}" for name in _SHOWN)]
    for chain in found.chains:
        last = chain.last
        values = (f"{last.metrics[name]:.4g}" if name in last.metrics else "-" for name in _SHOWN)
        yield [percent(chain.human), *_kept((last.types_kept, *last.kept)), *values]
        if chain.expected is not None:
            simpson = f"{found.simpson[-1]:.4g}" if found.simpson and chain.human == 0 else ""
            yield ["  by theory", *_kept(chain.expected[-1]), "", simpson, "", ""]


def _kept(shares: Sequence[float | None]) -> list[str]:
    return ["-" if share is None or math.isnan(share) else f"{100 * share:.1f}%" for share in shares]


def _aligned(rows: Iterator[list[str]]) -> Iterator[str]:
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *right]).rstrip()


def plot(lines: dict[str, list[float | None]]) -> Iterator[str]:
    """Shares over generations in characters, from 0 to 100%; where lines meet, the last one is seen."""
    last = max(map(len, lines.values())) - 1
    stride = 1 + last // _MOST_COLUMNS
    steps = range(0, last + 1, stride)
    width = max(2, min(8, _PLOT_WIDTH // max(1, len(steps) - 1)))
    across = width * (len(steps) - 1) + 1
    rows = [[" "] * across for _ in range(_PLOT_HEIGHT)]
    ends: dict[int, list[str]] = {}
    for mark, (name, line) in zip(_MARKS, lines.items(), strict=False):
        heights = [None if share is None else round((_PLOT_HEIGHT - 1) * (1 - share)) for share in line[::stride]]
        for step, height in enumerate(heights):
            if height is not None:
                rows[height][width * step] = mark
        if heights[-1] is not None:
            ends.setdefault(heights[-1], []).append(f"{mark} {name}")
    for height, row in enumerate(rows):
        scale = f"{100 * (_PLOT_HEIGHT - 1 - height) // (_PLOT_HEIGHT - 1)}%" if height % 2 == 0 else ""
        yield f"{scale:>5} |{''.join(row)}  {', '.join(ends.get(height, ()))}".rstrip()
    yield " " * 6 + "+" + "-" * across
    labelled = -(-_LABEL_WIDTH // width)
    numbers = "".join(f"{step:<{width * labelled}}" for step in steps[::labelled])
    yield " " * 7 + numbers.rstrip() + "  generation"


def _summary(found: Simulation) -> Iterator[str]:
    """One sentence for each share that a floor could be."""
    last = found.params.generations
    for chain in found.chains:
        (once,) = _kept([chain.last.kept[0]])
        of = " (the floor of this config)" if chain.human == found.floor else ""
        yield (
            f"At a human share of {percent(chain.human)}{of} the simulated chain keeps {once} of the words seen once "
            f"after {_count(last)}."
        )


def _count(generations: int) -> str:
    return "1 generation" if generations == 1 else f"{generations} generations"
