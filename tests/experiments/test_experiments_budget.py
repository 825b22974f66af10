"""Equal steps and an equal search for every method, and presets, as the experiment component runs them."""

import re
from typing import Any

import numpy as np
import pytest

from clinprompt.contract.exit_codes import ExitCode
from clinprompt.errors import BadParams
from clinprompt.experiments.__main__ import main
from clinprompt.experiments.budget import Schedule, Trial, best
from clinprompt.experiments.protocols import Budget, Cell
from clinprompt.methods import check_config
from clinprompt.prompting.batches import epoch_rows

BUDGET = {"steps": 12, "batch_size": 4, "rates": [0.01, 1.0, 3.0]}


def few(toy: Any, budget: dict[str, Any] | None = None) -> None:
    toy.change({"protocols.few_shot.shots": [4], "protocols.seeds": [1, 2]})
    if budget is not None:
        toy.change({"protocols.few_shot.budget": budget})


def test_every_method_gets_the_same_steps_and_as_many_tries(toy: Any) -> None:
    few(toy, BUDGET)
    rates = {"coop": 0.02, "clip_adapter": 0.01, "kgcoop": 0.002}
    for name, own in rates.items():
        assert toy.run("few_shot", name) == 0
        result = toy.result(name)
        assert result["knobs"]["budget"] == BUDGET
        for row in result["cells"]:
            training = row["training"]
            assert (training["steps"], training["batch_size"]) == (12, 4)
            assert [trial["learning_rate"] for trial in training["tried"]] == pytest.approx([0.01 * own, own, 3 * own])
            ranked = [(-one["val_balanced_accuracy"], one["val_cross_entropy"]) for one in training["tried"]]
            assert training["learning_rate"] == training["tried"][ranked.index(min(ranked))]["learning_rate"]


def test_what_descends_nothing_has_its_own_search_and_is_trained_once(toy: Any) -> None:
    few(toy, BUDGET)
    for name in ("linear_probe", "tip_adapter", "zero_shot"):
        assert toy.run("few_shot", name) == 0
        assert [row["training"] for row in toy.result(name)["cells"]] == [{}, {}]


def test_a_search_of_stacked_cells_is_that_of_each_alone(toy: Any) -> None:
    few(toy, BUDGET)
    assert toy.run("few_shot", "coop", "alone") == 0
    toy.change({"protocols.stack": 2})
    assert toy.run("few_shot", "coop", "stacked") == 0
    for one, other in zip(toy.result("coop", "alone")["cells"], toy.result("coop", "stacked")["cells"], strict=True):
        for mine, theirs in zip(one["training"]["tried"], other["training"]["tried"], strict=True):
            assert mine["val_cross_entropy"] == pytest.approx(theirs["val_cross_entropy"], abs=1e-3)


def test_a_rate_that_can_not_be_trained_loses_and_only_if_all_do_the_cell_is_left_out(toy: Any) -> None:
    few(toy, BUDGET | {"rates": [1.0, 1e30]})
    assert toy.run("few_shot", "coop", "one") == 0
    for row in toy.result("coop", "one")["cells"]:
        assert "not finite" in row["training"]["tried"][1]["failed"]
        assert row["training"]["learning_rate"] == 0.02
    toy.change({"protocols.few_shot.budget": BUDGET | {"rates": [1e30, 2e30]}})
    assert toy.run("few_shot", "coop", "none") == 0
    assert all("not finite" in row["left_out"] for row in toy.result("coop", "none")["cells"])


def test_a_preset_trains_with_the_published_knobs_and_tells_so(toy: Any) -> None:
    few(toy)
    toy.change({"protocols.few_shot.preset": "biomedcoop", "protocols.few_shot.shots": [1]})
    assert toy.run("few_shot", "coop") == 0
    result = toy.result("coop")
    assert result["knobs"]["preset"] == "biomedcoop"
    assert (result["config"]["epochs"], result["config"]["learning_rate"]) == (100, 0.002)
    assert [row["training"]["steps"] for row in result["cells"]] == [100, 100]
    toy.change({"protocols.few_shot.preset": "maple"})
    assert toy.run("few_shot", "coop") == ExitCode.BAD_PARAMS


def cell(images: int, shots: int) -> Any:
    return Cell({"shots": shots, "seed": 1}, np.zeros(images), np.zeros(2), ("a", "b"), {})  # type: ignore[arg-type]


def test_a_preset_may_count_a_training_in_steps_per_shot() -> None:
    config: Any = check_config("lora", {"batch_size": 4})
    for shots in (1, 2, 16):
        [found] = Schedule(steps_per_shot=50).settings(config, cell(2 * shots, shots))
        assert isinstance(found, type(config))
        assert found.epochs * len(epoch_rows(2 * shots, 4, 0, 0)) == 50 * shots


def test_a_budget_wins_over_the_presets_steps_and_keeps_a_methods_own_batches_where_none_are_asked_for() -> None:
    config: Any = check_config("coop", {"batch_size": 4})
    found: Any = Schedule(Budget(steps=10), 500).settings(config, cell(8, 4))
    assert [(one.epochs, one.batch_size, one.learning_rate) for one in found] == [(5, 4, 0.002)]
    assert Schedule().settings(config, cell(8, 4)) == [config]


def test_a_budget_that_ends_within_the_first_epoch_is_refused_as_it_would_be_exceeded() -> None:
    config: Any = check_config("coop", {"batch_size": 4})
    found: Any = Schedule(Budget(steps=5)).settings(config, cell(20, 10))
    assert [one.epochs for one in found] == [1]
    with pytest.raises(BadParams, match=r"budget of 4 steps .* \(20 images, 5 steps of 4.* at least 5 steps"):
        Schedule(Budget(steps=4)).settings(config, cell(20, 10))


def test_the_best_trial_has_the_highest_accuracy_then_the_lowest_loss_then_comes_first() -> None:
    trials = [Trial(1, 0.5, 0.7), Trial(2, 0.6, 0.9), Trial(3, 0.6, 0.8), Trial(4, 0.6, 0.8), Trial(5, failed="x")]
    assert best(trials) == 2
    assert best([Trial(1, failed="x")]) is None
    labels, probabilities = np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    one = Trial.of(0.1, labels, probabilities)
    assert one.balanced_accuracy == pytest.approx(0.25)
    assert one.cross_entropy == pytest.approx(-np.log([0.9, 0.2, 0.5]).mean(), abs=1e-5)


def test_the_table_tells_what_each_method_was_trained_with(toy: Any, capsys: Any) -> None:
    few(toy, BUDGET)
    folder = "runs/toy/experiments/few_shot"
    for name in ("coop", "linear_probe"):
        assert toy.run("few_shot", name, folder) == 0
    capsys.readouterr()
    assert main(["table", "--protocol", "few_shot"]) == 0
    text = capsys.readouterr().out
    assert "Every method has the same budget: 12 steps of 4 images, 3 learning rates tried on validation." in text
    assert re.search(r"\| coop \| 12 \| 4 \| [\d. to]+ \| 3 \|", text)
    assert "| linear_probe | – | – | – | – |" in text
    toy.change({"protocols.few_shot.budget": None, "protocols.few_shot.preset": "biomedcoop"})
    assert toy.run("few_shot", "coop", folder) == 0
    assert main(["table", "--protocol", "few_shot"]) == 0
    assert "**The rows were not trained under the same settings:" in capsys.readouterr().out
