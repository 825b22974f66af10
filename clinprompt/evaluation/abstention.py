"""When to say nothing: the lowest probability of a predicted class above which few enough patients get wrong answers.

Thresholds are tried from the one that leaves the surest half of the calibration images downwards, each by the exact
binomial test at the whole level, until one fails (fixed-sequence testing; Angelopoulos et al. 2021, arXiv:2110.01052;
El-Yaniv and Wiener 2010 for the idea). What counts are patients, since images of one patient are not independent: one
is answered wrongly when any of the answered images is.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from clinprompt.evaluation.prediction_sets import DECIMALS
from clinprompt.evaluation.predictions import Predictions

SHARES = tuple(round(0.5 + 0.05 * step, 2) for step in range(11))  # of the images that are answered


@dataclass(frozen=True)
class Abstention:
    """Below which probability of the predicted class a model abstains; None where none can be shown to do."""

    threshold: float | None
    reason: str | None = None


def fit_abstention(calibration: Predictions, error: float, confidence: float) -> Abstention:
    """The threshold that answers the most and still gives, with `confidence`, at most a share `error` of the patients
    whom it answers a wrong answer."""
    p = calibration
    if not len(p):
        return Abstention(None, "the validation split has no images")
    sure, wrong = p.probabilities.max(axis=1), p.probabilities.argmax(axis=1) != p.labels
    descending, found, first = np.sort(sure)[::-1], None, (0, 0)
    for share in SHARES:
        at = math.floor(descending[max(0, round(share * len(p)) - 1)] * 10**DECIMALS) / 10**DECIMALS
        patients, mistaken = answered(p.patients, wrong, sure >= at)
        first = first if first[0] else (patients, mistaken)
        if bdtr(mistaken, patients, error) > 1 - confidence:
            break
        found = at
    if found is not None:
        return Abstention(found)
    half = "surest half" if p.unit == "images" else "surest half of the images"
    return Abstention(
        None,
        f"of the {first[0]} validation {p.unit} of the {half} {first[1]} got a wrong answer, which "
        f"does not show an error of at most {error:g} with a confidence of {confidence:g}",
    )


def answered(patients: NDArray[np.str_], wrong: NDArray[np.bool_], kept: NDArray[np.bool_]) -> tuple[int, int]:
    """Of how many patients any image is answered, and of how many any wrongly.

    Args:
        patients, wrong, kept: [n] of the images: whose, whether classified wrongly, and whether answered.
    """
    return len(set(patients[kept])), len(set(patients[kept & wrong]))
