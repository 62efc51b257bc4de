"""What each stage of a command took and carried: seconds, memory, and the bytes that passed through each exchange."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transforms.exchange import Traffic


@dataclass
class StageEffort:
    """One pipeline, or one step of the driver between them.

    `cpu_seconds` and `peak_bytes` are those of the command's own process: all of the work with the local runner, and
    the driver's part alone with an engine. The peak is that since the command began.
    """

    stage: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    exchanges: list[Traffic] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "peak_bytes": self.peak_bytes,
            "exchanges": [asdict(traffic) for traffic in self.exchanges],
        }


@dataclass
class Effort:
    """All stages of a command, in order."""

    stages: list[StageEffort] = field(default_factory=list)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageEffort]:
        made = StageEffort(name)
        self.stages.append(made)
        started, cpu = time.monotonic(), time.process_time()
        try:
            yield made
        finally:
            made.seconds = time.monotonic() - started
            made.cpu_seconds = time.process_time() - cpu
            made.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux tells kB

    def to_json(self) -> list[dict[str, Any]]:
        return [stage.to_json() for stage in self.stages]
