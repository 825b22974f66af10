"""The metrics file of one candidate."""

from typing import Any

import pandas as pd

from clinprompt.evaluation.intervals import Bootstrap, Estimate, estimate_all
from clinprompt.evaluation.slices import measure_slices
from clinprompt.evaluation.table import About, split_of

FORMAT = 1


def summarise(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    about: About,
    method: str,
    classes: tuple[str, ...],
    slices: list[str],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """Everything that is measured on one candidate; per class and per slice on the test split.

    Args:
        frame: the predictions.
        rows: the manifest's rows of the predictions, in the same order, with `age_band`.
    """
    test = split_of(frame, "test", classes)
    measured = estimate_all(test, bootstrap)
    counts = frame[frame["split"] == "test"]["label"].value_counts()
    return {
        "format": FORMAT,
        "dataset": about.dataset,
        "candidate": about.candidate,
        "method": method,
        "seed": about.seed,
        "model_digest": about.model_digest,
        "val": to_json(estimate_all(split_of(frame, "val", classes), bootstrap).overall),
        "test": to_json(measured.overall),
        "per_class": {
            class_id: {"n": int(counts.get(class_id, 0)), **to_json(values)}
            for class_id, values in measured.per_class.items()
        },
        "slices": measure_slices(test, rows[rows["split"] == "test"], slices, bootstrap),
    }


def to_json(estimates: dict[str, Estimate]) -> dict[str, Any]:
    """Metric -> {value, low, high}."""
    return {name: value.to_json() for name, value in estimates.items()}
