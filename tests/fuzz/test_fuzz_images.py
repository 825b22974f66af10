"""Damaged images of every format: decoded, or refused with a sentence."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from drawn_dicom import picture, written
from mutations import call_all, damaged
from PIL import Image
from pydicom.data import get_testdata_file

from clinprompt.data.codecs import decode_image
from clinprompt.data.preprocessing import Preprocessing

PREPARE = Preprocessing(16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
RGB = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (13, 17), dtype=np.uint16)
# Tags and chunks that make a decoder do something else, to be put anywhere.
PARTS = (
    *(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag in (256, 257, 258, 259, 262, 277, 278, 317, 322)
        for value in (0, 1, 7, 16, 2**31)
    ),
    *(b"\xff\xda", b"\xff\xd9", b"\xff\xc2", b"!\xf9\4\xff\0\0\0\0", b"IDAT", b"acTL", b"VP8X", b"\0\0\0\0IEND"),
)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def seeds() -> dict[str, list[bytes]]:
    """Whole images of each format, in its kinds."""
    image = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "png": [
            encoded(image, "PNG", exif=exif),
            encoded(image.convert("P"), "PNG", transparency=3),
            encoded(Image.fromarray(DEEP), "PNG"),
            encoded(image.convert("RGBA"), "PNG"),
        ],
        "jpeg": [
            encoded(image, "JPEG", exif=exif),
            encoded(image, "JPEG", progressive=True, comment=b"x" * 30),
            encoded(image.convert("CMYK"), "JPEG"),
        ],
        "tiff": [
            encoded(image, "TIFF", compression="tiff_lzw"),
            encoded(image, "TIFF", compression="jpeg"),
            encoded(image.convert("1"), "TIFF", compression="group4"),
            encoded(image.convert("P"), "TIFF", exif=exif),
        ],
        "deep tiff": [
            tiff(DEEP),
            tiff(DEEP, tile=(16, 16), compression="zlib"),
            tiff(DEEP.astype(np.float32), bigtiff=True),
            encoded(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw", tiffinfo={317: 2}),
        ],
        "bmp": [encoded(image, "BMP"), encoded(image.convert("P"), "BMP"), encoded(image.convert("1"), "BMP"), RLE],
        "webp": [
            encoded(image, "WEBP"),
            encoded(image.convert("RGBA"), "WEBP", lossless=True, exif=exif),
            encoded(image, "WEBP", save_all=True, append_images=[image.rotate(90)]),
        ],
        "dicom": [
            written(picture(DEEP, WindowCenter=3000, WindowWidth=900, PixelPaddingValue=7, RescaleSlope=2)),
            written(picture(RGB)),
            written(picture(DEEP.astype(np.int16), PhotometricInterpretation="MONOCHROME1"))[132:],
            Path(str(get_testdata_file("MR_small_RLE.dcm", download=False))).read_bytes(),
            Path(str(get_testdata_file("SC_rgb_small_odd_jpeg.dcm", download=False))).read_bytes(),
            Path(str(get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False))).read_bytes(),
            Path(str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm", download=False))).read_bytes(),
        ],
        "gif": [
            encoded(image.convert("P"), "GIF", comment=b"x"),
            encoded(
                image.convert("P"), "GIF", transparency=1, save_all=True, append_images=[image.rotate(9)], disposal=2
            ),
        ],
    }  # fmt: skip


# 8 bits per pixel, run lengths: 17 x 13.
RLE = (
    b"BM" + struct.pack("<IIIIiiHHIIIIII", 0, 0, 54 + 1024, 40, 17, 13, 1, 8, 1, 0, 0, 0, 0, 0)
    + bytes(1024) + b"\x11\x05\0\0" * 12 + b"\0\5\1\2\3\4\5\0" + b"\x0c\7" + b"\0\1"
)  # fmt: skip


def prepared(data: bytes) -> None:
    assert PREPARE.apply(decode_image(data, max_pixels=4_000_000)).shape == PREPARE.shape


@pytest.mark.parametrize("kind", seeds())
def test_damaged_images_are_prepared_or_refused(kind: str) -> None:
    whole = seeds()[kind]
    assert call_all(prepared, whole, ()) == len(whole)

    def inputs() -> Iterator[bytes]:
        for number in range(1000):
            yield damaged(whole[number % len(whole)], number, PARTS)

    taken = call_all(prepared, inputs(), (ValueError,))
    assert 0 < taken < 1000
