"""The harmonic mean of base and novel classes: the number, its interval, and the gate's rule."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import hmean
from sklearn.metrics import balanced_accuracy_score
from toy_run import predictions

from clinprompt.contract.candidates import CandidateId
from clinprompt.errors import BadParams
from clinprompt.evaluation.contenders import Candidate
from clinprompt.evaluation.gate import Decision, Plan, decide
from clinprompt.evaluation.intervals import Intervals
from clinprompt.evaluation.novel import harmonic_estimate, harmonic_mean, joined
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.rules import parse_rules
from clinprompt.experiments.scores import harmonic

RULES: list[dict[str, Any]] = [
    {"kind": "floor", "metric": "accuracy", "at_least": 0.0},
    {"kind": "not_worse_than_champion", "margin": 0.02},
]
INTERVALS = Intervals()
TRAINED_ONLY = "what it trains belongs to the classes that it has seen"
NOT_JUDGED = f"novel_harmonic_mean can't be judged, as it has no answers to the novel classes: {TRAINED_ONLY}"


def novel(quality: float, n: int = 80, seed: int = 1, prefix: str = "n") -> Predictions:
    """Of two novel classes, of patients of their own."""
    p = predictions(quality, n, seed)
    odds = p.probabilities[:, :2]
    patients = np.array([f"{prefix}{one}" for one in p.patients])
    kept = p.labels < 2
    return Predictions(
        p.labels[kept], (odds / odds.sum(axis=1, keepdims=True))[kept], patients[kept], ("cyst", "abscess")
    )


def accuracy(p: Predictions) -> float:
    return float(balanced_accuracy_score(p.labels, p.probabilities.argmax(axis=1)))


def judge(base: Predictions, at_least: float = 0.5, fewest: int = 1, **facts: Any) -> Decision:
    rules = parse_rules([*RULES, {"kind": "novel_harmonic_mean", "at_least": at_least}])
    candidate = Candidate(CandidateId("coop", 1), "m" * 10, base, base, **facts)
    return decide([candidate], None, Plan("balanced_accuracy", rules, fewest=fewest))


@pytest.mark.parametrize(("b", "n"), [(0.9, 0.4), (0.75, 0.75), (1.0, 0.0), (0.0, 0.0), (None, 0.5), (-0.1, 0.5)])
def test_the_experiments_and_the_gate_have_one_harmonic_mean(b: float | None, n: float | None) -> None:
    found = harmonic(b, n)
    if b is None or n is None or min(b, n) < 0:
        assert found is None
        return
    assert found == pytest.approx(hmean([b, n]), abs=1e-6)
    assert harmonic_mean(np.array([b]), np.array([n]))[0] == pytest.approx(hmean([b, n]))


@pytest.mark.parametrize(("of_base", "of_novel"), [(2.0, 0.5), (1.0, 2.0), (0.2, 3.0)])
def test_the_estimate_is_the_closed_form_of_both_balanced_accuracies(of_base: float, of_novel: float) -> None:
    base, other = predictions(of_base), novel(of_novel)
    found = harmonic_estimate(base, other, INTERVALS)
    assert found.value == pytest.approx(hmean([accuracy(base), accuracy(other)]), abs=1e-6)
    assert found.value == harmonic(accuracy(base), accuracy(other))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_an_image_is_answered_among_the_names_of_its_own_half() -> None:
    base, other = predictions(0.5), novel(0.5)
    both = joined(base, other)
    answers = both.probabilities.argmax(axis=1)
    assert both.classes == (*base.classes, *other.classes)
    assert (answers[: len(base)] < len(base.classes)).all()
    assert (answers[len(base) :] >= len(base.classes)).all()
    np.testing.assert_array_equal(answers[: len(base)], base.probabilities.argmax(axis=1))


def test_the_interval_s_error_is_that_of_the_delta_method() -> None:
    base, other = predictions(1.5, 1200, seed=3, per_patient=1), novel(1.0, 1200, seed=4)
    b, n = accuracy(base), accuracy(other)

    def variance(p: Predictions) -> float:
        right = (p.probabilities.argmax(axis=1) == p.labels).astype(float)
        means = []
        for c in range(len(p.classes)):
            by_patient = [right[(p.labels == c) & (p.patients == one)].mean() for one in set(p.patients[p.labels == c])]
            means.append(np.var(by_patient, ddof=1) / len(by_patient))
        return float(np.sum(means)) / len(p.classes) ** 2

    slopes = 2 * n**2 / (b + n) ** 2, 2 * b**2 / (b + n) ** 2
    error = np.sqrt(slopes[0] ** 2 * variance(base) + slopes[1] ** 2 * variance(other))
    found = harmonic_estimate(base, other, INTERVALS)
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.05)


def test_patients_of_both_halves_are_left_out_of_both_at_once() -> None:
    base, apart = predictions(1.0), novel(1.0, prefix="n")
    shared = replace(apart, patients=np.array([name.removeprefix("n") for name in apart.patients]))
    assert set(shared.patients) < set(base.patients)
    one, other = (harmonic_estimate(base, part, INTERVALS) for part in (apart, shared))
    assert one.value == other.value
    assert (one.low, one.high) != (other.low, other.high)


def test_the_rule_passes_by_the_lower_end_fails_by_it_and_says_what_would_do() -> None:
    base, other = predictions(3.0), novel(3.0)
    passed = judge(base, 0.5, novel=other)
    assert passed.accepted
    check = passed.checks[-1]
    assert (check.rule, check.name) == ("novel_harmonic_mean", "novel_harmonic_mean")
    assert check.estimate == harmonic_estimate(base, other, Intervals(0.95))
    value, low = check.estimate.value, check.estimate.low
    assert value is not None
    assert low is not None
    failed = judge(base, (value + low) / 2, novel=other)
    assert not failed.accepted
    assert "harmonic mean of base and novel classes on their test images is" in failed.reasons[0]
    assert "its lower end must be at least" in failed.reasons[0]
    assert "test patients with this value" in str(failed.checks[-1].change)


def test_the_rule_does_not_apply_without_novel_classes_and_is_not_the_one_that_always_must() -> None:
    decision = judge(predictions(3.0))
    assert decision.accepted
    assert [check.rule for check in decision.checks] == ["floor"]
    with pytest.raises(BadParams, match="no rule applies where there is no champion"):
        parse_rules([RULES[1], {"kind": "novel_harmonic_mean", "at_least": 0.5}])


def test_who_can_t_answer_to_other_names_is_no_challenger_and_the_next_best_is_judged() -> None:
    best, next_best, bad = predictions(4.0, seed=2), predictions(3.0), predictions(0.0)
    rules = parse_rules([*RULES, {"kind": "novel_harmonic_mean", "at_least": 0.5}])
    asked: list[str] = []
    for of_test in ((best, next_best), (bad, next_best), (best, bad)):  # whatever the test split says of whom
        probe, coop = (
            Candidate(CandidateId("linear_probe", 1), "a" * 10, best, of_test[0], not_novel=TRAINED_ONLY),
            Candidate(CandidateId("coop", 1), "b" * 10, next_best, of_test[1], novel=novel(3.0)),
        )
        decision = decide([probe, coop], None, Plan("balanced_accuracy", rules), count=lambda c: asked.append(c.name))
        assert {check.candidate for check in decision.checks} == {"coop-1"}
        assert decision.not_eligible == {"linear_probe-1": NOT_JUDGED}
        assert decision.reasons[-1] == f"linear_probe-1 can't be the challenger: {NOT_JUDGED}"
        assert decision.accepted is (of_test[1] is next_best)
        assert decision.test.keys() == {"linear_probe-1", "coop-1"}
        if decision.accepted:
            assert decision.chosen == coop
            said = (
                "coop-1 has the best balanced_accuracy on the validation split of those that can be held to all rules"
            )
            assert decision.reasons[0] == said
    assert asked == ["coop-1"] * 3


def test_without_the_rule_the_same_candidate_is_the_challenger() -> None:
    probe = Candidate(
        CandidateId("linear_probe", 1), "a" * 10, predictions(4.0), predictions(4.0), not_novel=TRAINED_ONLY
    )
    decision = decide([probe], None, Plan("balanced_accuracy", parse_rules(RULES)))
    assert decision.chosen == probe
    assert decision.not_eligible == {}


def test_where_nobody_can_be_the_challenger_the_test_split_is_not_asked() -> None:
    base = predictions(3.0)
    rules = parse_rules([*RULES, {"kind": "novel_harmonic_mean", "at_least": 0.0}])
    candidate = Candidate(CandidateId("linear_probe", 1), "a" * 10, base, base, not_novel=TRAINED_ONLY)

    def count(challenger: Candidate) -> None:
        pytest.fail(f"a decision on the test split was counted for {challenger.name}")

    decision = decide([candidate], None, Plan("balanced_accuracy", rules), count=count)
    assert not decision.accepted
    assert decision.checks == []
    assert decision.reasons == [
        "no candidate can be held to all rules, so the test split decides nothing",
        f"linear_probe-1 can't be the challenger: {NOT_JUDGED}",
    ]


def test_a_class_of_either_half_with_too_few_patients_can_t_be_told() -> None:
    other = novel(3.0, n=24)
    few = min(other.patients_per_class)
    decision = judge(predictions(3.0), 0.1, fewest=few + 1, novel=other)
    assert not decision.accepted
    assert f"has {few} test patients, which are too few to tell" in decision.checks[-1].says
    assert judge(predictions(3.0), 0.1, fewest=few, novel=other).accepted


def test_a_novel_class_without_images_has_no_harmonic_mean() -> None:
    other = novel(3.0)
    found = harmonic_estimate(predictions(1.0), other.where(other.labels == 0), INTERVALS)
    assert found.value is None
    assert found.reason == "no image of class abscess"
