"""The metrics' names: keys in files and params, what people call them, and what they mean. Imports nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricName:
    """How a metric is called.

    Attributes:
        name: within a sentence.
        about: what it is, in a few words.
    """

    name: str
    about: str
    higher_is_better: bool = True

    @property
    def title(self) -> str:
        """The name as a heading."""
        return self.name[0].upper() + self.name[1:]

    @property
    def explanation(self) -> str:
        """What it is, and which way is better."""
        return f"{self.about}; {'higher' if self.higher_is_better else 'lower'} is better"


# Of all classes together, by their keys, in the order in which they are shown.
OVERALL = {
    "accuracy": MetricName("accuracy", "share of images classified rightly"),
    "balanced_accuracy": MetricName("balanced accuracy", "mean of the classes' sensitivities"),
    "macro_f1": MetricName("macro F1", "mean of the classes' F1 scores"),
    "auroc": MetricName("AUROC", "mean one-vs-rest area under the ROC curve"),
    "kappa": MetricName("kappa", "Cohen's agreement beyond chance"),
    "quadratic_kappa": MetricName("quadratic kappa", "agreement weighted by the distance of the classes"),
    "ece": MetricName("ECE", "expected calibration error", higher_is_better=False),
    "brier": MetricName("Brier", "mean squared error of the probabilities", higher_is_better=False),
}

# Of one class against the others.
PER_CLASS = {
    "sensitivity": MetricName("sensitivity", "share of the class's images that are classified as it"),
    "specificity": MetricName("specificity", "share of the other images that are not classified as the class"),
    "precision": MetricName("precision", "share of the images classified as the class that are of it"),
    "f1": MetricName("F1", "harmonic mean of precision and sensitivity"),
    "auroc": MetricName("AUROC", "area under the class's ROC curve, against all others"),
}

# Of estimates of a score in the subject's record, as the MMSE.
SCORE = {
    "mae": MetricName("mean absolute error", "mean distance of the estimate, in points", higher_is_better=False),
    "rmse": MetricName("root mean squared error", "as above, large errors weigh more", higher_is_better=False),
    "bias": MetricName("bias", "mean of estimate minus score, in points; 0 is best"),
    "correlation": MetricName("correlation", "Pearson's, of estimate and score"),
    "slope": MetricName("calibration slope", "of the score regressed on the estimate; 1 is best"),
}

# By which models are chosen and compared: those of which more is better.
SELECTABLE = tuple(key for key, metric in OVERALL.items() if metric.higher_is_better)
