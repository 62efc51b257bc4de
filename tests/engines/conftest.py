"""What tests of several engines share: the samples' mix, the sdist, and a place where environments of workers stand."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_runs import ROOT, Samples, make_samples
from workers import bare, ran

ENVIRONMENT = ROOT / "engines" / "worker" / "environment"


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("samples") / "demo")


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    ran([sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", out, ROOT])
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="session")
def staging_folder() -> Iterator[Path]:
    """Outside of the project: a worker there finds nothing of it by accident."""
    with tempfile.TemporaryDirectory(prefix="anchormix-workers-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def kernels(staging_folder: Path) -> Path:
    """Compiled kernels for environments in this place: compiling them takes longer than all else."""
    folder = staging_folder / "kernels"
    folder.mkdir()
    return folder


@pytest.fixture
def empty_python(staging_folder: Path) -> Iterator[Path]:
    """A Python that has what anchormix needs, and nothing of anchormix."""
    place = staging_folder / "worker"
    yield Path(ran([sys.executable, ENVIRONMENT, "--no-boot", place]).strip())
    shutil.rmtree(place)


@pytest.fixture
def worker(staging_folder: Path) -> Iterator[Path]:
    """The program that starts a worker in such an environment, after it has installed what was staged."""
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH: the program that starts Beam's workers is built with Go 1.25 or later")
    place = staging_folder / "worker"
    boot = Path(ran([sys.executable, ENVIRONMENT, place]).strip())
    looking = [place / "bin" / "python", "-c", "import transforms"]
    assert b"No module named 'transforms'" in subprocess.run(looking, env=bare(place), cwd="/", stderr=-1).stderr
    yield boot
    shutil.rmtree(place)
