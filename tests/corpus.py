"""Small corpora whose duplicates, languages and origins are known by construction, and configs that mix them.

A document is a sample of distinct words, so its number of shingles, and what one replaced word does to them, is
arithmetic: n words have n - 4 five-word shingles, and each replaced word (at least five from the next, four from
the ends) breaks five of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipeline.samples import Row, write_rows

SHINGLE = 5
LANGUAGES = ("en", "ru", "zh", "ar")

_SYLLABLES = {
    "en": "ba ce di fo gu ha je ki lo mu na pe ri so tu wa",
    "ru": "ба ве ги до жу за ке ли мо ну па ре си то фу ха",  # noqa: RUF001
    "ar": "با تي ثو جا حي خو دا ري زو سا شي صو طا عي فو قا",
}
# The last letter of a word that only edited copies have.
_FRESH = {"en": "x", "ru": "щ", "ar": "غ"}

# What each source of `write_corpus` is.
PROVENANCE = {"press": "human_verified", "letters": "human", "web": "unknown", "bot": "synthetic"}


@dataclass(frozen=True)
class Document:
    """Words in order; `text` sets them as sentences and paragraphs of their language."""

    words: tuple[str, ...]
    language: str = "en"

    @property
    def text(self) -> str:
        space, stop = ("", "。") if self.language == "zh" else (" ", ".")
        sentences = [self.words[at : at + 9] for at in range(0, len(self.words), 9)]
        written = [space.join(sentence) + stop for sentence in sentences]
        written = [sentence[:1].upper() + sentence[1:] for sentence in written]
        return "\n\n".join(space.join(written[at : at + 4]) for at in range(0, len(written), 4))

    @property
    def shingles(self) -> frozenset[tuple[str, ...]]:
        last = max(1, len(self.words) - SHINGLE + 1)
        return frozenset(self.words[at : at + SHINGLE] for at in range(last))


@cache
def vocabulary(language: str, *, fresh: bool = False) -> tuple[str, ...]:
    """4,096 words; the `fresh` ones share none with the others."""
    if language == "zh":
        start = 0x4E00 + (0x2000 if fresh else 0)
        return tuple(map(chr, range(start, start + 4096)))
    end = _FRESH[language] if fresh else ""
    return tuple("".join(syllables) + end for syllables in product(_SYLLABLES[language].split(), repeat=3))


def make_document(rng: random.Random, words: int = 100, language: str = "en") -> Document:
    """A document of distinct words. Two of them share a shingle about once in 10^14 draws."""
    return Document(tuple(rng.sample(vocabulary(language), words)), language)


def near_copy(rng: random.Random, original: Document, changes: int) -> Document:
    """The document with `changes` words replaced, for a Jaccard of exactly `edited_jaccard`."""
    margin = SHINGLE - 1
    room = len(original.words) - 2 * margin
    if changes * SHINGLE > room:
        raise ValueError(
            f"{changes} changes need {changes * SHINGLE + 2 * margin} words, this has {len(original.words)}"
        )
    words = list(original.words)
    new = rng.sample(vocabulary(original.language, fresh=True), changes)
    for change, word in enumerate(new):
        words[margin + change * room // changes] = word
    return Document(tuple(words), original.language)


def edited_jaccard(words: int, changes: int) -> Fraction:
    """The Jaccard similarity of a document of `words` distinct words and its `near_copy`."""
    shingles = words - SHINGLE + 1
    return Fraction(shingles - SHINGLE * changes, shingles + SHINGLE * changes)


def jaccard(left: Document, right: Document) -> Fraction:
    return Fraction(len(left.shingles & right.shingles), len(left.shingles | right.shingles))


@dataclass(frozen=True)
class Planted:
    """Document `id` of `source` is a copy of document `of_id` of `of_source`."""

    source: str
    id: str
    of_source: str
    of_id: str
    similarity: Fraction


@dataclass
class Truth:
    """All rows as written, and what was planted among them."""

    rows: dict[str, list[Row]] = field(default_factory=dict)  # per source, in the order of its shards
    exact: list[Planted] = field(default_factory=list)
    near: list[Planted] = field(default_factory=list)
    empty: set[tuple[str, str]] = field(default_factory=set)  # (source, id)

    def survivors(self, threshold: Fraction = Fraction(4, 5)) -> set[tuple[str, str]]:
        """(source, id) of every document that dedup keeps: the copies stand in sources that rank below."""
        gone = {(copy.source, copy.id) for copy in self.exact}
        gone |= {(copy.source, copy.id) for copy in self.near if copy.similarity >= threshold}
        return {(source, row["id"]) for source, rows in self.rows.items() for row in rows} - gone - self.empty


def write_corpus(
    directory: Path,
    *,
    seed: int = 1,
    verified: int = 40,
    believed: int = 16,
    unknown: int = 30,
    synthetic: int = 16,
    exact: int = 6,
    near: int = 9,
    empty: int = 3,
    words: int = 100,
    languages: Sequence[str] = LANGUAGES,
    row_group: int = 8,
) -> Truth:
    """Write four sources below `directory`/shards, one for each way in which a document comes to its provenance.

    press is two Parquet shards, letters JSONL.gz, web Parquet and CSV, bot JSONL.zst. The web source holds, beside
    `unknown` documents of its own, `exact` and `near` copies of press and `empty` documents; one, two and three
    words of the near copies are replaced in turn, which is above, just above and below .8 for 100 words.
    """
    copied = exact + near
    if copied > verified:
        raise ValueError(f"exact + near = {copied} copies need as many verified documents, got {verified}")
    rng = random.Random(seed)
    truth = Truth()

    def rows_of(source: str, documents: Sequence[Document]) -> list[Row]:
        truth.rows[source] = [
            {"id": f"{source}-{number}", "text": document.text, "language": document.language}
            for number, document in enumerate(documents)
        ]
        return truth.rows[source]

    def fresh(count: int) -> list[Document]:
        return [make_document(rng, words, languages[number % len(languages)]) for number in range(count)]

    originals = fresh(verified)
    changes = [1 + number % 3 for number in range(near)]
    edited = [near_copy(rng, originals[exact + number], changes[number]) for number in range(near)]
    web = [*originals[:exact], *edited, *(Document(()) for _ in range(empty)), *fresh(unknown)]
    order = list(range(len(web)))
    rng.shuffle(order)
    for at, number in enumerate(order):
        if number < exact:
            truth.exact.append(Planted("web", f"web-{at}", "press", f"press-{number}", Fraction(1)))
        elif number < copied:
            similarity = edited_jaccard(words, changes[number - exact])
            truth.near.append(Planted("web", f"web-{at}", "press", f"press-{number}", similarity))
        elif number < copied + empty:
            truth.empty.add(("web", f"web-{at}"))

    shards = directory / "shards"
    press = rows_of("press", originals)
    crawled = rows_of("web", [web[number] for number in order])
    half = len(press) // 2
    write_rows(shards / "press" / "press-0.parquet", press[:half], row_group=row_group)
    write_rows(shards / "press" / "press-1.parquet", press[half:], row_group=row_group)
    write_rows(shards / "letters" / "letters-0.jsonl.gz", rows_of("letters", fresh(believed)))
    third = len(crawled) // 3
    write_rows(shards / "web" / "web-0.parquet", crawled[third:], row_group=row_group)
    write_rows(shards / "web" / "web-1.csv", crawled[:third])
    write_rows(shards / "bot" / "bot-0.jsonl.zst", rows_of("bot", fresh(synthetic)))
    return truth


def attest_press(directory: Path) -> None:
    """Sign the press shards as they are now, with a key pair made on the first call."""
    from pipeline.attest import attest, write_keypair

    key = directory / "keys" / "desk.key"
    for folder in ("keys", "custody"):
        (directory / folder).mkdir(exist_ok=True)
    if not key.exists():
        write_keypair(key.with_suffix(""))
    files = sorted((directory / "shards" / "press").glob("*.parquet"))
    attest(files, key, "licensed_source", directory / "custody" / "press.dsse.json", source="press")


def minimal_config(directory: Path, **changes: Any) -> Path:
    """Write `directory`/mix.yaml over a corpus whose press source is attested; makes what does not exist yet.

    `changes` are merged into the config: mappings by key, `sources` by source name when given as a mapping, anything
    else replaces; None removes a key.

        minimal_config(path, seed=3, mix={"floors": {"human_verified": 0.6}}, sources={"bot": None})
    """
    if not (directory / "shards").exists():
        write_corpus(directory)
    if not (directory / "custody" / "press.dsse.json").exists():
        attest_press(directory)
    sources: dict[str, Any] = {
        "press": {
            "files": ["shards/press/*.parquet"],
            "custody": {"method": "licensed_source", "manifest": "custody/press.dsse.json"},
        },
        "letters": {"files": ["shards/letters/*.jsonl.gz"], "declare": "human"},
        "web": {"files": ["shards/web/*.parquet", "shards/web/*.csv"]},
        "bot": {
            "files": ["shards/bot/*.jsonl.zst"],
            "synthetic": {"generator": "parrot-1b", "kind": "generated"},
        },
    }
    config: dict[str, Any] = {
        "version": 1,
        "seed": 7,
        "output": "out/mix",
        "index": "out/index",
        "sources": sources,
        "trust": {"keys": [{"name": "desk", "public_key": "keys/desk.pub", "sources": ["press"]}]},
        "mix": {"floors": {"human_verified": 0.5}, "shards": 2, "row_group": 16},
    }
    config = _merged(config, changes)
    if isinstance(config.get("sources"), Mapping):
        config["sources"] = [{"name": name, **source} for name, source in config["sources"].items()]
    path = directory / "mix.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = value
    return merged
