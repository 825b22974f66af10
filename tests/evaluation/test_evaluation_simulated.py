"""The gate's error rates on a few hundred simulated test sets, within binomial bands; benchmarks/gate.py has more."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from benchmarks import gate
from clinprompt.evaluation.intervals import quantile

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
