"""Progress: lines in a log, a bar on a terminal, nothing when asked for quiet; never a word on stdout."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import progress
from pipeline.progress import make_progress

ROOT = Path(__file__).parents[2]
NOTHING = lambda: (0, 0)  # noqa: E731


def lines(captured: str) -> list[str]:
    """What was said, without the time of day."""
    found = [re.fullmatch(r"\d\d:\d\d:\d\d (.*)", line) for line in captured.splitlines()]
    assert all(found), captured
    return [match[1] for match in found if match]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> progress.Progress:
    """Progress in a log, which pytest's captured stderr is, that does not keep tests waiting."""
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.02)
    return make_progress()


def test_a_log_has_a_line_now_and_then_and_one_at_the_end(
    log: progress.Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    with log.stage("index", 4_000_000, lambda: (1234, 1_000_000)):
        time.sleep(0.2)
    captured = capsys.readouterr()
    *during, last = lines(captured.err)
    assert captured.out == ""
    assert len(during) >= 2
    for line in during:
        assert re.fullmatch(r"index: 25 %, 1,234 documents, 1\.0 MB, [\d.]+ MB/s, about \d+ s left", line)
    assert re.fullmatch(r"index: done, 1,234 documents, 1\.0 MB in 0\.\d s", last)


@pytest.mark.parametrize(
    ("counted", "total", "expected"),
    [
        ((0, 0), 1000, "mix: 10 s so far"),
        ((0, 0), 0, "mix: 10 s so far"),
        ((5, 0), 1000, "mix: 5 documents, 0.0 MB"),
        ((5, 2_000_000), 0, "mix: 5 documents, 2.0 MB, 0.2 MB/s"),
        ((5, 2_000_000), 1_000_000, "mix: 100 %, 5 documents, 2.0 MB, 0.2 MB/s"),
        ((5, 2_000_000), 8_000_000, "mix: 25 %, 5 documents, 2.0 MB, 0.2 MB/s, about 30 s left"),
    ],
)
def test_a_line_says_what_is_known(counted: tuple[int, int], total: int, expected: str) -> None:
    assert progress._line("mix", total, *counted, 10.0) == expected


def test_where_nothing_could_be_counted_no_zero_is_claimed(
    log: progress.Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    with log.stage("plan", 1000, NOTHING):
        pass
    assert re.fullmatch(r"plan: done in 0\.\d s", lines(capsys.readouterr().err)[-1])


def test_a_stage_that_fails_is_not_done_and_its_thread_ends(
    log: progress.Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError), log.stage("mix", 1000, NOTHING):
        raise RuntimeError
    assert threading.active_count() == before
    assert "done" not in capsys.readouterr().err


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silent = make_progress(quiet=True)
    with silent.stage("index", 10, NOTHING):
        silent.say("a line")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def on_a_terminal(code: str) -> tuple[str, str, int]:
    """stdout, what a terminal on stderr showed, and the exit code of a program."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody holds the other end any more
            while part := os.read(ours, 65536):
                shown += part
        stdout = process.stdout.read() if process.stdout else ""
    os.close(ours)
    return stdout, shown.decode(), process.returncode


def test_a_terminal_shows_a_bar_that_stays_when_it_is_full() -> None:
    stdout, shown, code = on_a_terminal(
        "import time\n"
        "from pipeline.progress import make_progress\n"
        "done = [0]\n"
        "with make_progress().stage('index', 3_000_000, lambda: (done[0] * 100, done[0] * 1_000_000)):\n"
        "    for done[0] in (1, 2, 3):\n"
        "        time.sleep(0.3)\n"
    )
    assert code == 0
    assert stdout == ""
    frames = re.split(r"\r|\x1b\[\d*[A-Z]", shown)
    assert any("1.0/3.0 MB" in frame for frame in frames), frames
    last = next(frame for frame in reversed(frames) if "documents" in frame)
    assert "index" in last
    assert "300 documents" in last
    assert "3.0/3.0 MB" in last


def test_a_failure_leaves_the_terminal_usable() -> None:
    _, shown, code = on_a_terminal(
        "from pipeline.progress import make_progress\n"
        "with make_progress().stage('index', 10, lambda: (0, 0)):\n"
        "    raise SystemExit(3)\n"
    )
    assert code == 3
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l"), "the cursor is shown again"
