"""TIFF with one image. Pillow's libtiff gets a directory of checked numbers, and for deep images gives bytes alone.

8 bits and fewer become pixels in Pillow. Deeper ones would lose bits there, or not be read: libtiff then only undoes
the compression, told that each byte is a grey pixel, and `clinprompt.data.codecs.samples` makes numbers of the bytes.
"""

import io

import numpy as np
from PIL import Image, TiffImagePlugin

from clinprompt.data import formats
from clinprompt.data.codecs.base import Codec, check_size, over_black, pillow_array
from clinprompt.data.codecs.orientation import TAG as ORIENTATION
from clinprompt.data.codecs.orientation import orient
from clinprompt.data.codecs.samples import Samples
from clinprompt.data.codecs.tags import Entry, read_directories, whole_numbers, with_directory
from clinprompt.data.codecs.tiff_page import COMPRESSIONS, PIXEL_TAGS, Page

_MOST_PAGES = 10_000
_JPEG = (6, 7)
_MOST_SCANS = 100  # of a JPEG in a TIFF, per strip
_RAW, _DEFLATE = 1, 8
# The compressions that give back the bytes that they got, and are built into Pillow.
_LOSSLESS = (_RAW, 5, _DEFLATE, 32773, 32946, 34925, 50000)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2


def _page(data: bytes) -> Page:
    full = []
    for directory in read_directories(data, _MOST_PAGES):
        if not directory.number(254, 0) & 1:  # the others are thumbnails
            full.append(directory)
    if len(full) != 1:
        raise ValueError(f"a TIFF with {len(full)} pages; files with one image are read")
    return Page(full[0])


def _probe(data: bytes) -> tuple[int, int, str]:
    page = _page(data)
    mode = f"{page.channels}x{page.dtype}" if page.deep else _opened(data, page).mode
    return page.width, page.height, mode


def _read(data: bytes) -> np.ndarray:
    page = _page(data)
    check_size(page.width, page.height)
    pixels = _deep(data, page) if page.deep else pillow_array(_opened(data, page))
    try:
        orientation = page.directory.number(ORIENTATION, 1)
    except ValueError:
        orientation = 1
    return orient(pixels, orientation)


def _opened(data: bytes, page: Page) -> Image.Image:
    """The image of 8 bits or fewer, not loaded."""
    page.check_data()
    if page.compression in _JPEG and data.count(b"\xff\xda") > _MOST_SCANS * len(page.offsets):
        raise ValueError("a TIFF of JPEG data in so many scans that it takes too long")
    entries = {tag: found for tag in PIXEL_TAGS if (found := page.directory.entry(tag)) is not None}
    try:
        return TiffImagePlugin.TiffImageFile(io.BytesIO(with_directory(data, page.directory.order, entries)))
    except SyntaxError:
        raise ValueError(f"a TIFF of {page.describe()}, which is not read") from None


def _deep(data: bytes, page: Page) -> np.ndarray:
    samples = Samples.of(page)
    if page.compression not in _LOSSLESS:
        raise ValueError(
            f"a TIFF of {page.describe()} with the compression {COMPRESSIONS.get(page.compression, page.compression)}, "
            "which is read with 8 bits only; save it with LZW, Deflate or no compression"
        )
    if page.channels not in (1, 3, 4) or (page.channels > 1 and page.photometric > _RGB):
        raise ValueError(f"a TIFF of {page.describe()}, whose colours are not read; 1, 3 or 4 channels are")
    page.check_data()
    planes = [samples.numbers(_bytes(data, page, plane, samples)) for plane in range(page.planes)]
    pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
    if page.photometric == _WHITE_IS_ZERO:
        pixels = np.iinfo(pixels.dtype).max - pixels if pixels.dtype.kind == "u" else -pixels
    return over_black(pixels)


def _bytes(data: bytes, page: Page, plane: int, samples: Samples) -> np.ndarray:
    """The bytes [H, row] of one plane, its compression undone."""
    order, pieces = page.directory.order, page.pieces_of(plane)
    numbers: dict[int, tuple[int, ...]] = {
        256: (samples.row_bytes,), 257: (page.height,), 258: (8,), 259: (page.compression,), 262: (_BLACK_IS_ZERO,),
        266: (page.directory.number(266, 1),), 277: (1,), 284: (1,),
    }  # fmt: skip
    where = (324, 325, 322, 323) if page.tiled else (273, 279, 278)
    numbers[where[0]] = page.offsets[pieces]
    numbers[where[1]] = page.lengths[pieces]
    if page.tiled:
        numbers |= {322: (samples.piece_row_bytes,), 323: (page.piece_height,)}
    else:
        numbers[278] = (page.piece_height,)
    entries: dict[int, Entry] = {tag: whole_numbers(order, values) for tag, values in numbers.items()}
    return np.asarray(TiffImagePlugin.TiffImageFile(io.BytesIO(with_directory(data, order, entries))))


CODEC = Codec(formats.TIFF, _probe, _read)
