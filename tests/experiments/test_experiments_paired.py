"""Paired comparisons of methods: what differs is found, what does not is not, and chance is not taken for a gain."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from clinprompt.errors import BadParams
from clinprompt.experiments.paired import Comparison, compare, render

CLASSES = ("a", "b", "c")


def subjects(n: int = 90) -> pd.DataFrame:
    labels = [CLASSES[k // 2 % 3] for k in range(n)]
    owners = [f"s{k // 2:03d}" for k in range(n)]
    return pd.DataFrame({"path": [f"{k:03d}" for k in range(n)], "id": owners, "label": labels, "patient": owners})


def cells(test: pd.DataFrame, right: float, seed: int, folds: int = 5) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    labels = test["label"].map({c: k for k, c in enumerate(CLASSES)}).to_numpy()
    rows = []
    for fold in range(folds):
        predicted = np.where(rng.random(len(labels)) < right, labels, (labels + 1) % 3)
        rows.append({"fold": fold, "seed": 1, "images": 9, "test": {"predicted": predicted.tolist()}})
    return rows


def test_a_better_method_is_found_and_an_equal_one_is_not() -> None:
    test = subjects()
    results = {"good": cells(test, 0.8, 1), "bad": cells(test, 0.5, 2), "same": cells(test, 0.8, 3)}
    worse, same = compare(results, test, CLASSES, "good", ["bad", "same"])
    truth = test["label"].map({c: k for k, c in enumerate(CLASSES)})
    mean = np.mean([balanced_accuracy_score(truth, row["test"]["predicted"]) for row in results["good"]])
    assert worse.means[0] == pytest.approx(mean)
    assert worse.low > 0.15
    assert worse.verdict() == "good is better"
    assert same.low < 0 < same.high
    assert same.verdict() == "no difference shown"
    [swapped] = compare(results, test, CLASSES, "bad", ["good"])
    assert (swapped.difference, swapped.verdict()) == (-worse.difference, "bad is worse")
    text = render([worse, same], {"dataset": "toy", "protocol": "cross_validation"})
    assert "| `good` against `bad` | 5 |" in text
    assert "no difference shown |" in text


def test_two_that_answer_alike_are_no_comparison() -> None:
    test = subjects()
    results = {"whole": cells(test, 0.8, 1), "without": cells(test, 0.8, 1)}
    [one] = compare(results, test, CLASSES, "whole", ["without"])
    assert one.verdict() == "the same answers to every image: is anything different?"


def test_equal_methods_are_told_apart_no_more_often_than_chance() -> None:
    test, found = subjects(60), 0
    for seed in range(20):
        results = {"x": cells(test, 0.7, 2 * seed + 100, 3), "y": cells(test, 0.7, 2 * seed + 101, 3)}
        [one] = compare(results, test, CLASSES, "x", ["y"])
        found += one.p < 0.05
    assert found <= 4


def test_p_values_are_adjusted_for_each_other() -> None:
    test = subjects()
    results = {"x": cells(test, 0.8, 1), "y": cells(test, 0.74, 2), "z": cells(test, 0.76, 3)}
    together = compare(results, test, CLASSES, "x", ["y", "z"])
    small, large = sorted(one.p for one in together)
    assert sorted(one.adjusted for one in together) == [min(1, 2 * small), max(large, min(1, 2 * small))]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ("absent", "There is no result of absent; there are x, apart, without"),
        ("apart", "have no cell in common"),
        ("without", "keep no predictions"),
    ],
)
def test_what_can_t_be_compared_is_said(other: str, sentence: str) -> None:
    test = subjects()
    apart = [row | {"fold": row["fold"] + 9} for row in cells(test, 0.7, 1)]
    without = [row | {"test": {"accuracy": 1}} for row in cells(test, 0.7, 1)]
    with pytest.raises(BadParams, match=sentence):
        compare({"x": cells(test, 0.7, 1), "apart": apart, "without": without}, test, CLASSES, "x", [other])


def test_a_cell_that_was_left_out_is_left_out_of_the_comparison() -> None:
    test = subjects()
    results = {"x": cells(test, 0.8, 1), "y": cells(test, 0.5, 2)}
    results["y"][0] = {"fold": 0, "seed": 1, "left_out": "why"}
    [one] = compare(results, test, CLASSES, "x", ["y"])
    assert isinstance(one, Comparison)
    assert one.cells == 4
