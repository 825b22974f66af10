"""Slices hold the right images, and say when they are small or unknown."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score
from toy_run import predictions

from clinprompt.evaluation.intervals import Intervals
from clinprompt.evaluation.slices import age_bands, measure_slices, not_sliced


def test_a_bound_belongs_to_the_band_above_it() -> None:
    ages = pd.Series([0.0, 39.9, 40.0, 59.0, 60.0, 101.0, None])
    assert age_bands(ages, [40, 60]).tolist() == [
        "below 40",
        "below 40",
        "40 to below 60",
        "40 to below 60",
        "60 and above",
        "60 and above",
        "unknown",
    ]


def test_without_bounds_ages_are_known_or_not() -> None:
    assert age_bands(pd.Series([3.0, None]), []).tolist() == ["any", "unknown"]


def test_a_slice_is_measured_on_its_images_alone() -> None:
    p = predictions(1.0)
    site = np.where(np.arange(len(p)) % 12 < 6, "A", "B")
    found = measure_slices(p, pd.DataFrame({"site": site}), ["site"], Intervals())
    assert list(found) == ["site=A", "site=B"]
    rows = site == "A"
    expected = balanced_accuracy_score(p.labels[rows], p.probabilities[rows].argmax(axis=1))
    assert found["site=A"].balanced_accuracy.value == pytest.approx(expected, abs=1e-6)
    assert found["site=A"].balanced_accuracy.low < expected < found["site=A"].balanced_accuracy.high
    assert (found["site=A"].n, found["site=A"].patients) == (60, 30)


def test_missing_values_are_a_slice_and_small_slices_are_flagged() -> None:
    p = predictions(1.0)
    sex = pd.Series(["F"] * 9 + [None] * 111)
    found = measure_slices(p, pd.DataFrame({"sex": sex}), ["sex"], Intervals())
    assert {key: (value.n, value.small) for key, value in found.items()} == {
        "sex=F": (9, True),
        "sex=unknown": (111, False),
    }


def test_a_column_that_a_dataset_lacks_or_knows_nothing_of_is_left_out_with_a_word() -> None:
    p = predictions(1.0)
    rows = pd.DataFrame({"site": ["A"] * len(p), "sex": [None] * len(p), "age_band": ["unknown"] * len(p)})
    columns = ["hospital", "site", "sex", "age_band"]
    assert list(measure_slices(p, rows, columns, Intervals())) == ["site=A"]
    assert not_sliced(rows, columns) == {
        "hospital": "the dataset has no such column; it has age_band, sex, site",
        "sex": "it is known of no image",
        "age_band": "it is known of no image",
    }


def test_a_slice_counts_patients_only_where_they_are_known() -> None:
    p = predictions(1.0)
    rows, boot = pd.DataFrame({"site": ["A"] * len(p)}), Intervals()
    counts = []
    for known in (np.zeros(len(p), bool), np.arange(len(p)) < 10):
        found = measure_slices(replace(p, known=known), rows, ["site"], boot)["site=A"]
        counts.append((found.n, found.patients))
    assert counts == [(len(p), None), (len(p), 5)]
