"""A tuned model must be better than the same backbone without any tuning."""

from typing import ClassVar, Literal

from clinprompt.evaluation.contenders import Candidate
from clinprompt.evaluation.intervals import DECIMALS
from clinprompt.evaluation.paired import compare, superiority, undefined
from clinprompt.evaluation.rules import Apart, Check, Context, Rule, register

ZERO_SHOT = "zero_shot"


@register("better_than_zero_shot")
class BetterThanZeroShot(Rule):
    """The lower end of challenger minus zero-shot must be above `by`, on the metric `gate.select_by`.

    Does not apply where the challenger is a zero-shot model; nor where none is listed and there is a champion, whose
    protection by another rule is enough for a renewal. One that is listed and was not trained, or that is not listed
    for the first champion, is missing, and the challenger does not pass.
    """

    needs: ClassVar[Literal["champion", "zero_shot"] | None] = "zero_shot"
    by: Apart = 0.0

    def check(self, context: Context) -> Check | None:
        """Compare with the first zero-shot candidate on the same test images."""
        other = next((c for c in context.candidates if _is_zero_shot(c)), None)
        if _is_zero_shot(context.challenger) or (other is None and context.champion is not None):
            return None
        metric, bound = context.metric, round(self.by, DECIMALS)
        what = f"{metric} minus that of {other.name if other else ZERO_SHOT} on the test split"
        if other is None or other.test is None:
            why, change = _missing(other)
            return self.judged(context, metric, what, undefined(why), bound, "above", "", change=change)
        found = compare(other.test, context.test, metric, context.intervals)
        plan = superiority(other.test, context.test, found, self.by, context.alpha)
        bad = f": it is not shown better; {plan.sentence}" if plan is not None else ""
        good = "so tuning was worth it"
        return self.judged(context, metric, what, found.difference, bound, "above", good, bad, design=plan)

    def explain(self) -> str:
        """What is asked for."""
        more = f" by more than {self.by:g}" if self.by else ""
        return (
            f"a tuned challenger is better than zero-shot{more} on the same test images, by the lower end of the "
            "difference's interval; only in place of a champion it need not compete"
        )


def _is_zero_shot(candidate: Candidate) -> bool:
    return (candidate.method or candidate.id.name) == ZERO_SHOT


def _missing(other: Candidate | None) -> tuple[str, str]:
    """Why there is nothing to compare with, and what to do about it."""
    if other is None:
        why = "it is not among the candidates, and there is no champion yet, so nothing says that tuning was worth it"
        return why, "zero_shot among candidates.methods of params.yaml: it takes no training"
    why = f"{other.name} was not trained, so nothing says that tuning was worth it"
    return why, f"a {other.name} that is trained; the reasons say what kept it from that"
