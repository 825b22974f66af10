"""A metric must reach a floor on each part of the test split, as on each site."""

from pydantic import Field

from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.intervals import estimate_all
from clinprompt.evaluation.paired import undefined
from clinprompt.evaluation.rules import Check, Context, MetricFloor, register
from clinprompt.evaluation.slices import counted


@register("slice_floor")
class SliceFloor(MetricFloor):
    """On each slice by `columns` the lower end of the metric's interval must be at least `at_least`.

    A slice with too few patients of a class does not count, and is named; a column that is not known, or of which no
    slice counts, does not pass.
    """

    columns: list[str] = Field(min_length=1)

    def check(self, context: Context) -> Check:
        """Hold the challenger to the floor on the slice where it does worst."""
        parts, small, problem = counted(context.test, context.slices, self.columns, context.fewest)
        found: dict[str, Estimate] = {
            name: estimate_all(part, context.intervals).overall[self.metric] for name, part in parts.items()
        }
        worst, lowest = "", undefined(problem or "")
        if problem is None:
            worst = min(found, key=lambda name: (-1.0 if found[name].low is None else found[name].low or 0.0, name))
            lowest = found[worst]
        what = f"{self.metric} on the slice {worst}" if worst else f"{self.metric} on slices"
        told = f" (too few {context.test.unit} to tell: {', '.join(small)})" if small else ""
        good = f"the worst of {len(found)} slices, above the floor {self.at_least:g}{told}"
        return self.judged(context, self.metric, what, lowest, self.at_least, "at_least", good, told)

    def explain(self) -> str:
        """What is asked for."""
        return (
            f"{self.metric} on each slice by {', '.join(self.columns)}, by the lower end of its interval, is at least "
            f"{self.at_least:g}"
        )
