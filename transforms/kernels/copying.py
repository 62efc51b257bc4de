"""Copying inside kernels: one `memcpy`, which a loop over items is not made into, and takes a ninth of its time."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["copy_items"]


@intrinsic
def copy_items(  # type: ignore[no-untyped-def]
    typing: Any, target: Any, place: Any, source: Any, first: Any, count: Any
):
    """Copies `count` items from source[first] on to target[place] on: contiguous arrays of one type, not the same.

    Nothing is checked.
    """
    if target.dtype != source.dtype or target.layout != "C" or source.layout != "C":
        return None

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        into, at, out_of, start, items = arguments
        kinds = signature.args
        into, out_of = (
            context.make_array(kind)(context, builder, a) for kind, a in ((kinds[0], into), (kinds[2], out_of))
        )
        size = context.get_abi_sizeof(context.get_data_type(target.dtype))
        cgutils.raw_memcpy(builder, builder.gep(into.data, [at]), builder.gep(out_of.data, [start]), items, size)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), generate
