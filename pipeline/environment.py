"""Settings that come from the environment: for operators and tests, never part of what a mix means."""

from __future__ import annotations

import os

from pipeline.errors import UsageError


def whole_number(name: str, default: int, unit: str, least: int = 0) -> int:
    """The value of an environment variable, or the default where it is unset or empty."""
    told = os.environ.get(name, "")
    if not told:
        return default
    if told.isascii() and told.isdecimal() and int(told) >= least:
        return int(told)
    usual = f"{default:,}" if default else "the default"
    raise UsageError(
        "bad_environment",
        f"{name}={told!r}: valid is a whole number of {unit}, from {least}; unset it for {usual}.",
        value=told,
    )
