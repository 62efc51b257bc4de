"""Runs DAGs inside Airflow's environment, by the real `dag.test()`: one request a line on stdin, one answer on stdout.

A request names the global of `own_dags` that holds the DAG, and the params of the run; the answer is what became of it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from airflow.models.xcom import XComModel
from airflow.sdk.exceptions import ParamValidationError
from airflow.utils.session import create_session
from sqlalchemy import select


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Airflow logs to stdout
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = ran(request["dag"], request["params"])
        except ParamValidationError as error:
            answer = {"refused": str(error)}
        sys.stdout.flush()
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # threads of Airflow's API in this process would be waited for, for seconds


def ran(name: str, params: dict[str, Any]) -> dict[str, Any]:
    # Made anew for each run, as a worker makes it: a run leaves its params in the DAG that it ran.
    for module in ("anchormix_dag", "own_dags"):
        sys.modules.pop(module, None)
    run = getattr(importlib.import_module("own_dags"), name).test(run_conf=params)
    with create_session() as session:
        tasks = {ti.task_id: (str(ti.state), ti.try_number) for ti in run.get_task_instances(session=session)}
        found = session.scalars(select(XComModel).where(XComModel.run_id == run.run_id, XComModel.dag_id == run.dag_id))
        xcoms = {f"{xcom.task_id}.{xcom.key}": XComModel.deserialize_value(xcom) for xcom in found}
    return {"state": str(run.state), "tasks": tasks, "xcoms": xcoms}


if __name__ == "__main__":
    main()
