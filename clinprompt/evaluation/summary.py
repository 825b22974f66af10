"""The metrics file of one candidate."""

import numpy as np
import pandas as pd

from clinprompt.data.columns import NOVEL
from clinprompt.data.dataset import Dataset
from clinprompt.evaluation.calibrate import calibrate
from clinprompt.evaluation.intervals import Intervals, estimate_all
from clinprompt.evaluation.metrics_record import ClassMetrics, Metrics
from clinprompt.evaluation.novel import novel_metrics
from clinprompt.evaluation.patients import PatientCount
from clinprompt.evaluation.score import score_metrics
from clinprompt.evaluation.slices import age_bands, measure_slices, not_sliced, slices_of
from clinprompt.evaluation.table import SCORES, About, evaluated_rows, patient_count, split_of
from clinprompt.params import EvaluationParams


def measure_candidate(
    frame: pd.DataFrame, about: About, method: str, dataset: Dataset, params: EvaluationParams
) -> Metrics:
    """The metrics of a candidate's predictions, as `evaluate` writes them and as `promote` holds them against."""
    rows = evaluated_rows(dataset.rows)
    rows["age_band"] = age_bands(rows["age"], params.age_bands)
    slices = sliced_by(dataset, params)
    intervals = Intervals(params.confidence, params.calibration_bins)
    metrics = summarise(
        frame,
        rows,
        about=about,
        method=method,
        classes=tuple(dataset.card.class_ids),
        patients=patient_count(dataset.rows),
        slices=slices,
        intervals=intervals,
    )
    test = (rows["split"] == "test").to_numpy()
    card = dataset.card
    val_split, test_split = (split_of(frame, split, tuple(card.class_ids)) for split in ("val", "test"))
    parts = slices_of(rows[test], slices)
    fitted = calibrate(val_split, test_split, parts, about.temperature, params.calibration, intervals)
    metrics = metrics.model_copy(update={"calibration": fitted})
    if card.novel_classes and about.not_novel is None:
        novel = novel_metrics(test_split, split_of(frame, NOVEL, tuple(card.novel_ids)), intervals)
        metrics = metrics.model_copy(update={"novel": novel})
    elif card.novel_classes:
        metrics = metrics.model_copy(update={"not_novel": about.not_novel})
    measure, (_, estimated) = card.score, SCORES
    if measure is None or estimated not in frame:
        return metrics
    estimates = frame[estimated][frame["split"] != NOVEL].to_numpy(np.float64)[test]
    return metrics.model_copy(update={"score": score_metrics(rows[test], estimates, measure, slices, intervals)})


def sliced_by(dataset: Dataset, params: EvaluationParams) -> list[str]:
    """The columns by which the test split is sliced: those of params.yaml, then the card's."""
    return [*params.slices, *(column for column in dataset.card.slices if column not in params.slices)]


def summarise(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    about: About,
    method: str,
    classes: tuple[str, ...],
    patients: PatientCount,
    slices: list[str],
    intervals: Intervals,
) -> Metrics:
    """Everything that is measured on one candidate; per class and per slice on the test split.

    Args:
        frame: the predictions.
        rows: the manifest's rows of the predictions, in the same order, with `age_band`.
        patients: those of all accepted images.
    """
    test = split_of(frame, "test", classes)
    measured = estimate_all(test, intervals)
    test_rows = rows[rows["split"] == "test"]
    counts = frame[frame["split"] == "test"]["label"].value_counts()
    return Metrics(
        dataset=about.dataset,
        candidate=about.candidate,
        method=method,
        seed=about.seed,
        model_digest=about.model_digest,
        patients=patients,
        val=estimate_all(split_of(frame, "val", classes), intervals).overall,
        test=measured.overall,
        per_class={
            class_id: ClassMetrics(n=int(counts.get(class_id, 0)), **estimates)
            for class_id, estimates in measured.per_class.items()
        },
        slices=measure_slices(test, test_rows, slices, intervals),
        not_sliced=not_sliced(test_rows, slices),
    )
