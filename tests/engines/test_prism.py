"""Prism, Beam's local engine written in Go, makes the same bytes as the local runner."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from engine_runs import PATIENCE, ROOT, Samples, anchormix

pytestmark = pytest.mark.engine

BINARY = ROOT / "engines" / "prism" / "binary"


@pytest.fixture(scope="module")
def prism() -> list[str]:
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH: Prism is built with Go 1.26 or later")
    built = subprocess.run([BINARY], capture_output=True, text=True, timeout=PATIENCE)
    assert built.returncode == 0, built.stderr
    return ["--runner=PrismRunner", f"--prism_location={built.stdout.strip()}"]


@pytest.mark.parametrize("exchange", ["", "shuffle"])
def test_prism_makes_the_same_bytes(samples: Samples, prism: list[str], exchange: str) -> None:
    name = f"on-prism-{exchange or 'as-it-comes'}"

    anchormix("run", samples.fresh(name), prism, ANCHORMIX_EXCHANGE=exchange)

    assert samples.published(name) == samples.expected
