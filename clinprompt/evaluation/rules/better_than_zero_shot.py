"""A tuned model must be better than the same backbone without any tuning."""

from typing import ClassVar, Literal

from clinprompt.evaluation.intervals import DECIMALS
from clinprompt.evaluation.paired import compare
from clinprompt.evaluation.rules import Check, Context, Rule, register
from clinprompt.schema import Fraction

ZERO_SHOT = "zero_shot"


@register("better_than_zero_shot")
class BetterThanZeroShot(Rule):
    """The lower end of challenger minus zero-shot must be above `by`, on the metric `gate.select_by`.

    Does not apply where no zero-shot model is among the candidates, nor where the challenger is one.
    """

    needs: ClassVar[Literal["champion", "zero_shot"] | None] = "zero_shot"
    by: Fraction = 0.0

    def check(self, context: Context) -> Check | None:
        """Compare with the first zero-shot candidate on the same test images."""
        if (context.challenger.method or context.challenger.id.name) == ZERO_SHOT:
            return None
        others = [c for c in context.candidates if (c.method or c.id.name) == ZERO_SHOT and c.test is not None]
        if not others or others[0].test is None:
            return None
        metric, bound = context.metric, round(self.by, DECIMALS)
        found = compare(others[0].test, context.test, metric, context.intervals).difference
        what, good = f"{metric} minus that of {others[0].name} on the test split", "so tuning was worth it"
        return self.judged(context, metric, what, found, bound, "above", good)

    def explain(self) -> str:
        """What is asked for."""
        more = f" by more than {self.by:g}" if self.by else ""
        return (
            f"a tuned challenger is better than zero-shot{more} on the same test images, where that competes, by the "
            f"lower end of the difference's interval"
        )
