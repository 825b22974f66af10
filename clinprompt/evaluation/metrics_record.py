"""The metrics file of a candidate, as `dvc metrics` shows it. Imports nothing heavy."""

from typing import ClassVar

from clinprompt.evaluation.estimate import Estimate
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
    """A part of the test split: `n` images of `patients` patients; `small` marks one with too few images."""

    n: int
    patients: int
    small: bool
    accuracy: Estimate
    auroc: Estimate
    balanced_accuracy: Estimate


class Metrics(Record):
    """The whole file: overall metrics of two splits; those of each class and each slice on the test split.

    Attributes:
        slices: by column and value, as "site=A".
    """

    FORMAT: ClassVar[int] = 2
    STAGE: ClassVar[str] = "evaluate"

    dataset: str
    candidate: str
    method: str
    seed: int
    model_digest: str
    val: dict[str, Estimate]
    test: dict[str, Estimate]
    per_class: dict[str, ClassMetrics]
    slices: dict[str, SliceMetrics]
