"""FACTS: read every document once and store what later stages need to know of it, row for row beside its input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms import counters, files
from transforms.batches import MAX_DOCUMENT_BYTES, Split
from transforms.kernels import detectors, hashing, minhash, text
from transforms.kernels.artefacts import artefact_bits
from transforms.kernels.detectors import DetectorFailed
from transforms.kernels.records import MissingColumn, UnreadableFile, read_records
from transforms.kernels.schemas import KEEP_PREFIX, Status, facts_schema, score_column
from transforms.kernels.streams import reading
from transforms.kernels.tokens import TokenizerUnusable, token_counter
from transforms.pool import PooledDoFn
from transforms.sidecars import (
    SUMMARY_KEY,
    SourceSettings,
    SplitDiversity,
    Summary,
    diversity_path,
    facts_writer,
    file_format,
    finished_summary,
    fixed_binary,
    opener,
    unreachable,
)
from transforms.texts import Keeper

_ROWS_PER_GROUP = 16_384
_PROBLEMS_KEPT = 20  # per split; all are counted and stored in the sidecar


@dataclass
class ExtractFacts(beam.PTransform):
    """Splits in, summaries out; facts and diversity accumulators are written beside each other on the way.

    A sidecar is named after everything that decides its content and appears by rename, so a split whose sidecar
    exists is done: a second attempt, a restarted run and a run over grown input all skip it.
    """

    settings: Mapping[str, SourceSettings]  # per source

    def expand(self, splits: Any) -> Any:
        return splits | "ReadSplit" >> beam.ParDo(_ReadSplit(self.settings)).with_output_types(bytes)


class _ReadSplit(PooledDoFn):
    def __init__(self, settings: Mapping[str, SourceSettings]) -> None:
        self._settings = settings

    def work(self, element: bytes) -> Iterator[bytes]:
        split = Split.from_bytes(element)
        done = finished_summary(split.facts)
        summary = done or extract_facts(split, self._settings[split.source])
        summary.split = split.index  # the place among all splits may have changed since the sidecar was written
        if done:
            counters.advance("index", summary.documents, split.weight)
        yield summary.to_bytes()


def extract_facts(split: Split, settings: SourceSettings) -> Summary:
    """Read one split and write its sidecars; a file that cannot be read to its end writes nothing."""
    summary = Summary(split.index, split.source, split.shard)
    schema = facts_schema(settings.kept, settings.minhash.permutations, settings.scored)
    statistics = SplitDiversity(settings.diversity)
    try:
        # The writer closes first even if reading fails: one that outlives its sink complains when it is collected.
        with (
            files.atomic_output(split.facts) as sink,
            facts_writer(sink, schema) as writer,
            Keeper(split) as keeper,
        ):
            held: list[pa.RecordBatch] = []
            for batch in read_records(
                opener(split),
                split.path,
                file_format(split),
                settings.columns,
                row_groups=split.row_groups,
                first_row=split.first_row,
                batch_bytes=settings.batch_bytes,
                batch_rows=settings.batch_rows,
                max_document=MAX_DOCUMENT_BYTES,
                on_located=summary.note_reading,
            ):
                keeper.add(batch["text"])
                facts = batch_facts(batch, settings, schema, statistics)
                _count(summary, facts, settings.scored)
                counters.advance("index", facts.num_rows, 0)
                held.append(facts)
                if sum(part.num_rows for part in held) >= _ROWS_PER_GROUP:
                    _write_group(writer, held, schema)
            if held:
                _write_group(writer, held, schema)
            if split.whole:
                with reading(split.path, "cannot be read"):
                    summary.file_digest = files.file_digest(split.path)
            files.write_bytes(diversity_path(split.facts), statistics.to_bytes())
            writer.add_key_value_metadata({SUMMARY_KEY: summary.to_bytes()})
    except MissingColumn as error:
        return Summary(split.index, split.source, split.shard, failure=str(error), failure_code="missing_column")
    except UnreadableFile as error:
        code, told = ("unreachable", lost) if (lost := unreachable(error)) else ("bad_file", error.problem)
        return Summary(split.index, split.source, split.shard, failure=told, failure_code=code)
    except DetectorFailed as error:
        told = f"{error.name}: {error}"
        return Summary(split.index, split.source, split.shard, failure=told, failure_code="bad_detector")
    except TokenizerUnusable as error:
        return Summary(split.index, split.source, split.shard, failure=str(error), failure_code=error.code)
    counters.advance("index", 0, split.weight)
    return summary


def _write_group(writer: pq.ParquetWriter, held: list[pa.RecordBatch], schema: pa.Schema) -> None:
    writer.write_table(pa.Table.from_batches(held, schema).combine_chunks())
    held.clear()


def _count(summary: Summary, facts: pa.RecordBatch, detectors: tuple[str, ...]) -> None:
    status = facts["status"].to_numpy()
    summary.documents += facts.num_rows
    summary.empty += int((status == Status.EMPTY).sum())
    summary.words += int(facts["n_words"].to_numpy().sum())
    summary.tokens += int(facts["n_tokens"].to_numpy().sum())
    summary.text_bytes += int(facts["n_bytes"].to_numpy().sum())
    summary.derived += facts.num_rows - facts["derived_from"].null_count
    for name in detectors:
        silent = (status == Status.OK) & facts[score_column(name)].is_null().to_numpy(zero_copy_only=False)
        summary.unscored[name] = summary.unscored.get(name, 0) + int(silent.sum())
    bad = np.flatnonzero(status == Status.BAD_RECORD)
    summary.bad_records += len(bad)
    for place in bad[: max(0, _PROBLEMS_KEPT - len(summary.problems))]:
        summary.problems.append((facts["row"][int(place)].as_py(), facts["problem"][int(place)].as_py()))


def batch_facts(
    batch: pa.RecordBatch, settings: SourceSettings, schema: pa.Schema, statistics: SplitDiversity
) -> pa.RecordBatch:
    """All facts of one batch, each computed for the whole batch at once."""
    documents = batch["text"]
    words = text.split_words(documents)
    sketches = minhash.sketches(words, settings.minhash)
    status = batch["status"].to_numpy()
    tokens = words.counted
    if settings.columns.n_tokens is not None:
        tokens = batch["n_tokens"].fill_null(0).to_numpy()  # a readable document without a count is a bad record
    elif settings.tokenizer is not None:
        tokens = token_counter(settings.tokenizer)(documents)
    readable = status == Status.OK
    statistics.add(documents, words, readable, batch["language"])
    columns: dict[str, Any] = {
        "row": batch["row"],
        "part": batch["part"],
        "status": status,
        "problem": batch["problem"],
        "digest": fixed_binary(hashing.text_digests(documents)),
        "n_bytes": pc.binary_length(documents).fill_null(0),
        "n_words": np.diff(words.offsets),
        "n_tokens": np.where(readable, tokens, 0),
        "n_shingles": sketches.n_shingles,
        "artefacts": artefact_bits(documents) if settings.artefacts else np.zeros(batch.num_rows, np.uint64),
        "signature": fixed_binary(sketches.signatures.view(np.uint8)),
        "sample": pa.ListArray.from_arrays(sketches.samples.offsets.astype(np.int32), sketches.samples.hashes),
        **detectors.score_batch(batch, settings.detectors, readable, np.diff(words.offsets)),
        **{
            name: batch[name]
            for name in ("doc_id", "language", "license", "generator", "label", "derived_from", "origin")
        },
        **{KEEP_PREFIX + name: batch[KEEP_PREFIX + name] for name in settings.kept},
    }
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[name], schema.field(name).type) for name in schema.names], schema=schema
    )
