"""What promote does not take on trust: the decision, a rejection, the metrics of its choice."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fabricate import Run, promote
from outcome import result

from clinprompt.files import write_json


@pytest.mark.parametrize("forgery", ["choice", "verdict", "numbers", "folder", "params"])
def test_a_forged_decision_promotes_nothing(
    finished: Run, fresh_copy: Callable[[Run], Run], capsys: pytest.CaptureFixture[str], forgery: str
) -> None:
    run = fresh_copy(finished)
    record = run.decide("coop-1", "zero_shot-1", floor=1.0 if forgery == "verdict" else 0.3)
    poor = next(c for c in record["candidates"] if c["candidate"] == "zero_shot")
    chosen = {key: poor[key] for key in ("candidate", "method", "seed", "model_digest")} | {"folder": "zero_shot-1"}
    if forgery == "choice":
        record["chosen"] = chosen
    elif forgery == "verdict":
        record |= {"verdict": "accepted", "chosen": chosen}
    elif forgery == "numbers":
        record["candidates"][0]["test"]["balanced_accuracy"]["value"] = 0.999
    elif forgery == "folder":
        record["chosen"]["folder"] = "../elsewhere"
    else:
        record["params"]["rules"][0]["at_least"] = 0.0
    write_json(run.decision, record)
    assert promote(run) == 67
    assert "dvc repro" in result(capsys)["message"]
    assert not run.receipt.exists()
    assert not (run.root / "mlflow.db").exists()


@pytest.mark.parametrize("forgery", ["verdict", "reasons", "floor", "comparison", "numbers"])
def test_a_forged_rejection_is_not_told_as_the_gate_s(
    finished: Run, fresh_copy: Callable[[Run], Run], capsys: pytest.CaptureFixture[str], forgery: str
) -> None:
    run = fresh_copy(finished)
    record = run.decide("coop-1", "zero_shot-1", floor=0.3 if forgery in ("verdict", "comparison") else 1.0)
    if forgery in ("verdict", "comparison"):
        record |= {"verdict": "rejected", "chosen": None}
    if forgery == "comparison":
        worse = {"name": "not_worse_than_champion.balanced_accuracy", "value": -0.9, "low": -0.9, "high": -0.9}
        told = {"rule": "not_worse_than_champion", "side": "at_least", "says": "worse", "beside": "champion"}
        record["checks"].append(worse | told | {"candidate": "coop-1", "bound": -0.5, "passed": False})
    elif forgery == "reasons":
        record["reasons"] = ["coop-1: all is lost"]
    elif forgery == "floor":
        record["checks"][0]["low"] = 0.1
    elif forgery == "numbers":
        record["candidates"][0]["test"]["balanced_accuracy"]["value"] = 0.001
    write_json(run.decision, record)
    assert promote(run) == 67
    assert "dvc repro" in result(capsys)["message"]
    assert not run.receipt.exists()


def test_a_rejection_that_only_a_forged_comparison_gives_is_refused(
    challenged: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(challenged.decision.read_text())
    for check in record["checks"]:
        if check["name"].startswith("not_worse"):
            check |= {"value": -0.9, "low": -0.9, "high": -0.9, "passed": False}
    write_json(challenged.decision, record | {"verdict": "rejected", "chosen": None})
    assert promote(challenged) == 67
    assert "its verdict is rejected, the predictions give accepted" in result(capsys)["message"]


def test_a_forged_decision_is_found_where_its_choice_is_the_champion_already(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(run.decision.read_text())
    record["candidates"][0]["test"]["balanced_accuracy"]["value"] = 0.999
    write_json(run.decision, record)
    assert promote(run) == 67
    assert "coop-1" in result(capsys)["message"]


def test_a_forged_decision_is_found_where_another_champion_has_overtaken_it(
    challenged: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(challenged.decision.read_text())
    record["champion"]["version"] = "7"
    record["candidates"][0]["test"]["balanced_accuracy"]["value"] = 0.999
    write_json(challenged.decision, record)
    assert promote(challenged) == 67
    assert "coop-2" in result(capsys)["message"]


def test_nothing_that_is_told_of_the_comparison_is_taken_on_trust(
    challenged: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    true = challenged.decision.read_text()

    def refused(change: Callable[[dict[str, Any]], object]) -> str:
        record = json.loads(true)
        change(record)
        write_json(challenged.decision, record)
        assert promote(challenged) == 67
        return str(result(capsys)["message"])

    def comparison(record: dict[str, Any]) -> dict[str, Any]:
        [check] = [check for check in record["checks"] if check.get("beside")]
        return dict(check)

    def tell(record: dict[str, Any], **facts: Any) -> None:
        record["checks"] = [check | facts if check.get("beside") else check for check in record["checks"]]

    says = comparison(json.loads(true))["says"]
    assert "its reasons are not those" in refused(lambda record: record.update(reasons=["it is far better"]))
    assert "its reasons are not those" in refused(lambda record: record["reasons"].append("a doctor has seen it"))
    for facts in ({"says": f"{says}, far better"}, {"design": None}, {"change": "nothing"}, {"high": 0.9}):
        assert "its checks are not those" in refused(lambda record, facts=facts: tell(record, **facts))
    assert "its checks are not those" in refused(lambda record: record["checks"].reverse())
    assert "its checks are not those" in refused(lambda record: record["cross_checks"].clear())
    assert "is one on 'other'" in refused(lambda record: record.update(dataset="other"))
    challenged.decision.write_text(true)
    assert promote(challenged) == 0


@pytest.mark.parametrize("where", ["test", "per_class", "slices", "patients"])
def test_forged_metrics_are_not_registered(
    finished: Run, fresh_copy: Callable[[Run], Run], capsys: pytest.CaptureFixture[str], where: str
) -> None:
    run = fresh_copy(finished)
    path = run.folder / "metrics" / "coop-1.json"
    metrics = json.loads(path.read_text())
    if where == "patients":
        metrics["patients"]["images"] += 1
    elif where == "test":
        metrics["test"]["auroc"]["value"] = 0.999
    else:
        next(iter(metrics[where].values()))["auroc"]["value"] = 0.999
    write_json(path, metrics)
    assert promote(run) == 67
    assert "coop-1.json is not what" in result(capsys)["message"]
    assert not (run.root / "mlflow.db").exists()
