"""A real Flink, embedded through Beam's job server, makes the same bytes as this machine alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.samples import init

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]
JOB_SERVER = ROOT / "engines" / "flink" / "job_server"
PATIENCE = 900
"""Seconds for one command: the first preparation downloads 150 MB, and CI machines are slow."""


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


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's samples, with the mix that the local runner makes of them."""
    folder = tmp_path_factory.mktemp("samples") / "demo"
    init(folder)
    anchormix("run", folder / "quickstart.yaml")
    assert len(data_of(folder / "out" / "mix")) >= 2
    return folder


def test_shuffling_through_flink_makes_the_same_bytes(samples: Path, endpoint: str) -> None:
    config = fresh_config(samples, "shuffled")

    anchormix("run", config, beam=[*portable(endpoint), "--environment_type=LOOPBACK"])

    assert data_of(samples / "out" / "shuffled") == data_of(samples / "out" / "mix")


def test_worker_processes_that_share_a_folder_make_the_same_bytes(
    samples: Path, endpoint: str, worker_pool: str
) -> None:
    config = fresh_config(samples, "shared")
    beam = [*portable(endpoint), "--environment_type=EXTERNAL", f"--environment_config={worker_pool}"]

    anchormix("run", config, beam=beam, exchange="files")

    assert data_of(samples / "out" / "shared") == data_of(samples / "out" / "mix")


def test_beams_flink_runner_starts_the_jar_and_plans_from_a_local_index(samples: Path, jar: Path) -> None:
    beam = ["--runner=FlinkRunner", "--flink_master=[local]", f"--flink_job_server_jar={jar}", "--parallelism=2"]

    on_flink = anchormix("plan", samples / "quickstart.yaml", beam=beam, flink_conf=jar.parent)

    assert on_flink == anchormix("plan", samples / "quickstart.yaml")


def portable(endpoint: str) -> list[str]:
    return ["--runner=PortableRunner", f"--job_endpoint={endpoint}", "--parallelism=2"]


def fresh_config(samples: Path, name: str) -> Path:
    """The quickstart with an output and an index of its own, so that every stage runs again."""
    text = (samples / "quickstart.yaml").read_text()
    changed = text.replace("out/mix", f"out/{name}").replace("out/index", f"out/{name}.index")
    config = samples / f"{name}.yaml"
    config.write_text(changed)
    return config


def anchormix(
    command: str, config: Path, beam: list[str] | None = None, exchange: str = "", flink_conf: Path | None = None
) -> dict[str, Any]:
    """Run a command in a process of its own; the line of JSON it prints."""
    environment = project_environment() | {"ANCHORMIX_EXCHANGE": exchange}
    if flink_conf is not None:
        environment["FLINK_CONF_DIR"] = str(flink_conf)
    call = [sys.executable, "-m", "pipeline", command, str(config), "--json", "--quiet", "--", *(beam or [])]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    line: dict[str, Any] = json.loads(done.stdout)
    return line


def project_environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


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


def data_of(mix: Path) -> dict[str, bytes]:
    assert (mix / "_SUCCESS").exists(), f"{mix} is not published"
    return {path.name: path.read_bytes() for path in sorted((mix / "data").iterdir())}
