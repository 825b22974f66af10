"""What near-duplicates are told by: a small grey picture and a perceptual hash; of a volume, a coarse volume."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clinprompt.data import codecs
from clinprompt.data.near_duplicates.registration import SIDE
from clinprompt.data.near_duplicates.volumes import Floats, VolumePrints, collect_volumes, volume_print

_THREADS = 4


@dataclass(frozen=True)
class Fingerprints:
    """Of n different pictures, and of volumes, that can be read and are not of one grey level.

    Attributes:
        ids: sorted.
        hashes: uint64 [n], perceptual hashes.
        thumbnails: uint8 [n,64,64].
        small: bool [n], whether an image is smaller than its thumbnail.
        volumes: of the volumes, which are compared with each other alone.
    """

    ids: list[str]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    small: NDArray[np.bool_]
    volumes: VolumePrints = field(default_factory=lambda: collect_volumes([]))


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
    pictures = [(i, *print_) for i, print_ in zip(ids, found, strict=True) if isinstance(print_, tuple)]
    return collect(pictures, [(i, p) for i, p in zip(ids, found, strict=True) if isinstance(p, np.ndarray)])


def collect(
    rows: Sequence[tuple[str, int, NDArray[np.uint8], bool]], volumes: Sequence[tuple[str, Floats]] = ()
) -> Fingerprints:
    """Fingerprints from rows of id, hash, thumbnail and whether the image is small; of volumes, id and coarse one."""
    thumbnails = np.stack([row[2] for row in rows]) if rows else np.empty((0, SIDE, SIDE), np.uint8)
    hashes = np.array([row[1] for row in rows], dtype=np.uint64)
    small = np.array([row[3] for row in rows], dtype=bool)
    return Fingerprints([row[0] for row in rows], hashes, thumbnails, small, collect_volumes(volumes))


def _fingerprint(file: Path, intensity: codecs.Intensity) -> tuple[int, NDArray[np.uint8], bool] | Floats | None:
    try:
        image = codecs.decode_image(codecs.read_file(file), intensity)
    except ValueError:
        return None  # validation names it
    if image.values.min() == image.values.max():
        return None
    if len(image.shape) == 3:
        return volume_print(image.values[..., 0])
    grey = Image.fromarray(image.picture()).convert("L")
    low, high = grey.getextrema()
    if low == high:
        return None
    return int(str(imagehash.phash(grey)), 16), thumbnail(grey), is_small(*grey.size)
