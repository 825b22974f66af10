"""What the formats share: orientation, transparency, and pixels of more than 8 bits."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

MAX_PIXELS = 100_000_000
ORIENTATION = 0x0112
AUTO_PERCENTILES = (0.5, 99.5)

Intensity = str | list[float] | tuple[float, float]


@dataclass(frozen=True)
class Codec:
    """One format.

    Attributes:
        name: as messages call it.
        signatures: what its files begin with, one of them each.
        probe: width and height in pixels, as stored, and the mode, from the header alone.
        read: the pixels, upright, transparent ones laid over black: [H, W], [H, W, 1] or [H, W, 3] of any type.

    Both functions raise ValueError with the reason where they refuse a file, and what their library raises of a broken
    one.
    """

    name: str
    signatures: tuple[bytes, ...]
    probe: Callable[[bytes], tuple[int, int, str]]
    read: Callable[[bytes], np.ndarray]


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
    weighted = pixels[:, :, :3].astype(np.uint64) * pixels[:, :, 3:].astype(np.uint64)
    return ((weighted + top // 2) // top).astype(pixels.dtype)


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels [H, W, …] upright, by the number that EXIF and TIFF give to an orientation (1…8)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def to_8_bits(pixels: np.ndarray, intensity: Intensity) -> np.ndarray:
    """Scale integers or floats linearly to uint8: see `clinprompt.data.codecs.decode`.

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
    scaled = (np.clip(pixels.astype(np.float64), low, high) - low) * (255 / (high - low) if high > low else 0)
    return np.rint(scaled).astype(np.uint8)
