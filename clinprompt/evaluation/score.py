"""How well a model estimates a score of the subject's record, as the MMSE, beside telling the classes apart."""

from typing import Any

import numpy as np
import pandas as pd

from clinprompt.data.card import Measure
from clinprompt.data.manifest import patients
from clinprompt.evaluation.intervals import POSITIVE, SIGNED, Intervals, estimate
from clinprompt.evaluation.jackknife import leave_out
from clinprompt.evaluation.metric_names import SCORE
from clinprompt.evaluation.metrics import Floats
from clinprompt.evaluation.metrics_record import ScoreMetrics
from clinprompt.evaluation.patients import PatientCount
from clinprompt.evaluation.slices import SMALL, UNKNOWN, not_sliced

_BOUNDS = {"mae": POSITIVE, "rmse": POSITIVE, "correlation": SIGNED}  # the others may be any number
_FEW = "there are too few images whose score is known, or all scores are one"


def actual_scores(rows: pd.DataFrame, measure: Measure) -> Floats:
    """The scores [n] that a manifest's rows tell; NaN where one is missing or no number in the measure's range."""
    values = pd.to_numeric(rows[measure.column], errors="coerce").to_numpy(np.float64)
    low = -np.inf if measure.low is None else measure.low
    high = np.inf if measure.high is None else measure.high
    scores: Floats = np.where(np.isfinite(values) & (values >= low) & (values <= high), values, np.nan)
    return scores


def measure_scores(actual: Floats, estimated: Floats, weights: Floats) -> dict[str, Floats]:
    """The metrics of `metric_names.SCORE`, each [R], for each row of weights.

    Args:
        actual, estimated: [n], both known.
        weights: [R, n], how often each image counts.

    Returns:
        mae and rmse in points; bias, the mean of estimated - actual; correlation (Pearson's); slope, that of the actual
        score regressed on the estimated one, which is 1 where estimates are calibrated. NaN where one is not defined.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        total = weights.sum(axis=1)

        def mean(values: Floats) -> Floats:
            means: Floats = weights @ values / total
            return means

        error = estimated - actual
        # Centred first: of numbers around 25 the sums of squares would lose digits.
        x, y = estimated - estimated.mean(), actual - actual.mean()
        covariance = mean(x * y) - mean(x) * mean(y)
        of_x, of_y = mean(x * x) - mean(x) ** 2, mean(y * y) - mean(y) ** 2
        tiny = 1e-12
        of_x, of_y = np.where(of_x > tiny, of_x, np.nan), np.where(of_y > tiny, of_y, np.nan)
        return {
            "mae": mean(np.abs(error)),
            "rmse": np.sqrt(mean(error**2)),
            "bias": mean(error),
            "correlation": covariance / np.sqrt(of_x * of_y),
            "slope": covariance / of_x,
        }


def score_metrics(
    rows: pd.DataFrame, estimated: Floats, measure: Measure, columns: list[str], intervals: Intervals
) -> ScoreMetrics:
    """The metrics with patient-clustered intervals, of all images whose score is known and of each slice.

    Args:
        rows: the manifest's rows, with `age_band`.
        estimated: [n] of the same images.
        columns: to slice by; those that `not_sliced` names are left out.
    """
    actual = actual_scores(rows, measure)
    known = np.isfinite(actual) & np.isfinite(estimated)
    rows, actual, estimated = rows[known], actual[known], estimated[known]
    slices: dict[str, ScoreMetrics] = {}
    for column in (column for column in columns if column not in not_sliced(rows, columns)):
        values = rows[column].astype("object").where(rows[column].notna(), UNKNOWN).map(str).to_numpy()
        for value in sorted(set(values)):
            part = values == value
            slices[f"{column}={value}"] = _measured(rows[part], actual[part], estimated[part], measure, intervals)
    whole = _measured(rows, actual, estimated, measure, intervals)
    return whole.model_copy(update={"missing": int((~known).sum()), "slices": slices})


def _measured(
    rows: pd.DataFrame, actual: Floats, estimated: Floats, measure: Measure, intervals: Intervals
) -> ScoreMetrics:
    n, known = len(rows), rows["patient"].notna()
    count = PatientCount(images=n, patients=int(rows["patient"].nunique()), without=int(n - known.sum()))
    empty = {name: np.full(1, np.nan) for name in SCORE}
    point = measure_scores(actual, estimated, np.ones((1, n))) if n else empty
    # No classes here: all patients are of one stratum.
    plan = leave_out(patients(rows).to_numpy(dtype=str), np.zeros(n, np.int64), 1)
    parts = [measure_scores(actual, estimated, weights) for weights in (plan.weights() if n else ())]
    made: dict[str, Any] = {
        name: estimate(
            float(point[name][0]),
            plan.spread(np.concatenate([part[name] for part in parts] or [empty[name]]), np.ones(1)),
            intervals.confidence,
            why=_FEW,
            bounds=_BOUNDS.get(name),
            unit=count.counted,
        )
        for name in SCORE
    }
    return ScoreMetrics(name=measure.name, unit=measure.unit, n=n, patients=count.shown, small=n < SMALL, **made)
