"""JPEG. Pillow's plugin is called by name, so that none of Pillow's own limits holds."""

import io
import re

import numpy as np
from PIL import JpegImagePlugin

from clinprompt.data import formats
from clinprompt.data.codecs.base import Codec, pillow_array
from clinprompt.data.codecs.orientation import orient, orientation_of

_MOST_SEGMENTS = 100_000  # before the pixels
_MOST_WORK = 2_000_000_000  # scans times pixels: a progressive file of a few kB can ask for thousands of scans
_START_OF_SCAN, _END = 0xDA, 0xD9
_SEGMENT_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
# What the pixels depend on beside tables and frames: JFIF and Adobe say which colours the channels mean.
_JFIF, _EXIF, _ADOBE, _COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


class _Parts:
    """A JPEG without what its pixels do not depend on, and what that said of the orientation."""

    def __init__(self, data: bytes) -> None:
        self.exif: bytes | None = None
        self.xmp: bytes | None = None
        kept, position = [data[:2]], 2
        for _ in range(_MOST_SEGMENTS):
            match = _SEGMENT_MARKER.search(data, position)
            if match is None:
                break
            marker, begin = match[1][0], match.end()
            if marker in (_START_OF_SCAN, _END):
                kept.append(data[match.start() :])
                break
            alone = marker == 0x01 or 0xD0 <= marker <= 0xD8
            position = begin if alone else begin + max(2, int.from_bytes(data[begin : begin + 2], "big"))
            content = data[begin + 2 : position]
            if marker == _EXIF:
                self._metadata(content)
            if not (marker == _COMMENT or 0xE1 <= marker <= 0xEF) or marker == _ADOBE:
                kept.append(b"\xff" + data[begin - 1 : position])
        self.pixels = b"".join(kept)

    def _metadata(self, content: bytes) -> None:
        if content.startswith(b"Exif\0\0") and self.exif is None:
            self.exif = content
        elif content.startswith(_XMP):
            self.xmp = content


def _open(parts: _Parts) -> JpegImagePlugin.JpegImageFile:
    return JpegImagePlugin.JpegImageFile(io.BytesIO(parts.pixels))


def _probe(data: bytes) -> tuple[int, int, str]:
    image = _open(_Parts(data))
    return image.width, image.height, image.mode


def _read(data: bytes) -> np.ndarray:
    parts = _Parts(data)
    image = _open(parts)
    scans = parts.pixels.partition(b"\xff\xd9")[0].count(b"\xff\xda")
    if scans * image.width * image.height > _MOST_WORK:
        raise ValueError(f"a JPEG of {image.width} x {image.height} pixels in {scans} scans, which takes too long")
    return orient(pillow_array(image), orientation_of(parts.exif, parts.xmp))


CODEC = Codec(formats.JPEG, _probe, _read)
