"""What the formats share: the decoded image, the limits, transparency, and pixels of more than 8 bits."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from clinprompt.data.formats import Format

MAX_PIXELS = 100_000_000
MAX_BYTES = 8 * MAX_PIXELS  # of a file, and of what a compressed one unpacks to: the widest numbers have 8 bytes
MAX_ASPECT = 100  # longer side to shorter: resizing the shorter side makes the longer one longer, too
AUTO_PERCENTILES = (0.5, 99.5)
VOLUME = "volume"  # tells the preprocessing of volumes, in a record, from that of pictures
_BLOCK = 1 << 22  # values that are widened at once

Intensity = str | list[float] | tuple[float, float]


@dataclass(frozen=True)
class DecodedImage:
    """An image as all but codecs and preprocessing should see it: something with a shape, to be handed on.

    Attributes:
        values: uint8 [*shape, channels], upright.
        spacing: millimetres from one value to the next along each axis of the shape; None where the file does not tell.
        orientation: of a volume, where the axes in the file pointed before it was turned, as "LPS"; None where the file
            does not tell, and the axes were taken for right, anterior, superior.
    """

    values: np.ndarray
    spacing: tuple[float, ...] | None = None
    orientation: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns; of a volume, slices before them."""
        return self.values.shape[:-1]

    def picture(self) -> np.ndarray:
        """The image for people to look at: uint8 [H, W, 3]; of a volume its three middle planes."""
        if len(self.shape) == 2:
            values = self.values
        else:
            values = three_planes(self.values[..., 0], self.spacing or (1, 1, 1))[..., None]
        return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def three_planes(
    values: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1), at: tuple[int, ...] | None = None
) -> np.ndarray:
    """Axial, coronal and sagittal planes [H, W] of a volume [slices, rows, columns], side by side, head and front up.

    Args:
        spacing: millimetres from voxel to voxel along each axis; planes are stretched so that a millimetre is as long
            in each direction.
        at: the voxel that the planes go through; None: the middle.
    """
    z, y, x = at or tuple(side // 2 for side in values.shape)
    steps = [side / min(spacing) for side in spacing]
    parts = [(values[z], steps[1], steps[2]), (values[:, y], steps[0], steps[2]), (values[:, :, x], steps[0], steps[1])]
    planes = [_stretched(plane[::-1], down, across) for plane, down, across in parts]
    tall = max(len(plane) for plane in planes)
    above = [(tall - len(plane)) // 2 for plane in planes]
    padded = [np.pad(plane, ((top, tall - len(plane) - top), (0, 0))) for plane, top in zip(planes, above, strict=True)]
    return np.concatenate(padded, axis=1)


def _stretched(plane: np.ndarray, down: float, across: float) -> np.ndarray:
    """Each row and column as often as its length asks for."""
    rows, columns = (
        np.minimum((np.arange(max(1, round(side * step))) / step).astype(int), side - 1)
        for side, step in zip(plane.shape, (down, across), strict=True)
    )
    return plane[np.ix_(rows, columns)]


@dataclass(frozen=True)
class Measured:
    """Grey pixels in the units of what was measured, and how their file wants them shown.

    Attributes:
        values: numbers [H, W].
        full: the lowest and the highest number that the file could hold.
        known: bool [H, W], False where the file has filled up its rows; those pixels are shown black.
        window: the lowest and the highest number to tell apart; None where the file does not say.
        table: makes uint8 of the values, as the file's own table has it, and goes before a window; None: it has none.
        is_8_bit: the stored values have 8 bits or fewer, which are kept unless a window is given.
        inverted: low numbers are bright.
    """

    values: np.ndarray
    full: tuple[float, float]
    known: np.ndarray
    window: tuple[float, float] | None = None
    table: Callable[[np.ndarray], np.ndarray] | None = None
    is_8_bit: bool = False
    inverted: bool = False

    def shown(self, intensity: Intensity) -> np.ndarray:
        """The picture uint8 [H, W, 1]; "auto" is the file's own table or window where it has one.

        Raises:
            ValueError: see `to_8_bits`.
        """
        if intensity == "auto" and self.table is not None:
            grey = self.table(self.values)
        else:
            grey = to_8_bits(self.values, self._range(intensity))
        grey = 255 - grey if self.inverted else grey
        return np.where(self.known, grey, np.uint8(0))[:, :, None]

    def _range(self, intensity: Intensity) -> Intensity:
        """What is black and what is white."""
        if intensity == "full" or (intensity == "auto" and self.is_8_bit and self.window is None):
            return self.full
        if intensity != "auto":
            return intensity
        if self.window is not None:
            return self.window
        if not self.known.any():
            return intensity
        low, high = np.percentile(self.values[self.known], AUTO_PERCENTILES)
        return float(low), float(high)


@dataclass(frozen=True)
class Codec:
    """One format.

    Attributes:
        format: its name, suffixes and signature.
        probe: width and height in pixels, as stored, the mode, and of a volume its depth, from the header alone.
        read: the pixels, upright, transparent ones laid over black: [H, W], [H, W, 1] or [H, W, 3] of any type, or
            as `Measured`; of a volume [D, H, W, 1] with its spacing.

    Both functions raise ValueError with the reason where they refuse a file, and what their library raises of a broken
    one. `read` is called only for a size that `check_size` accepts. A library gets only those parts of a file that the
    pixels depend on: whatever else a file holds can't condemn the image, and costs no work.
    """

    format: Format
    probe: Callable[[bytes], tuple[int, int, str] | tuple[int, int, str, int]]
    read: Callable[[bytes], np.ndarray | DecodedImage | Measured]


class Header(NamedTuple):
    """What a file says of itself before its pixels are read: sides as stored, before any turning, and the mode."""

    width: int
    height: int
    mode: str
    depth: int = 1


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS, depth: int = 1) -> None:
    """Refuse sizes, before anything is decoded, that would take much memory or time here or when resized.

    Raises:
        ValueError: no pixel, more than `max_pixels`, or one side more than `MAX_ASPECT` times the other.
    """
    refuse_empty(width, height)
    if depth > 1:
        if width * height * depth > max_pixels:
            size = f"{width} x {height} x {depth}"
            raise ValueError(f"the volume has {size} voxels, more than the limit of {max_pixels}")
        return
    if width * height > max_pixels:
        raise ValueError(f"the image has {width} x {height} pixels, more than the limit of {max_pixels}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"the image has {width} x {height} pixels: one side is more than {MAX_ASPECT} times the other, "
            "which no backbone can be shown"
        )


def check_bytes(size: int) -> None:
    """Refuse a file, before it is read where it can be, that has more bytes than any image.

    Raises:
        ValueError: more than `MAX_BYTES`.
    """
    if size > MAX_BYTES:
        raise ValueError(f"the file has {size} bytes, more than the limit of {MAX_BYTES}")


def read_file(path: Path) -> bytes:
    """The bytes of an image's file.

    Raises:
        ValueError: they are too many; no more than the limit are read.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        check_bytes(about.st_size)
        data = file.read(about.st_size if stat.S_ISREG(about.st_mode) else MAX_BYTES + 1)  # others tell no size
    check_bytes(len(data))
    return data


def refuse_empty(width: int, height: int) -> None:
    """Raise ValueError where an image has no pixel."""
    if width < 1 or height < 1:
        raise ValueError(f"the image has no pixels ({width} x {height})")


def pillow_array(image: Image.Image) -> np.ndarray:
    """The pixels of an opened image: uint16 [H, W] of a 16-bit grey one, else uint8 [H, W, 3]."""
    image.load()
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if "A" in image.mode or "transparency" in image.info:
        return over_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def over_black(pixels: np.ndarray) -> np.ndarray:
    """Weight the colours of [H, W, 4] with its alpha channel; other shapes are returned as they are."""
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        return pixels
    if pixels.dtype.kind != "u":
        return pixels[:, :, :3]
    top = np.iinfo(pixels.dtype).max
    laid = np.empty((*pixels.shape[:2], 3), pixels.dtype)
    for rows in _blocks(pixels):
        weighted = pixels[rows, :, :3].astype(np.uint64) * pixels[rows, :, 3:].astype(np.uint64)
        laid[rows] = (weighted + top // 2) // top
    return laid


def to_8_bits(pixels: np.ndarray, intensity: Intensity) -> np.ndarray:
    """Scale integers or floats [H, …] linearly to uint8: see `clinprompt.data.codecs.decode`.

    Raises:
        ValueError: the values are not finite, or `intensity` is none for their type.
    """
    if pixels.dtype.kind not in "uif":
        raise ValueError(f"pixels of type {pixels.dtype} are not read")
    if not np.isfinite(pixels).all():
        raise ValueError("the image holds values that are not finite")
    if intensity == "auto":
        low, high = (float(v) for v in np.percentile(pixels, AUTO_PERCENTILES))
    elif intensity == "full":
        if pixels.dtype.kind == "f":
            raise ValueError("intensity 'full' is not defined for pixels of type float; use 'auto' or [low, high]")
        low, high = float(np.iinfo(pixels.dtype).min), float(np.iinfo(pixels.dtype).max)
    elif isinstance(intensity, str):
        raise ValueError(f"intensity must be 'auto', 'full' or [low, high], found {intensity!r}")
    else:
        low, high = (float(v) for v in intensity)
    if not np.isfinite(high - low):
        raise ValueError(f"the image's values reach from {low:g} to {high:g}, too far apart to be scaled")
    factor = 255 / (high - low) if high > low else 0
    scaled = np.empty(pixels.shape, np.uint8)
    for rows in _blocks(pixels):
        scaled[rows] = np.rint((np.clip(pixels[rows].astype(np.float64), low, high) - low) * factor)
    return scaled


def _blocks(pixels: np.ndarray) -> Iterator[slice]:
    """Slices of rows that hold about `_BLOCK` values each, so that widening them takes little memory."""
    rows = max(1, _BLOCK * len(pixels) // max(1, pixels.size))
    return (slice(start, start + rows) for start in range(0, len(pixels), rows))
