"""A metric with its interval, and how both are written. Imports nothing heavy."""

from typing import Literal

from clinprompt.records import RecordPart

Side = Literal["at_least", "above", "at_most"]  # on which an interval must lie of a bound
# What an interval's ends are: one-sided bounds at a test's alpha, quartiles of what was measured, or nothing but the
# value itself, which has no interval.
Ends = Literal["bounds", "quartiles", "value"]


class Estimate(RecordPart):
    """A value and its interval, rounded; None where it is undefined, and then `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


def interval_text(value: float | None, low: float | None, high: float | None, undefined: str = "not defined") -> str:
    """A value with its interval, as "0.912 [0.880, 0.941]"; without one the value alone.

    Args:
        undefined: what stands for a value that is not there.
    """
    if value is None:
        return undefined
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def range_text(estimate: Estimate | None, undefined: str = "") -> str:
    """The interval of an estimate alone, as "0.880 to 0.941"."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return undefined
    return f"{estimate.low:.3f} to {estimate.high:.3f}"


def deviation_text(mean: float, deviation: float | None) -> str:
    """A mean in percent with its deviation, as "91.20 ± 1.05"; the mean alone where there is none."""
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def estimate_text(estimate: Estimate | None, undefined: str = "not defined") -> str:
    """The same of an estimate."""
    if estimate is None:
        return undefined
    return interval_text(estimate.value, estimate.low, estimate.high, undefined)


def end_text(side: Side, ends: Ends) -> str:
    """Which end of an interval is held against a bound, as "upper end"."""
    if ends == "value":
        return "value"
    return f"{'upper' if side == 'at_most' else 'lower'} {'quartile' if ends == 'quartiles' else 'end'}"
