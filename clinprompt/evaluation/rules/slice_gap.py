"""A model must do about as well on one part of the test split as on another."""

import numpy as np
from pydantic import Field

from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.intervals import estimate_of, importance
from clinprompt.evaluation.metrics import Floats, measure
from clinprompt.evaluation.paired import undefined
from clinprompt.evaluation.predictions import Predictions
from clinprompt.evaluation.rules import Check, Context, Rule, register
from clinprompt.evaluation.slices import counted
from clinprompt.params import Metric
from clinprompt.schema import Fraction


@register("slice_gap")
class SliceGap(Rule):
    """Between the best and the worst slice by each of `columns`, the upper end of the metric's gap must be at most
    `at_most`.

    Which are the best and the worst is read off the same images, so the gap is somewhat larger than on new ones: an
    error on the safe side. Slices count as in `slice_floor`.
    """

    metric: Metric
    at_most: Fraction
    columns: list[str] = Field(min_length=1)

    def check(self, context: Context) -> Check:
        """Hold the challenger to the largest gap of a column."""
        gaps: dict[str, Estimate] = {}
        problems, small = [], []
        for column in self.columns:
            parts, too_small, problem = counted(context.test, context.slices, [column], context.fewest)
            small += too_small
            if problem is None and len(parts) < 2:
                problem = f"by {column} fewer than two slices have enough {context.test.unit} to be compared"
            if problem is not None:
                problems.append(problem)
                continue
            by_value = {name: self._value(part, context.bins) for name, part in parts.items()}
            best, worst = max(by_value, key=lambda n: by_value[n]), min(by_value, key=lambda n: by_value[n])
            gaps[f"{best} and {worst}"] = self._gap(context, column, best, worst)
        name = max(gaps, key=lambda n: np.inf if gaps[n].high is None else float(gaps[n].high or 0.0), default="")
        found = undefined("; ".join(problems)) if problems else gaps[name]
        what = f"gap of {self.metric} between {name}" if name and not problems else f"gap of {self.metric} of slices"
        told = f" (too few {context.test.unit} to tell: {', '.join(small)})" if small else ""
        good = f"below the ceiling {self.at_most:g}{told}"
        return self.judged(context, self.metric, what, found, self.at_most, "at_most", good, told)

    def _value(self, part: Predictions, bins: int) -> float:
        ones = np.ones((1, len(part)))
        return float(measure(part.labels, part.probabilities, ones, bins).overall[self.metric][0])

    def _gap(self, context: Context, column: str, best: str, worst: str) -> Estimate:
        p, masks = context.test, context.slices.masks[column]
        high, low = (masks[name.partition("=")[2]] for name in (best, worst))

        def gap(weights: Floats) -> Floats:
            values = [
                measure(p.labels[mask], p.probabilities[mask], weights[:, mask], context.bins).overall[self.metric]
                for mask in (high, low)
            ]
            return values[0] - values[1]

        return estimate_of(
            gap, p.patients, p.labels, len(p.classes), intervals=context.intervals, why=f"{self.metric} is undefined",
            weight=importance(self.metric, p), bounds=None, unit=p.unit,
        )  # fmt: skip

    def explain(self) -> str:
        """What is asked for."""
        return (
            f"{self.metric} of the best and the worst slice by {', '.join(self.columns)}, by the upper end of the "
            f"difference's interval, are at most {self.at_most:g} apart"
        )
