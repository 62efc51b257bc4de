"""Kinds of single values: how each is parsed, described to editors, written back and compared.

A kind knows four things: `parse` (plain value to typed value, or a diagnosis), `schema` (its JSON Schema), `plain`
(typed value back to what `parse` accepts) and `meaning` (the same without what does not matter to the mix: paths, and
the order of things that have none).
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from datetime import date
from typing import Any, NoReturn

from pipeline.config_yaml import At, Number, Raw

__all__ = ["Choice", "Day", "Flag", "GlobOf", "Kind", "PathTo", "Text", "is_url", "nearest", "or_variable"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


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


def or_variable(schema: dict[str, Any]) -> dict[str, Any]:
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
        return text if is_url(text) else os.path.normpath(os.path.join(self.below(at.origin.folder), text))

    def below(self, folder: str) -> str:
        return folder

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}

    def plain(self, value: str) -> str:
        return value.replace("${", "$${")

    def meaning(self, value: str) -> bool:
        return True


class GlobOf(PathTo):
    """A path that may hold wildcards; those of the config's own folder are none."""

    def below(self, folder: str) -> str:
        return glob.escape(folder)


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
        return or_variable({"type": "boolean"})


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
        return or_variable({"type": "string", "format": "date"})

    def plain(self, value: date) -> str:
        return value.isoformat()
