"""Which columns of a file hold what: the user's map, the names recognised without one, and what a file really has.

A path is a column name, or names joined by dots that lead into nested values. A top-level column whose own name holds
the dots comes first. Recognition settles on the first existing candidate, once per shard and whatever its type.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from transforms.kernels.schemas import KEEP_PREFIX

__all__ = [
    "AUTO",
    "Auto",
    "Column",
    "ColumnMap",
    "Join",
    "Located",
    "Messages",
    "MissingColumn",
    "TextColumn",
    "locate",
    "missing",
    "paths_of",
]


class Auto(Enum):
    """The type of AUTO: take the first existing candidate, or nothing."""

    AUTO = "auto"


AUTO = Auto.AUTO

CANDIDATES: Mapping[str, tuple[str, ...]] = {
    "text": (
        "text",
        "content",
        "raw_content",
        "document",
        "body",
        "article",
        "passage",
        "full_text",
        "raw_text",
        "code",
    ),
    "doc_id": ("id", "doc_id", "_id", "uuid", "document_id", "docid", "guid", "record_id", "WARC-Record-ID"),
    "language": ("language", "lang", "language_code", "lang_code"),
    "license": ("license", "licence"),
    "url": ("url", "source_url", "uri", "link", "WARC-Target-URI"),
    "date": ("date", "published", "published_at", "created", "created_at", "timestamp"),
    "generator": ("generator", "model", "model_name", "generated_by", "gen_model"),
}
"""`label` and `n_tokens` are absent: what a column asserts, or counts, only its owner can say."""

FIELDS = ("doc_id", "language", "license", "url", "date", "generator", "label", "n_tokens")
_KEYS_OF_USERS = {"doc_id": "columns.id", "n_tokens": "tokens.column"}
"""What a config calls a field, where it is not columns.<field>."""

Column = Auto | str | None
"""Recognised, a path, or off."""

Keys = tuple[str, ...]
"""A path as it was found: one name per level."""

Tree = dict[str, Any]
"""The columns a file has: name to the tree of what is nested below it."""


@dataclass(frozen=True)
class Join:
    """Text made of several columns in the given order; null and empty ones are left out."""

    paths: tuple[str, ...]
    separator: str = "\n"


@dataclass(frozen=True)
class Messages:
    """Text made of a conversation: one `role: content` line for each message of the counted roles.

    A message is an object with `role` and `content`, or `from` and `value`. One without a role is its content alone,
    one without content is left out.
    """

    path: str
    count: tuple[str, ...] = ()  # roles whose messages make the text; none named means all


TextColumn = Auto | str | Join | Messages


@dataclass(frozen=True)
class ColumnMap:
    """Where a source's files hold text, metadata, and the columns to carry along."""

    text: TextColumn = AUTO
    doc_id: Column = AUTO
    language: Column = AUTO
    license: Column = AUTO
    url: Column = AUTO
    date: Column = AUTO
    generator: Column = AUTO
    label: Column = None
    n_tokens: Column = None
    keep: tuple[tuple[str, str], ...] = ()  # (name in the mix, path in the file)

    def __post_init__(self) -> None:
        for name in ("label", "n_tokens"):
            if getattr(self, name) is AUTO:
                raise ValueError(f"columns.{name} is AUTO, but is never recognised; give a path, or None for off")

    @property
    def kept(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.keep)

    @property
    def text_paths(self) -> tuple[str, ...]:
        """The named columns that text is made of; none when it is recognised."""
        match self.text:
            case Join(paths=paths):
                return paths
            case Messages(path=path) | str(path):
                return (path,)
        return ()

    def text_only(self) -> ColumnMap:
        """The same text without anything beside it."""
        return ColumnMap(self.text, None, None, None, None, None, None)


class MissingColumn(Exception):
    """A named column, or any text column, that the file does not have."""

    def __init__(self, path: str, role: str, wanted: str | None, existing: tuple[str, ...]) -> None:
        super().__init__(path, role, wanted, existing)
        self.path = path
        self.role = role
        self.wanted = wanted
        self.existing = existing

    def __str__(self) -> str:
        holds = f"it has {', '.join(self.existing)}" if self.existing else "it has no columns"
        if self.wanted is None:
            known = ", ".join(CANDIDATES["text"])
            return (
                f"{self.path}: no text column was recognised ({known}); {holds}. Name the one to read as columns.text"
            )
        near = difflib.get_close_matches(self.wanted, self.existing, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else "name one of these, or null to leave it out"
        return f"{self.path}: there is no column {self.wanted!r}, named as {self.role}; {holds}; {hint}"


@dataclass(frozen=True)
class Located:
    """The columns to read from one shard."""

    text: tuple[Keys, ...]
    fields: Mapping[str, Keys]  # a name of FIELDS, or KEEP_PREFIX and a kept name
    unseen: tuple[MissingColumn, ...] = ()

    def columns(self) -> set[Keys]:
        return {*self.text, *self.fields.values()}


def locate(columns: ColumnMap, tree: Tree, path: str) -> Located:
    """Finds every wanted column; those named in vain are in `unseen`, at the keys where they would be.

    Raises:
        MissingColumn: no text column is named and none is recognised.
    """
    existing = tuple(paths_of(tree))
    unseen = []

    def found(role: str, wanted: str) -> Keys:
        keys = _find(tree, wanted)
        if keys is None:
            unseen.append(MissingColumn(path, role, wanted, existing))
        return keys or tuple(wanted.split("."))

    text = tuple(found("columns.text", wanted) for wanted in columns.text_paths)
    if columns.text is AUTO:
        recognised = _recognise(tree, "text")
        if recognised is None:
            raise MissingColumn(path, "columns.text", None, existing)
        text = (recognised,)
    fields: dict[str, Keys] = {}
    for name in FIELDS:
        column: Column = getattr(columns, name)
        if isinstance(column, str):
            fields[name] = found(_KEYS_OF_USERS.get(name, f"columns.{name}"), column)
        elif column is AUTO and (keys := _recognise(tree, name)):
            fields[name] = keys
    for name, wanted in columns.keep:
        fields[KEEP_PREFIX + name] = found("keep", wanted)
    return Located(text, fields, tuple(unseen))


def missing(columns: ColumnMap, tree: Tree, path: str) -> list[MissingColumn]:
    """Every column that is named, or needed, and not in the tree."""
    try:
        return list(locate(columns, tree, path).unseen)
    except MissingColumn as error:
        return [error]


def paths_of(tree: Tree, prefix: str = "") -> Iterator[str]:
    """All paths of a tree, outer ones before what they hold."""
    for name, below in tree.items():
        yield prefix + name
        yield from paths_of(below, f"{prefix}{name}.")


def _find(tree: Tree, path: str) -> Keys | None:
    if path in tree:
        return (path,)
    keys = tuple(path.split("."))
    for key in keys:
        if key not in tree:
            return None
        tree = tree[key]
    return keys


def _recognise(tree: Tree, role: str) -> Keys | None:
    return next(((name,) for name in CANDIDATES.get(role, ()) if name in tree), None)
