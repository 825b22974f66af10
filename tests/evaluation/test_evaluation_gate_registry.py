"""The gate against a real registry: a champion that is none of the candidates any more."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from sklearn.metrics import balanced_accuracy_score

from clinprompt.files import read_json

sys.path.insert(0, str(Path(__file__).parents[1] / "registry"))

from fabricate import Run, fabricate, gate, promote


def use(run: Run, methods: list[str], seeds: list[int]) -> None:
    params = yaml.safe_load((run.root / "params.yaml").read_text())
    params["candidates"] = {"methods": methods, "seeds": seeds}
    params["gate"]["min_patients_per_class"] = 1
    params["gate"]["rules"] = [
        {"kind": "floor", "metric": "accuracy", "at_least": 0.3},
        {"kind": "not_worse_than_champion", "margin": 0.02},
    ]
    (run.root / "params.yaml").write_text(yaml.safe_dump(params))


@pytest.mark.slow
def test_the_registered_champion_predicts_as_its_candidate_did(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    run = fabricate(tmp_path, root / "params.yaml")
    use(run, ["coop", "zero_shot"], [1])
    assert gate(run) == 0
    assert promote(run) == 0
    promoted = run.decision.read_bytes()
    assert gate(run) == 0
    assert run.decision.read_bytes() == promoted

    run.tune(2, 0.05)
    use(run, ["coop"], [2])
    assert gate(run) == 0, capsys.readouterr().err
    record = read_json(run.decision)
    assert record["champion"]["model_digest"] == read_json(run.receipt)["model_digest"]
    accuracy = {}
    for name in ("coop-1", "coop-2"):
        frame = pd.read_parquet(run.folder / "evaluate" / name / "predictions.parquet")
        test = frame[frame["split"] == "test"]
        accuracy[name] = balanced_accuracy_score(test["label"], test["predicted"])
    assert record["checks"][-1]["value"] == pytest.approx(accuracy["coop-2"] - accuracy["coop-1"], abs=1e-6)
    assert record["verdict"] == "rejected"
