"""Temperature, prediction sets and abstention: against closed forms, references and simulated patients."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from toy_run import CLASSES

from benchmarks import calibration
from clinprompt.evaluation.abstention import fit_abstention
from clinprompt.evaluation.calibrate import calibrate
from clinprompt.evaluation.contenders import Slices
from clinprompt.evaluation.intervals import Intervals
from clinprompt.evaluation.prediction_sets import band, fit_thresholds, in_sets, patients_needed, threshold
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.table import FACTS, About, predictions_frame, write_predictions
from clinprompt.evaluation.temperature import fit_temperature
from clinprompt.params import CalibrationParams

PARAMS = CalibrationParams(min_patients=20, coverage=0.9, abstention_error=0.2, abstention_confidence=0.9)


def drawn(rng: np.random.Generator, patients: int, most: int = 1, quality: float = 1.5) -> Predictions:
    """Patients of random classes with one to `most` images each, which are alike; probabilities of a fair model."""
    images = rng.integers(1, most + 1, size=patients)
    who = np.repeat(np.arange(patients), images)
    labels = rng.integers(len(CLASSES), size=patients)[who]
    logits = rng.normal(size=(patients, len(CLASSES)))[who] + 0.5 * rng.normal(size=(len(who), len(CLASSES)))
    logits[np.arange(len(who)), labels] += quality
    names = np.array([f"p{k:05d}" for k in who])
    return Predictions(labels, scipy.special.softmax(logits, axis=1), names, CLASSES)


@pytest.mark.parametrize("true", [0.25, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(true: float) -> None:
    rng = np.random.default_rng(3)
    logits = 3 * true * rng.normal(size=(6000, 4))
    chances = scipy.special.softmax(logits / true, axis=1).cumsum(axis=1)
    labels = (rng.random((6000, 1)) > chances).sum(axis=1)
    found = fit_temperature(logits, labels, 6000, 20)

    def loss(log_t: float) -> float:
        return float(-scipy.special.log_softmax(logits / np.exp(log_t), axis=1)[np.arange(6000), labels].mean())

    reference = np.exp(
        scipy.optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-8}).x
    )
    assert found.value == pytest.approx(float(reference), rel=1e-4)
    assert found.value == pytest.approx(true, rel=0.05)
    assert fit_temperature(5 * logits, labels, 6000, 20).value == pytest.approx(5 * found.value, rel=1e-5)
    assert found.reason is None


def test_the_benchmark_finds_the_temperature_that_a_predictions_file_was_made_with(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = pd.DataFrame({name: [None] * 1200 for name in FACTS})
    rows["path"] = rows["id"] = rows["patient"] = [f"{i:04d}" for i in range(1200)]
    rows["split"], labels = np.where(np.arange(1200) % 2, "val", "test"), rng.integers(len(CLASSES), size=1200)
    rows["label"] = np.array(CLASSES)[labels]
    logits = 6 * rng.normal(size=(1200, len(CLASSES)))
    logits[np.arange(1200), labels] += 6
    val = np.asarray(rows["split"] == "val")
    true = fit_temperature(logits[val], labels[val], 600, 20).value
    assert true > 2
    told = []
    for temperature in (1.0, true):
        frame = predictions_frame(rows, scipy.special.softmax(logits / temperature, axis=1), CLASSES)
        about = About("toy", "coop", 1, "a" * 64, temperature)
        write_predictions(frame, about, tmp_path / "predictions.parquet")
        told.append(next(calibration.predicted(tmp_path / "predictions.parquet")))
        before, _ = calibration.unscaled(frame, about)
        plain = predictions_frame(rows, scipy.special.softmax(logits, axis=1), CLASSES)
        columns = [f"p_{name}" for name in CLASSES]
        np.testing.assert_allclose(before[columns], plain[columns], rtol=1e-9, atol=1e-12)
    assert told[0] == told[1]
    assert f"| {true:.2f}: 0." in told[0]


def test_no_temperature_is_fitted_where_the_images_can_not_tell_one() -> None:
    logits, labels = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), np.array([0, 1, 0])
    for answer, why in (
        (fit_temperature(logits, labels, 3, 20), "3 patients, 20 are asked for"),
        (fit_temperature(logits, labels, 3, 3), "classified rightly"),
        (fit_temperature(logits, 1 - labels, 3, 3), "no more than chance"),
    ):
        assert answer.value == 1
        assert why in str(answer.reason)


@pytest.mark.parametrize(("n", "coverage"), [(9, 0.9), (40, 0.9), (57, 0.8), (19, 0.95)])
def test_with_one_image_per_patient_the_threshold_is_the_conformal_quantile(n: int, coverage: float) -> None:
    p = np.random.default_rng(n).random(n)
    score = np.sort(1 - p)[math.ceil((n + 1) * coverage) - 1]
    assert threshold(p, np.arange(n).astype(str), coverage) == pytest.approx(1 - score, abs=1e-6)


def test_images_of_one_patient_share_the_weight_of_one() -> None:
    # Three patients of a quarter each: a's six images weigh a 24th, so that 0.5 is reached by b and c alone.
    p = np.array([0.9, 0.8, *np.linspace(0.1, 0.2, 6)])
    patients = np.array(["b", "c", *"aaaaaa"])
    assert threshold(p, patients, 0.5) == pytest.approx(0.8)
    assert threshold(p, patients, 0.51) == pytest.approx(0.2)
    assert threshold(p, patients, 0.75) == pytest.approx(0.1)


def test_coverage_of_exchangeable_patients_is_that_of_the_closed_form() -> None:
    rng, coverage, n, of = np.random.default_rng(0), 0.9, 24, 1500
    held = np.empty((of, len(CLASSES)))
    for repeat in range(of):
        labels = np.repeat(np.arange(len(CLASSES)), n)
        p = rng.dirichlet(np.ones(len(CLASSES)), size=len(labels))
        fitted = fit_thresholds(Predictions(labels, p, np.arange(len(labels)).astype(str), CLASSES), coverage)
        assert fitted.per_class
        # A Dirichlet of ones has Beta(1, 2) margins: the coverage given the thresholds is known exactly.
        held[repeat] = scipy.stats.beta.sf(np.array(fitted.values), 1, len(CLASSES) - 1)
    rank = math.ceil(coverage * (n + 1))
    law = scipy.stats.beta(rank, n + 1 - rank)
    error = law.std() / np.sqrt(held.size)
    assert held.mean() == pytest.approx(rank / (n + 1), abs=4 * error)
    assert held.std() == pytest.approx(law.std(), rel=0.06)
    assert scipy.stats.kstest(held.ravel(), law.cdf).pvalue > 0.001


def test_coverage_holds_with_several_images_per_patient_and_a_temperature_of_the_same_images() -> None:
    rng, held = np.random.default_rng(1), []
    for _ in range(300):
        val, test = drawn(rng, 60, most=6), drawn(rng, 200, most=6)
        logits = [np.log(split.probabilities) for split in (val, test)]
        t = fit_temperature(logits[0], val.labels, 60, 20).value
        scaled = [
            Predictions(split.labels, scipy.special.softmax(z / t, axis=1), split.patients, CLASSES)
            for split, z in zip((val, test), logits, strict=True)
        ]
        fitted = fit_thresholds(scaled[0], 0.9)
        sets = in_sets(scaled[1].probabilities, fitted.values or ())
        hit = sets[np.arange(len(test)), test.labels]
        # The guarantee is of one image of a new patient: patients count alike.
        held.append(np.mean([hit[test.patients == one].mean() for one in np.unique(test.patients)]))
    error = np.std(held) / np.sqrt(len(held))
    assert 0.9 - 3 * error < np.mean(held) < 0.94


def test_the_band_is_beta_binomial_and_adds_up_over_classes() -> None:
    assert patients_needed(0.9) == 9
    law = scipy.stats.betabinom(50, 23, 2)  # the 23rd of 24 patients
    assert band([24], [50], 0.9, 0.95) == (law.ppf(0.025) / 50, law.ppf(0.975) / 50)
    rng = np.random.default_rng(0)
    drawn_hits = rng.binomial([50, 20], rng.beta([23, 27], [2, 4], size=(200_000, 2))).sum(axis=1)
    low, high = band([24, 30], [50, 20], 0.9, 0.95)
    assert np.mean(drawn_hits < low * 70) <= 0.026
    assert np.mean(drawn_hits > high * 70) <= 0.026
    assert np.mean(drawn_hits <= low * 70) >= 0.024


def test_few_patients_give_one_threshold_for_all_classes_or_none() -> None:
    rng = np.random.default_rng(0)
    pooled = fit_thresholds(drawn(rng, 20), 0.9)
    assert not pooled.per_class
    assert pooled.values is not None
    assert len(set(pooled.values)) == 1
    assert "patients in the validation split" in str(pooled.reason)
    none = fit_thresholds(drawn(rng, 8), 0.9)
    assert none.values is None
    assert none.reason == "the validation split has 8 patients; a coverage of 0.9 takes 9"


def test_a_threshold_to_abstain_keeps_its_promise() -> None:
    rng, broken, fitted = np.random.default_rng(2), 0, 0
    new = drawn(rng, 6000, most=3, quality=2.0)
    sure, wrong = new.probabilities.max(axis=1), new.probabilities.argmax(axis=1) != new.labels
    for _ in range(400):
        found = fit_abstention(drawn(rng, 60, most=3, quality=2.0), 0.2, 0.9)
        if found.threshold is None:
            assert "does not show an error of at most 0.2" in str(found.reason)
            continue
        kept = sure >= found.threshold
        fitted += 1
        broken += len(set(new.patients[kept & wrong])) > 0.2 * len(set(new.patients[kept]))
    assert fitted > 100
    assert broken / 400 < 0.1 + 3 * np.sqrt(0.09 / 400)


def test_where_the_test_split_differs_it_is_said() -> None:
    rng = np.random.default_rng(0)
    val, same = (drawn(rng, 300, most=3, quality=2.5) for _ in range(2))
    shifted = drawn(rng, 300, most=3, quality=0.5)
    thirds = Slices({"site": {"A": np.arange(len(same)) % 3 == 0}})
    good = calibrate(val, same, thirds, 1.0, PARAMS, Intervals())
    assert good.not_exchangeable == []
    test = good.prediction_sets.test
    assert test is not None
    assert test.overall.band is not None
    assert test.overall.band[0] <= test.overall.coverage.value <= test.overall.band[1]  # type: ignore[operator]
    assert test.slices["site=A"].n == int(thirds.masks["site"]["A"].sum())
    assert good.abstention.threshold is not None
    assert good.abstention.test is not None
    bad = calibrate(val, shifted, Slices(), 1.0, PARAMS, Intervals())
    assert bad.not_exchangeable == list(CLASSES)


def test_on_drawn_brains_the_sets_hold_the_true_class_as_often_as_asked() -> None:
    """The splits are of one distribution, as the phantom draws all patients alike."""
    plain = calibration.brains(120, 1, seed=0)
    logits = [np.log(split.probabilities) for split in plain]
    temperature = fit_temperature(logits[0], plain[0].labels, len(plain[0]), 20).value
    val, test = (
        replace(split, probabilities=scipy.special.softmax(z / temperature, axis=1))
        for split, z in zip(plain, logits, strict=True)
    )
    found = calibrate(val, test, Slices(), temperature, PARAMS, Intervals()).prediction_sets
    assert found.per_class
    assert found.test is not None
    for covered in (found.test.overall, *found.test.per_class.values()):
        assert covered.band is not None
        assert covered.coverage.value is not None
        assert covered.band[0] <= covered.coverage.value <= covered.band[1]
    assert found.test.overall.size < 3
