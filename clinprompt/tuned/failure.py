"""`failed.json`: why a candidate could not be trained. It stands in the folder of its model, instead of the model."""

from pathlib import Path
from typing import ClassVar

from clinprompt.records import Record
from clinprompt.tuned.artifact import RECORD

FAILED = "failed.json"


class TrainingFailure(Record):
    """The whole of a `failed.json`; the reason is a sentence without a full stop."""

    STAGE: ClassVar[str] = "tune"

    dataset: str
    candidate: str
    method: str
    seed: int
    reason: str


def failure_in(folder: Path) -> TrainingFailure | None:
    """Why the folder holds no model, where its training failed; None otherwise.

    Raises:
        InputCorrupt: the file can't be read.
    """
    path = folder / FAILED
    return TrainingFailure.read(path) if path.is_file() and not (folder / RECORD).exists() else None
