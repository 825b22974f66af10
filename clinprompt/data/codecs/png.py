"""PNG of 8 and 16 bits. Pillow's plugin is called by name, so that none of Pillow's own limits holds."""

import io
import struct
from typing import Any

import numpy as np
from PIL import PngImagePlugin

from clinprompt.data.codecs.base import ORIENTATION, Codec, orient, over_black, pillow_array, refuse_empty


def _open(data: bytes) -> Any:
    refuse_empty(*struct.unpack(">II", data[16:24]))
    return PngImagePlugin.PngImageFile(io.BytesIO(data))


def _probe(data: bytes) -> tuple[int, int, str]:
    image = _open(data)
    return image.width, image.height, image.mode


def _read(data: bytes) -> np.ndarray:
    image = _open(data)
    deep = image.mode != "I;16" and str(image.tile[0].args).endswith(";16B")
    pixels = _deep(data) if deep else pillow_array(image)
    return orient(pixels, image.getexif().get(ORIENTATION, 1))


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


CODEC = Codec("PNG", (b"\x89PNG\r\n\x1a\n",), _probe, _read)
