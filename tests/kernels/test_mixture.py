"""A plan holds every rule exactly, or there is a reason: never a third thing."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels.mixture import (
    Cells,
    InfeasibleMixture,
    MixtureParams,
    Plan,
    Rule,
    Stratum,
    Supply,
    floor_table,
    plan_mixture,
)
from transforms.kernels.mixture_demand import Columns, demand
from transforms.kernels.schemas import Provenance

VERIFIED = Stratum("press", Provenance.HUMAN_VERIFIED)
BELIEVED = Stratum("web", Provenance.HUMAN)
SYNTHETIC = Stratum("rephrased", Provenance.SYNTHETIC, "mixtral", "rephrase")


def cells_of(*tokens: Sequence[int]) -> Cells:
    """One cell a number, in consecutive buckets, of one document and five bytes a token."""
    rows = [(s, b, 1, t, 5 * t + 1) for s, row in enumerate(tokens) for b, t in enumerate(row)]
    return Cells(*np.array(rows, np.int64).reshape(-1, 5).T)


def even_cells(*totals: int, buckets: int = 1000) -> Cells:
    """The same number of equal buckets in every stratum."""
    return cells_of(*([total // buckets] * buckets for total in totals))


def floor(share: str | int | Fraction, **rest: Any) -> Rule:
    return Rule("human_verified", share=Fraction(share), **rest)


def taken(plan: Plan) -> list[int]:
    return [s.taken.tokens for s in plan.strata]


def groups(language: str) -> tuple[tuple[str, str], ...]:
    return (("language", language),)


TINY_STRATA = (
    Stratum("a", Provenance.HUMAN_VERIFIED, groups=groups("en")),
    Stratum("b", Provenance.HUMAN_VERIFIED, groups=groups("de")),
    Stratum("a", Provenance.HUMAN, groups=groups("en")),
    Stratum("c", Provenance.SYNTHETIC, "x", "rephrase", groups("en")),
    Stratum("c", Provenance.SYNTHETIC, "y", "generated", groups("de")),
    Stratum("d", Provenance.UNKNOWN, groups=groups("de")),
)
SHARES = st.sampled_from([Fraction(s) for s in ("0", "1", "1/3", "0.617", "1/2", "0.1", "0.3", "0.123456789")])
OF = st.sampled_from(["human_verified", "human_any", "synthetic", "rephrase", "source:a", "generator:y", "unknown"])
SHARE_RULES = st.builds(Rule, of=OF, share=SHARES, by=st.sampled_from([None, None, "generator"]))
AMOUNT_RULES = st.builds(Rule, of=OF, amount=st.integers(0, 40))
GROUP_RULES = st.builds(
    Rule,
    of=st.sampled_from(["human_verified", "human_any"]),
    share=SHARES,
    by=st.sampled_from(["language", "source"]),
    otherwise=st.sampled_from(["fail", "drop", "exempt"]),
)
GROUP_CAPS = st.builds(Rule, of=OF, share=SHARES, by=st.just("language"))
MEASURES = st.sampled_from([0, 1, 1, 2, 3, 5, 10, 17, 30])


@st.composite
def tiny_problems(draw: st.DrawFn) -> tuple[list[Stratum], Cells, MixtureParams]:
    strata = draw(st.lists(st.sampled_from(TINY_STRATA), min_size=1, max_size=4, unique=True))
    cells = cells_of(*(draw(st.lists(MEASURES, max_size=4)) for _ in strata))
    params = MixtureParams(
        floors=(floor(draw(SHARES)), *draw(st.lists(st.one_of(SHARE_RULES, AMOUNT_RULES, GROUP_RULES), max_size=1))),
        caps=tuple(draw(st.lists(st.one_of(SHARE_RULES, AMOUNT_RULES, GROUP_CAPS), max_size=2))),
        size=draw(st.one_of(st.none(), st.integers(1, 120))),
        if_short=draw(st.sampled_from(["fail", "shrink"])),
        epochs={"human_verified": draw(st.integers(1, 2))},
        max_shares=draw(st.dictionaries(st.just("c"), SHARES, max_size=1)),
        weights=draw(st.dictionaries(st.sampled_from("acd"), st.sampled_from([Fraction(0), Fraction(3)]), max_size=1)),
        temperature=draw(st.sampled_from([Fraction(1), Fraction(2)])),
        shards=draw(st.sampled_from([None, 1, 3, 10])),
        shard_bytes=100,
    )
    return strata, cells, params


def planned(strata: Sequence[Stratum], cells: Cells, params: MixtureParams) -> Plan | InfeasibleMixture:
    try:
        return plan_mixture(strata, cells, params)
    except InfeasibleMixture as reason:
        return reason


def assert_sound(plan: Plan, cells: Cells) -> None:
    """Recount the assignment from the cells: rules, size, prefixes, shards."""
    params, key = plan.params, {}
    for s, b, d, t, y in zip(*(column.tolist() for column in cells), strict=True):
        key[s, b] = (d, t, y)
    rows = list(zip(*(column.tolist() for column in plan.assign), strict=True))
    assert rows == sorted(rows)
    assert len({row[:3] for row in rows}) == len(rows)
    measure = {"documents": 0, "tokens": 1, "bytes": 2}[params.measure]
    totals = [[0, 0, 0] for _ in plan.strata]
    shards = [[0, 0, 0, 0, 0] for _ in range(plan.n_shards)]
    for s, bucket, _, shard in rows:
        for i in range(3):
            totals[s][i] += key[s, bucket][i]
            shards[shard][i] += key[s, bucket][i]
        shards[shard][3] += key[s, bucket][measure]
        shards[shard][4] += key[s, bucket][measure] if plan.strata[s].stratum.verified else 0
    assert [list(outcome.taken) for outcome in plan.strata] == totals
    assert shards == [list(row) for row in zip(*(column.tolist() for column in plan.shards), strict=True)]
    assert plan.n_shards <= (params.shards or len(rows))
    least = params.human_floor
    for documents, *_, whole, verified in shards:
        assert documents > 0
        assert least.denominator * verified >= least.numerator * whole
    for s, outcome in enumerate(plan.strata):
        own = [bucket for (stratum, bucket) in sorted(key) if stratum == s]
        order = sorted((copy, bucket) for stratum, bucket, copy, _ in rows if stratum == s)
        epochs = params.epochs.get(outcome.stratum.provenance.label, 1)
        assert order == list(itertools.product(range(epochs), own))[: len(order)]
    assert params.size is None or plan.size <= params.size
    for rule in plan.rules:
        part, whole = rule.numerator, rule.denominator
        share = rule.rule.share
        if share is not None:
            difference = share.denominator * part - share.numerator * whole
            assert difference >= 0 if rule.kind == "floor" else difference <= 0
        else:
            assert part >= rule.rule.amount if rule.kind == "floor" else part <= rule.rule.amount


def largest_by_exhaustion(strata: Sequence[Stratum], cells: Cells, params: MixtureParams) -> int:
    """The largest total over all prefixes of whole buckets; 0 where no mix measures anything."""
    steps = [
        cells.tokens[cells.stratum == s].tolist() * params.epochs.get(stratum.provenance.label, 1)
        for s, stratum in enumerate(strata)
    ]
    assert prod(len(row) + 1 for row in steps) < 20_000
    asked = demand(Columns(strata), np.array([sum(row) for row in steps], np.int64), params)
    constraints = asked.constraints(np.arange(len(strata)))
    choices = [
        sorted({0, *itertools.accumulate(row)}) if ok else [0] for row, ok in zip(steps, asked.allowed, strict=True)
    ]
    best = 0
    for totals in itertools.product(*choices):
        verified = sum(t for t, s in zip(totals, strata, strict=True) if s.verified)
        if sum(totals) <= best or (params.human_floor > 0 and not verified):
            continue
        if all(sum(map(int.__mul__, c.coefficients.tolist(), totals)) >= c.bound for c in constraints):
            best = sum(totals)
    return best


@settings(max_examples=250, deadline=None)
@given(tiny_problems())
def test_a_tiny_mix_holds_every_rule_and_exists_whenever_exhaustion_finds_one(problem):
    strata, cells, params = problem
    plan = planned(strata, cells, params)
    try:
        best = largest_by_exhaustion(strata, cells, params)
    except InfeasibleMixture:
        best = 0
    if isinstance(plan, InfeasibleMixture):
        out_of_reach = params.if_short == "fail" and plan.feasible_size > 0
        assert best == 0 or out_of_reach, str(plan)
        return
    assert_sound(plan, cells)
    assert plan.totals.documents > 0
    assert 0 < plan.size <= best or (best == 0 and params.human_floor == 0 and plan.size == 0)
    next_buckets = [int(cells.tokens[cells.stratum == s].max(initial=0)) for s in range(len(strata))]
    assert best - plan.size <= sum(next_buckets)


@settings(max_examples=150, deadline=None)
@given(tiny_problems(), st.randoms(use_true_random=False))
def test_a_plan_does_not_depend_on_how_strata_are_listed(problem, random):
    strata, cells, params = problem
    order = list(range(len(strata)))
    random.shuffle(order)
    table = list(zip(*(column.tolist() for column in cells), strict=True))
    moved = sorted((order.index(row[0]), *row[1:]) for row in table)
    other = planned([strata[s] for s in order], Cells(*np.array(moved, np.int64).reshape(-1, 5).T), params)
    plan = planned(strata, cells, params)
    assert str(plan) == str(other) if isinstance(plan, InfeasibleMixture) else plan.digest == other.digest
    if isinstance(plan, Plan):
        where = {(order.index(s), b, c): shard for s, b, c, shard in zip(*plan.assign, strict=True)}
        assert where == {(s, b, c): shard for s, b, c, shard in zip(*other.assign, strict=True)}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 10**12), min_size=1, max_size=60),
    st.lists(st.integers(0, 10**12), max_size=60),
    st.lists(st.integers(0, 10**12), max_size=60),
    SHARES,
    st.one_of(st.none(), st.integers(1, 10**13)),
)
def test_large_measures_stay_exact(verified, believed, synthetic, share, size):
    cells = cells_of(verified, believed, synthetic)
    params = MixtureParams(floors=(floor(share),), caps=(Rule("synthetic", Fraction(1, 3)),), size=size, shards=4)
    plan = planned([VERIFIED, BELIEVED, SYNTHETIC], cells, replace(params, if_short="shrink"))
    if isinstance(plan, Plan):
        assert_sound(plan, cells)
    else:
        # Without a size there is always the verified text alone, unless a floor asks for it and there is none.
        assert size is not None or sum(verified) == 0


def test_without_a_binding_rule_every_survivor_is_taken():
    cells = cells_of([100] * 9, [5, 7, 0, 9], [3] * 40)
    plan = plan_mixture([VERIFIED, BELIEVED, SYNTHETIC], cells, MixtureParams(floors=(floor("0.8"),)))
    assert plan.totals.documents == 53
    assert not any(rule.binds for rule in plan.rules)
    assert plan.notes == ()


@pytest.mark.parametrize("share", [0, 1])
def test_floors_of_nothing_and_of_everything_remove_nothing_for_slack(share):
    cells = even_cells(1_000_000, 1_000_000)
    plan = plan_mixture([VERIFIED, BELIEVED], cells, MixtureParams(floors=(floor(share),)))
    assert taken(plan) == [1_000_000, 0 if share else 1_000_000]


def test_a_floor_of_everything_takes_no_other_text_even_if_it_measures_nothing():
    plan = plan_mixture([VERIFIED, BELIEVED], cells_of([5, 5], [0, 0]), MixtureParams(floors=(floor(1),)))
    assert plan.totals.documents == 2


def test_verified_text_is_all_kept_and_a_thousandth_of_slack_stays_above_the_floor():
    cells = even_cells(1_000_000, 800_000, 400_000, buckets=4000)
    plan = plan_mixture([VERIFIED, BELIEVED, SYNTHETIC], cells, MixtureParams(floors=(floor("1/2"),)))
    verified, believed, synthetic = taken(plan)
    assert verified == 1_000_000
    assert 999_000 - 300 <= believed + synthetic <= 999_000
    assert believed / synthetic == pytest.approx(2, abs=0.01)
    assert plan.rules[0].binds


def test_slack_is_given_up_before_the_size_is():
    cells = even_cells(1_000_000, 1_000_000, buckets=4000)
    plan = plan_mixture([VERIFIED, BELIEVED], cells, MixtureParams(floors=(floor("1/2"),), size=2_000_000))
    assert taken(plan) == [1_000_000, 1_000_000]


def test_a_mix_of_one_size_stays_proportional_where_rules_allow():
    """The levels are worked out by hand: under the floor of .30, books and news share 180 and the rest 420."""
    names = {
        "books": Provenance.HUMAN_VERIFIED,
        "news": Provenance.HUMAN_VERIFIED,
        "web": Provenance.HUMAN,
        "assisted": Provenance.AI_ASSISTED,
        "a": Provenance.SYNTHETIC,
        "b": Provenance.SYNTHETIC,
        "unknown": Provenance.UNKNOWN,
    }
    cells = even_cells(*(1000 * t for t in (40, 20, 500, 50, 400, 100, 300)), buckets=1000)
    weights = [Fraction(w) for w in ("1/40", "1/20", "4/500", "1/100", "3/400", "1/100", "1/600")]
    params = MixtureParams(
        floors=(floor("0.30"),),
        size=600_000,
        epochs={"human_verified": 4},
        weights=dict(zip(names, weights, strict=True)),
    )
    plan = plan_mixture([Stratum(name, provenance) for name, provenance in names.items()], cells, params)
    expected = [100, 80, 186.7, 23.3, 140, 46.7, 23.3]
    assert [t / 1000 for t in taken(plan)] == pytest.approx(expected, abs=0.8)
    assert [s.copies for s in plan.strata] == [3, 4, 1, 1, 1, 1, 1]
    assert 600_000 - 1400 <= plan.size <= 600_000


def test_what_a_cap_leaves_over_rises_evenly_in_the_other_strata():
    strata = [Stratum("web", Provenance.HUMAN), Stratum("forum", Provenance.HUMAN), SYNTHETIC]
    params = MixtureParams(floors=(floor(0),), caps=(Rule("synthetic", Fraction("0.1")),), size=600_000)
    plan = plan_mixture(strata, even_cells(600_000, 600_000, 600_000), params)
    assert taken(plan) == pytest.approx([270_000, 270_000, 60_000], abs=600)


def test_one_token_in_a_quadrillion_above_a_cap_is_too_much():
    params = MixtureParams(floors=(floor(0),), caps=(Rule("synthetic", Fraction(1, 2)),))
    assert taken(plan_mixture([BELIEVED, SYNTHETIC], cells_of([10**15], [10**15]), params)) == [10**15, 10**15]
    assert taken(plan_mixture([BELIEVED, SYNTHETIC], cells_of([10**15], [10**15 + 1]), params)) == [10**15, 0]


def test_temperature_lifts_small_strata():
    cells = even_cells(900_000, 100_000)
    params = MixtureParams(floors=(floor(0),), size=100_000)
    plain = plan_mixture([BELIEVED, SYNTHETIC], cells, params)
    warm = plan_mixture([BELIEVED, SYNTHETIC], cells, replace(params, temperature=Fraction(2)))
    assert taken(plain)[1] == pytest.approx(10_000, abs=1000)
    assert taken(warm)[1] == pytest.approx(25_000, abs=1000)


def test_a_source_of_weight_nothing_is_left_out():
    params = MixtureParams(floors=(floor(0),), weights={"web": Fraction(0)})
    assert taken(plan_mixture([VERIFIED, BELIEVED], cells_of([5], [5]), params)) == [5, 0]


def test_a_cap_by_generator_compares_each_with_the_whole_mix():
    strata = [VERIFIED, *(Stratum("s", Provenance.SYNTHETIC, name, "generated") for name in "xyz")]
    cells = even_cells(600_000, 500_000, 500_000, 50_000)
    params = MixtureParams(floors=(floor("0.1"),), caps=(Rule("synthetic", Fraction("0.15"), by="generator"),))
    plan = plan_mixture(strata, cells, params)
    verified, x, y, z = taken(plan)
    assert (verified, z) == (600_000, 50_000)
    assert x == pytest.approx(0.15 * plan.size, rel=0.01)
    assert y == pytest.approx(x, rel=0.01)
    assert [rule.group for rule in plan.rules] == [None, "x", "y", "z"]
    assert [rule.binds for rule in plan.rules] == [False, True, True, False]


def test_a_source_keeps_to_its_greatest_share_and_gives_up_unverified_text_first():
    strata = [Stratum("press", Provenance.HUMAN_VERIFIED), Stratum("press", Provenance.HUMAN), BELIEVED]
    cells = even_cells(300_000, 300_000, 600_000)
    params = MixtureParams(floors=(floor("0.1"),), max_shares={"press": Fraction("0.4")})
    assert taken(plan_mixture(strata, cells, params)) == [300_000, 99_900, 600_000]


BY_LANGUAGE = [
    Stratum("p", Provenance.HUMAN_VERIFIED, groups=groups("en")),
    Stratum("p", Provenance.HUMAN, groups=groups("en")),
    Stratum("p", Provenance.HUMAN, groups=groups("de")),
]


@pytest.mark.parametrize(("otherwise", "expected"), [("drop", [100, 100, 0]), ("exempt", [100, 100, 100])])
def test_a_language_that_cannot_hold_its_floor_is_dropped_or_exempt(otherwise, expected):
    rule = floor("1/2", by="language", otherwise=otherwise)
    params = MixtureParams(floors=(floor("0.1"), rule))
    plan = plan_mixture(BY_LANGUAGE, cells_of([10] * 10, [10] * 10, [10] * 10), params)
    assert taken(plan) == expected
    assert "language de" in plan.notes[0]


def test_a_language_that_cannot_hold_its_floor_fails_by_default():
    params = MixtureParams(floors=(floor("0.1"), floor("1/2", by="language")))
    with pytest.raises(InfeasibleMixture, match=r"in language de cannot hold.*otherwise: drop") as caught:
        plan_mixture(BY_LANGUAGE, cells_of([10] * 10, [10] * 10, [10] * 10), params)
    assert caught.value.binding == ("floor human_verified 1/2 in language de",)


def test_documents_and_bytes_are_measures_too():
    cells = even_cells(1_000_000, 8_000_000, buckets=1000)
    by_documents = plan_mixture([VERIFIED, BELIEVED], cells, MixtureParams("documents", floors=(floor("1/2"),)))
    assert [s.taken.documents for s in by_documents.strata] == [1000, 999]
    by_bytes = plan_mixture([VERIFIED, BELIEVED], cells, MixtureParams("bytes", floors=(floor("1/2"),)))
    assert by_bytes.size == by_bytes.totals.bytes
    assert [s.taken.documents for s in by_bytes.strata] == [1000, 124]


def test_no_verified_text_is_infeasible_never_an_empty_success():
    for tokens in ([], [0, 0]):
        with pytest.raises(InfeasibleMixture, match="no verified human text") as caught:
            plan_mixture([VERIFIED, BELIEVED], cells_of(tokens, [5]), MixtureParams(floors=(floor("0.01"),)))
        assert caught.value.missing == 1


def test_no_text_at_all_is_infeasible():
    for strata in ([], [VERIFIED]):
        with pytest.raises(InfeasibleMixture, match="nothing to mix"):
            plan_mixture(strata, cells_of(), MixtureParams(floors=(floor(0),)))


def test_a_size_out_of_reach_says_what_binds_what_is_missing_and_what_helps():
    cells = even_cells(400_000, 5_000_000)
    params = MixtureParams(floors=(floor("1/2"),), size=1_000_000)
    with pytest.raises(InfeasibleMixture) as caught:
        plan_mixture([VERIFIED, BELIEVED], cells, params)
    error = caught.value
    assert error.binding == ("floor human_verified 1/2",)
    assert error.available["human_verified"] == 400_000
    assert error.missing == 100_000
    assert 790_000 <= error.feasible_size <= 800_000
    for said in ("1000000", str(error.feasible_size), "add 100000 tokens", "0.4000", "if_short: shrink"):
        assert said in str(error)
    assert json.loads(json.dumps(error.details))["missing"] == 100_000
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.details) == (str(error), error.details)

    shrunk = plan_mixture([VERIFIED, BELIEVED], cells, replace(params, if_short="shrink"))
    assert shrunk.size == error.feasible_size
    assert "shrunk from size 1000000" in shrunk.notes[0]
    assert plan_mixture([VERIFIED, BELIEVED], cells, replace(params, size=error.feasible_size)).size > 0


def test_a_size_above_all_there_is_names_no_rule():
    with pytest.raises(InfeasibleMixture, match="all there is") as caught:
        plan_mixture([VERIFIED], cells_of([5]), MixtureParams(floors=(floor("1/2"),), size=7))
    assert (caught.value.missing, caught.value.feasible_size) == (2, 5)


@pytest.mark.parametrize("if_short", ["fail", "shrink"])
def test_an_amount_out_of_reach_is_named_and_never_relaxed(if_short: str) -> None:
    cells = even_cells(400_000, 300_000)
    params = MixtureParams(floors=(floor("1/2"), Rule("human", amount=350_000)), if_short=if_short)
    with pytest.raises(InfeasibleMixture, match="asks for 350000 tokens and there are 300000") as caught:
        plan_mixture([VERIFIED, BELIEVED], cells, params)
    assert caught.value.missing == 50_000
    assert "shrink" not in str(caught.value)


def test_verified_text_that_another_rule_leaves_out_is_not_said_to_be_missing() -> None:
    drop = Rule("synthetic", Fraction("0.1"), by="source", otherwise="drop")
    with pytest.raises(InfeasibleMixture, match="all verified human text is left out") as caught:
        plan_mixture([VERIFIED, SYNTHETIC], cells_of([1000], [1000]), MixtureParams(floors=(floor("1/2"), drop)))
    assert "floor synthetic 1/10 in source press: cannot hold it; left out of the mix (drop)" in str(caught.value)
    assert "custody" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"weights": {"press": Fraction(0)}}, "source press has a weight of 0"),
        ({"caps": (Rule("human_any", amount=0),)}, "cap human_any 0 allows none of it"),
        ({"caps": (Rule("human_any", Fraction(0), by="source"),)}, "cap human_any 0 in source press allows none of it"),
    ],
)
def test_what_leaves_no_verified_text_to_choose_from_is_named(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InfeasibleMixture, match="all verified human text is left out") as caught:
        plan_mixture([VERIFIED, SYNTHETIC], cells_of([1000], [1000]), MixtureParams(floors=(floor("1/2"),), **asked))
    assert told in str(caught.value)
    assert "custody" not in str(caught.value)


def test_rules_that_contradict_each_other_are_named():
    params = MixtureParams(floors=(floor("0.9"),), caps=(Rule("human_any", Fraction("0.5")),))
    with pytest.raises(InfeasibleMixture, match="contradict each other") as caught:
        plan_mixture([VERIFIED, BELIEVED, SYNTHETIC], even_cells(10_000, 10_000, 10_000), params)
    assert {*caught.value.binding} <= {"floor human_verified 9/10", "cap human_any 1/2"}
    assert "cap human_any 1/2" in str(caught.value)


@pytest.mark.parametrize(
    ("more", "needed"), [((), 700), ((Rule("human", amount=1),), 2_500), ((Rule("human", amount=9_100),), 20_500)]
)
def test_a_size_too_small_for_any_document_says_which_one_would_do(more: tuple[Rule, ...], needed: int) -> None:
    cells = cells_of([700] + [900] * 2000, [900] * 2000)
    params = MixtureParams(floors=(floor("1/2"), *more), size=100)
    with pytest.raises(InfeasibleMixture, match=r"documents are not split|contradict") as caught:
        plan_mixture([VERIFIED, BELIEVED], cells, params)
    (told,) = (change for change in caught.value.changes if change["rule"] == "size 100")
    assert needed <= told["to"] <= needed * 1.001
    assert f"size 100 to {told['to']} ({told['size']} in the mix)" in str(caught.value)
    assert plan_mixture([VERIFIED, BELIEVED], cells, replace(params, size=told["to"])).size == told["size"]


def test_a_small_size_lets_a_group_go_as_a_large_one_does() -> None:
    """Rules are tried on a part of all text: that part being larger than the size must not stand in the way."""
    strata = [
        Stratum("p", Provenance.HUMAN_VERIFIED, groups=groups("en")),
        Stratum("q", Provenance.HUMAN_VERIFIED, groups=groups("de")),
    ]
    floors = (floor("1/2"), Rule("human_verified", amount=150, by="language", otherwise="drop"))
    caps = (Rule("source:q", Fraction(1, 10)),)
    params = MixtureParams(floors=floors, caps=caps, size=400)
    plan = plan_mixture(strata, even_cells(400_000, 400_000, buckets=4000), params)
    assert taken(plan) == [400, 0]
    assert [group for _, group in plan.dropped] == ["de"]


def test_one_giant_verified_document_carries_the_mix():
    cells = cells_of([10**12], [100] * 1000)
    plan = plan_mixture([VERIFIED, BELIEVED], cells, MixtureParams(floors=(floor("0.617"),), shards=8))
    assert plan.totals.documents == 1001
    assert plan.n_shards == 1
    assert "1 shards instead of 8" in plan.notes[0]


def test_three_verified_documents_fill_at_most_three_of_ten_shards():
    cells = cells_of([1000] * 3, [10] * 500)
    params = MixtureParams(floors=(floor("1/3"),), shards=10)
    plan = plan_mixture([VERIFIED, BELIEVED], cells, params)
    assert_sound(plan, cells)
    assert plan.n_shards == 3
    assert "3 shards instead of 10" in plan.notes[0]
    with pytest.raises(InfeasibleMixture, match="layout: strict asks for 10 shards, and 3"):
        plan_mixture([VERIFIED, BELIEVED], cells, replace(params, layout="strict"))


def test_shards_come_out_even_and_their_number_follows_shard_bytes():
    cells = even_cells(1_000_000, 2_000_000, buckets=4000)
    params = MixtureParams(floors=(floor("1/3"),), shard_bytes=1_000_000)
    plan = plan_mixture([VERIFIED, BELIEVED], cells, params)
    assert plan.n_shards == -(-plan.totals.bytes // 1_000_000)
    assert plan.shards.bytes.max() < 1.1 * plan.shards.bytes.min()
    assert plan_mixture([VERIFIED, BELIEVED], cells, replace(params, shards=7)).n_shards == 7
    assert_sound(plan, cells)


def test_equal_input_gives_an_equal_plan_and_a_seed_only_moves_buckets_between_shards():
    cells = even_cells(100_000, 200_000)
    params = MixtureParams(floors=(floor("1/3"),), shards=5)
    plan, again = (plan_mixture([VERIFIED, BELIEVED], cells, params) for _ in range(2))
    other = plan_mixture([VERIFIED, BELIEVED], cells, replace(params, seed=8))
    assert plan.digest == again.digest != other.digest
    assert taken(plan) == taken(other)
    assert (plan.assign.shard != other.assign.shard).any()
    assert len({plan.digest, plan_mixture([VERIFIED, BELIEVED], cells, replace(params, row_group=9)).digest}) == 2


def test_a_summary_is_json_and_agrees_with_the_plan():
    cells = even_cells(100_000, 200_000)
    plan = plan_mixture([VERIFIED, BELIEVED], cells, MixtureParams(floors=(floor("1/2"),), shards=2))
    summary = json.loads(json.dumps(plan.summary()))
    assert summary["size"] == plan.size == sum(shard["tokens"] for shard in summary["shards"])
    assert summary["floor"] == {"numerator": 1, "denominator": 2}
    assert summary["rules"][0]["achieved"] == {"numerator": 100_000, "denominator": plan.size}
    assert summary["strata"][1]["available"]["tokens"] == 200_000
    assert summary["digest"] == plan.digest


def test_many_strata_and_rules_hold_together():
    rng = np.random.default_rng(11)
    strata = [
        Stratum(
            f"s{i % 20}",
            list(Provenance)[i % 6],
            f"g{i % 7}" if i % 6 == 5 else None,
            groups=(*groups(f"l{i % 9}"), ("domain", str(i))),
        )
        for i in range(90)
    ]
    tokens = [(rng.integers(1, 900, 300) * int(10 ** rng.uniform(0, 4))).tolist() for _ in strata]
    cells = cells_of(*tokens)
    params = MixtureParams(
        floors=(floor("0.4"), Rule("human_any", Fraction("0.45"), by="language", otherwise="drop")),
        caps=(Rule("synthetic", Fraction("0.2")), Rule("synthetic", Fraction("0.05"), by="generator")),
        max_shares={"s3": Fraction("0.1")},
        temperature=Fraction(3, 2),
        shards=16,
    )
    plan = plan_mixture(strata, cells, params)
    assert_sound(plan, cells)
    assert plan.n_shards == 16
    sized = plan_mixture(strata, cells, replace(params, size=plan.size // 2))
    assert_sound(sized, cells)
    assert sized.size > plan.size // 2 * 0.999


@settings(max_examples=60, deadline=None)
@given(tiny_problems())
def test_the_floor_table_bounds_every_plan_from_above(problem):
    strata, cells, params = problem
    plan = planned(strata, cells, params)
    ((_, bound),) = floor_table(Supply(strata, cells, params), params, [params.human_floor])
    assert bound >= (plan.size if isinstance(plan, Plan) else 0)


def test_the_floor_table_lets_groups_go_as_a_plan_does() -> None:
    """German has to be half of the mix, and half verified, of which a cap leaves too little: it is let off."""
    strata = [
        Stratum("p", Provenance.HUMAN_VERIFIED, groups=groups("en")),
        Stratum("q", Provenance.HUMAN_VERIFIED, groups=groups("de")),
        Stratum("r", Provenance.HUMAN, groups=groups("de")),
    ]
    params = MixtureParams(
        floors=(
            floor("1/3"),
            Rule("source:r", Fraction("0.5")),
            Rule("human_verified", Fraction(1, 2), by="language", otherwise="exempt"),
        ),
        max_shares={"q": Fraction(1, 10)},
    )
    cells = even_cells(50_000, 50_000, 50_000)
    plan = plan_mixture(strata, cells, params)
    assert [group for _, group in plan.exempt] == ["de"]
    ((_, bound),) = floor_table(Supply(strata, cells, params), params, [Fraction(1, 3)])
    assert plan.size <= bound <= plan.size * 1.01


def test_the_floor_table_is_what_verified_text_allows():
    params = MixtureParams(floors=(floor("0.9"),), size=5)
    supply = Supply([VERIFIED, BELIEVED], even_cells(100_000, 900_000), params)
    table = floor_table(supply, params, [Fraction(0), Fraction(1, 4), Fraction(1, 2), Fraction(1)])
    assert [size for _, size in table] == [1_000_000, 400_000, 200_000, 100_000]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Rule("humans", Fraction(1, 2)), "human_any"),
        (lambda: Rule("source:", Fraction(1, 2)), "source:NAME"),
        (lambda: Rule("human"), "exactly one"),
        (lambda: Rule("human", Fraction(1, 2), 3), "exactly one"),
        (lambda: Rule("human", 0.1), "float"),
        (lambda: Rule("human", Fraction(3, 2)), "0 to 1"),
        (lambda: Rule("human", amount=-1), "0 or more"),
        (lambda: Rule("human", Fraction(1, 2), otherwise="drop"), "no `by`"),
        (lambda: Rule("human", Fraction(1, 2), by="language", otherwise="skip"), "fail, drop and exempt"),
        (lambda: MixtureParams("words"), "measure is 'words'"),
        (lambda: MixtureParams(size=0), "size is 0"),
        (lambda: MixtureParams(if_short="grow"), "if_short"),
        (lambda: MixtureParams(epochs={"human": 0}), "epochs of human is 0"),
        (lambda: MixtureParams(epochs={"robots": 1}), "epochs of 'robots'"),
        (lambda: MixtureParams(temperature=Fraction(0)), "temperature"),
        (lambda: MixtureParams(weights={"web": Fraction(-1)}), "weight of web"),
        (lambda: plan_mixture([VERIFIED, VERIFIED], cells_of([1], [1]), MixtureParams()), "listed twice"),
        (lambda: plan_mixture([VERIFIED], cells_of([1], [1]), MixtureParams()), "there are 1"),
        (lambda: plan_mixture([VERIFIED], cells_of([1] * 4097), MixtureParams()), "bucket 4096"),
        (lambda: plan_mixture([VERIFIED], cells_of([1, -1]), MixtureParams()), "0 or more"),
        (lambda: plan_mixture([VERIFIED], cells_of([2**60] * 5), MixtureParams()), "exceed"),
        (lambda: plan_mixture([VERIFIED], Cells(*(c[::-1] for c in cells_of([1, 1]))), MixtureParams()), "sort cells"),
        (
            lambda: plan_mixture(
                [VERIFIED], cells_of([1]), MixtureParams(caps=(Rule("human", Fraction(1), by="topic"),))
            ),
            "groups by 'topic'.*generator, source",
        ),
    ],
)
def test_what_makes_no_sense_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
