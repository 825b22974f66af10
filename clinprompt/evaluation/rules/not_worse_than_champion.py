"""The challenger must not be worse than the champion by more than a margin: a paired test of non-inferiority."""

from dataclasses import replace
from typing import ClassVar, Literal

from clinprompt.evaluation.intervals import DECIMALS
from clinprompt.evaluation.paired import compare, design, undefined
from clinprompt.evaluation.rules import Apart, Check, Context, Rule, register


@register("not_worse_than_champion")
class NotWorse(Rule):
    """The lower end of challenger minus champion must be at least -`margin`, on the metric `gate.select_by`.

    Does not apply where there is no champion.
    """

    needs: ClassVar[Literal["champion", "zero_shot"] | None] = "champion"
    margin: Apart

    def check(self, context: Context) -> Check | None:
        """Compare on the same test images, and say what the test set can support."""
        champion, metric = context.champion, context.metric
        if champion is None:
            return None
        bound, what = round(-self.margin, DECIMALS), f"{metric} minus the champion's on the test split"
        if champion.test is None:
            why = undefined(champion.problem or "the champion has no predictions on these images")
            return self.judged(context, metric, what, why, bound, "at_least", "", beside="champion")
        same = champion.model_digest == context.challenger.model_digest
        found = compare(champion.test, context.test, metric, context.intervals, same_model=same)
        plan = None if same else design(champion.test, context.test, found, self.margin, context.alpha)
        good, bad, change = "which is the champion itself" if same else f"not below {bound:g}", "", None
        high = found.difference.high
        alike = "though right on the same images, " if plan is not None and plan.disagreement == 0 else ""
        if high is not None and high < 0:
            bad, change = ": it is worse than the champion, which stays", "a better model"
        elif plan is not None and not plan.feasible:
            bad = f": {alike}neither shown worse nor within the margin, so the champion stays; {plan.sentence}"
            change = f"a better model, a test split that supports the margin, or a wider margin: {plan.sentence}"
        elif plan is not None:
            bad = f": {alike}neither shown worse nor within the margin, so the champion stays"
        check = self.judged(
            context, metric, what, found.difference, bound, "at_least", good, bad, beside="champion", design=plan
        )
        return check if check.passed or change is None else replace(check, change=change)

    def explain(self) -> str:
        """What is asked for."""
        return (
            "on the same test images the challenger is not worse than the champion by more than "
            f"{self.margin:g} of the metric that picks it, by the lower end of the difference's interval"
        )
