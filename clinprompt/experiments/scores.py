"""What is measured of a model on a test, and how cells are averaged."""

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clinprompt.evaluation.intervals import DECIMALS
from clinprompt.evaluation.metric_names import SELECTABLE
from clinprompt.evaluation.metrics import measure
from clinprompt.evaluation.novel import harmonic_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scores = dict[str, float | None]


def scores(labels: "NDArray[np.int64]", probabilities: "NDArray[np.float64]") -> Scores:
    """The metrics of class indices [n] and probabilities [n, C]; None where one is not defined."""
    overall = measure(labels, probabilities, np.ones((1, len(labels))), bins=1).overall
    return {name: rounded(float(overall[name][0])) for name in SELECTABLE}


def harmonic(base: float | None, novel: float | None) -> float | None:
    """The harmonic mean 2bn / (b + n); 0 when both are 0, None when one is not defined or negative."""
    if base is None or novel is None:
        return None
    return rounded(float(harmonic_mean(np.array(base), np.array(novel))))


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None when a value is missing, or there are none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def deviation(values: Sequence[float | None]) -> float | None:
    """The sample standard deviation (n - 1); None for fewer than two values, or when one is missing."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 and len(known) == len(values) else None


def rounded(value: float) -> float | None:
    """The value as it is written; None where it is not defined."""
    return round(value, DECIMALS) if math.isfinite(value) else None
