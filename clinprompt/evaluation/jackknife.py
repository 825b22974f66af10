"""How far a metric may be off, from leaving out one patient after the other (the stratified, clustered jackknife).

Images of one patient are alike, so whole patients are left out, and what remains of the patient's class is weighted up
to the class's size (Efron and Tibshirani 1993, ch. 11; Wolter 2007, ch. 4). For a mean this gives the textbook's
variance, for the AUROC nearly that of DeLong et al. (1988). Two things make its intervals honest of few patients:

- A class of four patients that are all classified alike shows no variance of its own. So each class's variance is drawn
  towards that of all classes, as if `PRIOR` more patients of it had been seen (Smyth 2004, section 3).
- A variance that rests on the few patients that are classified wrongly is known with fewer degrees of freedom than
  there are patients. They follow from Satterthwaite (1946) with the fourth moments that are found.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clinprompt.evaluation.metrics import Floats, Ints

# With more patients than this, groups of them are left out instead, which costs a little of the variance's precision.
MAX_GROUPS = 1000
PRIOR = 2.0
_FEWEST_GROUPS = 20  # of a class, where there are groups
_CHUNK = 4_000_000  # weights in memory at a time: 32 MB


@dataclass(frozen=True)
class Spread:
    """The standard error of a value, and with how many degrees of freedom it is known; NaN where it is not known."""

    error: float
    freedom: float


@dataclass(frozen=True)
class Jackknife:
    """Which images are left out together.

    Attributes:
        group: [n] the group of each image's patient.
        stratum: [G] the stratum of each group.
        keeps: [G] by what the rest of the stratum is weighted while the group is out.
        patients: [S] how many patients each stratum has.
        classes: [S] the class of each stratum's patients.
    """

    group: Ints
    stratum: Ints
    keeps: Floats
    patients: Ints
    classes: Ints

    def weights(self) -> Iterator[Floats]:
        """How much each image counts [g, n] while each group is out, in chunks."""
        of_image = self.stratum[self.group]
        step = max(1, _CHUNK // max(1, len(self.group)))
        for start in range(0, len(self.stratum), step):
            rows = np.arange(start, min(start + step, len(self.stratum)))
            same = of_image[None, :] == self.stratum[rows][:, None]
            weights = np.where(same, self.keeps[rows][:, None], 1.0)
            weights[self.group[None, :] == rows[:, None]] = 0.0
            yield weights

    def spread(self, values: Floats, importance: Floats) -> Spread:
        """The standard error of a metric.

        Args:
            values: [G] the metric while each group is out.
            importance: [C] the weight of each class in the mean that the metric is; 0 where it does not count.
        """
        size = np.bincount(self.stratum, minlength=len(self.patients)).astype(np.float64)
        if not len(values) or not np.isfinite(values).all() or size.min() < 2:
            return Spread(np.nan, np.nan)
        apart = values - (np.bincount(self.stratum, values) / size)[self.stratum]
        scale = (size - 1) / size
        squares = np.bincount(self.stratum, apart**2)
        found = scale * squares
        variance, freedom = self._moderated(found, size - 1, importance)
        if variance.sum() <= 0:
            return Spread(0.0, float(freedom.sum()))
        normal = variance.sum() ** 2 / (variance**2 / freedom).sum()
        doubt = (scale**2 * (np.bincount(self.stratum, apart**4) - squares**2 / size)).sum()
        of_moments = 2 * found.sum() ** 2 / doubt if doubt > 0 else np.inf
        return Spread(float(np.sqrt(variance.sum())), float(min(normal, of_moments)))

    def _moderated(self, found: Floats, freedom: Floats, importance: Floats) -> tuple[Floats, Floats]:
        """The strata's variances [S] drawn towards their mean, in units of one patient of a class, and their degrees of
        freedom."""
        weight = importance[self.classes]
        counts = weight > 0
        if counts.sum() < 2:
            return found, freedom
        unit = weight[counts] ** 2 / self.patients[counts]
        single, known = found[counts] / unit, freedom[counts]
        drawn = (PRIOR * np.average(single, weights=known) + known * single) / (PRIOR + known)
        variance, total = found.copy(), freedom.copy()
        variance[counts], total[counts] = drawn * unit, known + PRIOR
        return variance, total


def leave_out(patients: NDArray[np.str_], labels: Ints, classes: int) -> Jackknife:
    """Which images are left out together; equal patients in equal order give equal groups.

    A patient with images of several classes belongs to the class of most of them, and to the first where several have
    as many. Where such a class has one patient alone, that one joins the next class: nothing remains to weigh up.

    Args:
        patients: [n] who each image is of.
        labels: [n] class indices below `classes`.
    """
    names, owner = np.unique(patients, return_inverse=True)
    images = np.zeros((len(names), max(1, classes)))
    np.add.at(images, (owner, labels), 1)
    main = images.argmax(axis=1)
    alone = np.bincount(main, minlength=max(1, classes))
    present = np.flatnonzero(alone > 1) if (alone > 1).any() else np.flatnonzero(alone)[-1:]
    stratum_of = np.minimum(np.searchsorted(present, main), max(0, len(present) - 1))
    group_of = np.zeros(len(names), np.int64)
    stratum: list[int] = []
    keeps: list[float] = []
    sizes = []
    for s in range(len(present)):
        members = np.flatnonzero(stratum_of == s)
        groups = _groups(len(members), len(names))
        place = np.arange(len(members)) % groups
        if groups < len(members):  # in no order that the ids may have
            place = np.random.default_rng(s).permutation(place)
        group_of[members] = len(stratum) + place
        of_group = np.bincount(place)
        stratum += [s] * len(of_group)
        keeps += (len(members) / np.maximum(1, len(members) - of_group)).tolist()
        sizes.append(len(members))
    return Jackknife(
        group=group_of[owner],
        stratum=np.array(stratum, np.int64),
        keeps=np.array(keeps, np.float64),
        patients=np.array(sizes, np.int64),
        classes=present.astype(np.int64),
    )


def _groups(members: int, patients: int) -> int:
    """In how many groups a stratum's patients are left out."""
    if patients <= MAX_GROUPS:
        return members
    return min(members, max(_FEWEST_GROUPS, round(MAX_GROUPS * members / patients)))
