"""JPEG. Pillow's plugin is called by name, so that none of Pillow's own limits holds."""

import io

import numpy as np
from PIL import JpegImagePlugin

from clinprompt.data.codecs.base import ORIENTATION, Codec, orient, pillow_array


def _open(data: bytes) -> JpegImagePlugin.JpegImageFile:
    return JpegImagePlugin.JpegImageFile(io.BytesIO(data))


def _probe(data: bytes) -> tuple[int, int, str]:
    image = _open(data)
    return image.width, image.height, image.mode


def _read(data: bytes) -> np.ndarray:
    image = _open(data)
    return orient(pillow_array(image), image.getexif().get(ORIENTATION, 1))


CODEC = Codec("JPEG", (b"\xff\xd8\xff",), _probe, _read)
