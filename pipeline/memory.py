"""How this process and its workers take memory from the system.

Stages allocate and free arrays of megabytes from several threads. By default every thread gets a heap of its own and
gives large blocks back at once, so the same pages are faulted in again and again: on a machine where faults are dear
that made most of a stage's system time at 0.2 GB of text, where peak memory fell from 1.2 to 0.9 GB as well. One heap
that keeps what it has avoids both. Arrow is told the same through environment variables, which must be set before it
loads: of its allocators, jemalloc can be held to one arena for blocks of any size. With its default, zeroing fresh
pages took a sixth of the time of MIX. The thread that would give its pages back in the background has nothing to do
then, but would be woken tens of thousands of times; and huge pages are a fifth of the faults.

Python looks for cyclic garbage each time a few hundred objects more are alive than before. Imports only add objects,
and batches are freed by their reference counts, so it is told to look seldom.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names of glibc's mallopt
_KEEP = 2**31 - 1
_LARGEST_FROM_HEAP = 1 << 30
_ONE_ARENA = "narenas:1,oversize_threshold:0"
_KEPT_FOR_EVER = "dirty_decay_ms:-1,muzzy_decay_ms:-1,background_thread:false"
_HUGE_PAGES = "thp:always"
_OBJECTS_BETWEEN_COLLECTIONS = 500_000  # more than imports leave


def keep_memory() -> None:
    """Call before pyarrow and numpy are imported; does nothing where the C library is not glibc."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    if sys.platform == "linux":  # elsewhere Arrow may come without it
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
        os.environ.setdefault("JE_ARROW_MALLOC_CONF", ",".join((_ONE_ARENA, _KEPT_FOR_EVER, _HUGE_PAGES)))
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # stages have threads enough; BLAS's wait by spinning
    for name, value in (
        ("MALLOC_ARENA_MAX", 1),
        ("MALLOC_TRIM_THRESHOLD_", _KEEP),
        ("MALLOC_MMAP_THRESHOLD_", _LARGEST_FROM_HEAP),
    ):
        os.environ.setdefault(name, str(value))  # for worker processes; this one has read its environment already
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, 1)
        mallopt(_TRIM_THRESHOLD, _KEEP)
        mallopt(_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)
