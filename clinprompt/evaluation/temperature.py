"""Temperature scaling: one number that makes a model's probabilities as sure as it is right (Guo et al. 2017).

The logits are divided by T, which changes no predicted class. T minimises the mean negative log-likelihood, which is
convex in 1/T: its derivative is the mean, over the images, of the expected logit minus that of the true class.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from clinprompt.evaluation.metrics import Floats, Ints
from clinprompt.evaluation.patients import Unit

LIMIT = 1000.0  # temperatures lie between 1 / LIMIT and LIMIT
DIGITS = 6  # significant ones: the same bytes whatever order a BLAS adds in


@dataclass(frozen=True)
class Temperature:
    """What logits are divided by; 1 where none was fitted, and then `reason` says why."""

    value: float
    reason: str | None = None


def fit_temperature(logits: Floats, labels: Ints, patients: int, fewest: int, unit: Unit = "patients") -> Temperature:
    """The temperature that fits best.

    Args:
        logits: [n, C], up to a constant of each row: logarithms of probabilities do as well.
        labels: [n] class indices.
        patients: of how many patients the images are.
        fewest: of how many they must be.
        unit: what the patients are called.
    """
    if patients < fewest:
        return Temperature(1.0, f"the validation split has {patients} {unit}, {fewest} are asked for")
    z = np.maximum(logits - logits.max(axis=1, keepdims=True), -1e6)  # of log 0, too, a finite number
    true = z[np.arange(len(z)), labels]
    if (true == 0).all():
        return Temperature(1.0, "all validation images are classified rightly, so none says how unsure to be")

    def slope(log_sharpness: float) -> float:
        odds = np.exp(z * np.exp(log_sharpness))
        expected = (odds * z).sum(axis=1) / odds.sum(axis=1)
        return float((expected - true).mean())

    limit = float(np.log(LIMIT))
    if slope(-limit) >= 0:
        return Temperature(1.0, "the probabilities of the validation images tell no more than chance")
    if slope(limit) <= 0:
        return Temperature(1.0, f"no temperature of at least {1 / LIMIT:g} fits the validation images")
    return Temperature(float(f"{np.exp(-brentq(slope, -limit, limit, xtol=1e-9)):.{DIGITS}g}"))
