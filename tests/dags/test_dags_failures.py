"""What exit codes lead to, and what people are told."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.mark.parametrize("code", [64, 65, 66, 67, 70, 77])
def test_what_would_fail_again_is_not_tried_again(code: int) -> None:
    assert decision(code).action.value == "fail"


@pytest.mark.parametrize("code", [72, 75, 137, 143, -9])
def test_what_was_interrupted_or_too_large_is_tried_again_soon(code: int) -> None:
    found = decision(code)
    assert found.action.value == "retry"
    assert found.retry_delay.total_seconds() == 5


@pytest.mark.parametrize("code", [69, 1, 127])
def test_a_service_or_an_unknown_cause_gets_the_growing_delay(code: int) -> None:
    assert decision(code).action.value == "default"


def decision(code: int) -> Any:
    """What the retry policy makes of an exit code, after Airflow has stored and read it."""
    from airflow.sdk import ExceptionRetryPolicy

    from clinprompt_dags.failures import failure, retry_policy

    policy = ExceptionRetryPolicy.deserialize(retry_policy().serialize())
    return policy.evaluate(failure(code, "message"), 1, 2)


def test_every_code_of_the_components_has_words() -> None:
    from clinprompt.contract.exit_codes import ExitCode
    from clinprompt_dags.failures import meaning

    assert all("unknown" not in meaning(code).title for code in ExitCode if code != ExitCode.OK)
    assert meaning(-9).advice == meaning(137).advice
    assert "signal 15" in meaning(143).title


def test_the_result_is_what_standard_output_ends_with() -> None:
    from clinprompt_dags.failures import ComponentFailed
    from clinprompt_dags.task import conclude, read_result

    assert read_result(["noise", '{"a": 1}', '{"b": {"c": 2}}', ""]) == {"b": {"c": 2}}
    assert read_result(['{"a": 1}', "{", '  "b": {', '    "c": 2', "  }", "}"]) == {"b": {"c": 2}}
    assert read_result(["none"]) is None
    with pytest.raises(ComponentFailed, match="no result line") as caught:
        conclude(0, None, [])
    assert caught.value.code == 70
    with pytest.raises(ComponentFailed, match=r"exit code 65 \(data rejected\): too few") as caught:
        conclude(65, {"message": "too few"}, [str(number) for number in range(50)])
    assert caught.value.tail == [str(number) for number in range(30, 50)]


class Webhook(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    got: list[tuple[str, str | None, dict[str, Any]]] = []

    def do_POST(self) -> None:  # the base class's name
        """Answer with 204."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.path, self.headers.get("Authorization"), json.loads(body)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def context(error: Any) -> dict[str, Any]:
    """The context of a failed task."""
    ti = SimpleNamespace(
        dag_id="retrain", run_id="r", task_id="validate", map_index=-1, try_number=1, log_url="http://airflow.test/x"
    )
    return {"ti": ti, "exception": error, "dag_run": SimpleNamespace(partition_key="a@r1")}


def test_a_failure_is_told_to_the_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    from clinprompt_dags.callbacks import task_failed
    from clinprompt_dags.failures import failure

    server = HTTPServer(("127.0.0.1", 0), Webhook)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    alerts = {"conn_type": "http", "host": "127.0.0.1", "port": server.server_port, "password": "hush"}
    monkeypatch.setenv("AIRFLOW_CONN_CLINPROMPT_ALERTS", json.dumps({**alerts, "extra": {"endpoint": "/hook"}}))
    task_failed(context(failure(65, "a leak between the splits", ["line 1", "line 2"])))
    thread.join()
    server.server_close()
    path, authorization, report = Webhook.got.pop()
    assert (path, authorization) == ("/hook", "Bearer hush")
    assert report["task_id"] == "validate"
    assert report["partition"] == "a@r1"
    assert (report["exit_code"], report["meaning"]) == (65, "data rejected")
    assert report["last_lines"] == ["line 1", "line 2"]
    assert "new release" in report["next"]
    assert report["url"] == "http://airflow.test/x"


def test_a_failure_is_logged_when_no_webhook_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from clinprompt_dags.callbacks import deadline_missed, task_failed

    monkeypatch.setenv("AIRFLOW_CONN_CLINPROMPT_ALERTS", "http://127.0.0.1:9")
    task_failed(context(None))
    deadline_missed({"dag_run": {"dag_run_id": "r7"}}, dag_id="retrain")
    assert "did not take the alert" in caplog.text
    assert "the worker may have been killed" in caplog.text
    assert "r7" in caplog.text


def test_the_link_to_mlflow_is_the_promotions_answer() -> None:
    from clinprompt_dags.links import MlflowRunLink

    facts = {"run_url": "http://mlflow.test/#/runs/7"}
    ti = SimpleNamespace(task_id="promote", map_index=-1, xcom_pull=lambda **_: facts)
    assert MlflowRunLink().get_link(None, ti_key=ti) == facts["run_url"]
    ti = SimpleNamespace(task_id="promote", map_index=-1, xcom_pull=lambda **_: None)
    assert MlflowRunLink().get_link(None, ti_key=ti) == ""
