"""The metrics file of one candidate."""

import pandas as pd

from clinprompt.evaluation.intervals import Bootstrap, estimate_all
from clinprompt.evaluation.metrics_record import ClassMetrics, Metrics
from clinprompt.evaluation.slices import measure_slices
from clinprompt.evaluation.table import About, split_of


def summarise(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    about: About,
    method: str,
    classes: tuple[str, ...],
    slices: list[str],
    bootstrap: Bootstrap,
) -> Metrics:
    """Everything that is measured on one candidate; per class and per slice on the test split.

    Args:
        frame: the predictions.
        rows: the manifest's rows of the predictions, in the same order, with `age_band`.
    """
    test = split_of(frame, "test", classes)
    measured = estimate_all(test, bootstrap)
    counts = frame[frame["split"] == "test"]["label"].value_counts()
    return Metrics(
        dataset=about.dataset,
        candidate=about.candidate,
        method=method,
        seed=about.seed,
        model_digest=about.model_digest,
        val=estimate_all(split_of(frame, "val", classes), bootstrap).overall,
        test=measured.overall,
        per_class={
            class_id: ClassMetrics(n=int(counts.get(class_id, 0)), **estimates)
            for class_id, estimates in measured.per_class.items()
        },
        slices=measure_slices(test, rows[rows["split"] == "test"], slices, bootstrap),
    )
