"""The gate's choice, trained again: the same bytes, on a GPU nearly the same predictions, or no promotion."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "methods"))

from tune_workspace import Workspace

from clinprompt.data.manifest import read_manifest
from clinprompt.errors import DataRejected, InputCorrupt, InputMissing
from clinprompt.evaluation.decision import ChosenCandidate, DecisionInputs, DecisionParams, DecisionRecord
from clinprompt.features.store import FeatureStore
from clinprompt.files import sha256_file
from clinprompt.params import load_params
from clinprompt.tuned.artifact import load_model, model_digest
from clinprompt.tuned.record import ModelRecord
from components.evaluate.__main__ import work as evaluate_work
from components.runner import execute
from registry import reproduced

MODEL = "runs/toy/tune/coop-1"
DECISION = "runs/toy/gate/decision.json"
EVALUATED = {
    "metrics": "runs/toy/metrics/coop-1.json", "summary": "runs/toy/summary/coop-1.json",
    "predictions": "runs/toy/evaluate/coop-1/predictions.parquet", "plots": "runs/toy/evaluate/coop-1/plots",
}  # fmt: skip


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


def decide(digest: str | None, predictions: str = "") -> None:
    """Write the gate's choice, or its rejection."""
    chosen = ChosenCandidate(candidate="coop", method="coop", seed=1, folder="coop-1", model_digest=digest or "")
    params = DecisionParams(
        select_by="auroc", alpha=0.025, budget={}, min_patients_per_class=1, rules=[], confidence=0.95,
        calibration_bins=15,
    )  # fmt: skip
    DecisionRecord(
        dataset="toy", verdict="accepted" if digest else "rejected", reasons=[], chosen=chosen if digest else None,
        required=[], checks=[], cross_checks=[], held_out=None, champion=None, candidates=[], params=params,
        inputs=DecisionInputs(card="", manifest="", models={}, predictions={"coop-1": predictions}),
    ).write(Path(DECISION))  # fmt: skip


def record(made: Workspace, seed: int, manifest: str | None = None) -> None:
    """Write dvc.lock: the training with this seed, from the manifest with this MD5."""
    command = shlex.join(["python", "-m", "components.tune", *made.argv("coop", MODEL, seed)])
    stages = {
        "gate@toy": {"cmd": "python -m components.gate", "outs": [{"path": DECISION, "hash": "md5"}]},
        "tune@toy-coop-1": {"cmd": command, "outs": [{"path": MODEL}]},
        "tune@toy-coop-2": {"cmd": command, "outs": [{"path": "runs/toy/tune/coop-2"}]},
    }
    evaluate = shlex.join(["python", "-m", "components.evaluate", *evaluate_argv()])
    stages["evaluate@toy-coop-1"] = {"cmd": evaluate, "outs": [{"path": path} for path in EVALUATED.values()]}
    if manifest:
        stages["validate@toy"] = {"cmd": "", "outs": [{"path": "manifest.parquet", "md5": manifest}]}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def evaluate_argv() -> list[str]:
    inputs = {"card": "toy.yaml", "manifest": "manifest.parquet", "images": "images", "features": "features"}
    values = {"dataset": "toy", "candidate": "coop", "seed": "1", **inputs, "model": MODEL, **EVALUATED}
    return [part for key, value in (values | {"params": "params.yaml"}).items() for part in (f"--{key}", value)]


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
    project.change({"registry.reproduce_tolerance": 0.99})  # which is for a GPU's alone
    with pytest.raises(
        InputCorrupt, match=r"another model came out: prompts\.safetensors \(by up to .*model\.yaml\. The same bytes"
    ):
        reproduced.retrain("toy", Path())
    record(project, seed=1, manifest="0" * 32)
    with pytest.raises(InputCorrupt, match="coop-1 could not be trained again: tune@toy-coop-1 ended with 67"):
        reproduced.retrain("toy", Path())
    assert evidence() == []


@pytest.mark.slow
def test_a_model_of_a_gpu_is_held_to_what_it_predicts_on_the_validation_split(project: Workspace, root: Path) -> None:
    # As far as its record tells, a GPU trained it: the one thing that is not at hand here.
    facts = ModelRecord.read(Path(MODEL) / "model.yaml").model_copy(update={"device": "cuda"})
    facts.write(Path(MODEL) / "model.yaml")
    assert execute("evaluate", evaluate_work, evaluate_argv(), root / "components") == 0
    decide(model_digest(Path(MODEL)), sha256_file(Path(EVALUATED["predictions"])))
    record(project, seed=2)
    with pytest.raises(InputCorrupt, match=r"another model came out.*registry\.reproduce_tolerance allows other ones"):
        reproduced.retrain("toy", Path())

    assert project.tune("coop", "other", seed=2) == 0
    validation = read_manifest(Path("manifest.parquet")).query("split == 'val'")["id"].tolist()
    features = FeatureStore.open(Path("features")).get(validation)
    heads = [load_model(Path(folder)).head for folder in (MODEL, "other")]
    first, second = (head.probabilities(features) for head in heads if head is not None)
    apart = float(np.abs(first - second).max())
    assert 0.001 < apart < 0.9

    project.change({"registry.reproduce_tolerance": 0.9 * apart})
    with pytest.raises(InputCorrupt, match=rf"of the {len(validation)} validation images differ by up to"):
        reproduced.retrain("toy", Path())
    assert evidence() == []
    project.change({"registry.reproduce_tolerance": 1.1 * apart})
    told = reproduced.retrain("toy", Path())
    assert told["action"] == "reproduced"
    assert told["agreement"] == {
        "images": len(validation), "largest_difference": pytest.approx(apart, rel=0.01), "tolerance": 1.1 * apart,
        "devices": ["cuda", "cpu"], "second": model_digest(Path("other")),
    }  # fmt: skip
    [file] = evidence()
    assert json.loads(file.read_text())["agreement"] == told["agreement"]

    chosen, names = DecisionRecord.read(Path(DECISION)).chosen, load_params(Path("params.yaml")).registry.of("toy")
    assert chosen is not None
    reproduced.check("toy", names, chosen)
    assert reproduced.retrain("toy", Path())["action"] == "unchanged"
    for stricter in (0.9 * apart, None):
        with pytest.raises(DataRejected, match="to within what registry.reproduce_tolerance allows"):
            reproduced.check("toy", names.model_copy(update={"reproduce_tolerance": stricter}), chosen)
    Path(EVALUATED["predictions"]).write_bytes(b"others")
    project.change({"registry.reproduce_tolerance": 1.2 * apart})
    file.unlink()
    with pytest.raises(InputCorrupt, match="is not what the gate judged of coop-1"):
        reproduced.retrain("toy", Path())


def test_what_is_missing_is_said(project: Workspace) -> None:
    decide(None)
    with pytest.raises(InputMissing, match="The gate has chosen nobody on toy"):
        reproduced.retrain("toy", Path())
    with pytest.raises(InputMissing, match=r"dvc\.lock does not tell of gate@other"):
        reproduced.retrain("other", Path())
    for text in ("stages: [", "stages: [1]", "stages: {gate@toy: 3}", "stages: {gate@toy: {outs: 3}}", "schema: '9.0'"):
        Path("dvc.lock").write_text(text)
        with pytest.raises(InputCorrupt, match=r"is no lock of DVC's"):
            reproduced.retrain("toy", Path())
    Path("dvc.lock").unlink()
    with pytest.raises(InputMissing, match=r"dvc\.lock does not exist"):
        reproduced.retrain("toy", Path())
