"""WebP; of an animation the first frame. Pillow's plugin is called by name, so that no limit of its own holds."""

import io
import struct

import numpy as np
from PIL import WebPImagePlugin

from clinprompt.data import formats
from clinprompt.data.codecs.base import Codec, check_size, pillow_array
from clinprompt.data.codecs.orientation import orient, orientation_of

_ALPHA = 0x10  # in the flags of an extended file


def _probe(data: bytes) -> tuple[int, int, str]:
    """From the first chunk, since opening a file takes memory for all pixels of its canvas."""
    name, first = data[12:16], data[20:30]
    if len(first) < 10:
        raise ValueError("broken image (a WebP file of some bytes)")
    if name == b"VP8X":
        width, height = (1 + int.from_bytes(first[k : k + 3], "little") for k in (4, 7))
        return width, height, "RGBA" if first[0] & _ALPHA else "RGB"
    if name == b"VP8L":
        [bits] = struct.unpack_from("<I", first, 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), "RGBA" if bits >> 28 & 1 else "RGB"
    if name == b"VP8 ":
        width, height = struct.unpack_from("<HH", first, 6)
        return width & 0x3FFF, height & 0x3FFF, "RGB"
    raise ValueError("broken image (a WebP file without an image)")


def _read(data: bytes) -> np.ndarray:
    width, height, _ = _probe(data)
    check_size(width, height)
    image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    pixels = pillow_array(image)
    return orient(pixels, orientation_of(image.info.get("exif"), image.info.get("xmp")))


CODEC = Codec(formats.WEBP, _probe, _read)
