"""MedMNIST `.npz` files (Yang et al., 2023): arrays `train_images`, `train_labels` and so on; 2D sets, one label."""

import functools
import io
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from clinprompt.data.card import Card
from clinprompt.data.layouts.base import ImageRecord, Layout, Listing
from clinprompt.errors import DataRejected, InputCorrupt
from clinprompt.schema import Section

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_DEFLATE_AT_MOST = 1100  # how many times its size a stream of zip's deflate can hold
# What zipfile and numpy raise of files that are broken or of a kind that they don't read.
_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    TypeError,
    SyntaxError,
    OverflowError,
    RuntimeError,  # an encrypted file, and NotImplementedError
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


class MedmnistOptions(Section):
    """The layout has no options."""


def read(root: Path, card: Card, options: MedmnistOptions) -> Listing:
    """List the images of the three splits, as `train/00000.png` and so on; `root` is the `.npz` file.

    Raises:
        InputCorrupt: not an `.npz` file, or one that holds Python objects.
        DataRejected: an array is missing or has another shape or type than MedMNIST's.
    """
    records = []
    for split in ("train", "val", "test"):
        images, labels = _load(root, f"{split}_images"), _load(root, f"{split}_labels")
        _check(root, split, images, labels)
        width = max(5, len(str(len(images))))
        for i, label in enumerate(labels.reshape(len(labels))):
            path = f"{split}/{i:0{width}d}.png"
            source = functools.partial(_png, images, i)
            records.append(ImageRecord(path, source, str(int(label)), f"{root.name} {split}_labels[{i}]", split))
    return Listing(records)


LAYOUT = Layout(MedmnistOptions, read)


def _load(file: Path, key: str) -> np.ndarray:
    if not file.is_file():  # reading a pipe would wait for its writer
        raise InputCorrupt(f"{file} is not an .npz file, but a folder, a pipe or a device.")
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if f"{key}.npy" not in names:
                present = ", ".join(sorted(name.removesuffix(".npy") for name in names))
                raise DataRejected(f"{file}: there is no array {key!r}; it holds {present}.")
            _check_size(archive, f"{key}.npy")
            with archive.open(f"{key}.npy") as stream:
                return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputCorrupt(f"{file} is not a readable .npz file of plain arrays ({reason}).") from None


def _check_size(archive: zipfile.ZipFile, name: str) -> None:
    """Raise ValueError where an array's header tells of other data than there is, before memory is asked for."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy does not write")
    if info.file_size > _DEFLATE_AT_MOST * max(info.compress_size, 1):
        raise ValueError(f"{name} is said to hold {info.file_size} bytes in {info.compress_size}")
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{name} is of the version {version}")
        shape, _, dtype = _HEADERS[version](stream)
        there = info.file_size - stream.tell()
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"{name} tells of an array {list(shape)} of {dtype}, but holds {there} bytes")


def _check(file: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    shape = images.shape
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and shape[3] == 3)) or 0 in shape[1:]:
        raise DataRejected(
            f"{file}: {split}_images must be uint8 [N, H, W] or [N, H, W, 3], found {images.dtype} {list(shape)}."
        )
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
        raise DataRejected(
            f"{file}: {split}_labels must be whole numbers, one for each of the {len(images)} images, "
            f"found {labels.dtype} {list(labels.shape)}."
        )


def _png(images: np.ndarray, index: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(images[index]).save(stream, "PNG")
    return stream.getvalue()
