"""The page of a simulation: one HTML file, or the drawing alone as SVG; it repeats the numbers and loads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import UsageError
from pipeline.page import whole_page
from pipeline.simulate import CAUTION, Chain, Simulation, band_names, percent
from transforms.kernels.simulation import Generation

__all__ = ["check_place", "write_page"]

_SUFFIXES = (".html", ".svg")

_WIDTH, _HEIGHT = 300, 190  # of a panel, with its margins
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 30, 28
_COLUMNS = 3
_LEGEND = 34

Values = list[float | None]


class _Panel(NamedTuple):
    title: str
    of: Callable[[Generation], float | None]
    expected: Callable[[Simulation, Chain], Sequence[float] | None]
    is_share: bool


def check_place(output: Path) -> None:
    """Before any work: whether the page can be written there."""
    if output.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            "bad_output",
            f"--output {str(output)!r}: the name must end in {' or '.join(_SUFFIXES)}; HTML holds the drawing and all "
            "numbers, SVG the drawing alone. --json prints the numbers for programs.",
            output=str(output),
        )
    if output.is_dir() or not output.absolute().parent.is_dir():
        problem = "is a folder" if output.is_dir() else f"the folder {str(output.parent)!r} does not exist"
        raise UsageError(
            "bad_output",
            f"--output {str(output)!r}: {problem}; name a file in a folder that exists.",
            output=str(output),
        )


def write_page(found: Simulation, output: Path) -> None:
    drawing = _drawing(found)
    page = drawing if output.suffix.lower() == ".svg" else _html(found, drawing)
    output.write_text(page, encoding="utf-8")


def _band(place: int) -> Callable[[Generation], float | None]:
    return lambda generation: generation.kept[place]


def _metric(name: str) -> Callable[[Generation], float | None]:
    return lambda generation: generation.metrics.get(name)


def _kept_by_theory(place: int) -> Callable[[Simulation, Chain], Sequence[float] | None]:
    return lambda _, chain: [row[place] for row in chain.expected] if chain.expected else None


def _simpson_by_theory(found: Simulation, chain: Chain) -> Sequence[float] | None:
    return found.simpson if chain.human == 0 else None


def _no_theory(_: Simulation, __: Chain) -> None:
    return None


def _panels() -> list[_Panel]:
    times = [f"{name} times" for name in band_names()]
    return [
        _Panel("Words seen once, kept", _band(0), _kept_by_theory(1), True),
        _Panel(f"Words seen {times[1]}, kept", _band(1), _kept_by_theory(2), True),
        _Panel("All words, kept", lambda generation: generation.types_kept, _kept_by_theory(0), True),
        _Panel("distinct_2, distinct pairs of words", _metric("distinct_2"), _no_theory, False),
        _Panel("entropy_1, bits", _metric("entropy_1"), _no_theory, False),
        _Panel("simpson, two words are the same", _metric("simpson"), _simpson_by_theory, False),
    ]


def _drawing(found: Simulation) -> str:
    panels = _panels()
    rows = math.ceil(len(panels) / _COLUMNS)
    width, height = _COLUMNS * _WIDTH, _LEGEND + rows * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(found.told)}"><title>{escape(found.told)}</title><style>{_DRAWN}</style>',
        f'<rect class="paper" width="{width}" height="{height}"/>',
        *_legend(found),
    ]
    for place, panel in enumerate(panels):
        x, y = place % _COLUMNS * _WIDTH, _LEGEND + place // _COLUMNS * _HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{"".join(_panel(found, panel))}</g>')
    return "".join(parts) + "</svg>\n"


def _legend(found: Simulation) -> Iterator[str]:
    yield f'<text x="{_LEFT}" y="20">Human share</text>'
    x = _LEFT + 84
    for chain in found.chains:
        label = percent(chain.human) + (", the floor" if chain.human == found.floor else "")
        yield f'<path class="line" stroke="{_color(chain)}" d="M{x} 16h18"/><text x="{x + 23}" y="20">{label}</text>'
        x += 23 + 7 * len(label) + 16
    if found.params.order == 1:
        yield f'<path class="theory" d="M{x} 16h18"/><text x="{x + 23}" y="20">by theory</text>'


def _color(chain: Chain) -> str:
    """From violet without human text over blue to green with nothing else: told apart by colour-blind readers, too."""
    return f"hsl({285 - round(165 * float(chain.human))} 55% 47%)"


def _panel(found: Simulation, panel: _Panel) -> Iterator[str]:
    lines = [[panel.of(generation) for generation in chain.generations] for chain in found.chains]
    expected = [panel.expected(found, chain) for chain in found.chains]
    low, high = _range(panel, [value for line in [*lines, *(e for e in expected if e)] for value in line])
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    last = found.params.generations

    def point(generation: int, value: float) -> str:
        x = _LEFT + (right - _LEFT) * generation / last
        y = bottom - (bottom - _TOP) * (value - low) / (high - low)
        return f"{x:.1f} {y:.1f}"

    def path(values: Sequence[float | None]) -> str:
        known = [(place, value) for place, value in enumerate(values) if value is not None and not math.isnan(value)]
        return "M" + "L".join(point(place, value) for place, value in known) if known else ""

    yield f'<text class="title" x="{_LEFT}" y="18">{escape(panel.title)}</text>'
    for step in range(5):
        value = low + (high - low) * step / 4
        y = bottom - (bottom - _TOP) * step / 4
        told = f"{100 * value:.0f}%" if panel.is_share else f"{value:.3g}"
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>'
        yield f'<text class="tick" text-anchor="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{told}</text>'
    for generation in sorted({round(last * step / 5) for step in range(6)}):
        x = _LEFT + (right - _LEFT) * generation / last
        yield f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{bottom + 16}">{generation}</text>'
    for chain, line, theory in zip(found.chains, lines, expected, strict=True):
        name = f"human share {percent(chain.human)}"
        if theory:
            yield f'<path class="theory" d="{path(theory)}"><title>{name}, by theory</title></path>'
        yield f'<path class="line" stroke="{_color(chain)}" d="{path(line)}"><title>{name}</title></path>'


def _range(panel: _Panel, values: Sequence[float | None]) -> tuple[float, float]:
    if panel.is_share:
        return 0.0, 1.0
    known = [value for value in values if value is not None]
    if not known or min(known) == max(known):
        middle = known[0] if known else 0.0
        return middle - 1, middle + 1
    margin = (max(known) - min(known)) / 20
    return min(known) - margin, max(known) + margin


def _html(found: Simulation, drawing: str) -> str:
    last = found.params.generations
    told = [chain for chain in found.chains if chain.human == found.floor or chain is found.chains[0]]
    lead = [f"{_told_kept(chain)} at a human share of {percent(chain.human)}" for chain in told]
    facts = [
        (f"{found.words:,}", "words a generation"),
        (f"{found.documents:,}", "human documents"),
        (f"{found.available:,}", "verified words in the index"),
        (str(found.params.order), "order of the model"),
        (str(found.seed), "seed"),
    ]
    parts = [
        "<header><h1>Simulation: models trained on the text of models</h1>",
        f"<p class=lead>Of the words seen once, after {last} generations: {escape('; '.join(lead))}</p>",
        "<ul class=facts>" + "".join(f"<li><b>{n}</b> {what}</li>" for n, what in facts) + "</ul></header>",
        f"<p>{escape(found.told)}</p><figure>{drawing}</figure><p class=caution>{escape(CAUTION)}</p>",
        *(f"<p class=caution>Note: {escape(note)}</p>" for note in found.notes),
        "<section><h2>The numbers</h2>",
        *(_table(found, panel) for panel in _panels()),
        "</section>",
    ]
    return whole_page("anchormix simulation", _STYLE, "\n".join(parts))


def _told_kept(chain: Chain) -> str:
    once = chain.last.kept[0]
    return "none there were" if once is None else f"{100 * once:.1f}% kept"


def _table(found: Simulation, panel: _Panel) -> str:
    columns: list[tuple[str, Values]] = []
    for chain in found.chains:
        columns.append((percent(chain.human), [panel.of(generation) for generation in chain.generations]))
        expected = panel.expected(found, chain)
        if expected:
            columns.append(("by theory", list(expected)))
    head = "".join(f"<th class=n>{escape(name)}</th>" for name, _ in columns)
    rows = []
    for number in range(found.params.generations + 1):
        cells = "".join(f"<td class=n>{_number(panel, line[number])}</td>" for _, line in columns)
        rows.append(f"<tr><td>{number}</td>{cells}</tr>")
    return (
        f"<h3>{escape(panel.title)}</h3><div class=wide><table><thead><tr><th>generation</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _number(panel: _Panel, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{100 * value:.1f}%" if panel.is_share else f"{value:.5g}"


_DRAWN = """
svg { --ink: #1d2125; --soft: #667079; --line: #e4e7ea; --paper: #fff; }
@media (prefers-color-scheme: dark) { svg { --ink: #e4e7ea; --soft: #98a1a9; --line: #343a40; --paper: #16191c; } }
text { fill: var(--ink); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.title { font-weight: 600; }
.tick { fill: var(--soft); font-size: 10.5px; }
.paper { fill: var(--paper); }
.grid { stroke: var(--line); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.theory { fill: none; stroke: var(--ink); stroke-width: 1; stroke-dasharray: 2 3; }
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2125; --soft: #667079; --line: #dfe3e6; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #98a1a9; --line: #343a40; --paper: #16191c; } }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 64rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 1rem; font-weight: 600; color: var(--soft); }
.lead { margin: .2rem 0 1rem; font-size: 1.6rem; line-height: 1.25; font-weight: 650; }
h2 { margin: 2.5rem 0 .6rem; font-size: 1.15rem; }
h3 { margin: 1.4rem 0 .4rem; font-size: .95rem; color: var(--soft); font-weight: 600; }
.facts { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: 0 0 1.2rem; padding: 0; list-style: none; }
.caution { color: var(--soft); }
figure { margin: 1.5rem 0; overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 40rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem 1.1rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
"""
