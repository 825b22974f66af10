"""The metrics file of one candidate."""

import pandas as pd

from clinprompt.evaluation.intervals import Bootstrap, estimate_all
from clinprompt.evaluation.metrics_record import ClassMetrics, Metrics
from clinprompt.evaluation.patients import PatientCount
from clinprompt.evaluation.slices import measure_slices, not_sliced
from clinprompt.evaluation.table import About, split_of


def summarise(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    about: About,
    method: str,
    classes: tuple[str, ...],
    patients: PatientCount,
    slices: list[str],
    bootstrap: Bootstrap,
) -> Metrics:
    """Everything that is measured on one candidate; per class and per slice on the test split.

    Args:
        frame: the predictions.
        rows: the manifest's rows of the predictions, in the same order, with `age_band`.
        patients: those of all accepted images.
    """
    test = split_of(frame, "test", classes)
    measured = estimate_all(test, bootstrap)
    test_rows = rows[rows["split"] == "test"]
    counts = frame[frame["split"] == "test"]["label"].value_counts()
    return Metrics(
        dataset=about.dataset,
        candidate=about.candidate,
        method=method,
        seed=about.seed,
        model_digest=about.model_digest,
        patients=patients,
        val=estimate_all(split_of(frame, "val", classes), bootstrap).overall,
        test=measured.overall,
        per_class={
            class_id: ClassMetrics(n=int(counts.get(class_id, 0)), **estimates)
            for class_id, estimates in measured.per_class.items()
        },
        slices=measure_slices(test, test_rows, slices, bootstrap),
        not_sliced=not_sliced(test_rows, slices),
    )
