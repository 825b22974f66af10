"""The challenger must be better than the champion: a newcomer that is but equal is not worth a change."""

from typing import ClassVar, Literal

from clinprompt.evaluation.paired import compare, undefined
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
            found = undefined(champion.problem or "the champion has no predictions on these images")
        else:
            found = compare(champion.test, context.test, metric, context.intervals).difference
        worse = found.high is not None and found.high < 0
        equal = ": it is worse" if worse else ": it is not shown better, so the champion stays, by this rule"
        good = "so it is better than the champion"
        return self.judged(context, metric, what, found, self.by, "above", good, equal, beside="champion")

    def explain(self) -> str:
        """What is asked for."""
        more = f" by more than {self.by:g}" if self.by else ""
        return (
            f"on the same test images the challenger is better than the champion{more}, by the lower end of the "
            f"difference's interval"
        )
