"""Why a pipeline failed, in one line: what workers, engines and their clients say, without what they wrap it in."""

from __future__ import annotations

import re
from typing import Any

from pipeline import __version__

_MOST = 300
"""Characters of a reason that has no line of its own; the whole of it is in the log."""

_NAMED = re.compile(r"^[\w.$]+(Error|Exception)\b")
_WRAPPED = re.compile(r"^(RuntimeError: )+|^Pipeline \S+ failed in state [A-Z]+: ")

_NO_SLOT = re.compile(r"\b(NoResourceAvailableException|TimeoutException: Timeout has occurred)\b")
"""Of a job that found no slots Flink's client tells the innermost exception alone, and that is a timeout."""

_OTHER_CODE = re.compile(
    r"^(AttributeError: Can't get attribute .* on <module|ModuleNotFoundError: No module named) "
    r"'(pipeline|transforms)\b"
)
"""Classes travel by name, so a worker of another version misses what is new, or has no such module."""


def why_it_failed(error: Exception) -> str:
    """The innermost thing that was said: of a traceback the last exception, of an engine's answer what it names."""
    lost = _lost_server(error)
    if lost is not None:
        return lost
    lines = [_WRAPPED.sub("", line) for line in str(error).strip().splitlines()]
    named = next((line for line in reversed(lines) if _NAMED.match(line)), None)
    said = (named or f"{type(error).__name__}: {' '.join(lines)}"[:_MOST]).rstrip(". ")
    if _NO_SLOT.search(said):
        return f"{said}. On Flink: no free slots in that time. Start task managers, or end what holds their slots"
    if _OTHER_CODE.match(said):
        return (
            f"{said}. The workers have another anchormix than this command, or none: give them {__version__}, built "
            "from the same sources (docs/workers.md)"
        )
    return said


def _lost_server(error: Any) -> str | None:
    """A job server that no longer answers: gRPC tells it in six lines of its own."""
    code = getattr(error, "code", None)
    if not callable(code) or getattr(code(), "name", "") != "UNAVAILABLE":
        return None
    said = " ".join(str(error.details()).split())
    return (
        f"the job server no longer answers ({said}): it was stopped or killed, or the network between failed. Start "
        "it again first, and its engine if that ended too"
    )
