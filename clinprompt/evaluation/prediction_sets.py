"""Prediction sets: the classes that an image may be of, such that the true one is among them as often as asked.

Split conformal prediction: a class is in an image's set if its probability reaches a threshold, and the threshold is
the quantile of the true classes' probabilities on calibration images that makes room for one image more (Vovk et al.
2005; Sadinle et al. 2019). Where each class has enough calibration patients it gets a threshold of its own, so that the
sets hold the true class as often in each class (Mondrian; Vovk 2012). Images of one patient are alike, so patients and
not images are what has to be exchangeable: each of K patients weighs 1 / (K + 1), shared by their images, as does the
patient to come (Lee, Barber and Willett 2023, arXiv:2306.06342). With one image per patient that is the usual quantile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from clinprompt.evaluation.metrics import Floats
from clinprompt.evaluation.predictions import Predictions

DECIMALS = 6  # thresholds are cut to so many: a served model rounds in another way
_TINY = 1e-9


@dataclass(frozen=True)
class Thresholds:
    """What a class's probability must at least be.

    Attributes:
        values: [C]; None where no sets could be made, and then `reason` says why.
        per_class: whether each class has its own; where not, `reason` says why.
        calibrated_on: [C] patients behind each threshold.
    """

    values: tuple[float, ...] | None
    per_class: bool
    calibrated_on: tuple[int, ...]
    reason: str | None = None


def fit_thresholds(calibration: Predictions, coverage: float) -> Thresholds:
    """The thresholds at which sets hold the true class of a new patient's image with a probability of `coverage`."""
    p, fewest = calibration, patients_needed(coverage)
    true = p.probabilities[np.arange(len(p)), p.labels]
    counts, total = p.patients_per_class, len(set(p.patients))
    if counts and min(counts) >= fewest:
        members = [p.labels == c for c in range(len(p.classes))]
        values = tuple(threshold(true[rows], p.patients[rows], coverage) for rows in members)
        return Thresholds(values, True, tuple(counts))
    if total < fewest:
        reason = f"the validation split has {total} {p.unit}; a coverage of {coverage:g} takes {fewest}"
        return Thresholds(None, False, (total,) * len(p.classes), reason)
    lacking = p.classes[counts.index(min(counts))]
    reason = (
        f"one threshold for all classes: {lacking} has {min(counts)} {p.unit} in the validation split, and a coverage "
        f"of {coverage:g} in each class takes {fewest}"
    )
    same = (threshold(true, p.patients, coverage),) * len(p.classes)
    return Thresholds(same, False, (total,) * len(p.classes), reason)


def patients_needed(coverage: float) -> int:
    """The fewest calibration patients of which a threshold can follow: K / (K + 1) must reach the coverage."""
    return math.ceil(coverage / (1 - coverage) - _TINY)


def threshold(true: Floats, patients: NDArray[np.str_], coverage: float) -> float:
    """The probability that a new patient's image's true class reaches with a probability of at least `coverage`.

    Args:
        true: [n] the true class's probability.
        patients: [n] whose image it is; `patients_needed` at least.
    """
    _, who, images = np.unique(patients, return_inverse=True, return_counts=True)
    order = np.argsort(-true, kind="stable")
    reached = np.cumsum(1 / images[who[order]])
    place = int(np.searchsorted(reached, coverage * (len(images) + 1) - _TINY))
    found = float(true[order[min(place, len(order) - 1)]])
    return math.floor(found * 10**DECIMALS) / 10**DECIMALS


def in_sets(probabilities: Floats, thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """[n, C] whether each class is in each image's set."""
    return probabilities >= np.asarray(thresholds)


def band(
    calibrated_on: Sequence[int], tested: Sequence[int], coverage: float, confidence: float
) -> tuple[float, float]:
    """Between which shares the coverage of a test split lies with a probability of `confidence`, were its patients
    exchangeable with the calibration split's and of one image each.

    Given thresholds of k-th smallest scores of K patients, of m others a beta-binomial number is covered (Vovk 2012,
    proposition 2a); strata with thresholds of their own add up.

    Args:
        calibrated_on, tested: the numbers K and m of each stratum.
    """
    chances = np.ones(1)
    for k, m in zip(calibrated_on, tested, strict=True):
        rank = math.ceil(coverage * (k + 1) - _TINY)
        chances = np.convolve(chances, _beta_binomial(m, rank, k + 1 - rank))
    below, tail, most = np.cumsum(chances), (1 - confidence) / 2, max(1, len(chances) - 1)
    low, high = (int(np.searchsorted(below, share - _TINY)) for share in (tail, 1 - tail))
    return low / most, min(high, most) / most


def _beta_binomial(m: int, a: int, b: int) -> Floats:
    """[m + 1] the chances of 0 to m successes among `m`, of a share that follows the beta distribution of a and b."""
    n = np.arange(m + 1)
    chosen = -np.log(m + 1) - betaln(m - n + 1, n + 1)
    chances: Floats = np.exp(chosen + betaln(n + a, m - n + b) - betaln(a, b))
    return chances
