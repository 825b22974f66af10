"""How far the validation predictions of a model that was trained again are from those that the gate judged.

For models that were trained on a GPU, whose bytes are not promised to come out the same.
"""

from collections.abc import Sequence
from pathlib import Path

from clinprompt.errors import InputCorrupt
from clinprompt.evaluation.decision import ChosenCandidate, DecisionRecord
from clinprompt.files import sha256_file
from clinprompt.records import RecordPart


class Agreement(RecordPart):
    """What was compared of two models, and how much it differed.

    Attributes:
        images: of the validation split.
        largest_difference: of a probability, of any class.
        tolerance: what was allowed then.
        devices: on which the first and the second one were trained.
        second: the digest of the second one.
    """

    images: int
    largest_difference: float
    tolerance: float
    devices: list[str]
    second: str

    def is_within(self, tolerance: float | None) -> bool:
        """Whether it is no more than is allowed now."""
        return tolerance is not None and self.largest_difference <= tolerance


def check_judged(table: Path, decision: DecisionRecord, chosen: ChosenCandidate) -> None:
    """Whether a table is the one that the gate judged.

    Raises:
        InputCorrupt: it is another one.
    """
    if not table.is_file() or sha256_file(table) != decision.inputs.predictions.get(chosen.folder):
        raise InputCorrupt(f"{table} is not what the gate judged of {chosen.folder}; run `dvc repro`.")


def difference(first: tuple[Path, Sequence[str]], second: tuple[Path, Sequence[str]]) -> tuple[int, float]:
    """How many validation images both tell of, and the largest difference of a probability, to three digits.

    Args:
        first, second: a model's `predictions.parquet`, and its classes.

    Raises:
        InputMissing, InputCorrupt: a table is missing or damaged, or they tell of different classes or images.
    """
    import numpy as np

    from clinprompt.evaluation.table import read_predictions

    values = []
    for table, classes in (first, second):
        frame, _ = read_predictions(table, tuple(classes))
        rows = frame[frame["split"] == "val"].set_index("id").sort_index()
        values.append(rows[[f"p_{name}" for name in classes]])
    before, after = values
    if list(before.columns) != list(after.columns) or list(before.index) != list(after.index) or before.empty:
        raise InputCorrupt(f"{first[0]} and the second training's predictions are of different images or classes.")
    apart = np.abs(before.to_numpy() - after.to_numpy()).max()
    return len(before), float(f"{apart:.3g}")
