"""A metric on the test split must reach a floor."""

from clinprompt.evaluation.rules import Check, Context, MetricFloor, register


@register("floor")
class Floor(MetricFloor):
    """The lower end of the metric's interval must be at least `at_least`."""

    def check(self, context: Context) -> Check:
        """Hold the challenger to the floor."""
        good = f"above the floor {self.at_least:g}"
        what = f"{self.metric} on the test split"
        found = context.estimate(self.metric)
        return self.judged(context, self.metric, what, found, self.at_least, "at_least", good)

    def explain(self) -> str:
        """What is asked for."""
        return f"{self.metric} on the test split, by the lower end of its interval, is at least {self.at_least:g}"
