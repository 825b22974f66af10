"""How an image must be turned to stand upright, as EXIF and XMP tell it. What can't be read there means: it stands."""

import re

import numpy as np

from clinprompt.data.codecs.tags import read_directories

TAG = 0x0112
_UPRIGHT = 1
_XMP = re.compile(rb'tiff:Orientation(?:="|>)\s*([1-8])')


def orientation_of(exif: bytes | None, xmp: bytes | None = None) -> int:
    """The orientation (1…8) in an EXIF block, or else in an XMP text; 1 where neither tells one, or both are broken."""
    if exif:
        try:
            [first, *_] = read_directories(exif.removeprefix(b"Exif\0\0"), most=1)
            [number, *_] = first.numbers(TAG)
        except ValueError:
            pass
        else:
            return number if 1 <= number <= 8 else _UPRIGHT
    match = _XMP.search(xmp) if xmp else None
    return int(match[1]) if match else _UPRIGHT


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels [H, W, …] upright, by the number that EXIF and TIFF give to an orientation; 1 for unknown ones."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
