"""The decision: may the best candidate replace the champion? Whatever is missing or undefined counts against it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from clinprompt.evaluation.contenders import Candidate, Incumbent, Slices
from clinprompt.evaluation.cross_checks import cross_checks
from clinprompt.evaluation.decision import CrossCheck
from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.intervals import Intervals, estimate_all
from clinprompt.evaluation.paired import same_images
from clinprompt.evaluation.rules import Check, Context, Rule


@dataclass(frozen=True)
class Plan:
    """What was written down before anything was measured: how the challenger is picked, and what it must reach.

    Attributes:
        intervals: of the metrics that are told; the rules' own follow from `alpha`.
    """

    select_by: str
    rules: Sequence[Rule]
    alpha: float = 0.025
    fewest: int = 1
    intervals: Intervals = field(default_factory=Intervals)


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
    cross_checks: list[CrossCheck] = field(default_factory=list)


def decide(
    candidates: list[Candidate], champion: Incumbent | None, plan: Plan, slices: Slices | None = None
) -> Decision:
    """Pick the challenger on the validation split, then hold it to the rules on the test split.

    Those that could not be trained are left out of it, and named among the reasons.
    """
    missing = {c.name: c.not_trained for c in candidates if c.not_trained is not None}
    decision = _decide([c for c in candidates if c.not_trained is None], champion, plan, slices or Slices())
    reasons = decision.reasons + [f"{name} was not trained: {why}" for name, why in missing.items()]
    return replace(decision, reasons=reasons, not_trained=missing)


def _decide(candidates: list[Candidate], champion: Incumbent | None, plan: Plan, slices: Slices) -> Decision:
    problems = {c.name: _problem(c, candidates[0]) for c in candidates}
    sound = [c for c in candidates if problems[c.name] is None]
    val = {c.name: estimate_all(c.val, plan.intervals).overall for c in sound if c.val}
    test = {c.name: estimate_all(c.test, plan.intervals).overall for c in sound if c.test}
    for name, metrics in val.items():
        if metrics[plan.select_by].value is None:
            problems[name] = f"{plan.select_by} on the validation split is undefined: {metrics[plan.select_by].reason}"
    reasons = [f"{name}: {problem}" for name, problem in problems.items() if problem]
    if reasons or not candidates:
        return Decision(False, reasons or ["there are no candidates"], None, [], val, test)
    challenger = min(sound, key=lambda c: (-(val[c.name][plan.select_by].value or 0.0), c.id))
    context = Context(
        challenger=challenger,
        champion=champion,
        candidates=sound,
        metric=plan.select_by,
        alpha=plan.alpha,
        fewest=plan.fewest,
        bins=plan.intervals.bins,
        slices=slices,
    )
    checks = [check for rule in plan.rules if (check := rule.check(context)) is not None]
    others = cross_checks(champion.test, context.test) if champion else []
    failed = [f"{check.candidate}: {check.says}" for check in checks if not check.passed]
    if failed:
        return Decision(False, failed, None, checks, val, test, cross_checks=others)
    best = f"{challenger.name} has the best {plan.select_by} on the validation split"
    return Decision(True, [best, *(check.says for check in checks)], challenger, checks, val, test, cross_checks=others)


def _problem(candidate: Candidate, first: Candidate) -> str | None:
    if candidate.problem is not None:
        return candidate.problem
    if candidate.val is None or candidate.test is None or candidate.model_digest is None:
        return "there are no predictions"
    for split, mine, theirs in (("val", candidate.val, first.val), ("test", candidate.test, first.test)):
        if not np.isfinite(mine.probabilities).all():
            return f"there are probabilities that are no numbers on the {split} split"
        if theirs is not None and not same_images(mine, theirs):
            return f"it was measured on other {split} images than {first.name}"
    return None
