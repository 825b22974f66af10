"""Small files that ask for much, refused with a sentence before the work; and images with broken decorations, read."""

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clinprompt.data.codecs import MAX_PIXELS, decode
from clinprompt.data.preprocessing import Preprocessing
from clinprompt.validation.image_summary import summarise_image

GREY = np.random.default_rng(0).integers(0, 256, (16, 20), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """The PNG with chunks behind its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def chain(order: str, *following: int) -> bytes:
    """A TIFF of directories of one tag, 18 bytes each from byte 8 on, which say where the next one begins."""
    listed = (struct.pack(f"{order}HHHIII", 1, 256, 4, 1, 5, place) for place in following)
    return struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8) + b"".join(listed)


def directory(*tags: tuple[int, int, int]) -> bytes:
    """A TIFF with one directory of tags: number, count, value."""
    listed = b"".join(struct.pack("<HHII", tag, 4, count, value) for tag, count, value in sorted(tags))
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + listed + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_directories_that_point_at_themselves_end(order: str) -> None:
    for following in ((8,), (26, 8), (26, 44, 62, 80, 98, 26)):
        with pytest.raises(ValueError, match="its directories point at themselves"):
            decode(chain(order, *following))
    with pytest.raises(ValueError, match="lies outside the file"):
        decode(chain(order, 900))


def test_thousands_of_directories_cost_little() -> None:
    with pytest.raises(ValueError, match="10000 pages"):
        decode(chain("<", *(8 + 18 * k for k in range(1, 20_000)), 0))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ([(256, 1, 2**31), (257, 1, 2**31)], "more than the limit"),
        ([(256, 1, 5000), (257, 1, 5000), (278, 1, 1)], "1 strips or tiles of the 5000"),
        ([(256, 1, 50), (257, 1, 50), (322, 1, 2**31 - 16), (323, 1, 2**31 - 16)], "huge tiles"),
        ([(256, 1, 50), (257, 1, 50), (277, 1, 2**31)], "channels"),
        ([(256, 1, 50), (257, 1, 50), (278, 1, 0)], "no pixels"),
        ([(256, 1, 50), (257, 1, 50), (32997, 1, 10**6)], "volumes"),
        ([(256, 1, 50), (257, 1, 50), (273, 1, 2**31)], "truncated"),
    ],
)
def test_numbers_of_a_tiff_are_held_against_its_bytes(tags: list[tuple[int, int, int]], reason: str) -> None:
    given = {tag for tag, *_ in tags}
    rest = [(tag, 1, value) for tag, value in ((258, 16), (273, 8), (279, 10), (324, 8), (325, 10)) if tag not in given]
    with pytest.raises(ValueError, match=reason):
        decode(directory(*tags, *rest))


@pytest.mark.parametrize("size", [(1, 300_000), (3_000_000, 1), (101, 1)])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_a_strip_of_pixels_is_a_broken_image_by_its_header(size: tuple[int, int], form: str) -> None:
    data = encoded(Image.new("L", size), form)
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels: one side is more than 100 times the other"):
        decode(data)
    summary = summarise_image(data, "auto", 1, MAX_PIXELS)
    assert summary.problem == "undecodable"
    assert "100 times the other" in str(summary.reason)


def test_preprocessing_makes_nothing_enormous_of_any_array() -> None:
    prepare = Preprocessing(224, (0, 0, 0), (1, 1, 1))
    with pytest.raises(ValueError, match="100 times the other"):
        prepare.apply(np.zeros((1, 300, 3), np.uint8))
    with pytest.raises(ValueError, match="no pixels"):
        prepare.apply(np.zeros((0, 3, 3), np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0\xff\x3f\0" + bytes(40),
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 60_000, 60_000, 1, 8, 0, 0, 0, 0, 0, 0) + bytes(40),
    ],
    ids=["webp", "gif", "bmp"],
)
def test_the_limit_holds_before_a_library_takes_memory(data: bytes) -> None:
    with pytest.raises(ValueError, match="more than the limit of 100000000"):
        decode(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
def test_the_limit_of_the_caller_holds_for_every_format(form: str) -> None:
    data = encoded(Image.fromarray(GREY), form)
    with pytest.raises(ValueError, match="20 x 16 pixels, more than the limit of 319"):
        decode(data, max_pixels=319)
    assert decode(data, max_pixels=320).shape == (16, 20, 3)


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    data = encoded(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    begin = data.index(b"\xff\xda")
    with pytest.raises(ValueError, match="scans, which takes too long"):
        decode(data[:begin] + data[begin:-2] * 200 + data[-2:])


EXIF_FAULTS = {
    "no header": b"Exif\0\0" + bytes(8),
    "cut": b"Exif\0\0II*",
    "points at itself": b"Exif\0\0II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "outside": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "text": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\xff\xff\0\0abcd\0\0\0\0",
    "unknown": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x63\0\0\0\0\0\0\0",
    "no directory": b"Exif\0\0II*\0\0\0\0\0",
}


@pytest.mark.parametrize("fault", EXIF_FAULTS)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_broken_exif_is_orientation_1(form: str, fault: str) -> None:
    image, block = Image.fromarray(GREY).convert("RGB"), EXIF_FAULTS[fault]
    options = {"lossless": True} if form == "WEBP" else {}
    plain = encoded(image, form, **options)
    if form == "PNG":
        data = with_chunks(plain, chunk(b"eXIf", block.removeprefix(b"Exif\0\0")))
    else:
        data = encoded(image, form, exif=block, **options)
    assert np.array_equal(decode(data), decode(plain))


def test_texts_and_profiles_of_any_size_do_not_condemn_a_png() -> None:
    plain = encoded(Image.fromarray(GREY), "PNG")
    large = zlib.compress(bytes(3_000_000))
    decorated = with_chunks(
        plain,
        chunk(b"zTXt", b"Comment\0\0" + large),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + large),
        chunk(b"iCCP", b"profile\0\0" + large),
        chunk(b"tEXt", b"Comment\0" + bytes(2_000_000)),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + large),
        chunk(b"tIME", b"1234567")[:-1] + b"?",  # with a wrong checksum
    )
    assert np.array_equal(decode(decorated), decode(plain))


def test_orientation_in_xmp_and_in_raw_profiles_of_png_is_applied() -> None:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    xmp = encoded(Image.fromarray(GREY), "PNG", pnginfo=info)
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    profile = zlib.compress(f"\nexif\n{len(block)}\n{block.hex()}\n".encode())
    raw = with_chunks(encoded(Image.fromarray(GREY), "PNG"), chunk(b"zTXt", b"Raw profile type exif\0\0" + profile))
    for data in (xmp, raw):
        assert np.array_equal(decode(data)[:, :, 0], np.rot90(GREY, -1))


def test_segments_that_no_pixel_depends_on_do_not_condemn_a_jpeg() -> None:
    plain = encoded(Image.fromarray(GREY), "JPEG")
    content = struct.pack(">H", 2 + 60_000) + bytes(60_000)
    segments = b"".join(b"\xff" + bytes([marker]) + content for marker in (0xE1, 0xE2, 0xED, 0xFE))
    assert np.array_equal(decode(plain[:2] + segments * 20 + plain[2:]), decode(plain))


def test_memory_of_a_large_transparent_png_is_near_that_of_its_pixels() -> None:
    data = encoded(Image.new("RGBA", (3000, 3000)), "PNG")
    tracemalloc.start()
    try:
        decode(data)
        assert tracemalloc.get_traced_memory()[1] < 300_000_000
    finally:
        tracemalloc.stop()
