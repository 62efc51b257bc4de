"""Kinds of numbers, all exact: no float stands between the text of a share and the arithmetic on it."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pipeline.config_kinds import Kind, or_variable
from pipeline.config_yaml import At, Number, Raw, parse_number

__all__ = ["Amount", "Share", "Weight", "Whole", "decimal_of"]

LARGEST = 2**63 - 1
"""Amounts and seeds are stored as 64-bit integers."""
MOST_DIGITS = 9
"""Digits after the point of a share: its numerator and denominator then fit in 32 bits."""

_FRACTION = re.compile(r"(\d{1,10})\s*/\s*(\d{1,10})", re.ASCII)
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?)B", re.ASCII | re.IGNORECASE)
_POWERS = "KMGTP"


def _plain(value: Fraction) -> int | float | str:
    """A fraction as a config would write it, chosen so that reading it back is exact."""
    if value.denominator == 1:
        return value.numerator
    text = repr(float(value))
    return float(value) if "e" not in text and Fraction(Decimal(text)) == value else str(value)


def decimal_of(raw: Raw) -> Decimal | None:
    """The number in a value; quoted numbers count, since variables must be quoted inside [...] and {...}."""
    if isinstance(raw, Number):
        return parse_number(raw.text)
    return parse_number(raw.strip()) if isinstance(raw, str) else None


def _integer(raw: Raw) -> int | None:
    value = decimal_of(raw)
    # The size of the exponent is looked at first: 1e999999 as an integer is a million digits.
    if value is None or value.adjusted() > 19 or value != value.to_integral_value():
        return None
    return int(value)


class Whole(Kind):
    """A whole number; 3e11 and 1_000 are whole numbers."""

    def __init__(self, least: int, most: int = LARGEST) -> None:
        self.least, self.most = least, most
        upper = f" to {most:,}" if most < LARGEST else " up"
        self.valid = f"a whole number from {least:,}{upper}" if least < most else str(least)

    def parse(self, raw: Raw, at: At) -> int:
        value = _integer(raw)
        if value is None or not self.least <= value <= self.most:
            self.reject(raw, at)
        return value

    def schema(self) -> dict[str, Any]:
        upper = {"maximum": self.most} if self.most < LARGEST else {}
        return or_variable({"type": "integer", "minimum": self.least, **upper})


class Amount(Kind):
    """A number of tokens, documents or bytes; only bytes have suffixes."""

    def __init__(self, always_bytes: bool = False, least: int = 1) -> None:
        self.always_bytes = always_bytes
        self.least = least
        self.valid = f"a whole number from {least} up, such as 250000, 1_000 or 3e11"
        self.valid_bytes = self.valid + ", or bytes with a unit, such as 256MiB or 1GB"

    def parse(self, raw: Raw, at: At) -> int:
        in_bytes = self.always_bytes or at.byte_amounts
        valid = self.valid_bytes if in_bytes else self.valid
        size = _BYTES.fullmatch(raw.strip()) if isinstance(raw, str) else None
        if size and not in_bytes:
            why = "a unit of bytes needs mix.measure: bytes"
            at.fail("bad_value", f"{why}; valid is {valid}", raw)
        if size:
            number, power, binary = size.groups()
            unit = (1024 if binary else 1000) ** (_POWERS.index(power.upper()) + 1 if power else 0)
            exact = Fraction(number) * unit
            amount = exact.numerator if exact.denominator == 1 else None
        else:
            amount = _integer(raw)
        if amount is None or not self.least <= amount <= LARGEST:
            at.fail("bad_value", f"valid is {valid}", raw)
        return amount

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "number", "minimum": self.least}, {"type": "string"}]}


class Weight(Kind):
    """An exact positive number, never a float: decimals of at most 9 digits after the point, or "1/3"."""

    valid = 'a number above 0: a decimal of at most 9 digits after the point, or a fraction such as "1/3"'

    def parse(self, raw: Raw, at: At) -> Fraction:
        value = self.exact(raw, at)
        if not 0 < value <= 10**MOST_DIGITS:
            self.reject(raw, at)
        return value

    def exact(self, raw: Raw, at: At) -> Fraction:
        number = decimal_of(raw)
        if number is not None:
            exponent = number.as_tuple().exponent
            if isinstance(exponent, int) and -exponent > MOST_DIGITS:
                self.reject(raw, at, f"{-exponent} digits after the point are too many")
            if number.adjusted() > MOST_DIGITS:
                self.reject(raw, at)
            return Fraction(number)
        terms = _FRACTION.fullmatch(raw.strip()) if isinstance(raw, str) else None
        if not terms or not 0 < int(terms[2]) <= 10**MOST_DIGITS:
            self.reject(raw, at)
        return Fraction(int(terms[1]), int(terms[2]))

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}

    def plain(self, value: Fraction) -> int | float | str:
        return _plain(value)

    def meaning(self, value: Fraction) -> str:
        return str(value)


class Share(Weight):
    """A part of a whole, between 0 and 1."""

    def __init__(self, above_zero: bool = False, too_big: str = "") -> None:
        self.above_zero = above_zero
        self.too_big = too_big
        self.valid = (
            f"a share {'above 0, at most' if above_zero else 'from 0 to'} 1: "
            'a decimal of at most 9 digits after the point, or a fraction such as "1/3"'
        )

    def parse(self, raw: Raw, at: At) -> Fraction:
        value = self.exact(raw, at)
        if value > 1:
            self.reject(raw, at, self.too_big)
        if value < 0 or (self.above_zero and value == 0):
            self.reject(raw, at)
        return value

    def schema(self) -> dict[str, Any]:
        least = {"exclusiveMinimum": 0} if self.above_zero else {"minimum": 0}
        return {"anyOf": [{"type": "number", **least, "maximum": 1}, {"type": "string"}]}
