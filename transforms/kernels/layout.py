"""The order of items and the cuts between groups that hold a floor in every prefix of every group.

Two queues, verified and other, are merged; each keeps the order it came in. With h and t the verified and the whole
measure so far, and floor p/q, the credit is q*h - p*t. Three rules make a proof:

    emit     another item only if the credit stays at or above its value at the last cut, else a verified one
    pace     and only if verified text is not behind its even share, so that both are spread over the group
    cut      only where the credit lies between its value at the last cut and its total

By the first rule every prefix of a group holds the floor. By the third, what remains after a cut holds it too; so
when verified items run out the credit can only fall towards its total, which no cut has passed: nothing is stranded.
All comparisons are between products of two int64, made exactly in two 64-bit limbs.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

INT64_MAX = 2**63 - 1

Int64s = npt.NDArray[np.int64]

WINDOW_SHIFT = 4
"""A cut may fall a 16th of a group early: hundreds of candidates for one that leaves the rest its share of slack."""

SPARE_SHIFT = 3
"""Cuts that differ by less than an eighth of a group's share of the slack are as good as each other."""


class Layout(NamedTuple):
    """`order` is a permutation of the items; group g is `order[ends[g - 1]:ends[g]]`, and none is empty."""

    order: Int64s
    ends: Int64s


def arrange(
    measures: Int64s,
    human: npt.NDArray[np.bool_],
    floor: Fraction,
    target: int,
    sizes: Int64s | None = None,
    groups: int | None = None,
) -> Layout | None:
    """Order items, given in placement-key order, and cut them into groups of about `target`.

    Args:
      measures: what the floor counts, per item (tokens, bytes, or ones).
      human: whether the item counts toward the floor.
      floor: least share of human measure in every prefix of every group, between 0 and 1.
      target: size of a group, in items, or in the sum of `sizes` where they are given. Groups come out even: as
        many as `target` asks for, fewer where the floor does not allow a cut.
      groups: asks for this many groups instead of `target`: as near to it as the floor allows, never more.

    Returns:
      None when the items as a whole are below the floor; then no order holds it.
    """
    n = len(measures)
    _check(measures, human, floor, target, sizes, groups)
    if n == 0:
        return Layout(np.zeros(0, np.int64), np.zeros(0, np.int64))
    p, q = floor.numerator, floor.denominator
    if q * int(measures[human].sum()) < p * int(measures.sum()):
        return None

    size_total = n if sizes is None else int(sizes.sum())
    wanted = -(-size_total // target) if groups is None else groups
    if p == 0:
        verified, other = np.zeros(0, np.int64), np.arange(n, dtype=np.int64)
        wanted = min(wanted, n)
    else:
        verified, other = np.flatnonzero(human), np.flatnonzero(~human)
        # A group with anything in it opens with verified text.
        wanted = min(wanted, n, int(np.count_nonzero(measures[verified])))
    order = np.empty(n, np.int64)
    ends = np.empty(max(wanted, 1), np.int64)
    item_sizes = np.ones(n, np.int64) if sizes is None else sizes
    spare = _spare(int(measures[verified].sum()), int(measures.sum()), p, q, len(ends))
    made = _ratchet(measures, item_sizes, verified, other, p, q, spare, order, ends)
    return Layout(order, ends[:made].copy())


MAX_ROW_GROUP_BYTES = 1 << 30
"""Of raw text: readers hold a row group at a time."""


def refusal(ends: Int64s, sizes: Int64s, row_group: int, strict: bool) -> dict[str, Any] | None:
    """Why a shard must not be written so: a row group that readers could not hold, or grown under `strict`.

    `sizes` are the bytes of the rows in their order.
    """
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    largest = int(np.add.reduceat(sizes, starts).max())
    if largest > MAX_ROW_GROUP_BYTES:
        return {"reason": "row_group_bytes", "found": largest, "allowed": MAX_ROW_GROUP_BYTES}
    longest = int((ends - starts).max())
    if strict and longest > row_group:
        return {"reason": "row_group_grown", "found": longest, "allowed": row_group}
    return None


def _spare(human_total: int, total: int, p: int, q: int, groups: int) -> int:
    """The lead of verified text over its even share, in its measure, that SPARE_SHIFT lets a cut have."""
    if human_total == total:
        return 0
    lead = (q * human_total - p * total) * total // (q * (total - human_total))
    return min(lead // groups >> SPARE_SHIFT, INT64_MAX - human_total)


def _check(
    measures: Int64s,
    human: npt.NDArray[np.bool_],
    floor: Fraction,
    target: int,
    sizes: Int64s | None,
    groups: int | None,
) -> None:
    if not 0 <= floor <= 1:
        raise ValueError(f"floor is {floor}; a share lies between 0 and 1")
    if floor.denominator > INT64_MAX:
        raise ValueError(f"floor is {floor}; exact layout needs a denominator of at most 18 digits: round it")
    if groups is None and target < 1:
        raise ValueError(f"target is {target}; a group holds at least 1")
    if groups is not None and groups < 1:
        raise ValueError(f"groups is {groups}; ask for at least 1")
    if len(human) != len(measures) or (sizes is not None and len(sizes) != len(measures)):
        raise ValueError(
            f"measures, human and sizes have {len(measures)}, {len(human)} and "
            f"{'no' if sizes is None else len(sizes)} items; they describe the same items"
        )
    for name, values in (("measures", measures), ("sizes", sizes)):
        if values is None or len(values) == 0:
            continue
        if int(values.min()) < 0:
            raise ValueError(f"{name} holds {int(values.min())}; an item measures 0 or more")
        # The quick bound first: the exact sum of Python integers is slow and hardly ever needed.
        if int(values.max()) * len(values) > INT64_MAX and sum(values.tolist()) > INT64_MAX:
            raise ValueError(f"{name} add up to more than {INT64_MAX}; lay out fewer items at once")


@njit(nogil=True, cache=True)
def _product(a: Any, b: Any) -> Any:
    """High and low 64 bits of the product of two non-negative int64."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a_high, a_low = np.uint64(a) >> half, np.uint64(a) & mask
    b_high, b_low = np.uint64(b) >> half, np.uint64(b) & mask
    low = a_low * b_low
    middle = a_high * b_low + (low >> half)  # at most 2**63: the operands have 63 bits
    carry = a_low * b_high + (middle & mask)
    return a_high * b_high + (middle >> half) + (carry >> half), (carry << half) | (low & mask)


@njit(nogil=True, cache=True)
def _at_least(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Whether a*b >= c*d, exactly."""
    left_high, left_low = _product(a, b)
    right_high, right_low = _product(c, d)
    return left_high > right_high or (left_high == right_high and left_low >= right_low)


@njit(nogil=True, cache=True)
def _ratchet(
    measures: Any,
    sizes: Any,
    verified: Any,
    other: Any,
    p: Any,
    q: Any,
    spare: Any,
    order: Any,
    ends: Any,
) -> Any:
    """Fill `order` and `ends`, whose length is the number of groups wanted; return how many were made."""
    n, groups = len(order), len(ends)
    human_total = np.int64(0)
    openers = 0  # verified items that can still open a group
    for item in verified:
        human_total += measures[item]
        openers += measures[item] > 0
    total = np.int64(0)
    size_total = np.int64(0)
    for item in range(n):
        total += measures[item]
        size_total += sizes[item]

    other_total = total - human_total

    i = j = made = 0
    h = t = size = np.int64(0)
    cut = 0
    cut_h = cut_t = cut_size = np.int64(0)
    best = -1  # the candidate cut nearest to the even share
    best_h = best_t = best_size = np.int64(0)
    goal = (size_total + groups - 1) // groups
    for position in range(n):
        emit_other = _may_emit_other(measures, verified, other, i, j, p, q, h, t, cut_h, cut_t, human_total, total)
        if position > cut and made + 1 < groups:
            grown = size - cut_size
            window = goal >> WINDOW_SHIFT if p > 0 else 0
            may_cut = _at_least(q, human_total - h, p, total - t)
            if may_cut and grown >= goal - window and best >= 0:
                # The latest of those about least ahead of the even share. But nothing after a cut may fall below its
                # credit, or it could not be backdated: a lower credit wins always.
                human_grown = h - best_h
                other_grown = t - best_t - human_grown
                ahead = human_grown > spare and not _at_least(
                    other_grown, human_total, human_grown - spare, other_total
                )
                if not ahead or not _at_least(q, human_grown, p, t - best_t):
                    best, best_h, best_t, best_size = position, h, t, size
            elif may_cut and grown >= goal - window:
                best, best_h, best_t, best_size = position, h, t, size
            rest = groups - made - 1
            scarce = n - position <= rest or (p > 0 and not emit_other and openers <= rest)
            if may_cut and scarce and best < 0:
                best, best_h, best_t, best_size = position, h, t, size
            if best >= 0 and (scarce or grown >= goal):
                ends[made] = best
                made += 1
                cut, cut_h, cut_t, cut_size = best, best_h, best_t, best_size
                goal = (size_total - cut_size + rest - 1) // rest
                best = -1
                emit_other = _may_emit_other(
                    measures, verified, other, i, j, p, q, h, t, cut_h, cut_t, human_total, total
                )
        if emit_other:
            item = other[j]
            j += 1
        else:
            item = verified[i]
            i += 1
            h += measures[item]
            openers -= measures[item] > 0
        order[position] = item
        t += measures[item]
        size += sizes[item]
    ends[made] = n
    return made + 1


@njit(nogil=True, cache=True)
def _may_emit_other(
    measures: Any,
    verified: Any,
    other: Any,
    i: Any,
    j: Any,
    p: Any,
    q: Any,
    h: Any,
    t: Any,
    cut_h: Any,
    cut_t: Any,
    human_total: Any,
    total: Any,
) -> Any:
    """Whether the next item is an other one: always without verified items left, else by the first two rules."""
    if j == len(other):
        return False
    if i == len(verified):
        return True
    measure = measures[other[j]]
    holds = _at_least(q, h - cut_h, p, t + measure - cut_t)
    return holds and _at_least(h, total - human_total, t - h + measure, human_total)
