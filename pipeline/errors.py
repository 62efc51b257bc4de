"""Every way a command can end badly, one class per exit code.

    AnchormixError (1)
    ├── UsageError (2)          the call or the config is wrong
    ├── Infeasible (3)          no mix satisfies the rules
    ├── VerificationFailed (4)  what is on disk does not hold what it claims
    ├── BadInput (5)            input could not be read within the tolerance
    ├── GuardTripped (6)        a guard stopped the run
    └── CustodyFailed (7)       a signature, key, scope or date, or text changed after signing

An error is a diagnosis: the message says what, which value, what would be valid and what to do next; `code` is a
stable word for programs; `details` carries the numbers behind the message, JSON-ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class AnchormixError(Exception):
    """Base of every error that a command reports without a traceback."""

    exit_code: ClassVar[int] = 1
    report: str = ""  # what people are shown on stdout before the message; programs have the details

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details: Mapping[str, Any] = details

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.code, self.message, dict(self.details))


def _rebuild(kind: type[AnchormixError], code: str, message: str, details: dict[str, Any]) -> AnchormixError:
    return kind(code, message, **details)


class UsageError(AnchormixError):
    exit_code = 2


class Infeasible(AnchormixError):
    exit_code = 3


class VerificationFailed(AnchormixError):
    exit_code = 4


class BadInput(AnchormixError):
    exit_code = 5


class GuardTripped(AnchormixError):
    exit_code = 6


class CustodyFailed(AnchormixError):
    exit_code = 7
