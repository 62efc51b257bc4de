"""How amounts are found: exactly for nested rules, by linear programs for others, group by group for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.kernels import mixture_planner
from transforms.kernels.mixture import (
    Cells,
    InfeasibleMixture,
    MixtureParams,
    Plan,
    Rule,
    Stratum,
    Supply,
    outlook,
    plan_mixture,
    shrinking,
)
from transforms.kernels.mixture_classes import classify
from transforms.kernels.mixture_demand import demand, with_margin
from transforms.kernels.mixture_laminar import Laminar
from transforms.kernels.mixture_levels import Levels
from transforms.kernels.mixture_worth import R_STAR, worth
from transforms.kernels.schemas import Provenance

SHARES = [Fraction(s) for s in ("0", "1/3", "0.617", "1/2", "0.1", "0.25", "0.123456789", "0.9")]


def cells_of(tokens: Sequence[Sequence[int]]) -> Cells:
    rows = [(s, b, 1, t, 5 * t + 1) for s, row in enumerate(tokens) for b, t in enumerate(row)]
    return Cells(*np.array(rows, np.int64).reshape(-1, 5).T)


def strata_of(count: int, languages: int = 3) -> list[Stratum]:
    kinds = list(Provenance)
    made = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        generator = f"g{number // 6 % 4}" if kind is Provenance.SYNTHETIC else None
        made.append(Stratum(f"s{number}", kind, generator, None, (("language", f"l{number // 6 % languages}"),)))
    return made


@st.composite
def nested_problems(draw: st.DrawFn) -> tuple[list[Stratum], Cells, MixtureParams]:
    """Rules whose sets are nested or apart: provenances, generators below synthetic, all human text."""
    strata = strata_of(draw(st.integers(2, 14)))
    tokens = [draw(st.lists(st.integers(0, 5000), min_size=1, max_size=12)) for _ in strata]
    share = st.sampled_from(SHARES)
    caps = [
        Rule("synthetic", draw(share)),
        Rule("synthetic", draw(share), by="generator"),
        Rule("unknown", draw(share)),
    ]
    floors = [Rule("human_any", draw(share)), Rule("human", amount=draw(st.integers(0, 3000)))]
    params = MixtureParams(
        floors=(Rule("human_verified", draw(share)), *draw(st.lists(st.sampled_from(floors), unique=True))),
        caps=tuple(draw(st.lists(st.sampled_from(caps), unique=True))),
        epochs={"human_verified": draw(st.integers(1, 3))},
        temperature=draw(st.sampled_from([Fraction(1), Fraction(2)])),
    )
    return strata, cells_of(tokens), params


@settings(max_examples=80, deadline=None)
@given(nested_problems(), st.one_of(st.none(), st.integers(1, 99)), st.booleans())
def test_nested_rules_are_solved_as_linear_programs_solve_them(problem: Any, percent: int | None, first: bool) -> None:
    strata, cells, params = problem
    if percent is not None:
        params = replace(params, size=max(1, int(cells.tokens.sum()) * percent // 100))
    supply = Supply(strata, cells, params)
    asked = demand(supply.rules_of, supply.capacity, params)
    classes = classify(supply, asked, [ruling.held for ruling in asked.rulings], None)
    capacity = [c if ok else 0 for c, ok in zip(classes.steps.capacity, classes.allowed, strict=True)]
    constraints = asked.constraints(classes.strata)
    if params.human_floor:
        constraints[0] = with_margin(constraints[0])
    exact, programs = Laminar.of(constraints, capacity, classes.verified), Levels(constraints, capacity)
    assert exact is not None, "these sets are nested or apart"
    largest, nearly = exact.largest(), programs.largest()
    assert (largest is None) == (nearly is None)
    if largest is None or nearly is None or largest < 100:
        return
    assert float(largest) == pytest.approx(float(nearly), rel=1e-6)
    preferred = classes.verified if first else np.zeros_like(classes.verified)
    amounts = exact.proportional(classes.curves, largest, preferred)
    others = programs.proportional(classes.curves, nearly, preferred)
    assert amounts.sum() == pytest.approx(float(largest), rel=1e-9)
    assert amounts == pytest.approx(others, rel=1e-4, abs=1e-4 * float(largest))
    for constraint in constraints:
        coefficients = constraint.coefficients.astype(float)
        slack = float((coefficients * amounts).sum()) - constraint.bound
        assert slack >= -1e-9 * float(np.abs(coefficients).max(initial=1.0) * largest)


def test_the_largest_size_is_exact_beyond_floats() -> None:
    strata = [Stratum("v", Provenance.HUMAN_VERIFIED), Stratum("u", Provenance.UNKNOWN)]
    params = MixtureParams(floors=(Rule("human_verified", Fraction(1, 3)),))
    supply = Supply(strata, cells_of([[10**16 + 1], [10**17]]), params)
    asked = demand(supply.rules_of, supply.capacity, params)
    exact = Laminar.of(asked.constraints(np.arange(2)), [100000000000000000, 10**16 + 1], np.array([False, True]))
    assert exact is not None
    assert exact.largest() == 3 * (10**16 + 1)


def test_crossing_sets_and_shares_of_a_part_are_left_to_linear_programs() -> None:
    strata = strata_of(12)
    for rule in (Rule("source:s0", Fraction(1, 2)), Rule("human_verified", Fraction(1, 4), by="language")):
        params = MixtureParams(
            floors=(Rule("human_any", Fraction(1, 3)), rule), caps=(Rule("human_verified", Fraction(1)),)
        )
        supply = Supply(strata, cells_of([[5]] * 12), params)
        asked = demand(supply.rules_of, supply.capacity, params)
        found = Laminar.of(asked.constraints(np.arange(12)), [5] * 12, supply.verified)
        assert (found is None) == (rule.by is not None)


def assert_holds(plan: Plan, cells: Cells) -> None:
    """Every group of every rule, recounted from the assignment with dictionaries and fractions."""
    tokens = dict(
        zip(zip(cells.stratum.tolist(), cells.bucket.tolist(), strict=True), cells.tokens.tolist(), strict=True)
    )
    taken = [0] * len(plan.listed)
    for stratum, bucket in zip(plan.assign.stratum.tolist(), plan.assign.bucket.tolist(), strict=True):
        taken[stratum] += tokens[stratum, bucket]
    exempt = set(plan.exempt)
    for kind, rules in (("floor", plan.params.floors), ("cap", plan.params.caps)):
        for rule in rules:
            groups = {None} if rule.by is None else {s.value(rule.by) for s in plan.listed}
            for group in groups:
                inside = [rule.by is None or s.value(rule.by) == group for s in plan.listed]
                part = sum(t for t, s, i in zip(taken, plan.listed, inside, strict=True) if i and rule.covers(s))
                whole = sum(taken)
                if rule.by not in (None, "generator"):
                    whole = sum(t for t, i in zip(taken, inside, strict=True) if i)
                if (rule, group) in exempt:
                    continue
                if rule.share is not None:
                    value = part * rule.share.denominator - whole * rule.share.numerator
                else:
                    value = part - (rule.amount or 0)
                assert value >= 0 if kind == "floor" else value <= 0, (rule, group)


@st.composite
def many_groups(draw: st.DrawFn) -> tuple[list[Stratum], Cells, MixtureParams]:
    """More strata and groups than are looked at one by one, of very uneven sizes."""
    languages = draw(st.integers(2, 40))
    strata = strata_of(6 * languages * draw(st.integers(1, 3)), languages)
    seed, skew = draw(st.integers(0, 2**16)), draw(st.sampled_from([0.1, 1.0, 2.5]))
    rng = np.random.default_rng(seed)
    tokens = [rng.lognormal(4, skew, draw(st.integers(1, 6))).astype(np.int64).tolist() for _ in strata]
    share = st.sampled_from(SHARES)
    otherwise = draw(st.sampled_from(["fail", "drop", "exempt"]))
    params = MixtureParams(
        floors=(
            Rule("human_verified", draw(share)),
            Rule("human_verified", draw(share), by="language", otherwise=otherwise),
        ),
        caps=(
            Rule("synthetic", draw(share), by="generator"),
            Rule("unknown", draw(share), by="language"),
            Rule("ai_assisted", amount=draw(st.integers(0, 2000)), by="language"),
        ),
        epochs={"human_verified": draw(st.integers(1, 2))},
        size=draw(st.sampled_from([None, None, 1500, 20_000])),
        if_short="shrink",
    )
    return strata, cells_of(tokens), params


@settings(max_examples=8, deadline=None)
@given(many_groups(), st.sampled_from([(64, 200), (0, 200), (0, 3), (0, 0)]))
def test_rules_of_many_groups_hold_however_few_are_solved_together(problem: Any, limits: tuple[int, int]) -> None:
    strata, cells, params = problem
    few, together = mixture_planner.FEW_GROUPS, mixture_planner.MOST_ACTIVE
    mixture_planner.FEW_GROUPS, mixture_planner.MOST_ACTIVE = limits
    try:
        plan = plan_mixture(strata, cells, params)
    except InfeasibleMixture:
        return
    finally:
        mixture_planner.FEW_GROUPS, mixture_planner.MOST_ACTIVE = few, together
    assert_holds(plan, cells)
    assert plan.size <= (params.size or plan.size)
    assert plan.size > 0


@settings(max_examples=20, deadline=None)
@given(many_groups(), st.sampled_from(SHARES), st.one_of(st.none(), st.integers(100, 5000)))
def test_any_two_mixes_of_one_index_take_prefixes_of_one_ranking(
    problem: Any, share: Fraction, size: int | None
) -> None:
    strata, cells, params = problem
    other = replace(params, floors=(Rule("human_verified", share),), caps=(), size=size)
    found = []
    for asked in (params, other):
        try:
            plan = plan_mixture(strata, cells, asked)
        except InfeasibleMixture:
            return
        found.append(
            set(zip(*(c.tolist() for c in (plan.assign.stratum, plan.assign.copy, plan.assign.bucket)), strict=True))
        )
    for stratum in range(len(strata)):
        one, two = ({row for row in rows if row[0] == stratum} for rows in found)
        assert one <= two or two <= one


def test_few_groups_and_many_come_to_the_same_size(monkeypatch: pytest.MonkeyPatch) -> None:
    strata = strata_of(600, languages=100)
    rng = np.random.default_rng(3)
    cells = cells_of([rng.integers(1, 900, 40).tolist() for _ in strata])
    rules = (Rule("human_verified", Fraction(1, 4)), Rule("human_verified", Fraction(1, 3), by="language"))
    params = MixtureParams(floors=rules)
    supply = Supply(strata, cells, params)
    sizes = []
    for few, together in ((64, 200), (64, 20), (1000, 200)):
        monkeypatch.setattr(mixture_planner, "FEW_GROUPS", few)
        monkeypatch.setattr(mixture_planner, "MOST_ACTIVE", together)
        sizes.append(outlook(supply, params).size)
    assert min(sizes) >= 0.98 * max(sizes)


@pytest.mark.parametrize("part", ["0.6", "0.99"])
def test_a_size_is_reached_where_hundreds_of_groups_bind(part: str) -> None:
    """Groups are held low while little verified text of theirs is taken, and let up again as there is more of it."""
    rng = np.random.default_rng(1)
    kinds = (Provenance.HUMAN_VERIFIED, Provenance.UNKNOWN, Provenance.SYNTHETIC)
    strata, tokens = [], []
    for language in range(400):
        for kind in kinds:
            source = f"s{(language * 7 + int(kind) * 13) % 300}"
            strata.append(Stratum(source, kind, groups=(("language", f"l{language}"),)))
            tokens.append((rng.integers(1, 200, 40) * np.exp(rng.normal(0, 0.5))).astype(np.int64) + 1)
    cells = cells_of([row.tolist() for row in tokens])
    params = MixtureParams(
        floors=(Rule("human_verified", Fraction(1, 3)), Rule("human_verified", Fraction(1, 2), by="language")),
        caps=(Rule("synthetic", Fraction(1, 5), by="source"),),
    )
    largest = plan_mixture(strata, cells, params)
    size = int(largest.size * Fraction(part))
    plan = plan_mixture(strata, cells, replace(params, size=size))
    assert_holds(plan, cells)
    assert size * 0.999 <= plan.size <= size


def test_tight_rules_on_both_sides_of_many_strata_are_feasible() -> None:
    """The floor and the caps leave one part in ten thousand, over two hundred strata of lumpy documents."""
    strata = strata_of(240, languages=20)
    rng = np.random.default_rng(8)
    cells = cells_of([rng.integers(200, 400, 60).tolist() for _ in strata])
    whole = [s.provenance for s in strata]
    shares = {kind: Fraction(whole.count(kind), len(whole)) for kind in Provenance}
    margin = Fraction(1, 10_000)
    params = MixtureParams(
        floors=tuple(Rule(kind.label, share - margin) for kind, share in shares.items()),
        caps=tuple(Rule(kind.label, share + margin) for kind, share in shares.items()),
        size=int(cells.tokens.sum()) // 2,
    )
    plan = plan_mixture(strata, cells, params)
    assert_holds(plan, cells)
    assert plan.size > params.size * 0.999


def test_a_group_in_the_way_of_other_rules_is_let_go_of() -> None:
    """German has verified text, but a cap on its only source leaves less of it than the floor asks."""
    strata = [
        Stratum("p", Provenance.HUMAN_VERIFIED, groups=(("language", "en"),)),
        Stratum("q", Provenance.HUMAN_VERIFIED, groups=(("language", "de"),)),
        Stratum("q", Provenance.HUMAN, groups=(("language", "de"),)),
    ]
    cells = cells_of([[100] * 50, [100] * 20, [100] * 20])
    caps = (Rule("source:q", Fraction(1, 10)),)

    def planned(otherwise: str) -> Plan:
        floor = Rule("human_verified", amount=1500, by="language", otherwise=otherwise)
        return plan_mixture(
            strata, cells, MixtureParams(floors=(Rule("human_verified", Fraction(1, 2)), floor), caps=caps)
        )

    with pytest.raises(InfeasibleMixture):
        planned("fail")
    assert planned("drop").taken[1].tolist() == [5000, 0, 0]
    exempt = planned("exempt")
    assert [group for _, group in exempt.exempt] == ["de"]
    assert exempt.taken[1].sum() > 5000


@pytest.mark.parametrize(
    ("floors", "caps", "size", "changes"),
    [
        (["0.9"], [("human_any", "0.5")], None, {"floor human_verified 9/10": "1/2", "cap human_any 1/2": "9/10"}),
        (["0.5"], [], 1_000_000, {"floor human_verified 1/2": "2/5"}),
        (["0.5"], [("synthetic", "0.3")], 3_000_000, {}),
    ],
)
def test_the_smallest_change_of_one_rule_that_helps_is_told(
    floors: list[str], caps: list[tuple[str, str]], size: int | None, changes: dict[str, str]
) -> None:
    strata = [Stratum("v", Provenance.HUMAN_VERIFIED), Stratum("s", Provenance.SYNTHETIC, "x")]
    cells = cells_of([[400] * 1000, [1000] * 1000])
    params = MixtureParams(
        floors=tuple(Rule("human_verified", Fraction(f)) for f in floors),
        caps=tuple(Rule(of, Fraction(share)) for of, share in caps),
        size=size,
    )
    with pytest.raises(InfeasibleMixture) as caught:
        plan_mixture(strata, cells, params)
    told = {change["rule"]: change["to"] for change in caught.value.changes}
    assert set(told) == set(changes)
    for rule, value in changes.items():
        assert abs(Fraction(told[rule]) - Fraction(value)) < Fraction(1, 500)
        assert f"{rule} to {told[rule]}" in str(caught.value)
        kind, of, _ = rule.split()
        loose = Rule(of, Fraction(told[rule]))
        changed = replace(params, floors=(loose,)) if kind == "floor" else replace(params, caps=(loose,))
        assert plan_mixture(strata, cells, changed).size > 0


def test_a_stratum_that_a_larger_size_would_shrink_is_named() -> None:
    """A source may be three tenths; the larger the mix, the more of that has to be its verified text."""
    strata = [
        Stratum("a", Provenance.HUMAN_VERIFIED),
        Stratum("s", Provenance.HUMAN_VERIFIED),
        Stratum("s", Provenance.UNKNOWN),
        Stratum("w", Provenance.UNKNOWN),
    ]
    cells = cells_of([[100] * 400, [100] * 600, [100] * 600, [100] * 1200])
    params = MixtureParams(
        floors=(Rule("human_verified", Fraction(1, 2)),), max_shares={"s": Fraction(3, 10)}, size=100_000
    )
    supply = Supply(strata, cells, params)
    (note,) = shrinking(supply, params)
    assert note == "raising size to 200000 would take less of s unknown: 0 instead of 15000 tokens"
    assert shrinking(supply, replace(params, max_shares={})) == []
    assert shrinking(supply, replace(params, size=None)) == []


def test_what_repeats_are_worth() -> None:
    for epochs, value in ((2, 0.984), (4, 0.931), (8, 0.828), (16, 0.661)):
        assert worth(1000, 1000 * epochs) / (1000 * epochs) == pytest.approx(value, abs=5e-4)
    assert worth(10, 10**9) == pytest.approx(10 * (1 + R_STAR))
