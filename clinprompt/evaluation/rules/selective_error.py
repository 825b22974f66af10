"""Of the images that a model is surest of, not too many may be classified wrongly."""

from typing import Annotated

import numpy as np
from pydantic import Field

from clinprompt.evaluation.intervals import estimate_of
from clinprompt.evaluation.metrics import Floats
from clinprompt.evaluation.rules import Check, Context, Rule, register
from clinprompt.schema import Fraction


@register("selective_error")
class SelectiveError(Rule):
    """The upper end of the error among the surest share `coverage` of the test images must be at most `at_most`.

    El-Yaniv and Wiener 2010: the selective risk at a coverage. Which images are the surest is taken as given.
    """

    coverage: Annotated[float, Field(gt=0, le=1)]
    at_most: Fraction

    def check(self, context: Context) -> Check:
        """Hold the challenger to the ceiling."""
        p = context.test
        surest = np.argsort(-p.probabilities.max(axis=1, initial=0), kind="stable")
        part = p.where(np.isin(np.arange(len(p)), surest[: max(1, round(self.coverage * len(p)))]))
        wrong = (part.probabilities.argmax(axis=1) != part.labels).astype(np.float64)

        def error(weights: Floats) -> Floats:
            shares: Floats = weights @ wrong / weights.sum(axis=1)
            return shares

        found = estimate_of(
            error, part.patients, part.labels, len(p.classes), intervals=context.intervals, why="there are no images",
            unit=p.unit, mean=True,
        )  # fmt: skip
        what = f"error on the surest {self.coverage:.0%} of the test images"
        good = f"below the ceiling {self.at_most:g}"
        return self.judged(context, f"{self.coverage:g}", what, context.told(found, p), self.at_most, "at_most", good)

    def explain(self) -> str:
        """What is asked for."""
        return (
            f"of the surest {self.coverage:.0%} of the test images at most a share of {self.at_most:g} is classified "
            "wrongly, by the upper end of its interval"
        )
