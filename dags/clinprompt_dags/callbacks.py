"""What people are told when a task fails or a run is late: the log, and a webhook when there is one.

The connection `clinprompt_alerts` (type http) names the webhook: its host may be the whole URL, `endpoint` in its extra
is appended, and its password is sent as a bearer token.
"""

import json
import logging
import urllib.error
import urllib.request
from typing import Any

from clinprompt_dags.environment import base_url, find_connection
from clinprompt_dags.failures import ComponentFailed, meaning

ALERTS = "clinprompt_alerts"
_TIMEOUT = 10  # seconds

log = logging.getLogger("clinprompt.alerts")


def task_failed(context: Any) -> None:
    """Tell what failed, why, and what to do next; for every task's `on_failure_callback`."""
    ti, error = context["ti"], context.get("exception")
    report: dict[str, Any] = {
        "event": "task failed",
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "partition": getattr(context.get("dag_run"), "partition_key", None),
        "url": ti.log_url,
    }
    if isinstance(error, ComponentFailed):
        cause = meaning(error.code)
        report |= {"exit_code": error.code, "meaning": cause.title, "message": error.message}
        report |= {"next": cause.advice, "last_lines": error.tail}
    else:
        report |= {"message": str(error) if error else "no exception was reported; the worker may have been killed"}
        report |= {"next": "Read the task's log; clear the task when the cause is gone."}
    send(report)


def deadline_missed(context: Any = None, **facts: Any) -> None:
    """Tell that a run takes longer than `airflow.deadline_hours`; for the DAGs' DeadlineAlert."""
    run = (context or {}).get("dag_run") or {}
    report = {
        "event": "deadline missed",
        **facts,
        "run_id": run.get("dag_run_id") or run.get("run_id") if isinstance(run, dict) else str(run),
        "message": "The run takes longer than airflow.deadline_hours in params.yaml.",
        "next": "Look which task waits: for a pool's slot, for an approval, or for a service.",
    }
    send(report)


def send(report: dict[str, Any]) -> None:
    """Log a report and post it; a webhook that does not answer is logged and changes nothing."""
    log.error("%s", json.dumps(report, indent=2, default=str))
    connection = find_connection(ALERTS)
    if connection is None:
        return
    url = base_url(connection) + str(connection.extra_dejson.get("endpoint", ""))
    if not url.startswith(("http://", "https://")):
        log.error("The connection %s must name an http or https URL.", ALERTS)
        return
    headers = {"Content-Type": "application/json"}
    if connection.password:
        headers["Authorization"] = f"Bearer {connection.password}"
    body = json.dumps(report, default=str).encode()
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310 # checked above
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            log.info("The alert was sent; the webhook answered %s.", answer.status)
    except (urllib.error.URLError, OSError) as error:
        log.error("The webhook of the connection %s did not take the alert: %s", ALERTS, error)
