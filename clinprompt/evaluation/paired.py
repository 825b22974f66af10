"""Two models on the same images: the difference of a metric, and what the test set can tell of it."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from clinprompt.evaluation.design import POWER, Design, Superiority
from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.intervals import (
    DECIMALS,
    Intervals,
    estimate,
    importance,
    left_out,
    measured_on,
    quantile,
)
from clinprompt.evaluation.jackknife import Spread
from clinprompt.evaluation.metrics import measure
from clinprompt.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Comparison:
    """Challenger minus champion on the same images, and how far that may be off.

    Attributes:
        count: how many patients it rests on, as `measured_on` counts them.
    """

    metric: str
    difference: Estimate
    spread: Spread
    count: float


def compare(
    champion: Predictions, challenger: Predictions, metric: str, intervals: Intervals, *, same_model: bool = False
) -> Comparison:
    """The difference of a metric on the same images, with a paired interval over patients.

    Of both models the same patients are left out. Where the two agree without any patient, the interval says how much
    they may differ on others, but for one model beside itself.
    """
    if not same_images(champion, challenger):
        why = undefined("the two were not measured on the same images")
        return Comparison(metric, why, Spread(math.nan, math.nan), 0.0)
    count = measured_on(metric, champion)
    values = [_point(model, metric, intervals) for model in (champion, challenger)]
    plan, of_champion = left_out(champion, intervals)
    _, of_challenger = left_out(challenger, intervals)
    spread = plan.spread(of_challenger.overall[metric] - of_champion.overall[metric], importance(metric, champion))
    difference = estimate(
        values[1] - values[0],
        spread,
        intervals.confidence,
        why=f"{metric} is undefined for one of the two",
        bounds=None,
        unit=champion.unit,
        count=None if same_model else count,
    )
    return Comparison(metric, difference, spread, count)


def design(
    champion: Predictions, challenger: Predictions, found: Comparison, margin: float, alpha: float
) -> Design | None:
    """What a test set can support, from how far the two models' difference may be off on it; None where that is not
    known.

    An equal model passes where margin - t × error is above 0, so with the probability Phi(margin / error - t); with the
    probability `POWER` from the margin (t + z) × error on. The error falls with the root of the patients' number
    (Chow et al. 2008, section 3.2). Where the two agree on all patients it is the exact bound on a share of 0.
    """
    patients, spread = len(set(champion.patients)), found.spread
    if not patients or not math.isfinite(spread.error):
        return None
    apart = _disagreement(champion, challenger)
    if spread.error < 10**-DECIMALS:
        supported = 1 - alpha ** (1 / found.count)
        equal = math.log(alpha) / math.log(1 - margin) if 0 < margin < 1 else None
        needed = None if equal is None else math.ceil(round(equal * patients / found.count, DECIMALS))
        return Design(
            patients=patients, disagreement=apart, margin=margin, error=0.0, power=float(supported <= margin),
            supported=round(supported, DECIMALS), needed=needed, unit=champion.unit,
        )  # fmt: skip
    critical = quantile(1 - alpha, spread.freedom)
    reach = (float(ndtri(1 - alpha)) + float(ndtri(POWER))) * spread.error
    return Design(
        patients=patients,
        disagreement=apart,
        margin=margin,
        error=round(spread.error, DECIMALS),
        power=round(float(ndtr(margin / spread.error - critical)), DECIMALS),
        supported=round((critical + float(ndtri(POWER))) * spread.error, DECIMALS),
        needed=math.ceil(patients * (reach / margin) ** 2) if margin > 0 else None,
        unit=champion.unit,
    )


def superiority(
    other: Predictions, challenger: Predictions, found: Comparison, by: float, alpha: float
) -> Superiority | None:
    """What a test set can show, from how far the two models' difference may be off on it; None where that is not known,
    as of two that agree on all images.

    A model that is better by d passes where d - by - t × error is above 0: as in `design`, with d - by for the margin.
    """
    patients, error, difference = len(set(other.patients)), found.spread.error, found.difference.value
    if not patients or not math.isfinite(error) or error < 10**-DECIMALS or difference is None:
        return None
    critical = quantile(1 - alpha, found.spread.freedom)
    reach, over = (float(ndtri(1 - alpha)) + float(ndtri(POWER))) * error, difference - by
    return Superiority(
        patients=patients,
        disagreement=_disagreement(other, challenger),
        by=by,
        error=round(error, DECIMALS),
        power=round(float(ndtr(-by / error - critical)), DECIMALS),
        shown=round(by + (critical + float(ndtri(POWER))) * error, DECIMALS),
        found=difference,
        needed=math.ceil(patients * (reach / over) ** 2) if over > 0 else None,
        unit=other.unit,
    )


def _disagreement(one: Predictions, other: Predictions) -> float:
    """On which share of the images one of two models is right and the other wrong."""
    hits = [model.probabilities.argmax(axis=1) == model.labels for model in (one, other)]
    return round(float(np.mean(hits[0] != hits[1])), DECIMALS)


def same_images(a: Predictions, b: Predictions) -> bool:
    """Whether two models were measured on the same images of the same patients, with the same classes."""
    same = a.classes == b.classes and np.array_equal(a.labels, b.labels)
    return same and np.array_equal(a.patients, b.patients)


def undefined(reason: str) -> Estimate:
    """No value, and why."""
    return Estimate(value=None, low=None, high=None, reason=reason)


def _point(predictions: Predictions, metric: str, intervals: Intervals) -> float:
    ones = np.ones((1, len(predictions)))
    return float(measure(predictions.labels, predictions.probabilities, ones, intervals.bins).overall[metric][0])
