"""Documents with what their owner says of their origin: what detectors are trained and calibrated on.

They are read as an index reads them, from the sources of a config or from files, and labelled by the rule that tags
documents; traces in the text itself take no part, or a detector would learn what other evidence says already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import settings
from pipeline.catalog import find_shards
from pipeline.config import load_config
from pipeline.custody import Custody, load_custody
from pipeline.data_cards import load_cards
from pipeline.errors import BadInput, UsageError
from transforms import files
from transforms.batches import MAX_DOCUMENT_BYTES
from transforms.kernels.columns import AUTO, ColumnMap
from transforms.kernels.hashing import text_digests
from transforms.kernels.provenance import SourceRules, covered, leaf_array, tag
from transforms.kernels.records import FileFormat, MissingColumn, UnreadableFile, detect_format, read_records
from transforms.kernels.schemas import KEEP_PREFIX, Provenance, Status
from transforms.kernels.text import split_words

__all__ = ["Labelled", "Reading", "read_labelled"]

_GROUP = "group"
_HUMAN = (int(Provenance.HUMAN_VERIFIED), int(Provenance.HUMAN))


@dataclass(frozen=True)
class Reading:
    """How files are read that no config describes; with a config only `group` and `scores` count."""

    text: str | None = None
    label: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    language: str | None = None
    group: str | None = None
    scores: tuple[str, ...] = ()
    declare: str = "unknown"


@dataclass(frozen=True)
class Labelled:
    """Human and synthetic documents; what is neither, or disputed, is counted and left out."""

    batches: tuple[pa.RecordBatch, ...]
    """PARSED rows."""
    synthetic: NDArray[np.bool_]
    n_words: NDArray[np.int64]
    unlabelled: int
    unreadable: int

    def column(self, name: str) -> pa.Array:
        kind = pa.large_string() if name == "text" else pa.string()
        found = [
            batch[name] if name in batch.schema.names else pa.nulls(batch.num_rows, kind) for batch in self.batches
        ]
        return pa.concat_arrays([pa.array([], kind), *found])

    @property
    def groups(self) -> list[str] | None:
        if not self.batches or KEEP_PREFIX + _GROUP not in self.batches[0].schema.names:
            return None
        # A document without a group is a group of its own.
        named = self.column(KEEP_PREFIX + _GROUP).to_pylist()
        return [f"row {place}" if name is None else f"group {name}" for place, name in enumerate(named)]

    def humans(self) -> NDArray[np.int64]:
        return np.flatnonzero(~self.synthetic)


@dataclass(frozen=True)
class _Shard:
    path: str
    form: FileFormat
    columns: ColumnMap
    rules: SourceRules
    custody: Any = None


def read_labelled(inputs: Sequence[str], reading: Reading) -> Labelled:
    """Read everything; exit 2 for what is named wrongly, 5 for a file that cannot be read."""
    is_config = len(inputs) == 1 and Path(inputs[0]).suffix.lower() in (".yaml", ".yml")
    shards = _of_config(inputs[0], reading) if is_config else _of_files(inputs, reading)
    kept: list[pa.RecordBatch] = []
    synthetic: list[NDArray[np.bool_]] = []
    words: list[NDArray[np.int64]] = []
    unlabelled = unreadable = 0
    for shard in shards:
        for batch in _batches(shard):
            ok = batch["status"].to_numpy() == Status.OK
            unreadable += int((batch["status"].to_numpy() == Status.BAD_RECORD).sum())
            provenance = _provenance(batch, shard)
            chosen = np.flatnonzero(ok & (np.isin(provenance, _HUMAN) | (provenance == Provenance.SYNTHETIC)))
            unlabelled += int(ok.sum()) - len(chosen)
            if len(chosen):
                taken = batch.take(pa.array(chosen))
                kept.append(taken)
                synthetic.append(provenance[chosen] == Provenance.SYNTHETIC)
                words.append(np.diff(split_words(taken["text"]).offsets))
    return Labelled(
        tuple(kept),
        np.concatenate([*synthetic, np.empty(0, bool)]),
        np.concatenate([*words, np.empty(0, np.int64)]),
        unlabelled,
        unreadable,
    )


def _of_config(path: str, reading: Reading) -> Iterable[_Shard]:
    config = load_config(path)
    custody: Custody = load_custody(config)
    cards = load_cards(config)
    sources = {source.name: source for source in config.sources}
    for shard in find_shards(config):
        source = sources[shard.source]
        held = custody.of(shard.source, shard.name, files.file_digest(shard.path)) if source.custody else None
        columns = _extended(settings.column_map(config, source), reading)
        form: Any = (shard.kind, shard.compression)
        rules = settings.source_rules(source, cards.get(source.name, ()))
        yield _Shard(shard.path, FileFormat(*form), columns, rules, held)


def _of_files(patterns: Sequence[str], reading: Reading) -> Iterable[_Shard]:
    # Whoever says what labels mean wants those; otherwise what the columns of known data sets say counts.
    recognise = reading.label is None
    columns = ColumnMap(
        text=reading.text or AUTO,
        language=reading.language or AUTO,
        label=reading.label,
        generator=AUTO if recognise else None,
        origins=recognise,
    )
    rules = SourceRules("files", reading.declare, labels=reading.labels)
    for pattern in patterns:
        found = files.list_files(pattern)
        if not found:
            raise UsageError("no_files", f"{pattern!r} matches no file; name files, a glob in quotes, or one config")
        for info in found:
            try:
                form = detect_format(info.path)
            except ValueError as error:
                raise UsageError("unknown_format", str(error), path=info.path) from None
            yield _Shard(info.path, form, _extended(columns, reading), rules)


def _extended(columns: ColumnMap, reading: Reading) -> ColumnMap:
    keep = ((_GROUP, reading.group),) if reading.group else ()
    return replace(columns, keep=keep, scores=reading.scores, n_tokens=None)


def _batches(shard: _Shard) -> Iterator[pa.RecordBatch]:
    opener = partial(files.open_input, shard.path)
    try:
        yield from read_records(opener, shard.path, shard.form, shard.columns, max_document=MAX_DOCUMENT_BYTES)
    except MissingColumn as error:
        raise UsageError("missing_column", str(error), path=shard.path) from None
    except UnreadableFile as error:
        raise BadInput("bad_file", f"{shard.path}: {error.problem}", path=shard.path) from None


def _provenance(batch: pa.RecordBatch, shard: _Shard) -> NDArray[np.uint8]:
    facts = pa.table(
        {
            "label": batch["label"],
            "generator": batch["generator"],
            "origin": batch["origin"],
            "artefacts": np.zeros(batch.num_rows, np.uint64),
        }
    )
    held = shard.custody
    mask = covered(text_digests(batch["text"]), leaf_array(files.read_bytes(held.leaves))) if held else None
    return tag(facts, mask, held.detail if held else None, shard.rules).provenance
