"""PLAN's totals and MIX: count what can be chosen, then write exactly what was planned."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms import counters, files
from transforms.batches import MAX_BATCH_BYTES, Split, chunks_of_bytes, groups, pack, unpack
from transforms.exchange import ORDER, Exchange, Gather, Packet, packet, received
from transforms.kernels import diversity, layout, strata
from transforms.kernels.ahead import read_ahead
from transforms.kernels.audit import CERTIFICATE_KEY, certified_shares
from transforms.kernels.gather import ChunkedTexts
from transforms.kernels.hashing import fingerprint, hex_ids
from transforms.kernels.records import MissingColumn, UnreadableFile
from transforms.kernels.schemas import ID_BYTES, KEEP_PREFIX, Fate, Provenance, mix_schema
from transforms.kernels.scripts import languages_or_scripts
from transforms.kernels.text import split_words
from transforms.planned import Assignments, Draw, MixTask, measured, planned_rows
from transforms.pool import PooledDoFn
from transforms.sidecars import (
    SourceSettings,
    digests_of,
    fixed_rows,
    read_facts,
    unreachable,
    unreachable_report,
)
from transforms.texts import kept_texts, texts_at

_REPETITIVE = [
    *("source", "provenance", "generator", "language", "license", "shard"),
    *(f"evidence.list.element.{name}" for name in ("kind", "rule", "strength", "detail")),
]
"""Columns of few values: a dictionary pays there, and would only be tried and given up on texts and ids."""

_WRITER_BYTES = 64 << 20  # of text: what a writer takes of shards that are smaller
_LEAST_WRITERS = 16  # so that all threads find work
_SEND_BYTES = 48 << 20  # of text a split holds before it is cut up by output shard: few, large pieces
_ORDER = "__order"

Packets = Iterator[tuple[int, Packet]]


@dataclass
class CountStrata(beam.PTransform):
    """`MixTask`s in; per partition one packed table of cell totals, gathered in the file `report`.

    Args:
        slices: into which the buckets of each stratum are cut. Every split has some of most buckets, so all that is
            known of a large stratum would be too much for one worker.
    """

    draw: Draw
    partitions: int
    slices: int
    report: str
    scratch: str | None

    def expand(self, tasks: Any) -> Any:
        return (
            tasks
            | "CountSplit" >> beam.ParDo(_CountSplit(self.draw, self.partitions, self.slices))
            | "ByStratum" >> Exchange(self.scratch)
            | "AddCells" >> beam.ParDo(_AddCells())
            | Gather(self.report)
        )


class _CountSplit(PooledDoFn):
    def __init__(self, draw: Draw, partitions: int, slices: int) -> None:
        self._draw = draw
        self._partitions = partitions
        self._slices = slices

    def work(self, element: bytes) -> Packets:
        task = MixTask.from_bytes(element)
        fates = task.read_fates(["fate", "provenance", "generator", "kind"])
        facts = read_facts(task.split, ["digest", "n_tokens", "n_bytes", *self._draw.group_columns])
        kept = pc.equal(fates["fate"], pa.scalar(int(Fate.KEPT), pa.uint8()))
        fates, facts = fates.filter(kept), facts.filter(kept)
        codes, keys = self._draw.strata(task, facts, fates)
        totals = strata.cell_totals(
            codes,
            self._draw.buckets(digests_of(facts)),
            np.ones(len(codes), np.int64),
            facts["n_tokens"].to_numpy(),
            facts["n_bytes"].to_numpy(),
        )
        if not keys:
            return
        first = np.array([int(fingerprint(key)[:8], 16) for key in keys], np.int64)
        partitions = (first[totals.stratum] + totals.bucket * self._slices // strata.BUCKETS) % self._partitions
        order, runs = groups(partitions)
        for partition, start, end in runs:
            rows = order[start:end]
            mine, number = np.unique(totals.stratum[rows], return_inverse=True)
            names = json.dumps([keys[code] for code in mine.tolist()]).encode()
            body = pack(np.frombuffer(names, np.uint8), number, *(column[rows] for column in totals[1:]))
            yield partition, packet(body, task.split.index, 0)


class _AddCells(beam.DoFn):
    """Adds up the cells of one partition as they come: keys of strata in order, and cells by number and bucket."""

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[bytes]:
        _, values = element
        numbers: dict[str, int] = {}
        parts: list[list[npt.NDArray[Any]]] = []
        held = 0
        for body in received(values):
            names, number, *columns = unpack(body)
            known = [numbers.setdefault(key, len(numbers)) for key in json.loads(names.tobytes())]
            parts.append([np.array(known, np.int64)[number], *columns])
            held += len(number)
            if held > _MOST_CELLS:
                parts, held = [list(_added_up(parts))], 0
        keys = sorted(numbers)
        rank = np.empty(len(keys), np.int64)
        rank[[numbers[key] for key in keys]] = np.arange(len(keys))
        number, *columns = _added_up(parts)
        totals = strata.cell_totals(rank[number], *columns)
        yield pack(np.frombuffer(json.dumps(keys).encode(), np.uint8), *totals)


_MOST_CELLS = 1 << 20  # that wait to be added up: 40 MB


def _added_up(parts: list[list[npt.NDArray[Any]]]) -> strata.CellTotals:
    return strata.cell_totals(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class MixSettings:
    """What a shard's writer needs to know of the config."""

    measure: str  # tokens | bytes | documents
    floor: Fraction  # of verified human text, in every row group and every prefix of one
    row_group: int
    shards: int
    kept: tuple[str, ...]
    plan_digest: str
    config_digest: str
    licenses: Mapping[str, str | None]  # declared per source, where a row has none
    strict: bool = False  # refuse row groups that had to grow beyond the target
    diversity: diversity.DiversityParams = field(default_factory=diversity.DiversityParams)
    writers: int = 1  # output shards, or fewer where a writer takes several

    def writer_of(self, shards: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return shards * self.writers // self.shards


def writers_for(shards: int, text_bytes: int) -> int:
    """How many partitions the rows of a mix go to: each row group travels in pieces, and small pieces cost as much as
    large ones, so shards that are small together have one writer."""
    return min(shards, max(_LEAST_WRITERS, -(-text_bytes // _WRITER_BYTES)))


MeasureShard = Callable[[str, diversity.Accumulator], bytes]
"""Makes the row of metrics of a shard, from its name and what was counted of it."""


@dataclass
class WriteMix(beam.PTransform):
    """`MixTask`s in; staged shards and the rows of dropped documents, listed in the file `report`, out come the row of
    metrics of each shard, (JSON of [shard, null, null], row), and the diversity accumulators of all that one writer
    wrote by provenance and generator, (JSON of [null, provenance, generator], bytes)."""

    sources: Mapping[str, SourceSettings]
    draw: Draw
    settings: MixSettings
    plan: str  # path of the packed Assignments
    staging: str
    report: str
    scratch: str | None
    measure: MeasureShard

    def expand(self, tasks: Any) -> Any:
        rows = tasks | "ReadRows" >> beam.ParDo(
            _SendRows(self.sources, self.draw, self.settings, self.plan, self.staging, self.scratch is None)
        ).with_outputs("reports", main="rows")
        shards = (
            rows.rows
            | "ByWriter" >> Exchange(self.scratch)
            | "WriteShards"
            >> beam.ParDo(_WriteShards(self.settings, self.staging, self.measure)).with_outputs(
                "counts", main="reports"
            )
        )
        _ = (rows.reports, shards.reports) | "Reports" >> beam.Flatten() | Gather(self.report)
        return shards.counts


class _SendRows(PooledDoFn):
    """Reads the chosen documents of one split, checks that they are what was indexed, sends them to their shards.

    The rows of documents that were dropped are written here, since they stand in the same facts and fates.
    """

    def __init__(
        self,
        sources: Mapping[str, SourceSettings],
        draw: Draw,
        settings: MixSettings,
        plan: str,
        staging: str,
        compress: bool,
    ) -> None:
        self._sources = sources
        self._draw = draw
        self._settings = settings
        self._plan = plan
        self._staging = staging
        self._compression = "lz4" if compress else None  # run files are read in place; a shuffle moves bytes

    def work(self, element: bytes) -> Iterator[Any]:
        task = MixTask.from_bytes(element)
        split = task.split
        facts = read_facts(split, self._facts_columns())
        fates = task.read_fates()
        digests = digests_of(facts)
        is_kept = fates["fate"].to_numpy() == Fate.KEPT
        dropped, kept = np.flatnonzero(~is_kept), np.flatnonzero(is_kept)
        if len(dropped):
            report = _write_dropped(split, facts.take(dropped), fates.take(dropped), self._staging)
            yield beam.pvalue.TaggedOutput("reports", report)
        plan, places, first, copies = planned_rows(self._plan, self._draw, task, facts, fates, digests, kept)
        read, held, held_bytes = 0, [], 0
        try:
            for count, texts in self._batches(split, facts, places):
                here = slice(read, read + count)
                read += count
                at = places[here]
                held.append(self._rows(split, texts, facts, fates, digests, at, first[here], copies[here], plan))
                held_bytes += held[-1].nbytes
                counters.advance("mix", count, 0)
                if held_bytes >= _SEND_BYTES:
                    yield from self._send(held, split.index, read)
                    held, held_bytes = [], 0
            if read == len(places):
                yield from self._send(held, split.index, read)
                counters.advance("mix", 0, split.weight)
                return
        except (UnreadableFile, MissingColumn, OSError) as error:  # it was readable when it was indexed
            if problem := unreachable(error):
                yield beam.pvalue.TaggedOutput("reports", unreachable_report(split, problem))
                return
        changed = {"kind": "changed", "source": split.source, "shard": split.shard, "path": split.path}
        yield beam.pvalue.TaggedOutput("reports", json.dumps(changed).encode())

    def _batches(
        self, split: Split, facts: pa.Table, places: npt.NDArray[np.int64]
    ) -> Iterator[tuple[int, pa.Array | None]]:
        """How many documents come next, and their texts unless these are kept."""
        kept = kept_texts(split.facts)
        if kept is not None:
            for start, end in kept.at(places).runs():
                yield end - start, None
            return
        for texts in texts_at(split, self._sources[split.source].columns, facts, places):
            yield len(texts), texts

    def _send(self, held: list[pa.Table], split: int, sequence: int) -> Packets:
        """Held rows as one Arrow stream for each writer."""
        if not held:
            return
        table = pa.concat_tables(held)
        order, runs = groups(self._settings.writer_of(table[_SHARD].to_numpy()))
        if len(runs) > 1:
            table = table.take(order)
        options = pa.ipc.IpcWriteOptions(compression=self._compression)
        for writer, start, end in runs:
            yield writer, _stream_packet(table.slice(start, end - start), options, split, sequence)

    def _facts_columns(self) -> list[str]:
        return list(
            dict.fromkeys(
                [
                    *("row", "part", "digest", "n_tokens", "n_bytes", "doc_id", "language", "license", "problem"),
                    *self._draw.group_columns,
                    *(KEEP_PREFIX + name for settings in self._sources.values() for name in settings.kept),
                ]
            )
        )

    def _rows(
        self,
        split: Split,
        texts: pa.Array | None,
        facts: pa.Table,
        fates: pa.Table,
        digests: npt.NDArray[np.uint8],
        places: npt.NDArray[np.int64],
        first: npt.NDArray[np.int64],
        copies: npt.NDArray[np.int64],
        plan: Assignments,
    ) -> pa.Table:
        """Mix rows of one batch, one per copy, with the shard and the place in it that each goes to.

        Without `texts`, which are kept in this process then, they say where among these the writer finds their own.
        """
        repeat = np.repeat(np.arange(len(places)), copies)
        copy = np.arange(len(repeat)) - np.repeat(np.cumsum(copies) - copies, copies)
        at = places[repeat]
        facts, fates = facts.take(at), fates.take(at)
        digests = np.ascontiguousarray(digests[at])
        size = len(at)
        provenance = pa.DictionaryArray.from_arrays(
            pa.array(fates["provenance"].to_numpy().astype(np.int8)), pa.array([kind.label for kind in Provenance])
        )
        declared = self._settings.licenses.get(split.source)
        license_ = pc.fill_null(facts["license"], declared) if declared else facts["license"]
        columns: dict[str, Any] = {
            "id": hex_ids(digests),
            "source": pa.repeat(split.source, size),
            "provenance": provenance.cast(pa.string()),
            "generator": fates["generator"],
            "evidence": fates["evidence"],
            "n_tokens": facts["n_tokens"],
            "n_bytes": facts["n_bytes"],
            "represents": fates["represents"],
            "copy": copy.astype(np.int32),
            "language": facts["language"],
            "license": license_,
            "doc_id": facts["doc_id"],
            "shard": pa.repeat(split.shard, size),
            "row": facts["row"],
            "part": facts["part"],
        }
        for name in self._settings.kept:
            stored = KEEP_PREFIX + name
            columns[name] = facts[stored] if stored in facts.column_names else pa.nulls(size, pa.string())
        columns[_ORDER] = self._draw.row_order(digests, copy)
        columns[_SHARD] = plan.shard[np.repeat(first, copies) + copy]
        if texts is None:
            columns[_PLACE] = at
            schema = reference_schema(self._settings.kept, split.facts)
        else:
            columns["text"] = texts if copies.max(initial=1) == 1 else texts.take(pa.array(repeat))
            schema = exchange_schema(self._settings.kept)
        return pa.table([_as(columns[field.name], field.type) for field in schema], schema=schema)


_SHARD = "__shard"
_PLACE = "__place"
_TEXTS_KEY = b"texts"


def exchange_schema(kept: tuple[str, ...]) -> pa.Schema:
    """The mix's columns plus where each row goes; text is wide, because a shard's offsets may pass 2 GiB."""
    fields = [pa.field(f.name, pa.large_string()) if f.name == "text" else f for f in mix_schema(kept)]
    return pa.schema([*fields, pa.field(_ORDER, pa.uint64()), pa.field(_SHARD, pa.int64())])


def reference_schema(kept: tuple[str, ...], facts: str) -> pa.Schema:
    """The same of rows whose texts are kept with those facts, at a place among them."""
    schema = exchange_schema(kept)
    schema = schema.set(schema.get_field_index("text"), pa.field(_PLACE, pa.int64()))
    return schema.with_metadata({_TEXTS_KEY: facts.encode()})


def _texts_of(rows: pa.Table) -> ChunkedTexts:
    """The texts of rows as they were sent."""
    if _PLACE not in rows.column_names:
        return ChunkedTexts.of(rows["text"].chunks)
    kept = kept_texts(rows.schema.metadata[_TEXTS_KEY].decode())
    assert kept is not None, "texts were let go of before the pipeline ended"
    return kept.at(rows[_PLACE].to_numpy())


def _without_texts(rows: pa.Table) -> pa.Table:
    names = [name for name in rows.column_names if name not in ("text", _PLACE)]
    return rows.select(names).replace_schema_metadata()


def _as(column: Any, kind: pa.DataType) -> Any:
    if isinstance(column, np.ndarray):
        return pa.array(column, kind)
    return column if column.type == kind else column.cast(kind)


def _stream_packet(rows: pa.Table, options: pa.ipc.IpcWriteOptions, major: int, minor: int) -> pa.Buffer:
    """A packet whose body is an Arrow stream of the rows, written where it is to stay.

    The buffer is sized in advance, since one that grows is copied at every step, and begins with the packet's key:
    joining the two afterwards would copy all text with the interpreter locked.
    """
    batches = rows.to_batches()
    room = sum(pa.ipc.get_record_batch_size(batch) for batch in batches) + 1024 * (len(batches) + 1)
    buffer = pa.allocate_buffer(ORDER.size + room + rows.schema.serialize().size)
    sink = pa.FixedSizeBufferWriter(buffer)
    sink.write(ORDER.pack(major, minor))
    with pa.ipc.new_stream(sink, rows.schema, options=options) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return buffer.slice(0, sink.tell())


class _WriteShards(PooledDoFn):
    """Holds one output shard, or several small ones, and writes them."""

    def __init__(self, settings: MixSettings, staging: str, measure: MeasureShard) -> None:
        self._settings = settings
        self._staging = staging
        self._measure = measure

    def work(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        _, values = element
        sent = [pa.ipc.open_stream(body).read_all() for body in received(values)]
        texts = ChunkedTexts.joined([_texts_of(rows) for rows in sent])
        table = pa.concat_tables(map(_without_texts, sent)).combine_chunks()
        del sent
        written = PartDiversity(self._settings.diversity)
        spare: list[pa.Buffer] = []
        order, runs = groups(table[_SHARD].to_numpy())
        for shard, start, end in runs:
            places = order[start:end]
            # A shard of a writer's own is the sum of what it wrote; a small one of many is counted by itself, since
            # adding up its parts would cost more than counting them.
            whole = diversity.Accumulator.zero(self._settings.diversity) if len(runs) > 1 else None
            yield from self._write(shard, table.take(pa.array(places)), texts, places, written, whole, spare)
        for kind, part in sorted(written.parts.items()):
            yield beam.pvalue.TaggedOutput("counts", (json.dumps([None, *kind]).encode(), part.to_bytes()))

    def _write(
        self,
        shard: int,
        table: pa.Table,
        texts: ChunkedTexts,
        places: npt.NDArray[np.int64],
        written: PartDiversity,
        whole: diversity.Accumulator | None,
        spare: list[pa.Buffer],
    ) -> Iterator[Any]:
        """Lay one shard out so that every prefix of every row group holds the floor; its texts stand at `places`.

        What is written is counted in `written`, and in `whole` where that is not all of `written`. The memory in
        `spare` is used, and what is used is left there.
        """
        order = np.lexsort((table["copy"].to_numpy(), table[_ORDER].to_numpy()))
        measures = measured(table, self._settings.measure)[order]
        human = pc.equal(table["provenance"], Provenance.HUMAN_VERIFIED.label).to_numpy()[order]
        arranged = layout.arrange(measures, human, self._settings.floor, self._settings.row_group)
        if arranged is None:
            raise AssertionError(f"shard {shard} was planned below its floor")
        rows = order[arranged.order]
        sizes = table["n_bytes"].to_numpy()[rows]
        refused = layout.refusal(arranged.ends, sizes, self._settings.row_group, self._settings.strict)
        if refused is not None:
            yield json.dumps({"kind": "refused", "shard": shard, **refused}, sort_keys=True).encode()
            return
        table = table.drop_columns([_ORDER, _SHARD])
        name = f"train-{shard:05d}-of-{self._settings.shards:05d}.parquet"
        staged = f"{name}.{uuid.uuid4().hex[:12]}"
        # Taking rows, encoding and counting release the GIL: a mix of a single shard still uses several cores. Small
        # shards are many, and keep all cores busy without threads of their own.
        with files.atomic_output(files.join(self._staging, "data", staged)) as sink, ThreadPoolExecutor(1) as beside:
            schema = mix_schema(self._settings.kept)
            writer = pq.ParquetWriter(
                sink,
                schema,
                compression="zstd",
                compression_level=1,  # level 3 costs 2.4 times the time for files an eighth smaller
                use_dictionary=_REPETITIVE,
                write_statistics=_REPETITIVE,
                version="2.6",
            )
            row_groups = _row_groups(table, texts, rows, places, arranged.ends, schema, spare)
            for group, room in read_ahead(row_groups) if whole is None else row_groups:
                if whole is None:
                    counted = beside.submit(written.add, group)
                else:
                    written.add(group, whole)
                writer.write_table(group, row_group_size=max(1, group.num_rows))
                counters.advance("write", group.num_rows, group["n_bytes"].to_numpy().sum().item())
                if whole is None:
                    counted.result()
                spare.append(room)
            certificate = self._certificate(name, table, len(arranged.ends))
            writer.add_key_value_metadata({CERTIFICATE_KEY: json.dumps(certificate, sort_keys=True).encode()})
            writer.close()
        measured_row = self._measure(name, written.whole() if whole is None else whole)
        yield beam.pvalue.TaggedOutput("counts", (json.dumps([name, None, None]).encode(), measured_row))
        report = {"kind": "shard", "shard": shard, "name": name, "staged": staged, "certificate": certificate}
        yield json.dumps(report, sort_keys=True).encode()

    def _certificate(self, name: str, table: pa.Table, row_groups: int) -> dict[str, Any]:
        settings = self._settings
        measures = measured(table, settings.measure)
        amounts = {}
        for label in pc.unique(table["provenance"]).to_pylist():
            amounts[label] = int(measures[pc.equal(table["provenance"], label).to_numpy()].sum())
        return {
            "version": 1,
            "shard": name,
            "rows": table.num_rows,
            "documents": int((table["copy"].to_numpy() == 0).sum()),
            "tokens": int(table["n_tokens"].to_numpy().sum()),
            "bytes": int(table["n_bytes"].to_numpy().sum()),
            "measure": settings.measure,
            **certified_shares(amounts, settings.floor),
            "floor": [settings.floor.numerator, settings.floor.denominator],
            "row_groups": row_groups,
            "plan": settings.plan_digest,
            "config_digest": settings.config_digest,
        }


def _row_groups(
    table: pa.Table,
    texts: ChunkedTexts,
    rows: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    schema: pa.Schema,
    spare: list[pa.Buffer],
) -> Iterator[tuple[pa.Table, pa.Buffer]]:
    """Row groups, each with the memory that its texts are in.

    That is taken from `spare` if there is any, where it is to be put when the row group is done with: in memory that
    was never touched before, bringing texts into order takes ten times as long.
    """
    ended = np.concatenate([[0], np.cumsum(table["n_bytes"].to_numpy()[rows])])
    largest = int(np.diff(ended[np.concatenate([[0], ends])]).max(initial=0))
    start = 0
    for end in ends.tolist():
        taken = rows[start:end]
        others = table.take(pa.array(taken))
        room = spare.pop() if spare else None
        if room is None or room.size < largest:
            room = pa.allocate_buffer(largest)
        in_order = texts.take(places[taken], room)
        yield pa.table([in_order if name == "text" else others[name] for name in schema.names], schema=schema), room
        start = end


class PartDiversity:
    """Diversity of what was written, by provenance and generator: what the mix's scopes are added up from."""

    def __init__(self, params: diversity.DiversityParams) -> None:
        self._params = params
        self.parts: dict[tuple[str, str], diversity.Accumulator] = {}

    def add(self, rows: pa.Table, whole: diversity.Accumulator | None = None) -> None:
        """Count rows in their parts and, where given, in `whole`.

        Some megabytes at a time: the hashes of a whole row group's words would leave the processor's caches between
        being made and being counted, which takes twice as long.
        """
        for start, end in chunks_of_bytes(rows["n_bytes"].to_numpy(), MAX_BATCH_BYTES):
            self._add(rows.slice(start, end - start), whole)

    def _add(self, rows: pa.Table, whole: diversity.Accumulator | None) -> None:
        texts = rows["text"].combine_chunks()
        words = split_words(texts)
        names, codes = languages_or_scripts(rows["language"].combine_chunks(), texts)
        keys = np.array(list(map(diversity.language_key, names)), np.uint64)[codes]
        origins, values = strata.distinct_rows([rows["provenance"], rows["generator"]])
        order, runs = groups(origins)
        for code, start, end in runs:
            provenance, generator = values[code]
            key = provenance, generator or ""
            if key not in self.parts:
                self.parts[key] = diversity.Accumulator.zero(self._params)
            self.parts[key].add(words, order[start:end], texts, keys)
        if whole is not None:
            whole.add(words, None, texts, keys)

    def whole(self) -> diversity.Accumulator:
        total = diversity.Accumulator.zero(self._params)
        for part in self.parts.values():
            total.merge(part)
        return total


DROPPED_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("part", pa.int32()),
        pa.field("id", pa.string()),
        pa.field("doc_id", pa.string()),
        pa.field("fate", pa.string()),
        pa.field("partner", pa.string()),
        pa.field("partner_index", pa.string()),  # the earlier index that holds the partner; null: this one
        pa.field("similarity", pa.float64()),
        pa.field("reason", pa.string()),
    ]
)


def _write_dropped(split: Split, facts: pa.Table, fates: pa.Table, staging: str) -> bytes:
    """The documents of a split that dedup, exclusions or reading took out, each with reason and witness."""
    size = fates.num_rows
    has_text = pc.less_equal(pa.scalar(int(Fate.EXCLUDED), pa.uint8()), fates["fate"])
    label = pa.DictionaryArray.from_arrays(
        pa.array(fates["fate"].to_numpy().astype(np.int8)), pa.array([fate.label for fate in Fate])
    )
    union = fates["union"].to_numpy()
    similarity = np.round(fates["shared"].to_numpy() / np.maximum(union, 1), 6)
    partner = fates["partner"].combine_chunks()
    raw = fixed_rows(pc.coalesce(partner, pa.scalar(bytes(ID_BYTES), partner.type)), ID_BYTES)
    table = pa.table(
        [
            pa.repeat(split.source, size),
            pa.repeat(split.shard, size),
            facts["row"],
            facts["part"],
            pc.if_else(has_text, hex_ids(digests_of(facts)), None),
            facts["doc_id"],
            label.cast(pa.string()),
            pc.if_else(partner.is_null(), None, hex_ids(raw)),
            fates["partner_index"],
            pa.array(similarity, mask=union == 0),
            pc.coalesce(fates["reason"], facts["problem"]),
        ],
        schema=DROPPED_SCHEMA,
    )
    staged = f"part-{split.index:05d}.parquet.{uuid.uuid4().hex[:12]}"
    with files.atomic_output(files.join(staging, "fates", staged)) as sink:
        pq.write_table(table, sink, compression="zstd")
    report = {"kind": "fates", "split": split.index, "staged": staged, "rows": size}
    return json.dumps(report, sort_keys=True).encode()
