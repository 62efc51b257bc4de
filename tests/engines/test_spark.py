"""A real Spark makes the same bytes as this machine alone: with two workers, and inside Beam's job server."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_runs import PATIENCE, ROOT, Samples, anchormix

pytestmark = pytest.mark.engine

CLUSTER = ROOT / "engines" / "spark" / "cluster"
WORK = ROOT / ".cache" / "spark" / "work"


@pytest.fixture(scope="module", autouse=True)
def jar() -> str:
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH: tests on Spark need Java 17 and Maven 3")
    return ask_cluster("jar")


@pytest.fixture
def endpoint(jar: str) -> Iterator[str]:
    """A cluster of the test's own, unless one already runs: that one is used and left alone."""
    ours = subprocess.run([CLUSTER, "status"], capture_output=True, timeout=PATIENCE).returncode != 0
    yield ask_cluster("start")
    if ours:
        ask_cluster("stop")


def test_a_cluster_of_two_workers_makes_the_same_bytes(samples: Samples, endpoint: str, jar: str) -> None:
    before = executors()
    beam = ["--runner=PortableRunner", f"--job_endpoint={endpoint}", "--environment_type=LOOPBACK"]
    beam.append(f"--files_to_stage={jar}")

    anchormix("run", samples.fresh("on-spark"), beam)

    assert samples.published("on-spark") == samples.expected
    workers = {folder.parent.parent.name for folder in executors() - before}
    assert workers == {"1", "2"}, "both workers had a part in it"


def test_beams_spark_runner_starts_the_jar_and_plans_from_a_local_index(samples: Samples, jar: str) -> None:
    beam = ["--runner=SparkRunner", "--spark_master_url=local[2]", f"--spark_job_server_jar={jar}"]

    on_spark = anchormix("plan", samples.config, [*beam, "--job_server_jvm_property=-Xmx1g"])

    assert on_spark["plan"] == anchormix("plan", samples.config)["plan"]


def executors() -> set[Path]:
    """A folder for every process that a worker of the cluster started for a pipeline: worker / pipeline / number."""
    return set(WORK.glob("*/app-*/*"))


def ask_cluster(command: str) -> str:
    done = subprocess.run([CLUSTER, command], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
