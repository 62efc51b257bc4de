"""A training mix as an Airflow DAG: check, index, plan, mix, verify, diff, and word of it to whoever waits for the mix.

    from anchormix_dag import anchormix_dag

    weekly = anchormix_dag("weekly_mix", schedule="@weekly", config="/data/mix.yaml", output="/data/mixes/{date}")

makes a DAG of one's own in a file beside this one; this file makes one without a schedule, to be filled in by hand.
anchormix is called as a command, so it can live in an environment of its own: Airflow's pins and Beam's clash.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, BaseOperator, Context, Param, ParamsDict, TaskGroup, TriggerRule, Variable
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

COMMAND_VARIABLE = "anchormix_command"
"""Names the command, such as /opt/anchormix/bin/anchormix. No param: whoever may start a run may set its params."""

STOPPED_BY = {3: "infeasible", 4: "verification", 5: "bad_input", 6: "guard", 7: "custody"}
"""Exit codes that somebody has to think about, each with the task that fails beside the stage that met it."""

HELD_ELSEWHERE = ("index_locked", "output_locked")
"""Codes of refusals that time heals: another run works there."""

# What of a command's line of JSON goes into XCom: numbers, digests and paths. The mix and its report have the rest.
KEPT = {
    "check": ("floor_bound",),
    "index": ("rebuilt",),
    "plan": ("plan.digest", "plan.measure", "plan.size", "plan.verified"),
    "mix": ("plan", "logical_digest", "rebuilt", "parent"),
    "verify": ("levels", "logical_digest"),
    "diff": ("human.lost", "human.taken_down", "human.lost_share"),
}

_PREVIOUS = "previous"
_SHARE = r"^(0(\.[0-9]{1,9})?|1(\.0{1,9})?|[0-9]+/[1-9][0-9]*)$"
_PATH = "^[^-]"  # what begins with a dash would be read as an option
_LONGEST_MESSAGE = 4_000  # characters of a diagnosis in XCom; the log has all of it
_PATIENCE = 3  # seconds for a command to end once it was interrupted; a task that is stopped is killed after five


def _params(defaults: Mapping[str, Any]) -> ParamsDict:
    """The form, of which what has no section is open from the beginning; `defaults` fill it in."""
    config, check, run = "More of the config", "What is held against it", "How it runs"
    # A field that was filled in and emptied again is an empty text.
    path = {"type": ["null", "string"], "pattern": f"{_PATH}|^$"}
    share = {"type": ["null", "string"], "pattern": f"{_SHARE}|^$"}
    shares = {"type": "object", "additionalProperties": {"type": "string", "pattern": _SHARE}}
    params = {
        "config": Param(
            title="Config",
            description="The YAML file, as the worker sees it.",
            type="string",
            pattern=_PATH,
        ),
        "output": Param(
            None,
            title="Output",
            description="A folder or URL; {date} and {run_id} are those of the run. Empty: as the config says.",
            **path,
        ),
        "human_verified": Param(
            None,
            title="Floor of human_verified",
            description="The least share of verified human text, such as 0.5 or 1/3. Empty: as the config says.",
            **share,
        ),
        "floors": Param(
            {},
            title="More floors",
            description='Least shares of anything else, such as {"human_any": "0.8"}.',
            **shares,
        ),
        "caps": Param(
            {},
            title="Caps",
            description='Greatest shares, such as {"synthetic": "0.3"}.',
            **shares,
        ),
        "parent": Param(
            None,
            title="Parent",
            description=f"The mix that this one succeeds: a path, or {_PREVIOUS} for what this DAG made before.",
            **path,
        ),
        "index": Param(
            None,
            title="Index",
            description="Where the index lies, which later runs reuse. Empty: as the config says.",
            section=config,
            **path,
        ),
        "overrides": Param(
            [],
            title="More keys of the config",
            description="One KEY=VALUE a line, such as mix.seed=3.",
            section=config,
            type="array",
            items={"type": "string", "pattern": "^[^=-][^=]*="},
        ),
        "allow_human_loss": Param(
            "0",
            title="Allowed loss",
            description="The share of the parent's verified human text that may be gone, or all.",
            section=check,
            type="string",
            pattern=f"{_SHARE}|^all$",
        ),
        "public_key": Param(
            None,
            title="Public key",
            description="The key that must have signed the mix.",
            section=check,
            **path,
        ),
        "trust": Param(
            None,
            title="Trusted keys",
            description="YAML with the custody keys to judge by; a config with a trust block will do.",
            section=check,
            **path,
        ),
        "reread_inputs": Param(
            False,
            title="Read the inputs again",
            description="Compare every text of the mix with the shard it came from.",
            section=check,
            type="boolean",
        ),
        "beam": Param(
            [],
            title="Beam",
            description="One flag a line, for index, plan and mix, such as --runner=FlinkRunner.",
            section=run,
            type="array",
            items={"type": "string", "pattern": "^--"},
        ),
    }
    unknown = sorted(set(defaults) - set(params))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no param of this DAG; there are {', '.join(params)}")
    form = ParamsDict(params)
    form.update(defaults)  # raises where a value is not of the form
    return form


class AnchormixOperator(BaseOperator):
    """One stage. Verdicts fail the task at once, with their message; what may pass by itself is tried again."""

    def __init__(self, *, command: str, executable: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.command = command
        self.executable = executable
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        settled = _of_task("check", context)
        words = [settled["config"], *settled["overrides"], "--", *context["params"]["beam"]]
        return self.call(context, *words)

    def call(self, context: Context, *words: str) -> dict[str, Any]:
        """What is kept of the command's line of JSON; raises what becomes of the task otherwise."""
        told, code, last_said = self._run([self.command, "--json", *words])
        if told is None:
            says = (
                f"anchormix {self.command} ended with exit code {code} and no line of JSON. It last said:\n{last_said}"
            )
            if code == 0:
                raise AirflowFailException(f"{says}\nIs the Airflow Variable {COMMAND_VARIABLE} its command?")
            raise AirflowException(says)  # killed, out of memory, or broken on its way up
        if told["exit"] == 0:
            return _kept(told)
        error = told["error"]
        says = f"anchormix {self.command}: {error['message']} (exit code {told['exit']}, {error['code']})"
        if told["exit"] == 1 or error["code"] in HELD_ELSEWHERE:
            raise AirflowException(says)
        stopped = {"exit": told["exit"], "code": error["code"], "message": error["message"][:_LONGEST_MESSAGE]}
        context["ti"].xcom_push(key="error", value=stopped)
        raise AirflowFailException(says)

    def _run(self, words: list[str]) -> tuple[dict[str, Any] | None, int, str]:
        """The line of JSON, the exit code, and the last lines of what went to stderr, all of which is in the log."""
        program = self.executable or Variable.get(COMMAND_VARIABLE, default="anchormix")
        call = [*shlex.split(program), *words]
        self.log.info("Running %s", shlex.join(call))
        try:
            # A session of its own, so that workers of the command end with it.
            self._process = process = subprocess.Popen(
                call,
                env=_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            raise AirflowFailException(
                f"{call[0]}: {error.strerror}. Set the Airflow Variable {COMMAND_VARIABLE} to the path of anchormix in "
                "the environment it is installed in, as the worker sees it."
            ) from None
        said: list[str] = []
        listener = threading.Thread(target=self._listen, args=(process.stderr, said), daemon=True)
        listener.start()
        try:
            stdout = process.stdout.read()
            code = process.wait()
        finally:
            self.on_kill()
        listener.join(_PATIENCE)
        return _line(stdout), code, "\n".join(said[-20:])

    def _listen(self, stderr: Iterable[str], said: list[str]) -> None:
        for line in stderr:
            self.log.info("%s", line.rstrip())
            said.append(line.rstrip())

    def on_kill(self) -> None:
        """Interrupted, a command gives back its leases; what it leaves behind otherwise the next run clears away."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        with contextlib.suppress(ProcessLookupError):  # nobody of the session is left
            os.killpg(process.pid, signal.SIGKILL)


class CheckOperator(AnchormixOperator):
    """Turns the params into what every later task is called with, so that a task that is cleared asks for the same."""

    def __init__(self, *, ready: Asset, **kwargs: Any) -> None:
        super().__init__(command="check", inlets=[ready], **kwargs)
        self.ready = ready

    def execute(self, context: Context) -> dict[str, Any]:
        params = context["params"]
        overrides = _overrides(params, context)
        checked = self.call(context, params["config"], *overrides)
        parent = params["parent"] or None
        if parent == _PREVIOUS:
            parent = _published_before(checked["output"], context["inlet_events"][self.ready])
            self.log.info("The mix before this one: %s", parent or "none, so this one has no parent")
        if parent is not None:
            overrides.append(_set("mix.parent", json.dumps(parent)))
            checked = self.call(context, params["config"], *overrides)
        return {**checked, "config": params["config"], "overrides": overrides, "parent": parent}


class VerifyOperator(AnchormixOperator):
    """Reads the published mix alone, and compares it with what `mix` said it had written."""

    def execute(self, context: Context) -> dict[str, Any]:
        params, mix = context["params"], _of_task("mix", context)
        words = [mix["output"], f"--expect={mix['logical_digest']}"]
        if params["human_verified"]:
            words.append(f"--floor=human_verified={params['human_verified']}")
        words += [f"--{name}={params[key]}" for name, key in (("key", "public_key"), ("trust", "trust")) if params[key]]
        if params["reread_inputs"]:
            words.append(f"--inputs={params['config']}")
        return self.call(context, *words)


class DiffOperator(AnchormixOperator):
    def execute(self, context: Context) -> dict[str, Any]:
        parent = _of_task("check", context)["parent"]
        if parent is None:
            raise AirflowSkipException("the mix has no parent to be compared with")
        mix = _of_task("mix", context)
        allowed = f"--allow-human-loss={context['params']['allow_human_loss']}"
        return self.call(context, parent, mix["output"], allowed)


class ReadyOperator(BaseOperator):
    """Tells of a mix that passed everything: what waits for the asset may read it."""

    def __init__(self, *, ready: Asset, **kwargs: Any) -> None:
        super().__init__(outlets=[ready], **kwargs)
        self.ready = ready

    def execute(self, context: Context) -> dict[str, Any]:
        mix = _of_task("mix", context)
        told = {name: mix[name] for name in ("output", "status", "plan", "logical_digest", "totals")}
        context["outlet_events"][self.ready].extra = told
        return told


class StoppedByOperator(BaseOperator):
    """Fails with the message of the stage that ended with one exit code, and is skipped where none did.

    Every kind of verdict is a task, so that the grid shows which it was and alerts can differ.
    """

    def __init__(self, *, exit_code: int, stages: Collection[str], **kwargs: Any) -> None:
        super().__init__(trigger_rule=TriggerRule.ONE_FAILED, retries=0, **kwargs)
        self.exit_code = exit_code
        self.stages = stages

    def execute(self, context: Context) -> None:
        ti = context["ti"]
        # An earlier attempt at the same run may have left a message at a stage that was not reached this time.
        states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id])[ti.run_id]
        for stage in self.stages:
            error = ti.xcom_pull(task_ids=stage, key="error") if states.get(stage) == "failed" else None
            if error and error["exit"] == self.exit_code:
                raise AirflowFailException(f"{stage}: {error['message']} ({error['code']})")
        raise AirflowSkipException(f"no stage ended with exit code {self.exit_code}")


def anchormix_dag(
    dag_id: str,
    *,
    schedule: Any = None,
    command: str | None = None,
    retries: int = 4,
    retry_delay: timedelta = timedelta(minutes=2),
    dag: Mapping[str, Any] | None = None,
    **defaults: Any,
) -> DAG:
    """A DAG of one mix. `defaults` are params; `command` goes before the Variable; `dag` has more settings of the DAG.

    Later retries wait longer, up to half an hour. One run at a time, because runs share an index.
    """
    ready = Asset(dag_id)
    settings = {
        "description": "A training mix with a proven floor of verified human text",
        "tags": ["anchormix"],
        "catchup": False,
        "max_active_runs": 1,
        "start_date": datetime(2026, 1, 1),
        **(dag or {}),
    }
    retrying = {
        "retries": retries,
        "retry_delay": retry_delay,
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
        "executable": command,
    }
    # Registered by the file that keeps it in a global, not by every file that imports this one.
    with DAG(
        dag_id, schedule=schedule, params=_params(defaults), doc_md=__doc__, auto_register=False, **settings
    ) as made:
        check = CheckOperator(task_id="check", ready=ready, **retrying)
        index, plan, mix = (
            AnchormixOperator(task_id=stage, command=stage, **retrying) for stage in ("index", "plan", "mix")
        )
        verify = VerifyOperator(task_id="verify", command="verify", **retrying)
        diff = DiffOperator(task_id="diff", command="diff", **retrying)
        ready_task = ReadyOperator(task_id="ready", ready=ready, trigger_rule=TriggerRule.NONE_FAILED)
        stages = [check, index, plan, mix, verify]
        check >> index >> plan >> mix >> verify >> diff >> ready_task
        with TaskGroup("stopped_by"):
            names = [stage.task_id for stage in stages]
            for code, name in STOPPED_BY.items():
                stages >> StoppedByOperator(task_id=name, exit_code=code, stages=names)
    return made


def _of_task(name: str, context: Context) -> dict[str, Any]:
    told: dict[str, Any] | None = context["ti"].xcom_pull(task_ids=name)
    if told is None:
        raise AirflowFailException(
            f"{name} has left no XCom in this run, as if marked by hand: clear {name}, and it runs"
        )
    return told


def _overrides(params: Mapping[str, Any], context: Context) -> list[str]:
    """The params as `--set` words; those in `overrides` come last, and win."""
    words = []
    if params["output"]:
        words.append(_set("output", json.dumps(_of_the_run(params["output"], context))))
    if params["index"]:
        words.append(_set("index", json.dumps(params["index"])))
    # Shares travel as they were written: as numbers they would be floats, and 1/3 none of them.
    floors = {"human_verified": params["human_verified"]} if params["human_verified"] else {}
    floors |= params["floors"]
    words += [_set(f"mix.floors.{of}", share) for of, share in floors.items()]
    words += [_set(f"mix.caps.{of}", share) for of, share in params["caps"].items()]
    return words + [f"--set={override}" for override in params["overrides"]]


def _set(key: str, value: str) -> str:
    return f"--set={key}={value}"


def _of_the_run(path: str, context: Context) -> str:
    """`{date}` and `{run_id}` filled in. Not Jinja, which would let whoever starts a run read connections."""
    run = context["dag_run"]
    values = {
        "date": (run.logical_date or run.run_after).strftime("%Y-%m-%d"),
        "run_id": re.sub(r"[^A-Za-z0-9._-]+", "-", run.run_id),
    }

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            known = " and ".join(f"{{{name}}}" for name in values)
            raise AirflowFailException(f"output: {found[0]} in {path!r} is not known; there are {known}")
        return values[found[1]]

    return re.sub(r"(?<!\$)\{([^{}]*)\}", value, path)  # ${NAME} is anchormix's own: the environment's value


def _published_before(output: str, events: Iterable[Any]) -> str | None:
    """The last mix that was ready before `output` first was: a repeated run finds the parent it had the first time."""
    before = None
    for event in events:
        published = event.extra["output"]
        if published == output:
            break
        before = published
    return before


def _environment() -> dict[str, str]:
    """The worker's, without what is Airflow's alone: paths of its packages, and its settings, which hold secrets."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME") and not name.startswith(("AIRFLOW__", "_AIRFLOW"))
    }


def _line(stdout: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        told = json.loads(stdout)
        if isinstance(told, dict) and "exit" in told:
            return told
    return None


def _kept(told: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: told[name] for name in ("status", "output", "totals")}
    for path in KEPT[told["command"]]:
        value: Any = told
        for name in path.split("."):
            value = value[name]
        kept[path.split(".")[-1]] = value
    return kept


anchormix = anchormix_dag("anchormix")
