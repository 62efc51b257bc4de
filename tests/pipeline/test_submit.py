"""Beam's flags: completed, checked, never dropped in silence; and what a failed pipeline says."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import apache_beam as beam
import corpus
import pytest
import yaml

from pipeline import submit
from pipeline.errors import AnchormixError, CustodyFailed, UsageError
from pipeline.progress import make_progress
from pipeline.submit import LOCAL_RUNNER, Runner, make_runner

ROOT = Path(__file__).parents[2]


def runner(*flags: str) -> Runner:
    return make_runner(flags, make_progress(quiet=True))


def flag(made: Runner, name: str) -> list[str]:
    return [given.split("=", 1)[1] for given in made.arguments if given.startswith(f"--{name}=")]


def test_without_flags_every_core_of_this_machine_works() -> None:
    made = runner()
    assert flag(made, "runner") == [LOCAL_RUNNER]
    assert made.threads == (os.cpu_count() or 1)
    assert flag(made, "direct_num_workers") == ["1"]
    assert made.scratch("folder") == "folder"


@pytest.mark.parametrize(
    ("flags", "threads", "mode", "workers"),
    [
        (("--direct_num_workers=1",), 1, "in_memory", "1"),
        (("--direct_num_workers", "1"), 1, "in_memory", "1"),
        (("--direct_num_workers=0",), os.cpu_count() or 1, "in_memory", "1"),
        (("--direct_num_workers=3",), 3, "in_memory", "1"),
        (("--direct_num_workers=3", "--direct_running_mode=multi_threading"), 1, "multi_threading", "3"),
        (("--direct_num_workers=3", "--direct_running_mode=multi_processing"), 1, "multi_processing", "3"),
    ],
)
def test_workers_are_threads_of_one_worker_unless_a_running_mode_is_given(
    flags: tuple[str, ...], threads: int, mode: str, workers: str
) -> None:
    made = runner(*flags)
    assert made.threads == threads
    assert flag(made, "direct_running_mode") == [mode]
    assert flag(made, "direct_num_workers") == [workers]


@pytest.mark.parametrize("name", ["DirectRunner", "directrunner", "direct", "FnApiRunner", LOCAL_RUNNER])
@pytest.mark.parametrize("form", ["--runner={}", "--runner {}"])
def test_every_name_of_the_local_runner_means_the_same_engine(form: str, name: str) -> None:
    made = runner(*form.format(name).split())
    assert made.arguments == runner().arguments
    assert made.run_files


def test_direct_runner_neither_looks_for_another_engine_nor_downloads_one() -> None:
    code = (
        "import sys, urllib.request\n"
        "def refuse(*_, **__): raise AssertionError('something is downloaded')\n"
        "urllib.request.urlopen = refuse\n"
        "from pipeline.progress import make_progress\n"
        "from pipeline.submit import make_runner\n"
        "import apache_beam as beam\n"
        "made = make_runner(['--runner=DirectRunner'], make_progress(True))\n"
        "made.run('index', 1, lambda pipeline: pipeline | beam.Create([1]) | beam.Reshuffle())\n"
        "print([name for name in sys.modules if 'prism' in name])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize(
    ("flags", "run_files"),
    [
        (("--runner=FlinkRunner",), False),
        (("--runner=PortableRunner", "--job_endpoint=localhost:{port}"), False),
        (("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"), True),
        (("--runner=PrismRunner",), True),
        (("--runner=prism", "--environment_type=loopback"), True),
        (("--runner=PrismRunner", "--environment_type=EXTERNAL", "--environment_config=elsewhere:50000"), False),
    ],
)
def test_packets_go_through_files_only_where_workers_share_a_disk(flags: tuple[str, ...], run_files: bool) -> None:
    with socket.create_server(("localhost", 0)) as server:
        flags = tuple(given.format(port=server.getsockname()[1]) for given in flags)
        made = runner(*flags)
    assert made.arguments == flags, "an engine's flags are its user's"
    assert made.scratch("folder") == ("folder" if run_files else None)
    assert not made.holds_packets, "other processes could not see them"


def test_the_environment_may_choose_the_carrier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANCHORMIX_EXCHANGE", "shuffle")
    assert not runner().run_files
    assert not runner().holds_packets
    monkeypatch.setenv("ANCHORMIX_EXCHANGE", "files")
    assert runner().run_files
    assert not runner().holds_packets
    assert runner("--runner=FlinkRunner").run_files
    monkeypatch.setenv("ANCHORMIX_EXCHANGE", "pigeon")
    with pytest.raises(UsageError, match="files or shuffle") as caught:
        runner()
    assert caught.value.code == "bad_environment"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--direct_num_worker=2",), "--direct_num_workers"),
        (("--parallelismm=2", "--runner=FlinkRunner"), "--parallelism"),
        (("--direct_runing_mode", "multi_threading"), "--direct_running_mode"),
        (("--utterly-unknown",), "--utterly-unknown"),
        (("stray",), "stray"),
    ],
)
def test_a_flag_that_beam_would_drop_is_refused(flags: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        runner(*flags)
    assert caught.value.code == "unknown_beam_flag"
    assert flags[0] in caught.value.message
    assert says in caught.value.message


@pytest.mark.parametrize("value", ["--direct_num_workers=two", "--direct_running_mode=magic"])
def test_a_value_that_beam_cannot_read_is_refused_with_its_flag(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        runner(value)
    assert caught.value.code == "bad_beam_flag"
    assert value.split("=")[0] in caught.value.message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Nope", "FlinkRunner"),
        ("FlinkRuner", "Did you mean FlinkRunner?"),
        ("no.such.module.Runner", "cannot be imported"),
        ("apache_beam.Nope", "has no Nope"),
        (".Nope", "Known are"),
    ],
)
def test_a_runner_that_beam_does_not_know_is_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        runner(f"--runner={name}")
    assert (caught.value.exit_code, caught.value.code) == (2, "unknown_runner")
    assert f"--runner={name}" in caught.value.message
    assert says in caught.value.message


def test_a_job_server_that_is_not_there_is_refused_at_once() -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    started = time.monotonic()
    for endpoint, says in ((f"localhost:{port}", "does not answer"), ("localhost", "HOST:PORT"), ("h:0", "HOST:PORT")):
        with pytest.raises(UsageError, match=says) as caught:
            runner("--runner=PortableRunner", f"--job_endpoint={endpoint}")
        assert (caught.value.exit_code, caught.value.code) == (2, "no_job_server")
        assert f"--job_endpoint={endpoint}" in caught.value.message
    assert time.monotonic() - started < 30


def test_a_flink_that_is_not_there_is_refused_at_once() -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        runner("--runner=FlinkRunner", f"--flink_master=http://localhost:{port}")
    runner("--runner=FlinkRunner", "--flink_master=[local]")
    for master, says in ((f"localhost:{port}", "does not answer"), ("https://flink.example", "HOST:PORT")):
        with pytest.raises(UsageError, match=says) as caught:
            runner("--runner=FlinkRunner", f"--flink_master={master}")
        assert (caught.value.exit_code, caught.value.code) == (2, "no_flink")
        assert f"--flink_master={master}" in caught.value.message


@pytest.mark.parametrize("name", ["prism_location", "spark_job_server_jar", "flink_job_server_jar"])
def test_an_engine_that_is_not_where_a_flag_says_is_said_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file") as caught:
        runner("--runner=PrismRunner", f"--{name}", str(tmp_path / "engine"))
    assert (caught.value.exit_code, caught.value.code) == (2, "no_engine")
    (tmp_path / "engine").touch()
    for place in (tmp_path / "engine", "https://example.org/engine.jar"):
        assert f"--{name}={place}" in runner("--runner=PrismRunner", f"--{name}={place}").arguments


def test_a_flag_of_beam_that_this_project_never_mentions_passes() -> None:
    made = runner("--temp_location=/tmp/x", "--experiments=use_x", "--save_main_session")
    assert made.arguments[:3] == ("--temp_location=/tmp/x", "--experiments=use_x", "--save_main_session")


# What a pipeline that fails says


def fail(element: int) -> None:
    raise ZeroDivisionError(f"element {element} divides nothing")


def test_a_workers_exception_is_one_line_and_the_traceback_is_kept() -> None:
    with pytest.raises(AnchormixError) as caught:
        runner("--direct_num_workers=1").run("edges", 1, lambda pipeline: pipeline | beam.Create([7]) | beam.Map(fail))
    error = caught.value
    log = Path(error.details["log"])
    try:
        assert (error.exit_code, error.code) == (1, "pipeline_failed")
        assert "edges" in error.message
        assert "element 7 divides nothing" in error.message
        assert "\n" not in error.message
        assert str(log) in error.message
        assert "Traceback" in log.read_text()
    finally:
        log.unlink()


def test_a_diagnosis_made_in_the_driver_passes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosis = CustodyFailed("altered_shard", "it was altered")

    def refuse(_: Any) -> None:
        raise diagnosis

    monkeypatch.setattr(beam.Pipeline, "run", refuse)
    with pytest.raises(CustodyFailed) as caught:
        runner().run("index", 1, lambda pipeline: None)
    assert caught.value is diagnosis


def test_options_that_a_runner_misses_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("Pipeline has validations errors: \nMissing required option: project.")

    monkeypatch.setattr(beam.Pipeline, "__init__", refuse)
    with pytest.raises(UsageError, match="errors: Missing required option: project") as caught:
        runner().run("index", 1, lambda pipeline: None)
    assert (caught.value.exit_code, caught.value.code) == (2, "bad_beam_flag")


def test_a_pipeline_that_its_engine_gave_up_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    class GivenUp:
        state = "CANCELLED"

        def wait_until_finish(self) -> str:
            return "CANCELLED"

    monkeypatch.setattr(beam.Pipeline, "run", lambda _: GivenUp())
    with pytest.raises(AnchormixError, match="CANCELLED") as caught:
        runner().run("mix", 1, lambda pipeline: None)
    assert caught.value.code == "pipeline_failed"


def test_a_runner_that_hangs_after_a_worker_failed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def run(self) -> None:
            logging.getLogger("apache_beam.runners.worker.sdk_worker").error("Error processing instruction bundle_1")
            print("OSError: [Errno 28] No space left on device", file=sys.stderr)
            threading.Event().wait(60)

    monkeypatch.setattr(submit, "_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(submit, "_POLL_SECONDS", 0.05)
    started = time.monotonic()
    with submit._beam_log(True) as log, pytest.raises(AnchormixError, match="No space left on device") as caught:
        submit._finish("mix", Stuck(), log)
    assert caught.value.code == "pipeline_failed"
    assert time.monotonic() - started < 30


def test_what_a_failing_worker_prints_stays_off_the_terminal(tmp_path: Path) -> None:
    blocked = corpus.minimal_config(tmp_path)
    index = Path(yaml.safe_load(blocked.read_text()).get("index") or tmp_path / "mix.index")
    index = index if index.is_absolute() else tmp_path / index
    index.mkdir(parents=True)
    (index / "facts").write_bytes(b"")  # a file where workers need a folder
    told = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", str(blocked), "--quiet"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    assert "Not a directory" in told.stderr


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("ANCHORMIX_SPLIT_BYTES", "x", 0), ("ANCHORMIX_SPLIT_BYTES", "-5", 0), ("ANCHORMIX_BATCH_ROWS", "0", 1)],
)
def test_numbers_of_the_environment_are_numbers(
    name: str, value: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.environment import whole_number

    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"{name}='{value}': valid is a whole number of things, from {least}"):
        whole_number(name, 7, "things", least)
    monkeypatch.setenv(name, "")
    assert whole_number(name, 7, "things", least) == 7
