"""Each candidate of a decision is a run in MLflow."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from fabricate import Run, gate, promote

from clinprompt.errors import ServiceDown
from registry import listing
from registry.tracking import connect


def runs(kind: str) -> list[Any]:
    """The MLflow runs of one kind, by name."""
    client = connect()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return sorted(client.search_runs(experiments, f"tags.kind = '{kind}'"), key=lambda run: str(run.info.run_name))


@pytest.fixture
def run(finished: Run, fresh_copy: Callable[[Run], Run]) -> Run:
    """A project whose decision no gate has logged."""
    return fresh_copy(finished)


@pytest.mark.parametrize("verdict", ["accepted", "rejected"])
def test_every_candidate_is_a_run_below_that_of_the_decision(run: Run, verdict: str) -> None:
    record = run.decide("coop-1", "zero_shot-1", floor=0.3 if verdict == "accepted" else 1.0)
    assert gate(run) == 0
    [decision] = runs("decision")
    assert (decision.data.tags["verdict"], decision.info.status) == (verdict, "FINISHED")
    assert record["reasons"][0] in decision.data.tags["mlflow.note.content"]
    nested = runs("candidate")
    assert [one.info.run_name for one in nested] == ["tiny coop-1", "tiny zero_shot-1"]
    for one, candidate in zip(nested, record["candidates"], strict=True):
        tags, params, metrics = one.data.tags, one.data.params, one.data.metrics
        assert tags["mlflow.parentRunId"] == decision.info.run_id
        assert (tags["dataset"], tags["method"], tags["seed"]) == ("tiny", candidate["method"], "1")
        assert tags["model_digest"] == candidate["model_digest"]
        assert tags["predictions_digest"] == record["inputs"]["predictions"][f"{candidate['candidate']}-1"]
        assert tags["manifest_digest"] == record["inputs"]["manifest"]
        assert params["epochs"] == "3"
        expected = candidate["test"]["balanced_accuracy"]
        for suffix, key in (("", "value"), ("_low", "low"), ("_high", "high")):
            assert metrics[f"test_balanced_accuracy{suffix}"] == pytest.approx(expected[key])
    outcomes = [one.data.tags["decision"] for one in nested]
    assert outcomes == (["chosen", "not chosen"] if verdict == "accepted" else ["rejected", "rejected"])


def test_the_same_decision_is_logged_once_and_the_registered_model_lies_beside_it(run: Run) -> None:
    assert [gate(run), gate(run), promote(run), gate(run)] == [0, 0, 0, 0]
    assert (len(runs("decision")), len(runs("candidate"))) == (1, 2)
    registered = connect().get_run(listing.model("tiny")["versions"][0]["run"])
    assert registered.data.tags["mlflow.parentRunId"] == runs("decision")[0].info.run_id


@pytest.mark.parametrize("step", ["log_batch", "set_terminated"])
@pytest.mark.parametrize("done", [0, 1])
def test_an_attempt_that_stopped_is_gone_on_with(
    run: Run, monkeypatch: pytest.MonkeyPatch, step: str, done: int
) -> None:
    client = type(connect())
    real, calls = getattr(client, step), []

    def stop(self: Any, *facts: Any) -> Any:
        calls.append(step)
        if len(calls) > done:
            raise KeyboardInterrupt
        return real(self, *facts)

    with monkeypatch.context() as patch:
        patch.setattr(client, step, stop)
        assert gate(run) == 75
    assert gate(run) == 0
    assert {one.info.status for one in [*runs("decision"), *runs("candidate")]} == {"FINISHED"}
    assert (len(runs("decision")), len(runs("candidate"))) == (1, 2)


def test_a_server_that_goes_away_costs_no_decision(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*files: Any) -> bool:
        raise ServiceDown("The MLflow server at http://localhost:1 does not answer.")

    run.decision.unlink()
    monkeypatch.setattr("components.gate.__main__.log_candidates", away)
    assert gate(run) == 0
    assert json.loads(run.decision.read_text())["verdict"] == "accepted"
    assert "the next run tries again" in caplog.text


def test_a_candidate_without_a_model_is_a_run_too_and_no_file_of_the_data_is_named(run: Run) -> None:
    (run.folder / "tune" / "zero_shot-1" / "model.yaml").unlink()
    run.decision.unlink()
    assert gate(run) == 0
    assert [one.data.tags["decision"] for one in runs("candidate")] == ["rejected", "not measured"]
    assert runs("decision")[0].data.tags["mlflow.note.content"] == "rejected: see the reasons in decision.json"


def test_what_is_logged_already_is_found_without_mlflow(run: Run) -> None:
    assert gate(run) == 0
    code = (
        "import sys; from pathlib import Path; from registry.candidates import log_candidates;"
        f"assert not log_candidates('clinprompt', Path({str(run.decision)!r}), Path('.'));"
        "assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=run.root, check=True, env={"PYTHONPATH": ":".join(sys.path)})
