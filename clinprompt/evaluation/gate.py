"""The decision: may the best candidate replace the champion? Whatever is missing or undefined counts against it."""

from dataclasses import dataclass, field, replace

import numpy as np

from clinprompt.contract.candidates import CandidateId
from clinprompt.evaluation.estimate import Estimate, estimate_text
from clinprompt.evaluation.intervals import DECIMALS, Intervals, estimate, estimate_all, importance, left_out
from clinprompt.evaluation.metrics import measure
from clinprompt.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Rules:
    """What a candidate must reach.

    Attributes:
        select_by: the metric that picks the challenger on the validation split and that it is compared by.
        floors: metric -> the least that the lower end of its interval on the test split may be.
        margin: how much worse than the champion the challenger may be.
    """

    select_by: str
    floors: dict[str, float]
    margin: float
    intervals: Intervals


@dataclass(frozen=True)
class Candidate:
    """A listed candidate.

    `problem` says why it can't be judged, though it should be, and then `val` and `test` may be None; `not_trained` why
    it could not be trained, so that the others are judged without it.
    """

    id: CandidateId
    model_digest: str | None
    val: Predictions | None
    test: Predictions | None
    problem: str | None = None
    not_trained: str | None = None

    @property
    def name(self) -> str:
        """The candidate's folder."""
        return str(self.id)


@dataclass(frozen=True)
class Incumbent:
    """The registry's champion; `problem` says why it has no predictions on the test images."""

    name: str
    version: str
    model_digest: str
    test: Predictions | None
    problem: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Challenger minus champion on the same images."""

    metric: str
    difference: Estimate


@dataclass(frozen=True)
class Check:
    """One requirement: passed when `low` reaches `bound`."""

    candidate: str
    name: str
    estimate: Estimate
    bound: float
    passed: bool


@dataclass(frozen=True)
class Decision:
    """The verdict with all that it rests on; `val` and `test` hold the metrics of each candidate that has them, and
    `not_trained` why the others have none."""

    accepted: bool
    reasons: list[str]
    chosen: Candidate | None
    checks: list[Check] = field(default_factory=list)
    val: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    test: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    not_trained: dict[str, str] = field(default_factory=dict)


def decide(candidates: list[Candidate], champion: Incumbent | None, rules: Rules) -> Decision:
    """Pick the challenger on the validation split, then hold it to the floors and against the champion on the test.

    Those that could not be trained are left out of it, and named among the reasons.
    """
    missing = {c.name: c.not_trained for c in candidates if c.not_trained is not None}
    decision = _decide([c for c in candidates if c.not_trained is None], champion, rules)
    reasons = decision.reasons + [f"{name} was not trained: {why}" for name, why in missing.items()]
    return replace(decision, reasons=reasons, not_trained=missing)


def _decide(candidates: list[Candidate], champion: Incumbent | None, rules: Rules) -> Decision:
    problems = {c.name: _problem(c, candidates[0]) for c in candidates}
    sound = [c for c in candidates if problems[c.name] is None]
    val = {c.name: estimate_all(c.val, rules.intervals).overall for c in sound if c.val}
    test = {c.name: estimate_all(c.test, rules.intervals).overall for c in sound if c.test}
    for name, metrics in val.items():
        if metrics[rules.select_by].value is None:
            problems[name] = (
                f"{rules.select_by} on the validation split is undefined: {metrics[rules.select_by].reason}"
            )
    reasons = [f"{name}: {problem}" for name, problem in problems.items() if problem]
    if reasons or not candidates:
        return Decision(False, reasons or ["there are no candidates"], None, [], val, test)
    challenger = min(sound, key=lambda c: (-(val[c.name][rules.select_by].value or 0.0), c.id))
    checks = [
        _floor(challenger, test[challenger.name][metric], metric, bound) for metric, bound in rules.floors.items()
    ]
    if champion is not None:
        checks.append(_not_worse(challenger, champion, rules))
    reasons = [_failure(check) for check in checks if not check.passed]
    if reasons:
        return Decision(False, reasons, None, checks, val, test)
    best = f"{challenger.name} has the best {rules.select_by} on the validation split"
    why = [best, *(_success(check) for check in checks)]
    return Decision(True, why, challenger, checks, val, test)


def compare(champion: Predictions, challenger: Predictions, metric: str, intervals: Intervals) -> Comparison:
    """The difference of a metric on the same images, with a paired interval over patients.

    Pairs: of both models the same patients are left out.
    """
    if not _same_images(champion, challenger):
        return Comparison(metric, _undefined("the two were not measured on the same images"))
    values = [_point(model, metric, intervals) for model in (champion, challenger)]
    plan, of_champion = left_out(champion, intervals)
    _, of_challenger = left_out(challenger, intervals)
    without = of_challenger.overall[metric] - of_champion.overall[metric]
    spread = plan.spread(without, importance(metric, champion))
    why = f"{metric} is undefined for one of the two"
    difference = estimate(values[1] - values[0], spread, intervals.confidence, why=why, bounds=None)
    return Comparison(metric, difference)


def _problem(candidate: Candidate, first: Candidate) -> str | None:
    if candidate.problem is not None:
        return candidate.problem
    if candidate.val is None or candidate.test is None or candidate.model_digest is None:
        return "there are no predictions"
    for split, mine, theirs in (("val", candidate.val, first.val), ("test", candidate.test, first.test)):
        if not np.isfinite(mine.probabilities).all():
            return f"there are probabilities that are no numbers on the {split} split"
        if theirs is not None and not _same_images(mine, theirs):
            return f"it was measured on other {split} images than {first.name}"
    return None


def _same_images(a: Predictions, b: Predictions) -> bool:
    same = a.classes == b.classes and np.array_equal(a.labels, b.labels)
    return same and np.array_equal(a.patients, b.patients)


def _point(predictions: Predictions, metric: str, intervals: Intervals) -> float:
    ones = np.ones((1, len(predictions)))
    return float(measure(predictions.labels, predictions.probabilities, ones, intervals.bins).overall[metric][0])


def _floor(candidate: Candidate, value: Estimate, metric: str, bound: float) -> Check:
    return Check(candidate.name, f"floor.{metric}", value, bound, value.low is not None and value.low >= bound)


def _not_worse(challenger: Candidate, champion: Incumbent, rules: Rules) -> Check:
    bound = round(-rules.margin, DECIMALS)
    if champion.test is None or challenger.test is None:
        difference = _undefined(champion.problem or "the champion has no predictions on these images")
    else:
        difference = compare(champion.test, challenger.test, rules.select_by, rules.intervals).difference
    passed = difference.low is not None and difference.low >= bound
    return Check(challenger.name, f"not_worse_than_champion.{rules.select_by}", difference, bound, passed)


def _failure(check: Check) -> str:
    kind, metric = check.name.split(".")
    what = f"{metric} on the test split" if kind == "floor" else f"{metric} minus the champion's on the test split"
    if check.estimate.low is None:
        return f"{check.candidate}: {what} has no interval: {check.estimate.reason}"
    return (
        f"{check.candidate}: {what} is {estimate_text(check.estimate)}; its lower end must be at least {check.bound:g}"
    )


def _success(check: Check) -> str:
    kind, metric = check.name.split(".")
    if kind == "floor":
        return f"its {metric} on the test split is {estimate_text(check.estimate)}, above the floor {check.bound:g}"
    return f"its {metric} minus the champion's is {estimate_text(check.estimate)}, not below {check.bound:g}"


def _undefined(reason: str) -> Estimate:
    return Estimate(value=None, low=None, high=None, reason=reason)
