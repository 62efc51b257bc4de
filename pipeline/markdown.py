"""Tables and cells of the Markdown that people and hubs read; what stands in data cannot break out of its cell."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

__all__ = ["cell", "table"]

_ESCAPED = str.maketrans({"\n": " ", "\r": " ", **{sign: f"\\{sign}" for sign in "\\|`[]*"}})


def cell(text: object) -> str:
    """Text of others as text, whatever signs stand in it."""
    return html.escape(str(text), quote=False).translate(_ESCAPED)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a table, and an empty one; a word where there is nothing to list. Cells are taken as they are."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|", *lines, ""] if lines else ["None.", ""]
