"""Sources: their files, columns, and what their owner says about where the text comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pipeline.config_blocks import AUTO, Auto, Block, Key, ListOf, MapOf
from pipeline.config_kinds import Choice, Flag, GlobOf, Kind, PathTo, Text
from pipeline.config_numbers import Whole
from pipeline.config_yaml import At, Number, Raw
from transforms.kernels.recognisers import LABEL_NAMES

__all__ = [
    "METHODS",
    "MIX_COLUMNS",
    "Columns",
    "Custody",
    "Join",
    "Kept",
    "Messages",
    "Source",
    "Synthetic",
]

METHODS = ("pre_cutoff_archive", "licensed_source", "controlled_collection", "notarised_author")

MIX_COLUMNS = (
    *("id", "text", "source", "provenance", "generator", "evidence", "n_tokens", "n_bytes", "represents"),
    *("copy", "language", "license", "doc_id", "shard", "row", "part"),
)
"""The columns every mix has; a kept column may not be called like one of them."""

NAME = Text("a name of letters, digits, - _ and . that begins with a letter or digit", r"[A-Za-z0-9][A-Za-z0-9_.-]*")
FIELD_PATH = Text("a column, or the dotted path of a nested one", r"[^.]+(\.[^.]+)*")

_NEVER_VERIFIES = "only custody verifies, under a manifest signed by a trusted key"
LABEL = Choice(
    *("human", "ai_assisted", "synthetic", "unknown"),
    instead={"human_verified": _NEVER_VERIFIES},
)
BELIEF = Choice(
    *("human", "ai_assisted", "unknown"),
    instead={
        "human_verified": _NEVER_VERIFIES,
        "synthetic": "write synthetic: {generator: NAME, kind: rephrase | generated} instead",
    },
)


@dataclass(frozen=True, kw_only=True)
class Join:
    """Text made of several columns, joined in this order."""

    join: Annotated[tuple[str, ...], Key(ListOf(FIELD_PATH, least=1, ordered=True), "the columns, in order")]


@dataclass(frozen=True, kw_only=True)
class Messages:
    """Text made of a conversation; `count` names the roles whose tokens count, None counts all of them."""

    messages: Annotated[str, Key(FIELD_PATH, "the column that holds the list of messages")]
    count: Annotated[
        tuple[str, ...] | None,
        Key(ListOf(Text("a role such as assistant"), least=1, single=True), "roles whose tokens count; default: all"),
    ] = None


class Column(Kind):
    """A dotted path, or null for none; left out, the column is recognised."""

    takes_null = True
    valid = "a column, the dotted path of a nested one, or null for none"

    def parse(self, raw: Raw, at: At) -> str | None:
        if raw is None:
            return None
        if not isinstance(raw, str | Number):
            self.reject(raw, at)
        return FIELD_PATH.parse(raw, at)

    def schema(self) -> dict[str, Any]:
        return {"type": ["string", "null"]}

    def plain(self, value: str | None) -> str | None:
        return None if value is None else FIELD_PATH.plain(value)

    def meaning(self, value: str | None) -> str | None:
        return value


class TextColumn(Kind):
    """The one column that cannot be off, and that can be made of several."""

    takes_null = True
    valid = "a dotted path, {join: [title, body]} or {messages: conversation, count: [assistant]}"
    join, messages = Block(Join), Block(Messages)

    def parse(self, raw: Raw, at: At) -> str | Join | Messages:
        if isinstance(raw, str | Number):
            return FIELD_PATH.parse(raw, at)
        if not isinstance(raw, dict):
            self.reject(raw, at, "a source cannot be without text" if raw is None else "")
        if ("join" in raw) == ("messages" in raw):
            self.reject(raw, at)
        form = self.join if "join" in raw else self.messages
        made: Join | Messages = form.parse(raw, at)
        return made

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, self.join.schema(), self.messages.schema()]}

    def plain(self, value: str | Join | Messages) -> Any:
        if isinstance(value, str):
            return FIELD_PATH.plain(value)
        return (self.join if isinstance(value, Join) else self.messages).plain(value)

    def meaning(self, value: str | Join | Messages) -> Any:
        if isinstance(value, str):
            return value
        return (self.join if isinstance(value, Join) else self.messages).meaning(value)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where each field of a document stands: a dotted path, None for nowhere, AUTO to be recognised."""

    text: Annotated[str | Join | Messages | Auto, Key(TextColumn(), "the text: a column, a join or a conversation")] = (
        AUTO
    )
    id: Annotated[str | Auto | None, Key(Column(), "the user's own id, carried as doc_id")] = AUTO
    language: Annotated[str | Auto | None, Key(Column(), "language code")] = AUTO
    license: Annotated[
        str | Auto | None, Key(Column(), "license of the document; the source's license is its default")
    ] = AUTO
    url: Annotated[str | Auto | None, Key(Column(), "where the document was found")] = AUTO
    date: Annotated[str | Auto | None, Key(Column(), "date of publication")] = AUTO
    generator: Annotated[str | Auto | None, Key(Column(), "the model that wrote the text")] = AUTO
    label: Annotated[str | Auto | None, Key(Column(), "label of origin; named here, and mapped by labels")] = AUTO


@dataclass(frozen=True)
class Kept:
    """An input column that is carried into the mix under a name of its own."""

    name: str
    path: str


class Keep(Kind):
    """A list of dotted paths, named by their last part, or a mapping from names to paths."""

    valid = "a list of columns such as [title, meta.url], or a mapping such as {page_url: meta.url}"

    def parse(self, raw: Raw, at: At) -> tuple[Kept, ...]:
        if isinstance(raw, list):
            paths = [FIELD_PATH.parse(item, at / place) for place, item in enumerate(raw)]
            kept = tuple(Kept(path.rsplit(".", 1)[-1], path) for path in paths)
        elif isinstance(raw, dict):
            kept = tuple(Kept(name, FIELD_PATH.parse(path, at / name)) for name, path in raw.items())
        else:
            self.reject(raw, at)
        taken: dict[str, str] = {}
        for item in kept:
            other = f"{item.name}_in: {item.path}"
            if not item.name.strip():
                at.fail("bad_value", "a kept column needs a name", raw)
            if item.name in MIX_COLUMNS:
                says = f'a mix already has a column "{item.name}"; give yours another name, as in keep: {{{other}}}'
                at.fail("bad_value", says, item.path)
            if item.name in taken:
                says = f'"{taken[item.name]}" has the name "{item.name}" too; name them apart: keep: {{{other}}}'
                at.fail("bad_value", says, item.path)
            taken[item.name] = item.path
        return kept

    def schema(self) -> dict[str, Any]:
        path = {"type": "string", "minLength": 1}
        return {"anyOf": [{"type": "array", "items": path}, {"type": "object", "additionalProperties": path}]}

    def plain(self, value: tuple[Kept, ...]) -> dict[str, str]:
        return {item.name: FIELD_PATH.plain(item.path) for item in value}

    def meaning(self, value: tuple[Kept, ...]) -> list[list[str]]:
        return [[item.name, item.path] for item in value]


@dataclass(frozen=True, kw_only=True)
class Custody:
    """Why documents of a source may be verified: signed manifests, under one method."""

    method: Annotated[str, Key(Choice(*METHODS), "how the text came into custody")]
    manifest: Annotated[
        tuple[str, ...],
        Key(ListOf(PathTo("a signed manifest"), least=1, single=True), "one signed manifest, or a list of them"),
    ]
    on_mismatch: Annotated[
        str, Key(Choice("fail", "demote"), "what an altered shard does: stop the run, or lose its verification")
    ] = "fail"


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """All documents of a source are model output."""

    generator: Annotated[str | None, Key(Text("the name of a model"), "the model; default: the generator column")] = (
        None
    )
    kind: Annotated[str, Key(Choice("rephrase", "generated"), "a model's words for a human text, or its own")] = (
        "generated"
    )


@dataclass(frozen=True, kw_only=True)
class Source:
    """A named set of input shards with one set of rules."""

    name: Annotated[str, Key(NAME, "the name that rules, keys and reports use")]
    files: Annotated[
        tuple[str, ...],
        Key(ListOf(GlobOf("a shard, or a glob"), least=1, single=True), "shards: parquet, jsonl, csv; .gz and .zst"),
    ]
    optional: Annotated[bool, Key(Flag(), "whether a glob may match nothing")] = False
    columns: Annotated[Columns, Key(Block(Columns), "where each field stands; left out is recognised, null is off")] = (
        field(default_factory=Columns)
    )
    labels: Annotated[
        Mapping[str, str], Key(MapOf(LABEL, "values of the label column"), "what the values of the label column mean")
    ] = field(default_factory=dict)
    declare: Annotated[str, Key(BELIEF, "what the owner believes about unlabelled documents; never verification")] = (
        "unknown"
    )
    keep: Annotated[tuple[Kept, ...], Key(Keep(), "further columns that are carried into the mix")] = ()
    license: Annotated[str | None, Key(Text("a license such as CC-BY-4.0"), "license of documents that state none")] = (
        None
    )
    priority: Annotated[
        int, Key(Whole(-1_000_000, 1_000_000), "of two near-duplicates of one origin, the higher number stays")
    ] = 0
    custody: Annotated[Custody | None, Key(Block(Custody), "signed manifests that verify documents as human")] = None
    synthetic: Annotated[Synthetic | None, Key(Block(Synthetic), "declares every document model output")] = None

    def check(self, at: At) -> None:
        label = self.columns.label
        if isinstance(label, str) and not self.labels:
            says = (
                "a label column asserts nothing until its values are mapped: does 1 mean human or machine? Answer with "
                'labels: {"1": human, "0": synthetic}, or the other way round'
            )
            (at / "columns" / "label").fail("missing_key", f"{says}; or leave label out", label)
        if self.labels and not isinstance(label, str):
            says = "labels need the column they speak of, which is never guessed: columns: {label: NAME}"
            (at / "labels").fail("missing_key", says, dict(self.labels))
        generator = self.columns.generator
        if isinstance(generator, str) and generator.rsplit(".", 1)[-1].lower() in LABEL_NAMES:
            says = (
                "looks like a label of origin, not like the name of a model; what do its values mean? Name it under "
                'columns.label and answer under labels: {"1": synthetic, "0": human}, or the other way round'
            )
            (at / "columns" / "generator").fail("unmapped_label", says, generator)
        if self.synthetic and self.declare != "unknown":
            says = "contradicts `synthetic`, which declares every document model output; leave one of the two out"
            (at / "declare").fail("bad_value", says, self.declare)
        if self.custody and self.synthetic:
            says = "custody verifies human text, `synthetic` declares model output; leave one of the two out"
            (at / "custody").fail("bad_value", says)
        if self.custody and isinstance(self.columns.text, Join | Messages):
            form = "join" if isinstance(self.columns.text, Join) else "messages"
            says = f"custody signs the bytes of one plain text column; name it instead of {form}, or drop custody"
            (at / "columns" / "text").fail("bad_value", says)
