"""Imports run one way: kernels <- batches, files <- parts of stages <- stages <- graphs <- submit <- cli."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted([*ROOT.glob("transforms/**/*.py"), *ROOT.glob("pipeline/**/*.py")])
STAGES = {"documents", "dedup", "provenance", "mixture", "diversity"}
SHARED = {"batches", "stores", "s3", "files", "exchange", "counters", "sidecars"}
PARTS = ["tagging", "ancestry", "removal", "rounds", "known", "planned", "forecast"]
"""Of a stage that is too large for one module, in the order in which one may import another."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Every module a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def uses(path: Path, prefix: str) -> set[str]:
    return {name for name in imports(path) if name == prefix or name.startswith(f"{prefix}.")}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_run_one_way(path: Path) -> None:
    name = module_name(path)
    if name.startswith("transforms"):
        assert not uses(path, "pipeline")
    if name.startswith("transforms.kernels"):
        assert not uses(path, "apache_beam")
        assert not {i for i in uses(path, "transforms") if not i.startswith("transforms.kernels")} - {"transforms"}
    elif name.startswith("transforms.") and name.split(".")[1] in STAGES:
        others = STAGES - {name.split(".")[1]}
        assert not {stage for stage in others if uses(path, f"transforms.{stage}")}
    elif name.startswith("transforms.") and name.split(".")[1] in PARTS:
        later = PARTS[PARTS.index(name.split(".")[1]) + 1 :]
        assert not {other for other in [*STAGES, *later] if uses(path, f"transforms.{other}")}
    elif name.startswith("transforms.") and name.split(".")[1] in SHARED:
        assert not {other for other in [*STAGES, *PARTS] if uses(path, f"transforms.{other}")}
    if name.startswith("pipeline.config"):
        assert not uses(path, "transforms") - uses(path, "transforms.kernels")


def test_only_the_cli_knows_the_cli() -> None:
    users = [module_name(path) for path in MODULES if uses(path, "pipeline.cli")]
    assert users == ["pipeline.__main__"]


@pytest.mark.parametrize("module", ["pipeline.cli", "pipeline.config", "transforms.kernels.mixture"])
def test_importing_a_light_module_leaves_beam_out(module: str) -> None:
    program = f"import sys, {module}; sys.exit('apache_beam' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_the_help_page_loads_no_heavy_library() -> None:
    program = (
        "import sys, pipeline.cli; print([m for m in ('apache_beam', 'numba', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "[]"
