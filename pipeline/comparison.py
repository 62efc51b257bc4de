"""Two texts, one above the other: their beginnings, what differs marked, and nothing that a terminal would obey."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

__all__ = ["Comparison", "Excerpt", "compare", "excerpt", "printable"]

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"(?:(?![{_UNSPACED}])\w)+|\s+|.", re.S)
"""Words, blanks, and everything else by the character, scripts without spaces included."""

_AHEAD = 3
"""Times the shown length that is compared: what a word more at the beginning pushes out is not what differs."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a text, and the spans in it that the other text does not have."""

    text: str
    differs: tuple[Span, ...] = ()
    more: bool = False  # whether the text goes on

    def marked(self, opening: str, closing: str) -> str:
        """For people: differing spans between the marks, control characters escaped."""
        shown, done = [], 0
        for start, end in self.differs:
            shown += [printable(self.text[done:start]), opening, printable(self.text[start:end]), closing]
            done = end
        return "".join([*shown, printable(self.text[done:]), " ..." if self.more else ""])


@dataclass(frozen=True)
class Comparison:
    """The beginnings of two texts; and where these are the same, the place where the texts part."""

    left: Excerpt
    right: Excerpt
    same: int  # characters that both begin with
    later: tuple[Excerpt, Excerpt] | None = None


def compare(left: str, right: str, width: int) -> Comparison:
    """`width` is the number of characters shown of each."""
    same = _same_characters(left, right)
    beginnings = _pair(left, right, 0, width)
    parted = same < len(left) or same < len(right)
    if not parted or any(part.differs for part in beginnings):
        return Comparison(*beginnings, same)
    return Comparison(*beginnings, same, _pair(left, right, max(0, same - width // 4), width))


def _same_characters(left: str, right: str) -> int:
    """How many characters both begin with, by halving: comparing slices is much faster than walking."""
    same, beyond = 0, min(len(left), len(right)) + 1
    while beyond - same > 1:
        middle = (same + beyond) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            beyond = middle
    return same


def excerpt(text: str, width: int) -> Excerpt:
    return Excerpt(text[:width], more=len(text) > width)


def printable(text: str) -> str:
    """The text with every character escaped that does not print: controls, line ends, direction marks, odd blanks."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _pair(left: str, right: str, start: int, width: int) -> tuple[Excerpt, Excerpt]:
    """Both texts from one position on."""
    ahead = start + _AHEAD * width
    a, b = _TOKEN.findall(left[start:ahead]), _TOKEN.findall(right[start:ahead])
    steps = [step for step in SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if step[0] != "equal"]
    return (
        _excerpt(left, start, width, a, [(first, last) for _, first, last, _, _ in steps]),
        _excerpt(right, start, width, b, [(first, last) for _, _, _, first, last in steps]),
    )


def _excerpt(text: str, start: int, width: int, tokens: Sequence[str], differing: Sequence[Span]) -> Excerpt:
    shown = text[start : start + width]
    ends = [0]
    for token in tokens:
        ends.append(ends[-1] + len(token))
    spans = ((ends[first], min(ends[last], len(shown))) for first, last in differing if first < last)
    return Excerpt(shown, tuple((a, b) for a, b in spans if a < b), start + width < len(text))
