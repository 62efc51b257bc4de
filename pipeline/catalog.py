"""Which files there are: globs to shards, and shards to splits that one worker reads each."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipeline.config import Config, Source
from pipeline.environment import whole_number
from pipeline.errors import UsageError
from pipeline.object_stores import input_error
from transforms import files
from transforms.files import StoreError
from transforms.kernels.artefacts import RECOGNISERS_VERSION
from transforms.kernels.hashing import fingerprint
from transforms.kernels.records import UnreadableFile, detect_format, row_groups
from transforms.kernels.text import UNICODE_VERSION

FACTS_VERSION = "8"
"""Raised whenever the same input would give other facts."""

MOST_SPLIT_BYTES = 64 << 20
LEAST_SPLIT_BYTES = 4 << 20
_SPLITS = 64  # aimed at for small inputs, so that every core of one machine has several to choose from
_UNPACKED = {"none": 1, "gz": 3, "zst": 3}  # guess of a compressed text file's size, for scheduling only


def sketch(config: Config) -> dict[str, Any]:
    """What two indexes must have in common for their signatures and shingles to be comparable."""
    return {
        "facts version": FACTS_VERSION,
        "Unicode version": UNICODE_VERSION,
        "dedup.permutations": config.dedup.permutations,
        "dedup.shingle": config.dedup.shingle,
    }


@dataclass(frozen=True)
class Shard:
    """One input file of one source, at one version."""

    source: str
    name: str  # path below its glob's fixed prefix: what the outside world sees
    path: str
    size: int
    kind: str
    compression: str
    key: str  # fingerprint of everything that decides its facts


@dataclass(frozen=True)
class SplitRange:
    """A part of a shard; the whole of it where `row_groups` is None."""

    row_groups: tuple[int, int] | None
    first_row: int
    weight: int

    @classmethod
    def stored(cls, fields: Sequence[Any]) -> SplitRange:
        """From the index's ledger."""
        groups, first_row, weight = fields
        return cls(tuple(groups) if groups is not None else None, first_row, weight)

    @property
    def name(self) -> str:
        return "whole" if self.row_groups is None else f"{self.row_groups[0]:05d}-{self.row_groups[1]:05d}"


def find_shards(config: Config, content: str = "") -> list[Shard]:
    """All shards of all sources, in the order that addresses follow: (source, name).

    `content` changes with the files that facts depend on beside the shards, such as a tokenizer; whoever only asks
    which shards there are leaves it out.
    """
    shards = [shard for source in config.sources for shard in _source_shards(config, source, content)]
    return sorted(shards, key=lambda shard: (shard.source, shard.name))


KNOWN_SYNTHETIC = "known synthetic"
"""The name under which text known to be synthetic is read; no source of a config can have it."""


REFERENCE = "held-out reference"
"""The name under which held-out human text is read."""

_ANCHORS = {KNOWN_SYNTHETIC: "evidence.known_synthetic", REFERENCE: "diversity.reference"}
"""Config keys of text that documents are compared with, and that is never mixed."""


def is_anchor(source: str) -> bool:
    """Whether this is the name of no source of the config, but of text that its documents are compared with."""
    return source in _ANCHORS


def known_source(config: Config) -> Source:
    """The files of `evidence.known_synthetic`, read as a source is whose columns are recognised."""
    return Source(name=KNOWN_SYNTHETIC, files=config.evidence.known_synthetic)


def reference_source(config: Config) -> Source:
    """The files of `diversity.reference`, read in the same way."""
    return Source(name=REFERENCE, files=config.diversity.reference)


def find_known(config: Config) -> list[Shard]:
    """All shards of text known to be synthetic, by name."""
    return sorted(_source_shards(config, known_source(config)), key=lambda shard: shard.name)


def find_reference(config: Config) -> list[Shard]:
    """All shards of held-out human text, by name."""
    return sorted(_source_shards(config, reference_source(config)), key=lambda shard: shard.name)


def key_of(source: str) -> str:
    """The config key that names the files of a source."""
    return _ANCHORS.get(source) or f"sources.{source}.files"


def missing_column(source: str, failure: str) -> str:
    """What a column that a shard lacks means for a config; anchors have no `columns` in which to name another."""
    if not is_anchor(source):
        return f"sources.{source}.columns: {failure}"
    found = failure.rpartition(". Name ")[0] or failure
    return f"{key_of(source)}: {found}. Its columns are only recognised: give the one with the text such a name"


def _source_shards(config: Config, source: Source, content: str = "") -> list[Shard]:
    settings = json.dumps(config.facts_settings(source), sort_keys=True) + content
    found: dict[str, tuple[str, files.FileInfo]] = {}
    for pattern in source.files:
        try:
            matches = files.list_files(pattern)
        except StoreError as error:
            raise input_error(error, key_of(source.name), pattern) from None
        if not matches and not source.optional:
            raise UsageError(
                "no_files",
                f"{key_of(source.name)}: {pattern!r} matches no file. Check the path (relative paths start at the "
                f"config file's folder), or {_if_empty(source.name)}.",
                key=key_of(source.name),
                value=pattern,
            )
        prefix = files.fixed_prefix(pattern)
        for info in matches:
            found.setdefault(info.path, (_below(info.path, prefix), info))
    by_name: dict[str, str] = {}
    for path, (name, _) in sorted(found.items()):
        if name in by_name:
            raise UsageError(
                "shard_names_collide",
                f"{key_of(source.name)}: {by_name[name]!r} and {path!r} would both be the shard {name!r}. "
                "Shards are named by their path below the glob's fixed part: use one glob above both folders.",
                key=key_of(source.name),
                value=name,
            )
        by_name[name] = path
    return [_shard(source, name, info, settings) for name, info in found.values()]


def _if_empty(source: str) -> str:
    return "leave the pattern out" if is_anchor(source) else f"set sources.{source}.optional: true if it may be empty"


def _below(path: str, prefix: str) -> str:
    return path[len(prefix) :] if path.startswith(prefix) else PurePosixPath(path).name


def _shard(source: Source, name: str, info: files.FileInfo, settings: str) -> Shard:
    try:
        form = detect_format(info.path)
    except ValueError as error:
        raise UsageError("unknown_format", f"{key_of(source.name)}: {error}", path=info.path) from None
    key = fingerprint(
        FACTS_VERSION,
        UNICODE_VERSION,
        RECOGNISERS_VERSION,
        source.name,
        name,
        info.path,
        info.size,
        info.version,
        settings,
    )
    return Shard(source.name, name, info.path, info.size, form.kind, form.compression, key)


def divide(shards: Sequence[Shard]) -> dict[str, list[SplitRange]]:
    """Splits of each shard, by shard key. Parquet is cut between row groups; other files are one split.

    The size of splits depends on the input alone, not on the machine, and decides nothing but the schedule.
    """
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        layouts = dict(zip((shard.key for shard in shards), pool.map(_row_groups, shards), strict=True))
    total = sum(group[1] for layout in layouts.values() for group in layout or [])
    usual = min(MOST_SPLIT_BYTES, max(LEAST_SPLIT_BYTES, total // _SPLITS))
    wanted = whole_number("ANCHORMIX_SPLIT_BYTES", 0, "bytes") or usual
    return {shard.key: _ranges(shard, layouts[shard.key], wanted) for shard in shards}


def _row_groups(shard: Shard) -> list[tuple[int, int]] | None:
    """Rows and bytes of each row group; None for text files, and for files that reading will find broken."""
    if shard.kind != "parquet":
        return None
    try:
        return [(group.rows, group.bytes) for group in row_groups(lambda: files.open_input(shard.path))]
    except (UnreadableFile, OSError):
        return None


def _ranges(shard: Shard, layout: list[tuple[int, int]] | None, wanted: int) -> list[SplitRange]:
    if not layout:
        return [SplitRange(None, 0, shard.size * _UNPACKED[shard.compression])]
    ranges: list[SplitRange] = []
    start = first_row = rows = weight = 0
    for number, (group_rows, group_bytes) in enumerate(layout):
        if number > start and weight + group_bytes > wanted:
            ranges.append(SplitRange((start, number), first_row, weight))
            start, first_row, rows, weight = number, first_row + rows, 0, 0
        rows += group_rows
        weight += group_bytes
    ranges.append(SplitRange((start, len(layout)), first_row, weight))
    return ranges
