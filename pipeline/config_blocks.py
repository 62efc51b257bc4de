"""Kinds that hold others: lists, free mappings, and blocks, which turn a mapping into a frozen dataclass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Any, NoReturn, get_type_hints

from pipeline.config_kinds import Kind, PathTo, nearest
from pipeline.config_yaml import At, Number, Raw

__all__ = ["AUTO", "Auto", "Block", "Key", "ListOf", "MapOf", "Or", "unknown_name"]


class Auto(Enum):
    """The value of a column that nobody named: recognised by its name and type."""

    AUTO = "auto"


AUTO = Auto.AUTO


class Or(Kind):
    """A word with a meaning of its own, or else a value of another kind."""

    def __init__(self, word: str, other: Kind) -> None:
        self.word, self.other = word, other

    def parse(self, raw: Raw, at: At) -> Any:
        if raw == self.word:
            return self.word
        if isinstance(raw, str) and (near := nearest(raw, [self.word])):
            at.fail("bad_value", f'did you mean "{near}"; valid is {self.word}, or {self.other.valid}', raw)
        if isinstance(raw, str) and not any(map(str.isdigit, raw)):
            at.fail("bad_value", f"valid is {self.word}, or {self.other.valid}", raw)
        return self.other.parse(raw, at)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"const": self.word}, self.other.schema()]}

    def plain(self, value: Any) -> Any:
        return value if value == self.word else self.other.plain(value)


class ListOf(Kind):
    """A list. With `single`, one value stands for a list of one; without `ordered`, order has no meaning; without
    `titled`, a key `name` of its items says something else than how an item is called."""

    def __init__(
        self, item: Kind, least: int = 0, single: bool = False, ordered: bool = False, titled: bool = True
    ) -> None:
        self.item, self.least, self.single, self.ordered, self.titled = item, least, single, ordered, titled
        self.valid = f"{item.valid}, or a list of such" if single else f"a list, each item {item.valid}"

    def parse(self, raw: Raw, at: At) -> tuple[Any, ...]:
        if self.single and isinstance(raw, str | Number):
            return (self.item.parse(raw, at),)
        if not isinstance(raw, list):
            at.fail("bad_value", f"valid is {self.valid}", raw)
        if len(raw) < self.least:
            at.fail("bad_value", f"the list is empty; valid is {self.valid}", raw)
        return tuple(self.item.parse(value, self._below(at, place, value)) for place, value in enumerate(raw))

    def _below(self, at: At, place: int, value: Raw) -> At:
        name = value.get("name") if self.titled and isinstance(value, dict) else None
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
            if default is not MISSING and not key.kind.takes_null:  # an empty value leaves the key out
                described = {"anyOf": [key.kind.schema(), {"type": "null"}], "description": key.doc}
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
