"""What Dataflow could not do is said before anything is sent there."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

import pytest
import yaml

from pipeline import dataflow
from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.progress import make_progress
from pipeline.submit import make_runner

PLACES = ("--temp_location=gs://b/tmp", "--staging_location=gs://b/staging")
FLAGS = ("--runner=DataflowRunner", "--project=p", "--region=r", *PLACES)


@pytest.fixture
def with_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is installed here or not."""
    spec = importlib.machinery.ModuleSpec("google.cloud.dataflow", None)
    monkeypatch.setattr(dataflow.importlib.util, "find_spec", lambda name: spec)


def refused(*flags: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        make_runner([*FLAGS, *flags], make_progress(quiet=True))
    return caught.value


@pytest.mark.parametrize("answer", [None, ModuleNotFoundError("google.cloud")])
def test_the_extra_that_is_missing_is_named(
    answer: ModuleNotFoundError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> None:
        if answer is not None:
            raise answer

    monkeypatch.setattr(dataflow.importlib.util, "find_spec", find)
    error = refused("--sdk_container_image=image")
    assert error.code == "runner_unavailable"
    assert "pip install 'anchormix[gcp]'" in error.message


@pytest.mark.usefixtures("with_library")
def test_workers_need_the_code_from_somewhere() -> None:
    assert refused().code == "nothing_staged"
    for flag in (
        "--sdk_container_image=i",
        "--extra_package=p.tar.gz",
        "--extra_packages=p.whl",
        "--setup_file=setup.py",
    ):
        made = make_runner([*FLAGS, flag], make_progress(quiet=True))
        assert made.on_dataflow
        assert not made.run_files
        assert not make_runner([], make_progress(quiet=True)).on_dataflow


@pytest.mark.usefixtures("with_library")
@pytest.mark.parametrize(
    "flag", ["--template_location=gs://b/t", "--dry_run", "--dry_run=True", "--update", "--streaming"]
)
def test_a_run_is_no_single_job(flag: str) -> None:
    error = refused("--sdk_container_image=image", flag)
    assert error.code == "bad_beam_flag"
    assert flag.partition("=")[0] in error.message


@pytest.mark.usefixtures("with_library")
def test_a_typo_in_a_flag_of_dataflows_is_found() -> None:
    error = refused("--sdk_container_image=image", "--machine_typ=n2-standard-4")
    assert error.code == "unknown_beam_flag"
    assert "Did you mean --machine_type?" in error.message


def test_what_workers_read_lies_in_a_store(tmp_path: Path) -> None:
    def config(index: str, files: str, reference: str) -> Path:
        text = yaml.safe_dump(
            {
                "version": 1,
                "output": str(tmp_path / "mix"),
                "index": index,
                "sources": [{"name": "press", "files": [files]}],
                "diversity": {"reference": [reference]},
                "mix": {"floors": {"human_verified": 0}},
            }
        )
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    stored = ("gs://b/index", "gs://b/press/*.parquet", "s3://b/reference/*.parquet")
    dataflow.refuse_local_paths(load_config(config(*stored), environ={}))
    for place, key in enumerate(("index", "sources.press.files", "diversity.reference")):
        local = [*stored]
        local[place] = "/data/" + stored[place].partition("b/")[2]
        with pytest.raises(UsageError) as caught:
            dataflow.refuse_local_paths(load_config(config(*local), environ={}))
        assert caught.value.code == "local_path"
        assert caught.value.message.startswith(f"{key}: '/data/")
