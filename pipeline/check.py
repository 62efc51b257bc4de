"""`anchormix check`: what a config would read and trust, in seconds and without a pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline import settings
from pipeline.catalog import Shard, find_shards
from pipeline.config import Config, Source
from pipeline.custody import Custody, load_custody
from pipeline.errors import BadInput, UsageError
from pipeline.outcome import Outcome
from transforms import files
from transforms.kernels.artefacts import artefact_bits
from transforms.kernels.hashing import text_digests
from transforms.kernels.provenance import covered, leaf_array, tag
from transforms.kernels.records import FileFormat, MissingColumn, UnreadableFile, peek
from transforms.kernels.schemas import Provenance, Status

_ROWS = 3
_EXCERPT = 60
_LARGEST_HASHED = 256 << 20  # a larger shard's custody is left to `index`; hashing it would not take seconds


def check_config(config: Config) -> Outcome:
    """Look at every source's first shard; the first thing that is wrong is the error."""
    shards = find_shards(config)
    custody = load_custody(config)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        looks = list(
            pool.map(
                lambda source: _look(config, source, [s for s in shards if s.source == source.name], custody),
                config.sources,
            )
        )
    bound = _floor_bound(config, shards)
    lines = [line for look in looks for line in _lines(look)]
    lines += [f"keys: {len(config.trust.keys)} trusted, {len(config.trust.revoked)} revoked"]
    lines += [f"warning: {warning}" for warning in custody.warnings]
    lines += [bound["text"], "Next: anchormix run with the same config."]
    return Outcome(
        "\n".join(lines),
        output=config.output,
        totals={"shards": len(shards), "bytes": sum(shard.size for shard in shards)},
        details={"sources": looks, "floor_bound": bound},
    )


def _look(config: Config, source: Source, shards: Sequence[Shard], custody: Custody) -> dict[str, Any]:
    look: dict[str, Any] = {
        "source": source.name,
        "shards": len(shards),
        "bytes": sum(shard.size for shard in shards),
        "columns": [],
        "rows": [],
    }
    for shard in shards:
        columns = settings.column_map(config, source)
        form = FileFormat(*_form(shard))
        try:
            look["columns"], rows = peek(partial(files.open_input, shard.path), shard.path, form, columns, _ROWS)
        except MissingColumn as error:
            raise UsageError("missing_column", f"sources.{source.name}.columns: {error}") from None
        except UnreadableFile as error:
            raise BadInput("bad_file", f"sources.{source.name}: {error}", path=shard.path) from None
        look["sample"] = shard.name
        look["rows"] = _tagged(source, shard, rows.slice(0, _ROWS), custody)
        look["hints"] = _hints(source, look["columns"])
        if rows.num_rows:
            break
    return look


def _form(shard: Shard) -> tuple[Any, Any]:
    return shard.kind, shard.compression


def _tagged(source: Source, shard: Shard, rows: pa.RecordBatch, custody: Custody) -> list[dict[str, Any]]:
    held = None
    if source.custody and shard.size <= _LARGEST_HASHED:
        held = custody.of(source.name, shard.name, files.file_digest(shard.path))
    facts = pa.table(
        {
            "label": rows["label"],
            "generator": rows["generator"],
            "artefacts": artefact_bits(rows["text"]),
        }
    )
    mask = covered(text_digests(rows["text"]), leaf_array(files.read_bytes(held.leaves))) if held else None
    tags = tag(facts, mask, held.detail if held else None, settings.source_rules(source))
    return [
        {
            "row": rows["row"][place].as_py(),
            "status": Status(rows["status"][place].as_py()).name.lower(),
            "tag": Provenance(int(tags.provenance[place])).label,
            "evidence": [piece["rule"] for piece in tags.evidence[place].as_py()],
            "text": " ".join((rows["text"][place].as_py() or "").split())[:_EXCERPT],
        }
        for place in range(rows.num_rows)
    ]


_LABEL_NAMES = (
    "label",
    "labels",
    "is_human",
    "is_ai",
    "is_synthetic",
    "synthetic",
    "machine_generated",
    "ai_generated",
)


def _hints(source: Source, columns: Sequence[str]) -> list[str]:
    """A label column that nobody named asserts nothing; say so, because its owner may think otherwise."""
    if isinstance(source.columns.label, str):
        return []
    found = [name for name in columns if name.lower() in _LABEL_NAMES]
    return [
        f'column "{name}" looks like a label of origin and is not used: name it under columns.label and say under '
        "labels what its values mean"
        for name in found
    ]


def _floor_bound(config: Config, shards: Sequence[Shard]) -> dict[str, Any]:
    """How much could be verified at most, by file size: the only thing known before reading."""
    custodial = {source.name for source in config.sources if source.custody}
    verified = sum(shard.size for shard in shards if shard.source in custodial)
    total = sum(shard.size for shard in shards)
    share = verified / total if total else 0.0
    floor = config.mix.human_floor
    if floor == 0:
        text = "floor: none is asked of human_verified, so the mix promises no human text"
    elif verified == 0:
        text = f"floor: {floor} of human_verified cannot be held: no source has custody"
    else:
        text = (
            f"floor: at most {100 * share:.1f} % of the input's bytes can be verified; a mix of everything holds no "
            f"higher floor, and at {floor} other text is left out where there is too much of it"
        )
    return {"text": text, "verified_bytes": verified, "bytes": total, "share": round(share, 6)}


def _lines(look: dict[str, Any]) -> list[str]:
    lines = [f"{look['source']}: {look['shards']:,} shards, {look['bytes']:,} bytes"]
    if look["columns"]:
        lines.append(f"  columns of {look['sample']}: {', '.join(look['columns'])}")
    for row in look["rows"]:
        evidence = ", ".join(row["evidence"]) or "no evidence"
        told = row["tag"] if row["status"] == "ok" else row["status"]
        lines.append(f"  row {row['row']}: {told} ({evidence}): {row['text']}")
    lines += [f"  warning: {hint}" for hint in look.get("hints", [])]
    return lines
