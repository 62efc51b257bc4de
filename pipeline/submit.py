"""Where pipelines run: Beam options, the choice of carrier, and waiting with a progress bar."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import logging
import os
import re
import socket
import tempfile
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pipeline import dataflow
from pipeline.effort import Effort, StageEffort
from pipeline.errors import AnchormixError, UsageError
from pipeline.failures import why_it_failed
from pipeline.object_stores import refuse_secrets
from pipeline.progress import Progress

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""Beam's in-process engine, by its class: the name `DirectRunner` may try to download another one first."""

_MOST_HELD_BYTES = 256 << 20
"""Of the packets of one pipeline that stay in memory: all of those that 200 MB of text make."""

_LOCAL_NAMES = {"directrunner", "direct", "fnapirunner", "switchingdirectrunner", LOCAL_RUNNER.lower()}


@dataclass(frozen=True)
class Runner:
    """One command's way to run pipelines."""

    arguments: tuple[str, ...]  # complete Beam flags
    run_files: bool  # packets go through files, because all workers share this machine's disk
    holds_packets: bool  # the first of them need not, nor need texts be read twice, because all work is this process's
    in_process: bool  # workers are threads of this process, or its children
    one_worker: bool  # Beam's only one, in this process
    threads: int  # of that one; engines bring their own
    progress: Progress
    effort: Effort = field(default_factory=Effort)
    reports: str | None = None  # a folder that workers and driver reach; None: what exchanges carried is not known

    @property
    def on_dataflow(self) -> bool:
        return dataflow.is_dataflow(_option(self.arguments, "runner"))

    def scratch(self, folder: str) -> str | None:
        """The folder for run files, or None where packets go through the engine's shuffle."""
        return folder if self.run_files else None

    def run(self, stage: str, total_bytes: int, define: Callable[[Any], None]) -> None:
        """Define a pipeline, run it, wait. A worker's exception becomes one error that says where its traceback is."""
        with self.effort.stage(stage) as effort:
            self._run(stage, total_bytes, define, effort)

    def _run(self, stage: str, total_bytes: int, define: Callable[[Any], None], effort: StageEffort) -> None:
        import apache_beam as beam

        from pipeline import beam_options
        from transforms import counters, exchange, files, pool

        counters.reset(stage)
        pool.use_threads(self.threads, self.one_worker)
        pool.keep_tasks(self.reports)
        exchange.hold_packets(_MOST_HELD_BYTES if self.holds_packets else 0)
        beam_options.save_time()
        try:
            pipeline = beam.Pipeline(options=beam_options.ParsedOnce(list(self.arguments)))
        except ValueError as error:  # options that the runner cannot do without
            reason = " ".join(str(error).split())
            raise UsageError("bad_beam_flag", f"behind `--`: {reason}", arguments=list(self.arguments)) from None
        define(pipeline)
        told = None
        if self.one_worker:
            exchange.note_traffic()
        elif self.reports is not None:
            told = files.join(self.reports, f"traffic-{uuid.uuid4().hex[:12]}")
            exchange.report_traffic(pipeline, told)
        with self.progress.stage(stage, total_bytes, lambda: counters.done(stage)), _beam_log(self.in_process) as log:
            # An engine's client wants the main thread, for its signal handlers.
            state = _finish(stage, pipeline, log) if self.in_process else _wait(stage, pipeline, log)
        exchange.hold_packets(0)
        if state != "DONE":
            raise AnchormixError(
                "pipeline_failed",
                f"{stage}: the runner ended the pipeline as {state}; its own log says why.",
                stage=stage,
                state=state,
            )
        effort.exchanges = exchange.reported_traffic(told) if told else exchange.noted_traffic()


class _BeamLog(logging.Handler):
    """Keeps what Beam logs in this process: told whole in a file if a pipeline fails, and not at all if none does."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[str] = deque(maxlen=1000)
        self.worker_failed = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        if record.name.endswith("sdk_worker") and "Error processing instruction" in record.getMessage():
            self.worker_failed.set()

    def write(self, text: str) -> None:
        """What Beam prints past the log, tracebacks of workers above all."""
        self.lines.extend(text.splitlines())


@contextlib.contextmanager
def _beam_log(in_process: bool) -> Iterator[_BeamLog]:
    """Where workers run in this process their words are kept from the terminal; an engine's are its own affair."""
    handler = _BeamLog()
    aside: Any = contextlib.redirect_stderr(cast(Any, handler)) if in_process else _told_of_threads(handler)
    logger = logging.getLogger("apache_beam")
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = propagated and not in_process
    try:
        with aside:
            yield handler
    except KeyboardInterrupt:
        propagated = False  # threads work on until the process ends, on files that are removed under their hands
        raise
    finally:
        logger.propagate = propagated
        logger.removeHandler(handler)


@contextlib.contextmanager
def _told_of_threads(log: _BeamLog) -> Iterator[None]:
    """Beam reads an engine's words in a thread; one that the server hung up on would print its traceback."""

    def keep(hook: threading.ExceptHookArgs) -> None:
        log.lines.extend("".join(traceback.format_exception(hook.exc_value)).splitlines() if hook.exc_value else ())

    told = threading.excepthook
    threading.excepthook = keep
    try:
        yield
    finally:
        threading.excepthook = told


def _finish(stage: str, pipeline: Any, log: _BeamLog) -> str:
    """Run a pipeline to its end and name its state.

    After an exception in one of its threads the local runner can wait for ever for the others, so it runs in a thread
    of its own that is given up some time after the first failure.
    """
    ended: list[str | BaseException] = []

    def run() -> None:
        try:
            ended.append(_wait(stage, pipeline, log))
        except BaseException as error:  # handed to the waiting thread, whatever it is
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    give_up = float("inf")
    while thread.is_alive() and time.monotonic() < give_up:
        thread.join(_POLL_SECONDS)
        if log.worker_failed.is_set() and give_up == float("inf"):
            give_up = time.monotonic() + _GRACE_SECONDS
    if not ended:
        raise _pipeline_failed(stage, RuntimeError("\n".join(log.lines)), log)
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]


def _wait(stage: str, pipeline: Any, log: _BeamLog) -> str:
    try:
        result = pipeline.run()
        return str(result.wait_until_finish() or result.state)
    except AnchormixError:
        raise
    except Exception as error:
        raise _pipeline_failed(stage, error, log) from error


_POLL_SECONDS = 0.5
_GRACE_SECONDS = 15.0


def _pipeline_failed(stage: str, error: Exception, said: _BeamLog) -> AnchormixError:
    with tempfile.NamedTemporaryFile("w", prefix=f"anchormix-{stage}-", suffix=".log", delete=False) as log:
        traceback.print_exception(error, file=log)
        log.writelines(f"{line}\n" for line in said.lines)
    return AnchormixError(
        "pipeline_failed",
        f"{stage}: the pipeline failed: {why_it_failed(error)}. Nothing was published; running the same command again "
        f"resumes. The whole traceback is in {log.name}.",
        stage=stage,
        log=log.name,
    )


def make_runner(beam_arguments: Sequence[str], progress: Progress) -> Runner:
    """Complete and check the flags behind `--`; without a runner the local one is chosen, with all cores."""
    given = list(beam_arguments)
    refuse_secrets(given)
    threads, one_worker = 1, False
    name = _option(given, "runner")
    local = name is None or name.lower() in _LOCAL_NAMES
    if local:
        given = _without(given, "runner")
        given.append(f"--runner={LOCAL_RUNNER}")
        if _option(given, "direct_running_mode") is None:
            one_worker = True
            threads, given = _as_threads(given)
    endpoint = _option(given, "job_endpoint")
    embedded = endpoint == "embed"
    _refuse_unknown(given)
    if not local and name is not None:
        _refuse_unknown_runner(name)
    if dataflow.is_dataflow(name):
        dataflow.refuse_missing_library()
        dataflow.refuse_useless_flags(given)
    if not local and not embedded and endpoint is not None:
        _refuse_silent_server(endpoint)
    master = _option(given, "flink_master")
    if not local and endpoint is None and master is not None:
        _refuse_silent_flink(master)
    _refuse_missing_engine(given)
    carrier = _carrier()
    run_files = local or embedded or _is_prism_here(name, given) if carrier is None else carrier == "files"
    holds_packets = one_worker and carrier is None
    return Runner(tuple(given), run_files, holds_packets, local or embedded, one_worker, threads, progress)


def _is_prism_here(name: str | None, arguments: Sequence[str]) -> bool:
    """Whether Prism's workers are threads of this process, as they are unless the flags say otherwise.

    It keeps what it regroups in memory: twelve times the text of a corpus of 1 GB, when packets went through it.
    """
    environment = _option(arguments, "environment_type") or "LOOPBACK"
    return name is not None and name.lower() in ("prism", "prismrunner") and environment.upper() == "LOOPBACK"


def _as_threads(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """As many workers as are asked for, or as there are cores, as threads of a single one of Beam's.

    With a running mode of Beam's (`multi_threading`, `multi_processing`) the workers are Beam's own instead.
    """
    asked = _option(arguments, "direct_num_workers") or "0"  # Beam's own word for all cores
    if not asked.isdecimal():
        return 1, list(arguments)  # Beam's parser says what is wrong with it
    threads = int(asked) or os.cpu_count() or 1
    rest = _without(arguments, "direct_num_workers")
    return threads, [*rest, "--direct_num_workers=1", "--direct_running_mode=in_memory"]


def _carrier() -> str | None:
    """What the environment wants packets to go through; else run files do where workers share a disk.

    ANCHORMIX_EXCHANGE=files is for engines whose workers all mount the index under the same path, `shuffle` shows on
    one machine what an engine would do. The bytes of a mix are the same either way.
    """
    chosen = os.environ.get("ANCHORMIX_EXCHANGE") or None
    if chosen not in (None, "files", "shuffle"):
        raise UsageError(
            "bad_environment",
            f"ANCHORMIX_EXCHANGE={chosen!r}: valid is files or shuffle; unset it to let the runner decide.",
            value=chosen,
        )
    return chosen


def _option(arguments: Sequence[str], name: str) -> str | None:
    for place, argument in enumerate(arguments):
        if argument.startswith(f"--{name}="):
            return argument.split("=", 1)[1]
        if argument == f"--{name}" and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def _without(arguments: Sequence[str], name: str) -> list[str]:
    rest: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == f"--{name}":
            skip = True
        elif not argument.startswith(f"--{name}="):
            rest.append(argument)
    return rest


def _refuse_unknown_runner(name: str) -> None:
    """Beam finds a runner by a name of its own, or by the dotted path of a class."""
    from apache_beam.options.pipeline_options import StandardOptions
    from apache_beam.runners.runner import _RUNNER_MAP

    path = _RUNNER_MAP.get(name.lower()) or _RUNNER_MAP.get(f"{name.lower()}runner") or name
    known = ", ".join(short.rpartition(".")[2] for short in StandardOptions.KNOWN_RUNNER_NAMES)
    valid = f"Known are {known}, or the dotted path of a class; without --runner this machine's cores work."
    module, _, kind = path.rpartition(".")
    problem = "Beam knows no such runner"
    if module:
        try:
            if hasattr(importlib.import_module(module), kind):
                return
            problem = f"{module} has no {kind}"
        except (ImportError, ValueError) as error:  # ValueError: a relative path
            problem = f"it cannot be imported ({error})"
    near = difflib.get_close_matches(name.lower(), _RUNNER_MAP, 1)
    names = {_RUNNER_MAP[short].rpartition(".")[2] for short in near if not module}
    hint = f" Did you mean {names.pop()}?" if names else ""
    raise UsageError("unknown_runner", f"behind `--`: --runner={name}: {problem}.{hint} {valid}", runner=name)


_CONNECT_SECONDS = 2.0


def _refuse_silent_server(endpoint: str) -> None:
    """Beam would wait a minute for a job server that is not there, and end with a traceback."""
    if "/" in endpoint:  # a scheme of gRPC's, such as unix:///path
        return
    problem = _unanswered(endpoint)
    if problem is not None:
        raise UsageError(
            "no_job_server",
            f"behind `--`: --job_endpoint={endpoint} {problem}. Start the runner's job server there or name the one "
            "that runs, such as localhost:8099. Without --runner and --job_endpoint this machine's own cores work.",
            job_endpoint=endpoint,
        )


def _refuse_silent_flink(master: str) -> None:
    """Beam's own job server would try for two minutes, and say no more than that a connection was refused."""
    if master.startswith("["):  # a word of Beam's, such as [local]
        return
    problem = _unanswered(re.sub("^https?://", "", master.strip()))
    if problem is not None:
        raise UsageError(
            "no_flink",
            f"behind `--`: --flink_master={master} {problem}. Name the job manager's REST address, such as "
            "localhost:8081, or [local] for a Flink inside the job server.",
            flink_master=master,
        )


def _unanswered(address: str) -> str | None:
    """Why nobody can be reached at an address; None if somebody listens there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        return "is no HOST:PORT"
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        return f"does not answer ({error.strerror or error})"
    return None


_ENGINE_FILES = ("prism_location", "flink_job_server_jar", "spark_job_server_jar")


def _refuse_missing_engine(arguments: Sequence[str]) -> None:
    """Beam takes the name of a file that is not there for half a URL, and says so with a traceback."""
    for name in _ENGINE_FILES:
        path = _option(arguments, name)
        if path is None or "://" in path or os.path.isfile(path):
            continue
        raise UsageError(
            "no_engine",
            f"behind `--`: --{name}={path}: there is no such file. Name the engine's file as it is on this machine; "
            "scripts below engines/ make one and print where it is.",
            option=name,
            value=path,
        )


def _refuse_unknown(arguments: Sequence[str]) -> None:
    """Beam drops flags it does not know without a word; a typo in `--parallelism` must not cost a day."""
    from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    parser = _BeamArgumentParser(allow_abbrev=False)
    for options in {str(kind): kind for kind in PipelineOptions.__subclasses__()}.values():
        options._add_argparse_args(parser)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _, unknown = parser.parse_known_args(list(arguments))
    except SystemExit:
        reason = said.getvalue().strip().splitlines()[-1:] or ["unreadable value"]
        raise UsageError("bad_beam_flag", f"behind `--`: {reason[0]}", arguments=list(arguments)) from None
    if unknown:
        known = [name for action in parser._actions for name in action.option_strings]
        name = unknown[0].split("=", 1)[0]
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(
            "unknown_beam_flag", f"behind `--`: Beam knows no option {unknown[0]!r}.{hint}", value=unknown[0]
        )
