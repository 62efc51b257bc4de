"""Compiled kernels are read from a folder only if nobody else could have put them there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from transforms.kernels import kernel_cache
from transforms.kernels.kernel_cache import VARIABLE, choose, private_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def read_only_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources beside which nothing can be cached, a home and a folder for temporary files."""
    sources = tmp_path / "kernels"
    sources.mkdir()
    (sources / "one.py").write_text("A = 1\n")
    monkeypatch.setattr(kernel_cache, "SOURCES", sources)
    monkeypatch.setattr(kernel_cache, "_beside", lambda folder: [tmp_path / "gone"])
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    temporary.chmod(0o1777)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return sources


def chosen(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    choose()
    return Path(os.environ[VARIABLE])


def test_a_setting_of_the_users_own_stands(read_only_sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/somewhere")
    choose()
    assert os.environ[VARIABLE] == "/somewhere"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where kernels lie in a tree, which can be written."""
    folder = tmp_path / "tree" / "transforms" / "kernels"
    (folder / "diversity").mkdir(parents=True)
    (folder / "diversity" / "one.py").write_text("A = 1\n")
    monkeypatch.setattr(kernel_cache, "SOURCES", folder)
    monkeypatch.delenv(VARIABLE, raising=False)
    return folder


def test_in_a_working_copy_numba_caches_beside_each_file(sources: Path) -> None:
    choose()
    assert VARIABLE not in os.environ


def test_an_upgrade_in_place_reads_no_kernel_of_the_version_before(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sources.parents[1] / "anchormix-0.1.0.dist-info").mkdir()
    before = chosen(monkeypatch)
    assert before.parent == sources / "__pycache__"
    assert chosen(monkeypatch) == before
    (sources / "diversity" / "one.py").write_text("A = 2\n")
    after = chosen(monkeypatch)
    assert after != before
    assert after.parent == before.parent


def test_the_place_is_the_users_cache_and_the_same_for_the_same_kernels(
    read_only_sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = chosen(monkeypatch)
    assert first.parent == Path.home() / ".cache" / "anchormix"
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert chosen(monkeypatch) == first

    (read_only_sources / "helper.py").write_text("B = 2\n")
    assert chosen(monkeypatch) != first


@pytest.mark.parametrize("home", ["/dev/null", "relative"])
def test_without_a_home_it_is_a_folder_of_this_user_among_temporary_files(
    read_only_sources: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", home)
    place = chosen(monkeypatch)
    assert place.parent == Path(tempfile.gettempdir(), f"anchormix-{os.geteuid()}")
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert chosen(monkeypatch) == place


def others_write(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def links_elsewhere(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


def is_a_file(folder: Path) -> None:
    folder.write_text("")


@pytest.mark.parametrize("plant", [others_write, links_elsewhere, is_a_file])
@pytest.mark.parametrize("depth", [1, 2])
def test_what_another_user_could_have_put_there_is_not_used(
    read_only_sources: Path, monkeypatch: pytest.MonkeyPatch, plant: object, depth: int
) -> None:
    monkeypatch.setenv("HOME", "/dev/null")
    expected = chosen(monkeypatch)
    target = expected if depth == 2 else expected.parent
    expected.rmdir()
    if depth == 1:
        target.rmdir()
    plant(target)  # type: ignore[operator]

    place = chosen(monkeypatch)

    assert target not in (place, *place.parents)
    assert place.parent == Path(tempfile.gettempdir())
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_folders_of_another_user_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base" / "name").mkdir(parents=True)
    assert private_folder(tmp_path / "base", "name") == tmp_path / "base" / "name"
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert private_folder(tmp_path / "base", "name") is None


def test_a_folder_in_which_others_rename_holds_nothing(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert private_folder(shared / "base", "name") is None
    assert not (shared / "base").exists()
    shared.chmod(0o1777)
    assert private_folder(shared / "base", "name") == shared / "base" / "name"


TELL = "import os, transforms.kernels; place = os.environ['NUMBA_CACHE_DIR']; print(place, os.path.isdir(place))"
CHOOSE = """
import subprocess, sys
from transforms.kernels import kernel_cache
kernel_cache._beside = lambda sources: ["gone"]
kernel_cache.choose()
for _ in range(2):
    subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""


def test_without_any_safe_place_kernels_last_as_long_as_the_process(tmp_path: Path) -> None:
    """And those that it starts use the same folder."""
    tmp_path.chmod(0o777)  # others rename here
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {"TMPDIR": str(tmp_path), "HOME": "/dev/null", "PYTHONPATH": str(ROOT)}
    environment.pop("XDG_CACHE_HOME", None)
    call = [sys.executable, "-c", CHOOSE, TELL]
    told = subprocess.run(call, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert told[1::2] == ["True", "True"]
    assert told[0] == told[2]
    assert Path(told[0]).parent == tmp_path
    assert not Path(told[0]).exists()
