"""One requirement of a candidate, as `decision.json` holds it. Imports nothing heavy."""

from typing import Literal

from clinprompt.evaluation.design import Design, Superiority
from clinprompt.evaluation.estimate import Ends, Estimate, Side, end_text


class RecordedCheck(Estimate):
    """One requirement of a candidate: what was estimated, and what the interval's end must reach.

    Attributes:
        rule, name: the kind of the rule of params.yaml, and that with what it was applied to, as "floor.auroc".
        bound, side: what the lower end must at least be or be above, or the upper end at most.
        says: the finding in words.
        change: what would change the outcome.
        beside: "champion" where the candidate was compared with that, which is not in the run's files.
        design: what the test set can tell of a challenger beside the champion or the other model.
        ends: what `low` and `high` are.
    """

    rule: str
    candidate: str
    name: str
    bound: float
    side: Side
    passed: bool
    says: str
    change: str | None = None
    beside: Literal["champion"] | None = None
    design: Design | Superiority | None = None
    ends: Ends = "bounds"

    @property
    def is_consistent(self) -> bool:
        """Whether its outcome follows from its own numbers."""
        if self.low is None or self.high is None:
            return not self.passed
        if self.side == "at_most":
            return self.passed == (self.high <= self.bound)
        return self.passed == (self.low > self.bound if self.side == "above" else self.low >= self.bound)

    @property
    def requirement(self) -> str:
        """What is asked of the interval, as "lower end at least 0.500"."""
        return f"{end_text(self.side, self.ends)} {self.side.replace('_', ' ')} {self.bound:.3f}"
