"""How a candidate behaves as it would be served: what is measured, and what of it speaks against it.

Imports nothing heavy.
"""

from clinprompt.records import RecordPart


class Behaviour(RecordPart):
    """Differences are the largest ones of a probability, over `images` validation images.

    Attributes:
        problem: why it gave no probabilities from its payload alone; what follows is None then.
        sums: of a row's sum from 1.
        judged: between what is served and what the gate judges.
        batch: between a batch, and the same images one by one and in another order.
        classes: between the model and one with its classes in another order.
        flipped: share of the images of which a small change of brightness, contrast or gamma changes the class.
        gpu: between a GPU and the CPU.
        not_checked: what was not, and why.
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
