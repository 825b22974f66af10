"""What a survey is told and what it finds."""

from dataclasses import dataclass, field
from typing import Any

NO_PATIENT = "No patient is known: images of one patient may lie in several splits, and nothing can check it."
BY_STUDY = "No patient is known: images of one study stay together, and two studies of one patient count as two."


@dataclass(frozen=True)
class Answers:
    """What the user has said, so that it is not asked; empty where nothing was said.

    Attributes:
        folders: the pattern of the folders, as `{split}/{class}`.
        patient: "folder", "name", "none", a regular expression with a group, or a table's column.
        exclude: globs of what to leave out.
        keep_masks: whether what looks like masks are images.
        splits: the folders or words of each split.
        series: "slices" or "volume": what a folder with one DICOM series holds.
        table, label: the table's file and the column of its labels.
    """

    folders: str = ""
    patient: str = ""
    exclude: tuple[str, ...] = ()
    keep_masks: bool = False
    splits: dict[str, list[str]] = field(default_factory=dict)
    table: str = ""
    label: str = ""
    series: str = ""


@dataclass(frozen=True)
class Finding:
    """What a dataset is taken for.

    Attributes:
        reader: the card's section of that name.
        labels: what stands for the classes, in order.
        splits: the splits that the dataset tells.
        metadata: the card's section of that name.
        said: sentences for the user: what it is taken for, and what is left out.
    """

    reader: dict[str, Any]
    labels: list[str]
    splits: set[str]
    said: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)
