"""The tools that are compared: how each is installed, called, and what it answered."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasketch import MinHashLSH

from peers.corpus import Corpus
from peers.environments import CannotInstall, ensure, python_from

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

I64 = npt.NDArray[np.int64]

REMOVAL = pa.schema(
    [("doc_id", pa.string()), ("fate", pa.string()), ("partner", pa.string()), ("similarity", pa.float64())]
)


@dataclass(frozen=True)
class Job:
    corpus: Corpus
    work: Path
    """An empty folder of this run's own."""
    threshold: float
    permutations: int = 128
    shingle: int = 5
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    clusters: bool = False
    """Also ask which documents were found alike. Timed runs do without, as deduplication does."""
    shingles: Path | None = None
    """A folder like the corpus, with a column of shingles: libraries that take any set take those."""


class Command(NamedTuple):
    words: list[str]
    folder: Path
    environment: dict[str, str]


class Found(NamedTuple):
    kept: npt.NDArray[np.bool_]  # per document
    cluster: I64  # per document; documents of one number were found alike, directly or through others


class Tool:
    """One tool. `phases` maps what it tells of its own time; `writing` names those that only write the output."""

    name: str
    writing: frozenset[str] = frozenset()

    def install(self) -> None:
        """Raises CannotInstall with the reason."""

    def command(self, job: Job) -> Command:
        raise NotImplementedError

    def kept_documents(self, job: Job) -> int:
        return int(self.found(job).kept.sum())

    def found(self, job: Job) -> Found:
        raise NotImplementedError

    def phases(self, job: Job, log: str) -> dict[str, float]:
        return {}

    def settings(self, job: Job) -> str:
        """What differs from what was asked."""
        raise NotImplementedError


def usual_bands(job: Job) -> tuple[int, int]:
    """Bands and rows that datasketch derives from the threshold, and text-dedup with the same formula."""
    index = MinHashLSH(threshold=job.threshold, num_perm=job.permutations)
    return int(index.b), int(index.r)


def read_phases(job: Job) -> dict[str, float]:
    phases: dict[str, float] = json.loads((job.work / "phases.json").read_text())
    return phases


def kept_by_id(job: Job, ids: list[str]) -> npt.NDArray[np.bool_]:
    kept = np.zeros(job.corpus.documents, np.bool_)
    kept[np.array(ids, np.int64)] = True
    return kept


def components(documents: int, left: I64, right: I64) -> I64:
    """The component of each document, named by one of its members."""
    parent = list(range(documents))

    def root(document: int) -> int:
        while parent[document] != document:
            parent[document] = parent[parent[document]]
            document = parent[document]
        return document

    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        parent[root(a)] = root(b)
    return np.array([root(document) for document in range(documents)], np.int64)


class Anchormix(Tool):
    name = "anchormix"

    def command(self, job: Job) -> Command:
        config: dict[str, Any] = {
            "version": 1,
            "output": str(job.work / "mix"),
            "index": str(job.work / "index"),
            "sources": [{"name": "bench", "files": [str(job.corpus.folder / "*.parquet")]}],
            "dedup": {
                "threshold": job.threshold,
                "permutations": job.permutations,
                "shingle": job.shingle,
                "wipe_out": 1,
            },
            "mix": {"floors": {"human_verified": 0}},
        }
        path = job.work / "bench.yaml"
        path.write_text(yaml.safe_dump(config))
        # A mix names every removed document with its witness; the dedup-only path stops before.
        command = "run" if job.clusters else "index"
        words = [sys.executable, "-m", "pipeline", command, str(path), "--json", "--quiet"]
        return Command(words, ROOT, {})

    def kept_documents(self, job: Job) -> int:
        from transforms.kernels.schemas import Fate

        fates = pa.concat_tables(
            pq.read_table(path, columns=["fate"]) for path in job.work.glob("index/fates/*/*.parquet")
        )
        return int((fates["fate"].to_numpy() == Fate.KEPT).sum())

    def found(self, job: Job) -> Found:
        kept = np.ones(job.corpus.documents, np.bool_)
        kept[self.removals(job).column("doc_id").cast(pa.int64()).to_numpy()] = False
        left, right = self.edges(job)
        return Found(kept, components(job.corpus.documents, left, right))

    def removals(self, job: Job) -> pa.Table:
        """Every removed document with its fate, its witness's id and their similarity."""
        files = sorted((job.work / "mix" / "fates").glob("*.parquet"))
        tables = [pq.read_table(path, columns=REMOVAL.names).cast(REMOVAL) for path in files]
        return pa.concat_tables([REMOVAL.empty_table(), *tables])

    def edges(self, job: Job) -> tuple[I64, I64]:
        """Documents that the index holds as equal or near-duplicate."""
        (shard,) = job.corpus.shards
        if pq.ParquetFile(shard).num_row_groups != 1:
            raise ValueError(f"{shard}: addresses are row numbers only in a file of one row group")
        sides: tuple[list[Any], list[Any]] = ([], [])
        for columns, kind in ((("left", "right"), "pairs"), (("document", "first"), "exact")):
            for path in sorted(job.work.glob(f"index/edges/*/{kind}-*.parquet")):
                table = pq.read_table(path, columns=list(columns))
                for side, column in zip(sides, columns, strict=True):
                    side.append(table[column].to_numpy().astype(np.int64))
        left, right = (np.concatenate([np.empty(0, np.int64), *side]) for side in sides)
        return left, right

    def settings(self, job: Job) -> str:
        from transforms.kernels.minhash import choose_bands

        bands = choose_bands(job.threshold, job.permutations)
        return f"{bands.bands} bands of {bands.rows}; candidates verified on their sets; nothing through chains"


class Datatrove(Tool):
    name = "datatrove"
    writing = frozenset({"write"})

    @cached_property
    def _python(self) -> Path:
        return ensure(self.name, Path(sys.executable))

    def install(self) -> None:
        _ = self._python

    def command(self, job: Job) -> Command:
        bands, rows = usual_bands(job)
        words = [str(self._python), str(HERE / "run_datatrove.py"), str(job.corpus.folder), str(job.work)]
        words += [f"--bands={bands}", f"--rows={rows}", f"--shingle={job.shingle}", f"--workers={job.cores}"]
        return Command(words + ["--clusters"] * job.clusters, job.work, OFFLINE)

    def kept_documents(self, job: Job) -> int:
        return sum(pq.ParquetFile(path).metadata.num_rows for path in (job.work / "kept").glob("*.parquet"))

    def found(self, job: Job) -> Found:
        cluster = np.arange(job.corpus.documents, dtype=np.int64)
        ids: dict[str, list[str]] = {"kept": [], "removed": []}
        for side, into in ids.items():
            for path in sorted((job.work / side).glob("*.parquet")):
                for row in pq.read_table(path, columns=["id", "metadata"]).to_pylist():
                    into.append(row["id"])
                    number = (row["metadata"] or {}).get("minhash_cluster_id", -1)
                    if number >= 0:
                        cluster[int(row["id"])] = job.corpus.documents + number
        if len(ids["kept"]) + len(ids["removed"]) != job.corpus.documents:
            raise ValueError(f"datatrove gave back {len(ids['kept'])} kept and {len(ids['removed'])} removed documents")
        return Found(kept_by_id(job, ids["kept"]), cluster)

    def phases(self, job: Job, log: str) -> dict[str, float]:
        return read_phases(job)

    def settings(self, job: Job) -> str:
        bands, rows = usual_bands(job)
        return f"{bands} bands of {rows}, as datasketch derives them; its English words; components, not verified"


class TextDedup(Tool):
    """The configuration that text-dedup's documentation shows verifies; its command line before 0.4.1 cannot."""

    writing = frozenset({"Saving"})

    def __init__(self, name: str, version: str, *, verified: bool) -> None:
        self.name = name
        self.version = version
        self.verified = verified

    @cached_property
    def _python(self) -> Path:
        least = (3, 12) if self.version == "0.4.1" else (3, 11)
        python = python_from(least)
        if python is None:
            raise CannotInstall(f"text-dedup {self.version} needs Python {least[0]}.{least[1]}; none was found on PATH")
        return ensure(f"text-dedup-{self.version}", python)

    def install(self) -> None:
        _ = self._python

    def command(self, job: Job) -> Command:
        environment = {**OFFLINE, "HF_HOME": str(job.work / "hf"), "HF_DATASETS_CACHE": str(job.work / "hf")}
        files = str(job.corpus.folder / "*.parquet")
        words = [str(self._python), "-m", "text_dedup.minhash"]
        if self.version == "0.4.0":
            words += ["--path=parquet", f"--data_files={files}", "--split=train", "--column=text", "--output=kept"]
            words += [f"--num_perm={job.permutations}", f"--ngram={job.shingle}", f"--threshold={job.threshold}"]
            words += [f"--num_proc={job.cores}", "--min_length=1", "--hash_func=xxh3", "--cache_dir=hf"]
            return Command(words + ["--debug"] * job.clusters, job.work, environment)
        tables: dict[str, dict[str, Any]] = {
            "input": {"input_type": "local_files", "file_type": "parquet"},
            "input.read_arguments": {"path": "parquet", "data_files": files, "split": "train"},
            "algorithm": {
                "algorithm_name": "minhash",
                "text_column": "text",
                "num_perm": job.permutations,
                "threshold": job.threshold,
                "ngram_size": job.shingle,
                "min_length": 1,
                "num_proc": job.cores,
                "check_false_positive": self.verified,
            },
            "output": {"output_dir": "kept", "save_clusters": job.clusters},
            "debug": {"enable_profiling": False},
        }
        lines = [
            line
            for name, table in tables.items()
            for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()))
        ]
        (job.work / "config.toml").write_text("\n".join(lines))
        return Command(words, job.work, environment)

    def _kept_ids(self, job: Job) -> list[str]:
        ids: list[str] = []
        for path in sorted((job.work / "kept").glob("*.arrow")):
            with pa.memory_map(str(path)) as file:
                ids += pa.ipc.open_stream(file).read_all()["id"].to_pylist()
        return ids

    def kept_documents(self, job: Job) -> int:
        return len(self._kept_ids(job))

    def found(self, job: Job) -> Found:
        cluster = np.arange(job.corpus.documents, dtype=np.int64)
        for document, number in self._clusters(job).items():
            cluster[document] = job.corpus.documents + number
        return Found(kept_by_id(job, self._kept_ids(job)), cluster)

    def _clusters(self, job: Job) -> dict[int, int]:
        if self.version == "0.4.1":
            clusters: dict[int, int] = pickle.loads((job.work / "kept" / "clusters.pickle").read_bytes())
            return clusters
        with (job.work / "kept" / "uf.pkl").open("rb") as file:
            parents: dict[int, int] = _Attributes(file).load().__dict__["parent"]
        return {document: _last(parents, document) for document in parents}

    def phases(self, job: Job, log: str) -> dict[str, float]:
        return {
            name: float(seconds) for name, seconds in re.findall(r"(\w+)\s*: ([\d.]+) ?s\b", log) if name != "Total"
        }

    def settings(self, job: Job) -> str:
        bands, rows = usual_bands(job)
        judged = "their pairs verified" if self.verified else "not verified"
        return f"release {self.version}; {bands} bands of {rows}; its words: runs of \\w; components, {judged}"


class _Attributes(pickle.Unpickler):
    """Reads objects of a package that is not installed here: only their attributes."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if module == "collections" else type(name, (), {})


def _last(parents: dict[int, int], document: int) -> int:
    while parents.get(document, document) != document:
        document = parents[document]
    return document


class Sketches(Tool):
    """A library of sketches, driven by the few lines of Python that its documentation shows."""

    writing = frozenset({"write"})

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def _python(self) -> Path:
        return ensure("sketches", Path(sys.executable))

    def install(self) -> None:
        _ = self._python

    def command(self, job: Job) -> Command:
        folder = job.shingles or job.corpus.folder
        words = [str(self._python), str(HERE / "run_sketches.py"), self.name, str(folder), str(job.work)]
        words += [f"--threshold={job.threshold}", f"--permutations={job.permutations}", f"--shingle={job.shingle}"]
        return Command(words + ["--shingles"] * bool(job.shingles), job.work, OFFLINE)

    def kept_documents(self, job: Job) -> int:
        return int(pq.ParquetFile(job.work / "kept.parquet").metadata.num_rows)

    def found(self, job: Job) -> Found:
        ids = pq.read_table(job.work / "kept.parquet", columns=["id"])["id"].to_pylist()
        edges = pq.read_table(job.work / "edges.parquet")
        left, right = (edges[name].to_numpy() for name in ("removed", "kept"))
        return Found(kept_by_id(job, ids), components(job.corpus.documents, left, right))

    def phases(self, job: Job, log: str) -> dict[str, float]:
        return read_phases(job)

    def settings(self, job: Job) -> str:
        source = "our shingles" if job.shingles else "words: runs of \\w"
        bands, rows = usual_bands(job)
        judged = (
            "own bands, its estimate verifies" if self.name == "rensa" else f"{bands} bands of {rows}, not verified"
        )
        return f"{source}; streaming, the first of a cluster stays; {judged}; one process"


OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

PEERS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Datatrove(),
        TextDedup("text-dedup", "0.4.1", verified=True),
        TextDedup("text-dedup-unverified", "0.4.1", verified=False),
        TextDedup("text-dedup-0.4.0", "0.4.0", verified=False),
        Sketches("rensa"),
        Sketches("datasketch"),
    )
}
