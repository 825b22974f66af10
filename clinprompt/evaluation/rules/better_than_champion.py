"""The challenger must be better than the champion: a newcomer that is but equal is not worth a change."""

from typing import ClassVar, Literal

from clinprompt.evaluation.paired import compare, superiority, undefined
from clinprompt.evaluation.rules import Apart, Check, Context, Rule, register


@register("better_than_champion")
class BetterThanChampion(Rule):
    """The lower end of challenger minus champion must be above `by`, on the metric `gate.select_by`.

    Does not apply where there is no champion, nor to the champion itself.
    """

    needs: ClassVar[Literal["champion", "zero_shot"] | None] = "champion"
    by: Apart = 0.0

    def check(self, context: Context) -> Check | None:
        """Compare on the same test images."""
        champion, metric = context.champion, context.metric
        if champion is None or champion.model_digest == context.challenger.model_digest:
            return None
        what = f"{metric} minus the champion's on the test split"
        if champion.test is None:
            why = undefined(champion.problem or "the champion has no predictions on these images")
            return self.judged(context, metric, what, why, self.by, "above", "", beside="champion")
        found = compare(champion.test, context.test, metric, context.intervals)
        plan = superiority(champion.test, context.test, found, self.by, context.alpha)
        high, bad = found.difference.high, ": it is not shown better, so the champion stays, by this rule"
        if high is not None and high < 0:
            bad = ": it is worse"
        elif plan is not None:
            bad += f"; {plan.sentence}"
        good = "so it is better than the champion"
        return self.judged(
            context, metric, what, found.difference, self.by, "above", good, bad, beside="champion", design=plan
        )

    def explain(self) -> str:
        """What is asked for."""
        more = f" by more than {self.by:g}" if self.by else ""
        return (
            f"on the same test images the challenger is better than the champion{more}, by the lower end of the "
            f"difference's interval"
        )
