"""GIF; of an animation the first frame. Pillow's plugin is called by name, so that no limit of its own holds."""

import io

import numpy as np
from PIL import GifImagePlugin

from clinprompt.data import formats
from clinprompt.data.codecs.base import Codec, check_size, pillow_array

_EXTENSION, _IMAGE = 0x21, 0x2C
_CONTROL = 0xF9  # the extension that says which colour is transparent
_MOST_BLOCKS = 10_000  # before the first frame


def _first_frame(data: bytes) -> bytes:
    """The file as if it held its first frame alone, and no comment."""
    position = 13 + _palette(data[10:11])
    control = b""
    for _ in range(_MOST_BLOCKS):
        introducer = data[position : position + 1]
        if introducer == bytes([_IMAGE]):
            # Pillow's decoder stops where the picture is full; what follows is another frame's.
            begin = position + 10 + _palette(data[position + 9 : position + 10])
            end = _after_blocks(data, begin + 1)
            return data[: 13 + _palette(data[10:11])] + control + data[position:end] + b";"
        if introducer != bytes([_EXTENSION]):
            raise ValueError("broken image (a GIF without a frame)")
        end = _after_blocks(data, position + 2)
        if data[position + 1 : position + 2] == bytes([_CONTROL]):
            # Of its flags only the one for transparency: disposal makes Pillow fill a second canvas.
            control = data[position : position + 3] + bytes([data[position + 3] & 1]) + data[position + 4 : end]
        position = end
    raise ValueError("broken image (a GIF without a frame)")


def _palette(flags: bytes) -> int:
    """Bytes of the palette that follows these flags."""
    return 3 << (1 + (flags[0] & 7)) if flags and flags[0] & 0x80 else 0


def _after_blocks(data: bytes, position: int) -> int:
    """Where a chain of blocks, each of up to 255 bytes, ends."""
    while position < len(data) and data[position]:
        position += 1 + data[position]
    return position + 1


def _open(data: bytes) -> GifImagePlugin.GifImageFile:
    width, height = (int.from_bytes(data[k : k + 2], "little") for k in (6, 8))
    check_size(max(1, width), max(1, height))
    return GifImagePlugin.GifImageFile(io.BytesIO(_first_frame(data)))


def _probe(data: bytes) -> tuple[int, int, str]:
    image = _open(data)
    return image.width, image.height, image.mode


def _read(data: bytes) -> np.ndarray:
    return pillow_array(_open(data))


CODEC = Codec(formats.GIF, _probe, _read)
