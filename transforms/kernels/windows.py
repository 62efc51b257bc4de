"""The window of rows that holds the least of something, in the order in which rows are read for training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WINDOW_ROWS = 1000
"""Rows of a window: some batches of training, and a small part of a row group of the default size."""


class Window(NamedTuple):
    """`part` of `whole`, in consecutive rows from `first` on."""

    first: int
    rows: int
    part: int
    whole: int

    def below(self, other: Window) -> bool:
        """Whether the share is less; a window of nothing has no share."""
        return self.whole > 0 and (other.whole == 0 or self.part * other.whole < other.part * self.whole)


class WorstWindow:
    """Rows come in batches; `worst` is the window of least share so far, or all rows where they do not fill one."""

    def __init__(self, rows: int = WINDOW_ROWS) -> None:
        self._rows = rows
        self._seen = 0
        self._parts = self._wholes = np.zeros(1, np.int64)  # running sums up to each of the last rows
        self._worst: Window | None = None

    @property
    def worst(self) -> Window | None:
        if self._worst is not None or self._seen == 0:
            return self._worst
        part, whole = int(self._parts[-1] - self._parts[0]), int(self._wholes[-1] - self._wholes[0])
        return Window(0, self._seen, part, whole)

    def add(self, amounts: NDArray[np.int64], counts: NDArray[np.bool_]) -> None:
        """The next rows, and which of them count toward the part."""
        parts = np.concatenate([self._parts, self._parts[-1] + np.cumsum(np.where(counts, amounts, 0))])
        wholes = np.concatenate([self._wholes, self._wholes[-1] + np.cumsum(amounts)])
        start = self._seen - (len(self._parts) - 1)
        self._seen += len(amounts)
        if len(parts) > self._rows:
            part = parts[self._rows :] - parts[: -self._rows]
            whole = wholes[self._rows :] - wholes[: -self._rows]
            shares = np.divide(part, whole, out=np.full(len(whole), np.inf), where=whole > 0)
            at = int(np.argmin(shares))
            found = Window(start + at, self._rows, int(part[at]), int(whole[at]))
            if self._worst is None or found.below(self._worst):
                self._worst = found
        self._parts, self._wholes = parts[-self._rows :], wholes[-self._rows :]


def worst_of(windows: dict[str, Window | None]) -> tuple[str, Window] | None:
    """The window of least share among those of several shards; the first of equals."""
    found: tuple[str, Window] | None = None
    for name, window in sorted(windows.items()):
        if window is not None and window.whole and (found is None or window.below(found[1])):
            found = name, window
    return found
