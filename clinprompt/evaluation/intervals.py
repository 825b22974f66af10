"""Metrics with patient-clustered bootstrap intervals.

Images of one patient are alike, so whole patients are drawn with replacement, as many as there are, and the interval
runs between two percentiles of the metric over the resamples (Efron and Tibshirani 1993, chapter 13). An image whose
patient is not known counts as a patient of its own.

Where all resamples give one value, as of six images that are all classified rightly, a bootstrap says nothing of how
much worse the metric can be. There the interval is the exact one of a proportion (Clopper and Pearson 1934) that was
measured on as many patients: 1.000 on six patients is 0.541 to 1.000.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.metrics import Floats, Measures, measure
from clinprompt.evaluation.predictions import Predictions

# Draws depend on it and on the patients alone: candidates on the same images are compared on the same resamples.
SEED = 0
# Six decimals are more than a test set resolves, and the same bytes whatever order a BLAS adds in.
DECIMALS = 6
# With fewer resamples on which the metric exists, their percentiles describe easier test sets than this one.
MIN_DEFINED = 0.9
_CHUNK = 4_000_000  # weights in memory at a time: 32 MB


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: resamples, the share that they cover, and the bins of the calibration error."""

    resamples: int = 1000
    confidence: float = 0.95
    bins: int = 15


@dataclass(frozen=True)
class Estimates:
    """Metric -> estimate, and class id -> metric -> estimate."""

    overall: dict[str, Estimate]
    per_class: dict[str, dict[str, Estimate]]


def estimate_all(predictions: Predictions, bootstrap: Bootstrap) -> Estimates:
    """Every metric, overall and per class, with its interval."""
    point = _measure(predictions, np.ones((1, len(predictions))), bootstrap)
    spread = resample(predictions, bootstrap)
    unit = "images" if predictions.patient_count.patients == 0 else "patients"
    overall = {
        name: estimate(
            float(value[0]),
            spread.overall[name],
            bootstrap.confidence,
            _why(name, predictions),
            unit=unit,
            count=_measured_on(name, predictions),
        )
        for name, value in point.overall.items()
    }
    per_class = {
        class_id: {
            name: estimate(
                float(value[0, c]),
                spread.per_class[name][:, c],
                bootstrap.confidence,
                _why_class(name, c, predictions),
                unit=unit,
                count=_class_measured_on(name, c, predictions),
            )
            for name, value in point.per_class.items()
        }
        for c, class_id in enumerate(predictions.classes)
    }
    return Estimates(overall, per_class)


def resample(predictions: Predictions, bootstrap: Bootstrap) -> Measures:
    """The metrics of every resample; equal patients in equal order get equal resamples."""
    parts = [_measure(predictions, weights, bootstrap) for weights in draw(predictions.patients, bootstrap.resamples)]
    return Measures(
        {name: np.concatenate([part.overall[name] for part in parts]) for name in parts[0].overall},
        {name: np.concatenate([part.per_class[name] for part in parts]) for name in parts[0].per_class},
    )


def draw(patients: NDArray[np.str_], resamples: int, seed: int = SEED) -> Iterator[Floats]:
    """Resamples of patients in chunks of weights [r, n]: how often each image's patient was drawn."""
    names, owner = np.unique(patients, return_inverse=True)
    size = len(names)
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(1, len(patients)))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(max(1, size), size=(rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        yield counts[:, owner].astype(np.float64)


def estimate(
    value: float, spread: Floats, confidence: float, why: str, *, unit: str = "patients", count: int | None = None
) -> Estimate:
    """A value with the percentile interval of its resampled values [R].

    Args:
        why: the reason to give when the value itself is NaN.
        unit: what the resamples were drawn of.
        count: how many of these the value was measured on, for the interval where all resamples agree; None: that they
            agree says enough, as it does of a difference.
    """
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None, reason=why)
    rounded = round(value, DECIMALS)
    defined = spread[np.isfinite(spread)]
    if len(defined) < MIN_DEFINED * len(spread):
        missing = len(spread) - len(defined)
        reason = f"too few {unit}: undefined in {missing} of {len(spread)} resamples"
        return Estimate(value=rounded, low=None, high=None, reason=reason)
    if count is not None and np.ptp(defined) < 10**-DECIMALS:
        if not 0 <= rounded <= 1:
            return Estimate(value=rounded, low=None, high=None, reason=f"too few {unit}: the same in all resamples")
        low, high = proportion(rounded, count, confidence)
        return Estimate(value=rounded, low=round(low, DECIMALS), high=round(high, DECIMALS))
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value=rounded, low=round(float(low), DECIMALS), high=round(float(high), DECIMALS))


def proportion(share: float, count: int, confidence: float) -> tuple[float, float]:
    """The exact interval of a proportion in [0, 1] that was measured on `count` independent ones."""
    hits, tail = share * count, (1 - confidence) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return min(low, share), max(high, share)


def _measured_on(metric: str, predictions: Predictions) -> int:
    """How many patients a metric rests on: all, or where each class counts the same, as if each had the fewest."""
    every = len(set(predictions.patients))
    if metric not in ("balanced_accuracy", "auroc", "macro_f1"):
        return every
    counts = [len(set(predictions.patients[predictions.labels == c])) for c in range(len(predictions.classes))]
    return min(every, len(counts) * min(counts))


def _class_measured_on(metric: str, c: int, predictions: Predictions) -> int:
    """How many patients a metric of one class rests on: those whose images it counts."""
    actual, predicted = predictions.labels == c, predictions.probabilities.argmax(axis=1) == c
    rows = {"sensitivity": actual, "specificity": ~actual, "precision": predicted, "f1": actual | predicted}
    if metric != "auroc":
        return len(set(predictions.patients[rows[metric]]))
    return min(len(set(predictions.patients[part])) for part in (actual, ~actual))


def _measure(predictions: Predictions, weights: Floats, bootstrap: Bootstrap) -> Measures:
    return measure(predictions.labels, predictions.probabilities, weights, bootstrap.bins)


def _why(metric: str, predictions: Predictions) -> str:
    if not len(predictions):
        return "there are no images"
    present = set(predictions.labels.tolist())
    absent = [name for c, name in enumerate(predictions.classes) if c not in present]
    if metric in ("balanced_accuracy", "auroc", "macro_f1") and absent:
        return f"no image of class {', '.join(absent)}"
    return "all images and all predictions are of one class"


def _why_class(metric: str, c: int, predictions: Predictions) -> str:
    if not len(predictions):
        return "there are no images"
    name = predictions.classes[c]
    if metric == "precision":
        return f"no image is predicted as {name}"
    if metric == "f1":
        return f"no image is of class {name} or predicted as it"
    return f"every image is of class {name}" if np.any(predictions.labels == c) else f"no image of class {name}"
