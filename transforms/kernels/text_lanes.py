"""Text eight bytes at a time: loads at any place of a buffer, and the hash of a word.

A word is hashed as the UTF-8 bytes of its normal form, eight at a time, so it has one hash however it was spelled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from transforms.kernels.hashing import mix64

__all__ = [
    "WORD_SEED",
    "OpenWord",
    "absorb",
    "absorb_character",
    "eight_bytes",
    "load_eight",
    "lowest_bit",
    "word_hash",
]

WORD_SEED = np.uint64(0x2545F4914F6CDD1D)

OpenWord = tuple[np.uint64, np.uint64, int]
"""Its hash so far, its last lane, and how many bits of that are in use."""

_HALF = np.uint64(32)
_LANE_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)


@intrinsic
def load_eight(typing_context: Any, data: Any, position: Any) -> Any:
    """data[position : position + 8] as one little-endian number, at any alignment, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        wide = context.get_value_type(types.uint64)
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), wide.as_pointer())
        return builder.load(address, align=1)

    return types.uint64(data, types.int64), generate


@intrinsic
def lowest_bit(typing_context: Any, bits: Any) -> Any:
    """The place of the lowest set bit of a uint64; 64 if there is none."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, False))

    return types.int64(types.uint64), generate


@njit(inline="always")
def eight_bytes(data: NDArray[np.uint8], position: int) -> np.uint64:
    """The eight bytes from `position`, zeros behind the end of the buffer. From the end on they mean nothing.

    Near the end an earlier load is shifted: a branch here would cost a tenth of the speed.
    """
    loadable = min(position, data.size - 8)
    return load_eight(data, loadable) >> np.uint64(8 * (position - loadable) & 63)


@njit(inline="always")
def absorb(state: np.uint64, lane: np.uint64) -> np.uint64:
    state = (state ^ lane) * _LANE_MULTIPLY
    return state ^ (state >> _HALF)


@njit(inline="always")
def absorb_character(word: OpenWord, spelled: np.uint64, length: int) -> OpenWord:
    """Adds the UTF-8 bytes of a character to a word."""
    state, lane, filled = word
    bits = 8 * length
    lane |= spelled << np.uint64(filled)
    filled += bits
    if filled >= 64:
        state = absorb(state, lane)
        filled -= 64
        lane = spelled >> np.uint64(bits - filled)
    return state, lane, filled


@njit(inline="always")
def word_hash(word: OpenWord) -> np.uint64:
    """Closes a word that characters were added to."""
    state, lane, filled = word
    if filled > 0:
        state = absorb(state, lane)
    return mix64(state)
