"""A candidate must still tell classes apart that it was not tuned for, without losing those that it was."""

from typing import ClassVar, Literal

from clinprompt.evaluation.contenders import Ability
from clinprompt.evaluation.novel import harmonic_estimate, joined
from clinprompt.evaluation.rules import Check, Context, Rule, register
from clinprompt.schema import Fraction


@register("novel_harmonic_mean")
class NovelHarmonicMean(Rule):
    """The lower end of the harmonic mean's interval must be at least `at_least`: that of the balanced accuracy on the
    test images of the card's classes, and on those of its novel classes among the names of these.

    Does not apply where the card has no novel classes; a candidate that can't answer to them is no challenger.
    """

    needs: ClassVar[Literal["champion", "zero_shot", "novel_classes"] | None] = "novel_classes"
    at_least: Fraction

    def cannot_judge(self, ability: Ability) -> str | None:
        """Why it has no answers to the novel classes."""
        return None if ability.not_novel is None else f"it has no answers to the novel classes: {ability.not_novel}"

    def check(self, context: Context) -> Check | None:
        """Hold the challenger to the floor."""
        novel = context.challenger.novel
        what, good = (
            "harmonic mean of base and novel classes on their test images",
            f"above the floor {self.at_least:g}",
        )
        if novel is None:
            return None
        both = joined(context.test, novel)
        found = context.told(harmonic_estimate(context.test, novel, context.intervals), both)
        return self.judged(context, "", what, found, self.at_least, "at_least", good, on=both)

    def explain(self) -> str:
        """What is asked for."""
        return (
            "where the dataset has novel classes, the harmonic mean of the balanced accuracy on its classes and on "
            f"these, by the lower end of its interval, is at least {self.at_least:g}"
        )
