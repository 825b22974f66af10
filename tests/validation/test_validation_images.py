"""Each kind of bad image is named, and no bomb is ever decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny_dataset import encode, picture

from clinprompt.data import codecs
from clinprompt.validation.image_summary import summarise_image


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size, with next to no pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


GOOD_PNG, GOOD_JPEG = encode(picture(1)), encode(picture(1), "jpeg")
BAD = {
    "zero bytes": b"",
    "undecodable": b"this is no image",
    "empty": png_header(0, 20),
    "decompression bomb": png_header(100_000, 100_000),
    "constant": encode(Image.new("L", (32, 32), 7)),
    "tiny": encode(picture(1, 8)),
}


def summary_of(data: bytes) -> str | None:
    return summarise_image(data, "auto", min_side=16, max_pixels=1_000_000).problem


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_image_is_told_by_its_kind(problem: str) -> None:
    assert summary_of(BAD[problem]) == problem


@pytest.mark.parametrize("good", [GOOD_PNG, GOOD_JPEG], ids=["png", "jpeg"])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_a_file_that_ends_early_is_truncated(good: bytes, share: float) -> None:
    assert summary_of(good[: int(len(good) * share)]) == "truncated"


def test_a_damaged_middle_is_undecodable_not_truncated() -> None:
    middle = len(GOOD_PNG) // 2
    assert summary_of(GOOD_PNG[:middle] + bytes(20) + GOOD_PNG[middle + 20 :]) == "undecodable"


def test_a_bomb_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(codecs, "decode", explode)
    assert summary_of(BAD["decompression bomb"]) == "decompression bomb"


def test_the_statistics_are_those_of_the_grey_levels() -> None:
    image = picture(3)
    grey = np.asarray(image).astype(float)
    found = summarise_image(encode(image), "auto", 16, 10**6)
    assert (found.width, found.height, found.mode, found.problem) == (48, 48, "L", None)
    assert (found.mean, found.std) == (round(grey.mean(), 4), round(grey.std(), 4))
    assert (found.min, found.max) == (grey.min(), grey.max())


def test_sixteen_bits_and_rotated_files_are_summarised_as_they_are_seen() -> None:
    values = np.asarray(picture(4)).astype(np.uint16) * 257
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "png")
    deep, flat = (summarise_image(data, "full", 16, 10**6) for data in (stream.getvalue(), encode(picture(4))))
    assert deep.phash == flat.phash
    assert deep.mean == flat.mean
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = summarise_image(encode(picture(4).rotate(180), exif=exif), "auto", 16, 10**6)
    assert turned.phash == flat.phash
