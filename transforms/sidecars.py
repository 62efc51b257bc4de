"""The facts of a split on disk: the sidecar's format, its summary, and the accumulators beside it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import files
from transforms.batches import MAX_BATCH_BYTES, MAX_BATCH_ROWS, Split, groups, pack, unpack
from transforms.files import StoreError
from transforms.kernels import diversity, minhash, text
from transforms.kernels.columns import ColumnMap, Located
from transforms.kernels.detectors import DetectorSpec
from transforms.kernels.records import FileFormat
from transforms.kernels.schemas import DIGEST_BYTES, Status, facts_schema
from transforms.kernels.scripts import languages_or_scripts
from transforms.kernels.tokens import TokenizerFile

SUMMARY_KEY = b"anchormix"
"""Footer key of a sidecar: the split's `Summary`, so that finished work can be counted without reading rows."""


@dataclass(frozen=True)
class SourceSettings:
    """How one source is read: everything that decides its facts."""

    columns: ColumnMap
    minhash: minhash.MinHashParams
    artefacts: bool = True
    detectors: tuple[DetectorSpec, ...] = ()
    tokenizer: TokenizerFile | None = None  # what counts tokens; None: words, or a column that `columns` names
    diversity: diversity.DiversityParams = field(default_factory=diversity.DiversityParams)
    batch_bytes: int = MAX_BATCH_BYTES
    batch_rows: int = MAX_BATCH_ROWS

    @property
    def kept(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns.keep)

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the detectors whose scores stand in the facts, in their order there."""
        return tuple(sorted(spec.name for spec in self.detectors))


@dataclass
class Summary:
    """What one split held: counted while reading, never estimated."""

    split: int
    source: str
    shard: str
    documents: int = 0
    empty: int = 0
    bad_records: int = 0
    words: int = 0
    tokens: int = 0
    text_bytes: int = 0
    derived: int = 0  # documents that name what they were made from
    form: str = ""  # plain, join, messages or parts: how text is made; empty where there is no row
    data_set: str | None = None  # recognised by its columns
    unexplained: list[str] = field(default_factory=list)  # columns that look like labels of origin, and are not used
    unscored: dict[str, int] = field(default_factory=dict)  # by detector, the readable documents it gave no number
    file_digest: str | None = None
    problems: list[tuple[int, str]] = field(default_factory=list)
    failure: str | None = None
    failure_code: str | None = None

    @property
    def readable(self) -> int:
        return self.documents - self.empty - self.bad_records

    def note_reading(self, located: Located) -> None:
        """How the file is read, told before its first row."""
        self.form = located.form_name
        self.data_set = located.data_set.name if located.data_set else None
        self.unexplained = list(located.labels)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Summary:
        fields = json.loads(data)
        fields["problems"] = [tuple(problem) for problem in fields["problems"]]
        return cls(**fields)


def opener(split: Split) -> Callable[[], Any]:
    return lambda: files.open_input(split.path)


def unreachable(error: BaseException) -> str | None:
    """What a store said that did not give out a file, so that nothing is known of the file; None in any other case."""
    cause = error.__cause__
    return str(cause) if isinstance(cause, StoreError) and not isinstance(cause, OSError) else None


def unreachable_report(split: Split, problem: str) -> bytes:
    """For the driver: a store that does not give out what was indexed, which says nothing about the file."""
    told = {"kind": "unreachable", "source": split.source, "shard": split.shard, "path": split.path}
    return json.dumps({**told, "problem": problem}, sort_keys=True).encode()


def file_format(split: Split) -> FileFormat:
    return FileFormat(cast(Any, split.kind), cast(Any, split.compression))


def finished_summary(path: str) -> Summary | None:
    """What a finished sidecar says of its split; None where it, or the accumulators beside it, are not whole."""
    if not (files.exists(path) and files.exists(diversity_path(path))):
        return None
    try:
        with files.open_input(path) as source:
            return Summary.from_bytes(pq.ParquetFile(source).metadata.metadata[SUMMARY_KEY])
    except (pa.ArrowInvalid, OSError, KeyError):
        return None


def facts_writer(sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
    incompressible = ("digest", "signature", "sample")
    names = [name for name in schema.names if name not in incompressible]
    return pq.ParquetWriter(
        sink,
        schema,
        compression={_leaf(name): "none" if name in incompressible else "zstd" for name in schema.names},
        use_dictionary=[name for name in names if pa.types.is_string(schema.field(name).type)],
        write_statistics=False,
        store_schema=True,
    )


def _leaf(name: str) -> str:
    """How Parquet calls a column's values."""
    return "sample.list.element" if name == "sample" else name


def fixed_binary(rows: npt.NDArray[np.uint8]) -> pa.Array:
    """A two-dimensional byte array as one fixed-size binary column, without copying."""
    rows = np.ascontiguousarray(rows)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(rows)])


def fixed_rows(column: pa.Array | pa.ChunkedArray, width: int) -> npt.NDArray[np.uint8]:
    """The reverse of `fixed_binary`."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if len(column) == 0:
        return np.empty((0, width), np.uint8)
    data = np.frombuffer(column.buffers()[1], np.uint8)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)


def digests_of(facts: pa.Table) -> npt.NDArray[np.uint8]:
    return fixed_rows(facts["digest"], DIGEST_BYTES)


def digest_words(digests: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The first 128 bits of digests as two integers that compare as the bytes do."""
    words = np.ascontiguousarray(digests[:, :16]).view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]


def read_table(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A table of the index, whole or some columns of it."""
    with files.open_input(path) as source:
        # From a store, columns that lie side by side come by one request.
        file = pq.ParquetFile(source, pre_buffer=not files.is_local(path))
        return file.read(columns=columns and list(columns), use_threads=False)


def read_facts(split: Split, columns: Sequence[str] | None = None) -> pa.Table:
    return read_table(split.facts, columns)


def bad_file_facts(
    split: Split, kept: tuple[str, ...], scored: tuple[str, ...], permutations: int, problem: str
) -> Summary:
    """The sidecar of a file that cannot be read: one row that says so, so that it is counted like any other drop."""
    schema = facts_schema(kept, permutations, scored)
    values: dict[str, Any] = {
        "row": 0,
        "part": 0,
        "status": int(Status.BAD_FILE),
        "problem": problem,
        "digest": bytes(DIGEST_BYTES),
        "signature": bytes(4 * permutations),
        **dict.fromkeys(("n_bytes", "n_words", "n_tokens", "n_shingles", "artefacts"), 0),
    }
    summary = Summary(split.index, split.source, split.shard, documents=1, bad_records=1, problems=[(0, problem)])
    row = [pa.array([values.get(name)], schema.field(name).type) for name in schema.names]
    files.write_bytes(diversity_path(split.facts), SplitDiversity(diversity.DiversityParams()).to_bytes())
    with files.atomic_output(split.facts) as sink:
        writer = facts_writer(sink, schema)
        writer.write_table(pa.Table.from_arrays(row, schema=schema))
        writer.add_key_value_metadata({SUMMARY_KEY: summary.to_bytes()})
        writer.close()
    return summary


def diversity_path(facts: str) -> str:
    return facts.removesuffix(".parquet") + ".diversity"


def write_part(folder: str, kind: str, partition: int, table: pa.Table) -> bytes:
    """Write one part under a name of this attempt's own; the returned report is what makes it count."""
    name = f"{kind}-{partition:05d}-{uuid.uuid4().hex[:12]}.parquet"
    with files.atomic_output(files.join(folder, name)) as sink:
        pq.write_table(table, sink, compression="zstd")
    return json.dumps({"kind": kind, "partition": partition, "file": name, "rows": table.num_rows}).encode()


class SplitDiversity:
    """The diversity accumulators of one split, one per language; their sum describes the split.

    Documents that state no language count under their script. A column that is no language column must not cost an
    accumulator per document: past the first names of a split, the others share one.
    """

    OTHERS = "(others)"
    _MOST_LANGUAGES = 256
    _MOST_BYTES = 288 << 20

    def __init__(self, params: diversity.DiversityParams) -> None:
        self.params = params
        self.parts: dict[str, diversity.Accumulator] = {}
        self._most = min(self._MOST_LANGUAGES, self._MOST_BYTES // diversity.most_bytes(params))

    def add(self, documents: pa.Array, words: text.Words, readable: npt.NDArray[np.bool_], language: pa.Array) -> None:
        names, codes = languages_or_scripts(language, documents)
        keys = np.array(list(map(diversity.language_key, names)), np.uint64)[codes]
        places = np.flatnonzero(readable)
        order, runs = groups(codes[places])
        for code, start, end in runs:
            self._of(names[code]).add(words, places[order[start:end]], documents, keys)

    def _of(self, language: str) -> diversity.Accumulator:
        if language not in self.parts:
            if len(self.parts) >= self._most:
                language = self.OTHERS
            self.parts.setdefault(language, diversity.Accumulator.zero(self.params))
        return self.parts[language]

    def to_bytes(self) -> bytes:
        names = sorted(self.parts)
        heads = np.frombuffer(json.dumps(names).encode(), np.uint8)
        return pack(heads, *(np.frombuffer(self.parts[name].to_bytes(), np.uint8) for name in names))

    @staticmethod
    def read(path: str) -> dict[str, diversity.Accumulator]:
        heads, *parts = unpack(files.read_bytes(path))
        names = json.loads(heads.tobytes())
        return {name: diversity.Accumulator.from_bytes(part.tobytes()) for name, part in zip(names, parts, strict=True)}
