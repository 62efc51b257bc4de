"""Any folder of documents as what every tool reads alike: Parquet shards of equal size with the columns id and text."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LARGEST_SHARD = 32e6  # bytes of text
ROW_GROUP = 4096
BATCH = 1024
SUFFIXES = (".parquet", ".pq", ".jsonl", ".ndjson", ".csv", ".tsv")
SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])


@dataclass(frozen=True)
class Corpus:
    """A folder of shards. Ids are the numbers of the documents in the order of shards and rows."""

    folder: Path
    documents: int
    text_bytes: int

    @property
    def shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    @property
    def megabytes(self) -> float:
        return self.text_bytes / 1e6


def prepare(folder: Path, out: Path, *, column: str, multiple_of: int) -> Corpus:
    """Rewrite a folder. Documents without text are left out: what tools do with them is not what is measured.

    Args:
        multiple_of: the number of shards is one of its multiples, so that each of so many workers gets as much.
    """
    files = [path for path in sorted(folder.rglob("*")) if data_suffix(path)]
    if not files:
        raise SystemExit(f"{folder}: no file ends in {', '.join(SUFFIXES)}, with or without .gz or .zst")
    total = sum(len(text.encode()) for path in files for batch in texts_of(path, column) for text in batch)
    rounds = max(1, -(-total // int(LARGEST_SHARD * multiple_of)))
    all_texts = (text for path in files for batch in texts_of(path, column) for text in batch)
    return write(all_texts, out, total / (rounds * multiple_of))


def write(texts: Iterator[str], out: Path, shard_bytes: float) -> Corpus:
    out.mkdir(parents=True)
    documents = text_bytes = shards = 0
    waiting: list[str] = []
    for text in texts:
        waiting.append(text)
        text_bytes += len(text.encode())
        # Cut where the text so far reaches the next multiple, so that rounding never makes one shard more.
        if text_bytes >= (shards + 1) * shard_bytes - 1:
            write_shard(out / f"{shards:05d}.parquet", waiting, documents)
            documents += len(waiting)
            shards += 1
            waiting = []
    if waiting:
        write_shard(out / f"{shards:05d}.parquet", waiting, documents)
    return Corpus(out, documents + len(waiting), text_bytes)


def write_shard(path: Path, texts: list[str], first: int) -> None:
    ids = pa.array(range(first, first + len(texts))).cast(pa.string())
    table = pa.table([ids, pa.array(texts, pa.string())], schema=SCHEMA)
    pq.write_table(table, path, row_group_size=ROW_GROUP, compression="zstd")


def data_suffix(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst")]
    return suffixes[-1] if path.is_file() and suffixes and suffixes[-1] in SUFFIXES else ""


def texts_of(path: Path, column: str) -> Iterator[list[str]]:
    """The texts of one file that are not blank, in batches."""
    kind = data_suffix(path)
    if kind in (".parquet", ".pq"):
        for batch in pq.ParquetFile(path).iter_batches(BATCH, columns=[column]):
            yield [text for text in pc.cast(batch.column(0), pa.large_string()).to_pylist() if text and text.strip()]
        return
    csv.field_size_limit(sys.maxsize)
    with pa.input_stream(path) as stream:  # decompresses by the name's ending
        lines = (line.decode() for line in _lines(stream))
        rows = (
            map(json.loads, lines) if "json" in kind else csv.DictReader(lines, delimiter="\t" if "t" in kind else ",")
        )
        waiting = []
        for row in rows:
            text = row.get(column)
            if isinstance(text, str) and text.strip():
                waiting.append(text)
            if len(waiting) == BATCH:
                yield waiting
                waiting = []
        yield waiting


def _lines(stream: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while block := stream.read(1 << 20):
        *lines, rest = (rest + block).split(b"\n")
        yield from (line + b"\n" for line in lines if line.strip())
    if rest.strip():
        yield rest
