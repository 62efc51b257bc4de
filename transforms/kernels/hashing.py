"""The bytes of Arrow arrays, what identifies a document, and the only randomness there is.

Identity is sha256: collisions of fast hashes can be made on purpose in milliseconds, so those serve words, shingles
and draws, never identity.
"""

from __future__ import annotations

import binascii
import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import xxhash
from numba import njit
from numpy.typing import NDArray

from transforms.kernels.kernel_start import link_without_compiler
from transforms.kernels.schemas import ID_BYTES
from transforms.kernels.sha256 import sha256_each

__all__ = ["ByteSpans", "byte_spans", "draws", "fingerprint", "hex_ids", "mix64", "parsed_ids", "text_digests"]

link_without_compiler()  # here, since no kernel is called where this module is not imported

_OFFSET_TYPES = {
    pa.string(): np.int32,
    pa.binary(): np.int32,
    pa.large_string(): np.int64,
    pa.large_binary(): np.int64,
}

_SHIFT = np.uint64(33)
_MULTIPLY_1 = np.uint64(0xFF51AFD7ED558CCD)
_MULTIPLY_2 = np.uint64(0xC4CEB9FE1A85EC53)


@njit(inline="always")
def mix64(value: np.uint64) -> np.uint64:
    """Spreads every bit of `value` over all 64: the finaliser of MurmurHash3, a bijection.

    Hashes in stored indexes go through it and compiled callers keep a copy of it, so it must never change.
    """
    value ^= value >> _SHIFT
    value *= _MULTIPLY_1
    value ^= value >> _SHIFT
    value *= _MULTIPLY_2
    value ^= value >> _SHIFT
    return value


class ByteSpans(NamedTuple):
    """Where in `data` the bytes of each value stand; nothing is copied. Nulls span no bytes."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


def byte_spans(values: pa.Array) -> ByteSpans:
    """The values of a string or binary array, of either offset width, in the array's own buffer."""
    offset_type = _OFFSET_TYPES.get(values.type) if isinstance(values, pa.Array) else None
    if offset_type is None:
        raise TypeError(
            f"cannot read bytes from {getattr(values, 'type', type(values).__name__)} in a {type(values).__name__}; "
            f"pass one pyarrow Array of {', '.join(map(str, _OFFSET_TYPES))}, casting or combining chunks first"
        )
    if len(values) == 0:
        return ByteSpans(_read_only(None), np.empty(0, np.int64), np.empty(0, np.int64))
    _, offset_buffer, data_buffer = values.buffers()
    width = np.dtype(offset_type).itemsize
    offsets = np.frombuffer(offset_buffer, offset_type, len(values) + 1, values.offset * width).astype(np.int64)
    starts, stops = offsets[:-1], offsets[1:]
    if values.null_count:
        # A null may own bytes that nobody should see.
        stops = np.where(values.is_valid().to_numpy(zero_copy_only=False), stops, starts)
    return ByteSpans(_read_only(data_buffer), starts, stops)


def _read_only(buffer: pa.Buffer | None) -> NDArray[np.uint8]:
    """A view of the buffer that is read-only even where the buffer is not: numba compiles once per mutability."""
    data = np.empty(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)
    data.flags.writeable = False
    return data


def text_digests(text: pa.Array) -> NDArray[np.uint8]:
    """The sha256 of each value's raw bytes, one row each; zeros for nulls."""
    digests = sha256_each(*byte_spans(text))
    if text.null_count:
        digests[text.is_null().to_numpy(zero_copy_only=False)] = 0
    return digests


def hex_ids(digests: NDArray[np.uint8]) -> pa.Array:
    """Hex of the first 128 bits of each digest, as one string column."""
    text = digests[:, :ID_BYTES].tobytes().hex().encode()
    offsets = np.arange(len(digests) + 1, dtype=np.int32) * (2 * ID_BYTES)
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(offsets), pa.py_buffer(text))


def parsed_ids(ids: pa.Array) -> NDArray[np.bytes_]:
    """What `hex_ids` wrote, as 16 bytes each; they sort and compare as bytes do. ValueError where one is no id."""
    data, starts, stops = byte_spans(ids)
    if not (stops - starts == 2 * ID_BYTES).all():
        wrong = ids[int(np.flatnonzero(stops - starts != 2 * ID_BYTES)[0])].as_py()
        raise ValueError(f"{wrong!r} is no id: ids have {2 * ID_BYTES} hexadecimal digits")
    if len(ids) == 0:
        return np.empty(0, f"S{ID_BYTES}")
    return np.frombuffer(binascii.unhexlify(data[starts[0] : stops[-1]].tobytes()), f"S{ID_BYTES}")


def draws(digests: NDArray[np.uint8], seed: int, salt: bytes = b"") -> NDArray[np.uint64]:
    """One uniform 64-bit draw per document, from the first 16 bytes of its digest, the seed and the salt alone."""
    if digests.ndim != 2 or digests.shape[1] < 16 or digests.dtype != np.uint8:
        raise ValueError(
            f"digests must be uint8 of shape (documents, 16 or more), "
            f"got {digests.dtype} of shape {digests.shape}; pass what text_digests returns"
        )
    key = xxhash.xxh3_128_digest(b"%d:" % seed + salt)
    words = np.ascontiguousarray(digests[:, :16]).view("<u8").astype(np.uint64, copy=False)
    first_key, second_key = np.frombuffer(key, "<u8").astype(np.uint64)
    return _draw(words, first_key, second_key)


@njit(nogil=True, cache=True)
def _draw(words: NDArray[np.uint64], first_key: np.uint64, second_key: np.uint64) -> NDArray[np.uint64]:
    drawn = np.empty(words.shape[0], np.uint64)
    for i in range(drawn.size):
        drawn[i] = mix64((mix64(words[i, 0] ^ first_key) + words[i, 1]) ^ second_key)
    return drawn


def fingerprint(*parts: str | bytes | int) -> str:
    """32 hex digits that tell whether two lists of settings are equal.

    Each part is framed by its kind and length, so ("ab", "c"), ("a", "bc"), ("abc",) and (b"ab", "c") all differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            kind, content = b"s", part.encode()
        elif isinstance(part, bytes):
            kind, content = b"b", part
        elif isinstance(part, int):
            kind, content = b"i", b"%d" % part
        else:
            raise TypeError(
                f"cannot fingerprint {part!r} of type {type(part).__name__}; pass str, bytes or int, "
                "and spell floats and containers out as text"
            )
        digest.update(b"%s%d:" % (kind, len(content)) + content)
    return digest.hexdigest()[:32]
