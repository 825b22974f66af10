"""The rule `behaviour`, on what a probe may find."""

from dataclasses import replace
from typing import Any

import pytest
from toy_run import predictions

from clinprompt.contract.candidates import CandidateId
from clinprompt.evaluation.behaviour import Behaviour
from clinprompt.evaluation.contenders import Candidate
from clinprompt.evaluation.gate import Decision, Plan, decide
from clinprompt.evaluation.rules import parse_rules

FLOOR = {"kind": "floor", "metric": "balanced_accuracy", "at_least": 0.1}
NOT_WORSE = {"kind": "not_worse_than_champion", "margin": 0.02}
RULES = parse_rules([FLOOR, NOT_WORSE, {"kind": "behaviour", "images": 10, "at_most_flipped": 0.1}])
GOOD: dict[str, Any] = {"sums": 0.0, "judged": 2e-4, "batch": 1e-7, "classes": 0.0, "flipped": 0.1}


def decided(found: Behaviour | None) -> Decision:
    """On a candidate of which this is found."""
    probe = None if found is None else (lambda candidate, trial: found)
    one = Candidate(CandidateId("coop", 1), "d" * 64, predictions(2.0, seed=1), predictions(2.0), probe=probe)
    return decide([replace(one)], None, Plan("balanced_accuracy", RULES))


def test_a_candidate_that_behaves_passes_and_what_was_not_checked_is_told() -> None:
    decision = decided(Behaviour(images=10, **GOOD, not_checked=["GPU and CPU: there is no GPU"]))
    assert decision.accepted
    assert "turn 10.0% of 10 images to another class" in decision.reasons[-1]
    assert "not checked: GPU and CPU: there is no GPU" in decision.reasons[-1]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "its behaviour was not measured"),
        (Behaviour(images=10, problem="it does not predict: why"), "it does not predict: why"),
        (Behaviour(images=10, **GOOD | {"flipped": 0.2}), "20.0% of 10 images to another class; it must be at most 10"),
        (Behaviour(images=10, **GOOD | {"flipped": None}), "photometric changes is not known"),
        (
            Behaviour(images=10, **GOOD | {"classes": None}, not_checked=["why"]),
            "order of the classes is not known (why)",
        ),
        (Behaviour(images=10, **GOOD | {"sums": 1e-3}), "does not sum to 1"),
        (Behaviour(images=10, **GOOD | {"judged": 0.05}), "differs from what was judged (by 0.05)"),
        (Behaviour(images=10, **GOOD | {"batch": 0.01}), "depend on the other images of a batch"),
        (Behaviour(images=10, **GOOD | {"classes": 0.01}), "depend on the order of the classes"),
        (Behaviour(images=10, **GOOD, gpu=0.05), "a GPU and the CPU differ"),
    ],
)
def test_each_fault_rejects(found: Behaviour | None, why: str) -> None:
    decision = decided(found)
    assert not decision.accepted
    assert why in decision.reasons[0]
