"""The transfer component: tuned candidates of one dataset on the classes of another."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from clinprompt.backbones.load import load_backbone
from clinprompt.data.manifest import write_manifest
from clinprompt.errors import BadParams
from clinprompt.experiments.__main__ import main
from clinprompt.experiments.protocol_runner import measured
from clinprompt.experiments.results import read_result
from clinprompt.features.store import FeatureStore
from clinprompt.methods import check_config, method
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Examples
from clinprompt.tuned.artifact import PROMPTS, load_model
from clinprompt.tuned.failure import TrainingFailure
from clinprompt.tuned.restore import restore
from clinprompt.tuned.transfer import moved
from components.runner import execute
from components.transfer.__main__ import work
from components.tune.__main__ import work as tune

COMPONENTS = Path(__file__).parents[2] / "components"
KEYS = ("card", "manifest", "images", "features", "descriptions", "hidden-states", "params")
PATHS = dict(zip(KEYS, ("toy.yaml", "manifest.parquet", "images", "features", "descriptions.parquet",
                        "hidden_states.safetensors", "params.yaml"), strict=True))  # fmt: skip


def options(values: dict[str, Any]) -> list[str]:
    return [part for key, value in values.items() for part in (f"--{key}", str(value))]


@pytest.fixture
def tuned(toy: Any) -> Any:
    """Candidates of `toy`, and a target: the same images under two other class names."""
    toy.change({"candidates.methods": ["coop", "linear_probe"], "candidates.seeds": [1]})
    for name in ("coop", "linear_probe"):
        values = {"dataset": "toy", "candidate": name, "seed": 1, "model": f"tune/{name}-1"} | PATHS
        assert execute("tune", tune, options(values), COMPONENTS) == 0
    card = yaml.safe_load((toy.folder / "toy.yaml").read_text())
    card |= {"name": "other", "classes": [{"id": c, "name": f"{c} skin", "phrase": c} for c in ("cyst", "normal")]}
    (toy.folder / "other.yaml").write_text(yaml.safe_dump(card))
    frame = toy.manifest[toy.manifest["label"].isin(["cyst", "normal"])]
    write_manifest(frame, toy.folder / "other.parquet")
    return toy


def run(toy: Any, target: str) -> dict[str, Any]:
    values = {"source": "toy", "target": target, "models": "tune", "result": f"out/{target}.json"} | PATHS
    if target == "other":
        values |= {"card": "other.yaml", "manifest": "other.parquet"}
    assert execute("transfer", work, options(values), COMPONENTS) == 0
    return read_result(toy.folder / f"out/{target}.json")


def test_context_goes_over_to_other_class_names_and_a_linear_head_stays_behind(tuned: Any) -> None:
    rows = {row["method"]: row for row in run(tuned, "other")["cells"]}
    assert "belongs to the classes" in rows["linear_probe"]["left_out"]
    backbone = load_backbone("mine", tuned.params["backbone"]["path"])
    model = load_model(tuned.folder / "tune/coop-1")
    source = restore(model.record.to_json(), tuned.folder / "tune/coop-1" / PROMPTS, backbone)
    other: Any = method("coop")(Task(backbone, ("cyst skin", "normal skin"), 1), source.config)
    other.ctx.data.copy_(source.ctx)  # type: ignore[arg-type]
    test = tuned.manifest[(tuned.manifest["split"] == "test") & tuned.manifest["label"].isin(["cyst", "normal"])]
    labels = test["label"].map({"cyst": 0, "normal": 1}).to_numpy()
    features = FeatureStore.open(tuned.folder / "features").get(test["id"].tolist())
    assert rows["coop"]["test"] == measured(other.eval(), Examples.of(features, labels))


def test_a_dataset_with_the_same_classes_is_predicted_by_a_linear_head_too(tuned: Any) -> None:
    """As another scanner's: nothing of the head belongs to what the target lacks."""
    tuned.write_card({"name": "other"})
    (tuned.folder / "toy.yaml").rename(tuned.folder / "other.yaml")
    test = tuned.manifest[tuned.manifest["split"] == "test"].groupby("label").head(3)
    rest = tuned.manifest[tuned.manifest["split"] != "test"]
    write_manifest(pd.concat([rest, test]).sort_values("path", ignore_index=True), tuned.folder / "other.parquet")
    rows = {row["method"]: row for row in run(tuned, "other")["cells"]}
    assert set(rows) == {"coop", "linear_probe"}
    head = load_model(tuned.folder / "tune/linear_probe-1").head
    features = FeatureStore.open(tuned.folder / "features").get(test["id"].tolist())
    assert head is not None
    hits = np.array(sorted(test["label"].unique()))[head.probabilities(features).argmax(1)] == test["label"].to_numpy()
    assert rows["linear_probe"]["test"]["images"] == len(test) == 12
    assert rows["linear_probe"]["test"]["accuracy"] == pytest.approx(hits.mean(), abs=1e-6)


def test_on_its_own_dataset_every_candidate_is_tested(tuned: Any) -> None:
    rows = run(tuned, "toy")["cells"]
    assert [row["method"] for row in rows] == ["coop", "linear_probe"]
    assert all(row["test"]["images"] == 32 for row in rows)
    test = tuned.manifest[tuned.manifest["split"] == "test"]
    features = FeatureStore.open(tuned.folder / "features").get(test["id"].tolist())
    classes = [info["id"] for info in yaml.safe_load((tuned.folder / "toy.yaml").read_text())["classes"]]
    for row in rows:
        head = load_model(tuned.folder / f"tune/{row['method']}-1").head
        assert head is not None
        hits = np.array(classes)[head.probabilities(features).argmax(1)] == test["label"].to_numpy()
        assert row["test"]["accuracy"] == pytest.approx(hits.mean(), abs=1e-6)


def test_tensors_that_do_not_fit_are_named(tuned: Any) -> None:
    backbone = load_backbone("mine", tuned.params["backbone"]["path"])
    model = method("coop")(Task(backbone, ("a", "b"), 1), check_config("coop", tuned.params["methods"]["coop"]))
    with pytest.raises(BadParams, match=r"its ctx is missing, and must be of shape \(4, 16\)"):
        moved(model, {})
    with pytest.raises(BadParams, match=r"its ctx is of shape \(3, 16\)"):
        moved(model, {"ctx": torch.zeros(3, 16)})


def test_a_candidate_that_could_not_be_trained_is_left_out_with_the_reason(tuned: Any) -> None:
    for file in (tuned.folder / "tune" / "coop-1").iterdir():
        file.unlink()
    failure = TrainingFailure(dataset="toy", candidate="coop", method="coop", seed=1, reason="it diverged")
    failure.write(tuned.folder / "tune" / "coop-1" / "failed.json")
    coop, probe = run(tuned, "toy")["cells"]
    assert coop == {"candidate": "coop", "method": "coop", "seed": 1, "left_out": "It was not trained: it diverged."}
    assert "test" in probe


RECORD = {"measures": [{"column": "volume", "name": "Vol"}], "score": {"column": "mmse", "name": "MMSE", "high": 30}}


@pytest.mark.parametrize("learned", [True, False])
def test_the_score_is_measured_on_the_target_where_it_was_learned_on_the_source(toy: Any, learned: bool) -> None:
    knobs = {"epochs": 1, "batch_size": 8, "n_prompts": 1, "n_text_prompts": 1}
    toy.change({"candidates.methods": ["deft_ad"], "candidates.seeds": [1], "methods.deft_ad": knobs})
    toy.write_card({"reader": {"kind": "table"}, "metadata": {"extra": ["volume", "mmse"]}, "record": RECORD})
    scored = toy.manifest.assign(volume="12.5", mmse=[str(20 + n % 9) for n in range(len(toy.manifest))])
    write_manifest(scored, toy.folder / "manifest.parquet")
    card = yaml.safe_load((toy.folder / "toy.yaml").read_text())
    card |= {"name": "other", "classes": [{"id": c, "name": f"{c} skin", "phrase": c} for c in ("cyst", "normal")]}
    (toy.folder / "other.yaml").write_text(yaml.safe_dump(card))
    write_manifest(scored[scored["label"].isin(["cyst", "normal"])], toy.folder / "other.parquet")
    if not learned:
        write_manifest(scored.assign(mmse=None), toy.folder / "manifest.parquet")
    values = {"dataset": "toy", "candidate": "deft_ad", "seed": 1, "model": "tune/deft_ad-1"} | PATHS
    assert execute("tune", tune, options(values), COMPONENTS) == 0
    [row] = run(toy, "other")["cells"]
    assert row["test"]["images"] == 16
    assert ("score" in row["test"]) is learned
    if learned:
        assert row["test"]["score"]["images"] == 16
        assert 0 <= row["test"]["score"]["mae"] <= 30


def test_transferred_candidates_are_compared_on_one_target(tuned: Any, capsys: Any) -> None:
    result = run(tuned, "toy")
    (tuned.folder / "runs/toy/validate").mkdir(parents=True)
    (tuned.folder / "runs/toy/validate/manifest.parquet").write_bytes((tuned.folder / "manifest.parquet").read_bytes())
    (tuned.folder / "runs/source/transfer").mkdir(parents=True)
    (tuned.folder / "out/toy.json").rename(tuned.folder / "runs/source/transfer/toy.json")
    asked = ["compare", "coop", "linear_probe", "--protocol", "transfer", "--dataset", "toy"]
    capsys.readouterr()
    assert main([*asked, "--source", "toy"]) == 0
    text = capsys.readouterr().out
    means = [100 * row["test"]["balanced_accuracy"] for row in result["cells"]]
    assert "toy, transfer, tuned on toy;" in text
    assert f"| `coop` against `linear_probe` | 1 | {means[0]:.1f} | {means[1]:.1f} |" in text
    assert main(asked) == 64
    assert "--source: say one of toy" in capsys.readouterr().err
    assert main(["compare", "coop", "linear_probe", "--protocol", "few_shot", "--source", "toy"]) == 64
