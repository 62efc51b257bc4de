"""What runs take at sizes that nobody here has tried, from counters of sizes that were.

    python benchmarks/scale_model.py --megabytes 250 1000 4000 --work FOLDER
    python benchmarks/scale_model.py --work FOLDER                  what was measured there before, modelled again
    python benchmarks/scale_model.py --work FOLDER --cores 64 --core-hour 0.03 --verified-sources 50

Whole runs over generated corpora of three sizes leave run.json, an index and a mix. Amounts per document, per byte of
text and per packet are fitted to the two smaller runs, the largest is predicted from them beside what it really took,
and then 10 TB and 1 PB are. What the driver holds is measured on catalogues and audits without data behind them.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline import driver  # noqa: E402
from pipeline.catalog import MOST_SPLIT_BYTES, Shard, sketch  # noqa: E402
from pipeline.config import load_config  # noqa: E402
from pipeline.index import Index  # noqa: E402
from pipeline.layers import IndexBuilder, partitions_for  # noqa: E402
from pipeline.progress import make_progress  # noqa: E402
from pipeline.samples import init  # noqa: E402
from pipeline.settings import removal_edges  # noqa: E402
from pipeline.submit import make_runner  # noqa: E402
from pipeline.verify_consistent import _check_copies  # noqa: E402
from transforms import files  # noqa: E402
from transforms.batches import DedupTask, Split, unpack  # noqa: E402
from transforms.exchange import _INLINE, ORDER, received, send  # noqa: E402
from transforms.kernels.audit import ShardAudit  # noqa: E402
from transforms.kernels.minhash import choose_bands  # noqa: E402
from transforms.kernels.strata import BUCKETS  # noqa: E402
from transforms.mixture import _stream_packet, exchange_schema, writers_for  # noqa: E402
from transforms.removal import settle  # noqa: E402
from transforms.sidecars import Summary  # noqa: E402

TB, PB = 10**12, 10**15
SHARD_BYTES = 256 << 20  # the default of mix.shard_bytes
BANDS = choose_bands(0.8, 128).bands
BANDS_SENT = 500_000  # records of bands sorted at a time, dedup._MOST_SENT
SPLITS_A_SLICE = 1024  # planning._SPLITS_A_SLICE
SUB_KEYS_FROM = 1_000_000  # documents, dedup.MOST_MEMBERS
BATCH_BYTES = 8 << 20  # of text, batches.MAX_BATCH_BYTES: shingle sets are sent batch by batch
ID_BYTES_HELD = 20  # of a row: its id and the number of its copy, for as long as a mix is verified


@dataclass(frozen=True)
class Size:
    """What the rules of the code make of an input: what there is, and into how many parts it goes."""

    documents: int
    text: int  # bytes of input text
    splits: int
    rows: int  # of the mix
    written: int  # bytes of the mix's text
    shards: int  # of the mix

    @property
    def partitions(self) -> int:
        return partitions_for(self.documents, self.text, of_text=False)

    @property
    def homes(self) -> int:
        return partitions_for(self.documents, self.text, of_text=True)

    @property
    def writers(self) -> int:
        return writers_for(self.shards, self.written)

    @property
    def slices(self) -> int:
        return min(BUCKETS, max(1, self.splits // SPLITS_A_SLICE))


@dataclass(frozen=True)
class Measured:
    """One run, by its counters."""

    size: Size
    exchanges: dict[str, dict[str, int]]
    stages: dict[str, dict[str, float]]  # CPU seconds, and the peak at the end
    files: dict[str, list[int]]  # number and bytes, by what they are
    edges: int
    threads: int


def filled(records: float, cells: float) -> float:
    """How many of so many cells get a record at all, if records fall where they will."""
    return cells * -math.expm1(-records / cells) if cells else 0.0


def header(arrays: int, tag: bool = True) -> int:
    """Bytes of a packet beside its records: order key, first byte, and what `pack` says of each array."""
    return ORDER.size + tag + 4 + 16 * arrays


@dataclass(frozen=True)
class Shape:
    """How one exchange is made: what it carries, and into how many packets that falls.

    Records fill packets; a task is a packet of its own.
    """

    per: str  # the amount of `Size` that its bytes grow with
    overhead: int  # bytes of a packet without records
    record: int | None  # bytes of one; None: their number is that of another exchange, or of rows
    cells: Callable[[Size], float]  # (sender, receiver) pairs, as often as each sends
    tasks: bool = False  # every receiver also gets its task

    def of_tasks(self, task: float, size: Size) -> float:
        """What tasks add to their packets' share of the overhead: they have a key and a first byte, and no arrays."""
        return (task + ORDER.size + 1 - self.overhead) * size.splits if self.tasks else 0.0


def _band_cells(size: Size) -> float:
    texts = max(1, size.documents // size.partitions)
    return size.partitions**2 * math.ceil(BANDS / max(1, BANDS_SENT // texts))


def arrow_overhead() -> int:
    """Bytes of an Arrow stream of mix rows beside the rows."""
    schema = exchange_schema(())
    sizes = []
    for rows in (1, 1001):
        columns = [pa.nulls(rows, field.type) for field in schema]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as stream:
            stream.write_batch(pa.record_batch(columns, schema=schema))
        sizes.append(len(sink.getvalue()))
    return sizes[0] - (sizes[1] - sizes[0]) // 1000


SHAPES = {
    "ByText": Shape("documents", header(6, False), 26 + 8 * BANDS, lambda s: s.splits * s.partitions),
    "ByBand": Shape("documents", header(5, False), 26, _band_cells),
    "ByPair": Shape("pairs", header(2, False), 16, lambda s: s.partitions**2),
    "BySplit": Shape("documents", header(2), 8, lambda s: s.partitions * s.splits, tasks=True),
    "ToVerify": Shape("text", header(3), None, lambda s: max(s.splits, s.text / BATCH_BYTES) * s.homes),
    "RankBySplit": Shape("documents", header(2), 16, lambda s: 2 * s.homes * s.splits, tasks=True),
    "ToOneWorker": Shape("documents", header(7), 34, lambda s: s.splits),
    "WriteBySplit": Shape("documents", header(8), 46, lambda s: 2 * s.splits, tasks=True),
    "ByStratum": Shape("cells", header(6, False), 40, lambda s: s.splits * s.slices),
    "ByWriter": Shape("written", ORDER.size + arrow_overhead(), None, lambda s: _flushes(s) * s.writers),
}


def _flushes(size: Size) -> float:
    return size.splits * max(1.0, size.written / size.splits / (48 << 20))


def amount(size: Size, per: str) -> float:
    if per == "cells":  # of one stratum a split has as many cells as documents, until all are taken
        return size.splits * filled(size.rows / size.splits, BUCKETS)
    if per == "pairs":  # a candidate is sent by each partition that holds one of the bands it shares
        return size.documents * filled(SHARED_BANDS, size.partitions)
    return float(getattr(size, per))


SHARED_BANDS = 7  # of a pair that shares any, as the three runs have it


@dataclass(frozen=True)
class Model:
    """Fitted amounts: payload of each exchange, CPU seconds of each stage, and sizes of files."""

    payload: dict[str, float]  # bytes per unit of what the exchange grows with
    task: float  # bytes of a task
    seconds: dict[str, tuple[float, float]]  # fixed, and per byte of input text
    file_bytes: dict[str, tuple[str, float]]  # of each kind of file, per what
    edges: float  # per document
    kept: tuple[float, float]  # rows per document, bytes written per byte read

    def packets(self, name: str, size: Size) -> float:
        shape = SHAPES[name]
        extra = size.splits if shape.tasks else 0
        if name == "ToVerify":  # sets that were asked for, and pairs
            # Both partitions of a pair follow from its first document: equal numbers of them are the same partitions.
            homes = size.homes // math.gcd(size.partitions, size.homes)
            pairs = filled(self.records("ByPair", size), size.partitions * homes)
            return filled(self.records("BySplit", size), shape.cells(size)) + pairs
        if name == "ByWriter":
            return filled(size.rows, shape.cells(size))
        if name == "ByBand":  # fitted as bytes of documents: each has all bands
            return filled(size.documents * BANDS, shape.cells(size))
        return extra + filled(self.records(name, size), shape.cells(size))

    def records(self, name: str, size: Size) -> float:
        shape = SHAPES[name]
        return self.payload[name] * amount(size, shape.per) / (shape.record or 1)

    def bytes(self, name: str, size: Size) -> float:
        shape = SHAPES[name]
        payload = self.payload[name] * amount(size, shape.per)
        if name in ("ByBand", "BySubKey") and size.documents > SUB_KEYS_FROM:
            payload += 8 * BANDS * size.documents  # the next band goes along
        return payload + shape.overhead * self.packets(name, size) + shape.of_tasks(self.task, size)

    def cpu(self, stage: str, size: Size) -> float:
        fixed, each = self.seconds[stage]
        return fixed + each * size.text


def fit(runs: Sequence[Measured]) -> Model:
    """Amounts that several runs have in common: exact headers taken off, the rest shared out by what it grows with."""
    task = sum(_task_bytes(run) for run in runs) / len(runs)
    payload = {}
    for name, shape in SHAPES.items():
        carried = units = 0.0
        for run in runs:
            told = run.exchanges[name]
            carried += told["bytes"] - shape.overhead * told["packets"] - shape.of_tasks(task, run.size)
            units += amount(run.size, shape.per)
        payload[name] = max(0.0, carried / units)
    seconds = {}
    for stage in runs[0].stages:
        text = np.array([run.size.text for run in runs], float)
        spent = np.array([run.stages[stage]["cpu_seconds"] for run in runs])
        each = max(0.0, np.polyfit(text, spent, 1)[0] if len(runs) > 1 else spent[0] / text[0])
        seconds[stage] = (max(0.0, float((spent - each * text).mean())), each)
    largest = runs[-1]
    file_bytes = {
        name: (per, largest.files[name][1] / amount(largest.size, per))
        for name, per in FILE_GROWTH.items()
        if name in largest.files
    }
    read, rows = sum(run.size.documents for run in runs), sum(run.size.rows for run in runs)
    text, written = sum(run.size.text for run in runs), sum(run.size.written for run in runs)
    edges = sum(run.edges for run in runs) / read
    return Model(payload, task, seconds, file_bytes, edges, (rows / read, written / text))


def _task_bytes(run: Measured) -> float:
    return run.files["tasks"][1] / run.size.splits


FILE_GROWTH = {
    "facts": "documents",
    "diversity": "splits",
    "ledger": "splits",
    "edges": "documents",
    "fates": "documents",
    "fates record": "splits",
    "data": "written",
    "dropped": "documents",
    "input": "text",
}


# What was measured


def read_run(folder: Path, threads: int) -> Measured:
    """The counters that a run left in `folder`: its index, its mix, and run.json."""
    told = json.loads((folder / "mix" / "run.json").read_bytes())
    manifest = json.loads((folder / "mix" / "manifest.json").read_bytes())
    ledger = json.loads((folder / "index" / "facts.json").read_bytes())["shards"].values()
    summaries = [summary for shard in ledger for summary in shard["summaries"]]
    totals = manifest["totals"]
    size = Size(
        documents=sum(summary["documents"] for summary in summaries),
        text=sum(summary["text_bytes"] for summary in summaries),
        splits=len(summaries),
        rows=totals["rows"],
        written=totals["bytes"],
        shards=totals["shards"],
    )
    exchanges, stages = {}, {}
    for stage in told["stages"]:
        stages[stage["stage"]] = {name: stage[name] for name in ("cpu_seconds", "seconds", "peak_bytes")}
        exchanges.update({told["exchange"]: told for told in stage["exchanges"]})
    removal = [json.loads(path.read_bytes())["removal"] for path in (folder / "index" / "fates").glob("*/_DONE.json")]
    files = {
        "facts": _sized((folder / "index" / "facts").glob("*/*.parquet")),
        "diversity": _sized((folder / "index" / "facts").glob("*/*.diversity")),
        "ledger": _sized([folder / "index" / "facts.json"]),
        "edges": _sized((folder / "index" / "edges").glob("*/*.parquet")),
        "fates": _sized((folder / "index" / "fates").glob("*/*.parquet")),
        "fates record": _sized((folder / "index" / "fates").glob("*/_DONE.json")),
        "data": _sized((folder / "mix" / "data").iterdir()),
        "dropped": _sized((folder / "mix" / "fates").iterdir()),
        "input": _sized(Path(shard["input"]["path"]) for shard in ledger),
        "tasks": [size.splits, sum(_tasks(ledger, folder / "index"))],
    }
    return Measured(size, exchanges, stages, files, removal[0]["edges"], threads)


def _tasks(ledger: Iterable[dict[str, Any]], index: Path) -> Iterator[int]:
    """Bytes of each split as the element that stages work on."""
    for shard in ledger:
        read = shard["input"]
        for groups, first_row, weight in shard["splits"]:
            facts = str(index / "facts" / ("0" * 32) / "00000-00001.parquet")
            names = shard["source"], shard["shard"], read["path"], read["kind"], read["compression"]
            yield len(DedupTask(Split(0, *names, groups, first_row, weight, facts, True)).to_bytes())


def _sized(paths: Iterable[Path]) -> list[int]:
    sizes = [path.stat().st_size for path in paths]
    return [len(sizes), sum(sizes)]


def measure(megabytes: int, work: Path, environment: Mapping[str, str] | None = None) -> None:
    """A whole run over a generated corpus, in a process of its own; the corpus is made where it is not there yet."""
    folder = work / f"{megabytes}"
    corpus = folder / "corpus"
    if not (corpus / "bench.yaml").exists():
        maker = [sys.executable, str(ROOT / "benchmarks" / "make_corpus.py"), str(corpus)]
        subprocess.run([*maker, "--megabytes", str(megabytes)], check=True, stdout=subprocess.DEVNULL)
    for name in ("index", "mix"):
        shutil.rmtree(folder / name, ignore_errors=True)
    places = [f"--set=index={folder / 'index'}", f"--set=output={folder / 'mix'}"]
    call = [sys.executable, "-m", "pipeline", "run", str(corpus / "bench.yaml"), *places, "--json", "--quiet"]
    # Small input would be read once and its text not sent, which says nothing of large input.
    own = {"ANCHORMIX_EXCHANGE": "files", **(environment or {})}
    subprocess.run(call, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **own})


# What the driver holds, measured without data


def in_a_process(name: str, *arguments: int) -> dict[str, float]:
    """One of the measurements below, in a process of its own, so that its peak is its own."""
    call = [sys.executable, __file__, "--measure", name, *map(str, arguments)]
    done = subprocess.run(call, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return {key: float(value) for key, value in json.loads(done.stdout).items()}


def _grown(work: Callable[[], object]) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    held = work()
    seconds = time.process_time() - started
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    del held
    return {"seconds": seconds, "bytes": grown}


def measure_catalog(splits: int) -> dict[str, float]:
    """The ledger of so many splits read and turned into the tasks of a stage, as every command does."""
    work = Path(tempfile.mkdtemp(prefix="anchormix-scale-")) / "samples"
    init(work)
    writing = multiprocessing.get_context("fork").Process(target=_write_ledger, args=(work, splits))
    writing.start()  # in another process: what is measured is the memory of one that reads it
    writing.join()
    index = Index(str(work / "index"))
    config = load_config(work / "quickstart.yaml")
    builder = IndexBuilder(config, index, make_runner((), make_progress(True)), build=False)

    def read() -> object:
        shards = _shards(splits)
        stored = {shard.key: dict(_FILES) for shard in shards}
        index.facts_files = lambda: stored  # type: ignore[method-assign] # a listing of files that are not there
        facts = builder._facts_of(shards, 0, None)
        return facts, facts.key, facts.tasks()

    grown = _grown(read)
    size = (work / "index" / "facts.json").stat().st_size
    shutil.rmtree(work.parent)
    return {**grown, "ledger": size}


_FILES = {"00000-00008.parquet": 1 << 20, "00000-00008.diversity": 1 << 20}


def _shards(splits: int) -> list[Shard]:
    names = [f"crawl/2026-11/segment-{n // 100:06d}/part-{n:05d}.parquet" for n in range(splits)]
    return [
        Shard("web", name, f"s3://bucket/{name}", 1, "parquet", "none", f"{n:032x}") for n, name in enumerate(names)
    ]


def _write_ledger(work: Path, splits: int) -> None:
    ledger, compared = {}, sketch(load_config(work / "quickstart.yaml"))
    for number, shard in enumerate(_shards(splits)):
        summary = Summary(number, "web", shard.name, 16_000, words=9, tokens=9, text_bytes=64 << 20, form="plain")
        ledger[shard.key] = {
            "source": "web",
            "shard": shard.name,
            "broken": False,
            "input": {"path": shard.path, "kind": "parquet", "compression": "none", "text": None},
            "sketch": compared,
            "splits": [[[0, 8], 0, 64 << 20]],
            "summaries": [asdict(replace(summary, file_digest="0" * 64))],
            "files": _FILES,
        }
    (work / "index").mkdir(exist_ok=True)
    Index(str(work / "index")).save_facts_ledger(ledger)


COPIES = 33_000_000  # rows: as many as are sorted at a time


def measure_copies(rows: int) -> dict[str, float]:
    """The check that no copy of a document is in a mix twice, which holds an id of every row."""

    def check() -> object:
        rng = np.random.default_rng(5)
        audits = []
        for number in range(16):
            audit = ShardAudit(f"train-{number}", "tokens", ())
            audit.ids = rng.integers(0, 1 << 63, (rows // 16, 2)).astype(np.uint64)
            audit.copies = np.zeros(rows // 16, np.int32)
            audits.append(audit)
        return list(_check_copies(audits))

    return _grown(check)


def measure_removal(edges: int) -> dict[str, float]:
    """Removal by one worker: a third as many documents as edges, linked at random."""
    documents = max(2, edges // 3)
    rng = np.random.default_rng(5)

    def work() -> object:
        left, right = rng.integers(0, documents, (2, edges))
        some = left != right
        rank = rng.permutation(documents)
        none = np.empty(0, np.int64)
        return settle(
            np.arange(documents, dtype=np.uint64),
            rank,
            np.ones(documents, bool),
            (none, none),
            (left[some], right[some]),
        )

    settle(
        np.arange(2, dtype=np.uint64),
        np.arange(2),
        np.ones(2, bool),
        (np.array([1]), np.array([0])),
        (np.array([0]), np.array([1])),
    )
    return _grown(work)


def measure_packets(packets: int) -> dict[str, float]:
    """CPU seconds of packets of one record each: cut up by the sender, read by the receiver; and of rows of a mix."""
    keys = np.arange(packets, dtype=np.uint64)
    columns = [keys, keys, keys, keys]
    started = time.process_time()
    sent = list(send(keys, columns, 0))
    for _, value in sent:
        for body in received([_INLINE + value]):
            unpack(body)
    small = (time.process_time() - started) / packets
    schema = exchange_schema(())
    table = pa.table([pa.nulls(64, field.type) for field in schema], schema=schema)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    started = time.process_time()
    for number in range(512):
        pa.ipc.open_stream(_stream_packet(table.slice(number % 64, 1), options, 0, 0)[ORDER.size :]).read_all()
    return {"packet": small, "rows": (time.process_time() - started) / 512}


def measure_opens(split_bytes: int) -> dict[str, float]:
    """Files that a whole run over the samples opens and writes, cut into splits of so many bytes."""
    os.environ["ANCHORMIX_SPLIT_BYTES"] = str(split_bytes)
    opened: Counter[str] = Counter()

    def counting(name: str) -> None:
        plain = getattr(files, name)

        def counted(path: str) -> object:
            opened[name] += 1
            return plain(path)

        setattr(files, name, counted)

    counting("open_input")
    counting("atomic_output")
    work = Path(tempfile.mkdtemp(prefix="anchormix-scale-")) / "samples"
    init(work)
    opened.clear()
    driver.run(load_config(work / "quickstart.yaml"), ("--direct_num_workers=1",), True, [])
    ledger = json.loads(next(work.rglob("facts.json")).read_bytes())["shards"].values()
    splits = sum(len(shard["splits"]) for shard in ledger)
    shutil.rmtree(work.parent)
    return {"splits": splits, "reads": opened["open_input"], "writes": opened["atomic_output"]}


def compressed_share(folder: Path) -> float:
    """What lz4 leaves of rows on their way to their writers, which is how they pass an engine's shuffle."""
    rows = pq.ParquetFile(next((folder / "mix" / "data").iterdir())).read_row_group(0)
    places = {"__order": np.arange(len(rows), dtype=np.uint64), "__shard": np.zeros(len(rows), np.int64)}
    columns = {**{name: rows[name] for name in rows.column_names}, **places}
    sizes = []
    for compression in (None, "lz4"):
        options = pa.ipc.IpcWriteOptions(compression=compression)
        sizes.append(len(_stream_packet(pa.table(columns, schema=exchange_schema(())), options, 0, 0)))
    return sizes[1] / sizes[0]


MEASUREMENTS = {
    "catalog": measure_catalog,
    "copies": measure_copies,
    "removal": measure_removal,
    "packets": measure_packets,
    "opens": measure_opens,
}


# What follows


@dataclass(frozen=True)
class Assumptions:
    """What is not measured here. Prices are parameters: list prices of large clouds lie near the defaults."""

    core_hour: float  # USD; general-purpose machines, on demand
    gb_month: float  # USD; object storage, standard class
    million_gets: float  # USD
    million_puts: float  # USD
    busy: float  # share of the workers' time in which they work
    elements: float  # Beam elements per second and core, encoded and decoded
    verified_sources: int  # over which verified text is spread: each is a stratum of its own
    driver_cores: int
    gets_per_open: int  # ranged reads of a Parquet file's footer and columns


@dataclass(frozen=True)
class Driver:
    """Amounts that one process holds, measured without data."""

    split_bytes: float
    split_seconds: float
    copies_bytes: float  # to sort one range of ids
    edge_bytes: float
    packet_seconds: float
    stream_seconds: float
    reads: float  # files opened for each split of a run,
    writes: float  # and written
    compressed: float  # what lz4 leaves of rows


def size_at(text: int, model: Model, typical: Measured, assumed: Assumptions) -> Size:
    """The same kind of documents, more of them, in splits as large as they get."""
    documents = round(text * typical.size.documents / typical.size.text)
    rows, written = round(documents * model.kept[0]), round(text * model.kept[1])
    shards = min(-(-written // SHARD_BYTES), BUCKETS * assumed.verified_sources)
    return Size(documents, text, -(-text // MOST_SPLIT_BYTES), rows, written, shards)


def human(value: float, unit: str = "B") -> str:
    """Three digits and a prefix of a thousand."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(value) < 999.5:
            return f"{value:.3g} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{value:,.0f} P{unit}"


def count(value: float) -> str:
    return (
        f"{value:,.0f}"
        if value < 1e6
        else human(value, "")
        .replace(" G", " billion")
        .replace(" M", " million")
        .replace(" T", "e12")
        .replace(" P", "e15")
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def print_measured(runs: Sequence[Measured]) -> None:
    print("### Measured\n")
    head = ["", *(f"{run.size.text / 1e9:.2f} GB" for run in runs)]
    rows = [
        ["documents", *(f"{run.size.documents:,}" for run in runs)],
        [
            "splits, partitions without and with text",
            *(f"{r.size.splits}, {r.size.partitions}, {r.size.homes}" for r in runs),
        ],
        ["rows and shards of the mix", *(f"{run.size.rows:,} in {run.size.shards}" for run in runs)],
        ["edges", *(f"{run.edges:,}" for run in runs)],
    ]
    rows += [
        [f"`{name}`", *(f"{human(run.exchanges[name]['bytes'])} in {run.exchanges[name]['packets']:,}" for run in runs)]
        for name in SHAPES
    ]
    rows += [
        [f"heaviest partition of `{name}`, in means", *(f"{_skew(run.exchanges[name]):.2f}" for run in runs)]
        for name in ("ByText", "ByBand", "ToVerify", "ByStratum")
    ]
    rows += [
        [
            f"{stage}: CPU s, peak",
            *(f"{r.stages[stage]['cpu_seconds']:.1f}, {human(r.stages[stage]['peak_bytes'])}" for r in runs),
        ]
        for stage in runs[0].stages
    ]
    rows += [
        [f"files of {name}", *(f"{run.files[name][0]:,}, {human(run.files[name][1])}" for run in runs)]
        for name in FILE_GROWTH
        if name != "input"
    ]
    table(head, rows)


def _skew(told: Mapping[str, int]) -> float:
    return told["largest"] * told["partitions"] / told["bytes"]


def checks(model: Model, run: Measured) -> list[tuple[str, float, float]]:
    """Name, predicted and measured, of everything that the model says of a run."""
    found = []
    for name in SHAPES:
        found.append((f"`{name}`: bytes", model.bytes(name, run.size), float(run.exchanges[name]["bytes"])))
        found.append((f"`{name}`: packets", model.packets(name, run.size), float(run.exchanges[name]["packets"])))
    found.append(("edges", model.edges * run.size.documents, float(run.edges)))
    found += [(f"{stage}: CPU s", model.cpu(stage, run.size), run.stages[stage]["cpu_seconds"]) for stage in run.stages]
    return found


def print_checks(model: Model, run: Measured) -> None:
    print(f"### Check: {run.size.text / 1e9:.2f} GB predicted from the smaller runs\n")
    table(
        ("", "predicted", "measured", "error"),
        (
            (name, f"{predicted:,.4g}", f"{found:,.4g}", f"{predicted / found - 1:+.1%}" if found else "")
            for name, predicted, found in checks(model, run)
        ),
    )


def shuffled(model: Model, size: Size) -> dict[str, float]:
    """Bytes of each exchange; beyond the limit of one worker, removal goes in rounds, and their traffic is estimated
    as that of ranks and edges sent once more for each of some ten rounds that still tell something."""
    found = {name: model.bytes(name, size) for name in SHAPES}
    if model.edges * size.documents > removal_edges():
        found["ToOneWorker"] = 2 * found["ToOneWorker"] + 48 * model.edges * size.documents
    return found


def packet_seconds(model: Model, size: Size, held: Driver, assumed: Assumptions) -> float:
    """What small packets cost beside the records in them, which the stages' own seconds hold."""
    total = 0.0
    for name in SHAPES:
        each = held.stream_seconds if name == "ByWriter" else held.packet_seconds
        total += model.packets(name, size) * (each + 2 / assumed.elements)
    return total


def predict(
    model: Model, size: Size, cores: int, held: Driver, runs: Sequence[Measured], assumed: Assumptions
) -> dict[str, str]:
    traffic = shuffled(model, size)
    compressed = {**traffic, "ByWriter": traffic["ByWriter"] * held.compressed}
    shuffle = sum(compressed.values())
    work = sum(model.cpu(stage, size) for stage in model.seconds if stage != "verify")
    packets = packet_seconds(model, size, held, assumed)
    verify = model.cpu("verify", size)
    hours = ((work + packets) / cores / assumed.busy + verify / assumed.driver_cores / assumed.busy) / 3600
    stored = {name: each * amount(size, per) for name, (per, each) in model.file_bytes.items()}
    index_bytes = sum(stored[name] for name in ("facts", "diversity", "ledger", "edges", "fates", "fates record"))
    index_files = 2 * size.splits + size.partitions + size.homes + size.splits + 4
    mix_files = size.shards + size.splits + 12
    gets = assumed.gets_per_open * (held.reads * size.splits + 2 * (size.partitions + size.homes))
    puts = held.writes * size.splits + size.partitions + size.homes + size.shards
    core_hours = (work + packets) / 3600 / assumed.busy + verify / 3600
    storage = (stored["facts"] + stored["diversity"] + stored["fates"] + stored["data"]) / 1e9
    cost = (
        core_hours * assumed.core_hour
        + storage * assumed.gb_month
        + (gets * assumed.million_gets + puts * assumed.million_puts) / 1e6
    )
    shard = size.written / size.shards
    home = traffic["ToVerify"] / size.homes
    worker = BASE_BYTES + max(writer_factor(runs) * shard, 3 * home, 3 * traffic["ByBand"] / size.partitions)
    tb = size.text / TB
    return {
        "documents, splits": f"{count(size.documents)}, {count(size.splits)}",
        "partitions without and with text": f"{size.partitions:,}, {size.homes:,}",
        "edges": count(model.edges * size.documents),
        "core-hours": f"{core_hours:,.0f}, of which {packets / 3600 / assumed.busy:,.0f} for packets",
        "hours": f"{hours:,.1f}, of which {verify / assumed.driver_cores / assumed.busy / 3600:,.1f} verifying",
        "shuffled": human(shuffle),
        "shuffled per worker": human(shuffle / cores),
        "packets": count(sum(model.packets(name, size) for name in SHAPES)),
        "output shards, each": f"{size.shards:,}, {human(shard)}",
        "memory of a worker": human(worker),
        "driver: catalogue": human(held.split_bytes * size.splits),
        "driver: ids of all rows, to check copies": human(ID_BYTES_HELD * size.rows + held.copies_bytes),
        "driver: ledgers read": human(stored["ledger"] + stored["fates record"]),
        "removal by one worker would hold": human(held.edge_bytes * model.edges * size.documents),
        "files of the index": count(index_files),
        "files of the mix": count(mix_files),
        "index, mix on disk": f"{human(index_bytes)}, {human(stored['data'])}",
        "requests: reads, writes": f"{count(gets)}, {count(puts)}",
        "USD per TB": f"{cost / tb:,.2f}, of which {storage * assumed.gb_month / tb:,.2f} a month of storage",
    }


BASE_BYTES = 0.45e9  # of a worker that has loaded Beam and the compiled kernels


def hold(work: Path, anew: bool) -> Driver:
    """The measurements without data; those that lie in the folder from before, unless they are to be made anew."""
    kept = work / "held.json"
    if kept.exists() and not anew:
        return Driver(**json.loads(kept.read_bytes()))
    catalog, copies = in_a_process("catalog", 100_000), in_a_process("copies", COPIES)
    removal, packets = in_a_process("removal", 10_000_000), in_a_process("packets", 200_000)
    whole, cut = in_a_process("opens", 1 << 30), in_a_process("opens", 1)
    more = cut["splits"] - whole["splits"]
    held = Driver(
        split_bytes=catalog["bytes"] / 100_000,
        split_seconds=catalog["seconds"] / 100_000,
        copies_bytes=copies["bytes"] - ID_BYTES_HELD * COPIES,
        edge_bytes=removal["bytes"] / 10_000_000,
        packet_seconds=packets["packet"],
        stream_seconds=packets["rows"],
        reads=(cut["reads"] - whole["reads"]) / more,
        writes=(cut["writes"] - whole["writes"]) / more,
        compressed=compressed_share(measured_in(work)[0]),
    )
    kept.write_text(json.dumps(asdict(held)))
    return held


def measured_in(work: Path) -> list[Path]:
    """The folders of runs, the smallest first."""
    return sorted((path for path in work.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


def writer_factor(runs: Sequence[Measured]) -> float:
    """Memory that the mix stage of the largest run added, in bytes of the partitions that its threads hold."""
    run = runs[-1]
    grown = run.stages["mix"]["peak_bytes"] - run.stages["plan"]["peak_bytes"]
    return max(2.0, grown / (run.threads * run.exchanges["ByWriter"]["largest"]))


def limits(model: Model, runs: Sequence[Measured], held: Driver, assumed: Assumptions) -> Iterable[tuple[str, str]]:
    """From which size on something is so, in steps of a tenth."""
    reached: dict[str, Callable[[Size], bool]] = {
        "a list of tasks goes to a file, because graphs are bounded": lambda s: model.task * s.splits > 1 << 20,
        "exchanges without text have partitions by documents": lambda s: s.partitions < s.homes,
        "output shards are larger than asked for": lambda s: s.written / s.shards > 1.01 * SHARD_BYTES,
        "duplicates are removed in rounds": lambda s: model.edges * s.documents > removal_edges(),
        "a worker needs 16 GB for an output shard": lambda s: writer_factor(runs) * s.written / s.shards > 16e9,
        "packets cost as much as the records in them": lambda s: (
            packet_seconds(model, s, held, assumed) > sum(model.cpu(stage, s) for stage in model.seconds)
        ),
        "checking copies needs 64 GB of the driver": lambda s: ID_BYTES_HELD * s.rows + held.copies_bytes > 64e9,
        "verifying takes the driver a day": lambda s: (
            model.cpu("verify", s) / assumed.driver_cores / assumed.busy > 86_400
        ),
        "the catalogue needs 64 GB of the driver": lambda s: held.split_bytes * s.splits > 64e9,
        "band hashes go in packets of ten or fewer": lambda s: s.documents * BANDS < 10 * model.packets("ByBand", s),
    }
    found = {}
    for step in range(200):
        size = size_at(round(1e9 * 1.1**step), model, runs[-1], assumed)
        for name, is_so in reached.items():
            if name not in found and is_so(size):
                found[name] = size.text
    return ((name, human(text)) for name, text in sorted(found.items(), key=lambda item: item[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", nargs="*", type=int, default=[], help="sizes to measure; none: those in --work")
    parser.add_argument("--work", type=Path, default=Path("scale-runs"), help="folder of corpora, indexes and mixes")
    parser.add_argument("--cores", nargs="+", type=int, default=[100, 10_000])
    parser.add_argument("--terabytes", nargs="+", type=float, default=[10, 1000])
    parser.add_argument("--core-hour", type=float, default=0.04, help="USD")
    parser.add_argument("--gb-month", type=float, default=0.023, help="USD")
    parser.add_argument("--million-gets", type=float, default=0.4, help="USD")
    parser.add_argument("--million-puts", type=float, default=5.0, help="USD")
    parser.add_argument("--busy", type=float, default=0.7, help="share of the workers' time in which they work")
    parser.add_argument("--elements", type=float, default=350_000, help="Beam elements per second and core")
    parser.add_argument("--verified-sources", type=int, default=1)
    parser.add_argument("--driver-cores", type=int, default=32)
    parser.add_argument("--gets-per-open", type=int, default=3)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        name, number = asked.measure
        print(json.dumps(MEASUREMENTS[name](int(number))))
        return
    for megabytes in asked.megabytes:
        measure(megabytes, asked.work)
    folders = measured_in(asked.work)
    runs = [read_run(folder, os.cpu_count() or 1) for folder in folders]
    if len(runs) < 3:
        parser.error(f"{asked.work} holds {len(runs)} runs; three sizes are needed: --megabytes 250 1000 4000")
    assumed = Assumptions(
        asked.core_hour,
        asked.gb_month,
        asked.million_gets,
        asked.million_puts,
        asked.busy,
        asked.elements,
        asked.verified_sources,
        asked.driver_cores,
        asked.gets_per_open,
    )
    print_measured(runs)
    print_checks(fit(runs[:-1]), runs[-1])
    print("### Of one process, without data\n")
    held = hold(asked.work, anew=bool(asked.megabytes))
    table(
        ("", "measured"),
        (
            (
                "a split, of 100,000: ledger read, tasks made",
                f"{human(held.split_bytes)}, {held.split_seconds * 1e6:.0f} µs",
            ),
            ("a row while a mix is verified", f"{ID_BYTES_HELD} B"),
            (f"{COPIES / 1e6:.0f} million ids sorted at a time", human(held.copies_bytes)),
            ("an edge, of 10 million: removal by one worker", human(held.edge_bytes)),
            ("a packet of one record, sent and received", f"{held.packet_seconds * 1e6:.0f} µs of CPU time"),
            ("a packet of one row of a mix", f"{held.stream_seconds * 1e6:.0f} µs of CPU time"),
            ("files that a run opens and writes for each split", f"{held.reads:.1f} and {held.writes:.1f}"),
            ("what lz4 leaves of rows on their way to a writer", f"{held.compressed:.0%}"),
        ),
    )
    model = fit(runs)
    columns = {}
    for terabytes in asked.terabytes:
        for cores in asked.cores:
            size = size_at(round(terabytes * TB), model, runs[-1], assumed)
            columns[f"{terabytes:,g} TB on {cores:,} cores"] = predict(model, size, cores, held, runs, assumed)
    print("### Predicted\n")
    table(
        ["", *columns],
        ([name, *(column[name] for column in columns.values())] for name in next(iter(columns.values()))),
    )
    print("### From which size on\n")
    table(("", "input text"), limits(model, runs, held, assumed))
    print("### Predicted bytes by exchange\n")
    sizes = [size_at(round(t * TB), model, runs[-1], assumed) for t in asked.terabytes]
    table(
        ["", *(f"{t:,g} TB" for t in asked.terabytes), "a document"],
        (
            [
                f"`{name}`",
                *(f"{human(model.bytes(name, s))} in {count(model.packets(name, s))}" for s in sizes),
                f"{model.bytes(name, sizes[0]) / sizes[0].documents:,.0f} B",
            ]
            for name in SHAPES
        ),
    )


if __name__ == "__main__":
    main()
