"""The same metrics on parts of the test split: per site, sex, age band or any other column."""

from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinprompt.evaluation.contenders import Slices
from clinprompt.evaluation.intervals import Intervals, estimate_all
from clinprompt.evaluation.metrics_record import SliceMetrics
from clinprompt.evaluation.predictions import Predictions

METRICS = ("accuracy", "balanced_accuracy", "auroc")
SMALL = 10  # images; below it a slice's numbers are flagged
UNKNOWN = "unknown"


def age_bands(ages: pd.Series, bounds: list[float]) -> pd.Series:
    """The band of each age in years, as "below 40", "40 to below 60", "60 and above"; "unknown" where it is missing."""
    if not bounds:
        return ages.notna().map({True: "any", False: UNKNOWN})
    texts = [f"{bound:g}" for bound in bounds]
    names = [f"below {texts[0]}"]
    names += [f"{low} to below {high}" for low, high in pairwise(texts)]
    names.append(f"{texts[-1]} and above")
    index = np.searchsorted(bounds, ages.fillna(0).to_numpy(np.float64), side="right")
    bands = pd.Series([names[i] for i in index], index=ages.index, dtype="str")
    return bands.where(ages.notna(), UNKNOWN)


def measure_slices(
    predictions: Predictions, rows: pd.DataFrame, columns: list[str], intervals: Intervals
) -> dict[str, SliceMetrics]:
    """Metrics of each value of each column, under keys as "site=A"; missing values form the slice "unknown".

    Columns that `not_sliced` names are left out.

    Args:
        rows: the manifest's rows of the predictions, in the same order, with an `age_band` column.
    """
    slices = slices_of(rows, columns)
    return {
        f"{column}={value}": _measure_slice(predictions.where(mask), intervals)
        for column, masks in slices.masks.items()
        for value, mask in masks.items()
    }


def slices_of(rows: pd.DataFrame, columns: list[str]) -> Slices:
    """Which images are of each value of each column; missing values form the slice "unknown"."""
    masks: dict[str, dict[str, NDArray[np.bool_]]] = {}
    unknown = not_sliced(rows, columns)
    for column in (column for column in columns if column not in unknown):
        values = rows[column].astype("object").where(rows[column].notna(), UNKNOWN).map(str).to_numpy()
        masks[column] = {value: values == value for value in sorted(set(values))}
    return Slices(masks, unknown)


def counted(
    predictions: Predictions, slices: Slices, columns: list[str], fewest: int
) -> tuple[dict[str, Predictions], list[str], str | None]:
    """The slices that have enough patients of each class to be judged, those that have not, and why none can be.

    Images of which a column tells nothing are no slice here.
    """
    parts: dict[str, Predictions] = {}
    small = []
    for column in columns:
        if column not in slices.masks:
            why = slices.unknown.get(column, "it is not among evaluation.slices")
            return {}, [], f"there are no slices by {column}: {why}"
        for value, mask in slices.masks[column].items():
            part = predictions.where(mask)
            if value == UNKNOWN:
                continue
            if min(part.patients_per_class) < fewest:
                small.append(f"{column}={value}")
            else:
                parts[f"{column}={value}"] = part
    if parts:
        return parts, small, None
    return {}, small, f"no slice by {', '.join(columns)} has {fewest} {predictions.unit} of each class"


def not_sliced(rows: pd.DataFrame, columns: list[str]) -> dict[str, str]:
    """The columns by which these rows can't be sliced, and why: datasets know different things of their images."""
    reasons = {}
    for column in columns:
        if column not in rows:
            reasons[column] = f"the dataset has no such column; it has {', '.join(sorted(rows.columns))}"
        elif not (rows[column].notna() & (rows[column] != UNKNOWN)).any():
            reasons[column] = "it is known of no image"
    return reasons


def _measure_slice(part: Predictions, intervals: Intervals) -> SliceMetrics:
    overall = estimate_all(part, intervals).overall
    return SliceMetrics(
        n=len(part),
        patients=part.patient_count.shown,
        small=len(part) < SMALL,
        **{name: overall[name] for name in METRICS},
    )
