"""The parts of a config that are neither sources nor mix: trust, evidence, dedup, diversity, exclusions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Annotated

from pipeline.config_blocks import Block, Key, ListOf
from pipeline.config_detectors import DetectorEntry, DetectorKind
from pipeline.config_gates import Gate
from pipeline.config_kinds import Choice, Day, Flag, GlobOf, PathTo, Text
from pipeline.config_numbers import Share, Whole
from pipeline.config_sources import FIELD_PATH, METHODS, NAME, Source
from pipeline.config_yaml import At, Raw

__all__ = [
    "UNSTATED",
    "Against",
    "Dedup",
    "Diversity",
    "Evidence",
    "Exclusion",
    "Sign",
    "Tokens",
    "Trust",
    "TrustedKey",
]

PATHS = ListOf(GlobOf("a shard, or a glob"), single=True)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """How tokens are counted; exactly one of the three is set."""

    counter: Annotated[str | None, Key(Choice("words"), "a counter that is built in")] = None
    file: Annotated[str | None, Key(PathTo("a tokenizer.json"), "a tokenizer")] = None
    column: Annotated[str | None, Key(FIELD_PATH, "an input column that holds the counts")] = None

    def check(self, at: At) -> None:
        if sum(way is not None for way in (self.counter, self.file, self.column)) != 1:
            at.fail("bad_value", "valid is exactly one of {counter: words}, {file: PATH} and {column: NAME}")


@dataclass(frozen=True, kw_only=True)
class TrustedKey:
    """A public key the owner trusts; what is None is not restricted."""

    name: Annotated[str, Key(NAME, "the name that `revoked` and reports use")]
    public_key: Annotated[str, Key(PathTo("a public key, as keygen writes it"), "the Ed25519 public key")]
    sources: Annotated[tuple[str, ...] | None, Key(ListOf(NAME, least=1), "sources it may verify; default: all")] = None
    methods: Annotated[
        tuple[str, ...] | None, Key(ListOf(Choice(*METHODS), least=1), "custody methods it may sign for; default: all")
    ] = None
    valid_from: Annotated[date | None, Key(Day(), "first day on which it is trusted, judged at as_of")] = None
    valid_until: Annotated[date | None, Key(Day(), "last day on which it is trusted, judged at as_of")] = None

    def check(self, at: At) -> None:
        if self.valid_from and self.valid_until and self.valid_from > self.valid_until:
            (at / "valid_from").fail(
                "bad_value", f"no day is left: valid_until is {self.valid_until}", str(self.valid_from)
            )

    def covers(self, source: Source) -> bool:
        """Whether this key may verify documents of the source, dates and revocation apart."""
        return (
            source.custody is not None
            and (self.sources is None or source.name in self.sources)
            and (self.methods is None or source.custody.method in self.methods)
        )


class Revoked(Text):
    """The name of a key, or the digest of a manifest, which may be written sha256:..."""

    def __init__(self) -> None:
        super().__init__("the name of a trusted key, or the sha256 of a manifest")

    def parse(self, raw: Raw, at: At) -> str:
        text = super().parse(raw, at)
        digest = re.fullmatch(r"(?:sha256:)?([0-9a-f]{64})", text, re.IGNORECASE)
        return digest[1].lower() if digest else text


@dataclass(frozen=True, kw_only=True)
class Trust:
    keys: Annotated[tuple[TrustedKey, ...], Key(ListOf(Block(TrustedKey)), "the keys whose manifests verify")] = ()
    revoked: Annotated[
        tuple[str, ...],
        Key(
            ListOf(Revoked()),
            "names of keys and sha256 of manifests that count no longer",
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    known_synthetic: Annotated[tuple[str, ...], Key(PATHS, "text known to be model output")] = ()
    artefacts: Annotated[bool, Key(Flag(), "look for traces that models and chat tools leave in text")] = True
    detectors: Annotated[
        tuple[DetectorEntry, ...], Key(ListOf(DetectorKind()), "scores that can demote, never verify")
    ] = ()
    max_contested: Annotated[
        Fraction, Key(Share(), "share of verified tokens that may be contested before the run stops")
    ] = Fraction(1, 100)


UNSTATED = "excluded"
"""The reason of an exclusion that none was given for."""


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Documents that stay out of every mix; exactly one of the four selectors is set."""

    source: Annotated[str | None, Key(NAME, "a whole source")] = None
    generator: Annotated[str | None, Key(Text("the name of a model"), "everything a model wrote")] = None
    ids: Annotated[
        tuple[str, ...] | None,
        Key(
            ListOf(Text("32 hexadecimal digits, as in the column id", r"[0-9a-f]{32}"), least=1, single=True),
            "ids of texts, as in the mix",
        ),
    ] = None
    doc_ids: Annotated[
        tuple[str, ...] | None, Key(ListOf(Text("an id of your own"), least=1, single=True), "ids of your own")
    ] = None
    reason: Annotated[str | None, Key(Text("a sentence"), "why; it stands in the fates; default: excluded")] = None

    def check(self, at: At) -> None:
        if sum(way is not None for way in (self.source, self.generator, self.ids, self.doc_ids)) != 1:
            at.fail(
                "bad_value",
                "valid is exactly one of source, generator, ids and doc_ids; a reason is optional",
            )


@dataclass(frozen=True, kw_only=True)
class Against:
    """An earlier index whose documents count as seen."""

    index: Annotated[str, Key(PathTo("an index"), "the earlier index")]
    keep: Annotated[str, Key(Choice("earlier", "best"), "which of two near-duplicates stays")] = "earlier"


@dataclass(frozen=True, kw_only=True)
class Dedup:
    threshold: Annotated[
        Fraction, Key(Share(above_zero=True), "exact Jaccard of shingles from which two documents are one")
    ] = Fraction(4, 5)
    permutations: Annotated[int, Key(Whole(16, 1024), "length of the MinHash signature")] = 128
    shingle: Annotated[int, Key(Whole(1, 64), "words, or characters of unspaced scripts, in a shingle")] = 5
    against: Annotated[tuple[Against, ...], Key(ListOf(Block(Against)), "earlier indexes")] = ()
    wipe_out: Annotated[Fraction, Key(Share(), "stop when a source loses more than this share to near-duplicates")] = (
        Fraction(9, 10)
    )


@dataclass(frozen=True, kw_only=True)
class Diversity:
    reference: Annotated[tuple[str, ...], Key(PATHS, "held-out human text; never mixed")] = ()
    metrics: Annotated[str, Key(Choice("core", "full"), "which metrics are measured")] = "core"
    fail_if: Annotated[
        tuple[Gate, ...],
        Key(ListOf(Block(Gate), titled=False), "bounds on metrics; a run beyond one of them publishes nothing"),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class Sign:
    key: Annotated[str, Key(PathTo("a private key, as keygen writes it"), "signs the manifest of the mix")]
