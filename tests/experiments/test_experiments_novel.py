"""A card's novel classes from tune to the gate: nothing is trained on them, and what can answer to them does."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import hmean
from sklearn.metrics import balanced_accuracy_score

from clinprompt.backbones.load import load_backbone
from clinprompt.data.columns import NOVEL
from clinprompt.data.manifest import write_manifest
from clinprompt.evaluation.decision import DecisionRecord
from clinprompt.evaluation.judge import Judged
from clinprompt.experiments.protocol_runner import measured
from clinprompt.features.store import FeatureStore
from clinprompt.files import read_json
from clinprompt.methods import method
from clinprompt.params import load_params
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Examples
from clinprompt.tuned.artifact import PROMPTS, load_model
from clinprompt.tuned.restore import restore
from clinprompt.tuned.transfer import moved
from components.evaluate.__main__ import work as evaluate
from components.runner import execute
from components.tune.__main__ import work as tune

COMPONENTS = Path(__file__).parents[2] / "components"
BASE, NOVELS = ("adenoma", "benign"), ("cyst", "normal")
INPUTS = {
    "card": "toy.yaml", "manifest": "manifest.parquet", "images": "images", "features": "features",
    "params": "params.yaml",
}  # fmt: skip


def run(toy: Any, component: str, work: Any, **values: str) -> int:
    paths = INPUTS | values
    argv = [part for key, value in paths.items() for part in (f"--{key}", value)]
    return execute(component, work, ["--dataset", "toy", *argv], COMPONENTS)


def candidate(toy: Any, name: str) -> None:
    """Tune and evaluate it, with seed 1."""
    which = {"candidate": name, "seed": "1"}
    assert run(toy, "tune", tune, **which, model=f"tune/{name}-1") == 0
    out = {"metrics": f"metrics/{name}-1.json", "summary": f"summary/{name}-1.json"}
    out |= {"predictions": f"evaluate/{name}-1/predictions.parquet", "plots": f"evaluate/{name}-1/plots"}
    assert run(toy, "evaluate", evaluate, **which, model=f"tune/{name}-1", **out) == 0


@pytest.fixture
def split(toy: Any) -> Any:
    """Two of the four classes are novel, as ingest leaves them."""
    infos = [{"id": c, "name": f"{c} tissue", "phrase": f"a scan with {c}"} for c in (*BASE, *NOVELS)]
    toy.write_card({"classes": infos[:2], "novel_classes": infos[2:]})
    rows, of_novel = toy.manifest, toy.manifest["label"].isin(NOVELS)
    rows = rows[~of_novel | (rows["split"] == "test")].copy()
    rows.loc[rows["label"].isin(NOVELS), "split"] = NOVEL
    write_manifest(rows, toy.folder / "manifest.parquet")
    toy.manifest = rows
    rules = [
        {"kind": "floor", "metric": "accuracy", "at_least": 0.0},
        {"kind": "not_worse_than_champion", "margin": 0.02},
        {"kind": "novel_harmonic_mean", "at_least": 0.05},
    ]
    toy.change({"gate.rules": rules, "gate.min_patients_per_class": 1, "candidates.seeds": [1]})
    return toy


def decided(toy: Any, *names: str) -> DecisionRecord:
    toy.change({"candidates.methods": list(names)})
    params, folder = load_params(toy.folder / "params.yaml"), toy.folder
    return Judged(
        dataset="toy",
        card=folder / "toy.yaml",
        manifest=folder / "manifest.parquet",
        images=folder / "images",
        models=folder / "tune",
        evaluations=folder / "evaluate",
        candidates=params.candidates,
        gate=params.gate,
        evaluation=params.evaluation,
    ).decide(None, None)


def test_nothing_of_a_novel_class_is_trained_on_or_in_the_ordinary_metrics(split: Any) -> None:
    candidate(split, "coop")
    record = load_model(split.folder / "tune/coop-1").record
    assert tuple(record.classes) == BASE
    assert not set(pd.read_parquet(split.folder / "tune/coop-1/support.parquet")["label"]) - set(BASE)
    metrics = read_json(split.folder / "metrics/coop-1.json")
    frame = pd.read_parquet(split.folder / "evaluate/coop-1/predictions.parquet")
    test = frame[frame["split"] == "test"]
    assert set(test["label"]) == set(BASE)
    assert sum(of["n"] for of in metrics["per_class"].values()) == len(test)
    assert metrics["test"]["balanced_accuracy"]["value"] == pytest.approx(
        balanced_accuracy_score(test["label"], test["predicted"]), abs=1e-6
    )
    # The same without a word of novel classes: the model's tensors and the base images' rows are the same bytes.
    split.write_card({"classes": [{"id": c, "name": f"{c} tissue", "phrase": f"a scan with {c}"} for c in BASE]})
    write_manifest(split.manifest[split.manifest["split"] != NOVEL], split.folder / "manifest.parquet")
    with_novel = (split.folder / "tune/coop-1" / PROMPTS).read_bytes()
    candidate(split, "coop")
    assert (split.folder / "tune/coop-1" / PROMPTS).read_bytes() == with_novel
    plain = pd.read_parquet(split.folder / "evaluate/coop-1/predictions.parquet")
    assert list(plain.columns) == [c for c in frame.columns if c not in {f"p_{name}" for name in NOVELS}]
    pd.testing.assert_frame_equal(plain, frame[frame["split"] != NOVEL][plain.columns], check_dtype=False)
    assert "novel" not in str(pq.read_schema(split.folder / "evaluate/coop-1/predictions.parquet").metadata)
    assert "novel" not in read_json(split.folder / "metrics/coop-1.json")


def test_novel_images_are_answered_as_the_experiments_do(split: Any) -> None:
    candidate(split, "coop")
    frame = pd.read_parquet(split.folder / "evaluate/coop-1/predictions.parquet")
    rows = frame[frame["split"] == NOVEL]
    expected = split.manifest[split.manifest["split"] == NOVEL].sort_values("path")
    assert rows["id"].tolist() == expected["id"].tolist()
    assert rows[[f"p_{c}" for c in BASE]].isna().all(axis=None)
    assert frame[frame["split"] != NOVEL][[f"p_{c}" for c in NOVELS]].isna().all(axis=None)
    np.testing.assert_allclose(rows[[f"p_{c}" for c in NOVELS]].sum(axis=1), 1)

    backbone = load_backbone("mine", split.params["backbone"]["path"])
    folder = split.folder / "tune/coop-1"
    source = restore(load_model(folder).record.to_json(), folder / PROMPTS, backbone)
    other: Any = method("coop")(Task(backbone, tuple(f"{c} tissue" for c in NOVELS), 1), source.config)
    features = FeatureStore.open(split.folder / "features").get(expected["id"].tolist())
    labels = expected["label"].map(NOVELS.index).to_numpy()
    with torch.no_grad():
        told = measured(moved(other, source.trainable_parameters()), Examples.of(features, labels, "cpu"))
    assert rows["predicted"].tolist() == [NOVELS[c] for c in told["predicted"]]
    metrics = read_json(split.folder / "metrics/coop-1.json")
    base, found = metrics["test"]["balanced_accuracy"]["value"], metrics["novel"]
    assert found["n"] == len(rows)
    assert found["balanced_accuracy"]["value"] == pytest.approx(told["balanced_accuracy"], abs=1e-6)
    assert found["harmonic_mean"]["value"] == pytest.approx(hmean([base, told["balanced_accuracy"]]), abs=1e-5)
    summary = read_json(split.folder / "summary/coop-1.json")
    assert summary["harmonic_mean"] == found["harmonic_mean"]["value"]


def test_the_gate_holds_the_challenger_to_the_rule(split: Any) -> None:
    candidate(split, "coop")
    record = decided(split, "coop")
    assert record.accepted, record.reasons
    check = record.checks[-1]
    metrics = read_json(split.folder / "metrics/coop-1.json")
    assert check.name == "novel_harmonic_mean"
    assert check.value == metrics["novel"]["harmonic_mean"]["value"]
    split.params["gate"]["rules"][2]["at_least"] = 1.0
    again = decided(split, "coop")
    assert not again.accepted
    assert "harmonic mean" in again.reasons[0]


def test_a_linear_head_has_no_answers_and_leaves_the_place_to_a_candidate_that_has(split: Any) -> None:
    candidate(split, "linear_probe")
    frame = pd.read_parquet(split.folder / "evaluate/linear_probe-1/predictions.parquet")
    assert set(frame["split"]) == {"val", "test"}
    why = "what it trains belongs to the classes that it has seen"
    assert read_json(split.folder / "metrics/linear_probe-1.json")["not_novel"] == why
    assert read_json(split.folder / "summary/linear_probe-1.json")["harmonic_mean"] is None
    record = decided(split, "linear_probe")
    assert not record.accepted
    assert record.checks == []
    assert record.reasons[1].startswith("linear_probe-1 can't be the challenger: novel_harmonic_mean can't be judged")
    candidate(split, "coop")
    record = decided(split, "linear_probe", "coop")
    assert record.accepted, record.reasons
    assert record.chosen is not None
    assert record.chosen.folder == "coop-1"
    assert [one.not_eligible is None for one in record.candidates] == [False, True]
    assert str(record.candidates[0].not_eligible).endswith(why)
    shown = record.model_copy(update={"chosen": None}).shown()
    assert shown is not None
    assert shown.name == "coop-1"


def test_predictions_that_are_not_those_of_the_manifest_s_novel_images_are_no_candidate(split: Any) -> None:
    candidate(split, "coop")
    path = split.folder / "evaluate/coop-1/predictions.parquet"
    table = pq.read_table(path)
    frame, swapped = table.to_pandas(), dict(zip(NOVELS, NOVELS[::-1], strict=True))
    for changed, says in (
        (frame[frame["split"] != NOVEL], "images, the manifest's val, test and novel splits"),
        (frame.assign(label=frame["label"].replace(swapped)), "label of row"),
        (frame.iloc[::-1], "images of novel classes stand among the others"),
        (frame.assign(p_cyst=2.0), "holds no probabilities"),
        (frame.assign(p_adenoma=frame["p_adenoma"].fillna(0.0)), "holds no probabilities"),
    ):
        pq.write_table(pa.Table.from_pandas(changed, schema=table.schema, preserve_index=False), path)
        record = decided(split, "coop")
        assert not record.accepted
        assert says in record.reasons[0]
