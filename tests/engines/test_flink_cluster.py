"""A Flink session cluster of separate processes makes the same bytes, also when some of them are killed in mid-run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine_runs import PATIENCE, ROOT, Samples, ended_well, start_anchormix

pytestmark = pytest.mark.engine

CLUSTER = ROOT / "engines" / "flink" / "cluster"
WORKER = ROOT / "engines" / "flink" / "worker"
MANY_SPLITS = {"ANCHORMIX_SPLIT_BYTES": "8192", "ANCHORMIX_BATCH_ROWS": "4"}
"""With these the samples are read in 21 splits, so that some are done while others are not."""
SPLITS = 21


@dataclass
class Cluster:
    folder: Path

    def do(self, command: str) -> str:
        call = [sys.executable, CLUSTER, command, f"--folder={self.folder}"]  # workers get the Python that starts it
        done = subprocess.run(call, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    @property
    def beam(self) -> list[str]:
        return self.do("flags").split()

    @property
    def state(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = json.loads((self.folder / "cluster.json").read_text())
        return found

    def process(self, part: str) -> int:
        return self.state["parts"][part]

    def workers(self) -> dict[int, int]:
        """Python workers by process id, and the task managers that they belong to."""
        shown = subprocess.run(["ps", "-ww", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        lines = [line.split(None, 2) for line in shown.stdout.splitlines() if f"{WORKER} --id" in line]
        owned = {int(pid): int(parent) for pid, parent, _ in lines}
        return {pid: parent for pid, parent in owned.items() if parent in self.state["parts"].values()}

    def ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://localhost:{self.state['ports']['rest']}/{path}", timeout=60) as answer:
            return json.load(answer)

    def jobs(self, state: str) -> list[str]:
        return [job["jid"] for job in self.ask("jobs/overview")["jobs"] if job["state"] == state]

    def works(self) -> bool:
        """Whether a job has tasks that are done, the first of a Python worker among them, and others that are not."""
        for job in self.jobs("RUNNING"):
            states = [vertex["status"] for vertex in self.ask(f"jobs/{job}")["vertices"]]
            if states.count("FINISHED") >= 2 and "RUNNING" in states:
                return True
        return False

    def restarts(self) -> int:
        """How often Flink had to start anything anew, in all jobs so far."""
        jobs = [self.ask(f"jobs/{job['jid']}/exceptions") for job in self.ask("jobs/overview")["jobs"]]
        return sum(len(job["exceptionHistory"]["entries"]) for job in jobs)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH: tests on Flink need Java 11 or later and Maven 3")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.do("start")
        yield cluster
    finally:
        cluster.do("stop")


@contextlib.contextmanager
def held(cluster: Cluster, run: subprocess.Popen[str], under_way: Callable[[], bool]) -> Iterator[list[int]]:
    """Wait until a run is visibly under way and stop its workers there: nothing may end between a look and a blow."""
    deadline = time.monotonic() + PATIENCE
    workers: list[int] = []
    try:
        while not (workers and under_way()):
            signal_all(workers, signal.SIGCONT)
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
            workers = list(cluster.workers()) if under_way() else []
            signal_all(workers, signal.SIGSTOP)
        yield workers
    finally:
        signal_all(workers, signal.SIGCONT)


def signal_all(processes: list[int], kind: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, kind)


def test_a_session_cluster_makes_the_same_bytes(cluster: Cluster, samples: Samples) -> None:
    run = start_anchormix("run", samples.fresh("session"), cluster.beam)
    owners: set[int] = set()
    while run.poll() is None:
        owners.update(cluster.workers().values())
        time.sleep(0.5)
    ended_well(run)

    assert samples.published("session") == samples.expected
    assert owners == {cluster.process("task manager 1"), cluster.process("task manager 2")}


def test_a_killed_task_manager_does_not_stop_a_run(cluster: Cluster, samples: Samples) -> None:
    run = start_anchormix("run", samples.fresh("orphaned"), cluster.beam, **MANY_SPLITS)
    index = samples.folder / "out" / "orphaned.index"

    with held(cluster, run, lambda: 3 <= read(index) < SPLITS and cluster.works()):
        os.kill(cluster.process("task manager 1"), signal.SIGKILL)

    ended_well(run)
    assert samples.published("orphaned") == samples.expected
    assert cluster.restarts()
    cluster.do("start")
    cluster.do("status")


def read(index: Path) -> int:
    return len(list(index.glob("facts/*/*.parquet")))


def test_a_killed_worker_does_not_stop_a_run(cluster: Cluster, samples: Samples) -> None:
    before = cluster.restarts()
    run = start_anchormix("mix", samples.fresh("bereft", own_index=False), cluster.beam)

    with held(cluster, run, lambda: staged(samples, "bereft") and cluster.works()) as workers:
        os.kill(workers[0], signal.SIGKILL)

    ended_well(run)
    assert samples.published("bereft") == samples.expected
    assert cluster.restarts() > before


def staged(samples: Samples, name: str) -> bool:
    """Whether the mix has a folder that it is written into."""
    return any((samples.folder / "out").glob(f".{name}.staging-*"))


def test_a_run_that_lost_the_job_server_says_so_and_the_next_one_makes_the_same_bytes(
    cluster: Cluster, samples: Samples
) -> None:
    config = samples.fresh("unheard", own_index=False)
    run = start_anchormix("mix", config, cluster.beam)
    output = samples.folder / "out" / "unheard"

    with held(cluster, run, lambda: staged(samples, "unheard") and cluster.works()):
        os.kill(cluster.process("job server"), signal.SIGKILL)
        told, stderr = run.communicate(timeout=PATIENCE)
    # its job goes on without it, and beside the next one

    assert run.returncode == 1, told + stderr
    error = json.loads(told)["error"]
    assert error["code"] == "pipeline_failed"
    assert "the job server no longer answers" in error["message"]
    assert "Traceback" not in stderr
    assert not output.exists()

    cluster.do("start")
    ended_well(start_anchormix("mix", config, cluster.beam))
    assert samples.published("unheard") == samples.expected
