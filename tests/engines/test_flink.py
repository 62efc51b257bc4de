"""A real Flink, embedded through Beam's job server, makes the same bytes as this machine alone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_runs import PATIENCE, ROOT, Samples, anchormix, project_environment

pytestmark = pytest.mark.engine

JOB_SERVER = ROOT / "engines" / "flink" / "job_server"


@pytest.fixture(scope="module", autouse=True)
def jar() -> Path:
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH: tests on Flink need Java 11 or later and Maven 3")
    return Path(ask_job_server("jar"))


@pytest.fixture(scope="module")
def endpoint(jar: Path) -> Iterator[str]:
    """A server of the tests' own, unless one already runs: that one is used and left alone."""
    ours = subprocess.run([JOB_SERVER, "status"], capture_output=True, timeout=PATIENCE).returncode != 0
    yield ask_job_server("start")
    if ours:
        ask_job_server("stop")


@pytest.fixture(scope="module")
def worker_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a pool that starts one process per Flink task manager, none of them the driver's."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("pool")
    # The pool starts its workers with whatever `python` stands first on PATH.
    environment = project_environment() | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    call = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    with (folder / "log").open("w") as log:
        pool = subprocess.Popen(call, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True)
    wait_for_port(port, pool)
    yield f"localhost:{port}"
    os.killpg(pool.pid, signal.SIGTERM)  # and with it the workers it started
    pool.wait(60)


def test_shuffling_through_flink_makes_the_same_bytes(samples: Samples, endpoint: str) -> None:
    config = samples.fresh("shuffled")

    anchormix("run", config, [*portable(endpoint), "--environment_type=LOOPBACK"])

    assert samples.published("shuffled") == samples.expected


def test_worker_processes_that_share_a_folder_make_the_same_bytes(
    samples: Samples, endpoint: str, worker_pool: str
) -> None:
    config = samples.fresh("shared")
    beam = [*portable(endpoint), "--environment_type=EXTERNAL", f"--environment_config={worker_pool}"]

    anchormix("run", config, beam, ANCHORMIX_EXCHANGE="files")

    assert samples.published("shared") == samples.expected


def test_beams_flink_runner_starts_the_jar_and_plans_from_a_local_index(samples: Samples, jar: Path) -> None:
    beam = ["--runner=FlinkRunner", "--flink_master=[local]", f"--flink_job_server_jar={jar}", "--parallelism=2"]

    on_flink = anchormix("plan", samples.config, beam, FLINK_CONF_DIR=str(jar.parent))

    assert on_flink["plan"] == anchormix("plan", samples.config)["plan"]


def portable(endpoint: str) -> list[str]:
    return ["--runner=PortableRunner", f"--job_endpoint={endpoint}", "--parallelism=2"]


def ask_job_server(command: str) -> str:
    done = subprocess.run([JOB_SERVER, command], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"no worker pool listens on port {port}; exit code {server.poll()}")
