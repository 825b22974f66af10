"""What a test set can tell of a challenger beside a champion, and how that is said. Imports nothing heavy."""

from clinprompt.evaluation.patients import Unit
from clinprompt.records import RecordPart

# With which an equal model is to pass, where a test set is said to support a margin, or a better one, where it is said
# to show a difference.
POWER = 0.8


class Design(RecordPart):
    """The power of the test that a challenger is not worse than the champion by a margin.

    Attributes:
        patients: in the test split.
        disagreement: the share of its images that one of the two models classifies rightly and the other wrongly.
        margin: by how much worse the challenger may be.
        error: the standard error of the difference.
        power: the probability that an equal model passes.
        supported: the smallest margin with which an equal model passes with the probability `POWER`.
        needed: how many patients `margin` needs for that; None: no number is enough.
        unit: what the patients are called.
    """

    patients: int
    disagreement: float
    margin: float
    error: float
    power: float
    supported: float
    needed: int | None
    unit: Unit = "patients"

    @property
    def feasible(self) -> bool:
        """Whether the test set supports the margin."""
        return self.supported <= self.margin

    @property
    def sentence(self) -> str:
        """What the test set supports, in words."""
        can = f"{self.patients:,} test {self.unit} support a margin of about {points(self.supported)}"
        if self.feasible:
            return f"{can}, and an equal model passes with a probability of {self.power:.2f}"
        if self.needed is None:
            return f"{can}; no number of {self.unit} supports a margin of 0 for an equal model"
        return f"{can}; a margin of {points(self.margin)} needs about {rounded(self.needed):,} {self.unit}"


class Superiority(RecordPart):
    """The power of the test that a challenger is better than another model.

    Attributes:
        patients, disagreement, error, unit: as in `Design`.
        by: more than by how much it must be better.
        power: the probability that an equal model passes, which is an error here.
        shown: the smallest difference with which a better model passes with the probability `POWER`.
        found: the difference that was found.
        needed: how many patients a model that is better by that needs for it; None: no number is enough.
    """

    patients: int
    disagreement: float
    by: float
    error: float
    power: float
    shown: float
    found: float
    needed: int | None
    unit: Unit = "patients"

    @property
    def sentence(self) -> str:
        """What the test set can show, in words."""
        can = f"{self.patients:,} test {self.unit} show a difference of about {points(self.shown)}"
        if self.needed is None or self.found >= self.shown:
            return can
        return f"{can}; one of {points(self.found)}, as was found, needs about {rounded(self.needed):,} {self.unit}"


def points(share: float) -> str:
    """A share in percentage points, as "8.1 points"."""
    return (
        "1 point" if 100 * share == 1 else f"{100 * share:.2g} points" if share < 0.1 else f"{100 * share:.0f} points"
    )


def rounded(count: int) -> int:
    """A number with two digits that count."""
    return count if count < 100 else int(float(f"{count:.2g}"))
