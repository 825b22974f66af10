"""McNemar's and DeLong's tests against closed forms."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from clinprompt.evaluation.cross_checks import cross_checks, delong, mcnemar
from clinprompt.evaluation.predictions import Predictions


def binary(scores: np.ndarray, labels: np.ndarray, per_patient: int = 1) -> Predictions:
    odds = 1 / (1 + np.exp(-scores))
    patients = np.array([f"{i // per_patient:04d}" for i in range(len(labels))])
    return Predictions(labels, np.stack([1 - odds, odds], axis=1), patients, ("a", "b"))


def two(n: int = 150, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [n // 3, n - n // 3])
    common = rng.normal(size=n) + labels
    return labels, common + 0.5 * rng.normal(size=n), common + 0.5 * rng.normal(size=n) + 0.3 * labels


def test_delong_is_that_of_the_paper() -> None:
    labels, first, second = two()
    areas, v10, v01 = [], [], []
    for scores in (first, second):
        wins = (scores[labels == 1][:, None] > scores[labels == 0][None, :]).astype(float)
        areas.append(wins.mean())
        v10.append(wins.mean(axis=1))
        v01.append(wins.mean(axis=0))
    covariance = np.cov(v10) / (labels == 1).sum() + np.cov(v01) / (labels == 0).sum()
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    found = delong(binary(first, labels), binary(second, labels))
    assert found.difference == pytest.approx(areas[1] - areas[0], abs=1e-6)
    assert found.p == pytest.approx(2 * norm.cdf(-abs(areas[1] - areas[0]) / np.sqrt(variance)), abs=1e-6)


def test_images_that_stand_there_twice_give_no_second_opinion() -> None:
    labels, first, second = two()
    once = delong(binary(first, labels), binary(second, labels))
    twice = [binary(np.repeat(scores, 2), np.repeat(labels, 2), per_patient=2) for scores in (first, second)]
    found = delong(*twice)
    assert found.p == pytest.approx(once.p, abs=0.01)


def test_mcnemar_counts_patients() -> None:
    labels = np.zeros(40, dtype=np.int64)
    right = np.where(np.arange(40) < 30, -1.0, 1.0)
    better = np.where(np.arange(40) < 38, -1.0, 1.0)
    found = mcnemar(binary(right, labels), binary(better, labels))
    assert found.p == pytest.approx(2 * binom.cdf(0, 8, 0.5), abs=1e-6)
    assert found.says == "the challenger has more images right of 8 patients, the champion of 0"
    clustered = mcnemar(binary(right, labels, per_patient=10), binary(better, labels, per_patient=10))
    assert clustered.p == 1.0  # it is one patient


def test_models_of_other_images_are_not_tested() -> None:
    labels, first, second = two()
    assert cross_checks(binary(first, labels), binary(second[1:], labels[1:])) == []
    assert cross_checks(None, binary(second, labels)) == []
    assert [one.test for one in cross_checks(binary(first, labels), binary(second, labels))] == ["McNemar", "DeLong"]
