"""MedMNIST `.npz` files (Yang et al., 2023): arrays `train_images`, `train_labels` and so on; 2D sets, one label."""

import functools
import io
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from clinprompt.data.card import Card
from clinprompt.data.layouts.base import ImageRecord, Layout, Listing
from clinprompt.errors import DataRejected, InputCorrupt
from clinprompt.schema import Section


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

_DEFLATE_AT_BEST = 1032  # bytes from one
# What zipfile and NumPy raise on broken files: of zip versions and compressions that they don't know, of encrypted
# members, of headers that are no Python literal.
_BROKEN = (
    ValueError, OSError, EOFError, AttributeError, KeyError, IndexError, TypeError, OverflowError, SyntaxError,
    NotImplementedError, RuntimeError, MemoryError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _load(file: Path, key: str) -> np.ndarray:
    if not file.is_file():
        raise InputCorrupt(f"{file} is not an .npz file, but a folder, a pipe or a device.")
    try:
        with zipfile.ZipFile(file) as archive:
            names = sorted(name.removesuffix(".npy") for name in archive.namelist())
            if key not in names:
                raise DataRejected(f"{file}: there is no array {key!r}; it holds {', '.join(names)}.")
            return _array(archive, archive.getinfo(f"{key}.npy"))
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise InputCorrupt(f"{file} is not a readable .npz file of plain arrays ({reason}).") from None


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array; memory is taken for it only when what the zip file holds can fill it."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} is compressed in a way that NumPy does not write")
    if info.file_size > _DEFLATE_AT_BEST * info.compress_size + 1:
        raise ValueError(f"{info.filename} can't hold {info.file_size} bytes")
    with archive.open(info) as member:
        shape, dtype = _header(member)
        promised = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or member.tell() + promised != info.file_size:
            raise ValueError(f"the header of {info.filename} promises {dtype} {list(shape)}, which it does not hold")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
        version
    )
    if read_header is None:
        raise ValueError(f"an array of NumPy's format {version[0]}.{version[1]}")
    shape, _, dtype = read_header(member)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, dtype


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
