"""A folder of DICOM pictures, for the tests of ingest."""

import numpy as np
from drawn_dicom import picture, written
from ingest_workspace import Workspace

SHARES = {"rule": "stratified", "fractions": {"train": 0.5, "val": 0.25, "test": 0.25}}


def pictures(place: Workspace) -> None:
    """Eight pictures of two classes, straight in the classes' folders."""
    for number in range(8):
        file = place.data / ("glioma" if number % 2 else "none") / f"{number}.dcm"
        file.parent.mkdir(exist_ok=True)
        dataset = picture(np.random.default_rng(number).integers(0, 4096, (8, 8), np.uint16), BitsStored=12)
        dataset.SeriesInstanceUID = f"1.2.3.{number}"
        dataset.PixelPaddingValue = 4095
        file.write_bytes(written(dataset))
    place.card(split=SHARES)
