"""What a person sees while a pipeline runs: a live bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO

Poll = Callable[[], tuple[int, int]]
"""Documents and bytes done so far."""

_LOG_SECONDS = 5.0
_BAR_SECONDS = 0.2


class Progress(Protocol):
    def stage(self, name: str, total_bytes: int, poll: Poll) -> contextlib.AbstractContextManager[None]: ...

    def say(self, line: str) -> None: ...


def make_progress(quiet: bool = False) -> Progress:
    if quiet:
        return _Quiet()
    return _Bar() if sys.stderr.isatty() else _Log()


class _Quiet:
    @contextlib.contextmanager
    def stage(self, name: str, total_bytes: int, poll: Poll) -> Iterator[None]:
        yield

    def say(self, line: str) -> None:
        pass


class _Log:
    """One line every few seconds, and one when a stage ends."""

    _stream: TextIO | None = None  # as it was when the stage began: the pipeline puts what Beam prints elsewhere

    @contextlib.contextmanager
    def stage(self, name: str, total_bytes: int, poll: Poll) -> Iterator[None]:
        self._stream = sys.stderr
        started = time.monotonic()
        with _every(_LOG_SECONDS, lambda: self.say(_line(name, total_bytes, *poll(), time.monotonic() - started))):
            yield
        self.say(_line_at_end(name, *poll(), time.monotonic() - started))

    def say(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", file=self._stream or sys.stderr, flush=True)


class _Bar:
    """A bar with documents, bytes, rate and time left; it stays, full, when the stage is done."""

    _stream: TextIO | None = None

    @contextlib.contextmanager
    def stage(self, name: str, total_bytes: int, poll: Poll) -> Iterator[None]:
        self._stream = sys.stderr
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:>7}"),
            BarColumn(),
            TextColumn("{task.fields[documents]:>12,} documents"),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=Console(file=self._stream)) as bars:
            task = bars.add_task(name, total=max(1, total_bytes), documents=0)

            def follow() -> None:
                documents, size = poll()
                bars.update(task, completed=min(size, total_bytes), documents=documents)

            with _every(_BAR_SECONDS, follow):
                yield
            bars.update(task, completed=max(1, total_bytes), documents=poll()[0])

    def say(self, line: str) -> None:
        print(line, file=self._stream or sys.stderr, flush=True)


@contextlib.contextmanager
def _every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Do something again and again, in a thread of its own, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _line(name: str, total: int, documents: int, size: int, seconds: float) -> str:
    if not documents and not size:  # nothing yet, or counted in processes that this one cannot see into
        return f"{name}: {seconds:.0f} s so far"
    share = f"{100 * min(size, total) // total} %, " if total and size else ""
    left = f", about {seconds * (total - size) / size:.0f} s left" if 0 < size < total else ""
    rate = f", {size / seconds / 1e6:.1f} MB/s" if size else ""
    return f"{name}: {share}{_amounts(documents, size)}{rate}{left}"


def _line_at_end(name: str, documents: int, size: int, seconds: float) -> str:
    amounts = f", {_amounts(documents, size)}" if documents or size else ""
    return f"{name}: done{amounts} in {seconds:.1f} s"


def _amounts(documents: int, size: int) -> str:
    return f"{documents:,} documents, {size / 1e6:,.1f} MB"
