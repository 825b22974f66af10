"""A tuned model must not be too large to ship."""

from typing import Annotated, ClassVar

from pydantic import Field

from clinprompt.evaluation.estimate import Ends, Estimate
from clinprompt.evaluation.paired import undefined
from clinprompt.evaluation.rules import Check, Context, Rule, register


@register("model_size")
class ModelSize(Rule):
    """The files of the tuned model must take at most `at_most_mb` megabytes; the backbone is not counted."""

    ends: ClassVar[Ends] = "value"
    at_most_mb: Annotated[float, Field(gt=0)]

    def check(self, context: Context) -> Check:
        """Hold the challenger to the ceiling."""
        size = context.challenger.bytes
        if size is None:
            found = undefined("its size is not known")
        else:
            megabytes = round(size / 1e6, 6)
            found = Estimate(value=megabytes, low=megabytes, high=megabytes)
        what, good = "size in MB", f"below the ceiling {self.at_most_mb:g}"
        return self.judged(context, "", what, found, self.at_most_mb, "at_most", good, change="a smaller model")

    def explain(self) -> str:
        """What is asked for."""
        return f"the tuned model's files take at most {self.at_most_mb:g} MB"
