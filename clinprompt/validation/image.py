"""What is worth knowing about one image file: size, intensities, a perceptual hash, a thumbnail, or what is wrong."""

from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image

from clinprompt.data import codecs

THUMBNAIL = 32  # pixels on a side
_ENDS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}


@dataclass(frozen=True)
class ImageSummary:
    """One file's facts; what could not be found out is None.

    Attributes:
        width, height: pixels, from the header. mode: as `codecs.probe` names it.
        mean, std, min, max: of the grey levels after decoding to 8 bits, 0 to 255.
        phash: 64-bit perceptual hash in 16 hex digits.
        problem: None or one of zero bytes, undecodable, truncated, decompression bomb, empty, constant, tiny.
        reason: the decoder's words on it.
        thumbnail: uint8 [32, 32] grey.
    """

    width: int | None = None
    height: int | None = None
    mode: str | None = None
    mean: float | None = None
    std: float | None = None
    min: int | None = None
    max: int | None = None
    phash: str | None = None
    problem: str | None = None
    reason: str | None = None
    thumbnail: np.ndarray | None = None


def summarise_image(data: bytes, intensity: codecs.Intensity, min_side: int, max_pixels: int) -> ImageSummary:
    """Summarise one file's bytes. A file whose header promises more than `max_pixels` is never decoded."""
    if not data:
        return ImageSummary(problem="zero bytes", reason="the file is empty")
    try:
        width, height, mode = codecs.probe(data)
    except ValueError as error:
        return ImageSummary(problem=_kind_of_damage(data, str(error)), reason=str(error))
    if width < 1 or height < 1:
        return ImageSummary(width, height, mode, problem="empty", reason=f"the image has {width} x {height} pixels")
    if width * height > max_pixels:
        excess = f"the image has {width} x {height} pixels, more than the limit of {max_pixels}"
        return ImageSummary(width, height, mode, problem="decompression bomb", reason=excess)
    try:
        image = Image.fromarray(codecs.decode(data, intensity, max_pixels)).convert("L")
    except ValueError as error:
        return ImageSummary(width, height, mode, problem=_kind_of_damage(data, str(error)), reason=str(error))
    grey = np.asarray(image)
    low, high = int(grey.min()), int(grey.max())
    problem, reason = _problem(width, height, min_side, low, high)
    return ImageSummary(
        width,
        height,
        mode,
        mean=round(float(grey.mean()), 4),
        std=round(float(grey.std()), 4),
        min=low,
        max=high,
        phash=str(imagehash.phash(image)),
        problem=problem,
        reason=reason,
        thumbnail=np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)),
    )


def _problem(width: int, height: int, min_side: int, low: int, high: int) -> tuple[str | None, str | None]:
    if min(width, height) < min_side:
        return "tiny", f"{width} x {height} pixels, at least {min_side} on each side are needed"
    if low == high:
        return "constant", f"every pixel is {low}"
    return None, None


def _kind_of_damage(data: bytes, reason: str) -> str:
    # "Not identified" is what Pillow says of a PNG or JPEG header that tells of no pixels.
    if "no pixels" in reason or "not identified by this driver" in reason:
        return "empty"
    end = next((end for start, end in _ENDS.items() if data.startswith(start)), None)
    return "truncated" if "truncated" in reason or (end and end not in data[-64:]) else "undecodable"
