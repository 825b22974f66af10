"""Links between a promotion in MLflow and the scheduler's task that asked for it."""

import getpass
import json
import os
from typing import Any

from clinprompt.contract.variables import AIRFLOW, MLFLOW_UI
from clinprompt.errors import BadParams
from registry import tracking

_TAGGED = ("dag_id", "run_id", "task_id", "try_number", "url")


def airflow_tags() -> dict[str, str]:
    """Tags that lead from MLflow back to the Airflow task that this process is; empty outside of Airflow.

    They come from the variable CLINPROMPT_AIRFLOW and are part of no digest: who asked is not what was made.

    Raises:
        BadParams: the variable holds something else than a JSON object.
    """
    task = _airflow()
    return {f"airflow_{key}": str(task[key]) for key in _TAGGED if task.get(key) not in (None, "")}


def requester() -> str:
    """Who called the registry, for its journal: the Airflow run, or else the user's login name."""
    return airflow_run() or _login()


def airflow_run() -> str | None:
    """The Airflow run that this process is part of: the same in each of its tasks and tries."""
    task = _airflow()
    return f"airflow {task.get('dag_id')} {task.get('run_id')}" if task else None


def run_url(name: str, version: int) -> str | None:
    """The page, in MLflow's UI, of the run that a registered version comes from; None for a store without a server.

    The variable CLINPROMPT_MLFLOW_UI is the address that people's browsers reach the server by, where it is not that of
    MLFLOW_TRACKING_URI.
    """
    if not tracking.tracking_uri().startswith(("http://", "https://")):
        return None
    client = tracking.connect()
    with tracking.service_errors():
        run_id = client.get_model_version(name, str(version)).run_id
        if not run_id:
            return None
        experiment = client.get_run(run_id).info.experiment_id
    base = (os.environ.get(MLFLOW_UI) or tracking.shown_uri()).rstrip("/")
    return f"{base}/#/experiments/{experiment}/runs/{run_id}"


def _airflow() -> dict[str, Any]:
    text = os.environ.get(AIRFLOW) or "{}"
    try:
        task = json.loads(text)
    except (ValueError, RecursionError):
        task = None
    if not isinstance(task, dict):
        raise BadParams(
            f'The variable {AIRFLOW} must be a JSON object with "dag_id", "run_id", …, found {text[:80]!r}.'
        )
    return task


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"user {os.getuid()}"
