"""`anchormix verify`: options to a verification, and its words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import settings
from pipeline.catalog import Shard, find_shards
from pipeline.config import Config, load_config
from pipeline.errors import UsageError
from pipeline.outcome import Outcome
from pipeline.report import verification_table
from pipeline.verify import verify_mix
from transforms import files
from transforms.kernels.records import FileFormat, MissingColumn, UnreadableFile, read_texts_at


def verify_folder(
    out: Path, floors: tuple[str, ...], key: Path | None, trust: Path | None, expect: str | None, inputs: Path | None
) -> Outcome:
    verification = verify_mix(
        out,
        floors=[_floor(text) for text in floors],
        key=key,
        trust=trust,
        expect=expect,
        inputs=InputReader(load_config(inputs)) if inputs else None,
        workers=os.cpu_count() or 1,
    )
    error = verification.error()
    if error is not None:
        error.report = verification_table(verification)
        raise error
    return Outcome(
        verification_table(verification),
        output=str(out),
        totals=verification.totals,
        details={name: value for name, value in verification.to_json().items() if name != "totals"},
    )


def _floor(text: str) -> tuple[str, Fraction]:
    of, _, share = text.rpartition("=")
    try:
        value = Fraction(share)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not of or not 0 <= value <= 1:
        raise UsageError(
            "bad_floor",
            f"--floor {text!r}: valid is OF=SHARE with a share from 0 to 1, such as human_verified=1/2",
            value=text,
        )
    return of, value


class InputReader:
    """Reads texts of the inputs again, by shard and row, as the config says how."""

    def __init__(self, config: Config) -> None:
        self._columns = {source.name: settings.column_map(config, source) for source in config.sources}
        self._shards: dict[tuple[str, str], Shard] = {
            (shard.source, shard.name): shard for shard in find_shards(config)
        }

    def __call__(self, source: str, shard: str, rows: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        found = self._shards.get((source, shard))
        if found is None:
            return
        form: Any = (found.kind, found.compression)
        try:
            yield from read_texts_at(
                lambda: files.open_input(found.path), found.path, FileFormat(*form), self._columns[source], rows
            )
        except (UnreadableFile, MissingColumn):
            return
