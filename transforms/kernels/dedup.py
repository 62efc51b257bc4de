"""Duplicates without Beam: exact groups, candidate pairs, exact Jaccard, and which documents stay.

Near-duplicate removal is the greedy independent set by rank: walk documents from best to worst and keep each one that
has no kept neighbour. That set is unique, so every algorithm and every machine finds the same one, and every removed
document has a kept neighbour that justifies its removal: nothing is removed through a chain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from transforms.kernels.copying import copy_items

PIVOTS = 32
"""Members of a bucket that are compared with all members after them. Spread evenly over the bucket they find .99 of
the pairs in 20,000 pages of one template, at a cost linear in the bucket; buckets up to PIVOTS + 1 are exhaustive."""

MOST_PAIRS = 2_000_000
"""Candidate pairs that are held at a time: a bucket of a million has sixteen million."""

MOST_REFERENCE_PAIRS = 2_000_000
"""Pairs of a bucket that its reference documents add. A pivot that stays may speak for all that resemble it; which of
the reference resembles a document nobody else can say, so as many of them as this allows, and PIVOTS at least, are
compared with every new document."""

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


class ExactGroups(NamedTuple):
    """Documents grouped by text. The first document by address stands for the text in everything that follows."""

    first: npt.NDArray[np.int64]  # rows of the input: one per distinct text
    copies: npt.NDArray[np.int64]  # rows that repeat an earlier one
    copy_of: npt.NDArray[np.int64]  # the row that each of `copies` repeats


def exact_groups(digest_high: U64, digest_low: U64, documents: U64) -> ExactGroups:
    order = np.lexsort((documents, digest_low, digest_high))
    if len(order) == 0:
        empty = np.empty(0, np.int64)
        return ExactGroups(empty, empty, empty)
    high, low = digest_high[order], digest_low[order]
    is_first = np.r_[True, (high[1:] != high[:-1]) | (low[1:] != low[:-1])]
    leaders = order[is_first]
    leader_of = leaders[np.cumsum(is_first) - 1]
    return ExactGroups(leaders, order[~is_first], leader_of[~is_first])


def same_texts(digest_high: U64, digest_low: U64, ours: I64, others: I64) -> tuple[I64, I64]:
    """Rows of `ours`, whose texts are distinct, beside rows of `others` that have the same text."""
    rows = np.concatenate([ours, others])
    is_other = np.arange(len(rows)) >= len(ours)
    order = np.lexsort((is_other, digest_low[rows], digest_high[rows]))
    rows, is_other = rows[order], is_other[order]
    if len(rows) == 0:
        return rows, rows
    high, low = digest_high[rows], digest_low[rows]
    text = np.cumsum(np.r_[False, (high[1:] != high[:-1]) | (low[1:] != low[:-1])])
    ours_of_text = np.full(text[-1] + 1, -1, np.int64)
    ours_of_text[text[~is_other]] = rows[~is_other]
    beside = ours_of_text[text]
    found = is_other & (beside >= 0)
    return beside[found], rows[found]


NEW, ANCHOR, REFERENCE = 0, 1, 2
"""What a record is of: a new document, one that new documents are compared with, or such a one that is held out."""


class Banded(NamedTuple):
    """Records of documents with one of their band hashes; those with equal hashes form a bucket."""

    band: U64
    length: npt.NDArray[np.uint8]
    digest: U64
    documents: U64
    anchor: npt.NDArray[np.uint8]
    """NEW, ANCHOR or REFERENCE. Anchors are settled among themselves; one that has the text of a new document is known
    without its bands."""

    def take(self, rows: npt.NDArray[Any]) -> Banded:
        return Banded(*(column[rows] for column in self))


def candidate_pairs(records: Banded, most: int = MOST_PAIRS) -> Iterator[tuple[U64, U64]]:
    """Pairs of documents that share a bucket, each with the lower address first, at most some number at a time.

    Buckets are ordered by length, digest and address: from facts alone, so that pivots depend on content only. A pair
    of a pivot and a document of the reference may come up twice.
    """
    shared = _sharing(records.band)
    order = np.lexsort(tuple(column[shared] for column in (records.documents, *records[2::-1])))
    records = records.take(shared[order])
    place = np.zeros(3, np.int64)
    while place[0] < len(records.band):
        left, right = _next_pairs(*records, PIVOTS, place, most)
        yield np.minimum(left, right), np.maximum(left, right)


def pairs_with(pivots: Banded, records: Banded) -> tuple[U64, U64]:
    """Each of `records` with each of `pivots` of its bucket, the lower address first; none with itself.

    Of two pivots both orders come up, as they do where the same records are asked for twice: pairs may repeat.
    """
    order = np.argsort(pivots.band, kind="stable")
    pivots = pivots.take(order)
    first = np.searchsorted(pivots.band, records.band, side="left")
    count = np.searchsorted(pivots.band, records.band, side="right") - first
    row = np.repeat(np.arange(len(count)), count)
    pivot = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + first[row]
    one, other = pivots.anchor[pivot] != NEW, records.anchor[row] != NEW
    settled = (one & other) | ((one | other) & (pivots.digest[pivot] == records.digest[row]))
    left, right = pivots.documents[pivot], records.documents[row]
    found = ~settled & (left != right)
    left, right = left[found], right[found]
    return np.minimum(left, right), np.maximum(left, right)


def smallest_digests(records: Banded, most: int = PIVOTS) -> Banded:
    """Of each bucket the members with the smallest digests: pivots that can be chosen without holding the bucket."""
    records = records.take(np.lexsort((records.documents, records.digest, records.band)))
    number = np.arange(len(records.band)) - np.searchsorted(records.band, records.band)  # within the bucket
    return records.take(number < most)


def _sharing(band: U64) -> I64:
    """Records whose band hash occurs more than once: few, so that only they need a full ordering."""
    order = np.argsort(band)
    in_order = band[order]
    same = in_order[1:] == in_order[:-1]
    found: I64 = order[np.r_[False, same] | np.r_[same, False]] if len(order) else order
    return found


def distinct_pairs(left: U64, right: U64) -> tuple[U64, U64]:
    """Each pair once, sorted."""
    if len(left) == 0:
        return left, right
    order = np.lexsort((right, left))
    left, right = left[order], right[order]
    fresh = np.r_[True, (left[1:] != left[:-1]) | (right[1:] != right[:-1])]
    return left[fresh], right[fresh]


@njit(nogil=True, cache=True)
def _next_pairs(
    band: Any, length: Any, digest: Any, documents: Any, anchor: Any, pivots: int, place: Any, most: int
) -> Any:
    """The next pairs from `place` on, which is moved: start of the bucket, number of the pivot, members it has met.

    Pivots of the reference follow the others, and are numbered after them.
    """
    left = np.empty(most, np.uint64)
    right = np.empty(most, np.uint64)
    pairs = 0
    start, k, met = place[0], place[1], place[2]
    none = np.empty(0, np.int64)
    while start < len(band):
        end = _bucket_end(band, start)
        count = min(pivots, end - start - 1)
        exhaustive = count == end - start - 1
        held_out = none if exhaustive else _reference_pivots(anchor, start, end, pivots)
        while k < count + len(held_out):
            pivot = _pivot(start, end, count, k) if k < count else held_out[k - count]
            first = pivot + 1 if k < count else start
            for other in range(first + met, end):
                if pairs == most:
                    place[0], place[1], place[2] = start, k, other - first
                    return left, right
                if not _is_settled(anchor[pivot], anchor[other], digest[pivot] == digest[other]):
                    left[pairs] = documents[pivot]
                    right[pairs] = documents[other]
                    pairs += 1
            met = 0
            k += 1
        k = 0
        start = end
    place[0], place[1], place[2] = start, 0, 0
    return left[:pairs].copy(), right[:pairs].copy()


@njit(nogil=True, cache=True)
def _reference_pivots(anchor: Any, start: int, end: int, pivots: int) -> Any:
    """Members of the reference that meet all new ones, spread evenly."""
    members = 0
    for i in range(start, end):
        members += anchor[i] == REFERENCE
    chosen = min(members, max(pivots, MOST_REFERENCE_PAIRS // (end - start)))
    found = np.empty(chosen, np.int64)
    number, met = 0, 0
    for i in range(start, end):
        if anchor[i] == REFERENCE:
            if number < chosen and met == number * members // chosen:
                found[number] = i
                number += 1
            met += 1
    return found


@njit(nogil=True, cache=True)
def _is_settled(one: int, other: int, same_text: bool) -> bool:
    """Whether a pair needs no verification: two anchors, or one that is known to have the text of the other."""
    return (one != NEW and other != NEW) or (same_text and (one != NEW or other != NEW))


@njit(nogil=True, cache=True)
def _bucket_end(band: Any, start: int) -> int:
    end = start + 1
    while end < len(band) and band[end] == band[start]:
        end += 1
    return end


@njit(nogil=True, cache=True)
def _pivot(start: int, end: int, count: int, k: int) -> int:
    """The k-th of `count` pivots, spread from the first member to the last but one; no two are the same."""
    return start if count < 2 else start + (end - start - 2) * k // (count - 1)


def shared_and_union(left: I64, right: I64, hashes: U64, offsets: I64) -> tuple[I64, I64]:
    """Sizes of intersection and union of pairs of sorted sets: Jaccard as two integers, so thresholds are exact."""
    shared: I64 = _intersections(left, right, hashes, offsets)
    sizes = np.diff(offsets)
    return shared, sizes[left] + sizes[right] - shared


@njit(nogil=True, cache=True)
def _intersections(left: Any, right: Any, hashes: Any, offsets: Any) -> Any:
    shared = np.zeros(len(left), np.int64)
    for pair in range(len(left)):
        i, i_end = offsets[left[pair]], offsets[left[pair] + 1]
        j, j_end = offsets[right[pair]], offsets[right[pair] + 1]
        count = 0
        while i < i_end and j < j_end:
            a = hashes[i]
            b = hashes[j]
            count += a == b
            i += a <= b
            j += b <= a
        shared[pair] = count
    return shared


def take_sets(rows: I64, hashes: U64, offsets: I64) -> tuple[U64, I64]:
    """The sets of `rows`, packed again: hashes and the size of each set."""
    sizes = offsets[rows + 1] - offsets[rows]
    taken = np.empty(sizes.sum(), np.uint64)
    _copy_ranges(offsets[rows], sizes, hashes, taken)
    return taken, sizes


@njit(nogil=True, cache=True)
def _copy_ranges(starts: Any, sizes: Any, hashes: Any, taken: Any) -> None:
    filled = 0
    for k in range(len(starts)):
        copy_items(taken, filled, hashes, starts[k], sizes[k])
        filled += sizes[k]


class Removal(NamedTuple):
    """Per document in rank order: whether it stays, and for a removed one the edge to its best kept neighbour."""

    kept: npt.NDArray[np.bool_]
    witness: npt.NDArray[np.int64]  # rank position of the kept neighbour; -1 for kept documents
    edge: npt.NDArray[np.int64]  # the input edge between the two; -1 for kept documents


def greedy_removal(size: int, left: I64, right: I64) -> Removal:
    """The greedy independent set over `size` documents numbered by rank (0 is best): linear in documents and edges."""
    return Removal(*_remove(size, left, right))


@njit(nogil=True, cache=True)
def _remove(size: int, left: Any, right: Any) -> Any:
    # Edges by their worse end, in the order in which they came.
    offsets = np.zeros(size + 1, np.int64)
    for e in range(len(left)):
        offsets[max(left[e], right[e]) + 1] += 1
    for document in range(size):
        offsets[document + 1] += offsets[document]
    free = offsets[:-1].copy()
    better = np.empty(len(left), np.int64)
    edges = np.empty(len(left), np.int64)
    for e in range(len(left)):
        worse = max(left[e], right[e])
        better[free[worse]] = min(left[e], right[e])
        edges[free[worse]] = e
        free[worse] += 1
    kept = np.ones(size, np.bool_)
    witness = np.full(size, -1, np.int64)
    edge = np.full(size, -1, np.int64)
    for document in range(size):
        for k in range(offsets[document], offsets[document + 1]):
            if kept[better[k]] and (kept[document] or better[k] < witness[document]):
                kept[document] = False
                witness[document] = better[k]
                edge[document] = edges[k]
    return kept, witness, edge


def standing(origin: int, keep_class: npt.NDArray[np.uint8], priority: int, length: npt.NDArray[np.uint8]) -> U64:
    """The rank of documents before their digest counts, as one number; smaller is better.

    First those of an earlier index that stay before any other (origin 2); then the keep class, of equals those of an
    earlier index (1 or 2); then the priority of the source (an int32; higher stays), then log2 of length (longer
    stays).
    """
    fixed = (origin != 2) << 49 | (origin == 0) << 40 | ((1 << 31) - 1 - priority) << 8
    return np.uint64(fixed) + (keep_class.astype(np.uint64) << np.uint64(41)) + (np.uint64(255) - length)


def is_earlier(standing: U64) -> npt.NDArray[np.bool_]:
    """Whose documents are those of an earlier index."""
    return (standing & np.uint64(1 << 40)) == 0


def log2_length(words: I64) -> npt.NDArray[np.uint8]:
    """Floor of log2, 0 for nothing: coarse on purpose, so that chains of slowly growing documents end quickly."""
    return np.frexp(np.maximum(words, 0).astype(np.float64))[1].astype(np.uint8)
