"""The gate's error rates on a few hundred simulated test sets, within binomial bands; benchmarks/gate.py has more.

Most are of the intervals that the rules rest on, as those are quick; one is of the gate's decision as it stands.
"""

import numpy as np
import pytest
from scipy.stats import binom, norm

from benchmarks import gate
from clinprompt.contract.candidates import CandidateId
from clinprompt.evaluation.contenders import Candidate, Incumbent
from clinprompt.evaluation.gate import Decision, Plan, decide
from clinprompt.evaluation.intervals import quantile
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.rules import parse_rules

OF = 400
NEVER = 1e-4  # the chance that a band fails a gate that keeps its promise


def at_most(share: float, of: int = OF) -> int:
    return int(binom.ppf(1 - NEVER, of, share))


def at_least(share: float, of: int = OF) -> int:
    return int(binom.ppf(NEVER, of, share))


@pytest.mark.parametrize(("patients", "repeats"), [(72, 0.5), (72, 0.9), (240, 0.5)])
def test_worse_models_pass_no_more_often_than_alpha(patients: int, repeats: float) -> None:
    by_margin, _ = gate.acceptance(patients, -gate.MARGIN, repeats, OF)
    assert by_margin.count <= at_most(0.03)
    by_twice, _ = gate.acceptance(patients, -2 * gate.MARGIN, repeats, OF, seed=1)
    assert by_twice.count <= at_most(0.01)


def test_equal_models_pass_with_the_power_that_is_told() -> None:
    cases, rng = gate.TestSet((60,) * 4), np.random.default_rng(3)
    plan, weights = cases.plan()
    spreads = [plan.spread(weights @ gate.pair(rng, cases, 0.0, 0.9), np.ones(4)) for _ in range(40)]
    error, critical = np.mean([s.error for s in spreads]), np.mean([quantile(0.975, s.freedom) for s in spreads])
    power = float(norm.cdf(gate.MARGIN / error - critical))
    assert 0.6 < power < 0.95
    passed, _ = gate.acceptance(240, 0.0, 0.9, OF)
    assert at_least(power - 0.04) <= passed.count <= at_most(power + 0.04)


@pytest.mark.parametrize(("patients", "repeats"), [(72, 0.5), (72, 0.9), (240, 0.9)])
def test_equal_models_are_shown_better_no_more_often_than_alpha(patients: int, repeats: float) -> None:
    found, _ = gate.acceptance(patients, 0.0, repeats, OF, bound=0.0)
    assert found.count <= at_most(0.03)
    by_margin, _ = gate.acceptance(patients, gate.MARGIN, repeats, OF, bound=0.0)
    assert by_margin.count > found.count


@pytest.mark.parametrize(
    "case",
    [
        "18 patients a class, balanced accuracy 0.75",
        "a class of 4 patients, three of 30",
        "AUROC 0.98, 18 patients a class",
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(case: str) -> None:
    found, percentiles = gate.COVERAGE[case](OF)
    assert at_least(0.94) <= found.count <= at_most(0.96)
    assert percentiles.count < found.count


def test_a_model_at_a_floor_seldom_passes() -> None:
    for name in ("balanced accuracy 0.95, a class of 10, three of 30", "AUROC 0.95, 18 patients a class"):
        found, _ = gate.FLOORS[name](OF)
        assert found.count <= at_most(0.03)


def test_many_decisions_on_one_test_split_err_no_more_often_than_alpha_together() -> None:
    sets, decisions = 150, 10
    erred = {spending: gate.family(72, decisions, spending, sets) for spending in ("none", "fallback")}
    assert gate.within(erred["fallback"], decisions).count <= at_most(gate.ALPHA, sets)
    assert gate.within(erred["none"], decisions).count > at_most(gate.ALPHA, sets)
    mixed = gate.within(gate.family(72, decisions, "fallback", sets, good=True), decisions)
    assert mixed.count <= at_most(gate.ALPHA, sets)


CASES = gate.TestSet((18,) * 4, images=1)
PAIRS = 250
RULES = [
    {"kind": "floor", "metric": "balanced_accuracy", "at_least": gate.ACCURACY},
    {"kind": "not_worse_than_champion", "margin": gate.MARGIN},
    {"kind": "better_than_champion"},
]


def answered(rng: np.random.Generator, hits: gate.Array) -> Predictions:
    """Predictions that are right where `hits` [patients, images] says so, and of any other class elsewhere."""
    labels, classes = np.repeat(CASES.labels, CASES.images), len(CASES.sizes)
    told = np.where(hits.ravel(), labels, (labels + rng.integers(1, classes, len(labels))) % classes)
    owners = np.repeat([f"{i:03d}" for i in range(len(CASES.labels))], CASES.images)
    return Predictions(labels, np.eye(classes)[told] * 0.6 + 0.1, owners, ("a", "b", "c", "d"))


def decisions(gain: float, repeats: float, of: int, seed: int) -> list[Decision]:
    """The gate's own, each on new test patients, of a champion and a challenger that is better by `gain`."""
    rng, found = np.random.default_rng(seed), []
    plan = Plan("balanced_accuracy", parse_rules(RULES), alpha=gate.ALPHA)
    few = np.isin(np.arange(len(CASES.labels)) % 18, [0, 1])  # of the validation split, which decides nothing here
    for _ in range(of):
        champion = CASES.hits(rng, gate.all_at(gate.ACCURACY))
        own = CASES.hits(rng, gate.all_at(gate.ACCURACY + gain / (1 - repeats)))
        test = answered(rng, np.where(rng.random(own.shape) < repeats, champion, own))
        challenger = Candidate(CandidateId("coop", 1), "b" * 64, test.where(np.repeat(few, CASES.images)), test)
        incumbent = Incumbent("brain", "1", "c" * 64, answered(rng, champion))
        found.append(decide([challenger], incumbent, plan))
    return found


def passed(found: list[Decision], kind: str) -> int:
    return sum(check.passed for decision in found for check in decision.checks if check.rule == kind)


def test_the_gate_lets_bad_models_through_no_more_often_than_alpha() -> None:
    worse = decisions(-gate.MARGIN, 0.5, PAIRS, seed=0)
    assert passed(worse, "not_worse_than_champion") <= at_most(gate.ALPHA, PAIRS)
    equal = decisions(0.0, 0.5, PAIRS, seed=1)
    assert passed(equal, "better_than_champion") <= at_most(gate.ALPHA, PAIRS)
    assert passed(equal, "floor") <= at_most(gate.ALPHA, PAIRS)  # whose true value is exactly the floor
    assert passed(equal, "not_worse_than_champion") > passed(worse, "not_worse_than_champion")
    assert sum(decision.accepted for decision in worse + equal) <= at_most(gate.ALPHA, PAIRS)
    better = decisions(0.2, 0.0, 20, seed=2)
    assert sum(decision.accepted for decision in better) >= 12
