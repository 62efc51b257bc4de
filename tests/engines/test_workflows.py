"""GitHub's workflows are what GitHub would accept, their shell lines included."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"


def test_actionlint_finds_nothing() -> None:
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH: actionlint is built with it")
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    call = ["go", "run", ACTIONLINT, *map(str, ROOT.glob(".github/workflows/*"))]
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
