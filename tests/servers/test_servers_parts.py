"""The real servers: each does its work, comes back after a stop, and leaves nothing behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import mlflow
import pytest
import small_stack
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from clinprompt.errors import BadParams, ServiceDown
from infra.dev.servers import RestError, Stack
from infra.dev.servers.rest import wait

pytestmark = pytest.mark.servers


@pytest.fixture
def s3(stack: Stack) -> Callable[..., Any]:
    """Makes a client of the stack's S3 server; other keys can be given."""

    def make(**other: str) -> Any:
        env = stack.env | other
        return boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_DEFAULT_REGION"],
            config=Config(retries={"total_max_attempts": 1}),
        )

    return make


def test_airflow_has_read_the_dags_and_made_the_pools(stack: Stack) -> None:
    stack.airflow.wait_for_dags("smoke")
    pools = {pool["name"]: pool["slots"] for pool in stack.airflow.call("GET", "/pools")["pools"]}
    assert (pools["gpu"], pools["promotion"]) == (2, 1)
    names = {entry["connection_id"] for entry in stack.airflow.call("GET", "/connections")["connections"]}
    assert {"clinprompt_store", "clinprompt_mlflow", "clinprompt_alerts"} <= names


def test_what_an_operator_has_changed_outlives_a_restart(stack: Stack) -> None:
    stack.airflow.set_pool("gpu", 1)
    stack.airflow.set_connection("clinprompt_alerts", "http", host="localhost", port=9)
    stack.restart("api-server")
    try:
        assert stack.airflow.call("GET", "/pools/gpu")["slots"] == 1
        assert stack.airflow.call("GET", "/connections/clinprompt_alerts")["port"] == 9
    finally:
        stack.airflow.set_pool("gpu", 2)
        port = stack.config.ports["alerts"]
        stack.airflow.set_connection("clinprompt_alerts", "http", schema="http", host="127.0.0.1", port=port)


def test_a_viewer_may_look_and_not_start(stack: Stack) -> None:
    stack.airflow.wait_for_dags("smoke")
    viewer = stack.as_user("viewer")
    assert "smoke" in viewer.dags()
    with pytest.raises(RestError) as refused:
        viewer.trigger("smoke")
    assert refused.value.status == 403


def test_celery_runs_tasks_and_their_logs_can_be_read(stack: Stack) -> None:
    stack.airflow.wait_for_dags("smoke")
    run_id = stack.airflow.trigger("smoke")
    states = small_stack.finished(stack, "smoke", run_id)
    assert set(states) == {"double[0]", "double[1]", "double[2]", "total"}
    assert stack.airflow.xcom("smoke", run_id, "total") == 12
    assert stack.airflow.xcom("smoke", run_id, "double", map_index=2) == 6
    assert "Done" in stack.airflow.log("smoke", run_id, "total")


def test_an_asset_event_starts_a_run_that_waits_for_a_person(stack: Stack) -> None:
    stack.airflow.wait_for_dags("smoke_approval")
    stack.airflow.unpause("smoke_approval")
    stack.airflow.asset_event("smoke", {"release": "r1"}, partition="smoke@r1")
    wait(lambda: bool(stack.airflow.runs("smoke_approval", partition="smoke@r1")), 60, lambda: "a run of smoke@r1")
    run_id = stack.airflow.runs("smoke_approval")[0]["dag_run_id"]
    stack.airflow.wait_for_task("smoke_approval", run_id, "approve", "awaiting_input")
    assert len(stack.airflow.waiting_for_people("smoke_approval", run_id)) == 1
    answer = stack.as_user("operator").respond("smoke_approval", run_id, "approve", "Approve")
    assert answer["responded_by"]["name"] == "operator"
    small_stack.finished(stack, "smoke_approval", run_id)
    assert stack.airflow.xcom("smoke_approval", run_id, "partition") == "smoke@r1"
    assert stack.airflow.waiting_for_people("smoke_approval", run_id) == []


def test_s3_takes_the_right_keys_only(s3: Callable[..., Any]) -> None:
    s3().put_object(Bucket="clinprompt", Key="store/a", Body=b"abc")
    assert s3().get_object(Bucket="clinprompt", Key="store/a")["Body"].read() == b"abc"
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        s3(AWS_SECRET_ACCESS_KEY="0" * 32).get_object(Bucket="clinprompt", Key="store/a")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3().list_objects_v2(Bucket="mlflow")


def test_s3_keeps_its_objects_while_it_is_down(stack: Stack, s3: Callable[..., Any]) -> None:
    s3().put_object(Bucket="clinprompt", Key="store/b", Body=b"still here")
    stack.stop("s3")
    with pytest.raises(BotoCoreError):
        s3().get_object(Bucket="clinprompt", Key="store/b")
    stack.start("s3")
    assert s3().get_object(Bucket="clinprompt", Key="store/b")["Body"].read() == b"still here"


def test_mlflow_keeps_a_model_over_a_kill(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)  # clients of MLflow need no keys of S3
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "adder.py"
    code.write_text(
        "import mlflow\n\n\nclass Adder(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input: list[int], params=None):\n"
        "        return [x + 1 for x in model_input]\n\n\nmlflow.models.set_model(Adder())\n"
    )
    mlflow.set_tracking_uri(stack.env["MLFLOW_TRACKING_URI"])
    mlflow.set_experiment("servers")
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="adder", python_model=str(code), registered_model_name="adder", pip_requirements=["mlflow"]
        )
    stack.kill("mlflow")
    with pytest.raises(mlflow.MlflowException):
        mlflow.MlflowClient().get_model_version("adder", "1")
    stack.start("mlflow")
    assert mlflow.pyfunc.load_model("models:/adder/1").predict([1, 2]) == [2, 3]


def test_a_killed_worker_comes_back_and_takes_tasks(stack: Stack) -> None:
    stack.kill("worker")
    assert not stack.running("worker")
    run_id = stack.airflow.trigger("smoke")
    stack.start("worker")
    small_stack.finished(stack, "smoke", run_id)


def test_the_scheduler_restarts(stack: Stack) -> None:
    stack.restart("scheduler")
    small_stack.finished(stack, "smoke", stack.airflow.trigger("smoke"))


def test_secrets_are_readable_by_their_owner_only(stack: Stack) -> None:
    for file in (stack.folder / "stack.json", stack.folder / "airflow" / "passwords.json"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    logs = "".join(path.read_text(errors="replace") for path in stack.folder.glob("logs/*.log"))
    assert not [name for name, secret in stack.config.secrets.items() if secret in logs]


def test_an_unknown_part_is_named(stack: Stack) -> None:
    with pytest.raises(BadParams, match="'s4' is not a part"):
        stack.stop("s4")


def test_a_part_that_cannot_start_names_its_log(stack: Stack) -> None:
    stack.stop("redis")
    with (
        socket.create_server(("127.0.0.1", stack.config.ports["redis"])),
        pytest.raises(ServiceDown, match=r"redis\.log"),
    ):
        stack.start("redis")
    stack.start("redis")


def test_when_the_caller_dies_nothing_is_left(stack: Stack, root: Path, tmp_path: Path) -> None:
    """A caller of its own that starts one server and is killed."""
    script = (
        "import pathlib, sys, time\nfrom infra.dev.servers import Stack\n"
        "stack = Stack.new(pathlib.Path(sys.argv[1]))\nstack.guard()\nstack.start('alerts')\n"
        "print('up', flush=True)\ntime.sleep(600)\n"
    )
    folder = tmp_path / "orphaned"
    command = [sys.executable, "-c", script, str(folder)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "up\n"
        other = Stack.open(folder)
        assert other.running("alerts")
        caller.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while other.running("alerts") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not other.running("alerts")
