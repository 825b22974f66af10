"""The summary of one image file: size, intensities, a perceptual hash, a thumbnail, or what is wrong with it."""

from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image

from clinprompt.data import codecs
from clinprompt.data.near_duplicates.fingerprint import thumbnail

_END_MARKERS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}


@dataclass(frozen=True)
class ImageSummary:
    """What is known of one file; None where it could not be determined.

    Attributes:
        width, height: pixels, from the header. mode: as `codecs.probe` names it.
        mean, std, min, max: of the grey levels after decoding to 8 bits, 0 to 255.
        phash: 64-bit perceptual hash in 16 hex digits.
        problem: None or one of zero bytes, undecodable, truncated, decompression bomb, empty, constant, tiny.
        reason: the problem in words, mostly the decoder's.
        thumbnail: uint8 [64, 64] grey.
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
        width, height, mode, depth = codecs.probe(data)
    except ValueError as error:
        return ImageSummary(problem=_damage(data, str(error)), reason=str(error))
    if width < 1 or height < 1:
        return ImageSummary(width, height, mode, problem="empty", reason=f"the image has {width} x {height} pixels")
    if width * height * depth > max_pixels:
        size = f"{width} x {height} pixels" if depth == 1 else f"{width} x {height} x {depth} voxels"
        excess = f"the image has {size}, more than the limit of {max_pixels}"
        return ImageSummary(width, height, mode, problem="decompression bomb", reason=excess)
    try:
        image = Image.fromarray(codecs.decode(data, intensity, max_pixels)).convert("L")
    except ValueError as error:
        return ImageSummary(width, height, mode, problem=_damage(data, str(error)), reason=str(error))
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
        thumbnail=thumbnail(image),
    )


def _problem(width: int, height: int, min_side: int, low: int, high: int) -> tuple[str | None, str | None]:
    if min(width, height) < min_side:
        return "tiny", f"{width} x {height} pixels, at least {min_side} on each side are needed"
    if low == high:
        return "constant", f"every pixel is {low}"
    return None, None


def _damage(data: bytes, reason: str) -> str:
    # "Not identified" is Pillow's message for a PNG or JPEG header without pixels.
    if "no pixels" in reason or "no voxels" in reason or "not identified by this driver" in reason:
        return "empty"
    marker = next((marker for signature, marker in _END_MARKERS.items() if data.startswith(signature)), None)
    return "truncated" if "truncated" in reason or (marker and marker not in data[-64:]) else "undecodable"
