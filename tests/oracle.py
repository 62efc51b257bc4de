"""The pipeline's answer for every input document, computed the slow and plain way: one row, one pair at a time.

Nothing here comes from the code under test. Words are walked with `unicodedata`, similarities are those of Python sets,
and removal is the rule as written: from best to worst, a text stays unless one that stays is too similar.
"""

from __future__ import annotations

import base64
import csv
import glob
import gzip
import hashlib
import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml  # type: ignore[import-untyped]
import zstandard

Place = tuple[str, str, int, int]

SHINGLE = 5
# Scripts whose running text has no spaces between words, by how the names of their characters begin.
UNSPACED_SCRIPTS = (
    *("AHOM", "BOPOMOFO", "CJK COMPATIBILITY IDEOGRAPH", "CJK UNIFIED IDEOGRAPH", "HALFWIDTH KATAKANA"),
    *("HANGZHOU NUMERAL", "HENTAIGANA", "HIRAGANA", "IDEOGRAPHIC ANNOTATION", "IDEOGRAPHIC CLOSING"),
    *("IDEOGRAPHIC ITERATION", "IDEOGRAPHIC NUMBER", "KATAKANA", "KHITAN SMALL SCRIPT", "KHMER", "LAO", "MASU MARK"),
    *("MYANMAR", "NEW TAI LUE", "NUSHU", "OLD CHINESE", "TAI LE", "TAI THAM", "TAI VIET", "TANGUT", "THAI"),
    *("VERTICAL IDEOGRAPHIC", "VERTICAL KANA"),
)
TANGUT = range(0x17000, 0x18D80)  # Python has no names for its ideographs
# Default_Ignorable_Code_Point, as the Unicode Character Database lists it.
IGNORABLE = dict.fromkeys(
    code_point
    for listed in [
        "AD",
        "34F",
        "61C",
        "115F-1160",
        "17B4-17B5",
        "180B-180F",
        "200B-200F",
        "202A-202E",
        "2060-206F",
        "3164",
        "FE00-FE0F",
        "FEFF",
        "FFA0",
        "FFF0-FFF8",
        "1BCA0-1BCA3",
        "1D173-1D17A",
        "E0000-E0FFF",
    ]
    for code_point in range(int(listed.split("-")[0], 16), int(listed.split("-")[-1], 16) + 1)
)
KEEP_CLASS = {"human_verified": 0, "human": 1, "ai_assisted": 2, "unknown": 3, "disputed": 3, "synthetic": 4}
# Marks of two kinds that the corpora plant; one kind alone may be a quotation.
ARTEFACTS = (":contentreference[oaicite", "as an ai language model")
NAMES = {"text": ("text",), "id": ("id",), "language": ("language", "lang"), "generator": ("generator",), "label": ()}


@dataclass
class Expected:
    """What has to become of one document."""

    source: str
    shard: str
    row: int
    text: str | None
    doc_id: str | None
    language: str | None
    provenance: str
    before_demotion: str
    generator: str | None
    fate: str = "kept"
    partner: str | None = None  # id of the witness
    similarity: Fraction | None = None
    represents: int = 0
    tokens: int = 0
    words: tuple[str, ...] = ()
    priority: int = 0
    part: int = field(default=0)

    @property
    def place(self) -> Place:
        return self.source, self.shard, self.row, self.part

    @property
    def digest(self) -> bytes:
        return hashlib.sha256((self.text or "").encode()).digest()

    @property
    def id(self) -> str:
        return self.digest.hex()[:32]

    @property
    def rank(self) -> tuple[Any, ...]:
        """Lower stays: class, then the higher priority, then the longer by powers of two, digest and position."""
        return KEEP_CLASS[self.before_demotion], -self.priority, -len(self.words).bit_length(), self.digest, self.place


def expect(config_path: Path, earlier: Iterable[tuple[Path, str]] = ()) -> dict[Place, Expected]:
    """Every document that a config reads, with its fate when nothing is left out of the mix.

    `earlier` are the configs of earlier indexes, each with what the later config says of it: `earlier` or `best`.
    """
    config = yaml.safe_load(config_path.read_text(encoding="utf-8").replace("${DATA:-.}", "."))
    documents = list(_read_documents(config, config_path.parent))
    for document in documents:
        if document.fate == "kept":
            document.words = tuple(split_words(document.text or ""))
            document.tokens = count_tokens(document.text or "")
    threshold = Fraction(str(config.get("dedup", {}).get("threshold", "0.8")))
    _hold_out(documents, threshold, _reference_texts(config, config_path.parent))
    held = [(old, keep) for path, keep in earlier for old in expect(path).values() if old.fate == "kept"]
    _remove_duplicates(documents, threshold, held)
    return {document.place: document for document in documents}


# Words


def normalise(text: str) -> str:
    """Without what is not to be seen, compatibility characters and case told apart no more, composed."""
    folded = unicodedata.normalize("NFKD", text.translate(IGNORABLE)).casefold()
    return unicodedata.normalize("NFKC", folded)


def split_words(text: str) -> list[str]:
    """Words of the normalised text."""
    return raw_words(normalise(text))


def count_tokens(text: str) -> int:
    """One per started 16 characters of a word of the text as it stands; at least one per document that is not blank."""
    counted = sum((len(word) + 15) // 16 for word in raw_words(text))
    return max(counted, 1) if text.strip() else 0


def raw_words(text: str) -> list[str]:
    words: list[str] = []
    begun = ""  # what the open word began as
    for character in text:
        kind = kind_of(character)
        if (kind == "mark" and begun) or (kind == "spaced" and begun == "spaced"):
            words[-1] += character
        elif kind == "separator":
            begun = ""
        else:
            words.append(character)
            begun = "unspaced" if kind == "unspaced" else "spaced"
    return words


def kind_of(character: str) -> str:
    category = unicodedata.category(character)[0]
    if category not in "LMN":
        return "separator"
    if category == "M":
        return "mark"
    is_unspaced = unicodedata.name(character, "").startswith(UNSPACED_SCRIPTS) or ord(character) in TANGUT
    return "unspaced" if is_unspaced else "spaced"


def shingles(words: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    if not words:
        return frozenset()
    return frozenset(words[at : at + SHINGLE] for at in range(max(1, len(words) - SHINGLE + 1)))


# Reading


def _read_documents(config: Mapping[str, Any], folder: Path) -> Iterator[Expected]:
    for source in config["sources"]:
        signed = _signed_files(source, folder)
        named = {**{name: None for name in NAMES}, **source.get("columns", {})}
        for path, shard in _shards(source, folder):
            is_signed = hashlib.sha256(path.read_bytes()).hexdigest() in signed
            for row, record in enumerate(read_rows(path)):
                value = {name: _field(record, named[name], NAMES[name]) for name in NAMES}
                blank = not (value["text"] or "").strip()
                before, after, generator = _provenance(source, value, is_signed and not blank)
                excluded = any(_is_excluded(rule, source["name"], value["id"]) for rule in config.get("exclude", []))
                yield Expected(
                    source=source["name"],
                    shard=shard,
                    row=row,
                    text=value["text"],
                    doc_id=value["id"],
                    language=value["language"],
                    provenance=after,
                    before_demotion=before,
                    generator=generator,
                    priority=source.get("priority", 0),
                    fate="empty" if blank else "excluded" if excluded else "kept",
                )


def _shards(source: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    found = {}
    for pattern in source["files"]:
        fixed = os.path.dirname(os.path.join(folder, pattern).split("*")[0] + "x")
        for path in glob.glob(os.path.join(folder, pattern)):
            found[Path(path)] = os.path.relpath(path, fixed)
    return sorted(found.items(), key=lambda item: item[1])


def read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if ".csv" in path.suffixes:
        return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    return [json.loads(line) for line in data.decode().split("\n") if line.strip()]


def _field(record: Mapping[str, Any], named: str | None, usual: Iterable[str]) -> str | None:
    for name in [named] if named else usual:
        if name in record:
            return None if record[name] is None else str(record[name])
    return None


# Provenance


def _signed_files(source: Mapping[str, Any], folder: Path) -> set[str]:
    """sha256 of the files that the source's manifest lists; whether to trust it is not judged here."""
    if "custody" not in source:
        return set()
    envelope = json.loads((folder / source["custody"]["manifest"]).read_bytes())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    return {subject["digest"]["sha256"] for subject in statement["subject"]}


def _provenance(
    source: Mapping[str, Any], value: Mapping[str, str | None], in_custody: bool
) -> tuple[str, str, str | None]:
    """Provenance before and after detection, and the generator."""
    named = (value["generator"] or "").strip()
    if in_custody:
        return "human_verified", "human_verified", None
    if "synthetic" in source:
        return "synthetic", "synthetic", source["synthetic"].get("generator") or named or None
    said = set()
    label = source.get("labels", {}).get(value["label"])
    if label:
        said.add(label)
    if named.lower() not in ("", "none"):
        said.add("human" if named.lower() == "human" else "synthetic")
    said = said or {source.get("declare", "unknown")}
    if {"human", "synthetic"} <= said:
        return "disputed", "disputed", None
    declared = next(name for name in ("synthetic", "ai_assisted", "human", "unknown") if name in said)
    if declared == "synthetic":
        return "synthetic", "synthetic", named or None
    text = (value["text"] or "").lower()
    is_marked = all(mark in text for mark in ARTEFACTS)
    return declared, "ai_assisted" if is_marked and declared in ("human", "unknown") else declared, None


def _is_excluded(rule: Mapping[str, Any], source: str, doc_id: str | None) -> bool:
    return rule.get("source") == source or doc_id in rule.get("doc_ids", ())


# Held-out text


def _reference_texts(config: Mapping[str, Any], folder: Path) -> list[str]:
    files = {"files": config.get("diversity", {}).get("reference", [])}
    read = (_field(record, None, NAMES["text"]) for path, _ in _shards(files, folder) for record in read_rows(path))
    return [text for text in read if (text or "").strip()]


def _hold_out(documents: list[Expected], threshold: Fraction, reference: list[str]) -> None:
    """Whatever a document is, and whoever would stay for it: what is like held-out text is held out."""
    held_out = [(text, hashlib.sha256(text.encode()), shingles(tuple(split_words(text)))) for text in reference]
    for document in documents:
        mine = shingles(document.words)
        found = []
        for text, digest, theirs in held_out:
            same = text == document.text
            similarity = Fraction(1) if same else Fraction(len(mine & theirs), len(mine | theirs) or 1)
            if same or similarity >= threshold:
                found.append((not same, -similarity, digest.hexdigest()))
        if found and document.fate == "kept":
            _, similarity, digest = min(found)
            document.fate, document.partner, document.similarity = "held_out", digest[:32], -similarity


# Duplicates


def _remove_duplicates(documents: list[Expected], threshold: Fraction, held: list[tuple[Expected, str]]) -> None:
    copies: dict[str, list[Expected]] = {}
    for document in sorted((d for d in documents if d.fate == "kept"), key=lambda d: d.rank):
        copies.setdefault(document.text or "", []).append(document)
    best = [group[0] for group in copies.values()]  # of each text its best copy, best text first
    kept: list[tuple[Expected, frozenset[tuple[str, ...]]]] = []
    holders: dict[tuple[str, ...], list[int]] = {}  # which of the kept texts hold a shingle
    for text in best:
        mine = shingles(text.words)
        shared = Counter(number for shingle in mine for number in holders.get(shingle, ()))
        similar = {
            number: Fraction(common, len(mine | kept[number][1]))
            for number, common in shared.items()
            if Fraction(common, len(mine | kept[number][1])) >= threshold
        }
        group = copies[text.text or ""]
        seen = _seen_before(text, mine, held, threshold)
        own = min(similar, default=None)
        if seen is not None and (own is None or seen[0] < _competes(kept[own][0])):
            for copy in group:
                copy.fate, copy.partner, copy.similarity = "seen_before", seen[1].id, seen[2]
            continue
        if similar:
            witness = kept[min(similar)][0]
            for copy in group:
                copy.fate, copy.partner, copy.similarity = "near_duplicate", witness.id, similar[min(similar)]
            witness.represents += len(group)
            continue
        for shingle in mine:
            holders.setdefault(shingle, []).append(len(kept))
        kept.append((text, mine))
        text.represents += len(group)
        for copy in group[1:]:
            copy.fate, copy.partner, copy.similarity = "exact_duplicate", text.id, Fraction(1)


def _seen_before(
    text: Expected, mine: frozenset[tuple[str, ...]], held: list[tuple[Expected, str]], threshold: Fraction
) -> tuple[tuple[Any, ...], Expected, Fraction] | None:
    """The best earlier document that a new text must give way to, with its similarity."""
    found = []
    for old, keep in held:
        if keep == "best" and KEEP_CLASS[old.provenance] > KEEP_CLASS[text.before_demotion]:
            continue
        theirs = shingles(old.words)
        similarity = Fraction(1) if old.text == text.text else Fraction(len(mine & theirs), len(mine | theirs) or 1)
        if similarity >= threshold:
            rank = (keep != "earlier", KEEP_CLASS[old.provenance], False, 0, old.rank[2], old.digest)
            found.append((rank, old, similarity))
    return min(found, key=lambda entry: entry[0], default=None)


def _competes(own: Expected) -> tuple[Any, ...]:
    return (True, *own.rank[:1], True)


def tags_of(documents: Iterable[Expected]) -> dict[str, Counter[str]]:
    """Documents of each source by provenance, whatever became of them."""
    found: dict[str, Counter[str]] = {}
    for document in documents:
        found.setdefault(document.source, Counter())[document.provenance] += 1
    return found


__all__ = [
    "IGNORABLE",
    "Expected",
    "count_tokens",
    "expect",
    "kind_of",
    "normalise",
    "read_rows",
    "shingles",
    "split_words",
    "tags_of",
]
