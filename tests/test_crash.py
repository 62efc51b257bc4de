"""Killed at any moment, a run leaves no half mix, and the next run publishes the bytes of an undisturbed one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import corpus
import pytest

from pipeline import driver, publish
from pipeline.config import load_config
from pipeline.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
THREADS = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
PROCESSES = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")


@dataclass
class Project:
    config: Path
    expected: dict[str, bytes]  # of an undisturbed run
    seconds: float  # that it takes in a process of its own

    @property
    def output(self) -> Path:
        return self.config.parent / "out" / "mix"

    @property
    def index(self) -> Path:
        return self.config.parent / "out" / "index"

    def start(self, beam: tuple[str, ...] = THREADS) -> subprocess.Popen[str]:
        """`anchormix run` as the leader of a process group of its own."""
        call = [sys.executable, "-m", "pipeline", "run", str(self.config), "--quiet", "--json", "--", *beam]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            call,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def reset(self) -> None:
        for folder in (self.output, self.index):
            shutil.rmtree(folder, ignore_errors=True)

    def assert_whole_or_absent(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            names = {path.name for path in self.output.iterdir()}
            assert "_SUCCESS" in names
            assert contents(self.output) == self.expected

    def assert_next_run_ends_well(self, orphans: bool = False) -> None:
        driver.run(load_config(self.config), ("--direct_num_workers=1",), True, [])
        assert contents(self.output) == self.expected
        assert orphans or left_over(self.output.parent) == []


def contents(mix: Path) -> dict[str, bytes]:
    files = [mix / "manifest.json", mix / "inputs.parquet", mix / "diversity.parquet", *(mix / "data").iterdir()]
    return {path.name: path.read_bytes() for path in files}


def left_over(folder: Path) -> list[str]:
    """Whatever an attempt that died leaves in the output's folder or in the index."""
    staged = [str(path) for path in folder.glob(".*")]
    return staged + [str(path) for path in folder.rglob("*.tmp")] + [str(p) for p in folder.glob("index/scratch/*")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("killed")
    corpus.write_corpus(folder, verified=60, unknown=60, near=12)
    made = Project(corpus.minimal_config(folder), {}, 0.0)
    started = time.monotonic()
    with made.start() as process:
        told = json.loads(process.stdout.read()) if process.stdout else {}
    made.seconds = time.monotonic() - started
    assert told["status"] == "ok", told
    made.expected = contents(made.output)
    return made


@contextlib.contextmanager
def killed_after(
    project: Project, process: subprocess.Popen[str], ready: Callable[[], Any], group: bool = False
) -> Iterator[None]:
    """Watches the output until `ready`, kills the driver alone or its whole group, and at last what it left running."""
    try:
        while process.poll() is None and not ready():
            project.assert_whole_or_absent()
            time.sleep(0.01)
        if group:
            with contextlib.suppress(ProcessLookupError):  # a random moment may come after the end
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        project.assert_whole_or_absent()
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def appears(project: Project, pattern: str) -> Callable[[], bool]:
    return lambda: any(project.output.parent.glob(pattern))


def passed(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


MOMENTS = {
    "facts are being written": "index/facts/*/*.parquet",
    "edges are being written": "index/edges/*/*.parquet",
    "shards are staged": ".mix.staging-*/data/*",
    "the manifest is staged": ".mix.staging-*/manifest.json",
}


@pytest.mark.slow
def test_killed_at_every_stage_in_turn(project: Project) -> None:
    """One index, one stage further each time: the work of all the dead runs is taken up by the last one."""
    project.reset()
    for moment, pattern in MOMENTS.items():
        with killed_after(project, project.start(), appears(project, pattern)):
            assert not project.output.exists(), f"killed too late: {moment}"
    assert left_over(project.output.parent), "the last kill was to leave a staging folder behind"
    project.assert_next_run_ends_well()


@pytest.mark.slow
def test_killed_at_random_moments(project: Project) -> None:
    rng = random.Random()
    for group in (False, True):
        project.reset()
        delay = rng.uniform(0.3, 1) * project.seconds
        with killed_after(project, project.start(), passed(delay), group):
            project.assert_next_run_ends_well()


@pytest.mark.slow
def test_workers_that_outlive_their_driver_do_no_harm(project: Project) -> None:
    project.reset()
    process = project.start(PROCESSES)
    with killed_after(project, process, appears(project, "index/facts/*/*.parquet")):
        # No waiting for the orphans: whatever they still write is written while the next run works.
        project.assert_next_run_ends_well(orphans=True)


@pytest.mark.slow
def test_two_runs_do_not_share_an_index_and_the_lock_dies_with_its_process(project: Project) -> None:
    project.reset()
    first = project.start()
    while not (project.index / "lease").exists() or not (project.index / "lease").read_text():
        assert first.poll() is None
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)  # it holds the lock for as long as the second one needs to be refused
    with project.start() as second:
        told = json.loads(second.stdout.read()) if second.stdout else {}
    assert second.returncode == told["exit"] == 2
    assert told["error"]["code"] == "index_locked"
    assert f"process {first.pid} " in told["error"]["message"]
    first.kill()
    first.communicate()
    project.assert_next_run_ends_well()


@pytest.mark.slow
def test_interrupted_by_its_user(project: Project) -> None:
    """Ctrl-C: one line, exit 1, nothing left but what the next run takes up."""
    project.reset()
    process = project.start()
    while not any(project.index.glob("facts/*/*.parquet")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    told = json.loads(stdout)
    assert (process.returncode, told["exit"], told["error"]["code"]) == (1, 1, "interrupted")
    assert not project.output.exists()
    assert all(name.endswith(".tmp") for name in left_over(project.output.parent))
    project.assert_next_run_ends_well()


# Runs that live: two indexes, one output.


def test_staging_sweeps_what_died_and_leaves_alone_what_lives(tmp_path: Path) -> None:
    output = tmp_path / "mix [v*]"
    dead = tmp_path / f".{output.name}.staging-dead"
    neighbour = tmp_path / ".mix v.staging-dead"  # matches where the output's name is read as a pattern
    for folder in (dead, neighbour):
        (folder / "data").mkdir(parents=True)
    with publish.staging(str(output), "first") as first:
        assert not dead.exists()
        assert neighbour.exists()
        with publish.staging(str(output), "second") as second:
            assert (first / "data").is_dir()
            assert (second / "data").is_dir()
    assert not first.exists()
    assert not second.exists()


def test_the_second_of_two_runs_that_publish_is_told(tmp_path: Path) -> None:
    output = tmp_path / "mix"
    with publish.staging(str(output), "first") as first, publish.staging(str(output), "second") as second:
        for folder, content in ((first, "one"), (second, "two")):
            (folder / "manifest.json").write_text(content)
        publish.publish(first, str(output))
        with pytest.raises(UsageError, match="came into being") as caught:
            publish.publish(second, str(output))
    assert caught.value.code == "output_exists"
    assert (output / "manifest.json").read_text() == "one"
    assert (output / "_SUCCESS").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["mix"]
