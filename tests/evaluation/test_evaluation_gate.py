"""The gate's decision, case by case; whatever is missing or undefined is a no."""

from dataclasses import replace

import numpy as np
import pytest
from toy_run import predictions

from clinprompt.contract.candidates import CandidateId
from clinprompt.evaluation.contenders import Candidate, Incumbent
from clinprompt.evaluation.gate import Plan, decide
from clinprompt.evaluation.intervals import Intervals
from clinprompt.evaluation.paired import compare
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.rules import parse_rules

INTERVALS = Intervals()


def plan(margin: float = 0.02, fewest: int = 1, **floors: float) -> Plan:
    """Floors, and not worse than the champion by a margin."""
    listed = [{"kind": "floor", "metric": metric, "at_least": floor} for metric, floor in floors.items()]
    at_all = {"kind": "floor", "metric": "accuracy", "at_least": 0.0}
    rules = parse_rules([at_all, *listed, {"kind": "not_worse_than_champion", "margin": margin}])[1:]
    return Plan("balanced_accuracy", rules, fewest=fewest)


RULES = plan(balanced_accuracy=0.5, auroc=0.7)


def candidate(method: str = "coop", seed: int = 1, val: float = 3.0, test: float = 3.0) -> Candidate:
    """A candidate with models of these qualities on the two splits."""
    return Candidate(CandidateId(method, seed), f"{method}{seed}", predictions(val, n=60), predictions(test))


def champion(quality: float) -> Incumbent:
    return Incumbent("brain", "3", "c", predictions(quality, seed=5))


def test_a_good_candidate_without_a_champion_is_accepted() -> None:
    good = candidate()
    found = decide([good, candidate("zero_shot", val=1.0)], None, RULES)
    assert found.accepted
    assert found.chosen == good
    assert [(c.candidate, c.name, c.bound, c.passed) for c in found.checks] == [
        ("coop-1", "floor.balanced_accuracy", 0.5, True),
        ("coop-1", "floor.auroc", 0.7, True),
    ]
    assert set(found.val) == set(found.test) == {"coop-1", "zero_shot-1"}
    assert found.reasons[0] == "coop-1 has the best balanced_accuracy on the validation split"


def test_the_validation_split_alone_picks_the_challenger() -> None:
    better_on_test = candidate("zero_shot", val=1.0, test=9.0)
    found = decide([better_on_test, candidate(val=3.0, test=3.0)], None, RULES)
    assert found.chosen is not None
    assert found.chosen.name == "coop-1"


def test_ties_go_to_the_first_method_then_the_first_seed() -> None:
    tied = [candidate("zero_shot", 1), candidate("coop", 2), candidate("coop", 1)]
    found = decide(tied, None, RULES)
    assert found.chosen is not None
    assert found.chosen.name == "coop-1"


def test_the_lower_end_of_the_interval_must_reach_the_floor() -> None:
    value = decide([candidate()], None, RULES).test["coop-1"]["balanced_accuracy"]
    assert value.low is not None
    assert value.value is not None
    between = (value.low + value.value) / 2
    for floor, accepted in ((value.low, True), (between, False)):
        found = decide([candidate()], None, plan(balanced_accuracy=floor))
        assert found.accepted is accepted
    assert found.chosen is None
    assert "balanced_accuracy on the test split is" in found.reasons[0]
    assert "its lower end must be at least" in found.reasons[0]


def test_a_candidate_that_learned_shuffled_labels_is_rejected() -> None:
    shuffled = candidate(val=0.0, test=0.0)
    found = decide([shuffled], None, RULES)
    assert not found.accepted
    assert {c.name for c in found.checks if not c.passed} == {"floor.balanced_accuracy", "floor.auroc"}


def test_a_better_champion_stays() -> None:
    found = decide([candidate(test=2.0)], champion(6.0), RULES)
    assert not found.accepted
    (check,) = (c for c in found.checks if not c.passed)
    assert check.name == "not_worse_than_champion.balanced_accuracy"
    assert check.bound == -0.02
    assert found.reasons[0].startswith("coop-1: balanced_accuracy minus the champion's on the test split is -0.")


def test_a_worse_champion_gives_way() -> None:
    found = decide([candidate(test=6.0)], champion(1.0), RULES)
    assert found.accepted
    assert found.checks[-1].estimate.low is not None
    assert found.checks[-1].estimate.low > 0


def test_the_champion_is_not_worse_than_itself() -> None:
    mine = candidate()
    found = decide([mine], Incumbent("brain", "1", "coop1", mine.test), plan(margin=0.0))
    assert found.accepted
    assert found.checks[-1].estimate.to_json() == {"value": 0.0, "low": 0.0, "high": 0.0}


def _without(split: str, c: int) -> Candidate:
    full = candidate()
    part = getattr(full, split)
    return replace(full, **{split: part.where(part.labels != c)})


def _nan(p: Predictions | None) -> Predictions:
    assert p is not None
    probabilities = p.probabilities.copy()
    probabilities[3, 1] = np.nan
    return replace(p, probabilities=probabilities)


UNSOUND = {
    "a missing file": (
        Candidate(CandidateId("coop", 2), "d", None, None, "predictions.parquet does not exist"),
        "does not exist",
    ),
    "no predictions": (Candidate(CandidateId("coop", 2), "d", None, None), "there are no predictions"),
    "no model": (replace(candidate("coop", 2), model_digest=None), "there are no predictions"),
    "NaN on test": (replace(candidate("coop", 2), test=_nan(candidate().test)), "no numbers on the test split"),
    "NaN on val": (replace(candidate("coop", 2), val=_nan(candidate().val)), "no numbers on the val split"),
    "fewer images": (replace(candidate("coop", 2), test=predictions(3.0, n=60)), "other test images than zero_shot-1"),
    "shuffled labels": (
        replace(candidate("coop", 2), test=replace(predictions(3.0), labels=predictions(3.0).labels[::-1].copy())),
        "other test images than zero_shot-1",
    ),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_one_unsound_candidate_rejects_the_whole_run(case: str) -> None:
    unsound, message = UNSOUND[case]
    found = decide([candidate("zero_shot"), unsound], None, RULES)
    assert (found.accepted, found.chosen, found.checks) == (False, None, [])
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith("coop-2: ")
    assert message in found.reasons[0]


def test_an_undefined_selection_metric_is_a_no() -> None:
    found = decide([_without("val", 2)], None, RULES)
    assert found.reasons == ["coop-1: balanced_accuracy on the validation split is undefined: no image of class none"]


def test_an_undefined_floor_metric_is_a_no() -> None:
    found = decide([_without("test", 1)], None, RULES)
    assert not found.accepted
    assert "coop-1: auroc on the test split has no interval: no image of class meningioma" in found.reasons


def test_a_champion_without_predictions_on_these_images_is_a_no() -> None:
    gone = Incumbent("brain", "3", "c", None, "the champion knows other classes")
    found = decide([candidate()], gone, RULES)
    assert not found.accepted
    assert found.reasons[0].endswith("has no interval: the champion knows other classes")


def test_no_candidates_are_a_no() -> None:
    assert decide([], None, RULES).reasons == ["there are no candidates"]


def test_a_comparison_is_paired() -> None:
    a, b = predictions(1.0, seed=1), predictions(1.0, seed=2)
    found = compare(a, b, "accuracy", INTERVALS).difference
    hits = [(p.probabilities.argmax(axis=1) == p.labels).astype(float) for p in (a, b)]
    per_patient = (hits[1] - hits[0]).reshape(-1, 2).mean(axis=1)
    half = 1.96 * per_patient.std() / np.sqrt(len(per_patient))
    assert found.value == pytest.approx(per_patient.mean(), abs=1e-6)
    assert found.low == pytest.approx(per_patient.mean() - half, abs=0.03)
    assert found.high == pytest.approx(per_patient.mean() + half, abs=0.03)


def test_models_measured_on_other_images_are_not_compared() -> None:
    found = compare(predictions(1.0), predictions(1.0, n=60), "accuracy", INTERVALS).difference
    assert found.reason == "the two were not measured on the same images"
