"""What Beam stages to workers: an sdist that holds what they run, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "transforms")
BUILT_FROM = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}
METADATA = {"PKG-INFO", "SOURCES.txt", "dependency_links.txt", "entry_points.txt", "requires.txt", "top_level.txt"}


def files_of_packages() -> set[str]:
    """Every file of the packages but what Python and numba cache beside them."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def build(kind: str, tree: Path, out: Path) -> Path:
    call = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(out), str(tree)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as Beam builds it, from a tree with all that a working copy has, built caches included."""
    tree = tmp_path_factory.mktemp("tree") / "project"
    heavy = (".git", ".venv", ".cache", ".hypothesis", "*_cache", "*.egg-info", "demo", "bench-out", "build", "dist")
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*heavy))
    (tree / "pipeline" / "__pycache__").mkdir(exist_ok=True)
    (tree / "pipeline" / "__pycache__" / "cli.cpython-311.pyc").write_bytes(b"")
    (tree / "transforms" / "kernels" / "text.count-1.py311.nbi").write_bytes(b"")
    return build("sdist", tree, tmp_path_factory.mktemp("sdist"))


def test_the_sdist_holds_the_packages_and_what_builds_them(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if not archive.getmember(name).isdir()}
    metadata = {f"anchormix.egg-info/{name}" for name in METADATA}
    assert names == files_of_packages() | BUILT_FROM | metadata


def test_a_wheel_of_the_sdist_holds_the_packages(sdist: Path, tmp_path: Path) -> None:
    """The same as boot on a worker does: it has the sdist, and not the tree."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    wheel = build("wheel", tree, tmp_path / "out")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == files_of_packages()


def dockerfile() -> list[list[str]]:
    """Instructions, each as its words."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    joined = re.sub(r"\\\n", " ", "".join(line for line in text.splitlines(True) if not line.startswith("#")))
    return [line.split() for line in joined.splitlines() if line.strip()]


def test_the_image_is_of_the_locked_beam_and_of_one_python() -> None:
    images = [words[1] for words in dockerfile() if words[0] == "FROM"]
    locked = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)
    (beam,) = (re.fullmatch(r"apache/beam_python([\d.]+)_sdk:([\d.]+)", image) for image in images if "beam" in image)
    assert beam is not None
    assert beam[2] == locked["apache-beam"]
    assert {image for image in images if "beam" not in image} == {f"python:{beam[1]}-slim-bookworm"}


def test_what_the_image_copies_reaches_its_builder() -> None:
    """All else of a working copy stays outside, keys and corpora that lie around among it."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith(("#", "!"))] == ["*", "**/__pycache__"]
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source.removeprefix("./")
        for words in dockerfile()
        if words[0] == "COPY" and not words[1].startswith("--from")
        for source in words[1:-1]
    }
    assert copied == sent
    assert {path for path in sent if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("call", [["hadolint", "Dockerfile"], ["zizmor", "--offline", "--no-progress", ".github"]])
def test_linters_of_the_image_and_of_workflows_find_nothing(call: list[str]) -> None:
    tool = Path(sys.executable).with_name(call[0])
    if not tool.exists():
        pytest.skip(f"{call[0]} is not installed: requirements-consumers.lock")
    done = subprocess.run([tool, *call[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
