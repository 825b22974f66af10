"""From an image file's bytes to pixels: one module per format. Served models carry this code.

A new format is its line in `clinprompt.data.formats`, a module with a `Codec`, and its line in `CODECS` here or, of
volumes, in `volumes.codec`. DICOM pictures have a reader of their own, `dicom_file`: only models of such carry it.
"""

import struct
import zlib
from dataclasses import replace

import numpy as np
from PIL import Image

from clinprompt.data import formats
from clinprompt.data.codecs import bmp, gif, jpeg, png, tiff, webp
from clinprompt.data.codecs.base import (
    MAX_ASPECT,
    MAX_BYTES,
    MAX_PIXELS,
    Codec,
    DecodedImage,
    Header,
    Intensity,
    Measured,
    check_bytes,
    check_size,
    read_file,
    to_8_bits,
)

__all__ = [
    "CODECS", "MAX_ASPECT", "MAX_BYTES", "MAX_PIXELS", "DecodedImage", "Intensity", "decode", "decode_image", "probe",
    "read_file",
]  # fmt: skip

CODECS: tuple[Codec, ...] = (
    png.CODEC,
    jpeg.CODEC,
    tiff.CODEC,
    bmp.CODEC,
    webp.CODEC,
    gif.CODEC,
)

_PICTURES = (*(codec.format for codec in CODECS), formats.DICOM_FILE)
_VOLUMES = (formats.NIFTI, formats.DICOM)

# What Pillow raises on broken files; anything else is a bug and must be seen.
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
    Image.DecompressionBombError,
)
_OF_CODE = (KeyError, IndexError, TypeError, AttributeError)


def probe(data: bytes) -> Header:
    """Width and height in pixels (as stored, before EXIF orientation), mode and depth, from the file's header alone.

    The mode is "1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", …; for a TIFF of more than 8 bits it is the number
    of channels and the numpy type, as "1xuint16", for a volume the numpy type.

    Raises:
        ValueError: with the reason, when the bytes are not an image of one of the formats with at least one pixel.
    """
    return _probed(_codec(data), data)


def _probed(codec: Codec, data: bytes) -> Header:
    try:
        return Header(*codec.probe(data))
    except _BROKEN as error:
        raise ValueError(_reason(error)) from None


def decode_image(
    data: bytes, intensity: Intensity = "auto", max_pixels: int = MAX_PIXELS, frames: str = "one"
) -> DecodedImage:
    """Decode an image or a volume of 8 or more bits to uint8, upright.

    Grey is one channel, colour three; transparent pixels are laid over black. Images of 8 bits keep their values, but
    for windows of DICOM pictures; deeper ones are scaled linearly to 0…255:

        "auto": from the image's own 0.5th to its 99.5th percentile; of a DICOM picture by its header's table or window
        "full": from the lowest to the highest value of the integer type
        [low, high]: from `low` to `high`

    Args:
        max_pixels: refuse, before decoding, images whose header tells more. `MAX_PIXELS` is the most in any case.
        frames: of a DICOM file of several, the one that is the picture: "first" or "middle"; else it is refused.

    Raises:
        ValueError: with the reason, when the image is broken, too large or of a kind that is not read.
    """
    codec = _codec(data, frames)
    width, height, _, depth = _probed(codec, data)
    check_size(width, height, min(max_pixels, MAX_PIXELS), depth)
    try:
        pixels = codec.read(data)
    except _BROKEN as error:
        raise ValueError(_reason(error)) from None
    if isinstance(pixels, Measured):
        return DecodedImage(pixels.shown(intensity))
    if isinstance(pixels, DecodedImage):
        return replace(pixels, values=to_8_bits(pixels.values, intensity))
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if sorted(pixels.shape[:2]) != sorted((height, width)) or pixels.shape[2:] not in ((1,), (3,)):
        raise ValueError(f"broken image (pixels of shape {list(pixels.shape)} in a file of {width} x {height})")
    return DecodedImage(pixels if pixels.dtype == np.uint8 else to_8_bits(pixels, intensity))


def decode(data: bytes, intensity: Intensity = "auto", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture uint8 [H, W, 3] of an image, for people to look at: see `decode_image`, which raises the same."""
    return decode_image(data, intensity, max_pixels).picture()


def _codec(data: bytes, frames: str = "one") -> Codec:
    """The format of a file, by its first bytes: nothing else is tried."""
    if not data:
        raise ValueError("the file is empty")
    check_bytes(len(data))
    kind = formats.format_of(data)
    if kind in _VOLUMES:
        return _volume_codec(kind)
    if kind is formats.DICOM_FILE:
        return _dicom_codec(frames)
    for codec in CODECS:
        if codec.format is kind:
            return codec
    *names, last = (known.name for known in (*_PICTURES, *_VOLUMES))
    raise ValueError(f"not a {', '.join(names)} or {last} image (it begins with the bytes {data[:4].hex(' ')})")


def _volume_codec(kind: formats.Format) -> Codec:
    try:
        from clinprompt.data.codecs import volumes
    except ImportError:  # a served model of pictures does not carry it
        raise ValueError(f"it is a volume ({kind.name}), and this model reads pictures") from None
    return volumes.codec(kind)


def _dicom_codec(frames: str) -> Codec:
    try:
        from clinprompt.data.codecs import dicom_file
    except ImportError:  # a model that was tuned without DICOM files does not carry it
        raise ValueError("it is a DICOM file, and this model was tuned on pictures of other formats") from None
    return dicom_file.codec(frames)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, ValueError) and text:
        return text
    # What these say is about code, not about the file.
    return "broken image" if not text or isinstance(error, _OF_CODE) else f"broken image ({text})"
