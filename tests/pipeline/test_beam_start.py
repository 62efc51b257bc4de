"""Beam starts without connectors that nothing here uses, and whoever wants them still gets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

STARTS = """
import sys
import pipeline.driver
connectors = ("bson", "pymongo", "apache_beam.io.gcp.bigquery")
assert not [name for name in connectors if name in sys.modules]
import apache_beam.io.gcp.bigquery
import bson
"""


def test_beam_starts_without_them_and_says_nothing_of_it() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", STARTS.partition("import apache_beam")[0]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")


def test_they_can_be_imported_afterwards() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", STARTS], env=environment, check=True, capture_output=True, timeout=120)
