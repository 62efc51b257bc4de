"""What public data sets, disclosure fields, Hive paths and data cards say of origin: tables of small rules.

Rules read values as they stand in the input, before anything is cleaned. Whatever they find is a *declaration*: it is
kept as evidence and never says more than `human`. Where a data set holds a binary label whose meaning differs between
copies, nothing is guessed: the data set comes with the question to ask its owner.

Everything here is plain Python over a few distinct values; `origins` applies it to whole columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, Protocol

import yaml

__all__ = [
    "DATA_SETS",
    "LABEL_NAMES",
    "Claim",
    "DataSet",
    "FieldRule",
    "Part",
    "Rule",
    "Voice",
    "card_claims",
    "collection_claims",
    "disclosure_fields",
    "pack_claims",
    "path_claims",
    "recognise",
    "unexplained_labels",
    "unpack_claims",
]

_HUMAN, _ASSISTED, _SYNTHETIC = "human", "ai_assisted", "synthetic"
_DECLARED, _DETECTED, _HEURISTIC = "declared", "detected", "heuristic"
_SHOWN = 200  # characters of a raw value that evidence keeps


class Voice(IntFlag):
    """Who speaks in a document, where its part of the row or the roles of its messages say so."""

    NOBODY = 0
    HUMAN = 1
    MODEL = 2


HUMAN_ROLES = ("user", "human", "prompter")
MODEL_ROLES = ("assistant", "gpt", "chatgpt", "bot", "model", "ai", "claude", "bard", "bing")
"""Roles of messages; others, such as system and tool, are nobody's voice."""


@dataclass(frozen=True)
class Claim:
    """One thing that is said of a document's origin. Without a provenance it is noted, and asserts nothing."""

    rule: str
    provenance: str | None
    detail: str
    strength: str = _DECLARED
    generator: str | None = None
    kind: str | None = None  # rephrase | generated


def pack_claims(claims: Iterable[Claim]) -> str | None:
    """Claims as one short text, the same for the same claims; None for none."""
    rows = sorted({(c.rule, c.strength, c.provenance, c.generator, c.kind, c.detail) for c in claims}, key=repr)
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":")) if rows else None


def unpack_claims(packed: str | None) -> tuple[Claim, ...]:
    rows = json.loads(packed) if packed else ()
    return tuple(
        Claim(rule, provenance, detail, strength, generator, kind)
        for rule, strength, provenance, generator, kind, detail in rows
    )


Values = Mapping[str, str | None]
"""The columns that a rule reads, as text."""


class Rule(Protocol):
    """What some columns of a row, and who speaks in the document, say of its origin."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    def claims(self, name: str, values: Values, voice: Voice) -> Iterable[Claim]: ...


_NOBODY = frozenset({"", "none", "null", "nan", "n/a", "unknown"})


@dataclass(frozen=True)
class Author:
    """A column that names who wrote the text: `human`, or a model. `noted` columns are kept beside it."""

    column: str
    noted: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, *self.noted)

    def claims(self, name: str, values: Values, voice: Voice) -> Iterable[Claim]:
        author = (values[self.column] or "").strip()
        if author.lower() in _NOBODY:
            return
        notes = [f"{column}={values[column]}" for column in self.noted if (values[column] or "none") != "none"]
        detail = _shown(", ".join([f"{self.column}={author}", *notes]))
        rule = f"{name}.{self.column}"
        if author.lower() == _HUMAN:
            yield Claim(rule, _HUMAN, detail)
        else:
            yield Claim(rule, _SYNTHETIC, detail, generator=author)


@dataclass(frozen=True)
class SpelledAuthor:
    """A column whose values spell out the author among other things, and a label whose meaning holds beside it."""

    column: str
    human: str
    model: str  # its group is the model's name
    label: str
    labels: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, self.label)

    def claims(self, name: str, values: Values, voice: Voice) -> Iterable[Claim]:
        spelled, label = values[self.column] or "", values[self.label] or ""
        model = re.search(self.model, spelled)
        if model is None and not re.search(self.human, spelled):
            return  # not a row of this data set, so its label may mean anything
        rule, detail = f"{name}.{self.column}", _shown(f"{self.column}={spelled}")
        if model:
            yield Claim(rule, _SYNTHETIC, detail, generator=model[1])
        else:
            yield Claim(rule, _HUMAN, detail)
        if label in self.labels:
            yield Claim(f"{name}.{self.label}", self.labels[label], f"{self.label}={label}")


@dataclass(frozen=True)
class Always:
    """Every text of the data set was written by the same model."""

    generator: str
    columns: tuple[str, ...] = ()

    def claims(self, name: str, values: Values, voice: Voice) -> Iterable[Claim]:
        yield Claim(name, _SYNTHETIC, f"written by {self.generator}", generator=self.generator)


@dataclass(frozen=True)
class Speakers:
    """People and a model speak in one row; the model is named by a column, or is always the same.

    A document in which both speak is the model's: mixed authorship takes its worst part.
    """

    human: str  # how the data set calls the part, or role, of people
    model: str
    column: str | None = None
    generator: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,) if self.column else ()

    def claims(self, name: str, values: Values, voice: Voice) -> Iterable[Claim]:
        if voice & Voice.MODEL:
            generator = ((values[self.column] if self.column else self.generator) or "").strip()
            named = None if generator.lower() in _NOBODY else generator
            yield Claim(f"{name}.{self.model}", _SYNTHETIC, _shown(named or "an unnamed model"), generator=named)
        elif voice & Voice.HUMAN:
            yield Claim(f"{name}.{self.human}", _HUMAN, "written by people, as the data set says")


@dataclass(frozen=True)
class Word:
    """A column that says the origin in a word of its own."""

    column: str
    generator: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, self.generator) if self.generator else (self.column,)

    def claims(self, name: str, values: Values, voice: Voice) -> Iterable[Claim]:
        generator = (values[self.generator] or None) if self.generator else None
        yield from _word(f"{name}.{self.column}", values[self.column] or "", generator)


@dataclass(frozen=True)
class Part:
    """A column that holds one text, or a list of texts, and who wrote them."""

    column: str
    voice: Voice
    lists: bool = False


@dataclass(frozen=True)
class DataSet:
    """A published data set, recognised by columns that hardly any other has together."""

    name: str
    signature: tuple[str, ...]
    rule: Rule | None = None
    text: str | None = None  # the text column, where it has no usual name
    messages: str | None = None  # or the conversation
    parts: tuple[Part, ...] = ()  # or the columns whose texts become documents of their own
    answered: tuple[str, ...] = ()  # label columns that the rule makes unnecessary
    question: tuple[str, str] | None = None  # a label column, and what its owner has to say of it


_MAGE_MODEL = r"_machine_(?:continuation_|topical_|specified_)?(.+)$"

DATA_SETS: tuple[DataSet, ...] = (
    DataSet(
        "raid",
        ("adv_source_id", "attack", "decoding", "generation", "model"),
        Author("model", ("attack",)),
        text="generation",
    ),
    DataSet(
        "hc3",
        ("question", "human_answers", "chatgpt_answers"),
        Speakers("human_answers", "chatgpt_answers", generator="chatgpt"),
        parts=(Part("human_answers", Voice.HUMAN, True), Part("chatgpt_answers", Voice.MODEL, True)),
    ),
    DataSet(
        "m4",
        ("human_text", "machine_text", "model"),
        Speakers("human_text", "machine_text", column="model"),
        parts=(Part("human_text", Voice.HUMAN), Part("machine_text", Voice.MODEL)),
    ),
    DataSet(
        "mage",
        ("text", "label", "src"),
        # Here 1 is human and 0 is machine, the other way round than nearly everywhere else.
        SpelledAuthor("src", r"_human$", _MAGE_MODEL, "label", {"1": _HUMAN, "0": _SYNTHETIC}),
        answered=("label",),
    ),
    DataSet("semeval2024_task8", ("text", "label", "model", "source"), Author("model"), answered=("label",)),
    DataSet(
        "cosmopedia",
        ("prompt", "text_token_length", "text", "seed_data", "format", "audience"),
        Always("Mixtral-8x7B"),
    ),
    DataSet(
        "wildchat",
        ("conversation_hash", "model", "conversation"),
        Speakers("user", "assistant", column="model"),
        messages="conversation",
    ),
    DataSet(
        "lmsys_chat",
        ("conversation_id", "model", "conversation"),
        Speakers("user", "assistant", column="model"),
        messages="conversation",
    ),
    DataSet(
        "nemotron_post_training",
        ("uuid", "generator", "category", "reasoning", "messages"),
        Speakers("user", "assistant", column="generator"),
        messages="messages",
    ),
    DataSet("distilabel", ("distilabel_metadata", "generation", "model_name"), Author("model_name"), text="generation"),
    DataSet(
        "anchormix",
        ("text", "source", "provenance", "evidence", "represents", "copy"),
        Word("provenance", generator="generator"),
    ),
    DataSet(
        "llm_detect_essays",
        ("prompt_id", "text", "generated"),
        question=("generated", "does 1 in `generated` mean that a model wrote the essay?"),
    ),
    DataSet(
        "daigt_essays",
        ("text", "label", "prompt_name", "source"),
        question=("label", "does 1 in `label` mean that a model wrote the essay, or a student?"),
    ),
)


def recognise(columns: Collection[str]) -> tuple[DataSet, Mapping[str, str]] | None:
    """The data set that has these columns, in any case of letters, and what they are called here."""
    spelled: dict[str, str] = {}
    for name in columns:
        spelled.setdefault(name.lower(), name)
    for data_set in DATA_SETS:
        if all(name in spelled for name in data_set.signature):
            return data_set, spelled
    return None


LABEL_NAMES = frozenset(
    {
        *("label", "labels", "is_human", "is_ai", "is_synthetic", "is_generated", "is_machine", "synthetic"),
        *("machine_generated", "ai_generated", "generated", "human"),
    }
)
"""Columns that look like a binary label of origin. Whether 1 is human or machine only their owner can say."""


def unexplained_labels(columns: Iterable[str], data_set: DataSet | None) -> list[str]:
    """Columns that look like a label of origin and that no rule of the data set makes unnecessary."""
    answered = data_set.answered if data_set else ()
    return [name for name in columns if name.lower() in LABEL_NAMES and name.lower() not in answered]


# Disclosure fields: columns of any data set whose name and values were made to say where text comes from.


@dataclass(frozen=True)
class FieldRule:
    """A disclosure field, by the last names of its path, lower case and without - and _."""

    name: str
    spellings: tuple[str, ...]
    read: Any = field(repr=False)  # Callable[[str, str], Iterable[Claim]]

    def claims(self, value: str | None) -> tuple[Claim, ...]:
        return tuple(self.read(self.name, value.strip())) if value and value.strip() else ()


_WORDS = {
    **dict.fromkeys(("human", "human_written", "human_authored", "humanwritten", "human_verified"), _HUMAN),
    **dict.fromkeys(("ai_assisted", "assisted", "human_ai", "mixed"), _ASSISTED),
    **dict.fromkeys(
        (
            *("synthetic", "machine", "machine_generated", "machine_written", "ai", "ai_generated", "model"),
            *("model_generated", "llm", "llm_generated", "generated"),
        ),
        _SYNTHETIC,
    ),
}


def _word(rule: str, value: str, generator: str | None = None) -> Iterable[Claim]:
    provenance = _WORDS.get(re.sub(r"[\s-]+", "_", value.strip().lower()))
    if provenance is None:
        return
    # What somebody else verified is believed here: custody does not travel with a word.
    yield Claim(rule, provenance, _shown(value), generator=generator if provenance == _SYNTHETIC else None)


_SOURCE_TYPES = {
    "trainedalgorithmicmedia": _SYNTHETIC,
    "algorithmicmedia": _SYNTHETIC,
    "compositesynthetic": _ASSISTED,
    "compositewithtrainedalgorithmicmedia": _ASSISTED,
    "digitalcreation": _HUMAN,
    "humanedits": _HUMAN,
}


def _source_type(rule: str, value: str) -> Iterable[Claim]:
    """An IPTC or schema.org digital source type, by its last name."""
    name = re.split(r"[/#:]", value.rstrip("/"))[-1].lower().removesuffix("digitalsource")
    if name in _SOURCE_TYPES:
        yield Claim(rule, _SOURCE_TYPES[name], _shown(value))


_MODES = {"none": _HUMAN, "ai-modified": _ASSISTED, "ai-originated": _SYNTHETIC, "machine-generated": _SYNTHETIC}


def _disclosure(rule: str, value: str) -> Iterable[Claim]:
    """An AI-Disclosure header: a structured dictionary, or members between semicolons as its own example has them."""
    members = dict(re.findall(r'([a-z][a-z0-9_-]*)\s*=\s*("[^"]*"|[^,;\s]+)', value, re.IGNORECASE))
    said = {name.lower(): text.strip('"') for name, text in members.items()}
    provenance = _MODES.get(said.get("mode", "").lower())
    if provenance is None:
        return
    # Dates and reviewers differ from row to row and say nothing of the origin.
    kept = "; ".join(f"{name}={said[name]}" for name in ("mode", "model", "provider") if name in said)
    model = said.get("model") if provenance == _SYNTHETIC else None
    yield Claim(rule, provenance, _shown(kept), generator=model)


def _aigc(rule: str, value: str) -> Iterable[Claim]:
    """A GB 45438 label: the field itself, or its member Label. 1 is generated, 2 and 3 are suspected to be."""
    producer = None
    if value.startswith("{"):
        try:
            told = json.loads(value)
        except ValueError:
            told = {}
        told = told.get("AIGC", told) if isinstance(told, dict) else {}
        told = told if isinstance(told, dict) else {}
        producer = told.get("ContentProducer")
        value = str(told.get("Label", ""))
    if value not in ("1", "2", "3"):
        return
    detail = f"Label={value}" + (f", ContentProducer={producer}" if isinstance(producer, str) and producer else "")
    yield Claim(rule, _SYNTHETIC, _shown(detail), _DECLARED if value == "1" else _DETECTED)


_FIELD_RULES = (
    FieldRule("ai_disclosure", ("aidisclosure",), _disclosure),
    FieldRule("digital_source_type", ("digitalsourcetype",), _source_type),
    FieldRule("aigc", ("aigc", "aigc.label"), _aigc),
    FieldRule("provenance", ("provenance",), _word),
    FieldRule("source_type", ("sourcetype",), _word),
)
_FIELD_DEPTH = 3


def disclosure_fields(tree: Mapping[str, Any]) -> dict[tuple[str, ...], FieldRule]:
    """The disclosure fields among a file's columns, nested ones included, by the names that lead to them."""
    found: dict[tuple[str, ...], FieldRule] = {}

    def look(level: Mapping[str, Any], above: tuple[str, ...]) -> None:
        for name, below in level.items():
            keys = (*above, name)
            plain = [re.sub(r"[\s_-]", "", key.lower()) for key in keys[-2:]]
            for rule in _FIELD_RULES:
                if not below and (plain[-1] in rule.spellings or ".".join(plain) in rule.spellings):
                    found[keys] = rule
            if below and len(keys) < _FIELD_DEPTH:
                look(below, keys)

    look(tree, ())
    return found


# Paths: what Hive-style folders say, as Nemotron-CC and others lay their files out.

_REPHRASED = {"distill", "diverse_qa_pairs", "extract_knowledge", "knowledge_list", "wrap_medium"}


def path_claims(path: str) -> tuple[Claim, ...]:
    """What the folders of one shard say of all its documents."""
    pairs = re.findall(r"(?:^|[/\\])([A-Za-z0-9_]+)=([^/\\]+)(?=[/\\])", path)
    parts = {name.lower(): value for name, value in pairs}
    kind, second, generator = (parts.get(name, "") for name in ("kind", "kind2", "generator"))
    claims = []
    if kind.lower() == "synthetic":
        form = "rephrase" if second.lower() in _REPHRASED else None
        detail = "kind=synthetic" + (f"/kind2={second}" if second else "")
        claims.append(Claim("path.kind", _SYNTHETIC, _shown(detail), kind=form))
    elif kind.lower() == "actual":
        claims.append(Claim("path.kind", None, "kind=actual: not made for this data set, by whomever", _HEURISTIC))
    if generator.lower() not in _NOBODY:
        said = _HUMAN if generator.lower() == _HUMAN else _SYNTHETIC
        claims.append(
            Claim(
                "path.generator",
                said,
                _shown(f"generator={generator}"),
                generator=generator if said == _SYNTHETIC else None,
            )
        )
    return tuple(claims)


# Cards: files beside the data that speak of all of it.


def card_claims(text: str) -> tuple[Claim, ...]:
    """The front matter of a Hugging Face data card. Where text was found says nothing of who wrote it."""
    match = re.match(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    if match is None:
        return ()
    try:
        told = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return ()
    if not isinstance(told, dict):
        return ()
    if "synthetic" in _lowered(told.get("tags")):
        return (Claim("card.tags", _SYNTHETIC, "tags: synthetic"),)
    creators = _lowered(told.get("language_creators"))
    claims = []
    if "machine-generated" in creators:
        claims.append(Claim("card.language_creators", _SYNTHETIC, "language_creators: machine-generated"))
    people = [name for name in creators if name in ("crowdsourced", "expert-generated")]
    if people:
        claims.append(Claim("card.language_creators", _HUMAN, f"language_creators: {', '.join(people)}"))
    return tuple(claims)


def collection_claims(text: str) -> tuple[Claim, ...]:
    """A summary of the Data Provenance Initiative. Human annotation is about labels, not about authors."""
    try:
        told = json.loads(text)
    except ValueError:
        return ()
    entries = [told] if _is_summary(told) else list(told.values()) if isinstance(told, dict) else []
    if not entries or not all(map(_is_summary, entries)):
        return ()
    models = [_names(entry["Model Generated"]) for entry in entries]
    if not all(models):
        return ()  # some of the data sets that are described together are nobody's output
    names = sorted({name for of_entry in models for name in of_entry})
    generator = names[0] if len(names) == 1 else None
    detail = _shown(f"Model Generated: {', '.join(names)}")
    return (Claim("data_provenance.model_generated", _SYNTHETIC, detail, generator=generator),)


def _is_summary(entry: Any) -> bool:
    return isinstance(entry, dict) and "Model Generated" in entry


def _names(value: Any) -> list[str]:
    items: Sequence[Any] = value if isinstance(value, list) else [value]
    return [str(item).strip() for item in items if str(item or "").strip().lower() not in _NOBODY]


def _lowered(value: Any) -> list[str]:
    return [str(item).strip().lower() for item in (value if isinstance(value, list) else [value])]


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
