"""PNG of 8 and 16 bits. Pillow's plugin is called by name, so that none of Pillow's own limits holds."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import PngImagePlugin

from clinprompt.data import formats
from clinprompt.data.codecs.base import Codec, over_black, pillow_array, refuse_empty
from clinprompt.data.codecs.orientation import orient, orientation_of

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MOST_CHUNKS = 1_000_000
_LONGEST_TEXT = 1 << 18  # bytes of a text that may tell the orientation
_XMP = b"XML:com.adobe.xmp"
_RAW_EXIF = b"Raw profile type exif"  # how ImageMagick writes EXIF


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of each chunk's content, up to the end of the file or of the image."""
    position = len(_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if position + 8 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, position)
        yield name, position + 8, position + 8 + length
        if name == b"IEND":
            return
        position += 12 + length
    raise ValueError(f"a PNG of more than {_MOST_CHUNKS} chunks")


def _open(data: bytes) -> Any:
    """The image in the chunks that its pixels depend on: a text or a profile of any size can't condemn them."""
    refuse_empty(*struct.unpack(">II", data[16:24]))
    kept, seen = [_SIGNATURE], False
    for name, begin, end in _chunks(data):
        if name in _PIXELS and not (name == b"IHDR" and seen):
            kept.append(data[begin - 8 : end + 4])
            seen = True
    return PngImagePlugin.PngImageFile(io.BytesIO(b"".join(kept)))


def _probe(data: bytes) -> tuple[int, int, str]:
    image = _open(data)
    return image.width, image.height, image.mode


def _read(data: bytes) -> np.ndarray:
    image = _open(data)
    deep = image.mode != "I;16" and str(image.tile[0].args).endswith(";16B")
    pixels = _deep(data) if deep else pillow_array(image)
    return orient(pixels, orientation_of(*_exif_and_xmp(data)))


def _deep(data: bytes) -> np.ndarray:
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
    return over_black(halves[0] * np.uint16(256) + halves[1])


def _exif_and_xmp(data: bytes) -> tuple[bytes | None, bytes | None]:
    exif = xmp = None
    for name, begin, end in _chunks(data):
        if name == b"eXIf":
            exif = data[begin:end]
        elif name in (b"tEXt", b"zTXt", b"iTXt") and exif is None:
            keyword = data[begin : begin + 80].partition(b"\0")[0]
            if keyword == _XMP and end - begin <= _LONGEST_TEXT:
                xmp = data[begin:end]
            elif keyword == _RAW_EXIF and name != b"iTXt":
                exif = _from_hex(data[begin + len(keyword) + 1 : end], compressed=name == b"zTXt")
    return exif, xmp


def _from_hex(text: bytes, *, compressed: bool) -> bytes | None:
    """The bytes of a "raw profile": a name and a length, each on a line, and then the bytes in hex."""
    try:
        text = zlib.decompressobj().decompress(text[1:], _LONGEST_TEXT) if compressed else text[:_LONGEST_TEXT]
        return bytes.fromhex("".join(text.decode("ascii").split("\n")[3:]))
    except (zlib.error, ValueError):
        return None


CODEC = Codec(formats.PNG, _probe, _read)
