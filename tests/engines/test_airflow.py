"""The DAG in a real Airflow: what runs, what is reused, which tasks fail with which words, what is tried again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.index import Index
from pipeline.samples import init

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / "engines" / "airflow" / "environment"
DOCUMENTATION = ROOT / "docs" / "airflow.md"
PATIENCE = 900

STAGES = ["check", "index", "plan", "mix", "verify", "diff", "ready"]
STOPPED_BY = ["infeasible", "verification", "bad_input", "guard", "custody"]

FIRST = {"output": "mixes/first", "floors": {"human_any": "7/10"}}
SUCCESSOR = {"output": "mixes/{date}", "parent": "previous"}
"""Params of runs; paths are relative to the config, as in the config itself."""

# As docs/airflow.md says to write them: in a file beside anchormix_dag.py, whose DAGs are made by its function.
# The DAGs of that page follow in the same file, so that no test passes where Airflow could not read them.
OWN_DAGS = """\
from datetime import timedelta
from anchormix_dag import anchormix_dag

soon = timedelta(seconds=1)
mixes = anchormix_dag(
    "mixes", schedule="@weekly", command={command!r}, retry_delay=soon, config={config!r}, human_verified="0.6"
)
killed = anchormix_dag("killed", command="sh -c 'echo gone >&2; kill -9 $$'", retries=1, retry_delay=soon)
nowhere = anchormix_dag("nowhere")
endless = anchormix_dag(
    "endless",
    command="sh -c 'sleep 1000 & echo endless $! >&2; wait'",
    retries=0,
    dag={{"default_args": {{"execution_timeout": soon}}}},
)
"""


@dataclass
class Ran:
    answer: dict[str, Any]
    log: str

    @property
    def state(self) -> str:
        return str(self.answer["state"])

    @property
    def tasks(self) -> dict[str, str]:
        return {name: state for name, (state, _) in self.answer["tasks"].items()}

    def tries(self, task: str) -> int:
        return int(self.answer["tasks"][task][1])

    def xcom(self, task: str, key: str = "return_value") -> Any:
        return self.answer["xcoms"][f"{task}.{key}"]

    @property
    def failures(self) -> list[str]:
        """What failed tasks said last: the messages of exceptions that end tasks."""
        kind = "airflow.sdk.exceptions.Airflow"
        return [line.partition(": ")[2] for line in self.log.splitlines() if line.startswith(kind)]

    def failed(self) -> list[str]:
        return sorted(name for name, state in self.tasks.items() if state == "failed")


@dataclass
class Airflow:
    process: subprocess.Popen[str]
    log: Path
    samples: Path

    def run(self, dag: str = "mixes", **params: Any) -> Ran:
        assert self.process.stdin
        assert self.process.stdout
        before = self.log.stat().st_size
        print(json.dumps({"dag": dag, "params": params}), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()[-4000:]
        return Ran(json.loads(answer), self.log.read_text()[before:])

    def mix(self, name: str) -> Path:
        return self.samples / "mixes" / name


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """An Airflow with a database of its own in a temporary folder; the samples lie beside it."""
    made = subprocess.run(
        [ENVIRONMENT, "python"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert made.returncode == 0, made.stderr
    python = made.stdout.strip()
    home = tmp_path_factory.mktemp("airflow")
    dags, samples, log = home / "dags", home / "samples", home / "log"
    dags.mkdir()
    init(samples)
    shutil.copy(ROOT / "dags" / "anchormix_dag.py", dags)
    # Airflow's environment is not that of anchormix, which is found by its command.
    command = f"env PYTHONPATH={ROOT} {sys.executable} -m pipeline"
    own = OWN_DAGS.format(command=command, config=str(samples / "quickstart.yaml"))
    shown = re.findall(r"^```python\n(.*?)^```$", DOCUMENTATION.read_text(), re.M | re.S)
    assert len(shown) == 2
    (dags / "own_dags.py").write_text("\n".join([own, *shown]))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_VAR_ANCHORMIX_COMMAND": "/nowhere/anchormix",
        "PYTHONPATH": str(dags),
    }
    with log.open("w") as out:
        call = [python, "-m", "airflow", "db", "migrate"]
        subprocess.run(call, env=environment, stdout=out, stderr=out, check=True, timeout=PATIENCE)
        call = [python, str(Path(__file__).with_name("airflow_runs.py"))]
        process = subprocess.Popen(
            call, env=environment, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True
        )
    with process:
        yield Airflow(process, log, samples)
        assert process.stdin
        process.stdin.close()


@pytest.fixture(scope="module")
def first(airflow: Airflow) -> Ran:
    """A run from nothing, which later ones find: the index, and mixes/first."""
    return airflow.run(**FIRST, reread_inputs=True, beam=["--direct_num_workers=2"])


@pytest.fixture(scope="module")
def second(airflow: Airflow, first: Ran) -> Ran:
    """One that succeeds the first, while another process works in the index until it was refused once."""
    refused = airflow.log.read_text().count("index_locked")
    ran: list[Ran] = []
    with Index(first.xcom("index")["output"]).lease():
        run = threading.Thread(target=lambda: ran.append(airflow.run(**SUCCESSOR)))
        run.start()
        wait_for(lambda: airflow.log.read_text().count("index_locked") > refused or not run.is_alive())
    run.join()
    return ran[0]


def test_a_run_makes_a_mix_with_the_floor_that_was_asked_for(airflow: Airflow, first: Ran) -> None:
    expected = dict.fromkeys(STAGES, "success") | {f"stopped_by.{name}": "skipped" for name in STOPPED_BY}
    assert first.tasks == {**expected, "diff": "skipped"}, first.log[-4000:]
    assert first.state == "success"
    mix = airflow.mix("first")
    assert (mix / "_SUCCESS").exists()
    floors = json.loads((mix / "manifest.json").read_text())["floors"]
    assert {floor["of"]: floor["share"] for floor in floors} == {"human_verified": [3, 5], "human_any": [7, 10]}
    assert json.loads((mix / "run.json").read_text())["command"][-2:] == ["--", "--direct_num_workers=2"]
    assert first.xcom("index")["rebuilt"] == ["facts", "edges", "fates"]
    assert first.xcom("verify")["levels"]["reproduced"]["status"] == "reached"


def test_xcoms_say_what_was_published_and_hold_no_text(airflow: Airflow, first: Ran) -> None:
    ready = first.xcom("ready")
    manifest = json.loads((airflow.mix("first") / "manifest.json").read_text())
    assert ready["output"] == str(airflow.mix("first"))
    assert (ready["plan"], ready["logical_digest"]) == (manifest["plan"], manifest["logical_digest"])
    assert ready["totals"]["human_verified"] * 5 >= ready["totals"]["tokens"] * 3
    sizes = {name: len(json.dumps(value)) for name, value in first.answer["xcoms"].items()}
    assert max(sizes.values()) < 2_000, sizes


def test_a_lease_that_another_run_holds_is_waited_for(second: Ran) -> None:
    assert second.state == "success", second.log[-4000:]
    assert second.tries("index") >= 2


def test_a_mix_succeeds_the_one_before(airflow: Airflow, first: Ran, second: Ran) -> None:
    published = Path(second.xcom("ready")["output"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", published.name)
    parent = json.loads((published / "manifest.json").read_text())["parent"]
    assert parent["plan"] == first.xcom("ready")["plan"]
    assert second.tasks["diff"] == "success"
    assert second.xcom("diff")["lost"] == {"documents": 0, "tokens": 0}


def test_a_repeated_run_finds_everything_done(airflow: Airflow, first: Ran, second: Ran) -> None:
    before = written(airflow.samples)
    again = airflow.run(**SUCCESSOR)
    assert again.state == "success", again.log[-4000:]
    assert again.xcom("check")["parent"] == first.xcom("ready")["output"], "not itself, which was ready last"
    assert again.xcom("index")["rebuilt"] == []
    assert again.xcom("mix")["status"] == "unchanged"
    assert again.xcom("ready")["output"] == second.xcom("ready")["output"]
    assert written(airflow.samples) == before


def test_an_infeasible_floor_fails_the_plan_and_says_what_would_fit(airflow: Airflow, first: Ran) -> None:
    size = airflow.run(output=str(airflow.mix("none")), human_verified="19/20", overrides=["mix.size=100000"])
    assert size.state == "failed"
    assert size.failed() == ["plan", "stopped_by.infeasible"]
    assert size.tasks["mix"] == "upstream_failed"
    assert size.tries("plan") == 1
    assert size.xcom("plan", "error")["exit"] == 3
    assert len(size.failures) == 2
    assert all("what binds: floor human_verified 19/20" in message for message in size.failures), size.failures
    assert not airflow.mix("none").exists()


def test_a_gate_fails_the_mix_by_name(airflow: Airflow, first: Ran) -> None:
    gate = "diversity.fail_if=[{metric: types, scope: mix, below: 1000000000}]"
    stopped = airflow.run(output=str(airflow.mix("gated")), overrides=[gate])
    assert stopped.failed() == ["mix", "stopped_by.guard"]
    assert stopped.tries("mix") == 1
    assert stopped.xcom("mix", "error")["code"] == "diversity_gate"
    assert "types of the mix" in stopped.xcom("mix", "error")["message"]
    assert all("gates that do not hold" in message for message in stopped.failures), stopped.failures
    assert not airflow.mix("gated").exists()


def test_text_changed_after_signing_fails_as_custody(airflow: Airflow, tmp_path: Path) -> None:
    samples = tmp_path / "altered"
    init(samples)
    shard = sorted((samples / "shards" / "press").glob("*.parquet"))[0]
    table = pq.read_table(shard)
    texts = table["text"].to_pylist()
    place = table.column_names.index("text")
    pq.write_table(table.set_column(place, "text", pa.array(["Altered. " + texts[0], *texts[1:]])), shard)
    ran = airflow.run(config=str(samples / "quickstart.yaml"))
    assert "stopped_by.custody" in ran.failed(), ran.log[-4000:]
    assert len(ran.failed()) == 2
    assert all(shard.name in message for message in ran.failures), ran.failures
    assert not (samples / "out" / "mix").exists()


def test_a_mix_that_is_not_what_it_was_fails_the_verification(airflow: Airflow, first: Ran) -> None:
    shard = sorted((airflow.mix("first") / "data").iterdir())[0]
    kept = shard.read_bytes()
    pq.write_table(pq.read_table(shard).slice(1), shard)
    try:
        ran = airflow.run(**FIRST)
    finally:
        shard.write_bytes(kept)
    assert ran.failed() == ["stopped_by.verification", "verify"]
    assert ran.tasks["ready"] == "upstream_failed"


def test_a_command_that_is_killed_is_tried_again(airflow: Airflow) -> None:
    ran = airflow.run("killed", config="mix.yaml")
    assert ran.failed() == ["check"]
    assert ran.tries("check") == 2
    assert all("exit code -9" in message for message in ran.failures), ran.failures
    assert "gone" in ran.log


def test_a_task_that_takes_too_long_takes_its_command_along(airflow: Airflow) -> None:
    ran = airflow.run("endless", config="mix.yaml")
    assert ran.failed() == ["check"]
    (below,) = re.findall(r"\bendless (\d+)", ran.log)
    wait_for(lambda: not Path("/proc", below).exists())


def test_a_command_that_is_not_there_is_told_with_the_variable_that_names_it(airflow: Airflow) -> None:
    ran = airflow.run("nowhere", config="mix.yaml")
    assert ran.failed() == ["check"]
    assert ran.tries("check") == 1
    (message,) = ran.failures
    assert "/nowhere/anchormix" in message
    assert "Variable anchormix_command" in message


@pytest.mark.parametrize(
    "wrong",
    [{"human_verified": "1.5"}, {"human_verified": 0.5}, {"floors": {"human": "most"}}, {"config": "--help"}],
    ids=str,
)
def test_params_are_checked_before_anything_runs(airflow: Airflow, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    assert f"param {name}" in airflow.run(**wrong).answer["refused"]


def test_a_placeholder_that_does_not_exist_is_told(airflow: Airflow) -> None:
    ran = airflow.run(output="/mixes/{week}")
    (message,) = ran.failures
    assert message == "output: {week} in '/mixes/{week}' is not known; there are {date} and {run_id}"


def written(folder: Path) -> dict[Path, int]:
    """Every file of mixes and index but leases, with the time it was written."""
    below = [path for path in folder.rglob("*") if path.is_file() and path.name != "lease"]
    return {path: path.stat().st_mtime_ns for path in below}


def wait_for(happened: Any) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)
