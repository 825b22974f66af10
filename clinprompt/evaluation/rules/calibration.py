"""The calibration error on the test split must not be too large."""

from clinprompt.evaluation.rules import Check, Context, Rule, register
from clinprompt.schema import Fraction


@register("calibration")
class Calibration(Rule):
    """The upper end of the expected calibration error's interval must be at most `at_most`."""

    at_most: Fraction

    def check(self, context: Context) -> Check:
        """Hold the challenger to the ceiling."""
        good, found = f"below the ceiling {self.at_most:g}", context.estimate("ece")
        return self.judged(context, "ece", "ece on the test split", found, self.at_most, "at_most", good)

    def explain(self) -> str:
        """What is asked for."""
        return (
            f"the expected calibration error on the test split, by the upper end of its interval, is at most "
            f"{self.at_most:g}"
        )
