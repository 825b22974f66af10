"""From a task in Airflow's pages to the MLflow run that it made."""

from typing import Any

from airflow.sdk import BaseOperatorLink

from clinprompt_dags.commands import FACTS


class MlflowRunLink(BaseOperatorLink):
    """The `run_url` that a stage answered with; no link where it answered none."""

    @property
    def name(self) -> str:
        """The button's text."""
        return "MLflow run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Called in the worker, with the task instance itself, when the task has ended."""
        facts = ti_key.xcom_pull(task_ids=ti_key.task_id, key=FACTS, map_indexes=ti_key.map_index)
        return str((facts or {}).get("run_url") or "")
