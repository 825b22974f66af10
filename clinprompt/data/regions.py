"""Regions of images that a dataset marks: labels on the same grid of voxels, kept beside the images' copies.

A model never reads them: they tell how much of what speaks for a class lies where the class shows.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from clinprompt.data.codecs import DecodedImage, decode_image, read_file
from clinprompt.data.layouts import ImageRecord
from clinprompt.errors import InputCorrupt

FOLDER = "regions"  # among the images' copies
_ANY_LABEL = (0.0, 1.0)


def copy_regions(records: Sequence[ImageRecord], ids: Sequence[str], marked: Path, images: Path) -> None:
    """Copy the labels of each image that has some, under the image's id.

    Args:
        marked: the folder that holds the labels under the images' own paths.
    """
    target = images / FOLDER
    target.mkdir()
    for record, image in zip(records, ids, strict=True):
        source = marked / record.path
        if source.is_file():
            shutil.copyfile(source, target / image)


def read_regions(images: Path, image: str) -> DecodedImage | None:
    """255 where an image's voxels lie in a region, else 0; None where nothing is marked.

    Raises:
        InputCorrupt: the labels can't be read.
    """
    path = images / FOLDER / image
    if not path.is_file():
        return None
    try:
        return decode_image(read_file(path), _ANY_LABEL)
    except ValueError as error:
        raise InputCorrupt(f"{path}: the regions of an image can't be read: {error}.") from None
