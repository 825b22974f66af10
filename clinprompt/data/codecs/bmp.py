"""BMP. Pillow's plugin is called by name, so that none of Pillow's own limits holds."""

import io

import numpy as np
from PIL import BmpImagePlugin

from clinprompt.data import formats
from clinprompt.data.codecs.base import Codec, pillow_array


def _open(data: bytes) -> BmpImagePlugin.BmpImageFile:
    return BmpImagePlugin.BmpImageFile(io.BytesIO(data))


def _probe(data: bytes) -> tuple[int, int, str]:
    image = _open(data)
    return image.width, image.height, image.mode


def _read(data: bytes) -> np.ndarray:
    return pillow_array(_open(data))


CODEC = Codec(formats.BMP, _probe, _read)
