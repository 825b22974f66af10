"""Classification metrics for many weightings of the same images at once.

A row of `weights` says how much each image counts: a row of ones gives the plain value, one with zeros for a patient
that without the patient.
A value that is not defined (0/0, as the AUROC of a class without images) is NaN.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Measures:
    """Values of the metrics of `metric_names.OVERALL`, each [R], and of its `PER_CLASS`, each [R, C]."""

    overall: dict[str, Floats]
    per_class: dict[str, Floats]


def measure(labels: Ints, probabilities: Floats, weights: Floats, bins: int) -> Measures:
    """All metrics for each row of weights.

    Args:
        labels: [n] class indices.
        probabilities: [n, C].
        weights: [R, n], non-negative.
        bins: equal-width bins of the calibration error.
    """
    table = confusion(labels, probabilities.argmax(axis=1), weights, probabilities.shape[1])
    hit, actual, predicted = np.diagonal(table, axis1=1, axis2=2), table.sum(axis=2), table.sum(axis=1)
    total = actual.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_class = {
            "sensitivity": hit / actual,
            "specificity": (total - actual - predicted + hit) / (total - actual),
            "precision": hit / predicted,
            "f1": 2 * hit / (actual + predicted),
            "auroc": one_vs_rest_auroc(labels, probabilities, weights),
        }
        overall = {
            "accuracy": hit.sum(axis=1) / total[:, 0],
            "balanced_accuracy": per_class["sensitivity"].mean(axis=1),
            "macro_f1": per_class["f1"].mean(axis=1),
            "auroc": per_class["auroc"].mean(axis=1),
            "kappa": kappa(table, power=0),
            "quadratic_kappa": kappa(table, power=2),
            "ece": expected_calibration_error(labels, probabilities, weights, bins),
            "brier": brier(labels, probabilities, weights),
        }
    return Measures(overall, per_class)


def confusion(labels: Ints, predicted: Ints, weights: Floats, classes: int) -> Floats:
    """Weighted counts [R, C, C]: rows are the actual classes, columns the predicted ones."""
    return (weights @ _one_hot(labels * classes + predicted, classes**2)).reshape(-1, classes, classes)


def kappa(table: Floats, power: int) -> Floats:
    """Cohen's kappa [R] of confusion tables [R, C, C]; a disagreement costs |i - j|^power (0: plain, 2: quadratic)."""
    actual, predicted = table.sum(axis=2), table.sum(axis=1)
    index = np.arange(table.shape[1])
    distance = np.abs(index[:, None] - index[None, :])
    cost = np.where(distance > 0, distance**power, 0).astype(np.float64)
    observed = (table * cost).sum(axis=(1, 2)) * actual.sum(axis=1)
    expected = (actual[:, :, None] * predicted[:, None, :] * cost).sum(axis=(1, 2))
    return 1 - observed / expected


def one_vs_rest_auroc(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Area under each class's ROC curve [R, C]: the share of (in, out) pairs in the right order, ties count half."""
    areas = np.full((len(weights), probabilities.shape[1]), np.nan)
    if not len(labels):
        return areas
    for c, scores in enumerate(probabilities.T):
        order = np.argsort(scores, kind="stable")
        starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
        ranked = weights[:, order]
        inside = ranked * (labels[order] == c)
        positive = np.add.reduceat(inside, starts, axis=1)
        negative = np.add.reduceat(ranked - inside, starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2
        areas[:, c] = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return areas


def expected_calibration_error(labels: Ints, probabilities: Floats, weights: Floats, bins: int) -> Floats:
    """ECE [R]: |accuracy - mean confidence| of each bin of top-label confidence, weighted by its share of the images.

    Guo et al. 2017, equation 3.
    """
    confidence = probabilities.max(axis=1, initial=0)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    members = _one_hot(confidence_bin(confidence, bins), bins)
    return np.abs(weights @ (members * gap[:, None])).sum(axis=1) / weights.sum(axis=1)


def confidence_bin(confidence: Floats, bins: int) -> Ints:
    """Index [n] of the equal-width bin (low, high] of [0, 1] that each confidence falls in."""
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    return np.searchsorted(inner, confidence, side="left").astype(np.int64)


def brier(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    """Brier score [R]: mean over the images of the squared error, summed over the classes (0 to 2)."""
    squared = ((probabilities - _one_hot(labels, probabilities.shape[1])) ** 2).sum(axis=1)
    return (weights @ squared) / weights.sum(axis=1)


def _one_hot(index: Ints, size: int) -> Floats:
    rows = np.zeros((len(index), size))
    rows[np.arange(len(index)), index] = 1
    return rows
