"""The experiment component: each protocol on a small dataset, and what it leaves when it is interrupted."""

import json
from typing import Any

import numpy as np
import pytest

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.data.manifest import write_manifest
from clinprompt.data.support import support_set
from clinprompt.errors import Interrupted
from clinprompt.evaluation.metric_names import SELECTABLE
from clinprompt.experiments.__main__ import main
from clinprompt.files import read_json
from clinprompt.prompting.batches import epoch_rows


@pytest.mark.parametrize("method", ["zero_shot", "linear_probe", "coop"])
def test_few_shot_has_a_row_for_each_number_of_shots_and_seed(toy: Any, method: str, capsys: Any) -> None:
    assert toy.run("few_shot", method) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["cells"], line["left_out"]) == (4, None)
    result = toy.result(method)
    assert [(row["shots"], row["seed"]) for row in result["cells"]] == [(1, 1), (1, 2), (4, 1), (4, 2)]
    for row in result["cells"]:
        assert row["images"] == 4 * row["shots"]
        assert row["test"]["images"] == 32
        assert set(SELECTABLE) < set(row["test"])
        assert 0 <= row["test"]["accuracy"] <= 1
    means = read_json(toy.folder / f"out/{method}.json")["mean"]["4"]["test"]["accuracy"]
    assert means == pytest.approx(np.mean([row["test"]["accuracy"] for row in result["cells"][2:]]))


def test_the_same_params_give_the_same_bytes_and_the_seconds_stand_apart(toy: Any) -> None:
    for out in ("a", "b"):
        assert toy.run("few_shot", "coop", out) == 0
    files = [toy.folder / out / "coop.json" for out in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(json.loads((toy.folder / "a/seconds/coop.json").read_text())) == 4
    assert "seconds" not in files[0].read_text()
    assert not [p for p in toy.folder.rglob(".*") if p.is_file()]


def test_a_cell_is_what_tune_does_with_the_same_support_set(toy: Any) -> None:
    """The accuracy of the linear probe, refitted here by scikit-learn on the support set."""
    toy.change({"protocols.few_shot.shots": [4], "protocols.seeds": [2]})
    assert toy.run("few_shot", "linear_probe") == 0
    row = toy.result("linear_probe")["cells"][0]
    support = support_set(toy.manifest, ["adenoma", "benign", "cyst", "normal"], 4, 2)
    assert row["images"] == len(support) == 16
    assert row["trainable_parameters"] == 4 * (12 + 1)  # classes, times features and intercept
    assert row["test"]["accuracy"] > 0.7  # the classes lie apart


@pytest.mark.parametrize("stack", [1, 4])
def test_a_cell_that_cannot_be_trained_is_left_out_with_the_reason(toy: Any, stack: int) -> None:
    toy.change({"methods.coop": {"learning_rate": 1e30, "warmup_epochs": 0, "epochs": 2, "batch_size": 8}})
    toy.change({"protocols.stack": stack})
    assert toy.run("few_shot", "coop") == 0
    rows = toy.result("coop")["cells"]
    assert [(row["shots"], row["seed"]) for row in rows] == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert all("the loss is not finite" in row["left_out"] for row in rows)
    assert not [p for p in toy.folder.rglob(".*") if p.is_file()]


def test_a_method_that_does_not_fit_is_left_out_with_the_reason(toy: Any, capsys: Any) -> None:
    toy.change({"methods.coop": {"n_ctx": 70, "context_init": None}})
    assert toy.run("few_shot", "coop") == 0
    assert "n_ctx: must be at most" in json.loads(capsys.readouterr().out.splitlines()[-1])["left_out"]
    assert toy.result("coop")["cells"] == []


def test_base_to_novel_learns_one_half_and_is_tested_on_each(toy: Any) -> None:
    assert toy.run("base_to_novel", "coop") == 0
    rows = toy.result("coop")["cells"]
    assert [row["seed"] for row in rows] == [1, 2]
    for row in rows:
        assert row["base"]["images"] == row["novel"]["images"] == 16
        base, novel = row["base"]["accuracy"], row["novel"]["accuracy"]
        expected = 2 * base * novel / (base + novel) if base + novel else 0
        assert row["harmonic_mean"]["accuracy"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("method", "knobs"), [("linear_probe", {}), ("coop", {"methods.coop.class_specific": True})])
def test_a_method_whose_tensors_belong_to_its_classes_is_left_out_with_a_reason(
    toy: Any, method: str, knobs: dict[str, Any]
) -> None:
    toy.change(knobs)
    assert toy.run("base_to_novel", method) == 0
    result = toy.result(method)
    assert result["cells"] == []
    assert "belongs to the classes" in result["left_out"]


def test_label_efficiency_takes_nested_shares_of_the_training_split(toy: Any) -> None:
    assert toy.run("label_efficiency", "zero_shot") == 0
    rows = toy.result("zero_shot")["cells"]
    assert [(row["fraction"], row["images"]) for row in rows] == [(0.25, 12), (0.25, 12), (1.0, 48), (1.0, 48)]


def test_full_is_the_whole_training_split(toy: Any) -> None:
    assert toy.run("full", "zero_shot") == 0
    assert [row["images"] for row in toy.result("zero_shot")["cells"]] == [48, 48]


def test_too_few_images_leave_out_the_cell_and_not_the_others(toy: Any) -> None:
    toy.change({"protocols.few_shot.shots": [2, 13]})
    assert toy.run("few_shot", "zero_shot") == 0
    rows = toy.result("zero_shot")["cells"]
    assert ["left_out" in row for row in rows] == [False, False, True, True]
    assert "has 12;" in rows[-1]["left_out"]
    assert read_json(toy.folder / "out/zero_shot.json")["mean"]["13"] == {}


def test_an_interrupted_experiment_goes_on_with_the_cell_that_it_was_at(
    toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert toy.run("few_shot", "coop", "whole") == 0
    calls: list[int] = []

    def rows(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
        calls.append(epoch)
        if len(calls) == 16:
            raise Interrupted("stopped by SIGTERM")
        return epoch_rows(n, batch_size, seed, epoch)

    monkeypatch.setattr("clinprompt.training.loop.epoch_rows", rows)
    toy.change({"training.checkpoint_every": 1})
    assert toy.run("few_shot", "coop") == ExitCode.INTERRUPTED
    assert not (toy.folder / "out/coop.json").exists()
    assert toy.run("few_shot", "coop") == 0
    assert len(calls) == 16 + (24 - 15)  # 4 cells of 6 epochs; 15 epochs had been trained and kept
    assert toy.result("coop") == toy.result("coop", "whole")
    assert not [p for p in (toy.folder / "out").rglob(".*") if p.is_file()]


def test_stacked_cells_give_what_each_gives_alone(toy: Any) -> None:
    assert toy.run("few_shot", "coop", "alone") == 0
    toy.change({"protocols.stack": 3})
    assert toy.run("few_shot", "coop", "stacked") == 0
    alone, stacked = (toy.result("coop", out) for out in ("alone", "stacked"))
    for one, other in zip(alone["cells"], stacked["cells"], strict=True):
        assert one["support"] == other["support"]
        assert one["test"]["auroc"] == pytest.approx(other["test"]["auroc"], abs=0.01)


def test_the_experiments_knobs_win_over_the_cards_and_these_over_the_params(toy: Any) -> None:
    toy.change({"protocols.few_shot.shots": [1], "protocols.seeds": [1], "methods.coop.momentum": 0.1})
    toy.write_card({"methods": {"coop": {"epochs": 3, "momentum": 0.2}}})
    toy.change({"protocols.few_shot.methods": {"coop": {"momentum": 0.3}}})
    assert toy.run("few_shot", "coop") == 0
    config = toy.result("coop")["config"]
    assert (config["batch_size"], config["epochs"], config["momentum"]) == (8, 3, 0.3)


@pytest.mark.parametrize(
    ("changes", "card", "code", "message"),
    [
        ({"protocols.few_shot.shot": [1]}, {}, ExitCode.BAD_PARAMS, "protocols.few_shot.shot: no such key"),
        (
            {},
            {"methods": {"coop": {"n_ctxx": 3}}},
            ExitCode.BAD_PARAMS,
            "toy.yaml: methods.coop.n_ctxx: no such key (did you mean 'n_ctx'?)",
        ),
        (
            {"protocols.few_shot.methods": {"coop": {"epochs": 0}}},
            {},
            ExitCode.BAD_PARAMS,
            "params.yaml: protocols.few_shot.methods.coop.epochs",
        ),
    ],
)
def test_wrong_knobs_are_named_by_file_and_key(
    toy: Any, changes: dict[str, Any], card: dict[str, Any], code: int, message: str, capsys: Any
) -> None:
    toy.change(changes)
    toy.write_card(card)
    assert toy.run("few_shot", "coop") == code
    assert message in capsys.readouterr().err


def test_a_variant_is_run_with_its_own_knobs_under_its_own_name(toy: Any) -> None:
    toy.change({"candidates.variants": {"short": {"method": "coop", "n_ctx": 2, "context_init": None, "epochs": 1}}})
    toy.change({"protocols.few_shot.methods": {"coop": {"epochs": 2, "batch_size": 8}}, "protocols.seeds": [1]})
    assert toy.run("few_shot", "short") == 0
    result = toy.result("short")
    assert result["method"] == "short"
    assert (result["config"]["n_ctx"], result["config"]["epochs"], result["config"]["batch_size"]) == (2, 1, 8)


def test_cross_validation_keeps_what_each_test_image_is_predicted_as(toy: Any) -> None:
    toy.change({"protocols.cross_validation": {"folds": 2}, "protocols.seeds": [1]})
    assert toy.run("cross_validation", "linear_probe") == 0
    rows = toy.result("linear_probe")["cells"]
    assert [(row["fold"], row["seed"]) for row in rows] == [(0, 1), (1, 1)]
    test = toy.manifest[toy.manifest["split"] == "test"].sort_values("path")
    truth = test["label"].map({c: k for k, c in enumerate(["adenoma", "benign", "cyst", "normal"])}).to_numpy()
    for row in rows:
        assert row["test"]["accuracy"] == pytest.approx((np.array(row["test"]["predicted"]) == truth).mean())


def test_methods_are_compared_on_one_number_of_shots_or_on_the_novel_classes_alone(toy: Any, capsys: Any) -> None:
    (toy.folder / "runs/toy/validate").mkdir(parents=True)
    write_manifest(toy.manifest, toy.folder / "runs/toy/validate/manifest.parquet")
    toy.change({"protocols.few_shot.shots": [1, 4], "protocols.datasets": ["toy"]})
    for protocol in ("few_shot", "base_to_novel"):
        for name in ("coop", "zero_shot"):
            assert toy.run(protocol, name, f"runs/toy/experiments/{protocol}") == 0
    capsys.readouterr()
    results = {name: toy.result(name, "runs/toy/experiments/base_to_novel")["cells"] for name in ("coop", "zero_shot")}
    for argv, cells, about in (
        (["--protocol", "few_shot", "--group", "4"], 2, "toy, few_shot, 4;"),
        (["--protocol", "few_shot"], 4, "toy, few_shot;"),
        (["--protocol", "base_to_novel"], 2, "toy, base_to_novel, novel classes;"),
        (["--protocol", "base_to_novel", "--test", "base"], 2, "toy, base_to_novel, base classes;"),
    ):
        assert main(["compare", "coop", "zero_shot", *argv]) == 0
        text = capsys.readouterr().out
        assert about in text
        row = next(line for line in text.splitlines() if line.startswith("| `coop`"))
        assert f"| {cells} |" in row
        if "novel classes" in about:
            means = [np.mean([cell["novel"]["balanced_accuracy"] for cell in results[name]]) for name in results]
            assert f"| {100 * means[0]:.1f} | {100 * means[1]:.1f} |" in row
    assert main(["compare", "coop", "zero_shot", "--protocol", "few_shot", "--test", "novel"]) == 64


def test_a_method_that_reads_pixels_may_see_other_crops_in_each_epoch(toy: Any) -> None:
    toy.change({"protocols.few_shot.shots": [1], "protocols.seeds": [1], "methods.vpt": {"epochs": 2, "batch_size": 4}})
    toy.change({"training.augmentation": "crop"})
    for out in ("one", "again"):
        assert toy.run("few_shot", "vpt", out) == 0
    assert toy.result("vpt", "one") == toy.result("vpt", "again")
    assert toy.result("vpt", "one")["training"]["augmentation"] == "crop"


def test_a_presets_augmentation_holds_for_the_methods_that_it_trains_and_the_protocols_own_wins(toy: Any) -> None:
    toy.change({"protocols.few_shot.shots": [1], "protocols.seeds": [1], "methods.lora": {"epochs": 1}})
    toy.change({"protocols.few_shot.methods": {"vpt": {"epochs": 1, "n_prompts": 1}}})
    toy.change({"protocols.few_shot.preset": "biomed_dpt", "training.augmentation": "crop_flip"})
    for name, seen in (("vpt", "crop"), ("lora", "crop_flip")):  # the paper does not train LoRA
        assert toy.run("few_shot", name, "preset") == 0
        assert toy.result(name, "preset")["training"]["augmentation"] == seen
    toy.change({"protocols.few_shot.augmentation": "none"})
    assert toy.run("few_shot", "vpt", "own") == 0
    assert toy.result("vpt", "own")["training"]["augmentation"] == "none"
    assert toy.result("vpt", "own")["cells"][0]["images"] == toy.result("vpt", "preset")["cells"][0]["images"]
