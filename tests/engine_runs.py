"""Commands in processes of their own, as tests of engines run them, and the samples with the mix that is expected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.samples import init

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 900
"""Seconds for one command: the first preparation of an engine downloads 150 MB, and CI machines are slow."""


@dataclass(frozen=True)
class Samples:
    """The quickstart's samples, and what the local runner publishes of them."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "quickstart.yaml"

    @property
    def expected(self) -> dict[str, bytes]:
        return data_of(self.folder / "out" / "mix")

    def fresh(self, name: str, own_index: bool = True) -> Path:
        """The quickstart with an output of its own, and an index too unless the local runner's will do."""
        text = self.config.read_text().replace("out/mix", f"out/{name}")
        config = self.folder / f"{name}.yaml"
        config.write_text(text.replace("out/index", f"out/{name}.index") if own_index else text)
        return config

    def published(self, name: str) -> dict[str, bytes]:
        return data_of(self.folder / "out" / name)


def make_samples(folder: Path) -> Samples:
    init(folder)
    samples = Samples(folder)
    anchormix("run", samples.config)
    assert len(samples.expected) >= 2
    return samples


def data_of(mix: Path) -> dict[str, bytes]:
    assert (mix / "_SUCCESS").exists(), f"{mix} is not published"
    return {path.name: path.read_bytes() for path in sorted((mix / "data").iterdir())}


def anchormix(command: str, config: Path, beam: Sequence[str] = (), **variables: str) -> dict[str, Any]:
    """Run a command that must succeed; the line of JSON it prints."""
    return ended_well(start_anchormix(command, config, beam, **variables))


def start_anchormix(command: str, config: Path, beam: Sequence[str] = (), **variables: str) -> subprocess.Popen[str]:
    call = [sys.executable, "-m", "pipeline", command, str(config), "--json", "--quiet", "--", *beam]
    environment = project_environment() | variables
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def ended_well(process: subprocess.Popen[str]) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stdout + stderr[-4000:]
    line: dict[str, Any] = json.loads(stdout)
    return line


def project_environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
