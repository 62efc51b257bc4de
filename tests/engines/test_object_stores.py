"""Whole runs against a real S3 server, in processes of their own, that are killed while they publish."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipeline.samples import init

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ROOT / "engines" / "s3" / "gateway"
BUILD_SECONDS = 900
COMMAND_SECONDS = 600
KEYS = ("tester", "test-secret")


@dataclass
class Server:
    url: str
    folder: Path  # buckets are folders here, and objects files, so that a test can look without asking

    @property
    def client(self) -> Any:
        session = boto3.session.Session(*KEYS, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.url)

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket="mixes", Key=key, Body=content)

    def environment(self, data: str) -> dict[str, str]:
        return {
            **os.environ,
            "DATA": data,  # where the quickstart looks for its input
            "PYTHONPATH": str(ROOT),
            "AWS_ACCESS_KEY_ID": KEYS[0],
            "AWS_SECRET_ACCESS_KEY": KEYS[1],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.url,
        }

    def start(
        self, *arguments: str | Path, workers: str = "in_memory", data: str = "s3://mixes/input"
    ) -> subprocess.Popen[str]:
        beam = ("--quiet", "--", "--direct_num_workers=2")
        beam = (*beam, f"--direct_running_mode={workers}") if workers != "in_memory" else beam
        flags = beam if arguments[0] in ("run", "mix", "index") else ()
        call = [sys.executable, "-m", "pipeline", *map(str, arguments), "--json", *flags]
        return subprocess.Popen(
            call,
            env=self.environment(data),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def below(self, folder: str) -> dict[str, bytes]:
        root = self.folder / "mixes" / folder
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=COMMAND_SECONDS)
    assert "Traceback" not in stderr, stderr
    line: dict[str, Any] = json.loads(stdout)
    return line


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("go") is None:
        pytest.skip("go is not on PATH: the S3 server of these tests is built with Go 1.25 or later")
    subprocess.run([GATEWAY, "binary"], check=True, timeout=BUILD_SECONDS)
    folder = tmp_path_factory.mktemp("s3")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "ROOT_ACCESS_KEY": KEYS[0], "ROOT_SECRET_KEY": KEYS[1]}
    with subprocess.Popen([GATEWAY, "serve", folder, str(port)], env=environment, start_new_session=True) as process:
        try:
            wait_for(port, process)
            server = Server(f"http://127.0.0.1:{port}", folder)
            server.client.create_bucket(Bucket="mixes")
            yield server
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, "the S3 server ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the S3 server does not answer")


@dataclass
class Samples:
    """The quickstart, its input in the store."""

    config: Path
    expected: dict[str, bytes]  # data/ of a local run

    def call(self, command: str, output: str, index: str = "index") -> tuple[str | Path, ...]:
        places = ("--set", f"output=s3://mixes/{output}", "--set", f"index=s3://mixes/{index}")
        return (command, self.config, *places)


@pytest.fixture(scope="module")
def samples(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("samples") / "demo"
    init(folder)
    local = server.start("run", folder / "quickstart.yaml", "--set", "output=out/mix", data=str(folder))
    assert told(local)["exit"] == 0
    data = folder / "out" / "mix" / "data"
    for name in ("shards", "custody", "keys"):
        for path in (folder / name).rglob("*"):
            if path.is_file():
                server.put(f"input/{path.relative_to(folder)}", path.read_bytes())
    expected = {f"data/{path.name}": path.read_bytes() for path in data.iterdir()}
    assert len(expected) >= 2
    return Samples(folder / "quickstart.yaml", expected)


def data_of(found: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in found.items() if name.startswith("data/")}


def test_everything_in_the_store_makes_the_same_bytes(server: Server, samples: Samples) -> None:
    assert told(server.start(*samples.call("run", "everything")))["exit"] == 0
    found = server.below("everything")
    assert data_of(found) == samples.expected
    assert "_SUCCESS" in found
    assert "_PUBLISHING" not in found
    assert told(server.start("verify", "s3://mixes/everything"))["exit"] == 0


def test_workers_in_processes_of_their_own_make_the_same_bytes(server: Server, samples: Samples) -> None:
    call = samples.call("run", "processes", index="processes.index")
    assert told(server.start(*call, workers="multi_processing"))["exit"] == 0
    assert data_of(server.below("processes")) == samples.expected


@pytest.mark.parametrize("moment", ["index", "_PUBLISHING", "data/train-00000", "report.html", "manifest.json"])
def test_a_run_that_is_killed_leaves_no_mix_and_the_next_publishes_the_same_bytes(
    server: Server, samples: Samples, moment: str
) -> None:
    """The next one does not wait ten minutes: it sees that the holder of the leases was of this machine and is gone."""
    output = f"killed-{moment.split('/')[-1]}"
    index = f"{output}.index" if moment == "index" else "index"
    process = server.start(*samples.call("run", output, index))
    until = {"index": f"{index}/facts/*/*.parquet"}.get(moment, f"{output}/{moment}*")
    seen = False
    while not seen:
        ended = process.poll()
        seen = any((server.folder / "mixes").glob(until))
        assert seen or ended is None, "killed too late"
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(1)  # a request that the server had taken before is carried out all the same
    left = server.below(output)
    if "_SUCCESS" not in left:  # the last request may have been quicker than the signal
        assert "_PUBLISHING" in left
        line = told(server.start("verify", f"s3://mixes/{output}"))
        assert line["exit"] in (2, 4), "no reader takes it for a mix"

    assert told(server.start(*samples.call("run", output, index)))["exit"] == 0

    found = server.below(output)
    assert data_of(found) == samples.expected
    assert "_SUCCESS" in found
    assert "_PUBLISHING" not in found


def test_of_two_processes_that_publish_at_once_one_is_told(server: Server, samples: Samples) -> None:
    both = [server.start(*samples.call("run", "both", f"both-{number}.index")) for number in range(2)]
    lines = [told(process) for process in both]
    assert sorted(line["exit"] for line in lines) == [0, 2]
    assert next(line["error"]["code"] for line in lines if line["exit"]) in ("output_locked", "output_exists")
    assert data_of(server.below("both")) == samples.expected


def test_a_suspended_run_does_not_touch_what_another_published(server: Server, samples: Samples) -> None:
    """Suspended while it uploads, given up for dead and replaced, woken up again."""
    first = server.start(*samples.call("run", "suspended"))
    while not any((server.folder / "mixes" / "suspended").glob("data/train-*")):
        assert first.poll() is None
        time.sleep(0.002)
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        refused = told(server.start(*samples.call("run", "suspended", "other.index")))
        assert refused["error"]["code"] == "output_locked"
        # Ten minutes pass: its leases are as old as that, and the machine is another one.
        for lease in ("suspended/_PUBLISHING", "index/lease"):
            server.put(lease, b'{"holder": "a run that is given up for dead"}')
            os.utime(server.folder / "mixes" / lease, (time.time() - 700,) * 2)
        assert told(server.start(*samples.call("run", "suspended", "other.index")))["exit"] == 0
        before = server.below("suspended")
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    woken = told(first)
    assert woken["exit"] != 0, woken
    assert server.below("suspended") == before
    assert data_of(before) == samples.expected
