"""What an engine says of a failed pipeline becomes one line that a person can use."""

from __future__ import annotations

import threading

import apache_beam as beam
import grpc
import pytest

from pipeline import __version__
from pipeline.errors import AnchormixError
from pipeline.failures import why_it_failed
from pipeline.progress import make_progress
from pipeline.submit import Runner, make_runner


class HungUp(grpc.RpcError):
    """As gRPC raises it when the other side is gone: its text has several lines."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "Stream removed (Socket closed)"

    def __str__(self) -> str:
        return "<_MultiThreadedRendezvous of RPC that terminated with:\n\tstatus = StatusCode.UNAVAILABLE\n>"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "Pipeline BeamApp-root-1_2 failed in state FAILED: java.io.IOException: Insufficient buffers. Raise them.",
            "java.io.IOException: Insufficient buffers. Raise them",
        ),
        ("RuntimeError: RuntimeError: Traceback:\n  File x\nValueError: 7 is odd\n", "ValueError: 7 is odd"),
        ("org.x.Outer$InnerException: no slot", "org.x.Outer$InnerException: no slot"),
        ("nothing of the kind", "RuntimeError: nothing of the kind"),
        ("word " * 500, "RuntimeError: " + "word " * 57 + "w"),
    ],
)
def test_the_innermost_exception_is_the_reason(said: str, reason: str) -> None:
    assert why_it_failed(RuntimeError(said)) == reason


def test_a_job_that_found_no_slots_is_told_what_it_lacked() -> None:
    said = "Pipeline x failed in state FAILED: java.util.concurrent.TimeoutException: Timeout has occurred: 9 ms"
    assert "no free slots in that time. Start task managers" in why_it_failed(RuntimeError(said))
    other = "Pipeline x failed in state FAILED: java.util.concurrent.TimeoutException: 9 ms"
    assert why_it_failed(RuntimeError(other)) == "java.util.concurrent.TimeoutException: 9 ms"


@pytest.mark.parametrize(
    "said",
    [
        "AttributeError: Can't get attribute '_Weigh' on <module 'transforms.exchange' from '/x/exchange.py'>",
        "ModuleNotFoundError: No module named 'transforms'",
        "ModuleNotFoundError: No module named 'pipeline.effort'",
    ],
)
def test_workers_with_other_code_are_told_apart_from_broken_code(said: str) -> None:
    reason = why_it_failed(RuntimeError(f"Pipeline x failed in state FAILED: java.lang.RuntimeException: y\n{said}\n"))
    assert reason.startswith(said)
    assert f"give them {__version__}" in reason
    for other in ("AttributeError: 'NoneType' object has no attribute 'pipeline'", "KeyError: 'transforms'"):
        assert why_it_failed(RuntimeError(other)) == other


def test_a_lost_job_server_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Lost:
        def wait_until_finish(self) -> str:
            reader = threading.Thread(target=self.read)  # as Beam reads what an engine says
            reader.start()
            reader.join()
            raise HungUp

        def read(self) -> None:
            raise HungUp

    monkeypatch.setattr(beam.Pipeline, "run", lambda _: Lost())
    with pytest.raises(AnchormixError) as caught:
        engine(monkeypatch).run("mix", 1, lambda pipeline: None)

    message = caught.value.message
    assert (caught.value.exit_code, caught.value.code) == (1, "pipeline_failed")
    assert "the job server no longer answers (Stream removed (Socket closed))" in message
    assert "Start it again" in message
    assert "\n" not in message
    assert "Traceback" not in capsys.readouterr().err


def engine(monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr("pipeline.submit._refuse_silent_server", lambda _: None)
    return make_runner(["--runner=PortableRunner", "--job_endpoint=localhost:1"], make_progress(quiet=True))
