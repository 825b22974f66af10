"""Whether an interval passes a bound, and what would change that."""

from clinprompt.evaluation.design import rounded
from clinprompt.evaluation.estimate import Estimate, Side
from clinprompt.evaluation.predictions import Predictions


def reaches(estimate: Estimate, bound: float, side: Side) -> bool:
    """Whether an interval's end is on the right side of a bound; never where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return False
    if side == "at_most":
        return estimate.high <= bound
    return estimate.low > bound if side == "above" else estimate.low >= bound


def more_patients(estimate: Estimate, bound: float, side: Side, on: Predictions) -> str | None:
    """With how many patients the same value would pass, as an interval shrinks with the root of their number."""
    if estimate.value is None:
        return None
    if estimate.low is None or estimate.high is None:
        return f"more test {on.unit}"
    reach = estimate.high - estimate.value if side == "at_most" else estimate.value - estimate.low
    room = bound - estimate.value if side == "at_most" else estimate.value - bound
    if room <= 0:
        return f"a better model; more test {on.unit} would not do"
    needed = rounded(int(len(set(on.patients)) * (reach / room) ** 2) + 1)
    return f"a better model, or about {needed:,} test {on.unit} with this value"
