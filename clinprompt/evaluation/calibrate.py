"""Fit what makes a served model's probabilities usable on the validation split, and hold it against the test split.

The validation split is the pipeline's calibration split: it also picks the best candidate, and in some methods a
setting, so that it is a little better predicted than new images. What that costs shows on the test split.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from clinprompt.evaluation.abstention import fit_abstention
from clinprompt.evaluation.calibration_record import (
    AbstentionTest,
    AbstentionThreshold,
    Calibration,
    Covered,
    FittedOn,
    PredictionSets,
    SetCoverage,
)
from clinprompt.evaluation.contenders import Slices
from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.intervals import DECIMALS, Intervals, estimate_of
from clinprompt.evaluation.metrics import Floats
from clinprompt.evaluation.prediction_sets import Thresholds, band, fit_thresholds, in_sets
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.temperature import fit_temperature
from clinprompt.params import CalibrationParams

_BAND = 0.95
_NONE = "there are no images"


def calibrate(
    val: Predictions, test: Predictions, slices: Slices, temperature: float, params: CalibrationParams,
    intervals: Intervals,
) -> Calibration:  # fmt: skip
    """What was fitted, with how it holds on the test split.

    Args:
        val, test: probabilities as the model is served, that is after the temperature.
        slices: of the test split.
        temperature: what they were made with.
    """
    # Of scaled probabilities the best temperature is 1: only where none was fitted there is something to say.
    reason = None
    if temperature == 1:
        patients = len(set(val.patients))
        reason = fit_temperature(logarithms(val), val.labels, patients, params.min_patients, val.unit).reason
    return Calibration(
        fitted_on=FittedOn(split="val", images=len(val), patients=len(set(val.patients)), unit=val.unit),
        temperature=temperature,
        temperature_reason=reason,
        prediction_sets=_sets(val, test, slices, params.coverage, intervals),
        abstention=_abstention(val, test, params, intervals),
    )


def logarithms(predictions: Predictions) -> Floats:
    """Logits [n, C] that give the probabilities."""
    logits: Floats = np.log(np.maximum(predictions.probabilities, np.finfo(np.float64).tiny))
    return logits


def _sets(val: Predictions, test: Predictions, slices: Slices, coverage: float, intervals: Intervals) -> PredictionSets:
    fitted = fit_thresholds(val, coverage)
    values = fitted.values
    return PredictionSets(
        coverage=coverage,
        per_class=fitted.per_class,
        thresholds=None if values is None else dict(zip(val.classes, values, strict=True)),
        reason=fitted.reason,
        test=None if values is None or not len(test) else _coverage(fitted, values, test, slices, coverage, intervals),
    )


def _coverage(
    fitted: Thresholds, values: tuple[float, ...], test: Predictions, slices: Slices, coverage: float,
    intervals: Intervals,
) -> SetCoverage:  # fmt: skip
    sets = in_sets(test.probabilities, values)
    held, size = sets[np.arange(len(test)), test.labels], sets.sum(axis=1)

    def covered(rows: NDArray[np.bool_]) -> Covered:
        part = test.where(rows)
        tested = part.patients_per_class if fitted.per_class else [len(set(part.patients))]
        behind = fitted.calibrated_on if fitted.per_class else fitted.calibrated_on[:1]
        low, high = band(behind, tested, coverage, _BAND)
        return Covered(
            n=len(part),
            coverage=_share(part, held[rows], intervals),
            band=[round(low, DECIMALS), round(high, DECIMALS)] if len(part) else None,
            size=round(float(size[rows].mean()), DECIMALS) if len(part) else 0.0,
        )

    masks: Mapping[str, Mapping[str, NDArray[np.bool_]]] = slices.masks
    return SetCoverage(
        overall=covered(np.ones(len(test), dtype=bool)),
        per_class={name: covered(test.labels == c) for c, name in enumerate(test.classes)},
        slices={f"{column}={value}": covered(rows) for column, of in masks.items() for value, rows in of.items()},
        single=round(float((size == 1).mean()), DECIMALS),
        empty=round(float((size == 0).mean()), DECIMALS),
    )


def _abstention(
    val: Predictions, test: Predictions, params: CalibrationParams, intervals: Intervals
) -> AbstentionThreshold:
    fitted = fit_abstention(val, params.abstention_error, params.abstention_confidence)
    told = None
    if fitted.threshold is not None:
        kept = test.probabilities.max(axis=1, initial=0) >= fitted.threshold
        part = test.where(kept)
        wrong = part.probabilities.argmax(axis=1) != part.labels
        told = AbstentionTest(answered=_share(test, kept, intervals), error=_share(part, wrong, intervals))
    return AbstentionThreshold(
        error=params.abstention_error,
        confidence=params.abstention_confidence,
        threshold=fitted.threshold,
        reason=fitted.reason,
        test=told,
    )


def _share(part: Predictions, true: NDArray[np.bool_], intervals: Intervals) -> Estimate:
    """The share of the images of which something is true, with its interval over patients."""
    values = true.astype(np.float64)

    def share(weights: Floats) -> Floats:
        shares: Floats = weights @ values / weights.sum(axis=1)
        return shares

    return estimate_of(
        share, part.patients, part.labels, len(part.classes), intervals=intervals, why=_NONE, unit=part.unit, mean=True
    )
