"""Metrics with intervals over patients.

An interval is value ± t × standard error on a scale on which the metric is nearly normal: the logit between its bounds
(Agresti 2013, section 3.1), the plain one for differences. The standard error and its degrees of freedom are those of a
stratified, clustered jackknife (`clinprompt.evaluation.jackknife`). An image whose patient is not known counts as a
patient of its own. How often such intervals hold the truth, by simulation, is in docs/gates.md.

Where leaving out any patient changes nothing, as with six images that are all classified rightly, that says nothing of
how much worse the metric can be. There the interval is the exact one of a proportion (Clopper and Pearson 1934) that
was measured on as many patients: 1.000 on six patients is 0.541 to 1.000. With one patient that is wrong the standard
error rests on that one alone, and Student's t of so few degrees of freedom reaches farther than anything can be off. So
of a mean no end is farther than that exact interval's: a mean of numbers in [0, 1] is known no worse than a proportion
(Hoeffding 1956, 1963).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.jackknife import Jackknife, Spread, leave_out
from clinprompt.evaluation.metrics import Floats, Ints, Measures, measure
from clinprompt.evaluation.patients import Unit
from clinprompt.evaluation.predictions import Predictions

# Six decimals are more than a test set resolves, and the same bytes whatever order a BLAS adds in.
DECIMALS = 6
Bounds = tuple[float, float]
PROPORTION: Bounds = (0.0, 1.0)
POSITIVE: Bounds = (0.0, np.inf)
SIGNED: Bounds = (-1.0, 1.0)
_BOUNDS = {"kappa": SIGNED, "quadratic_kappa": SIGNED, "brier": (0.0, 2.0)}  # all others are proportions
_MEANS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity")
_EACH_CLASS_ALIKE = ("balanced_accuracy", "auroc", "macro_f1")


@dataclass(frozen=True)
class Intervals:
    """How intervals are made: the share of test sets on which they hold the truth, and the calibration error's bins."""

    confidence: float = 0.95
    bins: int = 15


@dataclass(frozen=True)
class Estimates:
    """Metric -> estimate, and class id -> metric -> estimate."""

    overall: dict[str, Estimate]
    per_class: dict[str, dict[str, Estimate]]


def estimate_all(predictions: Predictions, intervals: Intervals) -> Estimates:
    """Every metric, overall and per class, with its interval."""
    p, confidence = predictions, intervals.confidence
    point = measure(p.labels, p.probabilities, np.ones((1, len(p))), intervals.bins)
    plan, without = left_out(p, intervals)
    overall = {
        name: estimate(
            float(value[0]),
            plan.spread(without.overall[name], importance(name, p)),
            confidence,
            why=_why(name, p),
            bounds=_BOUNDS.get(name, PROPORTION),
            unit=p.unit,
            count=measured_on(name, p),
            mean=name in _MEANS,
        )
        for name, value in point.overall.items()
    }
    per_class = {
        class_id: {
            name: estimate(
                float(value[0, c]),
                plan.spread(without.per_class[name][:, c], importance(name, p, c)),
                confidence,
                why=_why_class(name, c, p),
                unit=p.unit,
                count=_class_rests_on(name, c, p),
                mean=name in _MEANS,
            )
            for name, value in point.per_class.items()
        }
        for c, class_id in enumerate(p.classes)
    }
    return Estimates(overall, per_class)


def left_out(predictions: Predictions, intervals: Intervals) -> tuple[Jackknife, Measures]:
    """Which patients are left out, and the metrics while each is: equal patients in equal order give equal groups."""
    p = predictions
    plan = leave_out(p.patients, p.labels, len(p.classes))
    parts = [measure(p.labels, p.probabilities, weights, intervals.bins) for weights in _or_none(plan, len(p))]
    return plan, Measures(
        {name: np.concatenate([part.overall[name] for part in parts]) for name in parts[0].overall},
        {name: np.concatenate([part.per_class[name] for part in parts]) for name in parts[0].per_class},
    )


def estimate_of(
    statistic: Callable[[Floats], Floats], patients: NDArray[np.str_], labels: Ints, classes: int, *,
    intervals: Intervals, why: str, weight: Floats | None = None, bounds: Bounds | None = PROPORTION,
    count: float | None = None, unit: Unit = "patients", mean: bool = False,
) -> Estimate:  # fmt: skip
    """Any statistic of images with its interval.

    Args:
        statistic: its values [R] for weights [R, n] of the images.
        patients, labels: [n] of the images.
        weight: [C] of each class in the statistic; None: its share of the images.
        why: the reason to give when the value is NaN.
        bounds: what it lies between; None: it may be any number.
        count: how many patients it was measured on; None: all.
        unit: what the patients are called.
        mean: whether it is a mean over patients of numbers in [0, 1].
    """
    if not len(labels):
        return Estimate(value=None, low=None, high=None, reason=why)
    plan = leave_out(patients, labels, classes)
    value = float(statistic(np.ones((1, len(labels))))[0])
    without = np.concatenate([statistic(weights) for weights in plan.weights()])
    shares = np.bincount(labels, minlength=classes) / len(labels) if weight is None else weight
    rests_on = effective(patients) if count is None else count
    spread = plan.spread(without, shares)
    return estimate(value, spread, intervals.confidence, why=why, bounds=bounds, unit=unit, count=rests_on, mean=mean)


def estimate(
    value: float,
    spread: Spread,
    confidence: float,
    *,
    why: str,
    bounds: Bounds | None = PROPORTION,
    unit: Unit = "patients",
    count: float | None = None,
    mean: bool = False,
) -> Estimate:
    """A value with its interval.

    Args:
        why: the reason to give when the value itself is NaN.
        bounds: what the metric lies between, as a test set's value does; None: it may be any number.
        unit: what was left out.
        count: how many of these the value was measured on, for the interval where leaving any out changes nothing;
            None: that nothing changes says enough.
        mean: whether it is a mean over these of numbers in [0, 1].
    """
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None, reason=why)
    rounded = round(value, DECIMALS)
    if not np.isfinite(spread.error):
        reason = f"too few {unit}: without some of them it is undefined"
        return Estimate(value=rounded, low=None, high=None, reason=reason)
    if spread.error < 10**-DECIMALS:
        if bounds is not None and count is not None and not 0 <= rounded <= 1:
            return Estimate(value=rounded, low=None, high=None, reason=f"too few {unit}: none of them changes it")
        low, high = _unchanged(rounded, confidence, bounds, count)
    else:
        low, high = limits(value, spread, confidence, bounds)
        if mean and count:
            least, most = proportion(value, count, confidence)
            low, high = max(low, least), min(high, most)
    return Estimate(value=rounded, low=round(min(low, value), DECIMALS), high=round(max(high, value), DECIMALS))


def limits(value: float, spread: Spread, confidence: float, bounds: Bounds | None) -> Bounds:
    """The interval's ends, from a standard error above 0.

    On the logit scale between bounds a and b, the error is (b - a) / ((x - a)(b - x)) times that of x (delta method).
    """
    reach = quantile((1 + confidence) / 2, spread.freedom) * spread.error
    if bounds is None:
        return value - reach, value + reach
    least, most = bounds
    if not least < value < most:
        return value - reach, value + reach
    if np.isinf(most):  # the logarithm
        factor = float(np.exp(reach / (value - least)))
        return least + (value - least) / factor, least + (value - least) * factor
    width = most - least
    odds, step = (value - least) / (most - value), reach * width / ((value - least) * (most - value))
    with np.errstate(over="ignore"):
        low, high = odds * np.exp(-step), np.exp(-step) / odds
    return float(least + width * low / (1 + low)), float(least + width / (1 + high))


def quantile(share: float, freedom: float) -> float:
    """That of Student's t; with less than one degree of freedom that of one."""
    return float(stdtrit(max(1.0, freedom), share))


def proportion(share: float, count: float, confidence: float) -> Bounds:
    """The exact interval of a proportion in [0, 1] that was measured on as good as `count` independent ones."""
    hits, tail = share * count, (1 - confidence) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return min(low, share), max(high, share)


def effective(patients: NDArray[np.str_]) -> float:
    """How many patients with as many images each would tell as much as those [n] whose images these are (Kish 1965)."""
    images = np.unique(patients, return_counts=True)[1].astype(np.float64)
    return float(images.sum() ** 2 / (images**2).sum()) if len(images) else 0.0


def importance(metric: str, predictions: Predictions, c: int | None = None) -> Floats:
    """The weight [C] of each class in a metric of all classes, or in one of class `c`."""
    counts = np.bincount(predictions.labels, minlength=len(predictions.classes)).astype(np.float64)
    if c is None:
        return np.ones(len(counts)) if metric in _EACH_CLASS_ALIKE else counts
    own = np.arange(len(counts)) == c
    if metric == "sensitivity":
        return own.astype(np.float64)
    if metric in ("specificity", "auroc"):
        others = np.where(own, 0.0, counts) / max(1.0, counts.sum() - counts[c])
        return others + (own if metric == "auroc" else 0.0)
    return counts


def _unchanged(value: float, confidence: float, bounds: Bounds | None, count: float | None) -> Bounds:
    if count is None:
        return value, value
    if bounds is None:  # a difference of two that agree on all: by so much they may differ on others
        apart = 1 - ((1 - confidence) / 2) ** (1 / count)
        return value - apart, value + apart
    return proportion(value, count, confidence)


def _or_none(plan: Jackknife, images: int) -> Iterable[Floats]:
    return plan.weights() if images else [np.zeros((0, 0))]


def measured_on(metric: str, predictions: Predictions) -> float:
    """How many patients a metric rests on: all, or where each class counts the same, as if each had the fewest.

    Those with more images than others count for less than one.
    """
    p, every = predictions, effective(predictions.patients)
    if metric not in _EACH_CLASS_ALIKE:
        return every
    return min(every, len(p.classes) * min(effective(p.patients[p.labels == c]) for c in range(len(p.classes))))


def _class_rests_on(metric: str, c: int, predictions: Predictions) -> float:
    """How many patients a metric of one class rests on: those whose images it counts."""
    actual, predicted = predictions.labels == c, predictions.probabilities.argmax(axis=1) == c
    rows = {"sensitivity": actual, "specificity": ~actual, "precision": predicted, "f1": actual | predicted}
    if metric != "auroc":
        return effective(predictions.patients[rows[metric]])
    return min(effective(predictions.patients[part]) for part in (actual, ~actual))


def _why(metric: str, predictions: Predictions) -> str:
    if not len(predictions):
        return "there are no images"
    present = set(predictions.labels.tolist())
    absent = [name for c, name in enumerate(predictions.classes) if c not in present]
    if metric in _EACH_CLASS_ALIKE and absent:
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
