"""What was fitted on the validation split for the served model, and how that held on the test split.

It stands in a candidate's metrics, and as `calibration.json` in the payload, whose script reads it. Imports nothing
heavy.
"""

from typing import Any

from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.patients import Unit
from clinprompt.records import RecordPart

FORMAT = 1


class Covered(RecordPart):
    """How often the sets of some test images hold the true class.

    Attributes:
        n: images.
        band: where the coverage of that many patients would lie in 95 % of cases, were they exchangeable with the
            calibration patients.
        size: mean number of classes in a set.
    """

    n: int
    coverage: Estimate
    band: list[float] | None
    size: float

    @property
    def is_below(self) -> bool:
        """Whether the coverage is lower than exchangeable patients would give."""
        return self.band is not None and self.coverage.value is not None and self.coverage.value < self.band[0]


class SetCoverage(RecordPart):
    """That of the test split, of each class and of each slice, as "site=A"; and the shares of sets with one class and
    with none."""

    overall: Covered
    per_class: dict[str, Covered]
    slices: dict[str, Covered]
    single: float
    empty: float


class PredictionSets(RecordPart):
    """Classes whose probability reaches their threshold.

    Attributes:
        coverage: how often a set is to hold the true class.
        per_class: whether that is so in each class.
        thresholds: by class; None where the calibration split is too small.
        reason: why there are no thresholds, or none for each class.
    """

    coverage: float
    per_class: bool
    thresholds: dict[str, float] | None
    reason: str | None
    test: SetCoverage | None


class AbstentionTest(RecordPart):
    """Of the test images: the share that is answered, and the error among these."""

    answered: Estimate
    error: Estimate


class AbstentionThreshold(RecordPart):
    """The probability of the predicted class below which the model abstains; None, and why, where none could be shown
    to answer at most a share `error` of the patients wrongly."""

    error: float
    confidence: float
    threshold: float | None
    reason: str | None
    test: AbstentionTest | None


class FittedOn(RecordPart):
    """The calibration images, and the patients behind them: where none is known each image counts as one, and `unit`
    says so."""

    split: str
    images: int
    patients: int
    unit: Unit = "patients"

    @property
    def says(self) -> str:
        """The same in words, as "66 images of 33 patients"."""
        return f"{self.images} images of {'unknown' if self.unit == 'images' else self.patients} patients"


class Calibration(RecordPart):
    """All of it. `temperature` divides the logits; it is 1 where `temperature_reason` says why none was fitted."""

    fitted_on: FittedOn
    temperature: float
    temperature_reason: str | None
    prediction_sets: PredictionSets
    abstention: AbstentionThreshold

    @property
    def not_exchangeable(self) -> list[str]:
        """The classes in which the test split is covered less often than exchangeable patients would be, or "all"."""
        test = self.prediction_sets.test
        if test is None:
            return []
        classes = [name for name, covered in test.per_class.items() if covered.is_below]
        return classes or (["all"] if test.overall.is_below else [])

    def to_json(self) -> dict[str, Any]:
        """As plain values, with what is None."""
        return {"format": FORMAT, **self.model_dump()}
