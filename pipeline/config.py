"""YAML to one frozen `Config`; every error is a `UsageError` that names its key path.

    config = load_config("mix.yaml", ["mix.floors.human_verified=0.6"])

A config is parsed whole and checked whole before anything is read or started. Nothing heavy is imported here, since
every command begins by importing this module.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pipeline.config_blocks import AUTO, Auto, Block, Key, ListOf
from pipeline.config_checks import check_config, refuse_later_keys
from pipeline.config_detectors import DetectorEntry
from pipeline.config_gates import Gate
from pipeline.config_guards import (
    UNSTATED,
    Against,
    Dedup,
    Diversity,
    Evidence,
    Exclusion,
    Sign,
    Tokens,
    Trust,
    TrustedKey,
)
from pipeline.config_kinds import Day, PathTo, is_url
from pipeline.config_mix import Mix, MixBlock, Portion
from pipeline.config_numbers import Whole
from pipeline.config_overrides import apply_overrides
from pipeline.config_rules import Rule
from pipeline.config_sources import (
    METHODS,
    MIX_COLUMNS,
    Columns,
    Custody,
    Join,
    Kept,
    Messages,
    Source,
    Synthetic,
)
from pipeline.config_yaml import At, Origin, read_tree
from pipeline.errors import UsageError

__all__ = [
    "AUTO",
    "METHODS",
    "MIX_COLUMNS",
    "UNSTATED",
    "Against",
    "Auto",
    "Columns",
    "Config",
    "Custody",
    "Dedup",
    "DetectorEntry",
    "Diversity",
    "Evidence",
    "Exclusion",
    "Gate",
    "Join",
    "Kept",
    "Messages",
    "Mix",
    "Portion",
    "Rule",
    "Sign",
    "Source",
    "Synthetic",
    "Tokens",
    "Trust",
    "TrustedKey",
    "config_schema",
    "load_config",
]

VERSION = 1
WORDS = Tokens(counter="words")


@dataclass(frozen=True, kw_only=True)
class Config:
    version: Annotated[int, Key(Whole(VERSION, VERSION), "version of the config's format")]
    seed: Annotated[int, Key(Whole(0), "seed of every draw")] = 0
    as_of: Annotated[date | None, Key(Day(), "the day at which the validity of keys and manifests is judged")] = None
    output: Annotated[str, Key(PathTo("a folder for the mix"), "the published mix; never overwritten")]
    index: Annotated[
        str, Key(PathTo("a folder for the index"), "the index; default: <config name>.index beside the config")
    ]
    tokens: Annotated[Tokens, Key(Block(Tokens), "how tokens are counted")] = WORDS
    max_bad_records: Annotated[int, Key(Whole(0), "broken records that are tolerated in the whole input")] = 0
    sources: Annotated[tuple[Source, ...], Key(ListOf(Block(Source), least=1), "what the mix can be made of")]
    trust: Annotated[Trust, Key(Block(Trust), "whose signatures verify")] = field(default_factory=Trust)
    evidence: Annotated[Evidence, Key(Block(Evidence), "what speaks against a document's origin")] = field(
        default_factory=Evidence
    )
    exclude: Annotated[
        tuple[Exclusion, ...], Key(ListOf(Block(Exclusion)), "documents that stay out of every mix")
    ] = ()
    dedup: Annotated[Dedup, Key(Block(Dedup), "which documents count as one")] = field(default_factory=Dedup)
    diversity: Annotated[Diversity, Key(Block(Diversity), "what is measured, and against what")] = field(
        default_factory=Diversity
    )
    mix: Annotated[Mix, Key(MixBlock(), "what the mix is made of and how it is laid out")]
    sign: Annotated[Sign | None, Key(Block(Sign), "the key that signs the manifest")] = None

    @property
    def kept_columns(self) -> tuple[str, ...]:
        """Names of all kept columns, by source name and then as written: the order of the sources has no meaning."""
        by_name = sorted(self.sources, key=lambda source: source.name)
        return tuple(dict.fromkeys(kept.name for source in by_name for kept in source.keep))

    def source(self, name: str) -> Source:
        return next(source for source in self.sources if source.name == name)

    def resolved(self) -> dict[str, Any]:
        """The config with every default, path and variable filled in; it loads again to an equal config."""
        return CONFIG.plain(self)

    def meaning_digest(self) -> str:
        """`config_digest`: sha256 of everything that can change a mix, and of no path."""
        meaning = CONFIG.meaning(self)
        meaning.pop("sign", None)  # a signature is about the mix, not in it
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()

    def facts_settings(self, source: Source | str) -> dict[str, Any]:
        """What the facts of a source depend on, apart from the bytes of its shards, of detectors and of a tokenizer."""
        if isinstance(source, str):
            source = self.source(source)
        of_source = SOURCE.meaning(source)
        return {
            "columns": of_source["columns"],
            "keep": of_source["keep"],
            "tokens": CONFIG.meaning(self)["tokens"],
            "shingle": self.dedup.shingle,
            "permutations": self.dedup.permutations,
            "artefacts": self.evidence.artefacts,
            "detectors": sorted([entry.label, entry.detector] for entry in self.evidence.detectors),
            "metrics": self.diversity.metrics,
        }

    def edges_settings(self) -> dict[str, Any]:
        """What the edges depend on, apart from the facts."""
        return {
            "threshold": str(self.dedup.threshold),
            "against": sorted([against.index, against.keep] for against in self.dedup.against),
            "known_synthetic": sorted(self.evidence.known_synthetic),
            "reference": sorted(self.diversity.reference),
        }

    def fates_settings(self) -> dict[str, Any]:
        """What the fates depend on, apart from the edges and the bytes of keys, manifests and calibrations."""
        names = ("declare", "labels", "synthetic", "custody", "priority", "license")
        plain = CONFIG.plain(self)
        judged = {
            entry.label: [str(entry.alpha), entry.min_words, entry.calibration is not None]
            for entry in self.evidence.detectors
        }
        return {
            **({"detectors": judged} if judged else {}),
            "as_of": plain.get("as_of"),
            "trust": {
                "keys": sorted(plain["trust"]["keys"], key=lambda trusted: str(trusted["name"])),
                "revoked": sorted(self.trust.revoked),
            },
            "exclude": CONFIG.meaning(self)["exclude"],
            "sources": {source["name"]: {name: source.get(name) for name in names} for source in plain["sources"]},
        }


CONFIG = Block(Config)
SOURCE = Block(Source)


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    *,
    allow_later: bool = False,
) -> Config:
    """Read, check and resolve a config. `allow_later` accepts places that nothing is written to yet."""
    file = Path(path)
    text = _read(file)
    folder = os.path.abspath(file.parent)
    at = At(Origin(str(path), folder, known_paths=tuple(CONFIG.paths())))
    tree = read_tree(text, at, environ)
    if not isinstance(tree, dict):
        says = "a config is a mapping with at least the keys version, output, sources and mix"
        raise UsageError("bad_value", f"{path}: {says}; `anchormix init DIR` writes one to start from")
    apply_overrides(tree, overrides, CONFIG, at, environ)
    if tree.get("index") is None:
        tree["index"] = os.path.join(folder, f"{file.stem}.index")
    config: Config = CONFIG.parse(tree, at)
    check_config(config, at)
    if not allow_later:
        refuse_later_keys(config, at)
    return config


def _read(file: Path) -> str:
    if is_url(str(file)):
        raise UsageError("config_not_found", f"{file}: a config is a local file; copy it here first")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("bad_yaml", f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        advice = "name an existing YAML file, or write one with `anchormix init DIR`"
        raise UsageError("config_not_found", f"{file}: {error.strerror or error}; {advice}") from None


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a config file, for editors."""
    schema = CONFIG.schema()
    schema["required"] = [name for name in schema["required"] if name != "index"]  # it has a computed default
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "anchormix config",
        **schema,
    }
