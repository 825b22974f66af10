"""Estimates of a score against scipy and numpy, with what is missing left out, and clustered by patient."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress

from clinprompt.data.card import Measure
from clinprompt.evaluation.intervals import Intervals
from clinprompt.evaluation.score import actual_scores, score_metrics

MMSE = Measure(column="mmse", name="MMSE", low=0, high=30)


def subjects(n: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    """Two visits of each subject, one scanner each, and estimates that are 2 points too high with noise."""
    rng = np.random.default_rng(0)
    score = rng.integers(10, 29, n).astype(float)
    rows = pd.DataFrame(
        {
            "id": [f"{k:064x}" for k in range(n)],
            "patient": [f"s{k // 2}" for k in range(n)],
            "site": ["A" if k // 2 % 2 else "B" for k in range(n)],
            "age_band": "unknown",
            "mmse": [f"{value:g}" for value in score],
        }
    )
    return rows, score + 2 + rng.normal(0, 3, n)


def test_the_numbers_are_those_of_a_regression() -> None:
    rows, estimated = subjects()
    actual = rows["mmse"].astype(float).to_numpy()
    found = score_metrics(rows, estimated, MMSE, [], Intervals())
    line = linregress(estimated, actual)
    assert (found.n, found.patients, found.missing) == (60, 30, 0)
    assert found.mae.value == pytest.approx(np.abs(estimated - actual).mean(), abs=1e-6)
    assert found.rmse.value == pytest.approx(np.sqrt(((estimated - actual) ** 2).mean()), abs=1e-6)
    assert found.bias.value == pytest.approx((estimated - actual).mean(), abs=1e-6)
    assert found.correlation.value == pytest.approx(line.rvalue, abs=1e-6)
    assert found.slope.value == pytest.approx(line.slope, abs=1e-6)
    for estimate in found.estimates.values():
        assert estimate.low < estimate.value < estimate.high


def test_intervals_are_wider_than_if_visits_were_subjects() -> None:
    rows, estimated = subjects()
    estimated[1::2], rows.loc[1::2, "mmse"] = estimated[::2], rows["mmse"][::2].to_numpy()
    clustered = score_metrics(rows, estimated, MMSE, [], Intervals()).mae
    alone = score_metrics(rows.assign(patient=rows["id"]), estimated, MMSE, [], Intervals()).mae
    assert clustered.high - clustered.low > 1.2 * (alone.high - alone.low)


def test_a_missing_or_impossible_score_is_counted_and_left_out() -> None:
    rows, estimated = subjects()
    whole = score_metrics(rows[3:], estimated[3:], MMSE, [], Intervals())
    rows.loc[:2, "mmse"] = [None, "45", "not tested"]
    assert np.isnan(actual_scores(rows, MMSE)[:3]).all()
    found = score_metrics(rows, estimated, MMSE, [], Intervals())
    assert (found.n, found.missing, found.mae) == (57, 3, whole.mae)


def test_slices_are_measured_on_their_images_alone() -> None:
    rows, estimated = subjects()
    found = score_metrics(rows, estimated, MMSE, ["site", "age_band", "hospital"], Intervals()).slices
    part = rows["site"] == "A"
    assert list(found) == ["site=A", "site=B"]
    expected = np.abs(estimated[part] - rows["mmse"][part].astype(float)).mean()
    assert found["site=A"].mae.value == pytest.approx(expected, abs=1e-6)


def test_without_a_known_score_every_number_says_why() -> None:
    rows, estimated = subjects()
    found = score_metrics(rows.assign(mmse=None), estimated, MMSE, ["site"], Intervals())
    assert (found.n, found.missing, found.mae.value) == (0, 60, None)
    assert "too few" in str(found.slope.reason)


def test_equal_estimates_have_no_slope() -> None:
    rows, _ = subjects()
    found = score_metrics(rows, np.full(60, 20.0), MMSE, [], Intervals())
    assert found.mae.value is not None
    assert found.slope.value is None
    assert found.correlation.value is None
