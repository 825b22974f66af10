"""The bootstrap against a naive loop on the same draws, closed forms, and its edges."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk
from toy_run import predictions

from clinprompt.evaluation import intervals
from clinprompt.evaluation.intervals import Bootstrap, draw, estimate, estimate_all, proportion, resample
from clinprompt.evaluation.predictions import Predictions


def weights_of(patients: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    return np.concatenate(list(draw(patients, resamples, seed)))


def test_resampled_metrics_are_those_of_a_loop_over_repeated_images() -> None:
    p = predictions(1.0, n=90)
    fast = resample(p, Bootstrap(resamples=25)).overall
    for r, counts in enumerate(weights_of(p.patients, 25)):
        rows = np.repeat(np.arange(len(p)), counts.astype(int))
        labels, scores = p.labels[rows], p.probabilities[rows]
        slow = {
            "balanced_accuracy": sk.balanced_accuracy_score(labels, scores.argmax(axis=1)),
            "macro_f1": sk.f1_score(labels, scores.argmax(axis=1), average="macro"),
            "auroc": sk.roc_auc_score(labels, scores, multi_class="ovr"),
            "kappa": sk.cohen_kappa_score(labels, scores.argmax(axis=1)),
        }
        for name, value in slow.items():
            assert fast[name][r] == pytest.approx(value, abs=1e-12), name


def test_whole_patients_are_drawn_as_many_as_there_are() -> None:
    patients = np.array(["b", "a", "b", "c", "a", "b"])
    for counts in weights_of(patients, 50):
        by_patient = {name: set(counts[patients == name]) for name in "abc"}
        assert all(len(values) == 1 for values in by_patient.values())
        assert sum(values.pop() for values in by_patient.values()) == 3


def test_draws_do_not_depend_on_how_many_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    p = predictions(1.0)
    whole = resample(p, Bootstrap(resamples=40)).overall
    monkeypatch.setattr(intervals, "_CHUNK", 3 * len(p))
    for name, values in resample(p, Bootstrap(resamples=40)).overall.items():
        np.testing.assert_allclose(values, whole[name], atol=1e-12)


def test_the_interval_of_independent_images_is_the_normal_approximation() -> None:
    n, share = 2000, 0.8
    labels = np.arange(n) % 2
    hit = np.arange(n) % 10 < share * 10
    right = np.where(hit, labels, 1 - labels)
    p = Predictions(labels, np.eye(2)[right] * 0.8 + 0.1, np.array([f"{i:05d}" for i in range(n)]), ("a", "b"))
    found = estimate_all(p, Bootstrap(resamples=4000)).overall["accuracy"]
    half = 1.96 * np.sqrt(share * (1 - share) / n)
    assert found.value == share
    assert found.low == pytest.approx(share - half, abs=0.002)
    assert found.high == pytest.approx(share + half, abs=0.002)


def test_nominal_coverage_holds_for_independent_images() -> None:
    rng = np.random.default_rng(1)
    names = np.array([f"{i:04d}" for i in range(200)])
    covered = 0
    for _ in range(200):
        labels = rng.integers(2, size=200)
        right = np.where(rng.random(200) < 0.7, labels, 1 - labels)
        p = Predictions(labels, np.eye(2)[right], names, ("a", "b"))
        values = resample(p, Bootstrap(resamples=200)).overall["accuracy"]
        found = estimate(float((right == labels).mean()), values, 0.95, "")
        covered += found.low <= 0.7 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_images_of_one_patient_widen_the_interval() -> None:
    p = predictions(1.0, n=240, per_patient=1)
    merged = np.array([f"p{i // 8}" for i in range(240)])
    hit = (np.arange(240) // 8) % 3 > 0  # a patient is right or wrong as a whole
    scores = np.eye(3)[np.where(hit, p.labels, (p.labels + 1) % 3)]
    widths = []
    for patients in (p.patients, merged):
        found = estimate_all(Predictions(p.labels, scores, patients, p.classes), Bootstrap(400)).overall["accuracy"]
        widths.append(found.high - found.low)
    assert widths[1] > 2 * widths[0]


def test_equal_calls_give_equal_estimates() -> None:
    assert estimate_all(predictions(1.0), Bootstrap(100)) == estimate_all(predictions(1.0), Bootstrap(100))


def test_an_undefined_value_says_why() -> None:
    p = predictions(4.0)
    found = estimate_all(p.where(p.labels != 2), Bootstrap(50))
    assert found.overall["auroc"].to_json() == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "no image of class none",
    }
    assert found.per_class["none"]["sensitivity"].reason == "no image of class none"
    assert found.overall["accuracy"].reason is None
    empty = estimate_all(p.where(p.labels < 0), Bootstrap(50))
    assert empty.overall["accuracy"].reason == "there are no images"


def test_one_class_alone_has_no_kappa() -> None:
    p = predictions(50.0)
    found = estimate_all(p.where(p.labels == 0), Bootstrap(50))
    assert found.overall["kappa"].reason == "all images and all predictions are of one class"
    assert found.per_class["glioma"]["specificity"].reason == "every image is of class glioma"
    assert found.per_class["none"]["precision"].reason == "no image is predicted as none"


def test_a_class_with_one_patient_has_a_value_but_no_interval() -> None:
    p = predictions(1.0)
    mask = (p.labels != 2) | (p.patients == p.patients[p.labels == 2][0])
    found = estimate_all(p.where(mask), Bootstrap(200)).overall["balanced_accuracy"]
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    assert found.reason is not None
    assert found.reason.startswith("too few patients: undefined in ")


def right(n: int, classes: int = 3) -> Predictions:
    """`n` patients with one image each, all classified rightly with all confidence."""
    labels = np.arange(n) % classes
    ids = tuple("abcdefgh"[:classes])
    return Predictions(labels, np.eye(classes)[labels], np.array([f"{i:04d}" for i in range(n)]), ids)


def test_a_few_right_answers_do_not_pass_for_certainty() -> None:
    found = estimate_all(right(6), Bootstrap(200))
    exact = 0.025 ** (1 / 6)  # all six of six: Clopper and Pearson
    assert (found.overall["accuracy"].value, found.overall["accuracy"].high) == (1, 1)
    assert found.overall["accuracy"].low == pytest.approx(exact, abs=1e-6)
    assert found.overall["balanced_accuracy"].low is None  # many resamples lack a class
    assert found.per_class["a"]["specificity"].low == pytest.approx(0.025 ** (1 / 4), abs=1e-6)
    assert (found.overall["ece"].low, found.overall["ece"].high) == (0, pytest.approx(1 - exact, abs=1e-6))


def test_many_right_answers_narrow_the_interval() -> None:
    lows = [estimate_all(right(n), Bootstrap(50)).overall["accuracy"].low for n in (6, 60, 600)]
    assert lows == sorted(lows)
    assert lows[-1] == pytest.approx(0.025 ** (1 / 600), abs=1e-6)
    found = estimate_all(right(60), Bootstrap(50))
    for name in ("balanced_accuracy", "auroc", "macro_f1"):
        assert found.overall[name].low == pytest.approx(lows[1])
    assert found.per_class["a"]["sensitivity"].low == pytest.approx(0.025 ** (1 / 20), abs=1e-6)


def test_images_of_one_patient_count_once() -> None:
    p = right(60)
    one = Predictions(p.labels, p.probabilities, np.array([f"{i // 10}" for i in range(60)]), p.classes)
    assert estimate_all(one, Bootstrap(50)).overall["accuracy"].low == pytest.approx(0.025 ** (1 / 6), abs=1e-6)


def test_the_exact_interval_is_that_of_scipy() -> None:
    for hits, n in ((0, 5), (3, 12), (12, 12), (1, 1)):
        exact = binomtest(hits, n).proportion_ci(0.95, method="exact")
        assert proportion(hits / n, n, 0.95) == pytest.approx((exact.low, exact.high))


def test_without_patients_the_reason_speaks_of_images() -> None:
    p = predictions(1.0)
    mask = (p.labels != 2) | (np.arange(len(p)) == int(np.flatnonzero(p.labels == 2)[0]))
    nobody = replace(p, patients=np.array([f"{i}" for i in range(len(p))]), known=np.zeros(len(p), dtype=bool))
    reason = estimate_all(nobody.where(mask), Bootstrap(200)).overall["balanced_accuracy"].reason
    assert reason is not None
    assert reason.startswith("too few images: undefined in ")
