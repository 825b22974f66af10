"""The metrics file of a candidate, as `dvc metrics` shows it. Imports nothing heavy."""

from typing import ClassVar

from clinprompt.evaluation.calibration_record import Calibration
from clinprompt.evaluation.estimate import Estimate
from clinprompt.evaluation.patients import PatientCount
from clinprompt.records import Record, RecordPart


class _Estimates(RecordPart):
    """Estimates among other facts."""

    @property
    def estimates(self) -> dict[str, Estimate]:
        """By the metrics' names."""
        return {name: value for name, value in self if isinstance(value, Estimate)}


class ClassMetrics(_Estimates):
    """One class against the others, on its `n` test images and all others."""

    n: int
    auroc: Estimate
    f1: Estimate
    precision: Estimate
    sensitivity: Estimate
    specificity: Estimate


class SliceMetrics(_Estimates):
    """A part of the test split: `n` images of `patients` patients, None where no patient is known; `small` marks one
    with too few images."""

    n: int
    patients: int | None
    small: bool
    accuracy: Estimate
    auroc: Estimate
    balanced_accuracy: Estimate


class ScoreMetrics(_Estimates):
    """Estimates of a score on the `n` images of `patients` patients whose score is known; of `missing` it is not.

    Attributes:
        name, unit: the score's.
        slices: the same of parts, by column and value, as "site=A".
    """

    name: str
    unit: str = ""
    n: int
    patients: int | None
    small: bool
    mae: Estimate
    rmse: Estimate
    bias: Estimate
    correlation: Estimate
    slope: Estimate
    missing: int = 0
    slices: dict[str, "ScoreMetrics"] = {}


class NovelMetrics(_Estimates):
    """Answers to the `n` test images of novel classes among the names of these; and the harmonic mean of the balanced
    accuracy there and on the test split."""

    n: int
    patients: int | None
    balanced_accuracy: Estimate
    harmonic_mean: Estimate


class Metrics(Record):
    """The whole file: overall metrics of two splits; those of each class and each slice on the test split.

    Attributes:
        patients: of all images of the accepted data, training split included.
        slices: by column and value, as "site=A".
        not_sliced: the columns that were asked for and left out, and why.
        score: how well the score of the card's record is estimated on the test split; None where it is not.
        calibration: what was fitted on the validation split for the served model; None before it was.
        novel, not_novel: where the card has novel classes, what was measured on them, or why nothing could be.
    """

    FORMAT: ClassVar[int] = 3
    STAGE: ClassVar[str] = "evaluate"

    dataset: str
    candidate: str
    method: str
    seed: int
    model_digest: str
    patients: PatientCount
    val: dict[str, Estimate]
    test: dict[str, Estimate]
    per_class: dict[str, ClassMetrics]
    slices: dict[str, SliceMetrics]
    not_sliced: dict[str, str] = {}
    score: ScoreMetrics | None = None
    calibration: Calibration | None = None
    novel: NovelMetrics | None = None
    not_novel: str | None = None
