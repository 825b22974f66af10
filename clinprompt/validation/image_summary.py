"""The summary of one image file: size, intensities, what tells its like, geometry; or what is wrong with it."""

from dataclasses import dataclass, replace

import imagehash
import numpy as np
from PIL import Image

from clinprompt.data import codecs
from clinprompt.data.codecs.nifti import text_fields
from clinprompt.data.near_duplicates.fingerprint import thumbnail
from clinprompt.data.near_duplicates.volumes import volume_print

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
        thumbnail: uint8 [64, 64] grey; of pictures.
        volume_depth: of a volume, the third side as stored.
        spacing_slices, spacing_rows, spacing_columns: of a volume turned upright, mm from voxel to voxel.
        volume_view: of a volume, mm along its shortest side: the field of view.
        volume_anisotropy: of a volume, the longest side of a voxel to its shortest.
        volume_orientation: of a volume, where its axes pointed as stored, as "LPS"; or "unknown".
        header_text: of a NIfTI file, the header's fields that hold free text, by name.
        coarse: of a volume, what its near-duplicates are told by.
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
    volume_depth: int | None = None
    spacing_slices: float | None = None
    spacing_rows: float | None = None
    spacing_columns: float | None = None
    volume_view: float | None = None
    volume_anisotropy: float | None = None
    volume_orientation: str | None = None
    header_text: str | None = None
    thumbnail: np.ndarray | None = None
    coarse: np.ndarray | None = None


def summarise_image(data: bytes, intensity: codecs.Intensity, min_side: int, max_pixels: int) -> ImageSummary:
    """Summarise one file's bytes. A file whose header promises more than `max_pixels` is never decoded."""
    if not data:
        return ImageSummary(problem="zero bytes", reason="the file is empty")
    try:
        width, height, mode, depth = codecs.probe(data)
    except ValueError as error:
        return ImageSummary(problem=_damage(data, str(error)), reason=str(error))
    if (refused := _size(width, height, mode, depth, max_pixels)) is not None:
        return refused
    try:
        image = codecs.decode_image(data, intensity, max_pixels)
    except ValueError as error:
        return ImageSummary(width, height, mode, problem=_damage(data, str(error)), reason=str(error))
    if len(image.shape) == 3:
        return _volume(data, image, ImageSummary(width, height, mode, volume_depth=depth), min_side)
    picture = Image.fromarray(image.picture()).convert("L")
    summary = _greys(ImageSummary(width, height, mode), np.asarray(picture), min(width, height), min_side)
    return replace(summary, phash=str(imagehash.phash(picture)), thumbnail=thumbnail(picture))


def _size(width: int, height: int, mode: str, depth: int, max_pixels: int) -> ImageSummary | None:
    """The summary of a file that is not decoded, for its size; None for others."""
    if width < 1 or height < 1:
        return ImageSummary(width, height, mode, problem="empty", reason=f"the image has {width} x {height} pixels")
    if width * height * depth <= max_pixels:
        return None
    size = f"{width} x {height} pixels" if depth == 1 else f"{width} x {height} x {depth} voxels"
    excess = f"the image has {size}, more than the limit of {max_pixels}"
    return ImageSummary(width, height, mode, problem="decompression bomb", reason=excess)


def _greys(summary: ImageSummary, grey: np.ndarray, shortest: int, min_side: int) -> ImageSummary:
    """The summary with what the grey levels tell."""
    low, high = int(grey.min()), int(grey.max())
    sides = [side for side in (summary.width, summary.height, summary.volume_depth) if side is not None]
    problem, reason = _problem(sides, shortest, min_side, low, high)
    mean, std = round(float(grey.mean()), 4), round(float(grey.std()), 4)
    return replace(summary, mean=mean, std=std, min=low, max=high, problem=problem, reason=reason)


def _volume(data: bytes, image: codecs.DecodedImage, summary: ImageSummary, min_side: int) -> ImageSummary:
    """The summary of a volume, with its geometry. Few slices are usual: the other two sides are held to the least."""
    values = image.values[..., 0]
    summary = _greys(summary, values, sorted(image.shape)[1], min_side)
    is_nifti = not data.startswith(b"PK")
    spacing = image.spacing or (1.0, 1.0, 1.0)
    return replace(
        summary,
        spacing_slices=spacing[0],
        spacing_rows=spacing[1],
        spacing_columns=spacing[2],
        volume_view=round(min(side * mm for side, mm in zip(image.shape, spacing, strict=True)), 3),
        volume_anisotropy=round(max(spacing) / min(spacing), 3),
        volume_orientation=image.orientation or "unknown",
        header_text=", ".join(text_fields(data)) or None if is_nifti else None,
        coarse=volume_print(values) if summary.problem != "constant" else None,
    )


def _problem(sides: list[int], shortest: int, min_side: int, low: int, high: int) -> tuple[str | None, str | None]:
    unit, one = ("pixels", "pixel") if len(sides) == 2 else ("voxels", "voxel")
    if shortest < min_side:
        size = " x ".join(map(str, sides))
        where = "each side" if len(sides) == 2 else "two sides"
        return "tiny", f"{size} {unit}, at least {min_side} on {where} are needed"
    if low == high:
        return "constant", f"every {one} is {low}"
    return None, None


def _damage(data: bytes, reason: str) -> str:
    # "Not identified" is Pillow's message for a PNG or JPEG header without pixels.
    if "no pixels" in reason or "no voxels" in reason or "not identified by this driver" in reason:
        return "empty"
    marker = next((marker for signature, marker in _END_MARKERS.items() if data.startswith(signature)), None)
    return "truncated" if "truncated" in reason or (marker and marker not in data[-64:]) else "undecodable"
