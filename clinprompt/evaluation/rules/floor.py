"""A metric on the test split must reach a floor."""

from pydantic import model_validator

from clinprompt.evaluation.rules import Check, Context, Rule, register
from clinprompt.params import NEGATIVE, Metric
from clinprompt.schema import key_errors


@register("floor")
class Floor(Rule):
    """The lower end of the metric's interval must be at least `at_least`."""

    metric: Metric
    at_least: float

    @model_validator(mode="after")
    def _can_be_reached(self) -> "Floor":
        lowest = -1 if self.metric in NEGATIVE else 0
        if not lowest <= self.at_least <= 1:
            raise key_errors([f"at_least: must be from {lowest} to 1, found {self.at_least}"])
        return self

    def check(self, context: Context) -> Check:
        """Hold the challenger to the floor."""
        good = f"above the floor {self.at_least:g}"
        what = f"{self.metric} on the test split"
        found = context.estimate(self.metric)
        return self.judged(context, self.metric, what, found, self.at_least, "at_least", good)

    def explain(self) -> str:
        """What is asked for."""
        return f"{self.metric} on the test split, by the lower end of its interval, is at least {self.at_least:g}"
