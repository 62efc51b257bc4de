"""Seconds and memory of planning a mix of many strata, for rules of three kinds.

    python benchmarks/bench_plan.py --strata 1000000

`generators` caps each of a sixtieth as many generators, and synthetic text as a whole; `languages` adds a floor for
each of 200 languages; `domains` has a floor for each of a sixth as many values of a kept column. Seconds are those of
the processor, because planning is one thread; strata and cells are made before the clock starts.
"""

from __future__ import annotations

import argparse
import resource
import time
from fractions import Fraction

import numpy as np

from transforms.kernels.mixture import Cells, MixtureParams, Plan, Rule, Stratum, plan_mixture
from transforms.kernels.schemas import Provenance

HALF = Rule("human_verified", Fraction(1, 2))
CAPS = (Rule("synthetic", Fraction(3, 10)), Rule("synthetic", Fraction(1, 100), by="generator"))
THIRD = Fraction(1, 3)
CASES = {
    "generators": MixtureParams(floors=(HALF,), caps=CAPS),
    "languages": MixtureParams(floors=(HALF, Rule("human_verified", THIRD, by="language")), caps=CAPS),
    "domains": MixtureParams(floors=(HALF, Rule("human_verified", THIRD, by="domain", otherwise="exempt"))),
}
CELLS_A_STRATUM = 4


def make_strata(count: int) -> list[Stratum]:
    """Every provenance of every domain; domains are spread over 50 sources and 200 languages."""
    kinds = list(Provenance)
    strata = []
    for number in range(count):
        domain, kind = divmod(number, len(kinds))
        generator = f"g{domain % max(1, count // 60)}" if kinds[kind] is Provenance.SYNTHETIC else None
        groups = (("domain", f"d{domain}"), ("language", f"l{domain // 50 % 200}"))
        strata.append(Stratum(f"s{domain % 50}", kinds[kind], generator, None, groups))
    return strata


def make_cells(count: int) -> Cells:
    """A few cells of skewed size in every stratum."""
    rng = np.random.default_rng(1)
    stratum = np.repeat(np.arange(count), CELLS_A_STRATUM)
    width = 4096 // CELLS_A_STRATUM
    bucket = rng.integers(0, width, (count, CELLS_A_STRATUM)) + np.arange(CELLS_A_STRATUM) * width
    tokens = rng.lognormal(6, 1.2, len(stratum)).astype(np.int64)
    return Cells(stratum, bucket.ravel(), rng.integers(1, 4, len(stratum)), tokens, tokens * 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strata", type=int, default=100_000)
    parser.add_argument("--rules", choices=CASES, nargs="*", default=list(CASES))
    asked = parser.parse_args()
    plan_mixture(make_strata(100), make_cells(100), CASES["generators"])  # compiled code is loaded once
    strata, cells = make_strata(asked.strata), make_cells(asked.strata)
    before = _peak()
    print(f"{asked.strata:,} strata, {len(cells.stratum):,} cells, {before:,.0f} MB before planning")
    print("| rules | seconds | most memory, MB | groups of rules | floor held at |\n|---|---|---|---|---|")
    for name in asked.rules:
        started = time.process_time()
        plan = plan_mixture(strata, cells, CASES[name])
        seconds = time.process_time() - started
        groups = _groups(CASES[name], strata)
        print(f"| {name} | {seconds:.1f} | {_peak():,.0f} | {groups:,} | {_verified(plan):.4f} |")


def _groups(params: MixtureParams, strata: list[Stratum]) -> int:
    rules = (*params.floors, *params.caps)
    return sum(len({s.value(rule.by) for s in strata if rule.covers(s)}) if rule.by else 1 for rule in rules)


def _verified(plan: Plan) -> float:
    shares = plan.verified_shares
    return shares.verified / shares.whole


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
