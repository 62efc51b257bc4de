"""`mix.weights`: shares of sources that were learned elsewhere, read from a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn

from pipeline.config import Config
from pipeline.config_kinds import nearest
from pipeline.errors import UsageError
from transforms import files

LARGEST = 10**9
MOST_DIGITS = 30
"""Learned weights are printed floats of at most 17 digits, some of them small; a fraction of more is a mistake."""


def learned_weights(config: Config) -> dict[str, Fraction] | None:
    """The share of the mix that each source is to have before rules, in any unit; None where none were learned."""
    path = config.mix.weights
    if path is None:
        return None
    names = [source.name for source in config.sources]
    weights = {name: _weight(path, name, value) for name, value in _read(path).items()}
    for name in weights:
        if name not in names:
            near = nearest(name, names)
            hint = f'; did you mean "{near}"' if near else ""
            _refuse(path, f'"{name}" is no source of this config{hint}; its sources are {", ".join(names)}')
    missing = [name for name in names if name not in weights]
    if missing:
        _refuse(path, f"there is no weight for {', '.join(missing)}; name every source, with 0 to leave one out")
    if not any(weights.values()):
        _refuse(path, "every weight is 0, which leaves nothing to mix; give at least one source a weight above 0")
    return weights


def _read(path: str) -> dict[str, Any]:
    try:
        found = json.loads(
            files.read_bytes(path), parse_float=Decimal, parse_constant=_not_finite, object_pairs_hook=_once
        )
    except OSError as error:
        _refuse(path, f"it cannot be read: {error.strerror or error}", code="unreadable_weights")
    except ValueError as error:
        _refuse(path, f"it is not JSON that this can use: {error}")
    if not isinstance(found, dict):
        _refuse(path, f"it holds a {type(found).__name__}")
    return found


def _not_finite(word: str) -> NoReturn:
    raise ValueError(f"{word} is no weight")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f'"{name}" stands twice')
        found[name] = value
    return found


def _weight(path: str, name: str, value: Any) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        _refuse(path, f'the weight of "{name}" is {json.dumps(value, default=str)}')
    # The size of the exponent is looked at first: 1e-999999 as a fraction has a million digits.
    exponent = Decimal(value).as_tuple().exponent
    if not 0 <= value <= LARGEST or not isinstance(exponent, int) or -exponent > MOST_DIGITS:
        _refuse(path, f'the weight of "{name}" is {value}')
    return Fraction(value)


def _refuse(path: str, why: str, code: str = "bad_weights") -> NoReturn:
    raise UsageError(
        code,
        f"mix.weights: {path!r}: {why}. Valid is one JSON object from every source to its share of the mix, such as "
        f'{{"press": 0.3, "web": 0.7}}: numbers from 0 to {LARGEST:,}, at most {MOST_DIGITS} digits after the point',
        key="mix.weights",
        path=path,
    )
