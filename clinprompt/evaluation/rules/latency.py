"""A served model must answer fast enough."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from clinprompt.evaluation.behaviour import Behaviour, Latency, Timing, Trial
from clinprompt.evaluation.estimate import Ends, Estimate
from clinprompt.evaluation.paired import undefined
from clinprompt.evaluation.rules import Check, Context, Rule, register
from clinprompt.schema import Count

_TRIES = 3  # before a promotion


@register("latency")
class LatencyRule(Rule):
    """Of single images, three of four must take at most `at_most_ms` milliseconds, from encoded bytes to probabilities.

    A machine that does other work makes a model slower, and nothing makes it faster. So before a promotion the best of
    a few measurements counts, and of that the median: a model that never reaches the ceiling does not pass, whatever
    its record says, and one that the gate let through is not refused for a moment's load.

    Attributes:
        requests: how many images are timed, one after the other.
        device: what it computes on; there must be a GPU for `cuda`.
        threads: of the CPU. Written down rather than found, so that the gate and the promoter measure the same.
    """

    ends: ClassVar[Ends] = "quartiles"
    at_most_ms: Annotated[float, Field(gt=0)]
    requests: Annotated[int, Field(ge=5, le=1000)] = 30
    device: Literal["cpu", "cuda"] = "cpu"
    threads: Count = 1

    @property
    def trial(self) -> Trial:
        """What is timed."""
        return Trial(timings=(self._timing,))

    def check(self, context: Context) -> Check:
        """Hold the challenger to the ceiling."""
        challenger = context.challenger
        if challenger.probe is None:
            return self._said(context, undefined("nobody timed it"), "how long an image takes was not measured")
        found = challenger.probe(challenger, self.trial)
        latency = self._of(found)
        if latency is None:
            why = self._lacking(found)
            return self._said(context, undefined(why), f"how long an image takes is not known: {why}")
        estimate = Estimate(value=latency.median, low=latency.low, high=latency.high)
        return self._said(context, estimate, _told(latency), passed=latency.high <= self.at_most_ms)

    def still_fails(self, found: Behaviour, again: Callable[[Trial], Behaviour]) -> str | None:
        """Not one of a few measurements has its median within the ceiling."""
        measured: list[Latency] = []
        while len(measured) < _TRIES:
            found = again(self.trial) if measured else found
            latency = self._of(found)
            if latency is None:
                return f"how long an image takes is not known: {self._lacking(found)}"
            if latency.median <= self.at_most_ms:
                return None
            measured.append(latency)
        fastest = min(measured, key=lambda one: one.median)
        return f"at best of {_TRIES} measurements {_told(fastest)}; the median must be at most {self.at_most_ms:g} ms"

    def explain(self) -> str:
        """What is asked for."""
        return (
            f"three of four single images take it at most {self.at_most_ms:g} ms on {_where(self._timing)}, from "
            "encoded bytes to probabilities, in a clean process"
        )

    @property
    def _timing(self) -> Timing:
        return Timing(requests=self.requests, device=self.device, threads=self.threads)

    def _of(self, found: Behaviour) -> Latency | None:
        return next((one for one in found.latencies if _key(one) == _key(self._timing)), None)

    def _lacking(self, found: Behaviour) -> str:
        return found.problem or ("there is no GPU" if self.device == "cuda" else "it was not timed")

    def _said(self, context: Context, estimate: Estimate, says: str, *, passed: bool = False) -> Check:
        ceiling = f"at most {self.at_most_ms:g} ms"
        told = f"{says}; {ceiling} is asked for" if passed else f"{says}; three of four must take {ceiling}"
        change = None if passed else "a faster model or machine"
        name = context.challenger.name
        return Check(
            self.kind, self.kind, name, estimate, self.at_most_ms, "at_most", passed, told,
            change=change, ends=self.ends,
        )  # fmt: skip


def _key(timing: Timing) -> tuple[int, str, int]:
    return timing.requests, timing.device, timing.threads


def _where(timing: Timing) -> str:
    threads = f"{timing.threads} thread{'s' if timing.threads > 1 else ''}"
    return f"the {'CPU' if timing.device == 'cpu' else 'GPU'} with {threads}"


def _told(latency: Latency) -> str:
    return (
        f"an image takes {latency.median:g} ms (median of {latency.requests}), and three of four at most "
        f"{latency.high:g} ms, on {_where(latency)} ({latency.on})"
    )
