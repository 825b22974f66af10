"""A dataset as stages work with it: the manifest's rows joined with the image files and the card's classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinprompt.data.card import Card
from clinprompt.data.formats import DICOM_FILE
from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import sha256_bytes

Item = tuple[str, Path]  # an image's id, the SHA-256 of its file's bytes, and the file


@dataclass(frozen=True)
class Dataset:
    """A card, its manifest and the folder with the images.

    Attributes:
        rows: the manifest's.
    """

    card: Card
    rows: pd.DataFrame
    images: Path

    @classmethod
    def open(cls, card: Path, manifest: Path, images: Path) -> "Dataset":
        """Read the card and the manifest.

        Raises:
            InputMissing, InputCorrupt, BadParams: one of them is not there or not what it should be.
        """
        return cls(load_card(card), read_manifest(manifest), images)

    def split(self, name: str) -> pd.DataFrame:
        """The rows of "train", "val" or "test"."""
        return self.rows[self.rows["split"] == name]

    @property
    def has_dicom(self) -> bool:
        """Whether some of the images are DICOM pictures."""
        return bool(self.rows["file"].str.endswith(DICOM_FILE.suffixes[0]).any())

    def items(self, rows: pd.DataFrame) -> list[Item]:
        """Id and file of each row's image."""
        return items(rows, self.images)

    def labels(self, rows: pd.DataFrame) -> NDArray[np.int64]:
        """Class indices [n] of the rows, in the card's order."""
        return class_indices(rows["label"], self.card.class_ids)


def items(rows: pd.DataFrame, images: Path) -> list[Item]:
    """Id and file of each row's image, below the folder `images`."""
    return [(digest, images / file) for digest, file in zip(rows["id"], rows["file"], strict=True)]


def class_indices(labels: pd.Series, classes: Sequence[str]) -> NDArray[np.int64]:
    """The place [n] of each label in `classes`; KeyError for a label that is none of them."""
    index = {class_id: place for place, class_id in enumerate(classes)}
    return np.array([index[label] for label in labels], dtype=np.int64)


def read_image(item: Item) -> bytes:
    """The bytes of an image's file, which its id is the SHA-256 of.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: its bytes are others.
    """
    digest, path = item
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputMissing(f"The image {path} does not exist; run the ingest stage again (dvc repro).") from None
    if sha256_bytes(data) != digest:
        raise InputCorrupt(
            f"The image {path} is not the one that the manifest lists, by its SHA-256; run "
            "`python -m components.mend && dvc repro`, which removes it and makes it again."
        )
    return data
