"""The decision: may the best candidate replace the champion? Whatever is missing or undefined counts against it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from clinprompt.evaluation.budget import HeldOut, share
from clinprompt.evaluation.contenders import Candidate, Incumbent, Slices
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
    """The verdict with all that it rests on.

    `val` and `test` hold the metrics of each candidate that has them, and `not_trained` why the others have none;
    `not_eligible` which of them a rule can't judge, and why; `held_out` says which decision on the test split it is.
    """

    accepted: bool
    reasons: list[str]
    chosen: Candidate | None
    checks: list[Check] = field(default_factory=list)
    val: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    test: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    not_trained: dict[str, str] = field(default_factory=dict)
    not_eligible: dict[str, str] = field(default_factory=dict)
    cross_checks: list[CrossCheck] = field(default_factory=list)
    held_out: HeldOut | None = None


Count = Callable[[Candidate], HeldOut | None]


def decide(
    candidates: list[Candidate],
    champion: Incumbent | None,
    plan: Plan,
    slices: Slices | None = None,
    count: Count | None = None,
) -> Decision:
    """Pick the challenger on the validation split, then hold it to the rules on the test split.

    Those that could not be trained, or that a rule can't judge, are not picked, and are named among the reasons.

    Args:
        count: says of the challenger which decision on the test split it is for, before anything is looked at there;
            without it each has the whole alpha.
    """
    missing = {c.name: c.not_trained for c in candidates if c.not_trained is not None}
    trained = [c for c in candidates if c.not_trained is None]
    barred = {c.name: why for c in trained if (why := _not_eligible(c, plan.rules)) is not None}
    counted = count or (lambda challenger: None)
    decision = _decide(trained, candidates, barred, champion, plan, slices or Slices(), counted)
    reasons = decision.reasons + [f"{name} can't be the challenger: {why}" for name, why in barred.items()]
    reasons += [f"{name} was not trained: {why}" for name, why in missing.items()]
    return replace(decision, reasons=reasons, not_trained=missing, not_eligible=barred)


def _decide(
    candidates: list[Candidate],
    listed: Sequence[Candidate],
    barred: Mapping[str, str],
    champion: Incumbent | None,
    plan: Plan,
    slices: Slices,
    count: Count,
) -> Decision:
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
    eligible = [c for c in sound if c.name not in barred]
    if not eligible:
        return Decision(
            False, ["no candidate can be held to all rules, so the test split decides nothing"], None, [], val, test
        )
    challenger = min(eligible, key=lambda c: (-(val[c.name][plan.select_by].value or 0.0), c.id))
    held_out = count(challenger)
    if held_out is not None and held_out.spent:
        return Decision(False, [held_out.sentence], None, [], val, test, held_out=held_out)
    context = Context(
        challenger=challenger,
        champion=champion,
        candidates=listed,
        metric=plan.select_by,
        alpha=plan.alpha if held_out is None else held_out.alpha,
        fewest=plan.fewest,
        bins=plan.intervals.bins,
        slices=slices,
    )
    first = replace(context, alpha=max(context.alpha, share(plan.alpha, 1)))
    checks = [check for rule in plan.rules if (check := _check(rule, context, first)) is not None]
    others = []
    if champion:
        from clinprompt.evaluation.cross_checks import cross_checks  # scipy.stats, which takes long to import

        others = cross_checks(champion.test, context.test)
    failed = [f"{check.candidate}: {check.says}" for check in checks if not check.passed]
    which = [] if held_out is None else [held_out.sentence]
    if failed:
        return Decision(False, failed + which, None, checks, val, test, cross_checks=others, held_out=held_out)
    among = " of those that can be held to all rules" if barred else ""
    best = f"{challenger.name} has the best {plan.select_by} on the validation split{among}"
    said = [best, *(check.says for check in checks), *which]
    return Decision(True, said, challenger, checks, val, test, cross_checks=others, held_out=held_out)


def _not_eligible(candidate: Candidate, rules: Sequence[Rule]) -> str | None:
    """Why rules can't judge a candidate, whatever its answers are; None where all can."""
    found = [
        f"{rule.kind} can't be judged, as {why}" for rule in rules if (why := rule.cannot_judge(candidate.ability))
    ]
    return "; ".join(found) or None


def _check(rule: Rule, context: Context, first: Context) -> Check | None:
    """Hold the challenger to a rule; what would change a no may be a test split on which nothing was decided yet."""
    found = rule.check(context)
    if found is None or found.passed or context.alpha == first.alpha:
        return found
    fresh = rule.check(first)
    if fresh is None or not fresh.passed:
        return found
    other = f"a new test split: as the first decision on one, at alpha {first.alpha:.3g}, the same numbers pass"
    return replace(found, change=other if found.change is None else f"{other}; or {found.change}")


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
