"""TIFF with one image: 8 bits are read by Pillow, more by tifffile."""

import io
import logging
from typing import Any

import numpy as np
import tifffile
from PIL import TiffImagePlugin

from clinprompt.data.codecs.base import MAX_PIXELS, ORIENTATION, Codec, orient, over_black, pillow_array, refuse_empty


def _open(data: bytes) -> TiffImagePlugin.TiffImageFile:
    return TiffImagePlugin.TiffImageFile(io.BytesIO(data))


def _probe(data: bytes) -> tuple[int, int, str]:
    page = _page(data)
    mode = f"{page.samplesperpixel}x{page.dtype}" if _is_deep(page) else _open(data).mode
    return page.imagewidth, page.imagelength, mode


def _read(data: bytes) -> np.ndarray:
    page = _page(data)
    if not _is_deep(page):
        return pillow_array(_open(data))  # which turns a TIFF upright by itself
    channels = page.samplesperpixel
    if channels not in (1, 3, 4):
        raise ValueError(f"a TIFF with {channels} channels; 1, 3 or 4 are read")
    try:
        pixels = np.asarray(page.asarray())
    except ValueError:  # tifffile leaves some compressions to a library that is not needed otherwise
        image = _open(data)
        if not image.mode.startswith("I;16"):
            raise
        return pillow_array(image) if page.photometric != 0 else 65535 - pillow_array(image)
    if pixels.ndim == 3 and page.planarconfig == 2:
        pixels = pixels.transpose(1, 2, 0)
    if page.photometric == 0:  # white is zero
        pixels = np.iinfo(pixels.dtype).max - pixels if pixels.dtype.kind == "u" else -pixels
    tag = page.tags.get(ORIENTATION)
    pixels = pixels[:, :, 0] if pixels.ndim == 3 and channels == 1 else pixels
    return orient(over_black(pixels), tag.value if tag else 1)


def _page(data: bytes) -> Any:
    tifffile.logger().setLevel(logging.CRITICAL)  # what is wrong with a file is told by the error
    pages = tifffile.TiffFile(io.BytesIO(data)).pages
    full = [page for page in pages if not page.subfiletype & 1]  # the others are thumbnails
    if len(full) != 1:
        raise ValueError(f"a TIFF with {len(full)} pages; files with one image are read")
    page = full[0]
    refuse_empty(page.imagewidth, page.imagelength)
    if page.imagedepth != 1 or page.tilewidth * page.tilelength > MAX_PIXELS:
        raise ValueError("a TIFF of volumes or of huge tiles, which are not read")
    return page


def _is_deep(page: Any) -> bool:
    bits = page.bitspersample
    return max(bits if isinstance(bits, tuple) else (bits,)) > 8


CODEC = Codec("TIFF", (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), _probe, _read)
