"""Tokens of a text as a `tokenizer.json` counts them, by the library `tokenizers`, which is only needed for this.

What a text is made of is counted and nothing else: special tokens that frame a sequence are not added, and what the
file says of truncating and padding is switched off, because it would count documents of any length as equally long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.kernels.hashing import byte_spans

__all__ = ["CountTokens", "TokenizerFile", "TokenizerUnusable", "token_counter"]

CountTokens = Callable[[pa.Array], NDArray[np.int64]]
"""Tokens of each text of an array; a null has none."""

_SLICE_BYTES = 1 << 20
_SLICE_ROWS = 512
"""Texts encoded at a time: the library holds some 400 bytes for every token until it is counted."""


class TokenizerUnusable(Exception):
    """Why nothing can be counted with a file: `code` is a stable word, the message says what is wrong."""

    def __init__(self, code: str, says: str) -> None:
        super().__init__(code, says)
        self.code = code
        self.says = says

    def __str__(self) -> str:
        return self.says


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer as it travels to workers; equal where the bytes are."""

    name: str
    digest: str
    content: bytes = field(repr=False, compare=False)

    @classmethod
    def of(cls, name: str, content: bytes) -> TokenizerFile:
        return cls(name, hashlib.sha256(content).hexdigest(), content)


def token_counter(file: TokenizerFile) -> CountTokens:
    """Counts by this tokenizer; raises `TokenizerUnusable` where the file is none, or the library is missing."""
    tokenizer = _load(file)

    def count(text: pa.Array) -> NDArray[np.int64]:
        counted = [np.empty(0, np.int64)]
        for part in _slices(text):
            encoded = tokenizer.encode_batch_fast(part.fill_null("").to_pylist(), add_special_tokens=False)
            counted.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        return np.concatenate(counted)

    return count


def _slices(text: pa.Array) -> Iterator[pa.Array]:
    _, starts, stops = byte_spans(text)
    ends = np.cumsum(stops - starts)
    start = 0
    while start < len(text):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + _SLICE_BYTES, side="right"))
        stop = max(start + 1, min(stop, start + _SLICE_ROWS))
        yield text.slice(start, stop - start)
        start = stop


@lru_cache(maxsize=4)
def _load(file: TokenizerFile) -> Any:
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise TokenizerUnusable(
            "missing_library",
            "the library that reads tokenizers is not installed: `pip install 'anchormix[tokenizers]'`, on workers too",
        ) from None
    try:
        tokenizer = Tokenizer.from_buffer(file.content)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_batch_fast(["a"], add_special_tokens=False)
    except Exception as error:  # the library raises a bare Exception for whatever it cannot read
        told = " ".join(str(error).split())[:200]
        raise TokenizerUnusable("bad_tokenizer", f"{file.name} is no tokenizer.json: {told}") from None
    return tokenizer
