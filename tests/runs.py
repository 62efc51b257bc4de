"""Commands run as a user would run them, and what they publish read back with nothing but pyarrow and json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
Place = tuple[str, str, int, int]

_PIPELINES = ("run", "index", "plan", "mix")


@dataclass(frozen=True)
class Told:
    """What a command said: its exit code, the one line of JSON, and everything on stderr."""

    exit: int
    line: dict[str, Any]
    stderr: str

    @property
    def code(self) -> str:
        return str(self.line["error"]["code"])

    @property
    def message(self) -> str:
        return str(self.line["error"]["message"])

    @property
    def details(self) -> dict[str, Any]:
        found: dict[str, Any] = self.line["error"]["details"]
        return found


def anchormix(*arguments: str | Path, beam: tuple[str, ...] = ("--direct_num_workers=1",)) -> Told:
    """Run a command through the CLI in this process, which saves the seconds that importing Beam takes."""
    from pipeline.cli import main

    result = CliRunner().invoke(main, _with_flags(arguments, beam), catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return _told(arguments, result.exit_code, result.stdout, result.stderr)


def in_a_shell(
    *arguments: str | Path, beam: tuple[str, ...] = ("--direct_num_workers=1",), prefix: tuple[str, ...] = ()
) -> Told:
    """Run a command in a process of its own; `prefix` stands before it, as `nice` would."""
    call = [*prefix, sys.executable, "-m", "pipeline", *_with_flags(arguments, beam)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=300, check=False)
    return _told(arguments, done.returncode, done.stdout, done.stderr)


def _with_flags(arguments: tuple[str | Path, ...], beam: tuple[str, ...]) -> list[str]:
    is_pipeline = arguments[0] in _PIPELINES
    return [*map(str, arguments), "--json", *(("--quiet", "--", *beam) if is_pipeline else ())]


def _told(arguments: tuple[str | Path, ...], code: int, stdout: str, stderr: str) -> Told:
    """The answer, after what holds for every command: one line on stdout, and never a traceback."""
    shown = f"anchormix {' '.join(map(str, arguments))}: exit {code}\n{stdout}\n{stderr}"
    assert "Traceback" not in stderr, shown
    assert stdout.count("\n") == 1, shown
    line = json.loads(stdout)
    assert line["command"].split()[0] == arguments[0], shown
    assert line["exit"] == code, shown
    assert {"status", "error", "output", "totals"} <= line.keys(), shown
    assert (line["error"] is None) == (code == 0), shown
    if code:
        assert line["error"]["message"] in stderr, shown
    return Told(code, line, stderr)


class PublishedMix:
    """A published folder, read from its Parquet files and its manifest alone."""

    def __init__(self, folder: Path) -> None:
        assert (folder / "_SUCCESS").exists(), f"{folder} is not published"
        self.folder = folder

    @cached_property
    def shards(self) -> list[list[list[Row]]]:
        """Rows of each row group of each shard."""
        return [[group.to_pylist() for group in _row_groups(path)] for path in sorted((self.folder / "data").iterdir())]

    @cached_property
    def rows(self) -> list[Row]:
        return [row for shard in self.shards for group in shard for row in group]

    @cached_property
    def documents(self) -> dict[Place, Row]:
        """The first copy of every document, by where it was read."""
        first = [row for row in self.rows if row["copy"] == 0]
        found = {place_of(row): row for row in first}
        assert len(found) == len(first), "a document stands in the mix twice as its first copy"
        return found

    @cached_property
    def dropped(self) -> dict[Place, Row]:
        rows = [row for part in sorted((self.folder / "fates").iterdir()) for row in pq.read_table(part).to_pylist()]
        found = {place_of(row): row for row in rows}
        assert len(found) == len(rows), "a document has two fates"
        return found

    @cached_property
    def inputs(self) -> list[Row]:
        rows: list[Row] = pq.read_table(self.folder / "inputs.parquet").to_pylist()
        return rows

    @cached_property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "manifest.json").read_bytes())
        return found

    def drops(self, source: str) -> Counter[str]:
        """Documents of a source that fates list, by fate."""
        return Counter(row["fate"] for row in self.dropped.values() if row["source"] == source)

    def assert_conserved(self) -> None:
        """Of every source, as many documents went in as came out or were dropped for a named reason."""
        read: Counter[str] = Counter()
        for shard in self.inputs:
            read[shard["source"]] += shard["documents"]
        out = Counter(row["source"] for row in self.documents.values())
        for source, account in self.manifest["sources"].items():
            dropped = Counter(account["dropped"])
            assert account["documents_in"] == read[source]
            assert account["documents_out"] == out[source]
            assert read[source] == out[source] + dropped.total(), source
            listed = {fate: count for fate, count in dropped.items() if fate not in ("not_selected", "over_cap")}
            assert listed == dict(self.drops(source)), source
            assert sum(account["tags"].values()) == read[source]
        assert set(read) <= set(self.manifest["sources"])


def place_of(row: Row) -> Place:
    return row["source"], row["shard"], row["row"], row["part"]


def measured(row: Row, measure: str) -> int:
    return 1 if measure == "documents" else int(row[f"n_{measure}"])


def assert_floor(mix: PublishedMix, floor: Fraction, measure: str = "tokens") -> None:
    """q * verified >= p * total over the mix, every shard, every row group and every prefix of a row group."""
    p, q = floor.numerator, floor.denominator
    verified_in_mix = total_in_mix = 0
    for number, shard in enumerate(mix.shards):
        verified_in_shard = total_in_shard = 0
        for group_number, group in enumerate(shard):
            verified = total = 0
            for place, row in enumerate(group):
                amount = measured(row, measure)
                total += amount
                verified += amount if row["provenance"] == "human_verified" else 0
                assert q * verified >= p * total, (
                    f"shard {number}, row group {group_number}: {verified} of {total} up to row {place}, floor {floor}"
                )
            verified_in_shard += verified
            total_in_shard += total
        assert total_in_shard, f"shard {number} is empty"
        assert q * verified_in_shard >= p * total_in_shard
        verified_in_mix += verified_in_shard
        total_in_mix += total_in_shard
    assert q * verified_in_mix >= p * total_in_mix


def _row_groups(path: Path) -> list[Any]:
    file = pq.ParquetFile(path)
    return [file.read_row_group(number) for number in range(file.num_row_groups)]
