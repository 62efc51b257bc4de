"""Rows of a mix as the samples of streaming loaders: MosaicML's MDS shards, and the tar members of WebDataset.

A whole batch is encoded at once: parts of samples are binary columns, joined element by element. Only what has to
become JSON and repeats little is formatted value by value.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.kernels.hashing import byte_spans

__all__ = ["MDS_VERSION", "json_objects", "json_values", "mds_config", "mds_samples", "tar_end", "tar_members"]

MDS_VERSION = 2
_BLOCK = 512  # of a tar
_EMPTY = pa.scalar(b"", pa.large_binary())


def json_values(column: pa.Array) -> pa.Array:
    """Each value as JSON in UTF-8, nulls too; equal values of a repetitive column are formatted once."""
    if pa.types.is_integer(column.type):
        return pc.fill_null(column.cast(pa.string()), "null").cast(pa.large_binary())
    if pa.types.is_string(column.type):
        coded = column.dictionary_encode()
        texts = [_as_json(value) for value in coded.dictionary.to_pylist()]
        values = pa.array([*texts, b"null"], pa.large_binary())
        return values.take(pc.fill_null(coded.indices.cast(pa.int64()), len(texts)))
    return pa.array([_as_json(value) for value in column.to_pylist()], pa.large_binary())


def _as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def json_objects(rows: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    """Each row as a JSON object of these columns."""
    parts: list[Any] = []
    for place, name in enumerate(names):
        opening = b"," if place else b"{"
        parts += [pa.scalar(opening + _as_json(name) + b":", pa.large_binary()), json_values(rows[name])]
    return pc.binary_join_element_wise(*parts, pa.scalar(b"}", pa.large_binary()), _EMPTY)


# MDS


def _encoding(field: pa.Field, nullable: frozenset[str]) -> str:
    """Text and numbers as they are; what may be null, or is a list, as JSON, which can say so."""
    if pa.types.is_integer(field.type):
        return "int"
    return "str" if pa.types.is_string(field.type) and field.name not in nullable else "json"


def mds_config(schema: pa.Schema, nullable: frozenset[str]) -> dict[str, Any]:
    """What a shard and the index say of its columns, which the format keeps in the order of their names."""
    fields = sorted(schema, key=lambda field: field.name)
    encodings = [_encoding(field, nullable) for field in fields]
    return {
        "column_encodings": encodings,
        "column_names": [field.name for field in fields],
        "column_sizes": [8 if encoding == "int" else None for encoding in encodings],
        "compression": None,
        "format": "mds",
        "hashes": ["sha256"],
        "size_limit": None,
        "version": MDS_VERSION,
    }


def mds_samples(rows: pa.RecordBatch, config: dict[str, Any]) -> pa.Array:
    """One sample a row: the sizes of what has no fixed one, as 32 bits each, then all values."""
    parts, sizes = [], []
    for name, encoding in zip(config["column_names"], config["column_encodings"], strict=True):
        column = rows[name]
        if encoding == "int":
            parts.append(_fixed(column.cast(pa.int64()).to_numpy().astype("<i8").view(np.uint8).reshape(-1, 8)))
            continue
        values = json_values(column) if encoding == "json" else column.cast(pa.large_string()).view(pa.large_binary())
        parts.append(values)
        sizes.append(_lengths(values))
    heads = np.ascontiguousarray(np.stack(sizes, axis=1).astype("<u4")).view(np.uint8)
    return pc.binary_join_element_wise(_fixed(heads), *parts, _EMPTY)


# WebDataset


def tar_members(keys: pa.Array, contents: Sequence[tuple[str, pa.Array]]) -> pa.Array:
    """One run of bytes a row: for each (extension, content) a tar header, the content, and padding to a whole block.

    Keys and extensions are ASCII; headers are ustar, with nothing in them that a clock, an owner or a mode decides.
    """
    parts: list[pa.Array] = []
    for extension, content in contents:
        sizes = _lengths(content)
        parts += [_fixed(_headers(keys, extension, sizes)), content, _padding(sizes)]
    return pc.binary_join_element_wise(*parts, _EMPTY)


def tar_end() -> bytes:
    return bytes(2 * _BLOCK)


def _headers(keys: pa.Array, extension: str, sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    headers = np.zeros((len(keys), _BLOCK), np.uint8)
    names = pc.binary_join_element_wise(keys, extension, ".")
    data, starts, stops = byte_spans(names)
    lengths = stops - starts
    if len(lengths) and (lengths > 100).any():
        raise ValueError(f"the name of a tar member has {lengths.max()} bytes; valid are at most 100")
    place = np.arange(100)
    inside = place < lengths[:, None]
    headers[:, :100][inside] = data[(starts[:, None] + place)[inside]]
    for at, text in ((100, b"0000644\0"), (108, b"0000000\0"), (116, b"0000000\0"), (136, b"00000000000\0")):
        headers[:, at : at + len(text)] = np.frombuffer(text, np.uint8)
    headers[:, 124:135] = _octal(sizes, 11)
    headers[:, 156] = ord("0")
    headers[:, 257:265] = np.frombuffer(b"ustar\x0000", np.uint8)
    headers[:, 148:156] = ord(" ")  # the checksum counts its own field as blanks
    sums = headers.sum(axis=1, dtype=np.int64)
    headers[:, 148:154] = _octal(sums, 6)
    headers[:, 154] = 0
    return headers


def _octal(numbers: NDArray[np.int64], digits: int) -> NDArray[np.uint8]:
    shifts = 3 * np.arange(digits - 1, -1, -1)
    return ((numbers[:, None] >> shifts & 7) + ord("0")).astype(np.uint8)


_PADDINGS = pa.array([bytes(size) for size in range(_BLOCK)], pa.large_binary())


def _padding(sizes: NDArray[np.int64]) -> pa.Array:
    return _PADDINGS.take(pa.array(-sizes % _BLOCK))


def _fixed(rows: NDArray[np.uint8]) -> pa.Array:
    """Rows of equal width as one binary column."""
    rows = np.ascontiguousarray(rows)
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    return pa.Array.from_buffers(
        pa.large_binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(rows.reshape(-1))]
    )


def _lengths(values: pa.Array) -> NDArray[np.int64]:
    return pc.binary_length(values).to_numpy().astype(np.int64)
