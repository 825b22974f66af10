"""What near-duplicates are told by: a small grey picture of each image, and a perceptual hash."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clinprompt.data import codecs
from clinprompt.data.near_duplicates.registration import SIDE

_THREADS = 4


@dataclass(frozen=True)
class Fingerprints:
    """Of n different images that can be read and are not of one grey level.

    Attributes:
        ids: sorted.
        hashes: uint64 [n], perceptual hashes.
        thumbnails: uint8 [n,64,64].
        small: bool [n], whether an image is smaller than its thumbnail.
    """

    ids: list[str]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    small: NDArray[np.bool_]


def thumbnail(grey: Image.Image) -> NDArray[np.uint8]:
    """An 8-bit grey image as uint8 [64,64]."""
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def is_small(width: int, height: int) -> bool:
    """Whether an image has fewer pixels on a side than its thumbnail, so that it has no details to compare."""
    return min(width, height) < SIDE


def fingerprints(images: dict[str, Path], intensity: codecs.Intensity) -> Fingerprints:
    """The fingerprints of image files by id; those that can't be read or are constant are left out."""
    ids = sorted(images)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda image: _fingerprint(images[image], intensity), ids))
    return collect([(i, *print_) for i, print_ in zip(ids, found, strict=True) if print_ is not None])


def collect(rows: Sequence[tuple[str, int, NDArray[np.uint8], bool]]) -> Fingerprints:
    """Fingerprints from rows of id, hash, thumbnail and whether the image is small."""
    thumbnails = np.stack([row[2] for row in rows]) if rows else np.empty((0, SIDE, SIDE), np.uint8)
    hashes = np.array([row[1] for row in rows], dtype=np.uint64)
    return Fingerprints([row[0] for row in rows], hashes, thumbnails, np.array([row[3] for row in rows], dtype=bool))


def _fingerprint(file: Path, intensity: codecs.Intensity) -> tuple[int, NDArray[np.uint8], bool] | None:
    try:
        grey = Image.fromarray(codecs.decode(file.read_bytes(), intensity)).convert("L")
    except ValueError:
        return None  # validation names it
    low, high = grey.getextrema()
    if low == high:
        return None
    return int(str(imagehash.phash(grey)), 16), thumbnail(grey), is_small(*grey.size)
