"""A lease on a place in an object store: one run at a time, and none for ever.

The lease is an object that names its holder. It is created only where there is none, and rewritten every so often, each
time on the condition that it is still the version written last: that is the heartbeat. Whoever finds a lease whose
heart has not beaten for ten minutes replaces that very version, so of two that find it only one gets it. Ages are
differences of two times of the store's own clock; no two machines need to agree on the time. A holder that could not
beat for so long that another may have taken over stops before it writes anything more that counts.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from pipeline.environment import whole_number
from pipeline.errors import AnchormixError
from transforms import stores
from transforms.stores import StoreError

LEASE_SECONDS = 600
"""After so long without a heartbeat a lease may be taken over; ANCHORMIX_LEASE_SECONDS says otherwise, for tests."""

_BEATS = 10  # in the time that a lease lasts
_TRUST = 0.8  # of that time, counted from the last beat: longer ago, another run may have taken over


class Refused(Exception):
    """Another run holds the lease."""

    def __init__(self, holder: str, age: float, seconds: int) -> None:
        super().__init__(holder, age, seconds)
        self.holder = holder
        self.age = age
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"{self.holder}, which last gave a sign of life {self.age:.0f} seconds ago; what is silent for "
            f"{self.seconds:,} seconds may be taken over"
        )


class Lease:
    """One run's claim on a path; `taken_over` says whether another run died holding it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.taken_over = False
        self._run = uuid.uuid4().hex
        self._seconds = whole_number("ANCHORMIX_LEASE_SECONDS", LEASE_SECONDS, "seconds", 1)
        self._tag = ""
        self._beats = 0
        self._last = 0.0
        self._lost = False
        self._left = False
        self._stop = threading.Event()

    @contextlib.contextmanager
    def held(self) -> Iterator[Lease]:
        """Take the lease or raise `Refused`; keep it alive until the end, then give it back."""
        self._acquire()
        heart = threading.Thread(target=self._beat, name="anchormix-lease", daemon=True)
        heart.start()
        try:
            yield self
        finally:
            self._stop.set()
            heart.join(2 * stores.patience())
            if not self._left:
                self._release()

    def check(self) -> None:
        """Raise unless this run is certain to hold the lease: called before whatever counts is written."""
        if self._lost or time.monotonic() - self._last > _TRUST * self._seconds:
            raise AnchormixError(
                "lease_lost",
                f"{self.path}: this run could not renew its lease in time, so another one may work there now. Nothing "
                "more was written; run the same command again.",
                path=self.path,
            )

    def abandon(self) -> None:
        """Leave the lease standing at the end, for the next run to find: what it guards is in disorder."""
        self._left = True

    def _acquire(self) -> None:
        if self._write("*"):
            return
        found = stores.read(self.path)
        age = stores.age(self.path)
        if found is None or age is None:  # given back this very moment
            if self._write("*"):
                return
            raise Refused("another run", 0, self._seconds)
        content, tag = found
        holder = _parse(content)
        if (age > self._seconds or _died_here(holder)) and self._write(tag):
            self.taken_over = True
            return
        raise Refused(str(holder.get("holder", "another run")), age, self._seconds)

    def _write(self, condition: str) -> bool:
        """Write the next beat under a condition; False where another run was first."""
        beaten = time.monotonic()
        content = {"run": self._run, "beat": self._beats, "holder": _holder(), "process": _process()}
        try:
            self._tag = stores.write(self.path, io.BytesIO(json.dumps(content, sort_keys=True).encode()), condition)
        except StoreError as error:
            if error.kind not in (stores.TAKEN, stores.MISSING):
                raise
            # A request whose answer was lost is sent again, and meets what it wrote the first time.
            standing = stores.read(self.path)
            if standing is None or _parse(standing[0]) != content:
                return False
            self._tag = standing[1]
        self._beats += 1
        self._last = beaten
        return True

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds / _BEATS):
            try:
                if not self._write(self._tag):
                    self._lost = True
                    return
            except StoreError:
                continue  # it may answer next time; `check` knows how long ago the last beat was

    def _release(self) -> None:
        with contextlib.suppress(StoreError):
            standing = stores.read(self.path)
            if standing is not None and _parse(standing[0]).get("run") == self._run:
                stores.delete([self.path])


def _parse(content: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict):
            return found
    return {}


_SINCE = time.strftime("%Y-%m-%d %H:%M:%S")


def _holder() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {_SINCE}"


def _process() -> list[Any] | None:
    """What tells this process from every other one that ever was; None where the system does not say."""
    return _identity(os.getpid())


def _identity(pid: int) -> list[Any] | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
            boot = source.read().strip()
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as source:
            fields = source.read().rpartition(")")[2].split()  # behind the name, which may hold anything
        # Z: it has ended, and its parent has not asked how.
        return None if fields[0] == "Z" else [boot, os.readlink("/proc/self/ns/pid"), pid, fields[19]]
    except (OSError, IndexError):
        return None


def _died_here(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine, and is one no more: then nobody needs to wait."""
    process, mine = holder.get("process"), _process()
    if not isinstance(process, list) or len(process) != 4 or mine is None or process[:2] != mine[:2]:
        return False
    return isinstance(process[2], int) and _identity(process[2]) != process
