"""The gate's rules one by one, what params.yaml may say of them, and what the test set can support."""

from dataclasses import replace
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from toy_run import predictions

from clinprompt.contract.candidates import CandidateId
from clinprompt.errors import BadParams
from clinprompt.evaluation.behaviour import Behaviour
from clinprompt.evaluation.contenders import Candidate, Incumbent, Slices
from clinprompt.evaluation.design import Superiority
from clinprompt.evaluation.gate import Decision, Plan, decide
from clinprompt.evaluation.intervals import Intervals
from clinprompt.evaluation.paired import compare, design, superiority
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.rules import kinds, parse_rules
from clinprompt.params import load_params

FLOOR = {"kind": "floor", "metric": "accuracy", "at_least": 0.0}
NOT_WORSE = {"kind": "not_worse_than_champion", "margin": 0.02}
SLICES = {"kind": "slice_floor", "columns": ["site"]}


def candidate(name: str = "coop", quality: float = 3.0, seed: int = 0, **facts: Any) -> Candidate:
    split = predictions(quality, seed=seed)
    return Candidate(CandidateId(name, 1), name * 10, split, split, **facts)


def judge(*rules: dict[str, Any], challenger: Candidate | None = None, **more: Any) -> Decision:
    """The decision on one candidate by these rules, beside the one that protects the champion."""
    others, champion, slices = more.pop("others", []), more.pop("champion", None), more.pop("slices", None)
    plan = Plan("balanced_accuracy", parse_rules([FLOOR, *rules, NOT_WORSE])[1:], **more)
    return decide([challenger or candidate(), *others], champion, plan, slices)


def champion(quality: float, seed: int = 5) -> Incumbent:
    return Incumbent("brain", "3", "c", predictions(quality, seed=seed))


def test_the_shipped_rules_are_rules() -> None:
    shipped = parse_rules(load_params(Path(__file__).parents[2] / "params.yaml").gate.listed)
    assert [rule.kind for rule in shipped] == ["floor", "floor", "better_than_zero_shot", "not_worse_than_champion"]
    assert all(rule.explain() for rule in shipped)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"kind": "flor", "metric": "auroc", "at_least": 0.5}], "gate.rules.0.kind: there is no rule 'flor'; did you"),
        ([{"kind": "floor", "metric": "auroc"}], "gate.rules.0.at_least: missing"),
        ([{"kind": "floor", "metric": "auroc", "at_least": 1.2}], "gate.rules.0.at_least: must be from 0 to 1"),
        ([{"kind": "floor", "metric": "kappa", "at_least": -1.5}], "at_least: must be from -1 to 1, found -1.5"),
        ([FLOOR, {"kind": "floor", "metric": "auroc", "at_least": float("nan")}], "at_least: input should be a finite"),
        (
            [FLOOR, SLICES | {"metric": "accuracy", "at_least": 7.0}],
            "gate.rules.1.at_least: must be from 0 to 1, found 7",
        ),
        (
            [FLOOR, SLICES | {"metric": "accuracy", "at_least": -1.0}],
            "gate.rules.1.at_least: must be from 0 to 1, found",
        ),
        ([FLOOR, SLICES | {"metric": "kappa", "at_least": -1.5}], "gate.rules.1.at_least: must be from -1 to 1, found"),
        ([FLOOR, NOT_WORSE | {"margin": 1.0}], "gate.rules.1.margin: input should be less than 1, found 1.0"),
        (
            [FLOOR, {"kind": "better_than_champion", "by": 1.0}],
            "gate.rules.1.by: input should be less than 1, found 1.0",
        ),
        (
            [FLOOR, {"kind": "better_than_zero_shot", "by": 1.0}],
            "gate.rules.1.by: input should be less than 1, found 1.0",
        ),
        ([NOT_WORSE, {"kind": "calibration", "atmost": 0.1}], "gate.rules.1.atmost: no such key"),
        ([NOT_WORSE, {"kind": "better_than_zero_shot"}], "no rule applies where there is no champion"),
        ([{"kind": "calibration", "at_most": 0.1}], "no rule holds a challenger against the champion"),
    ],
)
def test_a_wrong_rule_is_named_by_its_path(rules: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(BadParams) as caught:
        parse_rules(rules)
    assert words in str(caught.value)


def test_a_kappa_may_be_below_zero() -> None:
    found = judge({"kind": "floor", "metric": "kappa", "at_least": -0.2})
    assert found.accepted


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "floor", "metric": "balanced_accuracy", "at_least": 0.1},
        {"kind": "calibration", "at_most": 0.9},
        {"kind": "selective_error", "coverage": 0.8, "at_most": 0.9},
    ],
)
def test_with_too_few_patients_of_a_class_nothing_can_be_told(rule: dict[str, Any]) -> None:
    assert judge(rule, fewest=20).accepted
    found = judge(rule, fewest=21)
    assert not found.accepted
    assert "glioma has 20 test patients, which are too few to tell; gate.min_patients" in found.reasons[0]
    assert found.checks[0].estimate.value is not None
    assert found.checks[0].change == "more test patients"


def test_a_tuned_model_must_be_better_than_zero_shot() -> None:
    rule, weak = {"kind": "better_than_zero_shot"}, candidate("zero_shot", 1.0, seed=3)
    assert judge(rule, others=[weak]).accepted
    equal = judge(rule, others=[replace(weak, val=predictions(0.0), test=candidate().test)])
    assert not equal.accepted
    assert "balanced_accuracy minus that of zero_shot-1 on the test split is 0.000" in equal.reasons[0]
    itself = judge(rule, {"kind": "calibration", "at_most": 0.9}, challenger=candidate("zero_shot"))
    assert [check.rule for check in itself.checks] == ["calibration"]


@pytest.mark.parametrize("rival", ["listed", "a variant", "absent"])
def test_a_zero_shot_that_is_missing_lets_no_first_champion_through(rival: str) -> None:
    rule, name = {"kind": "better_than_zero_shot"}, "plain" if rival == "a variant" else "zero_shot"
    gone = Candidate(CandidateId(name, 1), None, None, None, not_trained="it diverged", method="zero_shot")
    others = [] if rival == "absent" else [gone]
    found = judge(rule, others=others)
    assert (found.accepted, [check.passed for check in found.checks]) == (False, [False])
    assert "so nothing says that tuning was worth it" in found.reasons[0]
    told, change = found.reasons[0], str(found.checks[0].change)
    if rival == "absent":
        assert "it is not among the candidates, and there is no champion yet" in told
        assert "candidates.methods of params.yaml" in change
    else:
        assert f"{name}-1 was not trained" in told
        assert change.startswith(f"a {name}-1 that is trained")


def test_in_place_of_a_champion_zero_shot_need_not_compete_but_must_be_trained_where_it_does() -> None:
    rule, weak = {"kind": "better_than_zero_shot"}, champion(0.5)
    alone = judge(rule, champion=weak)
    assert (alone.accepted, [check.rule for check in alone.checks]) == (True, ["not_worse_than_champion"])
    gone = Candidate(CandidateId("zero_shot", 1), None, None, None, not_trained="it diverged", method="zero_shot")
    assert not judge(rule, champion=weak, others=[gone]).accepted
    second = candidate("zero_shot", 1.0, seed=3)
    found = judge(rule, champion=weak, others=[gone, replace(second, id=CandidateId("zero_shot", 2))])
    assert "minus that of zero_shot-1 on the test split has no interval" in found.reasons[0]


def test_an_equal_newcomer_does_not_pass_for_better() -> None:
    rule = {"kind": "better_than_champion"}
    found = judge(rule, champion=champion(3.0))
    assert "it is not shown better, so the champion stays, by this rule" in found.reasons[0]
    assert judge(rule, champion=champion(0.5)).accepted
    one = candidate()
    assert judge(rule, challenger=one, champion=Incumbent("brain", "1", str(one.model_digest), one.test)).accepted


def test_ceilings_are_held_by_the_upper_end() -> None:
    packed = candidate(probe=lambda challenger, trial: Behaviour(images=0, payload_bytes=1_500_000))
    for rule, key in (
        ({"kind": "calibration", "at_most": 0.5}, "at_most"),
        ({"kind": "selective_error", "coverage": 0.5, "at_most": 0.3}, "at_most"),
        ({"kind": "payload_size", "at_most_mb": 2.0}, "at_most_mb"),
    ):
        (check,) = judge(rule, challenger=packed).checks
        assert check.passed
        assert check.estimate.high is not None
        assert check.ends == ("value" if rule["kind"] == "payload_size" else "bounds")
        for bound, passed in ((check.estimate.high, True), (check.estimate.high - 1e-4, False)):
            again = judge(rule | {key: bound}, challenger=packed)
            assert again.accepted is passed
            assert (" [" in again.reasons[0 if not passed else 1]) is (check.ends == "bounds")
    size = {"kind": "payload_size", "at_most_mb": 2.0}
    assert "has no interval: nobody packed it" in judge(size).reasons[0]
    nothing = replace(candidate(), probe=lambda challenger, trial: Behaviour(images=0))
    assert "has no interval: its size is not known" in judge(size, challenger=nothing).reasons[0]


def sites(p: Predictions, bad: float = 0.0) -> tuple[Predictions, Slices]:
    """The first half of the images from site A, the others from B, where a share of the answers is spoiled."""
    at_b = np.arange(len(p)) >= len(p) // 2
    spoiled = at_b & (np.random.default_rng(0).random(len(p)) < bad)
    probabilities = np.where(spoiled[:, None], np.roll(np.eye(3)[p.labels], 1, axis=1), p.probabilities)
    return replace(p, probabilities=probabilities), Slices({"site": {"A": ~at_b, "B": at_b}}, {"sex": "it is unknown"})


def test_every_slice_must_reach_the_floor_and_none_may_fall_behind() -> None:
    floor = {"kind": "slice_floor", "metric": "balanced_accuracy", "at_least": 0.6, "columns": ["site"]}
    gap = {"kind": "slice_gap", "metric": "accuracy", "at_most": 0.3, "columns": ["site"]}
    even, slices = sites(predictions(3.0))
    fair = replace(candidate(), test=even)
    assert judge(floor, gap, challenger=fair, slices=slices).accepted
    uneven, _ = sites(predictions(3.0), bad=0.5)
    found = judge(floor, gap, challenger=replace(fair, test=uneven), slices=slices)
    assert [check.passed for check in found.checks] == [False, False]
    assert "balanced_accuracy on the slice site=B is" in found.reasons[0]
    assert "gap of accuracy between site=A and site=B is" in found.reasons[1]
    small = judge(floor, challenger=fair, slices=slices, fewest=11)
    assert "no slice by site has 11 patients of each class" in small.reasons[0]
    missing = judge(floor | {"columns": ["sex"]}, challenger=fair, slices=slices)
    assert "there are no slices by sex: it is unknown" in missing.reasons[0]


def paired(n: int, disagree: int, seed: int = 0) -> tuple[Predictions, Predictions]:
    """Two models of `n` patients with one image each that disagree on so many images, each right on half of them."""
    labels = np.arange(n) % 2
    names = np.array([f"{i:05d}" for i in range(n)])
    odd = np.random.default_rng(seed).permutation(n)[:disagree]
    wrong = [odd[: disagree // 2], odd[disagree // 2 :]]
    models = []
    for rows in wrong:
        answers = labels.copy()
        answers[rows] = 1 - answers[rows]
        models.append(Predictions(labels, np.eye(2)[answers] * 0.8 + 0.1, names, ("a", "b")))
    return models[0], models[1]


def test_what_a_test_set_supports_is_that_of_the_normal_approximation() -> None:
    one, other = paired(800, 80)
    found = compare(one, other, "accuracy", Intervals())
    plan = design(one, other, found, 0.02, 0.025)
    assert plan is not None
    error = np.sqrt(80 / 800 / 800)  # of a mean difference of 0 with a tenth of discordant pairs (McNemar)
    z = norm.ppf(0.975) + norm.ppf(0.8)
    assert plan.disagreement == 0.1
    assert plan.error == pytest.approx(error, rel=0.02)
    assert plan.supported == pytest.approx(z * error, rel=0.03)
    assert plan.needed == pytest.approx(0.1 * (z / 0.02) ** 2, rel=0.04)
    assert plan.power == pytest.approx(norm.cdf(0.02 / error - norm.ppf(0.975)), abs=0.03)
    assert "800 test patients support a margin of about 3." in plan.sentence
    assert "a margin of 2 points needs about 2,000 patients" in plan.sentence


def test_what_a_test_set_shows_is_that_of_the_normal_approximation() -> None:
    one, other = paired(800, 80)
    gained = np.flatnonzero(one.probabilities.argmax(axis=1) != one.labels)[:30]
    answers = other.probabilities.copy()
    answers[gained] = np.eye(2)[other.labels[gained]] * 0.8 + 0.1
    lost = np.flatnonzero(other.probabilities.argmax(axis=1) != other.labels)[:24]  # 40 to 16 in its favour
    answers[lost] = np.eye(2)[other.labels[lost]] * 0.8 + 0.1
    better = replace(other, probabilities=answers)
    found = compare(one, better, "accuracy", Intervals())
    assert found.difference.value == pytest.approx((40 - 16) / 800)
    error = np.sqrt((56 - 24**2 / 800) / 800**2)  # of a mean of 40 times 1, 16 times -1 and else 0
    z = norm.ppf(0.975) + norm.ppf(0.8)
    for by in (0.0, 0.01):
        plan = superiority(one, better, found, by, 0.025)
        assert plan is not None
        assert plan.error == pytest.approx(error, rel=0.02)
        assert plan.shown == pytest.approx(by + z * error, rel=0.03)
        assert plan.power == pytest.approx(norm.cdf(-by / error - norm.ppf(0.975)), abs=0.005)
        assert plan.power <= 0.025
        assert plan.needed == pytest.approx(800 * (z * error / (0.03 - by)) ** 2, rel=0.05)
    assert (
        "800 test patients show a difference of about 3.6 points; one of 3 points, as was found, needs" in plan.sentence
    )
    same = compare(one, one, "accuracy", Intervals())
    assert superiority(one, one, same, 0.0, 0.025) is None


@pytest.mark.parametrize("kind", ["better_than_champion", "better_than_zero_shot"])
def test_who_is_not_shown_better_is_told_what_could_be(kind: str) -> None:
    equal = candidate("zero_shot", 0.5, seed=3)
    beside = replace(equal, test=predictions(3.0, seed=3))
    found = judge({"kind": kind}, champion=champion(3.0), others=[beside])
    check = found.checks[0]
    assert (check.rule, check.passed) == (kind, False)
    assert isinstance(check.design, Superiority)
    assert check.design.sentence in found.reasons[0]
    assert "60 test patients show a difference of about" in found.reasons[0]
    low = check.estimate.value - check.estimate.low if check.estimate.value is not None and check.estimate.low else 0.0
    assert check.design.shown > low > 0  # with a probability of a half alone


def test_two_that_agree_on_all_images_may_differ_on_others() -> None:
    one, other = paired(100, 0)
    found = compare(one, other, "accuracy", Intervals())
    exact = 1 - 0.025 ** (1 / 100)
    assert found.difference.low == pytest.approx(-exact, abs=1e-6)
    plan = design(one, other, found, 0.02, 0.025)
    assert plan is not None
    assert (plan.feasible, plan.supported) == (False, pytest.approx(exact, abs=1e-6))
    assert plan.needed == ceil(log(0.025) / log(0.98))
    same = compare(one, other, "accuracy", Intervals(), same_model=True).difference
    assert (same.low, same.high) == (0, 0)


def test_a_test_set_that_cannot_tell_says_so() -> None:
    found = judge(challenger=candidate(quality=1.5), champion=champion(1.5))
    assert not found.accepted
    (check,) = found.checks
    assert check.design is not None
    assert not check.design.feasible
    assert (
        "neither shown worse nor within the margin, so the champion stays; 60 test patients support" in found.reasons[0]
    )
    assert check.change is not None
    assert "a wider margin" in check.change
    assert "though right" not in found.reasons[0]
    twin = judge(challenger=candidate(quality=1.5, seed=5), champion=champion(1.5, seed=5))
    assert "is 0.000 [-0." in twin.reasons[0]
    assert ": though right on the same images, neither shown worse nor within the margin" in twin.reasons[0]
    worse = judge(challenger=candidate(quality=1.0), champion=champion(6.0))
    assert "it is worse than the champion, which stays" in worse.reasons[0]


def unnamed(p: Predictions) -> Predictions:
    """The same images, each of a patient whom nobody knows."""
    return replace(p, patients=np.array([f"{i:04d}" for i in range(len(p))]), known=np.zeros(len(p), dtype=bool))


@pytest.mark.parametrize("known", [True, False])
def test_where_no_patient_is_known_none_is_spoken_of(known: bool) -> None:
    test, slices = sites(predictions(1.5))
    beside = predictions(1.5, seed=5)
    if not known:
        test, beside = unnamed(test), unnamed(beside)
    rules = (
        {"kind": "floor", "metric": "balanced_accuracy", "at_least": 0.6},
        {"kind": "calibration", "at_most": 0.01},
        {"kind": "slice_floor", "metric": "balanced_accuracy", "at_least": 0.6, "columns": ["site"]},
        {"kind": "slice_gap", "metric": "accuracy", "at_most": 0.01, "columns": ["site"]},
        {"kind": "selective_error", "coverage": 0.8, "at_most": 0.1},
    )
    for fewest, told_of in ((1, "support a margin of"), (1000, "which are too few to tell")):
        found = judge(
            *rules, challenger=replace(candidate(), test=test), champion=Incumbent("brain", "3", "c", beside),
            slices=slices, fewest=fewest,
        )  # fmt: skip
        told = [*found.reasons, *(str(check.change) for check in found.checks), *(c.says for c in found.cross_checks)]
        told = [text.replace("min_patients_per_class", "") for text in told]
        assert any("patients" in text for text in told) is known
        assert any(f"test {'patients' if known else 'images'}" in text and told_of in text for text in told)


def test_every_rule_has_a_file_and_none_is_named_elsewhere() -> None:
    folder = Path(__file__).parents[2] / "clinprompt"
    plumbing = [folder / "params.py", folder / "evaluation/gate.py", folder / "evaluation/judge.py"]
    for kind in kinds():
        assert not any(f'"{kind}"' in file.read_text() for file in plumbing), kind
