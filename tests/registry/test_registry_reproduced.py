"""The gate's choice, trained again: the same bytes, or no promotion."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "methods"))

from tune_workspace import Workspace

from clinprompt.errors import DataRejected, InputCorrupt, InputMissing
from clinprompt.evaluation.decision import ChosenCandidate, DecisionInputs, DecisionParams, DecisionRecord
from clinprompt.params import load_params
from clinprompt.tuned.artifact import model_digest
from registry import reproduced

MODEL = "runs/toy/tune/coop-1"
DECISION = "runs/toy/gate/decision.json"


@pytest.fixture
def project(tmp_path: Path, backbone_folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project whose candidate coop-1 was trained, chosen by the gate, and recorded in dvc.lock."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(root))
    made = Workspace(tmp_path, backbone_folder, yaml.safe_load((root / "params.yaml").read_text()))
    made.change({"registry.reproduce": "required"})
    assert made.tune("coop", MODEL) == 0
    decide(model_digest(tmp_path / MODEL))
    record(made, seed=1)
    return made


def decide(digest: str | None) -> None:
    """Write the gate's choice, or its rejection."""
    chosen = ChosenCandidate(candidate="coop", method="coop", seed=1, folder="coop-1", model_digest=digest or "")
    params = DecisionParams(
        select_by="auroc", alpha=0.025, budget={}, min_patients_per_class=1, rules=[], confidence=0.95,
        calibration_bins=15,
    )  # fmt: skip
    DecisionRecord(
        dataset="toy", verdict="accepted" if digest else "rejected", reasons=[], chosen=chosen if digest else None,
        required=[], checks=[], cross_checks=[], held_out=None, champion=None, candidates=[], params=params,
        inputs=DecisionInputs(card="", manifest="", models={}, predictions={}),
    ).write(Path(DECISION))  # fmt: skip


def record(made: Workspace, seed: int, manifest: str | None = None) -> None:
    """Write dvc.lock: the training with this seed, from the manifest with this MD5."""
    command = shlex.join(["python", "-m", "components.tune", *made.argv("coop", MODEL, seed)])
    stages = {
        "gate@toy": {"cmd": "python -m components.gate", "outs": [{"path": DECISION, "hash": "md5"}]},
        "tune@toy-coop-1": {"cmd": command, "outs": [{"path": MODEL}]},
        "tune@toy-coop-2": {"cmd": command, "outs": [{"path": "runs/toy/tune/coop-2"}]},
    }
    if manifest:
        stages["validate@toy"] = {"cmd": "", "outs": [{"path": "manifest.parquet", "md5": manifest}]}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def evidence() -> list[Path]:
    return sorted(Path("mlflow.db.journal/reproduced").glob("*.json"))


@pytest.mark.slow
def test_a_model_that_comes_out_of_a_second_training_may_be_promoted(project: Workspace) -> None:
    decision = DecisionRecord.read(Path(DECISION))
    assert decision.chosen is not None
    names = load_params(Path("params.yaml")).registry.of("toy")
    with pytest.raises(DataRejected, match=r"coop-1 was not trained again yet, which registry\.reproduce asks for"):
        reproduced.check("toy", names, decision.chosen)
    before = {file.name: file.read_bytes() for file in Path(MODEL).iterdir()}
    told = reproduced.retrain("toy", Path())
    assert told == {
        "model": "toy", "candidate": "coop-1", "digest": decision.chosen.model_digest, "action": "reproduced",
    }  # fmt: skip
    reproduced.check("toy", names, decision.chosen)
    assert {file.name: file.read_bytes() for file in Path(MODEL).iterdir()} == before
    [file] = evidence()
    kept = json.loads(file.read_text())
    assert (kept["dataset"], kept["candidate"], kept["digest"]) == ("toy", "coop-1", decision.chosen.model_digest)
    assert reproduced.retrain("toy", Path())["action"] == "unchanged"


@pytest.mark.slow
def test_another_model_or_none_is_told_and_not_written_down(project: Workspace) -> None:
    record(project, seed=2)  # as a training whose randomness no seed held
    with pytest.raises(
        InputCorrupt, match=r"another model came out: prompts\.safetensors \(by up to .*model\.yaml\. The same bytes"
    ):
        reproduced.retrain("toy", Path())
    record(project, seed=1, manifest="0" * 32)
    with pytest.raises(InputCorrupt, match="coop-1 could not be trained again: tune@toy-coop-1 ended with 67"):
        reproduced.retrain("toy", Path())
    assert evidence() == []


def test_what_is_missing_is_said(project: Workspace) -> None:
    decide(None)
    with pytest.raises(InputMissing, match="The gate has chosen nobody on toy"):
        reproduced.retrain("toy", Path())
    with pytest.raises(InputMissing, match=r"dvc\.lock does not tell of gate@other"):
        reproduced.retrain("other", Path())
    Path("dvc.lock").write_text("stages: [")
    with pytest.raises(InputCorrupt, match=r"is no lock of DVC's"):
        reproduced.retrain("toy", Path())
    Path("dvc.lock").unlink()
    with pytest.raises(InputMissing, match=r"dvc\.lock does not exist"):
        reproduced.retrain("toy", Path())
