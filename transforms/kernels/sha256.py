"""sha256 of many values in one compiled pass.

hashlib is called once a value and offers the GIL to other threads each time; with two threads at work, getting it back
took as long as the hashing. So OpenSSL's function is called from compiled code where the library that hashlib itself
uses shows it, and hashlib is where that library is linked in and hidden.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib

import llvmlite.binding as llvm
import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from transforms.kernels.schemas import DIGEST_BYTES

__all__ = ["sha256_each"]

_SYMBOL = "anchormix_sha256"


def _find() -> bool:
    try:
        library = ctypes.CDLL(importlib.import_module("_hashlib").__file__)
        address = ctypes.cast(library.SHA256, ctypes.c_void_p).value
    except (ImportError, OSError, AttributeError):
        return False
    llvm.add_symbol(_SYMBOL, address)  # under a name, so that what numba caches finds it in the next process
    return True


_FOUND = _find()
_sha256 = types.ExternalFunction(_SYMBOL, types.uintp(types.uintp, types.uintp, types.uintp))


def sha256_each(data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The sha256 of each span of `data`, one row each."""
    digests = np.empty((len(starts), DIGEST_BYTES), np.uint8)
    if not _FOUND or not _hash_spans(data, starts, stops, digests):
        _hash_one_by_one(data, starts, stops, digests)
    return digests


@njit(nogil=True, cache=True)
def _hash_spans(
    data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64], digests: NDArray[np.uint8]
) -> bool:
    """False where OpenSSL refuses, as it may when it has no memory."""
    source, target = np.uintp(data.ctypes.data), np.uintp(digests.ctypes.data)
    for place in range(starts.size):
        start, size = np.uintp(starts[place]), np.uintp(stops[place] - starts[place])
        if _sha256(source + start, size, target + np.uintp(place * digests.shape[1])) == 0:
            return False
    return True


def _hash_one_by_one(
    data: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64], digests: NDArray[np.uint8]
) -> None:
    view, sha256 = data.data, hashlib.sha256
    joined = b"".join(
        [sha256(view[start:stop]).digest() for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
    )
    digests[:] = np.frombuffer(joined, np.uint8).reshape(digests.shape)
