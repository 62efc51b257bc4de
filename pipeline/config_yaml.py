"""YAML text to plain values that still know their exact text and their line.

PyYAML follows YAML 1.1 (`no` is False, `3e11` a string) and turns decimals into binary floats. Only its parser is
used here; scalars are resolved by the rules of YAML 1.2, and numbers keep their text, so that a share of 0.1 is 1/10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import yaml

from pipeline.errors import UsageError

__all__ = ["Address", "At", "Number", "Origin", "Raw", "parse_number", "read_tree", "show"]

Address = tuple[str | int, ...]
"""Keys and list positions from the top of the file down to one value."""

MAX_VALUES = 200_000
"""More values than any real config has; a few nested aliases can stand for billions."""

_NUMBER = re.compile(r"[-+]?(\d+(_\d+)*(\.\d*)?|\.\d+)([eE][-+]?\d{1,6})?", re.ASCII)
_VARIABLE = re.compile(r"\$(?:(\$\{)|\{(?:([A-Za-z_][A-Za-z0-9_]*)(:-([^{}]*))?\})?)")
_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}


@dataclass(frozen=True)
class Number:
    """An unquoted number: its exact text, because no float may stand between a share and its fraction."""

    text: str


Raw = None | bool | Number | str | list[Any] | dict[str, Any]


def parse_number(text: str) -> Decimal | None:
    """The exact value of a number's text; None where the text is no number."""
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text.replace("_", ""))
    except InvalidOperation:
        return None


@dataclass
class Origin:
    """Where a config came from, for resolving its paths and for naming its lines."""

    file: str
    folder: str
    known_paths: tuple[str, ...] = ()  # every key there is, for suggesting where a misplaced one belongs
    places: dict[Address, str] = field(default_factory=dict)  # "line 12", or the --set that put the value there

    def place(self, address: Address) -> str | None:
        """The place of a value, or of the closest value around it."""
        for end in range(len(address), 0, -1):
            if address[:end] in self.places:
                return self.places[address[:end]]
        return None


@dataclass(frozen=True)
class At:
    """A position in a config: what an error message needs to name."""

    origin: Origin
    address: Address = ()
    key: str = ""  # the address as people write it: sources.press.files[0]
    byte_amounts: bool = False  # whether amounts below this point count bytes, so that 256MiB means something

    def __truediv__(self, step: str | int) -> At:
        key = f"{self.key}[{step}]" if isinstance(step, int) else f"{self.key}.{step}" if self.key else step
        return At(self.origin, (*self.address, step), key, self.byte_amounts)

    def item(self, position: int, name: str) -> At:
        """A list item that has a name, addressed by it."""
        return At(self.origin, (*self.address, position), f"{self.key}.{name}", self.byte_amounts)

    def fail(self, code: str, says: str, *value: Any, **details: Any) -> NoReturn:
        """Raise the diagnosis for this position; `value` is shown where there is one."""
        place = self.origin.place(self.address)
        shown = f" = {show(value[0])}" if value else ""
        where = f"{self.origin.file}{', ' + place if place else ''}"
        if value:
            details["value"] = show(value[0])
        raise UsageError(code, f"{self.key}{shown}: {says} ({where})", key=self.key, **details)


def show(value: Any) -> str:
    """A value as a message quotes it: close to the YAML, on one line, never long."""
    if isinstance(value, Number):
        text = value.text
    elif isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, bool):
        text = str(value).lower()
    elif value is None:
        text = "null"
    elif isinstance(value, list):
        text = f"[{', '.join(map(show, value[:8]))}{', ...' if len(value) > 8 else ''}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{key}: {show(item)}' for key, item in list(value.items())[:8])}}}"
    else:
        text = str(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= 120 else text[:117] + "..."


def read_tree(text: str, at: At, environ: Mapping[str, str]) -> Raw:
    """Parse one YAML document, fill its variables, and note the line of every value below `at`."""
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        line = "".join(text.split("\n")[mark.line : mark.line + 1]) if mark else ""
        hint = '; quote a value with a variable inside [...] or {...}: "${NAME}"' if "${" in line else ""
        raise UsageError(
            "bad_yaml",
            f"{at.key or at.origin.file}: not valid YAML at {place}: {error.problem or error.context}{hint}",
            file=at.origin.file,
            line=mark.line + 1 if mark else None,
            column=mark.column + 1 if mark else None,
        ) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError("bad_yaml", f"{at.key or at.origin.file}: not valid YAML: {reason}") from None
    if node is None:
        return None
    return _Builder(at.origin, environ).build(node, at, ())


@dataclass
class _Builder:
    origin: Origin
    environ: Mapping[str, str]
    values: int = 0

    def build(self, node: yaml.Node, at: At, above: tuple[yaml.Node, ...]) -> Raw:
        self.values += 1
        if self.values > MAX_VALUES:
            at.fail("bad_yaml", f"more than {MAX_VALUES:,} values; aliases that multiply are the usual reason")
        if any(node is parent for parent in above):
            at.fail("bad_yaml", "an alias that contains itself; write the value out")
        self.origin.places.setdefault(at.address, f"line {node.start_mark.line + 1}")
        if node.tag not in _TAGS:
            at.fail("bad_yaml", f"the tag {node.tag} means nothing here; write the plain value")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, at / place, (*above, node)) for place, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)  # YAML knows no fourth kind of node
        return self._mapping(node, at, (*above, node))

    def _mapping(self, node: yaml.MappingNode, at: At, above: tuple[yaml.Node, ...]) -> dict[str, Raw]:
        result: dict[str, Raw] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                at.fail("bad_yaml", f"line {key.start_mark.line + 1}: a key must be one word or a quoted string")
            below = at / key.value
            line = key.start_mark.line + 1
            if key.value in result:
                first = self.origin.place(below.address)
                raise UsageError(
                    "duplicate_key",
                    f"{below.key}: written twice, on {first} and on line {line}; keep one ({self.origin.file})",
                    key=below.key,
                    line=line,
                )
            self.origin.places.setdefault(below.address, f"line {line}")
            result[key.value] = self.build(value, below, above)
        return result

    def _scalar(self, node: yaml.ScalarNode, at: At) -> Raw:
        text = self._filled(node.value, at) if "${" in node.value else node.value
        if node.style is not None:  # quoted, or a block: always a string
            return str(text)
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        return Number(text) if parse_number(text) is not None else str(text)

    def _filled(self, text: str, at: At) -> str:
        def fill(match: re.Match[str]) -> str:
            escaped, name, has_default, default = match.groups()
            if escaped:
                return "${"
            if name is None:
                says = "a variable is written ${NAME} or ${NAME:-default}; a plain ${ is written $${"
                at.fail("bad_value", says, text)
            value = self.environ.get(name, "")
            if value or (name in self.environ and not has_default):
                return value
            if not has_default:
                at.fail(
                    "unset_variable",
                    f"the environment variable {name} is not set; set it, or give a default: ${{{name}:-...}}",
                    text,
                    variable=name,
                )
            return str(default)

        return _VARIABLE.sub(fill, text)
