"""Which columns of a file hold what: the user's map, the names recognised without one, and what a file really has.

A path is a column name, or names joined by dots that lead into nested values. A top-level column whose own name holds
the dots comes first. Recognition settles on the first existing candidate, once per shard and whatever its type.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from transforms.kernels.recognisers import (
    Claim,
    DataSet,
    FieldRule,
    Rule,
    Voice,
    disclosure_fields,
    path_claims,
    recognise,
    unexplained_labels,
)
from transforms.kernels.schemas import KEEP_PREFIX, SCORE_PREFIX

__all__ = [
    "AUTO",
    "Auto",
    "Column",
    "ColumnMap",
    "Explode",
    "Join",
    "Located",
    "Messages",
    "MissingColumn",
    "OnLocated",
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
    "derived_from": ("derived_from", "was_derived_from", "prov:wasDerivedFrom"),
}
"""`label` and `n_tokens` are absent: what a column asserts, or counts, only its owner can say."""

FIELDS = ("doc_id", "language", "license", "url", "date", "generator", "label", "n_tokens", "derived_from")
_KEYS_OF_USERS = {"doc_id": "columns.id", "n_tokens": "tokens.column"}
"""What a config calls a field, where it is not columns.<field>."""

_CONVERSATIONS = ("messages", "conversation", "conversations")

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


@dataclass(frozen=True)
class Explode:
    """One document for each text of a row: of every path in turn its value, or every item of its list.

    Nobody writes this in a config: it is how a recognised data set of pairs is read.
    """

    paths: tuple[str, ...]
    voices: tuple[Voice, ...]


TextColumn = Auto | str | Join | Messages
ReadColumn = str | Join | Messages | Explode


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
    derived_from: Column = AUTO
    label: Column = None
    n_tokens: Column = None
    keep: tuple[tuple[str, str], ...] = ()  # (name in the mix, path in the file)
    origins: bool = True  # whether to read what recognised columns say of origin
    scores: tuple[str, ...] = ()  # paths of detectors' scores; a file may lack them

    def __post_init__(self) -> None:
        for name in ("label", "n_tokens"):
            if getattr(self, name) is AUTO:
                raise ValueError(f"columns.{name} is AUTO, but is never recognised; give a path, or None for off")

    @property
    def kept(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.keep)

    def text_only(self) -> ColumnMap:
        """The same text without anything beside it."""
        return ColumnMap(self.text, None, None, None, None, None, None, origins=False)


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
            chat = next((name for name in self.existing if name.lower() in _CONVERSATIONS), None)
            name = f"{{messages: {chat}}} as columns.text" if chat else "the one to read as columns.text"
            return f"{self.path}: no text column was recognised ({known}); {holds}. Name {name}"
        near = difflib.get_close_matches(self.wanted, self.existing, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else "name one of these, or null to leave it out"
        return f"{self.path}: there is no column {self.wanted!r}, named as {self.role}; {holds}; {hint}"


@dataclass(frozen=True)
class Located:
    """The columns to read from one shard, and what its data set and folders are known to say of origin."""

    form: ReadColumn  # how text is made of its columns, settled
    text: tuple[Keys, ...]
    fields: Mapping[str, Keys]  # a name of FIELDS, KEEP_PREFIX and a kept name, SCORE_PREFIX and a path
    unseen: tuple[MissingColumn, ...] = ()
    data_set: DataSet | None = None
    voice: Voice = Voice.NOBODY  # of text columns that are parts of a recognised data set
    rule: Rule | None = None  # of the data set,
    said: Mapping[str, Keys] = field(default_factory=dict)  # and the columns that it reads
    disclosed: Mapping[Keys, FieldRule] = field(default_factory=dict)
    path_claims: tuple[Claim, ...] = ()
    labels: tuple[str, ...] = ()  # columns that look like a label of origin and assert nothing

    def columns(self) -> set[Keys]:
        return {*self.text, *self.fields.values(), *self.told()}

    def told(self) -> set[Keys]:
        """The columns that say something of origin."""
        return {*self.said.values(), *self.disclosed}

    @property
    def makes_parts(self) -> bool:
        """Whether a row makes several documents."""
        return isinstance(self.form, Explode)

    @property
    def form_name(self) -> str:
        """plain, join, messages or parts."""
        match self.form:
            case Explode():
                return "parts"
            case Messages():
                return "messages"
            case Join():
                return "join"
        return "plain"


OnLocated = Callable[[Located], None]
"""Told once what was located, before any row is read."""


def locate(columns: ColumnMap, tree: Tree, path: str, *, may_grow: bool = False) -> Located:
    """Finds every wanted column; those named in vain are in `unseen`, at the keys where they would be.

    A score column may be missing; it is left out, unless the tree `may_grow`, as that of JSON lines does.

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

    data_set, spelled = recognise(tree) or (None, {})
    if columns.text is AUTO:
        form = _recognised_text(tree, data_set, spelled)
        if form is None:
            raise MissingColumn(path, "columns.text", None, existing)
    else:
        form = _named_text(columns.text, data_set, spelled)
    voice = Voice.NOBODY
    for part in data_set.parts if data_set else ():
        if isinstance(form, str | Join) and spelled[part.column] in _paths_of_text(form):
            voice |= part.voice
    text = tuple(found("columns.text", wanted) for wanted in _paths_of_text(form))
    fields: dict[str, Keys] = {}
    for name in FIELDS:
        column: Column = getattr(columns, name)
        if isinstance(column, str):
            fields[name] = found(_KEYS_OF_USERS.get(name, f"columns.{name}"), column)
        elif column is AUTO and (keys := _recognise(tree, name)):
            fields[name] = keys
    for name, wanted in columns.keep:
        fields[KEEP_PREFIX + name] = found("keep", wanted)
    # A score of a whole row is of none of the texts in it, so there its detector abstains.
    for wanted in () if isinstance(form, Explode) else columns.scores:
        place = _find(tree, wanted) or (tuple(wanted.split(".")) if may_grow else None)
        if place is not None:
            fields[SCORE_PREFIX + wanted] = place
    if not columns.origins:
        return Located(form, text, fields, tuple(unseen), data_set, voice)
    rule = data_set.rule if data_set else None
    taken = {*text, *([_find(tree, columns.label)] if isinstance(columns.label, str) else [])}
    return Located(
        form,
        text,
        fields,
        tuple(unseen),
        data_set,
        voice,
        rule=rule,
        said={name: (spelled[name],) for name in rule.columns} if rule else {},
        disclosed={keys: told for keys, told in disclosure_fields(tree).items() if keys not in taken},
        path_claims=path_claims(path),
        labels=tuple(unexplained_labels((name for name in tree if (name,) not in taken), data_set)),
    )


def _recognised_text(tree: Tree, data_set: DataSet | None, spelled: Mapping[str, str]) -> ReadColumn | None:
    """The text of a recognised data set, or the first column whose name says that it is the text."""
    usual = _recognise(tree, "text")
    if data_set is not None and "text" not in spelled:
        if data_set.parts:
            paths = tuple(spelled[part.column] for part in data_set.parts)
            return Explode(paths, tuple(part.voice for part in data_set.parts))
        if data_set.messages:
            return Messages(spelled[data_set.messages])
        if data_set.text:
            return spelled[data_set.text]
    return usual[0] if usual else None


def _named_text(text: TextColumn, data_set: DataSet | None, spelled: Mapping[str, str]) -> ReadColumn:
    """As named; a column of lists that is one part of a recognised data set gives the documents of that part."""
    assert not isinstance(text, Auto)
    for part in data_set.parts if data_set else ():
        if part.lists and text == spelled[part.column]:
            return Explode((text,), (part.voice,))
    return text


def _paths_of_text(form: ReadColumn) -> tuple[str, ...]:
    match form:
        case Join(paths=paths) | Explode(paths=paths):
            return paths
        case Messages(path=path) | str(path):
            return (path,)


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
