"""What reaches workers: an sdist that installs where nothing else of the project is, and runs where none may write."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine_runs import PATIENCE, ROOT, Samples, anchormix, data_of
from workers import bare, job_service, ran, read_only, without_privileges, worker_pool

pytestmark = pytest.mark.engine

JOB_SERVER = ROOT / "engines" / "flink" / "job_server"


def test_an_installed_sdist_runs_where_nothing_can_be_written(
    empty_python: Path, sdist: Path, samples: Samples, kernels: Path, tmp_path: Path
) -> None:
    """Its kernels are compiled once, into a folder of the user's own, and read by the next process."""
    pip = [empty_python, "-m", "pip", "install", "--no-index", "--no-build-isolation", "--no-cache-dir"]
    ran([*pip, sdist], bare(tmp_path))
    place = empty_python.parents[1]
    with read_only(place):
        run = [
            *without_privileges(),
            str(empty_python),
            "-m",
            "pipeline",
            "run",
            str(samples.config),
        ]
        compiled = []
        for name in ("first", "second"):
            places = ["--set", f"output={tmp_path / name}", "--set", f"index={tmp_path / name}.index"]
            assert json.loads(ran([*run, *places, "--json", "--quiet"], bare(tmp_path)))["exit"] == 0
            assert data_of(tmp_path / name) == samples.expected
            (own,) = tmp_path.glob("anchormix-*/kernels-*")
            compiled.append({path.name: path.stat().st_mtime_ns for path in own.rglob("*") if path.is_file()})
        assert compiled[0]
        assert compiled[0] == compiled[1], "the second process found every kernel compiled"
        assert own.stat().st_mode & 0o777 == 0o700
        assert [path for path in place.rglob("*") if path.suffix in (".nbi", ".nbc")] == []
    shutil.copytree(own, kernels, dirs_exist_ok=True)


def test_workers_that_have_nothing_but_the_staged_sdist_make_the_same_bytes(
    samples: Samples, sdist: Path, worker: Path, kernels: Path, tmp_path: Path
) -> None:
    """Through a job server of Beam's own, which stages for a pool whose workers are started by Beam's own program."""
    with job_service(tmp_path) as endpoint, worker_pool(worker, tmp_path, kernels) as pool:
        beam = ["--runner=PortableRunner", f"--job_endpoint={endpoint}", f"--extra_package={sdist}"]
        beam += ["--environment_type=EXTERNAL", f"--environment_config={pool}"]
        anchormix("run", samples.fresh("staged"), beam)
    assert samples.published("staged") == samples.expected
    assert len(installed_beside(worker)) == 1


def test_flink_starts_workers_that_have_nothing_but_what_setup_py_stages(samples: Samples, worker: Path) -> None:
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on PATH: tests on Flink need Java 11 or later and Maven 3")
    expected = plan(samples)
    ours = subprocess.run([JOB_SERVER, "status"], capture_output=True, timeout=PATIENCE).returncode != 0
    endpoint = ran([JOB_SERVER, "start"]).strip()
    try:
        beam = ["--runner=PortableRunner", f"--job_endpoint={endpoint}", f"--setup_file={ROOT / 'setup.py'}"]
        beam += ["--environment_type=PROCESS", f"--environment_config={json.dumps({'command': str(worker)})}"]
        assert plan(samples, *beam) == expected
    finally:
        if ours:
            ran([JOB_SERVER, "stop"])
    assert len(installed_beside(worker)) == 1


def plan(samples: Samples, *beam: str) -> dict[str, Any]:
    """All that `plan` tells but how long it took."""
    line = anchormix("plan", samples.config, beam)
    return {key: told for key, told in line.items() if key != "stages"}


def installed_beside(worker: Path) -> list[Path]:
    return list((worker.parent / "lib").glob("python*/site-packages/anchormix-*.dist-info"))
