"""What is registered must not be too large to ship."""

from collections.abc import Callable
from typing import Annotated, ClassVar

from pydantic import Field

from clinprompt.evaluation.behaviour import Behaviour, Trial
from clinprompt.evaluation.estimate import Ends, Estimate
from clinprompt.evaluation.paired import undefined
from clinprompt.evaluation.rules import Check, Context, Rule, register


@register("payload_size")
class PayloadSize(Rule):
    """The payload must take at most `at_most_mb` megabytes: the tuned tensors, the code that serves them, and the
    backbone where that is small enough to go along. Descriptions, which some methods read, are not counted.
    """

    ends: ClassVar[Ends] = "value"
    at_most_mb: Annotated[float, Field(gt=0)]

    @property
    def trial(self) -> Trial:
        """The payload is packed; nothing is run."""
        return Trial(packed=True)

    def check(self, context: Context) -> Check:
        """Hold the challenger to the ceiling."""
        challenger = context.challenger
        if challenger.probe is None:
            found = undefined("nobody packed it")
        else:
            size = challenger.probe(challenger, self.trial).payload_bytes
            found = undefined("its size is not known") if size is None else _estimate(size)
        what, good = "payload's size in MB", f"below the ceiling {self.at_most_mb:g}"
        return self.judged(context, "", what, found, self.at_most_mb, "at_most", good, change="a smaller model")

    def still_fails(self, found: Behaviour, again: Callable[[Trial], Behaviour]) -> str | None:
        """It is larger than the ceiling, whatever its record says."""
        size = found.payload_bytes
        if size is not None and size <= self.at_most_mb * 1e6:
            return None
        told = "of unknown size" if size is None else f"of {size / 1e6:g} MB"
        return f"its payload is {told}; it must take at most {self.at_most_mb:g} MB"

    def explain(self) -> str:
        """What is asked for."""
        return f"the payload takes at most {self.at_most_mb:g} MB"


def _estimate(size: int) -> Estimate:
    megabytes = round(size / 1e6, 6)
    return Estimate(value=megabytes, low=megabytes, high=megabytes)
