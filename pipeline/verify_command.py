"""`anchormix verify`: options to a verification, and its words."""

from __future__ import annotations

import contextlib
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
from pipeline.heldout import HeldOutCheck
from pipeline.outcome import Outcome
from pipeline.report import verification_table
from pipeline.tokens import read_tokenizer
from pipeline.verify import verify_mix
from pipeline.verify_consistent import read_claims
from transforms import files
from transforms.kernels.audit import Finding
from transforms.kernels.records import FileFormat, MissingColumn, UnreadableFile, read_texts_at
from transforms.kernels.tokens import TokenizerFile


def verify_folder(
    out: Path,
    floors: tuple[str, ...],
    key: Path | None,
    trust: Path | None,
    expect: str | None,
    inputs: Path | None,
    tokenizer: Path | None,
) -> Outcome:
    config = load_config(inputs) if inputs else None
    verification = verify_mix(
        out,
        floors=[_floor(text) for text in floors],
        key=key,
        trust=trust,
        expect=expect,
        inputs=InputReader(config) if config else None,
        held_out=HeldOutCheck.of(config) if config else None,
        tokenizer=read_tokenizer(str(tokenizer), "--tokenizer") if tokenizer else _recorded(out, config),
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


def _recorded(out: Path, config: Config | None) -> TokenizerFile | None:
    """The tokenizer of the config with the inputs, if it is the one that the mix was counted by."""
    claimed = read_claims(out)
    if config is None or config.tokens.file is None or isinstance(claimed, Finding) or not claimed.tokenizer:
        return None
    with contextlib.suppress(UsageError):  # not at hand; the texts of the inputs can be compared all the same
        file = read_tokenizer(config.tokens.file, "tokens.file")
        return file if file.digest == claimed.tokenizer else None
    return None


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
