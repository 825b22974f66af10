"""The rule `latency`, on what a probe may find, alone and beside `behaviour`."""

from collections.abc import Mapping
from typing import Any

import pytest
from toy_run import predictions

from clinprompt.contract.candidates import CandidateId
from clinprompt.errors import BadParams
from clinprompt.evaluation.behaviour import Behaviour, Latency, Timing, Trial
from clinprompt.evaluation.contenders import Candidate
from clinprompt.evaluation.gate import Decision, Plan, decide
from clinprompt.evaluation.rules import Rule, parse_rules, trial_of

FLOOR = {"kind": "floor", "metric": "balanced_accuracy", "at_least": 0.1}
NOT_WORSE = {"kind": "not_worse_than_champion", "margin": 0.02}
LATENCY: dict[str, Any] = {"kind": "latency", "at_most_ms": 50.0}
CPU = Timing(requests=30, device="cpu", threads=1)


def rules(*more: Mapping[str, Any]) -> list[Rule]:
    return parse_rules([FLOOR, NOT_WORSE, *more])


def took(median: float, spread: float = 5.0, timing: Timing = CPU) -> Behaviour:
    """What is found of a candidate that takes so many milliseconds."""
    quartiles = {"low": median - spread, "median": median, "high": median + spread}
    return Behaviour(images=0, latencies=[Latency(**timing.to_json(), **quartiles, on="a processor")])


def decided(found: Behaviour | None, *more: Mapping[str, Any]) -> Decision:
    """On a candidate of which this is found."""
    probe = None if found is None else (lambda candidate, trial: found)
    one = Candidate(CandidateId("coop", 1), "d" * 64, predictions(2.0, seed=1), predictions(2.0), probe=probe)
    return decide([one], None, Plan("balanced_accuracy", rules(*(more or (LATENCY,)))))


def test_a_candidate_that_is_fast_enough_passes_by_its_upper_quartile() -> None:
    decision = decided(took(45.0))
    assert decision.accepted
    assert decision.reasons[-1] == (
        "an image takes 45 ms (median of 30), and three of four at most 50 ms, on the CPU with 1 thread (a processor); "
        "at most 50 ms is asked for"
    )
    [check] = [check for check in decision.checks if check.rule == "latency"]
    assert (check.estimate.low, check.estimate.value, check.estimate.high) == (40.0, 45.0, 50.0)
    assert not decided(took(45.0, spread=5.1)).accepted


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "how long an image takes was not measured"),
        (Behaviour(images=0, problem="it does not predict: why"), "is not known: it does not predict: why"),
        (Behaviour(images=6), "is not known: it was not timed"),
        (took(10.0, timing=Timing(requests=30, device="cpu", threads=4)), "is not known: it was not timed"),
        (took(80.0), "an image takes 80 ms (median of 30), and three of four at most 85 ms"),
    ],
)
def test_what_is_too_slow_or_was_not_measured_does_not_pass(found: Behaviour | None, why: str) -> None:
    decision = decided(found)
    assert not decision.accepted
    assert why in decision.reasons[0]


def test_a_ceiling_on_a_gpu_is_not_met_by_a_cpu() -> None:
    on_gpu = {"kind": "latency", "at_most_ms": 50.0, "device": "cuda"}
    assert "is not known: there is no GPU" in decided(took(10.0), on_gpu).reasons[0]
    both = took(10.0, timing=Timing(requests=30, device="cuda", threads=1))
    assert decided(both, on_gpu).accepted


def test_one_trial_serves_all_rules() -> None:
    behaviour = {"kind": "behaviour", "images": 12}
    other = {"kind": "latency", "at_most_ms": 9.0, "device": "cuda", "requests": 40}
    trial = trial_of(rules(LATENCY, behaviour, LATENCY | {"at_most_ms": 70.0}, other))
    gpu = Timing(requests=40, device="cuda", threads=1)
    assert trial == Trial(images=12, timings=(CPU, gpu))
    assert trial.shown == 40
    assert not trial_of(rules())


def test_before_a_promotion_the_best_of_three_medians_counts() -> None:
    [*_, rule] = rules(LATENCY)
    told = iter([took(60.0), took(50.0)])
    assert rule.still_fails(took(70.0), lambda trial: next(told)) is None
    told = iter([took(60.0), took(55.0), took(1.0)])
    problem = rule.still_fails(took(70.0), lambda trial: next(told))
    assert problem is not None
    assert problem.startswith("at best of 3 measurements an image takes 55 ms")
    assert problem.endswith("the median must be at most 50 ms")
    assert next(told) == took(1.0)
    lost = Behaviour(images=0, problem="it does not predict: why")
    said = "how long an image takes is not known: it does not predict: why"
    assert rule.still_fails(lost, lambda trial: took(1.0)) == said


def test_knobs_that_are_none_are_named() -> None:
    with pytest.raises(BadParams, match="at_most_ms"):
        rules({"kind": "latency"})
    with pytest.raises(BadParams, match="device"):
        rules(LATENCY | {"device": "tpu"})
