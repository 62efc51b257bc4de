"""Rows and bytes done, for the progress bar of a local run and for the engine's own metrics."""

from __future__ import annotations

import threading
from collections import defaultdict

from apache_beam.metrics import Metrics

_lock = threading.Lock()
_done: dict[str, list[int]] = defaultdict(lambda: [0, 0])


def advance(stage: str, documents: int, size: int) -> None:
    """Count work done. Repeated attempts count twice: this feeds progress, never a claim."""
    Metrics.counter("anchormix", f"{stage}-documents").inc(documents)
    Metrics.counter("anchormix", f"{stage}-bytes").inc(size)
    with _lock:
        _done[stage][0] += documents
        _done[stage][1] += size


def done(stage: str) -> tuple[int, int]:
    """Documents and bytes that this process has counted for a stage."""
    with _lock:
        documents, size = _done[stage]
        return documents, size


def reset(stage: str) -> None:
    with _lock:
        _done.pop(stage, None)
