"""What is normal at an age: a linear model of each measure, fitted on the healthy subjects of the training split."""

from dataclasses import dataclass

import numpy as np

from clinprompt.reports.subjects import Numbers, Subjects


@dataclass(frozen=True)
class NormativeModel:
    """For each of m measures: weights of [1, age, male, the measure adjusted for], and how far subjects lie from that.

    Attributes:
        used: which of the covariates age and male were known at all.
        adjust_for: the place of the measure that the others depend on; None: of none. It does not depend on itself.
        weights: one array for each measure.
        deviations: standard deviations of the residuals [m], with as many degrees of freedom as are left; NaN where
            too few subjects have the measure.
    """

    used: tuple[bool, bool]
    adjust_for: int | None
    weights: tuple[Numbers, ...]
    deviations: Numbers

    @classmethod
    def fit(cls, healthy: Subjects, adjust_for: int | None = None) -> "NormativeModel":
        """Least squares for each measure, over the subjects for whom it and all covariates are known.

        Args:
            healthy: of the training split, and of no other.
        """
        used = (bool(np.isfinite(healthy.age).any()), bool(np.isfinite(healthy.male).any()))
        weights, deviations = [], []
        for measure in range(healthy.measures.shape[1]):
            design, y = _design(healthy, used, adjust_for, measure), healthy.measures[:, measure]
            known = np.isfinite(design).all(axis=1) & np.isfinite(y)
            solution, _, rank, _ = np.linalg.lstsq(design[known], y[known], rcond=None)
            free = int(known.sum()) - int(rank)
            residuals = y[known] - design[known] @ solution
            weights.append(np.asarray(solution, np.float64))
            deviations.append(float(np.sqrt(residuals @ residuals / free)) if free > 0 else np.nan)
        return cls(used, adjust_for, tuple(weights), np.array(deviations))

    def z(self, subjects: Subjects) -> Numbers:
        """How many standard deviations each measure [n, m] lies above what is normal; NaN where that is not known."""
        columns = []
        for measure, solution in enumerate(self.weights):
            expected = _design(subjects, self.used, self.adjust_for, measure) @ solution
            deviation = self.deviations[measure]
            columns.append((subjects.measures[:, measure] - expected) / (deviation if deviation > 0 else np.nan))
        return np.stack(columns, axis=1) if columns else np.empty_like(subjects.measures)


def _design(subjects: Subjects, used: tuple[bool, bool], adjust_for: int | None, measure: int) -> Numbers:
    known = [values for values, is_used in zip((subjects.age, subjects.male), used, strict=True) if is_used]
    if adjust_for is not None and adjust_for != measure:
        known.append(subjects.measures[:, adjust_for])
    return np.stack([np.ones(len(subjects)), *known], axis=1)
