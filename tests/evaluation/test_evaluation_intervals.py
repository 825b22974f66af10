"""Intervals against a naive loop that leaves patients out, closed forms, and their edges."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk
from toy_run import predictions

from clinprompt.evaluation import jackknife
from clinprompt.evaluation.intervals import Intervals, estimate_all, left_out, proportion
from clinprompt.evaluation.jackknife import leave_out
from clinprompt.evaluation.predictions import Predictions


def test_metrics_without_a_patient_are_those_of_a_loop_that_repeats_the_others() -> None:
    p = predictions(1.0, n=90)
    plan, without = left_out(p, Intervals())
    names = np.unique(p.patients)
    assert len(plan.stratum) == len(names) == 45
    for g in range(0, 45, 5):
        out = p.patients[plan.group == g]
        assert len(set(out)) == 1
        # 15 patients a class: the 14 that remain stand for 15.
        c = p.labels[plan.group == g][0]
        times = np.where(p.labels == c, 15, 14) * (p.patients != out[0])
        rows = np.repeat(np.arange(len(p)), times)
        labels, scores = p.labels[rows], p.probabilities[rows]
        slow = {
            "balanced_accuracy": sk.balanced_accuracy_score(labels, scores.argmax(axis=1)),
            "macro_f1": sk.f1_score(labels, scores.argmax(axis=1), average="macro"),
            "auroc": sk.roc_auc_score(labels, scores, multi_class="ovr"),
            "kappa": sk.cohen_kappa_score(labels, scores.argmax(axis=1)),
        }
        for name, value in slow.items():
            assert without.overall[name][g] == pytest.approx(value, abs=1e-12), name


def test_the_error_of_a_stratified_mean_is_the_textbook_s() -> None:
    sizes = (30, 30, 30)
    labels = np.repeat(np.arange(3), sizes)
    values = np.random.default_rng(0).normal(size=90) * np.repeat([1.0, 2.0, 1.0], sizes)
    plan = leave_out(np.array([f"{i:03d}" for i in range(90)]), labels, 3)
    means = np.concatenate([w @ values / w.sum(axis=1) for w in plan.weights()])
    variances = np.array([values[labels == c].var(ddof=1) for c in range(3)])
    drawn = (29 * variances + jackknife.PRIOR * variances.mean()) / (29 + jackknife.PRIOR)
    found = plan.spread(means, np.ones(3))
    assert found.error == pytest.approx(np.sqrt((drawn / 30 / 9).sum()), rel=1e-9)
    assert 60 < found.freedom < 93


def test_the_error_of_an_auroc_is_nearly_delong_s() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 100)
    scores = rng.normal(size=200) + labels
    odds = 1 / (1 + np.exp(-scores))
    p = Predictions(labels, np.stack([1 - odds, odds], 1), np.array([f"{i:03d}" for i in range(200)]), ("a", "b"))
    found = estimate_all(p, Intervals()).overall["auroc"]
    wins = (scores[labels == 1][:, None] > scores[labels == 0][None, :]).astype(float)
    error = np.sqrt(wins.mean(1).var(ddof=1) / 100 + wins.mean(0).var(ddof=1) / 100)
    assert found.value == pytest.approx(wins.mean(), abs=1e-6)
    odds_low = wins.mean() / (1 - wins.mean()) * np.exp(-1.97 * error / wins.mean() / (1 - wins.mean()))
    assert found.low == pytest.approx(odds_low / (1 + odds_low), abs=0.002)


def test_weights_do_not_depend_on_how_many_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    p = predictions(1.0)
    whole = left_out(p, Intervals())[1].overall
    monkeypatch.setattr(jackknife, "_CHUNK", 3 * len(p))
    for name, values in left_out(p, Intervals())[1].overall.items():
        np.testing.assert_allclose(values, whole[name], atol=1e-12)


def test_groups_of_many_patients_give_nearly_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    p = predictions(1.0, n=1200)
    single = estimate_all(p, Intervals()).overall
    monkeypatch.setattr(jackknife, "MAX_GROUPS", 150)
    assert len(left_out(p, Intervals())[0].stratum) == 150
    for name in ("accuracy", "balanced_accuracy", "auroc"):
        grouped = estimate_all(p, Intervals()).overall[name]
        assert grouped.value == single[name].value
        assert grouped.high - grouped.low == pytest.approx(single[name].high - single[name].low, rel=0.2)


def test_a_patient_with_images_of_two_classes_is_left_out_whole() -> None:
    p = predictions(1.0, n=60)
    mixed = p.patients.copy()
    mixed[:4] = "mixed"  # two images of each of the first two classes
    plan = leave_out(mixed, p.labels, 3)
    group = set(plan.group[mixed == "mixed"])
    assert len(group) == 1
    assert plan.classes[plan.stratum[group.pop()]] == 0
    assert estimate_all(replace(p, patients=mixed), Intervals()).overall["balanced_accuracy"].low is not None


def test_the_interval_of_independent_images_is_the_normal_approximation() -> None:
    n, share = 2000, 0.8
    labels = np.arange(n) % 2
    hit = np.arange(n) % 10 < share * 10
    right = np.where(hit, labels, 1 - labels)
    p = Predictions(labels, np.eye(2)[right] * 0.8 + 0.1, np.array([f"{i:05d}" for i in range(n)]), ("a", "b"))
    found = estimate_all(p, Intervals()).overall["accuracy"]
    half = 1.96 * np.sqrt(share * (1 - share) / n)
    assert found.value == share
    assert found.low == pytest.approx(share - half, abs=0.002)
    assert found.high == pytest.approx(share + half, abs=0.002)


def test_images_of_one_patient_widen_the_interval() -> None:
    p = predictions(1.0, n=240, per_patient=1)
    merged = np.array([f"p{i // 8}" for i in range(240)])
    hit = (np.arange(240) // 8) % 3 > 0  # a patient is right or wrong as a whole
    scores = np.eye(3)[np.where(hit, p.labels, (p.labels + 1) % 3)]
    widths = []
    for patients in (p.patients, merged):
        found = estimate_all(Predictions(p.labels, scores, patients, p.classes), Intervals()).overall["accuracy"]
        widths.append(found.high - found.low)
    assert widths[1] > 2 * widths[0]


def test_equal_calls_give_equal_estimates() -> None:
    assert estimate_all(predictions(1.0), Intervals()) == estimate_all(predictions(1.0), Intervals())


def test_an_undefined_value_says_why() -> None:
    p = predictions(4.0)
    found = estimate_all(p.where(p.labels != 2), Intervals())
    assert found.overall["auroc"].to_json() == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "no image of class none",
    }
    assert found.per_class["none"]["sensitivity"].reason == "no image of class none"
    assert found.overall["accuracy"].reason is None
    empty = estimate_all(p.where(p.labels < 0), Intervals())
    assert empty.overall["accuracy"].reason == "there are no images"


def test_one_class_alone_has_no_kappa() -> None:
    p = predictions(50.0)
    found = estimate_all(p.where(p.labels == 0), Intervals())
    assert found.overall["kappa"].reason == "all images and all predictions are of one class"
    assert found.per_class["glioma"]["specificity"].reason == "every image is of class glioma"
    assert found.per_class["none"]["precision"].reason == "no image is predicted as none"


def test_a_class_with_one_patient_has_a_value_but_no_interval() -> None:
    p = predictions(1.0)
    mask = (p.labels != 2) | (p.patients == p.patients[p.labels == 2][0])
    found = estimate_all(p.where(mask), Intervals()).overall["balanced_accuracy"]
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    assert found.reason == "too few patients: without some of them it is undefined"


def right(n: int, classes: int = 3) -> Predictions:
    """`n` patients with one image each, all classified rightly with all confidence."""
    labels = np.arange(n) % classes
    ids = tuple("abcdefgh"[:classes])
    return Predictions(labels, np.eye(classes)[labels], np.array([f"{i:04d}" for i in range(n)]), ids)


def test_a_few_right_answers_do_not_pass_for_certainty() -> None:
    found = estimate_all(right(6), Intervals())
    exact = 0.025 ** (1 / 6)  # all six of six: Clopper and Pearson
    assert (found.overall["accuracy"].value, found.overall["accuracy"].high) == (1, 1)
    assert found.overall["accuracy"].low == pytest.approx(exact, abs=1e-6)
    assert found.overall["balanced_accuracy"].low == pytest.approx(exact, abs=1e-6)  # two patients of each class
    assert found.per_class["a"]["specificity"].low == pytest.approx(0.025 ** (1 / 4), abs=1e-6)
    assert (found.overall["ece"].low, found.overall["ece"].high) == (0, pytest.approx(1 - exact, abs=1e-6))


def test_many_right_answers_narrow_the_interval() -> None:
    lows = [estimate_all(right(n), Intervals()).overall["accuracy"].low for n in (6, 60, 600)]
    assert lows == sorted(lows)
    assert lows[-1] == pytest.approx(0.025 ** (1 / 600), abs=1e-6)
    found = estimate_all(right(60), Intervals())
    for name in ("balanced_accuracy", "auroc", "macro_f1"):
        assert found.overall[name].low == pytest.approx(lows[1])
    assert found.per_class["a"]["sensitivity"].low == pytest.approx(0.025 ** (1 / 20), abs=1e-6)


def wrong(p: Predictions, count: int) -> Predictions:
    """With the answers to the first images turned to another class."""
    turned = np.where((np.arange(len(p)) < count)[:, None], np.roll(p.probabilities, 1, axis=1), p.probabilities)
    return replace(p, probabilities=turned)


@pytest.mark.parametrize("n", [12, 72, 300])
def test_the_first_errors_are_not_told_as_if_nothing_were_known(n: int) -> None:
    lows = []
    for count in range(5):
        found = estimate_all(wrong(right(n), count), Intervals()).overall
        exact = binomtest(n - count, n).proportion_ci(0.95, method="exact")
        for name in ("accuracy", "balanced_accuracy"):
            low, high = found[name].low, found[name].high
            assert low is not None
            assert high is not None
            assert exact.low - 1e-6 <= low
            assert high <= exact.high + 1e-6
        lows.append(found["accuracy"].low)
    assert lows == sorted(lows, reverse=True)


def test_images_of_one_patient_count_once() -> None:
    p = right(60)
    one = Predictions(p.labels, p.probabilities, np.array([f"{i // 10}" for i in range(60)]), p.classes)
    assert estimate_all(one, Intervals()).overall["accuracy"].low == pytest.approx(0.025 ** (1 / 6), abs=1e-6)


def test_a_patient_with_most_of_the_images_leaves_little_to_go_by() -> None:
    p = right(80)
    ids = np.array([f"{i:04d}" if i < 20 else "most" for i in range(80)])
    effective = 80**2 / (60**2 + 20)  # Kish 1965: of equal patients so few would tell as much
    found = estimate_all(replace(p, patients=ids), Intervals()).overall["accuracy"]
    assert found.low == pytest.approx(0.025 ** (1 / effective), abs=1e-6)


def test_the_exact_interval_is_that_of_scipy() -> None:
    for hits, n in ((0, 5), (3, 12), (12, 12), (1, 1)):
        exact = binomtest(hits, n).proportion_ci(0.95, method="exact")
        assert proportion(hits / n, n, 0.95) == pytest.approx((exact.low, exact.high))


def test_without_patients_the_reason_speaks_of_images() -> None:
    p = predictions(1.0)
    mask = (p.labels != 2) | (np.arange(len(p)) == int(np.flatnonzero(p.labels == 2)[0]))
    nobody = replace(p, patients=np.array([f"{i}" for i in range(len(p))]), known=np.zeros(len(p), dtype=bool))
    reason = estimate_all(nobody.where(mask), Intervals()).overall["balanced_accuracy"].reason
    assert reason == "too few images: without some of them it is undefined"
