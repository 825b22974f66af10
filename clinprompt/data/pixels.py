"""From an image file's bytes to the numbers that a backbone takes. Served models carry a copy of this file.

Imports only the standard library, numpy, Pillow and tifffile.
"""

import io
import logging
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tifffile
from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

MAX_PIXELS = 100_000_000
ORIENTATION = 0x0112
AUTO_PERCENTILES = (0.5, 99.5)

Intensity = str | list[float] | tuple[float, float]

# What Pillow and tifffile raise on broken files; anything else is a bug and must be seen.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    EOFError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    tifffile.TiffFileError,
    Image.DecompressionBombError,
)


def probe(data: bytes) -> tuple[int, int, str]:
    """Width and height in pixels (as stored, before EXIF orientation) and the mode, from the file's header alone.

    The mode is "1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", …; for a TIFF of more than 8 bits it is the number
    of channels and the numpy type, as "1xuint16".

    Raises:
        ValueError: with the reason, when the bytes are not a PNG, JPEG or TIFF image with at least one pixel.
    """
    try:
        if _is_tiff(data):
            page = _tiff_page(data)
            mode = f"{page.samplesperpixel}x{page.dtype}" if _is_deep(page) else _open(data).mode
            return page.imagewidth, page.imagelength, mode
        image = _open(data)
    except _BROKEN as error:
        raise ValueError(_reason(error)) from None
    return image.width, image.height, image.mode


def decode(data: bytes, intensity: Intensity = "auto", max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """Decode a PNG, JPEG or TIFF image of 8 or 16 bits to uint8 [H, W, 3], upright.

    Grey becomes three equal channels; transparent pixels are laid over black. Images of 8 bits keep their values;
    deeper ones are scaled linearly to 0…255:

        "auto": from the image's own 0.5th to its 99.5th percentile
        "full": from the lowest to the highest value of the integer type
        [low, high]: from `low` to `high`

    Args:
        max_pixels: refuse, before decoding, images whose header tells more; None: no limit.

    Raises:
        ValueError: with the reason, when the image is broken, too large or of a kind that is not read.
    """
    width, height, _ = probe(data)
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(f"the image has {width} x {height} pixels, more than the limit of {max_pixels}")
    try:
        pixels = _decode_tiff(data) if _is_tiff(data) else _decode_pillow(data)
    except _BROKEN as error:
        raise ValueError(_reason(error)) from None
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if sorted(pixels.shape[:2]) != sorted((height, width)) or pixels.shape[2:] not in ((1,), (3,)):
        raise ValueError(f"broken image (pixels of shape {list(pixels.shape)} in a file of {width} x {height})")
    if pixels.dtype != np.uint8:
        pixels = _to_8_bits(pixels, intensity)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone expects of its input; gives the same numbers as open_clip's evaluation transform.

    Attributes:
        size: side of the square input, in pixels.
        mean, std: per channel, of values in 0…1.
        interpolation: "bicubic" or "bilinear".
        resize_mode: "shortest" (shorter side to `size`, then the centre is cut out) or "squash".
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    def __post_init__(self) -> None:
        if self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f"interpolation must be 'bicubic' or 'bilinear', found {self.interpolation!r}")
        if self.resize_mode not in ("shortest", "squash"):
            raise ValueError(f"resize_mode must be 'shortest' or 'squash', found {self.resize_mode!r}")

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Resize, crop and normalise uint8 [H, W, 3] to float32 [3, size, size]."""
        picture = self._resize(Image.fromarray(image))
        values = np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)).astype(np.float32)
        values /= np.float32(255)
        values -= np.asarray(self.mean, np.float32)[:, None, None]
        values /= np.asarray(self.std, np.float32)[:, None, None]
        return values

    def _resize(self, picture: Image.Image) -> Image.Image:
        how = Image.Resampling.BICUBIC if self.interpolation == "bicubic" else Image.Resampling.BILINEAR
        size = self.size
        if self.resize_mode == "squash":
            return picture.resize((size, size), how)
        short, long = sorted(picture.size)
        other = int(size * long / short)
        width, height = (size, other) if picture.width <= picture.height else (other, size)
        if picture.size != (width, height):
            picture = picture.resize((width, height), how)
        left, top = round((width - size) / 2), round((height - size) / 2)
        return picture.crop((left, top, left + size, top + size))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`."""
        mean, std = (tuple(float(v) for v in values[key]) for key in ("mean", "std"))
        return cls(**(values | {"mean": mean, "std": std}))


def _open(data: bytes) -> Any:
    """Read an image's header. The three plugins by name: no other format is tried, and none of Pillow's limits."""
    if not data:
        raise ValueError("the file is empty")
    stream = io.BytesIO(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _refuse_empty(*struct.unpack(">II", data[16:24]))
        return PngImagePlugin.PngImageFile(stream)
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(stream)
    if _is_tiff(data):
        return TiffImagePlugin.TiffImageFile(stream)
    raise ValueError(f"not a PNG, JPEG or TIFF image (it begins with the bytes {data[:4].hex(' ')})")


def _refuse_empty(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"the image has no pixels ({width} x {height})")


def _is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def _decode_pillow(data: bytes) -> np.ndarray:
    image = _open(data)
    deep = image.format == "PNG" and image.mode != "I;16" and str(image.tile[0].args).endswith(";16B")
    pixels = _deep_png(data) if deep else _pillow_array(image)
    return _orient(pixels, image.getexif().get(ORIENTATION, 1))


def _pillow_array(image: Image.Image) -> np.ndarray:
    image.load()
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if "A" in image.mode or "transparency" in image.info:
        return _over_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _deep_png(data: bytes) -> np.ndarray:
    """Pillow keeps 8 of a colour PNG's 16 bits. Which 8 is its raw mode's choice, so read both halves."""
    halves = []
    for ending in ("16B", "16L"):
        image = _open(data)
        tile = image.tile[0]
        if tile.args.startswith("LA"):
            raise ValueError("a 16-bit grey PNG with transparency is not read; save it without transparency")
        image.tile = [tile._replace(args=tile.args.replace("16B", ending))]
        image.load()
        halves.append(np.asarray(image).astype(np.uint16))
    return _over_black(halves[0] * np.uint16(256) + halves[1])


def _decode_tiff(data: bytes) -> np.ndarray:
    page = _tiff_page(data)
    if not _is_deep(page):
        return _pillow_array(_open(data))  # which turns a TIFF upright by itself
    channels = page.samplesperpixel
    if channels not in (1, 3, 4):
        raise ValueError(f"a TIFF with {channels} channels; 1, 3 or 4 are read")
    try:
        pixels = np.asarray(page.asarray())
    except ValueError:  # tifffile leaves some compressions to a library that is not needed otherwise
        image = _open(data)
        if not image.mode.startswith("I;16"):
            raise
        return _pillow_array(image) if page.photometric != 0 else 65535 - _pillow_array(image)
    if pixels.ndim == 3 and page.planarconfig == 2:
        pixels = pixels.transpose(1, 2, 0)
    if page.photometric == 0:  # white is zero
        pixels = np.iinfo(pixels.dtype).max - pixels if pixels.dtype.kind == "u" else -pixels
    tag = page.tags.get(ORIENTATION)
    pixels = pixels[:, :, 0] if pixels.ndim == 3 and channels == 1 else pixels
    return _orient(_over_black(pixels), tag.value if tag else 1)


def _tiff_page(data: bytes) -> Any:
    tifffile.logger().setLevel(logging.CRITICAL)  # what is wrong with a file is told by the error
    pages = tifffile.TiffFile(io.BytesIO(data)).pages
    full = [page for page in pages if not page.subfiletype & 1]  # the others are thumbnails
    if len(full) != 1:
        raise ValueError(f"a TIFF with {len(full)} pages; files with one image are read")
    page = full[0]
    _refuse_empty(page.imagewidth, page.imagelength)
    if page.imagedepth != 1 or page.tilewidth * page.tilelength > MAX_PIXELS:
        raise ValueError("a TIFF of volumes or of huge tiles, which are not read")
    return page


def _is_deep(page: Any) -> bool:
    bits = page.bitspersample
    return max(bits if isinstance(bits, tuple) else (bits,)) > 8


def _over_black(pixels: np.ndarray) -> np.ndarray:
    """Weight the colours of [H, W, 4] with its alpha channel; other shapes are returned as they are."""
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        return pixels
    if pixels.dtype.kind != "u":
        return pixels[:, :, :3]
    top = np.iinfo(pixels.dtype).max
    weighted = pixels[:, :, :3].astype(np.uint64) * pixels[:, :, 3:].astype(np.uint64)
    return ((weighted + top // 2) // top).astype(pixels.dtype)


def _orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _to_8_bits(pixels: np.ndarray, intensity: Intensity) -> np.ndarray:
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


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text if isinstance(error, ValueError) and text else f"broken image ({text or type(error).__name__})"
