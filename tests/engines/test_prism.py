"""Prism, Beam's local engine written in Go, makes the same bytes as the local runner."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from engine_runs import PATIENCE, ROOT, Samples, anchormix

pytestmark = pytest.mark.engine

BINARY = ROOT / "engines" / "prism" / "binary"


@pytest.fixture
def prism(tmp_path: Path) -> Path:
    """The binary under a name that no other run's Prism has."""
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH: Prism is built with Go 1.26 or later")
    built = subprocess.run([BINARY], capture_output=True, text=True, timeout=PATIENCE)
    assert built.returncode == 0, built.stderr
    (tmp_path / "prism").symlink_to(built.stdout.strip())
    return tmp_path / "prism"


@pytest.mark.parametrize("exchange", ["", "shuffle"])
def test_prism_makes_the_same_bytes(samples: Samples, prism: Path, exchange: str) -> None:
    name = f"on-prism-{exchange or 'as-it-comes'}"

    beam = ["--runner=PrismRunner", f"--prism_location={prism}"]
    anchormix("run", samples.fresh(name), beam, ANCHORMIX_EXCHANGE=exchange)

    assert samples.published(name) == samples.expected
    running = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(prism) not in running, "it ends with the command"
