"""Metrics against scikit-learn, with weights as repetition, and at their edges."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from toy_run import predictions

from clinprompt.evaluation.metric_names import OVERALL, PER_CLASS, SELECTABLE
from clinprompt.evaluation.metrics import Measures, confidence_bin, measure
from clinprompt.evaluation.predictions import Predictions
from clinprompt.params import Metric

BINS = 15


def plain(p: Predictions, weights: np.ndarray | None = None) -> Measures:
    ones = np.ones(len(p)) if weights is None else weights
    return measure(p.labels, p.probabilities, ones[None, :].astype(np.float64), BINS)


def by_sklearn(p: Predictions) -> dict[str, float]:
    """The overall metrics by an independent route."""
    classes = range(p.probabilities.shape[1])
    predicted = p.probabilities.argmax(axis=1)
    one_hot = np.eye(len(classes))[p.labels]
    return {
        "accuracy": sk.accuracy_score(p.labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(p.labels, predicted),
        "macro_f1": sk.f1_score(p.labels, predicted, average="macro", labels=list(classes), zero_division=0),
        "auroc": float(np.mean([sk.roc_auc_score(one_hot[:, c], p.probabilities[:, c]) for c in classes])),
        "kappa": sk.cohen_kappa_score(p.labels, predicted),
        "quadratic_kappa": sk.cohen_kappa_score(p.labels, predicted, weights="quadratic", labels=list(classes)),
        "ece": naive_ece(p),
        "brier": float(((p.probabilities - one_hot) ** 2).sum(axis=1).mean()),
    }


def naive_ece(p: Predictions) -> float:
    confidence, hit = p.probabilities.max(axis=1), p.probabilities.argmax(axis=1) == p.labels
    total = 0.0
    for k in range(BINS):
        inside = (confidence > k / BINS) & (confidence <= (k + 1) / BINS)
        if inside.any():
            total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("quality", [0.0, 1.0, 4.0])
def test_overall_metrics_are_those_of_sklearn(quality: float) -> None:
    p = predictions(quality)
    found = plain(p).overall
    assert tuple(found) == tuple(OVERALL)
    for name, expected in by_sklearn(p).items():
        assert found[name][0] == pytest.approx(expected, abs=1e-12), name


def test_per_class_metrics_are_those_of_sklearn() -> None:
    p = predictions(1.0)
    found = plain(p).per_class
    assert tuple(found) == tuple(PER_CLASS)
    for c in range(3):
        actual, predicted = p.labels == c, p.probabilities.argmax(axis=1) == c
        expected = {
            "sensitivity": sk.recall_score(actual, predicted),
            "specificity": sk.recall_score(~actual, ~predicted),
            "precision": sk.precision_score(actual, predicted),
            "f1": sk.f1_score(actual, predicted),
            "auroc": sk.roc_auc_score(actual, p.probabilities[:, c]),
        }
        for name, value in expected.items():
            assert found[name][0, c] == pytest.approx(value, abs=1e-12), name


@settings(max_examples=40, deadline=None)
@given(counts=st.lists(st.integers(0, 3), min_size=30, max_size=30), seed=st.integers(0, 99))
def test_a_weight_is_a_repetition(counts: list[int], seed: int) -> None:
    p = predictions(1.0, n=30, seed=seed)
    repeated = np.repeat(np.arange(30), counts)
    if not len(repeated):
        return
    weighted = plain(p, np.array(counts))
    spelt_out = plain(Predictions(p.labels[repeated], p.probabilities[repeated], p.patients[repeated], p.classes))
    for group in ("overall", "per_class"):
        for name, value in getattr(weighted, group).items():
            np.testing.assert_allclose(value, getattr(spelt_out, group)[name], atol=1e-12, err_msg=name)


def test_tied_scores_count_half() -> None:
    p = predictions(1.0)
    rounded = p.probabilities.round(1)
    tied = measure(p.labels, rounded, np.ones((1, len(p))), BINS).per_class["auroc"][0]
    expected = [sk.roc_auc_score(p.labels == c, rounded[:, c]) for c in range(3)]
    np.testing.assert_allclose(tied, expected, atol=1e-12)


def test_an_absent_class_leaves_undefined_what_needs_it() -> None:
    p = predictions(4.0)
    found = plain(p.where(p.labels != 2))
    undefined = {name for name, value in found.overall.items() if np.isnan(value[0])}
    assert {"balanced_accuracy", "auroc"} <= undefined
    assert not undefined & {"accuracy", "ece", "brier", "kappa"}
    assert np.isnan(found.per_class["sensitivity"][0, 2])
    assert not np.isnan(found.per_class["specificity"][0, 2])


def test_no_images_leave_everything_undefined() -> None:
    p = predictions(1.0)
    found = plain(p.where(np.zeros(len(p), dtype=bool)))
    assert all(np.isnan(value).all() for value in found.overall.values())
    assert all(np.isnan(value).all() for value in found.per_class.values())


def test_a_bin_holds_its_upper_edge() -> None:
    assert confidence_bin(np.array([0.0, 0.1, 0.2, 0.2000001, 1.0]), 5).tolist() == [0, 0, 0, 1, 4]


def test_the_gate_chooses_by_the_metrics_of_which_more_is_better() -> None:
    assert get_args(Metric) == SELECTABLE
