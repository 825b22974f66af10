"""A small client of Airflow's REST API, for tests and for trying things out."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from clinprompt.errors import ServiceDown
from infra.dev.servers.web import RestError, request

FINISHED = frozenset({"success", "failed"})
_POLL = 1.0  # seconds


class Airflow:
    """Airflow's REST API as one user."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url
        self.user = user
        self._password = password
        self._token = ""

    def call(self, method: str, path: str, *, body: Any = None, **query: Any) -> Any:
        """Call a path below /api/v2 and return its JSON; signs in when needed."""
        for _ in range(2):
            if not self._token:
                login = {"username": self.user, "password": self._password}
                self._token = request("POST", f"{self.url}/auth/token", body=login)["access_token"]
            try:
                return request(method, f"{self.url}/api/v2{path}", body=body, query=query, token=self._token)
            except RestError as error:
                if error.status != 401:
                    raise
                self._token = ""
        raise ServiceDown(f"{self.url} does not accept the user {self.user}")

    def health(self) -> dict[str, Any]:
        """The state of the database, scheduler, dag-processor and triggerer."""
        return dict(request("GET", f"{self.url}/api/v2/monitor/health", timeout=5))

    # DAGs

    def dags(self) -> list[str]:
        """The ids of the DAGs."""
        return [dag["dag_id"] for dag in self.call("GET", "/dags", limit=1000, exclude_stale=True)["dags"]]

    def import_errors(self) -> dict[str, str]:
        """The DAG files that could not be read: file name to traceback."""
        errors = self.call("GET", "/importErrors", limit=1000)["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def wait_for_dags(self, *dag_ids: str, timeout: float = 300) -> None:
        """Wait until the DAGs have been read."""
        expected = set(dag_ids)
        wait(lambda: expected <= set(self.dags()), timeout, lambda: f"DAGs {expected - set(self.dags())} to be read")

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run."""
        self.call("PATCH", f"/dags/{quote(dag_id)}", body={"is_paused": False})

    # Runs

    def trigger(
        self,
        dag_id: str,
        conf: dict[str, Any] | None = None,
        *,
        run_id: str | None = None,
        partition: str | None = None,
    ) -> str:
        """Start a run and return its id."""
        body = {"conf": conf or {}, "logical_date": None, "dag_run_id": run_id, "partition_key": partition}
        started = self.call("POST", f"/dags/{quote(dag_id)}/dagRuns", body=body)
        return str(started["dag_run_id"])

    def asset_event(self, asset: str, extra: dict[str, Any] | None = None, *, partition: str | None = None) -> None:
        """Tell Airflow that an asset, by its name, has changed."""
        assets = self.call("GET", "/assets", name_pattern=asset, limit=1000)["assets"]
        ids = [entry["id"] for entry in assets if entry["name"] == asset]
        if not ids:
            raise RestError(404, f"Airflow knows no asset {asset!r}")
        self.call("POST", "/assets/events", body={"asset_id": ids[0], "extra": extra or {}, "partition_key": partition})

    def runs(self, dag_id: str, *, partition: str | None = None) -> list[dict[str, Any]]:
        """A DAG's runs, oldest first; only those of one partition key when it is given."""
        dag_runs = self.call("GET", f"/dags/{quote(dag_id)}/dagRuns", limit=1000, order_by="run_after")["dag_runs"]
        return [run for run in dag_runs if partition in (None, run["partition_key"])]

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run; its "state" is queued, running, success or failed."""
        return dict(self.call("GET", _run(dag_id, run_id)))

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = 300) -> str:
        """Wait until a run has ended; returns success or failed."""
        wait(
            lambda: self.run(dag_id, run_id)["state"] in FINISHED,
            timeout,
            lambda: f"{dag_id} {run_id} to end; its tasks: {self.states(dag_id, run_id)}",
        )
        return str(self.run(dag_id, run_id)["state"])

    # Task instances

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """A run's task instances."""
        return list(self.call("GET", f"{_run(dag_id, run_id)}/taskInstances", limit=1000)["task_instances"])

    def states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """The state of each task instance: "task" or "task[map index]" to state."""
        return {
            task["task_id"] + (f"[{task['map_index']}]" if task["map_index"] >= 0 else ""): task["state"]
            for task in self.tasks(dag_id, run_id)
        }

    def wait_for_task(
        self, dag_id: str, run_id: str, task_id: str, *states: str, map_index: int = -1, timeout: float = 300
    ) -> dict[str, Any]:
        """Wait until a task instance is in one of the states (default: running); returns it."""
        expected, instance = states or ("running",), {}

        def reached() -> bool:
            for task in self.tasks(dag_id, run_id):
                if (task["task_id"], task["map_index"]) == (task_id, map_index):
                    instance.update(task)
            return instance.get("state") in expected

        wait(reached, timeout, lambda: f"{dag_id} {run_id} {task_id} to be {expected}; it is {instance.get('state')}")
        return instance

    def xcom(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, key: str = "return_value") -> Any:
        """What a task returned, or another of its XComs."""
        path = f"{_task(dag_id, run_id, task_id)}/xcomEntries/{quote(key)}"
        return self.call("GET", path, map_index=map_index)["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, attempt: int = 1) -> str:
        """The log of one try of a task, one event per line."""
        path = f"{_task(dag_id, run_id, task_id)}/logs/{attempt}"
        content = self.call("GET", path, map_index=map_index, full_content=True)["content"]
        return "\n".join(line if isinstance(line, str) else str(line.get("event", line)) for line in content)

    def failures(self, dag_id: str, run_id: str, lines: int = 25) -> str:
        """What a run's failed task instances said last, for a person to read."""
        told = [f"{dag_id} {run_id}: {self.states(dag_id, run_id)}"]
        for task in self.tasks(dag_id, run_id):
            if task["state"] == "failed":
                name, index, attempt = task["task_id"], task["map_index"], task["try_number"]
                said = self.log(dag_id, run_id, name, map_index=index, attempt=attempt).splitlines()
                told += [f"{name}, map index {index}, try {attempt}:", *said[-lines:]]
        return "\n".join(told)

    # Human in the loop

    def waiting_for_people(self, dag_id: str = "~", run_id: str = "~") -> list[dict[str, Any]]:
        """The questions that nobody has answered."""
        answer = self.call("GET", f"{_run(dag_id, run_id)}/hitlDetails", response_received=False, limit=1000)
        return list(answer["hitl_details"])

    def respond(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        *options: str,
        map_index: int = -1,
        params: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Answer a question, such as with "Approve" or "Reject"."""
        path = f"{_task(dag_id, run_id, task_id)}/{map_index}/hitlDetails"
        body = {"chosen_options": list(options), "params_input": params or {}}
        return dict(self.call("PATCH", path, body=body))

    # What operators set up

    def set_pool(self, name: str, slots: int) -> None:
        """Make a pool, or change its slots."""
        try:
            self.call("POST", "/pools", body={"name": name, "slots": slots})
        except RestError as error:
            if error.status != 409:
                raise
            body = {"pool": name, "slots": slots, "include_deferred": False}
            self.call("PATCH", f"/pools/{quote(name)}", body=body)

    def set_connection(self, name: str, kind: str, **fields: Any) -> None:
        """Make a connection, or replace it; fields: host, port, schema, login, password, extra (JSON text)."""
        body = {"connection_id": name, "conn_type": kind, **fields}
        try:
            self.call("POST", "/connections", body=body)
        except RestError as error:
            if error.status != 409:
                raise
            self.call("PATCH", f"/connections/{quote(name)}", body=body)


def wait(condition: Callable[[], bool], timeout: float, description: Callable[[], str]) -> None:
    """Wait until a condition holds; raise TimeoutError that says what was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:.0f} s for {description()}")
        time.sleep(_POLL)


def heartbeat_after(health: dict[str, Any], component: str, since: float) -> bool:
    """Whether a component is healthy, with a sign of life after a time (in seconds since 1970)."""
    state = health.get(component.replace("-", "_"), {})
    heartbeat = state.get(f"latest_{component.replace('-', '_')}_heartbeat")
    if state.get("status") != "healthy" or not heartbeat:
        return False
    return datetime.fromisoformat(heartbeat).astimezone(UTC).timestamp() >= since


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='~')}"


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}"
