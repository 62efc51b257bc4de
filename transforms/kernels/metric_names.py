"""Which metrics there are, in which scopes, and what each of them asks for. Loads nothing."""

from __future__ import annotations

__all__ = ["CORE", "FULL", "INPUT_SCOPES", "METRICS", "MIX_SCOPES", "SCOPES", "scopes_of"]

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

METRICS = (*CORE, *FULL)


def scopes_of(metric: str) -> tuple[str, ...]:
    """Where a metric can have a value."""
    return _OF_REMOVAL.get(metric, SCOPES)
