"""The kinds of values a config holds: how each is parsed, described to editors, written back and compared.

A config class is a frozen dataclass whose fields are annotated with a `Key`; `Block` turns a mapping into one. A kind
knows four things: `parse` (plain value to typed value, or a diagnosis), `schema` (its JSON Schema), `plain` (typed
value back to what `parse` accepts) and `meaning` (the same without what does not matter to the mix: paths, and the
order of things that have none).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from datetime import date
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any, NoReturn, get_type_hints

from pipeline.config_yaml import At, Number, Raw, parse_number

__all__ = [
    "AUTO",
    "Amount",
    "Auto",
    "Block",
    "Choice",
    "Day",
    "Flag",
    "Key",
    "Kind",
    "ListOf",
    "MapOf",
    "Or",
    "PathTo",
    "Share",
    "Text",
    "Weight",
    "Whole",
    "is_url",
    "nearest",
    "plain_fraction",
    "unknown_name",
]

LARGEST = 2**63 - 1
"""Amounts and seeds are stored as 64-bit integers."""
MOST_DIGITS = 9
"""Digits after the point of a share: its numerator and denominator then fit in 32 bits."""

_FRACTION = re.compile(r"(\d{1,10})\s*/\s*(\d{1,10})", re.ASCII)
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?)B", re.ASCII | re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_POWERS = "KMGTP"


class Auto(Enum):
    """The value of a column that nobody named: recognised by its name and type."""

    AUTO = "auto"


AUTO = Auto.AUTO


class Kind:
    """A kind of value; by default it is written and compared as it is."""

    valid = "a value"
    takes_null = False  # elsewhere an empty value means that the key was left out

    def parse(self, raw: Raw, at: At) -> Any:
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        raise NotImplementedError

    def plain(self, value: Any) -> Any:
        return value

    def meaning(self, value: Any) -> Any:
        return self.plain(value)

    def reject(self, raw: Raw, at: At, why: str = "") -> NoReturn:
        at.fail("bad_value", f"{why}{'; ' if why else ''}valid is {self.valid}", raw)


def is_url(path: str) -> bool:
    return bool(_URL.match(path))


def nearest(word: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches  # only a mistake pays for this import

    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def plain_fraction(value: Fraction) -> int | float | str:
    """A fraction as a config would write it, chosen so that reading it back is exact."""
    if value.denominator == 1:
        return value.numerator
    text = repr(float(value))
    return float(value) if "e" not in text and Fraction(Decimal(text)) == value else str(value)


def _decimal(raw: Raw) -> Decimal | None:
    """The number in a value; quoted numbers count, since variables must be quoted inside [...] and {...}."""
    if isinstance(raw, Number):
        return parse_number(raw.text)
    return parse_number(raw.strip()) if isinstance(raw, str) else None


def _with_variable(schema: dict[str, Any]) -> dict[str, Any]:
    """Editors see the file before variables are filled."""
    return {"anyOf": [schema, {"type": "string", "pattern": r"\$\{"}]}


class Text(Kind):
    """A non-empty string; an unquoted number is taken as its text, because ids and versions look like that."""

    def __init__(self, valid: str = "a string", pattern: str | None = None) -> None:
        self.valid = valid
        self.pattern = pattern

    def parse(self, raw: Raw, at: At) -> str:
        text = raw.text if isinstance(raw, Number) else raw
        if not isinstance(text, str) or not text.strip():
            self.reject(raw, at)
        if self.pattern and not re.fullmatch(self.pattern, text):
            self.reject(raw, at)
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}

    def plain(self, value: str) -> str:
        return value.replace("${", "$${")

    def meaning(self, value: str) -> str:
        return value


class PathTo(Kind):
    """A path or glob, relative to the config's folder; URLs stay as they are. Paths carry no meaning."""

    def __init__(self, what: str) -> None:
        self.valid = f"the path of {what}"

    def parse(self, raw: Raw, at: At) -> str:
        text = raw.text if isinstance(raw, Number) else raw
        if not isinstance(text, str) or not text.strip() or "\0" in text:
            self.reject(raw, at)
        return text if is_url(text) else os.path.normpath(os.path.join(at.origin.folder, text))

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}

    def plain(self, value: str) -> str:
        return value.replace("${", "$${")

    def meaning(self, value: str) -> bool:
        return True


class Choice(Kind):
    def __init__(self, *words: str, instead: dict[str, str] | None = None) -> None:
        self.words = words
        self.instead = instead or {}  # words people are likely to try, and why they are not among the choices
        self.valid = " | ".join(words)

    def parse(self, raw: Raw, at: At) -> str:
        word = raw if isinstance(raw, str) else ""
        if word not in self.words:
            near = nearest(word, self.words)
            self.reject(raw, at, self.instead.get(word) or (f'did you mean "{near}"' if near else ""))
        return word

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


class Flag(Kind):
    valid = "true or false"

    def parse(self, raw: Raw, at: At) -> bool:
        value = {"true": True, "false": False}.get(raw) if isinstance(raw, str) else raw
        if not isinstance(value, bool):
            self.reject(raw, at)
        return bool(value)

    def schema(self) -> dict[str, Any]:
        return _with_variable({"type": "boolean"})


class Whole(Kind):
    """A whole number; 3e11 and 1_000 are whole numbers."""

    def __init__(self, least: int, most: int = LARGEST) -> None:
        self.least, self.most = least, most
        upper = f" to {most:,}" if most < LARGEST else " up"
        self.valid = f"a whole number from {least:,}{upper}"

    def parse(self, raw: Raw, at: At) -> int:
        value = _decimal(raw)
        # The size of the exponent is looked at first: 1e999999 as an integer is a million digits.
        if value is None or value.adjusted() > 19 or value != value.to_integral_value():
            self.reject(raw, at)
        if not self.least <= int(value) <= self.most:
            self.reject(raw, at)
        return int(value)

    def schema(self) -> dict[str, Any]:
        upper = {"maximum": self.most} if self.most < LARGEST else {}
        return _with_variable({"type": "integer", "minimum": self.least, **upper})


class Amount(Kind):
    """A number of tokens, documents or bytes; only bytes have suffixes."""

    def __init__(self, always_bytes: bool = False) -> None:
        self.always_bytes = always_bytes
        self.valid = "a whole number from 1 up, such as 250000, 1_000 or 3e11"
        self.valid_bytes = self.valid + ", or bytes with a unit, such as 256MiB or 1GB"

    def parse(self, raw: Raw, at: At) -> int:
        in_bytes = self.always_bytes or at.byte_amounts
        valid = self.valid_bytes if in_bytes else self.valid
        size = _BYTES.fullmatch(raw.strip()) if isinstance(raw, str) else None
        if size and not in_bytes:
            why = "a unit of bytes needs mix.measure: bytes"
            at.fail("bad_value", f"{why}; valid is {valid}", raw)
        value = _decimal(raw)
        if size:
            number, power, binary = size.groups()
            unit = (1024 if binary else 1000) ** (_POWERS.index(power.upper()) + 1 if power else 0)
            value = Decimal(number) * unit
        if value is None or value.adjusted() > 19 or value != value.to_integral_value():
            at.fail("bad_value", f"valid is {valid}", raw)
        if not 1 <= int(value) <= LARGEST:
            at.fail("bad_value", f"valid is {valid}", raw)
        return int(value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "number", "minimum": 1}, {"type": "string"}]}


class Weight(Kind):
    """An exact positive number, never a float: decimals of at most 9 digits after the point, or "1/3"."""

    valid = 'a number above 0: a decimal of at most 9 digits after the point, or a fraction such as "1/3"'

    def parse(self, raw: Raw, at: At) -> Fraction:
        value = self.exact(raw, at)
        if not 0 < value <= 10**MOST_DIGITS:
            self.reject(raw, at)
        return value

    def exact(self, raw: Raw, at: At) -> Fraction:
        number = _decimal(raw)
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
        return plain_fraction(value)

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


class Day(Kind):
    valid = "a date written as 2026-11-20"

    def parse(self, raw: Raw, at: At) -> date:
        if not isinstance(raw, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", raw, re.ASCII):
            self.reject(raw, at)
        try:
            return date.fromisoformat(raw)
        except ValueError as error:
            self.reject(raw, at, str(error))

    def schema(self) -> dict[str, Any]:
        return _with_variable({"type": "string", "format": "date"})

    def plain(self, value: date) -> str:
        return value.isoformat()


class Or(Kind):
    """A word with a meaning of its own, or else a value of another kind."""

    def __init__(self, word: str, other: Kind) -> None:
        self.word, self.other = word, other

    def parse(self, raw: Raw, at: At) -> Any:
        if raw == self.word:
            return self.word
        if isinstance(raw, str) and (near := nearest(raw, [self.word])):
            at.fail("bad_value", f'did you mean "{near}"; valid is {self.word}, or {self.other.valid}', raw)
        return self.other.parse(raw, at)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"const": self.word}, self.other.schema()]}

    def plain(self, value: Any) -> Any:
        return value if value == self.word else self.other.plain(value)


class ListOf(Kind):
    """A list. With `single`, one value stands for a list of one; without `ordered`, order has no meaning."""

    def __init__(self, item: Kind, least: int = 0, single: bool = False, ordered: bool = False) -> None:
        self.item, self.least, self.single, self.ordered = item, least, single, ordered
        self.valid = f"a list, each item {item.valid}"

    def parse(self, raw: Raw, at: At) -> tuple[Any, ...]:
        if self.single and isinstance(raw, str | Number):
            return (self.item.parse(raw, at),)
        if not isinstance(raw, list):
            at.fail("bad_value", f"valid is {self.valid}", raw)
        if len(raw) < self.least:
            at.fail("bad_value", f"the list is empty; valid is {self.valid}", raw)
        return tuple(self.item.parse(value, self._below(at, place, value)) for place, value in enumerate(raw))

    @staticmethod
    def _below(at: At, place: int, value: Raw) -> At:
        name = value.get("name") if isinstance(value, dict) else None
        return at.item(place, name) if isinstance(name, str) and name else at / place

    def schema(self) -> dict[str, Any]:
        items: dict[str, Any] = {"type": "array", "items": self.item.schema()}
        if self.least:
            items["minItems"] = self.least
        return {"anyOf": [items, self.item.schema()]} if self.single else items

    def plain(self, value: tuple[Any, ...]) -> list[Any]:
        return [self.item.plain(item) for item in value]

    def meaning(self, value: tuple[Any, ...]) -> Any:
        if isinstance(self.item, PathTo):  # how many globs name the same files does not matter either
            return bool(value)
        items = [self.item.meaning(item) for item in value]
        return items if self.ordered else sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


class MapOf(Kind):
    """A mapping from names to values of one kind; `names`, where given, are the only valid ones."""

    def __init__(self, value: Kind, what: str, names: tuple[str, ...] = ()) -> None:
        self.value, self.names = value, names
        self.valid = f"a mapping from {what} to {value.valid}"

    def parse(self, raw: Raw, at: At) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.reject(raw, at)
        for name in raw:
            if self.names and name not in self.names:
                unknown_name(name, self.names, at / name)
        return {name: self.value.parse(value, at / name) for name, value in raw.items()}

    def schema(self) -> dict[str, Any]:
        names = {"propertyNames": {"enum": list(self.names)}} if self.names else {}
        return {"type": "object", "additionalProperties": self.value.schema(), **names}

    def plain(self, value: dict[str, Any]) -> dict[str, Any]:
        return {name: self.value.plain(item) for name, item in value.items()}

    def meaning(self, value: dict[str, Any]) -> dict[str, Any]:
        return {name: self.value.meaning(value[name]) for name in sorted(value)}


def unknown_name(name: str, known: Iterable[str], at: At) -> NoReturn:
    """Refuse a key, naming the nearest known one, or the place where a key of that name belongs."""
    known = list(known)
    near = nearest(name, known)
    elsewhere = [path for path in at.origin.known_paths if path.split(".")[-1] == name]
    hint = f"it belongs at {' or '.join(elsewhere)}. " if elsewhere else ""
    if near:
        hint = f'did you mean "{near}"? '
    says = f"unknown key; {hint}known here: {', '.join(known) or 'none'}"
    at.fail("unknown_key", says, nearest=near or next(iter(elsewhere), None))


@dataclass(frozen=True)
class Key:
    """What a field of a config class is annotated with: how it is parsed, and what it means."""

    kind: Kind
    doc: str


class Block(Kind):
    """A mapping with fixed keys: one frozen dataclass, each field `Annotated[type, Key(kind, doc)]`.

    A class may define `check(self, at)`, called on the parsed block, for what no single key can know.
    """

    def __init__(self, of: type[Any]) -> None:
        self.of = of
        hints = get_type_hints(of, include_extras=True)
        self.keys: dict[str, Key] = {item.name: hints[item.name].__metadata__[0] for item in fields(of)}
        self.defaults: dict[str, Any] = {
            item.name: item.default if item.default_factory is MISSING else item.default_factory()
            for item in fields(of)
        }
        self.valid = f"a mapping with the keys {', '.join(self.keys)}"

    def kind_of(self, name: str) -> Kind:
        return self.keys[name].kind

    def parse(self, raw: Raw, at: At) -> Any:
        if not isinstance(raw, dict):
            self.reject(raw, at)
        for name in raw:
            if name not in self.keys:
                unknown_name(name, self.keys, at / name)
        values = {name: self._value(name, raw, at / name, at) for name in self.keys}
        block = self.of(**values)
        if hasattr(block, "check"):
            block.check(at)
        return block

    def _value(self, name: str, raw: dict[str, Raw], below: At, at: At) -> Any:
        kind = self.kind_of(name)
        if name in raw and (raw[name] is not None or kind.takes_null):
            return kind.parse(raw[name], below)
        default = self.defaults[name]
        if default is MISSING:
            says = f"this key is required; valid is {kind.valid}"
            (below if name in raw else At(at.origin, at.address, below.key)).fail("missing_key", says)
        return default

    def paths(self, above: str = "") -> Iterator[str]:
        """The path of every key below, list items and free names as their enclosing key."""
        for name in self.keys:
            path = f"{above}.{name}" if above else name
            yield path
            kind = self.kind_of(name)
            while isinstance(kind, ListOf | MapOf):
                kind = kind.item if isinstance(kind, ListOf) else kind.value
            if isinstance(kind, Block):
                yield from kind.paths(path)

    def schema(self) -> dict[str, Any]:
        properties = {}
        for name, key in self.keys.items():
            described = {**key.kind.schema(), "description": key.doc}
            default = self.defaults[name]
            if default is not MISSING and default is not AUTO and default is not None:
                described["default"] = key.kind.plain(default)
            properties[name] = described
        required = [name for name, default in self.defaults.items() if default is MISSING]
        result: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        return {**result, "required": required} if required else result

    def plain(self, value: Any) -> dict[str, Any]:
        return {name: self.kind_of(name).plain(item) for name, item in self._set(value)}

    def meaning(self, value: Any) -> dict[str, Any]:
        return {name: self.kind_of(name).meaning(item) for name, item in self._set(value)}

    def _set(self, value: Any) -> Iterator[tuple[str, Any]]:
        for name in self.keys:
            item = getattr(value, name)
            if item is AUTO or (item is None and not self.kind_of(name).takes_null):
                continue
            yield name, item
