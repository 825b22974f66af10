"""Candidates that could not be trained: evaluate passes that on, the gate judges the others and says who is missing."""

import json
from typing import Any

import pytest
from toy_run import ROOT, ToyRun

import registry
from clinprompt.evaluation.contradictions import contradiction
from clinprompt.evaluation.decision import DecisionRecord
from clinprompt.files import read_json
from clinprompt.params import load_params
from clinprompt.tuned.failure import TrainingFailure
from components.__main__ import summary
from registry.receipt import Receipt

REASON = "the loss is not finite any more in epoch 3"


@pytest.fixture(autouse=True)
def _no_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "champion", lambda name, alias="champion": None)


def fail(run: ToyRun, name: str, reason: str = REASON) -> None:
    """Let a candidate be one that could not be trained, and evaluate it."""
    folder = run.path("models") / name
    for file in folder.iterdir():
        file.unlink()
    method, seed = name.rsplit("-", 1)
    failure = TrainingFailure(dataset="toy", candidate=method, method=method, seed=int(seed), reason=reason)
    failure.write(folder / "failed.json")
    assert run.evaluate(name) == 0


def message(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def test_evaluate_writes_the_reason_in_place_of_its_results(run: ToyRun, capsys: pytest.CaptureFixture[str]) -> None:
    fail(run, "zero_shot-1")
    assert message(capsys)["not_trained"] == REASON
    assert run.metrics("zero_shot-1")["reason"] == REASON
    assert set(read_json(run.root / "summary/zero_shot-1.json").values()) == {None}
    assert run.predictions("zero_shot-1").is_file()
    plots = run.path("evaluations") / "zero_shot-1" / "plots"
    assert [file.name for file in plots.iterdir()] == ["not_trained.json"]


def test_the_others_are_judged_and_it_is_named(run: ToyRun) -> None:
    fail(run, "zero_shot-1")
    assert run.gate() == 0
    record = run.decision
    assert (record["verdict"], record["chosen"]["folder"]) == ("accepted", "coop-1")
    assert record["reasons"][-1] == f"zero_shot-1 was not trained: {REASON}"
    [missing] = [one for one in record["candidates"] if one["candidate"] == "zero_shot"]
    assert (missing["not_trained"], missing["model_digest"], missing["test"]) == (REASON, None, None)
    assert list(record["inputs"]["failures"]) == ["zero_shot-1"]


@pytest.mark.parametrize("listed", [True, False])
def test_no_first_champion_is_made_by_the_shipped_rules_without_a_zero_shot(run: ToyRun, listed: bool) -> None:
    run.set_rules(*load_params(ROOT / "params.yaml").gate.listed)
    if listed:
        fail(run, "zero_shot-1")
    else:
        run.set_params("candidates", methods=["coop"])
    assert run.gate() == 0
    record = run.decision
    assert record["verdict"] == "rejected"
    assert {check["rule"]: check["passed"] for check in record["checks"]} == {
        "floor": True,
        "better_than_zero_shot": False,
    }
    assert "so nothing says that tuning was worth it" in record["reasons"][0]


def test_another_reason_makes_another_decision(run: ToyRun) -> None:
    fail(run, "zero_shot-1")
    assert run.gate() == 0
    before = DecisionRecord.read(run.path("decision"))
    fail(run, "zero_shot-1", "another reason")
    assert run.gate() == 0
    after = DecisionRecord.read(run.path("decision"))
    assert before.inputs != after.inputs
    assert contradiction(before, after) is not None


def test_one_that_is_missing_without_a_reason_still_rejects(run: ToyRun) -> None:
    for file in (run.path("models") / "zero_shot-1").iterdir():
        file.unlink()
    assert run.gate() == 0
    assert run.decision["verdict"] == "rejected"


def test_without_any_trained_candidate_nothing_is_decided(run: ToyRun, capsys: pytest.CaptureFixture[str]) -> None:
    fail(run, "zero_shot-1")
    fail(run, "coop-1", "n_ctx is too large")
    assert run.gate() == 64
    said = message(capsys)["message"]
    assert said == (
        "toy: no candidate could be trained, so nothing was decided: coop-1: n_ctx is too large; "
        f"zero_shot-1: {REASON}."
    )
    assert not run.path("decision").exists()


def test_where_all_are_required_one_is_enough_to_stop(run: ToyRun, capsys: pytest.CaptureFixture[str]) -> None:
    fail(run, "zero_shot-1")
    run.set_params("candidates", all_required=True)
    assert run.gate() == 64
    assert (
        f"candidates.all_required asks for, could be trained, so nothing was decided: zero_shot-1: {REASON}."
        in (message(capsys)["message"])
    )


def test_the_summary_names_it(run: ToyRun) -> None:
    fail(run, "zero_shot-1")
    assert run.gate() == 0
    runs = run.root / "runs"
    runs.mkdir()
    (runs / "toy").symlink_to(run.root)
    Receipt(dataset="toy", verdict="accepted", action="promoted", model="toy", version=1).write(
        run.root / "promote" / "receipt.json"
    )
    text = summary(load_params(run.path("params")), runs)
    assert f"  zero_shot-1 was not trained: {REASON}" in text
    assert "    zero_shot      seed 1   not trained" in text
