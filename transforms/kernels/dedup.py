"""Duplicates without Beam: exact groups, candidate pairs, exact Jaccard, and which documents stay.

Near-duplicate removal is the greedy independent set by rank: walk documents from best to worst and keep each one that
has no kept neighbour. That set is unique, so every algorithm and every machine finds the same one, and every removed
document has a kept neighbour that justifies its removal: nothing is removed through a chain.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

PIVOTS = 32
"""Members of a bucket that are compared with all members after them. Spread evenly over the bucket they find .99 of
the pairs in 20,000 pages of one template, at a cost linear in the bucket; buckets up to PIVOTS + 1 are exhaustive."""

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


def candidate_pairs(
    band: U64, length: npt.NDArray[np.uint8], digest: U64, documents: U64, earlier: npt.NDArray[np.bool_]
) -> tuple[U64, U64]:
    """Pairs of documents that share a band hash, each with the lower address first.

    Args:
        band: band hash of each record; records with equal hashes form a bucket.
        length, digest, documents: order inside a bucket, from facts alone, so that pivots depend on content only.
        earlier: documents of earlier indexes, which are settled among themselves; one that has the text of a new
            document is known without its bands.
    """
    shared = _sharing(band)
    order = shared[np.lexsort((documents[shared], digest[shared], length[shared], band[shared]))]
    left, right = _pivot_pairs(band[order], documents[order], digest[order], earlier[order], PIVOTS)
    return np.minimum(left, right), np.maximum(left, right)


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
def _pivot_pairs(band: Any, documents: Any, digest: Any, earlier: Any, pivots: int) -> Any:
    pairs = _walk_pivots(band, documents, digest, earlier, pivots, documents[:0], documents[:0])
    left = np.empty(pairs, np.uint64)
    right = np.empty(pairs, np.uint64)
    _walk_pivots(band, documents, digest, earlier, pivots, left, right)
    return left, right


@njit(nogil=True, cache=True)
def _walk_pivots(band: Any, documents: Any, digest: Any, earlier: Any, pivots: int, left: Any, right: Any) -> int:
    """Count the pairs, and write them down where there is room for them."""
    pairs = 0
    start = 0
    while start < len(band):
        end = _bucket_end(band, start)
        count = min(pivots, end - start - 1)
        for k in range(count):
            pivot = _pivot(start, end, count, k)
            for other in range(pivot + 1, end):
                if _is_settled(earlier[pivot], earlier[other], digest[pivot] == digest[other]):
                    continue
                if len(left):
                    left[pairs] = documents[pivot]
                    right[pairs] = documents[other]
                pairs += 1
        start = end
    return pairs


@njit(nogil=True, cache=True)
def _is_settled(one_earlier: bool, other_earlier: bool, same_text: bool) -> bool:
    """Whether a pair needs no verification: both of earlier indexes, or one of them and known to have the same text."""
    return (one_earlier and other_earlier) or (same_text and (one_earlier or other_earlier))


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
    return _copy_ranges(offsets[rows], sizes, hashes), sizes


@njit(nogil=True, cache=True)
def _copy_ranges(starts: Any, sizes: Any, hashes: Any) -> Any:
    taken = np.empty(sizes.sum(), np.uint64)
    filled = 0
    for k in range(len(starts)):
        taken[filled : filled + sizes[k]] = hashes[starts[k] : starts[k] + sizes[k]]
        filled += sizes[k]
    return taken


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
