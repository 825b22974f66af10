"""How a candidate behaves as it would be served: what is measured, and what of it speaks against it.

Imports nothing heavy.
"""

from dataclasses import dataclass
from typing import Literal

from clinprompt.records import RecordPart


class Timing(RecordPart):
    """How the time that one image takes is measured.

    Attributes:
        requests: how many images are asked for, one after the other; a few before them are not counted.
        device: what the model computes on.
        threads: with how many of the CPU its process computes.
    """

    requests: int
    device: Literal["cpu", "cuda"]
    threads: int


class Latency(Timing):
    """What was measured so: the quartiles of the milliseconds from an image's encoded bytes to its probabilities.

    Attributes:
        on: the processor's name, or the GPU's.
    """

    low: float
    median: float
    high: float
    on: str


@dataclass(frozen=True)
class Trial:
    """What a candidate is tried out for.

    Attributes:
        images: on how many validation images its behaviour is looked at; 0: it is not.
        timings: without repetitions.
        packed: whether it is asked how large the payload is.
    """

    images: int = 0
    timings: tuple[Timing, ...] = ()
    packed: bool = False

    def __or__(self, other: "Trial") -> "Trial":
        """Both in one."""
        more = tuple(timing for timing in other.timings if timing not in self.timings)
        return Trial(max(self.images, other.images), self.timings + more, self.packed or other.packed)

    def __bool__(self) -> bool:
        """Whether it asks for anything."""
        return self.images > 0 or bool(self.timings) or self.packed

    @property
    def shown(self) -> int:
        """How many images it takes."""
        return max(self.images, *(timing.requests for timing in self.timings), 0)


class Behaviour(RecordPart):
    """Differences are the largest ones of a probability, over `images` validation images; 0: nobody asked for them.

    Attributes:
        problem: why it gave no probabilities from its payload alone; what follows is None then.
        sums: of a row's sum from 1.
        judged: between what is served and what the gate judges.
        batch: between a batch, and the same images one by one and in another order.
        classes: between the model and one with its classes in another order.
        flipped: share of the images of which a small change of brightness, contrast or gamma changes the class.
        gpu: between a GPU and the CPU.
        not_checked: what was not, and why.
        latencies: of those that were asked for what could be measured.
        payload_bytes: the size of the payload, without descriptions.
    """

    images: int
    problem: str | None = None
    sums: float | None = None
    judged: float | None = None
    batch: float | None = None
    classes: float | None = None
    flipped: float | None = None
    gpu: float | None = None
    not_checked: list[str] = []
    latencies: list[Latency] = []
    payload_bytes: int | None = None

    def faults(self, tolerance: float) -> list[str]:
        """What may not be, in words; differences count above the tolerance.

        Two devices, and cached features of half the precision, round in other ways: there it is ten times as much.
        """
        if self.problem is not None:
            return [self.problem]
        limits = {
            "a row of probabilities does not sum to 1": (self.sums, 1e-6),
            "what is served differs from what was judged": (self.judged, 10 * tolerance),
            "probabilities depend on the other images of a batch": (self.batch, tolerance),
            "probabilities depend on the order of the classes": (self.classes, tolerance),
            "a GPU and the CPU differ": (self.gpu, 10 * tolerance),
        }
        return [f"{what} (by {by:.2g})" for what, (by, most) in limits.items() if by is not None and by > most]
