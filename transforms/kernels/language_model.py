"""A model of word n-grams with back-off, trained in linear time and sampled from in constant memory.

    model = train(text, order)
    more = sample(model, words, key)

The next word is drawn by interpolated Witten-Bell smoothing. With h the last `order - 1` words, c(h) how often they
occur in the training text and t(h) how many different words follow them there,

    P(w | h) = c(hw) / (c(h) + t(h)) + t(h) / (c(h) + t(h)) P(w | h without its first word)

and P(w) = c(w) / all. It is drawn as it reads: one of the c(h) places where h occurs, with the word that follows
there; or, t(h) times out of c(h) + t(h), the same once more for fewer words. No probability is ever stored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, uint64
from numpy.typing import NDArray

from transforms.kernels.hashing import mix64

__all__ = ["BOUNDARY", "MOST_ORDER", "Ids", "LanguageModel", "find", "sample", "train"]

Ids = NDArray[np.int32]

BOUNDARY = 0
"""Stands before, between and after documents; words are numbered from 1. No context reaches beyond one."""
MOST_ORDER = 5

_STEP = np.uint64(0x9E3779B97F4A7C15)
_TO_UNIT = 2.0**-53
_UPPER_53 = np.uint64(11)


class LanguageModel(NamedTuple):
    """Where in the training text each context occurs. A context of k words is the number of a k-gram, 0 at a boundary.

    `grams[place, k - 1]` is the number of the k-gram that ends at a place, so its first column is the text. The places
    where context c of k words has just ended, put in order of the word there, are `places[k, starts[k, c] :
    starts[k, c + 1]]`, and `followers[k, c]` different words stand there.
    """

    grams: Ids
    places: Ids
    starts: Ids
    followers: Ids

    @property
    def order(self) -> int:
        return len(self.places)


def train(text: Ids, order: int) -> LanguageModel:
    """`text` begins and ends with a boundary; a boundary follows what is not empty."""
    if not 1 <= order <= MOST_ORDER:
        raise ValueError(f"order is {order}; it must be from 1 to {MOST_ORDER}")
    if len(text) < 3 or text[0] != BOUNDARY or text[-1] != BOUNDARY:
        raise ValueError("a training text has one word at least, and a boundary before and after its documents")
    length, n_types = len(text), int(text.max()) + 1
    most_contexts = max(length, n_types)
    model = LanguageModel(
        grams=np.zeros((length, order), np.int32),
        places=np.empty((order, length - 1), np.int32),
        starts=np.zeros((order, most_contexts + 2), np.int32),
        followers=np.zeros((order, most_contexts), np.int32),
    )
    by_word = np.empty(length - 1, np.int32)
    _number_grams(text, by_word, *model)
    return model


def sample(model: LanguageModel, words: int, key: int) -> Ids:
    """Documents drawn from the model, of so many words together; the last one is cut. Same key, same text."""
    text = np.empty(2 * words + 1, np.int32)
    length = _draw_text(*model, words, np.uint64(key), text)
    return text[:length].copy()


@njit(nogil=True, cache=True, _nrt=False)
def _sort_places(keys: Ids, before: int, ordered: Ids, starts: Ids, sorted_places: Ids) -> None:
    """A stable counting sort of places by `keys[place - before]`; `starts` must be zeros."""
    for index in range(ordered.shape[0]):
        starts[keys[ordered[index] - before] + 2] += 1
    for key in range(2, starts.shape[0]):
        starts[key] += starts[key - 1]
    for index in range(ordered.shape[0]):
        place = ordered[index]
        key = keys[place - before] + 1
        sorted_places[starts[key]] = place
        starts[key] += 1


@njit(nogil=True, cache=True)
def _number_grams(text: Ids, by_word: Ids, grams: Ids, places: Ids, starts: Ids, followers: Ids) -> None:
    every_place = np.arange(1, text.shape[0]).astype(np.int32)
    _sort_places(text, 0, every_place, starts[0], by_word)
    starts[0, :] = 0
    for size in range(1, grams.shape[1] + 1):
        level = size - 1
        here, after = places[level], starts[level]
        if size == 1:  # one context, which is everywhere
            here[:] = by_word
            after[1:] = text.shape[0] - 1
        else:
            _sort_places(np.ascontiguousarray(grams[:, size - 2]), 1, by_word, after, here)
        number, last_word, last_context = 0, -1, -1
        for index in range(here.shape[0]):
            place = here[index]
            word = text[place]
            context = grams[place - 1, size - 2] if size > 1 else 0
            if context != last_context or word != last_word:
                followers[level, context] += 1
                number += 1
                last_word, last_context = word, context
            # Words keep their own numbers, so that they can be told from grams[:, 0].
            grams[place, level] = BOUNDARY if word == BOUNDARY else (word if size == 1 else number)


@njit(inline="always")
def find(grams: Ids, places: Ids, starts: Ids, level: int, context: int, word: int) -> int:
    """The first place where the word follows a context of `level` words, or -1."""
    low, high = starts[level, context], starts[level, context + 1]
    end = high
    while low < high:
        middle = (low + high) >> 1
        if grams[places[level, middle], 0] < word:
            low = middle + 1
        else:
            high = middle
    if low < end and grams[places[level, low], 0] == word:
        return places[level, low]
    return -1


@njit(nogil=True, cache=True)
def _draw_text(grams: Ids, places: Ids, starts: Ids, followers: Ids, words: int, key: Any, text: Ids) -> int:
    order = places.shape[0]
    contexts, following = np.zeros(order, np.int32), np.zeros(order, np.int32)  # by their size in words
    deepest = order - 1  # the largest size at which the context occurs in the training text
    state = mix64(uint64(key))
    text[0] = BOUNDARY
    length, n_words, is_start = 1, 0, True
    while n_words < words:
        level = deepest
        place = 0
        while True:
            state += _STEP
            first, after = starts[level, contexts[level]], starts[level, contexts[level] + 1]
            count = after - first
            novel = followers[level, contexts[level]] if level > 0 else 0
            drawn = np.int64((mix64(state) >> _UPPER_53) * _TO_UNIT * (count + novel))
            if drawn < count:
                place = places[level, first + drawn]
                break
            level -= 1
        word = grams[place, 0]
        if word == BOUNDARY:
            if is_start:  # there are no empty documents: drawn again
                continue
            text[length] = BOUNDARY
            length += 1
            contexts[:] = 0
            deepest, is_start = order - 1, True
            continue
        text[length] = word
        length += 1
        n_words += 1
        is_start = False
        # What ends here is known up to the size that was drawn with; longer ones may occur elsewhere in the text.
        reached = 0
        for size in range(1, order):
            if size - 1 > level:
                place = find(grams, places, starts, size - 1, contexts[size - 1], word) if size - 1 <= deepest else -1
                if place < 0:
                    break
            following[size] = grams[place, size - 1]
            reached = size
        contexts, following, deepest = following, contexts, reached
    text[length] = BOUNDARY
    return length + 1
