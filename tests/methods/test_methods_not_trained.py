"""A candidate that can't be trained leaves its reason in place of a model, and does not stop the others."""

import json
from typing import Any

import pytest
from tune_workspace import Workspace

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.errors import InputMissing
from clinprompt.files import read_json
from clinprompt.tuned.artifact import load_model
from clinprompt.tuned.failure import failure_in

DIVERGES = {"methods.coop.learning_rate": 1e30, "methods.coop.warmup_epochs": 0}


def line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The component's result line."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (DIVERGES, "the loss is not finite any more in epoch"),
        ({"methods.coop": {"n_ctx": 60, "context_init": None}}, "n_ctx: must be at most"),
        ({"methods.coop": {"n_ctx": 4, "context_init": "one"}}, "the number of tokens of 'one'"),
    ],
)
def test_its_reason_stands_where_its_model_would(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], reason: str
) -> None:
    workspace.change(changes)
    assert workspace.tune("coop", "coop-1") == 0
    found = line(capsys)
    folder = workspace.folder / "coop-1"
    assert [file.name for file in folder.iterdir()] == ["failed.json"]
    record = read_json(folder / "failed.json")
    assert record.pop("reason") == found["not_trained"]
    assert reason in found["not_trained"]
    assert record == {"format": 1, "dataset": "toy", "candidate": "coop", "method": "coop", "seed": 1}
    with pytest.raises(InputMissing):
        load_model(folder)
    assert workspace.tune("coop", "again") == 0
    assert (workspace.folder / "again" / "failed.json").read_bytes() == (folder / "failed.json").read_bytes()
    assert not list(workspace.folder.glob(".*checkpoint"))


def test_it_stops_the_run_where_all_are_required(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    workspace.change(DIVERGES | {"candidates.all_required": True})
    assert workspace.tune("coop", "coop-1") == ExitCode.BAD_PARAMS
    assert "the loss is not finite" in line(capsys)["message"]
    assert not (workspace.folder / "coop-1").exists()


def test_what_is_no_fault_of_the_candidate_still_stops(workspace: Workspace) -> None:
    (workspace.folder / "features" / "store.json").unlink()
    assert workspace.tune("coop", "coop-1") == ExitCode.INPUT_MISSING
    assert not (workspace.folder / "coop-1").exists()


def test_a_model_in_the_folder_is_no_failure(workspace: Workspace) -> None:
    assert workspace.tune("zero_shot", "zero_shot-1") == 0
    assert failure_in(workspace.folder / "zero_shot-1") is None
