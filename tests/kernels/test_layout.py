"""The floor holds in every prefix of every group, or there is no layout: exactly, whatever the numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels.layout import INT64_MAX, WINDOW_SHIFT, Layout, arrange

MEASURES = st.one_of(st.integers(0, 5), st.integers(0, 200), st.sampled_from([0, 1, 1_600_000, 10**9, 10**13, 2**55]))
ITEMS = st.lists(st.tuples(MEASURES, st.booleans(), st.integers(0, 50)), max_size=80)
FLOORS = st.one_of(
    st.sampled_from([Fraction(0), Fraction(1), Fraction(1, 3), Fraction("0.617"), Fraction("0.123456789")]),
    st.builds(lambda a, b: Fraction(min(a, b), max(a, b)), st.integers(0, 30), st.integers(1, 30)),
    st.builds(lambda p: Fraction(p, 10**18), st.integers(0, 10**18)),
)


def arrays(items: list[tuple[int, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.array([m for m, _, _ in items], np.int64),
        np.array([h for _, h, _ in items], np.bool_),
        np.array([s for _, _, s in items], np.int64),
    )


def assert_holds(layout: Layout, measures: np.ndarray, human: np.ndarray, floor: Fraction) -> None:
    assert sorted(layout.order.tolist()) == list(range(len(measures)))
    assert layout.ends.tolist()[-1:] == ([len(measures)] if len(measures) else [])
    start = 0
    for end in layout.ends.tolist():
        assert end > start, "an empty group"
        verified = whole = 0
        for item in layout.order[start:end].tolist():
            whole += int(measures[item])
            verified += int(measures[item]) if human[item] else 0
            assert floor.denominator * verified >= floor.numerator * whole
        start = end


def holds_as_a_whole(measures: np.ndarray, human: np.ndarray, floor: Fraction) -> bool:
    verified = sum(m for m, h in zip(measures.tolist(), human.tolist(), strict=True) if h)
    return floor.denominator * verified >= floor.numerator * sum(measures.tolist())


def credit_ratchet(
    measures: list[int], human: list[bool], floor: Fraction, sizes: list[int], wanted: int
) -> tuple[list[int], list[int]]:
    """The same rules in unbounded integers, on the credit itself."""
    p, q = floor.numerator, floor.denominator
    n = len(measures)
    verified = [i for i in range(n) if human[i] and p]
    other = [i for i in range(n) if not (human[i] and p)]
    gain = [q * measures[i] * (human[i] and p > 0) - p * measures[i] for i in range(n)]
    total_credit, total, human_total = sum(gain), sum(measures), sum(measures[i] for i in verified)
    openers = sum(measures[i] > 0 for i in verified)
    wanted = max(1, min(wanted, n, openers if p else n))
    other_total = total - human_total
    spare = total_credit * total // (q * other_total) // wanted // 8 if other_total and p else 0
    order: list[int] = []
    ends: list[int] = []
    credits, weights = [0], [0]
    last = cut = 0
    best: int | None = None
    goal = -(-sum(sizes) // wanted)

    def lead(position: int) -> int:
        """How far verified text is ahead of its even share."""
        verified_so_far = sum(measures[i] for i in order[:position] if human[i])
        so_far = sum(measures[i] for i in order[:position])
        return verified_so_far * other_total - (so_far - verified_so_far) * human_total

    def other_next() -> bool:
        if not other or not verified:
            return bool(other)
        emitted = sum(measures[i] for i in order)
        emitted_human = sum(measures[i] for i in order if human[i])
        even = emitted_human * (total - human_total) >= human_total * (emitted - emitted_human + measures[other[0]])
        return credits[-1] + gain[other[0]] >= last and even

    while verified or other:
        here = len(order)
        take_other = other_next()
        rest = wanted - len(ends) - 1
        if here > cut and rest:
            grown = weights[here] - weights[cut]
            window = (goal >> WINDOW_SHIFT) if p else 0
            candidate = credits[here] <= total_credit and grown >= goal - window
            if candidate and (
                best is None or credits[here] < credits[best] or lead(here) <= lead(best) + spare * other_total
            ):
                best = here
            scarce = n - here <= rest or (p > 0 and not take_other and openers <= rest)
            if credits[here] <= total_credit and scarce and best is None:
                best = here
            if best is not None and (scarce or grown >= goal):
                ends.append(best)
                cut, last, best = best, credits[best], None
                goal = -(-(sum(sizes) - weights[cut]) // rest)
                take_other = other_next()
        item = other.pop(0) if take_other else verified.pop(0)
        openers -= bool(p) and human[item] and measures[item] > 0
        order.append(item)
        credits.append(credits[-1] + gain[item])
        weights.append(weights[-1] + sizes[item])
    return order, [*ends, n]


@settings(max_examples=600, deadline=None)
@given(ITEMS, FLOORS, st.integers(1, 40), st.one_of(st.none(), st.integers(1, 12)), st.booleans())
def test_every_prefix_of_every_group_holds_the_floor_or_there_is_no_layout(items, floor, target, groups, sized):
    measures, human, sizes = arrays(items)
    layout = arrange(measures, human, floor, target, sizes if sized else None, groups)
    if layout is None:
        assert not holds_as_a_whole(measures, human, floor)
    else:
        assert holds_as_a_whole(measures, human, floor)
        assert_holds(layout, measures, human, floor)
        assert len(layout.ends) <= (groups or len(items))


@settings(max_examples=300, deadline=None)
@given(ITEMS, FLOORS)
def test_a_mix_trimmed_to_its_floor_can_always_be_laid_out(items, floor):
    kept = sorted(items, key=lambda item: not item[1])
    while kept and not holds_as_a_whole(*arrays(kept)[:2], floor):
        kept.pop()
    measures, human, sizes = arrays(kept)
    layout = arrange(measures, human, floor, 5, sizes)
    assert layout is not None
    assert_holds(layout, measures, human, floor)


@settings(max_examples=300, deadline=None)
@given(ITEMS.filter(bool), FLOORS, st.integers(1, 9), st.booleans())
def test_compiled_layout_equals_the_rules_in_unbounded_integers(items, floor, groups, sized):
    measures, human, sizes = arrays(items)
    layout = arrange(measures, human, floor, 1, sizes if sized else None, groups)
    if layout is None:
        return
    item_sizes = sizes.tolist() if sized else [1] * len(items)
    order, ends = credit_ratchet(measures.tolist(), human.tolist(), floor, item_sizes, groups)
    assert layout.order.tolist() == order
    assert layout.ends.tolist() == ends


def test_credits_beyond_int64_stay_exact():
    floor = Fraction(10**18 - 1, 10**18)
    human = np.array([True, False])
    enough, missing = np.array([10**18 - 1, 1]), np.array([10**18 - 2, 1])
    layout = arrange(enough, human, floor, 8)
    assert layout is not None
    assert_holds(layout, enough, human, floor)
    assert arrange(missing, human, floor, 8) is None


def test_without_a_floor_order_and_cuts_are_plain():
    human = np.arange(100) % 7 == 0
    layout = arrange(np.ones(100, np.int64), human, Fraction(0), 25)
    assert layout is not None
    assert layout.order.tolist() == list(range(100))
    assert layout.ends.tolist() == [25, 50, 75, 100]


def corpus(seed: int, n: int, floor: Fraction, slack: Fraction) -> tuple[np.ndarray, np.ndarray]:
    """Documents whose verified share exceeds the floor by about `slack` of it."""
    rng = np.random.default_rng(seed)
    measures, human = rng.integers(1, 1000, n), rng.random(n) < float(floor) * 0.8
    room = int(measures[human].sum() * (1 / floor - 1) * (1 - slack))
    other = np.flatnonzero(~human)
    kept = np.union1d(np.flatnonzero(human), other[np.cumsum(measures[other]) <= room])
    return measures[kept], human[kept]


@pytest.mark.parametrize("floor", [Fraction(1, 3), Fraction(1, 2), Fraction("0.617")])
def test_a_thousandth_of_slack_keeps_row_groups_near_their_target(floor):
    measures, human = corpus(3, 60_000, floor, Fraction(1, 1000))
    layout = arrange(measures, human, floor, 2048)
    assert layout is not None
    rows = np.diff(layout.ends, prepend=0)
    assert len(rows) == -(-len(measures) // 2048)
    assert rows.min() > 2048 * 0.9
    assert rows.max() < 2048 * 1.1


def test_verified_text_is_spread_over_the_group():
    measures, human = corpus(5, 20_000, Fraction(1, 2), Fraction(1, 5))
    layout = arrange(measures, human, Fraction(1, 2), 4096)
    assert layout is not None
    verified = np.where(human, measures, 0)[layout.order]
    share = verified.sum() / measures.sum()
    for part in np.array_split(np.arange(len(measures)), 100):
        assert verified[part].sum() / measures[layout.order][part].sum() == pytest.approx(share, abs=0.05)


def test_three_verified_documents_fill_at_most_three_of_ten_shards():
    measures = np.array([10] * 3 + [1] * 20)
    human = np.arange(23) < 3
    layout = arrange(measures, human, Fraction(1, 2), 1, measures, groups=10)
    assert layout is not None
    assert len(layout.ends) == 3
    assert_holds(layout, measures, human, Fraction(1, 2))


def test_as_many_groups_as_items_when_nothing_forbids_it():
    sizes = np.array([1000, 1, 1, 1, 1000])
    layout = arrange(sizes, np.ones(5, np.bool_), Fraction(1), 1, sizes, groups=5)
    assert layout is not None
    assert layout.ends.tolist() == [1, 2, 3, 4, 5]


def test_no_items_make_no_groups():
    layout = arrange(np.zeros(0, np.int64), np.zeros(0, np.bool_), Fraction(1, 2), 8)
    assert layout is not None
    assert len(layout.order) == len(layout.ends) == 0


def test_text_that_measures_nothing_is_laid_out_in_one_group():
    layout = arrange(np.zeros(4, np.int64), np.zeros(4, np.bool_), Fraction(1, 2), 2)
    assert layout is not None
    assert layout.ends.tolist() == [4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"floor": Fraction(3, 2)}, "between 0 and 1"),
        ({"floor": Fraction(1, 3 * 10**18 * 7)}, "at most 18 digits"),
        ({"target": 0}, "at least 1"),
        ({"groups": 0}, "at least 1"),
        ({"human": np.array([True])}, "same items"),
        ({"sizes": np.array([1, 2, 3])}, "same items"),
        ({"measures": np.array([-1, 2])}, "measures holds -1"),
        ({"measures": np.array([INT64_MAX, 1])}, "add up to more"),
    ],
)
def test_arguments_that_make_no_sense_are_named(change, message):
    arguments = {
        "measures": np.array([1, 2]),
        "human": np.array([True, False]),
        "floor": Fraction(1, 4),
        "target": 8,
        "sizes": None,
        "groups": None,
    }
    with pytest.raises(ValueError, match=message):
        arrange(**(arguments | change))
