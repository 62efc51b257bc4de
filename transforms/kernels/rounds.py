"""Removal in rounds: what one partition of texts can decide from what it has heard of the others.

A text is kept once every better-ranked neighbour is known to be removed, and removed once one of them is known to be
kept. Whoever is decided tells its worse-ranked neighbours. That ends in the greedy independent set whatever the order
in which news travels, so partitions, rounds and arrival decide nothing but how long it takes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

OVERRULED = -1
"""In place of a count of better-ranked neighbours: one of them is known to be kept."""


class Texts(NamedTuple):
    """The texts of a partition, by rising name."""

    names: U64
    waiting: I64  # better-ranked neighbours not known to be removed, or OVERRULED
    decided: I32  # 0: not yet; r: kept in round r; -r: removed in round r


class Links(NamedTuple):
    """Edges at the partition of their better-ranked end, which has something to tell the other."""

    better: U64
    worse: U64

    def take(self, chosen: npt.NDArray[Any]) -> Links:
        return Links(self.better[chosen], self.worse[chosen])


class News(NamedTuple):
    """What texts are told of their better-ranked neighbours; one row a text."""

    names: U64
    removed: I64  # neighbours that are now known to be removed
    overruled: npt.NDArray[np.bool_]  # one of them is kept


def start(worse: U64, counts: I64, better: U64) -> Texts:
    """All texts with a neighbour, none decided: the `worse` ends of edges, with their number of better ones, and the
    `better` ends."""
    names = np.union1d(worse, better)
    waiting = np.zeros(len(names), np.int64)
    np.add.at(waiting, np.searchsorted(names, worse), counts)
    return Texts(names, waiting, np.zeros(len(names), np.int32))


def hear(texts: Texts, news: News) -> Texts:
    """The texts as they know more; what is told to texts that are decided, or not here, goes unheard."""
    at, known = find(texts.names, news.names)
    at, removed, overruled = at[known], news.removed[known], news.overruled[known]
    waiting = texts.waiting.copy()
    # Several partitions may tell the same text. What is overruled stays so whatever else is told.
    beaten = waiting == OVERRULED
    beaten[at[overruled]] = True
    np.subtract.at(waiting, at, removed)
    waiting[beaten] = OVERRULED
    return texts._replace(waiting=waiting)


def advance(texts: Texts, links: Links, round_number: int) -> tuple[Texts, Links, News]:
    """Everything that can be decided here in this round, the links still needed, and what other partitions must hear.

    News within the partition travel at once, so a partition that holds all texts decides all of them in one round.
    Links must start at undecided texts; each text and each link is looked at once.
    """
    source, _ = find(texts.names, links.better)
    order = np.argsort(source, kind="stable")
    links, source = links.take(order), source[order]
    target, here = find(texts.names, links.worse)
    target[~here] = -1
    offsets = np.searchsorted(source, np.arange(len(texts.names) + 1))
    waiting, decided = _decide(texts.waiting.copy(), texts.decided.copy(), offsets, target, np.int32(round_number))
    verdict = decided[source]
    tell = np.flatnonzero((verdict != 0) & ~here)
    names, number = np.unique(links.worse[tell], return_inverse=True)
    kept = verdict[tell] > 0
    told = np.bincount(number, minlength=len(names))
    overruling = np.bincount(number[kept], minlength=len(names))
    news = News(names, told - overruling, overruling > 0)
    return Texts(texts.names, waiting, decided), links.take(verdict == 0), news


@njit(nogil=True, cache=True)
def _decide(waiting: Any, decided: Any, offsets: Any, target: Any, round_number: Any) -> Any:
    """Follow decisions along links to local texts until none follows any more."""
    ready = np.empty(len(waiting), np.int64)  # a text enters once: when it is overruled or its last waiting ends
    count = 0
    for text in range(len(waiting)):
        if decided[text] == 0 and waiting[text] <= 0:
            ready[count] = text
            count += 1
    done = 0
    while done < count:
        text = ready[done]
        done += 1
        kept = waiting[text] == 0
        decided[text] = round_number if kept else -round_number
        for k in range(offsets[text], offsets[text + 1]):
            other = target[k]
            if other < 0 or waiting[other] <= 0:
                continue
            waiting[other] = OVERRULED if kept else waiting[other] - 1
            if waiting[other] <= 0:
                ready[count] = other
                count += 1
    return waiting, decided


def best_offers(worse: U64, *rank: U64) -> I64:
    """Rows of the best offer to each text of `worse`, by rising text; a smaller `rank`, first key first, is better."""
    order = np.lexsort((*rank[::-1], worse))
    if len(order) == 0:
        return order
    in_order = worse[order]
    best: I64 = order[np.r_[True, in_order[1:] != in_order[:-1]]]
    return best


def find(names: U64, wanted: U64) -> tuple[I64, npt.NDArray[np.bool_]]:
    """Where `wanted` stand among the sorted `names`, and whether they do."""
    if len(names) == 0:
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    return at, names[at] == wanted
