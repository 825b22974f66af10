"""The evaluate component, from a manifest, features and a tuned head to its files."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import balanced_accuracy_score
from toy_run import CLASSES, ROOT, ToyRun

from clinprompt.data.manifest import write_manifest
from clinprompt.evaluation.metric_names import OVERALL, PER_CLASS
from clinprompt.evaluation.table import FACTS
from clinprompt.files import to_json

PLOTS = {f"{name}.png" for name in ("confusion", "roc", "reliability", "projection")}
TABLES = {"confusion.csv": ["actual", "predicted"], "roc.csv": ["class", "fpr", "tpr"]}
TABLES |= {"reliability.csv": ["confidence", "accuracy", "count"]}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_predictions_hold_every_val_and_test_image_with_its_facts(evaluated: ToyRun) -> None:
    frame = pd.read_parquet(evaluated.predictions("coop-1"))
    assert list(frame.columns) == [*FACTS, "predicted", *(f"p_{c}" for c in CLASSES)]
    manifest = pd.read_parquet(evaluated.path("manifest"))
    expected = manifest[manifest["split"] != "train"]["path"].tolist()
    assert frame["path"].tolist() == expected
    values = frame[[f"p_{c}" for c in CLASSES]].to_numpy()
    np.testing.assert_allclose(values.sum(axis=1), 1)
    assert frame["predicted"].tolist() == [CLASSES[k] for k in values.argmax(axis=1)]
    assert set(frame["age_band"]) == {"below 40", "40 to below 60", "60 and above", "unknown"}


def test_metrics_hold_every_number_with_its_interval(evaluated: ToyRun) -> None:
    found = evaluated.metrics("coop-1")
    frame = pd.read_parquet(evaluated.predictions("coop-1"))
    for split in ("val", "test"):
        rows = frame[frame["split"] == split]
        assert tuple(sorted(found[split])) == tuple(sorted(OVERALL))
        expected = balanced_accuracy_score(rows["label"], rows["predicted"])
        assert found[split]["balanced_accuracy"]["value"] == pytest.approx(expected, abs=1e-6)
        for value in found[split].values():
            assert value["low"] <= value["high"]
    assert list(found["per_class"]) == sorted(CLASSES)
    assert all(set(value) == {"n", *PER_CLASS} and value["n"] == 20 for value in found["per_class"].values())
    assert {key.split("=")[0] for key in found["slices"]} == {"site", "sex", "age_band"}
    assert {"site=A", "sex=unknown", "age_band=60 and above"} <= set(found["slices"])
    assert sum(v["n"] for k, v in found["slices"].items() if k.startswith("site=")) == 60


def test_the_summary_holds_a_line_s_worth_of_numbers(evaluated: ToyRun) -> None:
    found = json.loads((evaluated.root / "summary/coop-1.json").read_text())
    test = evaluated.metrics("coop-1")["test"]
    assert found == {name: test[name]["value"] for name in ("auroc", "balanced_accuracy", "ece", "macro_f1")}


def test_plots_come_with_their_tables(evaluated: ToyRun) -> None:
    folder = evaluated.path("evaluations") / "coop-1" / "plots"
    assert {p.name for p in folder.iterdir()} == PLOTS | set(TABLES)
    for name, columns in TABLES.items():
        table = pd.read_csv(folder / name)
        assert list(table.columns) == columns
        assert len(table)
    counts = pd.read_csv(folder / "reliability.csv")["count"]
    assert counts.sum() == len(pd.read_csv(folder / "confusion.csv")) == 60


def test_a_second_run_gives_the_same_bytes(run: ToyRun) -> None:
    before = digests(run.root)
    assert run.evaluate("coop-1") == 0
    assert digests(run.root) == before


def test_a_card_names_columns_of_its_own_to_slice_by(run: ToyRun) -> None:
    card = yaml.safe_load(run.path("card").read_text())
    card |= {"reader": {"kind": "table"}, "metadata": {"extra": ["scanner"]}, "slices": ["scanner", "site"]}
    run.path("card").write_text(yaml.safe_dump(card))
    assert run.evaluate("coop-1") == 0
    assert {key.partition("=")[0] for key in run.metrics("coop-1")["slices"]} == {"site", "sex", "age_band", "scanner"}


def test_a_slice_that_a_dataset_lacks_is_left_out_and_said(run: ToyRun, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run.set_params("evaluation", slices=["hospital", "site"])
    assert run.evaluate("coop-1") == 0
    metrics = run.metrics("coop-1")
    assert {key.partition("=")[0] for key in metrics["slices"]} == {"site"}
    assert list(metrics["not_sliced"]) == ["hospital"]
    assert "no slices by hospital: the dataset has no such column" in caplog.text


@pytest.mark.parametrize("none", [True, False])
def test_metrics_say_of_how_many_images_no_patient_is_known(run: ToyRun, none: bool) -> None:
    manifest = pd.read_parquet(run.path("manifest"))
    if none:
        write_manifest(manifest.assign(patient=None), run.path("manifest"))
    assert run.evaluate("coop-1") == 0
    metrics = run.metrics("coop-1")
    known = 0 if none else manifest["patient"].nunique()
    without = len(manifest) if none else int(manifest["patient"].isna().sum())
    assert metrics["patients"] == {"images": len(manifest), "patients": known, "without": without}
    assert (metrics["slices"]["site=A"]["patients"] is None) == none


def test_a_card_s_own_column_can_be_a_slice(run: ToyRun) -> None:
    run.set_params("evaluation", slices=["scanner"])
    assert run.evaluate("coop-1") == 0
    assert set(run.metrics("coop-1")["slices"]) == {"scanner=scanner 0", "scanner=scanner 1"}


def test_a_class_that_the_test_split_lacks_leaves_nulls_with_a_reason(run: ToyRun) -> None:
    manifest = pd.read_parquet(run.path("manifest"))
    write_manifest(manifest[(manifest["split"] != "test") | (manifest["label"] != "none")], run.path("manifest"))
    assert run.evaluate("coop-1") == 0
    found = run.metrics("coop-1")
    assert found["test"]["auroc"] == {"value": None, "low": None, "high": None, "reason": "no image of class none"}
    assert found["val"]["auroc"]["value"] is not None


def _forget_a_feature(run: ToyRun) -> None:
    manifest = pd.read_parquet(run.path("manifest"))
    manifest.loc[len(manifest) - 1, "id"] = "0" * 64
    write_manifest(manifest, run.path("manifest"))


BROKEN: dict[str, tuple[Any, int, str]] = {
    "an image without features": (_forget_a_feature, 66, "has no features of the image 0000"),
    "features of another backbone": (
        lambda run: run.tune("coop-1", 1.0, backbone={"name": "x", "digest": "f" * 64, "embed_dim": 8}),
        67,
        "was tuned on features of the backbone ffffffffffff",
    ),
    "other classes": (lambda run: run.tune("coop-1", 1.0, classes=["a", "b", "c"]), 67, "knows the classes"),
    "weights that are no numbers": (
        lambda run: run.tune("coop-1", float("nan")),
        67,
        "predictions that are no numbers",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_bad_input_ends_in_one_sentence_and_leaves_the_outputs_alone(
    run: ToyRun, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, code, message = BROKEN[case]
    damage(run)
    before = digests(run.root)
    capsys.readouterr()
    assert run.evaluate("coop-1") == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert digests(run.root) == before


def test_its_command_imports_no_torch() -> None:
    code = "import sys, components.evaluate.__main__; print({'torch', 'open_clip', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_metrics_are_json_without_nan(evaluated: ToyRun) -> None:
    assert (evaluated.root / "metrics/coop-1.json").read_text() == to_json(evaluated.metrics("coop-1"))
