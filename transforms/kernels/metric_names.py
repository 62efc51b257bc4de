"""Which metrics there are, in which scopes, and what each of them asks for. Loads nothing."""

from __future__ import annotations

__all__ = [
    "BASELINE_SCOPES",
    "CORE",
    "FULL",
    "GROUPS",
    "HELD_OUT",
    "INPUT_SCOPES",
    "METRICS",
    "MIX_SCOPES",
    "SCOPES",
    "scopes_of",
]

INPUT_SCOPES = ("input_shard", "source", "language", "corpus", "reference")
"""Of input documents: known before a mix is planned."""

MIX_SCOPES = ("output_shard", "provenance", "generator", "mix")
"""Of the mix: known once it is written."""

SCOPES = (*INPUT_SCOPES, *MIX_SCOPES)

_OF_REMOVAL = {"near_duplicate_rate": ("input_shard", "source", "corpus")}
"""Metrics of what removal did, in the scopes that removal accounts for; all others are measured everywhere."""

CORE = (
    *("documents", "tokens", "types", "hapaxes", "good_turing", "chao1", "heaps", "zipf"),
    *("distinct_1", "distinct_2", "distinct_3", "distinct_4", "entropy_1", "simpson", "yule_k"),
    *("length_p10", "length_p50", "length_p90"),
    *_OF_REMOVAL,
)
"""Always measured."""

FULL = (
    *("entropy_2", "entropy_3", "entropy_4", "hdd_42", "mattr_50", "mtld", "vendi_1", "vendi_2"),
    *("self_repetition_4", "compression_ratio", "template_rate"),
)
"""Measured with `diversity.metrics: full`."""

BASELINE_SCOPES = ("input_shard", "source", "corpus", *MIX_SCOPES)
"""What is held against works of held-out text; of a language it is not known from how many files it comes."""

_BANDS = ("1", "2_3", "4_7", "8_15")
_OF_BASELINE = ("baseline_p", "baseline_q", "baseline_effect", "differs_from_baseline")

HELD_OUT = (
    *("jsd_reference", "tail_coverage"),
    *(f"{metric}_{band}" for metric in ("tail_coverage", "missing_rare") for band in _BANDS),
    *_OF_BASELINE,
)
"""Measured with `diversity.reference`."""

METRICS = (*CORE, *FULL, *HELD_OUT)

GROUPS = {
    "tails": (
        *("types", "hapaxes", "good_turing", "chao1", "heaps", "zipf"),
        *(metric for metric in HELD_OUT if metric.startswith(("tail_coverage", "missing_rare"))),
    ),
    "repetition": (
        *(f"{metric}_{n}" for metric in ("distinct", "entropy") for n in (1, 2, 3, 4)),
        *("simpson", "yule_k", "self_repetition_4", "compression_ratio", "template_rate", "near_duplicate_rate"),
    ),
    "shape": (
        *("documents", "tokens", "length_p10", "length_p50", "length_p90"),
        *("mattr_50", "mtld", "hdd_42", "vendi_1", "vendi_2", "jsd_reference"),
    ),
    "baseline": _OF_BASELINE,
}
"""Every metric by the alarm it belongs to: tails go first, repetition shows late, shape is no alarm by itself, and
the comparison with human works sums up."""


def scopes_of(metric: str) -> tuple[str, ...]:
    """Where a metric can have a value."""
    if metric in _OF_BASELINE:
        return BASELINE_SCOPES
    if metric in HELD_OUT:
        return tuple(scope for scope in SCOPES if scope != "reference")
    return _OF_REMOVAL.get(metric, SCOPES)
