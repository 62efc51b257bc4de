"""`anchormix check`: what a config would read and trust, in seconds and without a pipeline."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline import settings
from pipeline.attest import load_private_key
from pipeline.catalog import (
    Shard,
    find_known,
    find_reference,
    find_shards,
    key_of,
    known_source,
    missing_column,
    reference_source,
)
from pipeline.config import Config, Source
from pipeline.custody import ALTERED, UNLISTED, VERIFIED, Custody, altered_shards, load_custody
from pipeline.data_cards import card_of
from pipeline.detectors import NO_DETECTORS, Detectors, load_detectors
from pipeline.earlier import load_earlier
from pipeline.errors import BadInput, CustodyFailed, UsageError
from pipeline.gates import refuse_missing_shards
from pipeline.heldout import refuse_shared
from pipeline.index import Index
from pipeline.outcome import Outcome
from pipeline.parent import load_parent, parent_line
from pipeline.readings import judge_reading_of, label_warnings, told_reading
from pipeline.report import bands_line
from pipeline.tokens import load_tokenizer, told_tokens
from pipeline.weights import learned_weights
from transforms import files
from transforms.kernels.artefacts import artefact_bits
from transforms.kernels.columns import ColumnMap
from transforms.kernels.detection import judge
from transforms.kernels.detectors import DetectorFailed, score_batch
from transforms.kernels.hashing import text_digests
from transforms.kernels.provenance import covered, leaf_array, tag
from transforms.kernels.recognisers import Claim
from transforms.kernels.records import (
    FileFormat,
    MissingColumn,
    UnreadableFile,
    missing_columns,
    peek,
    read_records,
)
from transforms.kernels.schemas import Provenance, Status
from transforms.kernels.text import split_words
from transforms.sidecars import Summary

_ROWS = 3
_MOST_DOCUMENTS = 12  # of these rows, where they make several each
_EXCERPT = 60
_LARGEST_HASHED = 256 << 20  # a larger shard's custody is left to `index`; hashing it would not take seconds
_HASHED = 4 << 30  # of all shards together
_LARGEST_READ = 8 << 20  # a larger file is not read to its end to see whether a column ever appears
_NOT_JUDGED = "not judged"

_Digests = dict[tuple[str, str], str]
"""sha256 of the shards that were hashed, by source and name."""


def check_config(config: Config) -> Outcome:
    """Look at every source's first shard and at what is signed; the first thing that is wrong is the error."""
    _check_sign(config)
    parent = load_parent(config)
    learned_weights(config)
    detectors = load_detectors(config)
    tokens = told_tokens(config, load_tokenizer(config))
    shards = find_shards(config)
    try:
        custody = load_custody(config)
    except CustodyFailed:
        for source in config.sources:  # a source that can have no custody is told before what is wrong with it
            if source.custody:
                _peeked(config, source, [shard for shard in shards if shard.source == source.name], detectors)
        raise
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        digests = dict(filter(None, pool.map(_hashed, _to_hash(config, shards))))
        looks = list(
            pool.map(
                lambda source: _look(
                    config, source, [s for s in shards if s.source == source.name], custody, digests, detectors
                ),
                config.sources,
            )
        )
    _judge_custody(config, looks, custody)
    compared, compared_lines = _compared_with(config)
    refuse_shared(shards, find_reference(config))
    refuse_missing_shards(config, shards)
    bound = _floor_bound(config, looks)
    lines = [line for look in looks for line in _lines(look)]
    lines += [f"keys: {len(config.trust.keys)} trusted, {len(config.trust.revoked)} revoked"]
    lines += [f"tokens: {', '.join(f'{name} {value}' for name, value in tokens.items())}"]
    lines += [*compared_lines, *(f"warning: {warning}" for warning in custody.warnings)]
    if parent is not None:
        lines += [parent_line(parent)]
    bands = settings.told_bands(config)
    lines += [bands_line(bands), bound["text"], "Next: anchormix run with the same config."]
    return Outcome(
        "\n".join(lines),
        output=config.output,
        totals={"shards": len(shards), "bytes": sum(shard.size for shard in shards)},
        details={
            "sources": looks,
            "floor_bound": bound,
            "bands": bands,
            "tokens": dict(tokens),
            "parent": parent and parent.identity,
            **compared,
        },
    )


def _compared_with(config: Config) -> tuple[dict[str, Any], list[str]]:
    """Earlier indexes, text known to be synthetic, held-out text: what documents will be held against, once all are
    read."""
    earlier = load_earlier(config, Index(config.index), 0)
    lines = [f"against {one.root}: {one.documents:,} documents, keep {one.keep}" for one in earlier]
    told: dict[str, Any] = {
        "against": [{"index": one.root, "documents": one.documents, "keep": one.keep} for one in earlier]
    }
    for name, source, shards in (
        ("known_synthetic", known_source(config), find_known(config)),
        ("reference", reference_source(config), find_reference(config)),
    ):
        _peeked(config, source, shards, NO_DETECTORS)
        size = sum(shard.size for shard in shards)
        told[name] = {"shards": len(shards), "bytes": size}
        lines += [f"{name.replace('_', ' ')}: {len(shards):,} shards, {size:,} bytes"] if shards else []
    return told, lines


def _check_sign(config: Config) -> None:
    if config.sign is None:
        return
    try:
        load_private_key(config.sign.key)
    except UsageError as error:
        raise UsageError(error.code, f"sign.key: {error.message}", key="sign.key", **error.details) from None


def _to_hash(config: Config, shards: Sequence[Shard]) -> list[Shard]:
    """The shards whose custody can be judged in seconds."""
    custodial = {source.name for source in config.sources if source.custody}
    chosen = []
    left = _HASHED
    for shard in shards:
        if shard.source in custodial and shard.size <= min(_LARGEST_HASHED, left):
            chosen.append(shard)
            left -= shard.size
    return chosen


def _hashed(shard: Shard) -> tuple[tuple[str, str], str] | None:
    try:
        return (shard.source, shard.name), files.file_digest(shard.path)
    except OSError:
        return None  # its custody is not judged; where it is looked at, reading says what is wrong


def _verdicts(shards: Sequence[Shard], custody: Custody, digests: _Digests) -> dict[str, dict[str, Any]]:
    """Verdict and size of each shard of a source."""
    known = {shard.name: digests.get((shard.source, shard.name)) for shard in shards}
    present = {digest for digest in known.values() if digest}
    told = {}
    for shard in shards:
        digest = known[shard.name]
        verdict = custody.verdict(shard.source, shard.name, digest, present) if digest else _NOT_JUDGED
        if verdict == ALTERED and len(present) < len(set(known.values())):
            # A shard of a similar name may hold the signed bytes, and not all were hashed: only its own name counts.
            verdict = ALTERED if shard.name in custody.sources[shard.source].names else _NOT_JUDGED
        told[shard.name] = {"verdict": verdict, "bytes": shard.size}
    return told


def _judge_custody(config: Config, looks: Sequence[dict[str, Any]], custody: Custody) -> None:
    """Exit 7 where `run` would: a signed shard was altered and its source says that this must not pass."""
    for source, look in zip(config.sources, looks, strict=True):
        altered = _of(look, ALTERED)
        if source.custody and source.custody.on_mismatch == "fail" and altered:
            raise altered_shards(custody, source.name, altered)


def _of(look: dict[str, Any], verdict: str) -> list[str]:
    return [name for name, told in look["custody"].items() if told["verdict"] == verdict]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if names[5:] else "")


_WHY = {
    ALTERED: "changed after signing, so their text is not verified",
    UNLISTED: "in no manifest that counts, so their text is not verified",
    _NOT_JUDGED: "too large to hash in seconds, or not readable, so `index` will judge their custody",
}


def _custody_warnings(look: dict[str, Any]) -> list[str]:
    told = {verdict: _of(look, verdict) for verdict in _WHY}
    of = len(look["custody"])
    return [
        f"sources.{look['source']}.custody: {len(names):,} of {of:,} shards {verdict}: {_WHY[verdict]}: {_some(names)}"
        for verdict, names in told.items()
        if names
    ]


def _look(
    config: Config,
    source: Source,
    shards: Sequence[Shard],
    custody: Custody,
    digests: _Digests,
    detectors: Detectors,
) -> dict[str, Any]:
    look: dict[str, Any] = {
        "source": source.name,
        "shards": len(shards),
        "bytes": sum(shard.size for shard in shards),
        "columns": [],
        "rows": [],
        "hints": [],
        "reading": None,
        "card": [],
        "custody": _verdicts(shards, custody, digests) if source.custody else {},
    }
    peeked = _peeked(config, source, shards, detectors)
    if peeked is not None:
        card = card_of(source)
        read = peeked.read
        look["columns"] = peeked.columns
        look["sample"] = peeked.shard.name
        look["reading"] = told_reading(read.form, read.data_set)
        look["card"] = [claim.detail for claim in card]
        rows = peeked.rows.slice(0, _MOST_DOCUMENTS)
        look["rows"] = _tagged(source, peeked.shard, rows, custody, digests, card, detectors)
        look["hints"] = [*peeked.unseen, *label_warnings(source, read.unexplained)]
    return look


class _Peeked(NamedTuple):
    """The first rows of one shard, and how it is read."""

    shard: Shard
    columns: list[str]
    rows: pa.RecordBatch
    read: Summary
    unseen: list[str]


def _peeked(config: Config, source: Source, shards: Sequence[Shard], detectors: Detectors) -> _Peeked | None:
    """The first shard that has rows, or else the last one; None where there is none."""
    columns = settings.column_map(config, source, detectors)
    peeked = None
    for shard in shards:
        form = FileFormat(*_form(shard))
        read = Summary(0, source.name, shard.name)
        opener = partial(files.open_input, shard.path)
        try:
            names, rows = peek(opener, shard.path, form, columns, _ROWS, read.note_reading)
            unseen = _unseen(shard, form, columns)
        except MissingColumn as error:
            raise UsageError("missing_column", missing_column(source.name, str(error))) from None
        except UnreadableFile as error:
            key = key_of(source.name).removesuffix(".files")
            raise BadInput("bad_file", f"{key}: {error}", path=shard.path) from None
        judge_reading_of(config, source, read.form, read.data_set, shard.name)
        peeked = _Peeked(shard, names, rows, read, unseen)
        if rows.num_rows:
            break
    return peeked


def _form(shard: Shard) -> tuple[Any, Any]:
    return shard.kind, shard.compression


def _unseen(shard: Shard, form: FileFormat, columns: ColumnMap) -> list[str]:
    """Named columns that the first records of JSON lines lack; MissingColumn where the whole file lacks them."""
    opener = partial(files.open_input, shard.path)
    found = missing_columns(opener, shard.path, form, columns)
    if found and shard.size <= _LARGEST_READ:
        for _ in read_records(opener, shard.path, form, columns):
            pass  # raises at the end what `run` would
        return []
    return [f"{error}; the first records lack it, and if the rest does too, `run` stops" for error in found]


def _tagged(
    source: Source,
    shard: Shard,
    rows: pa.RecordBatch,
    custody: Custody,
    digests: _Digests,
    card: tuple[Claim, ...],
    detectors: Detectors,
) -> list[dict[str, Any]]:
    digest = digests.get((source.name, shard.name))
    held = custody.of(source.name, shard.name, digest) if digest else None
    readable = rows["status"].to_numpy() == Status.OK
    n_words = np.diff(split_words(rows["text"]).offsets)
    try:
        scores = score_batch(rows, detectors.specs, readable, n_words)
    except DetectorFailed as error:
        key = f"evidence.detectors.{error.name}"
        raise UsageError("bad_detector", f"{key}: {error} (reading {source.name}/{shard.name})", key=key) from None
    facts = pa.table(
        {
            "label": rows["label"],
            "generator": rows["generator"],
            "origin": rows["origin"],
            "artefacts": artefact_bits(rows["text"]),
            "language": rows["language"],
            "n_words": n_words,
            **scores,
        }
    )
    findings = judge(facts, readable, detectors.rules)
    mask = covered(text_digests(rows["text"]), leaf_array(files.read_bytes(held.leaves))) if held else None
    tags = tag(facts, mask, held.detail if held else None, settings.source_rules(source, card), None, findings)
    return [
        {
            "row": rows["row"][place].as_py(),
            "part": rows["part"][place].as_py(),
            "status": Status(rows["status"][place].as_py()).name.lower(),
            "tag": Provenance(int(tags.provenance[place])).label,
            "evidence": [piece["rule"] for piece in tags.evidence[place].as_py()],
            "why": [_why(piece) for piece in tags.evidence[place].as_py()],
            "generator": tags.generator[place].as_py(),
            "text": " ".join((rows["text"][place].as_py() or "").split())[:_EXCERPT],
        }
        for place in range(rows.num_rows)
    ]


def _why(piece: dict[str, str]) -> str:
    return f"{piece['rule']}: {piece['detail']}" + ("" if piece["strength"] == "declared" else f", {piece['strength']}")


def _floor_bound(config: Config, looks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is certain of the floor before any text is read: nothing verified holds none, anything verified holds any.

    Shares are of text, and sizes of files say nothing of it: one is compressed, the other is not.
    """
    told = [shard for look in looks for shard in look["custody"].values()]
    verified = [shard["bytes"] for shard in told if shard["verdict"] == VERIFIED]
    open_yet = [shard["bytes"] for shard in told if shard["verdict"] == _NOT_JUDGED]
    floor = config.mix.human_floor
    possible = bool(verified or open_yet)
    if floor == 0:
        text = "floor: none is asked of human_verified, so the mix promises no human text"
    elif not any(source.custody for source in config.sources):
        text = f"floor: {floor} of human_verified cannot be held: no source has custody"
    elif not possible:
        text = f"floor: {floor} of human_verified cannot be held: no shard of a source with custody is verified"
    else:
        may = f" and {len(open_yet):,} not judged" if open_yet else ""
        text = (
            f"floor: any up to 1 can be held by leaving other text out, as long as the {len(verified):,} verified"
            f"{may} shards hold verified text; {floor} is asked. How large the mix can be then, `anchormix plan` says"
        )
        if config.mix.size != "max":
            needed = -(-int(config.mix.size) * floor.numerator // floor.denominator)
            text += f"; a mix of mix.size needs {needed:,} verified {config.mix.measure}"
    return {
        "text": text,
        "bound": int(possible),
        "verified_shards": len(verified),
        "not_judged_shards": len(open_yet),
        "verified_file_bytes": sum(verified),
    }


def _lines(look: dict[str, Any]) -> list[str]:
    lines = [f"{look['source']}: {look['shards']:,} shards, {look['bytes']:,} bytes"]
    if look["columns"]:
        lines.append(f"  columns of {look['sample']}: {', '.join(look['columns'])}")
    if look["reading"]:
        lines.append(f"  {look['reading']}")
    lines += [f"  card: {told}" for told in look["card"]]
    several = any(row["part"] for row in look["rows"])
    for row in look["rows"]:
        told = row["tag"] if row["status"] == "ok" else row["status"]
        by = f" by {row['generator']}" if row["generator"] else ""
        place = f"row {row['row']}" + (f" part {row['part']}" if several else "")
        lines.append(f"  {place}: {told}{by} ({'; '.join(row['why']) or 'no evidence'}): {row['text']}")
    if look["custody"]:
        counts = Counter(told["verdict"] for told in look["custody"].values())
        lines.append(f"  custody: {', '.join(f'{count:,} {verdict}' for verdict, count in sorted(counts.items()))}")
    lines += [f"  warning: {hint}" for hint in (*look["hints"], *_custody_warnings(look))]
    return lines
