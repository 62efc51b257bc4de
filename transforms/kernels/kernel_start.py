"""A kernel that is cached is linked without the compiler.

To compile, numba loads two hundred modules, SciPy's linear algebra among them, and registers what they can do. It does
so as well before it takes a compiled kernel from its cache, which needs none of it but the C runtime: a sixth of a
second at the start of every process. Where something is compiled after all, numba loads the rest by itself first.
"""

from __future__ import annotations

from typing import Any

import numba
from numba.core.caching import Cache
from numba.core.runtime import rtsys

_KNOWN = ((0, 61), (0, 68))
"""Versions of numba, the first and the last, whose cache is known to need no more; others start as they always did."""


def link_without_compiler() -> None:
    """Have kernels of these versions loaded from the cache alone; harmless to call twice."""
    first, last = _KNOWN
    if first <= numba.version_info.short <= last and hasattr(Cache, "_load_overload"):
        Cache.load_overload = _load


_load_with_compiler = Cache.load_overload


def _load(cache: Any, signature: Any, target: Any) -> Any:
    if not cache._py_func.__module__.startswith("transforms."):  # somebody else's, of which nothing is known
        return _load_with_compiler(cache, signature, target)
    rtsys.initialize(target)
    with cache._guard_against_spurious_io_errors():
        return cache._load_overload(signature, target)
