"""The command line: one line of JSON for programs whatever happens, a diagnosis for people, and no wait for help."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import corpus
import pytest
from click.testing import CliRunner, Result

from pipeline import cli
from pipeline.cli import main

ROOT = Path(__file__).parents[2]
HEAVY = ("apache_beam", "pyarrow", "numpy", "numba", "yaml", "cryptography", "rich")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def told(result: Result) -> dict[str, Any]:
    """The one line on stdout, which says the same as the exit code."""
    assert result.stdout.count("\n") == 1, result.output
    line: dict[str, Any] = json.loads(result.stdout)
    assert list(line)[:6] == ["command", "status", "exit", "error", "output", "totals"]
    assert line["exit"] == result.exit_code
    assert (line["error"] is None) == (result.exit_code == 0)
    return line


def in_a_process(*arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, *python, "-m", "pipeline", *arguments]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


# Help


def test_help_comes_at_once() -> None:
    fastest = 60.0
    for _ in range(3):  # other processes may slow one call down, not all of them
        started = time.monotonic()
        done = in_a_process("--help")
        fastest = min(fastest, time.monotonic() - started)
        assert done.returncode == 0
        assert "anchormix" in done.stdout
    assert fastest < 1


@pytest.mark.parametrize("command", [(), ("run",), ("verify",), ("attest",)])
def test_help_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    done = in_a_process(*command, "--help", python=("-X", "importtime"))
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported, "the interpreter did not list its imports"
    assert not imported & set(HEAVY)


def test_every_command_has_help_and_json() -> None:
    groups = {name: command for name, command in main.commands.items() if isinstance(command, click.Group)}
    ends = {name: command for name, command in main.commands.items() if name not in groups}
    for name, group in groups.items():
        assert group.help, name
        ends |= {f"{name} {below}": command for below, command in group.commands.items()}
    for name, command in ends.items():
        assert command.help, name
        assert any("--json" in parameter.opts for parameter in command.params), name


def test_no_command_shows_help_as_a_mistake() -> None:
    result = call()
    assert result.exit_code == 2
    assert "Commands:" in result.output


# What programs read


@pytest.mark.parametrize(
    ("arguments", "command", "says"),
    [
        (("run", "--json"), "run", "CONFIG"),
        (("run", "mix.yaml", "--jobs", "3", "--json"), "run", "--jobs"),
        (("rnu", "mix.yaml", "--json"), None, "rnu"),
        (("--json",), None, "--json"),
        (("attest", "--json"), "attest", "FILES"),
        (("attest", "a.parquet", "--json"), "attest", "--key"),
        (("explain", "out", "--json"), "explain", "--doc-id"),
        (("explain", "out", "--id", "1", "--doc-id", "2", "--json"), "explain", "--id"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(arguments: tuple[str, ...], command: str | None, says: str) -> None:
    result = call(*arguments)
    line = told(result)
    assert (line["command"], line["exit"], line["error"]["code"]) == (command, 2, "bad_call")
    assert says in line["error"]["message"]
    assert says in result.stderr


def test_without_json_a_wrong_call_says_nothing_on_stdout() -> None:
    result = call("run", "--jobs", "3")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "--jobs" in result.stderr


def test_json_behind_the_dashes_is_beams() -> None:
    result = call("run", "--quiet", "--nonsense", "--", "--json")
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    for command in ("check", "run", "index", "plan", "mix"):
        line = told(call(command, tmp_path / "none.yaml", "--json"))
        assert (line["command"], line["exit"], line["error"]["code"]) == (command, 2, "config_not_found")
        assert "none.yaml" in line["error"]["message"]


def test_a_key_that_does_not_exist_is_suggested(tmp_path: Path) -> None:
    result = call("check", corpus.minimal_config(tmp_path), "--set", "mix.flors.human_verified=0.6", "--json")
    line = told(result)
    assert line["exit"] == 2
    assert "floors" in line["error"]["message"]


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (OSError(28, "No space left on device", "/data/out"), "os_error"),
        (ZeroDivisionError("division by zero"), "internal_error"),
    ],
)
def test_whatever_is_raised_programs_get_their_line(
    raised: BaseException, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(cli, "_load", fail)
    result = call("run", "mix.yaml", "--json")
    line = told(result)
    assert (line["command"], line["exit"], line["error"]["code"]) == ("run", 1, code)
    assert line["error"]["message"] in result.stderr
    assert ("Traceback" in result.stderr) == (code == "internal_error")


def test_a_full_disk_names_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "/data/out")

    monkeypatch.setattr(cli, "_load", fail)
    assert "No space left on device: /data/out" in told(call("run", "mix.yaml", "--json"))["error"]["message"]


# Small commands


def test_schema_is_json_schema_with_and_without_json() -> None:
    printed = json.loads(call("schema").stdout)
    assert printed == told(call("schema", "--json"))["schema"]
    assert set(printed["required"]) >= {"version", "output", "sources", "mix"}
    assert printed["additionalProperties"] is False


def test_keygen_writes_a_pair_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    line = told(call("keygen", tmp_path / "desk", "--json"))
    assert line["output"] == str(tmp_path / "desk.pub")
    assert stat.S_IMODE(os.stat(tmp_path / "desk.key").st_mode) == 0o600
    assert "PRIVATE" not in (tmp_path / "desk.pub").read_text()


@pytest.mark.parametrize("standing", ["desk.key", "desk.pub"])
def test_keygen_refuses_to_overwrite(standing: str, tmp_path: Path) -> None:
    (tmp_path / standing).write_text("precious")
    line = told(call("keygen", tmp_path / "desk", "--json"))
    assert line["exit"] == 2
    assert standing in line["error"]["message"]
    assert (tmp_path / standing).read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == [standing]


def test_init_and_check_lead_from_one_to_the_next(tmp_path: Path) -> None:
    result = call("init", tmp_path / "demo")
    assert f"anchormix run {tmp_path / 'demo' / 'quickstart.yaml'}" in result.stdout
    again = told(call("init", tmp_path / "demo", "--json"))
    assert (again["exit"], again["error"]["code"]) == (2, "init_not_empty")
    line = told(call("check", tmp_path / "demo" / "quickstart.yaml", "--json"))
    assert line["status"] == "ok"
    assert not (tmp_path / "demo" / "out").exists(), "check writes nothing"


def test_a_folder_that_is_no_mix(tmp_path: Path) -> None:
    for arguments in (("verify", tmp_path), ("explain", tmp_path, "--id", "0" * 32), ("report", tmp_path)):
        line = told(call(*arguments, "--json"))
        assert line["exit"] == 2, line
        assert str(tmp_path) in line["error"]["message"]


@pytest.mark.parametrize("flag", ["--wokers=3", "--direct_num_worker=3"])
def test_a_beam_flag_with_a_typo_stops_before_anything_is_read(flag: str, tmp_path: Path) -> None:
    line = told(call("run", corpus.minimal_config(tmp_path), "--json", "--", flag))
    assert (line["exit"], line["error"]["code"]) == (2, "unknown_beam_flag")
    assert not (tmp_path / "out").exists()


LEFT_BEHIND = """
import atexit, sys, threading, time
from pipeline import cli
cli.main = lambda prog_name: sys.exit(3)
cli._LAST_SECONDS = 0.5
threading.Thread(target=time.sleep, args=(60,)).start()
{registered}
cli.console()
"""


@pytest.mark.parametrize(
    ("registered", "says"),
    [
        ('atexit.register(print, "server stopped", flush=True)', "server stopped"),
        ("atexit.register(time.sleep, 60)", ""),
    ],
)
def test_a_command_ends_what_it_started_and_waits_for_no_thread(registered: str, says: str) -> None:
    code = LEFT_BEHIND.format(registered=registered)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (3, says), done.stderr
