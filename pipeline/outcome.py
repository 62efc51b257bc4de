"""What a command that ended well hands back to the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outcome:
    """What a command has to say: lines for people, numbers for programs."""

    text: str = ""
    status: str = "ok"
    exit: int = 0
    output: str | None = None
    totals: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
