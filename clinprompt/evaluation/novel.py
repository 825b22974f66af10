"""How well a model answers to classes that it was not tuned for and to its own: the harmonic mean of the two.

Its interval leaves out whole patients of both at once, as a patient may have images of both.
"""

import numpy as np

from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.intervals import Intervals, estimate_all, estimate_of, measured_on
from clinprompt.evaluation.metrics import Floats, measure
from clinprompt.evaluation.metrics_record import NovelMetrics
from clinprompt.evaluation.predictions import Predictions


def harmonic_mean(base: Floats, novel: Floats) -> Floats:
    """2bn / (b + n), elementwise; 0 where both are 0, NaN where one is not defined or negative."""
    total = base + novel
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(total == 0, 0.0, 2 * base * novel / total)
    return np.where((base >= 0) & (novel >= 0), mean, np.nan)


def joined(base: Predictions, novel: Predictions) -> Predictions:
    """Both as predictions over the classes of both: each image has probabilities among its own half alone."""
    width = len(base.classes)
    probabilities = np.zeros((len(base) + len(novel), width + len(novel.classes)))
    probabilities[: len(base), :width] = base.probabilities
    probabilities[len(base) :, width:] = novel.probabilities
    parts = (base, novel)
    known = [np.ones(len(part), dtype=bool) if part.known is None else part.known for part in parts]
    return Predictions(
        labels=np.concatenate([base.labels, novel.labels + width]),
        probabilities=probabilities,
        patients=np.concatenate([part.patients for part in parts]),
        classes=(*base.classes, *novel.classes),
        known=np.concatenate(known),
    )


def harmonic_estimate(base: Predictions, novel: Predictions, intervals: Intervals) -> Estimate:
    """The harmonic mean of the balanced accuracy on base and on novel test images, with its interval."""
    both, width = joined(base, novel), len(base.classes)

    def halves(weights: Floats) -> tuple[Floats, Floats]:
        sensitivity = measure(both.labels, both.probabilities, weights, bins=1).per_class["sensitivity"]
        return sensitivity[:, :width].mean(axis=1), sensitivity[:, width:].mean(axis=1)

    b, n = (float(half[0]) for half in halves(np.ones((1, len(both)))))
    sizes = [width, len(novel.classes)]
    slopes = [n**2 / sizes[0], b**2 / sizes[1]]  # of the mean in each class's sensitivity, but for a common factor
    absent = [name for name, count in zip(both.classes, both.patients_per_class, strict=True) if not count]
    return estimate_of(
        lambda weights: harmonic_mean(*halves(weights)),
        both.patients,
        both.labels,
        len(both.classes),
        intervals=intervals,
        why=f"no image of class {', '.join(absent)}",
        unit=both.unit,
        weight=np.repeat(slopes, sizes),
        count=measured_on("balanced_accuracy", both),
    )


def novel_metrics(base: Predictions, novel: Predictions, intervals: Intervals) -> NovelMetrics:
    """What is told of a candidate's answers to the novel classes; the base half stands among its metrics already."""
    return NovelMetrics(
        n=len(novel),
        patients=novel.patient_count.shown,
        balanced_accuracy=estimate_all(novel, intervals).overall["balanced_accuracy"],
        harmonic_mean=harmonic_estimate(base, novel, intervals),
    )
