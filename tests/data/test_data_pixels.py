"""Decoding against Pillow and tifffile, and preprocessing against open_clip's own transform."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from clinprompt.data.codecs import decode, probe
from clinprompt.data.preprocessing import Preprocessing

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (7, 11), dtype=np.uint8)
RGB = RNG.integers(0, 256, (7, 11, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (7, 11), dtype=np.uint16)
DEEP_RGB = RNG.integers(0, 65536, (7, 11, 3), dtype=np.uint16)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def png(array: np.ndarray, colour_type: int, size: tuple[int, int] | None = None) -> bytes:
    """A 16-bit PNG written by hand, since Pillow writes colour with 8 bits only."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = size or array.shape[:2]
    rows = array.astype(">u2").reshape(array.shape[0], -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint((np.clip(values.astype(float), low, high) - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_8_bit_values_are_kept_whatever_the_intensity(form: str) -> None:
    for intensity in ("auto", "full", [10.0, 20.0]):
        assert np.array_equal(decode(encoded(Image.fromarray(GREY), form), intensity), three(GREY))
        assert np.array_equal(decode(encoded(Image.fromarray(RGB), form), intensity), RGB)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_decodes_as_pillow_does(mode: str) -> None:
    data = encoded(Image.fromarray(RGB).convert(mode), "JPEG")
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "P"])
def test_bilevel_and_palette_become_rgb(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    assert np.array_equal(decode(encoded(image, "PNG")), np.asarray(image.convert("RGB")))


def test_transparent_pixels_are_laid_over_black() -> None:
    alpha = np.full((7, 11, 1), 255, np.uint8)
    alpha[0] = 0
    alpha[1] = 51
    rgba = np.concatenate([RGB, alpha], axis=2)
    expected = RGB.copy()
    expected[0] = 0
    expected[1] = np.rint(RGB[1] * 0.2)
    assert np.array_equal(decode(encoded(Image.fromarray(rgba), "PNG")), expected)
    palette = Image.fromarray(GREY).convert("P")
    assert decode(encoded(palette, "PNG", transparency=int(GREY[0, 0])))[0, 0].tolist() == [0, 0, 0]
    assert np.array_equal(decode(encoded(Image.fromarray(GREY).convert("LA"), "PNG")), three(GREY))


@pytest.mark.parametrize(
    ("values", "data"),
    [
        pytest.param(DEEP, encoded(Image.fromarray(DEEP), "PNG"), id="grey png"),
        pytest.param(DEEP, tiff(DEEP), id="grey tiff"),
        pytest.param(DEEP, tiff(DEEP, byteorder=">"), id="big-endian tiff"),
        pytest.param(DEEP, encoded(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"), id="lzw tiff"),
        pytest.param(DEEP, tiff(DEEP, compression="zlib"), id="deflate tiff"),
        pytest.param(DEEP_RGB, png(DEEP_RGB, 2), id="rgb png"),
        pytest.param(DEEP_RGB, tiff(DEEP_RGB, photometric="rgb"), id="rgb tiff"),
        pytest.param(
            DEEP_RGB, tiff(DEEP_RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), id="planar tiff"
        ),
    ],
)
def test_16_bits_are_scaled_by_the_intensity(values: np.ndarray, data: bytes) -> None:
    low, high = np.percentile(values, [0.5, 99.5])
    for intensity, (a, b) in {"full": (0, 65535), "auto": (low, high)}.items():
        expected = scaled(values, a, b)
        assert np.array_equal(decode(data, intensity), expected if values.ndim == 3 else three(expected))
    window = scaled(values, 1000, 30000)
    assert np.array_equal(decode(data, [1000, 30000]), window if values.ndim == 3 else three(window))


def test_a_12_bit_image_in_16_bits_uses_the_whole_range() -> None:
    image = decode(encoded(Image.fromarray((DEEP // 16).astype(np.uint16)), "PNG"))
    assert image.min() == 0
    assert image.max() == 255


def test_16_bit_rgba_png_is_laid_over_black() -> None:
    rgba = np.concatenate([DEEP_RGB, np.full((7, 11, 1), 65535, np.uint16)], axis=2)
    rgba[0, :, 3] = 0
    image = decode(png(rgba, 6), "full")
    assert not image[0].any()
    assert np.array_equal(image[1:], scaled(DEEP_RGB[1:], 0, 65535))


def test_signed_and_float_tiffs_are_read() -> None:
    signed = (DEEP.astype(np.int32) - 32768).astype(np.int16)
    assert np.array_equal(decode(tiff(signed), "full"), three(scaled(signed, -32768, 32767)))
    real = RNG.normal(size=(7, 11)).astype(np.float32)
    assert np.array_equal(decode(tiff(real), [-1, 1]), three(scaled(real, -1, 1)))
    with pytest.raises(ValueError, match="not defined for pixels of type float"):
        decode(tiff(real), "full")
    real[3, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        decode(tiff(real))


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_is_inverted(bits: int) -> None:
    values = GREY if bits == 8 else DEEP
    top = 2**bits - 1
    expected = three(scaled(top - values, 0, top))
    assert np.array_equal(decode(tiff(values, photometric="miniswhite"), "full"), expected)


def test_a_constant_deep_image_is_black_and_does_not_divide_by_zero() -> None:
    assert not decode(tiff(np.full((4, 4), 700, np.uint16))).any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), form, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(decode(data), expected)
    assert probe(data)[:2] == (11, 7)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_deep_tiff_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    shallow = encoded(Image.fromarray(GREY), "TIFF", exif=exif)
    deep = tiff(GREY.astype(np.uint16) * 257, extratags=[(0x0112, 3, 1, orientation, True)])
    assert np.array_equal(decode(deep, "full"), decode(shallow))


def test_a_tiff_stack_is_refused() -> None:
    with pytest.raises(ValueError, match="3 pages"):
        decode(tiff(np.zeros((3, 8, 9), np.uint16), photometric="minisblack"))


def test_grey_with_transparency_in_16_bits_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="without transparency"):
        decode(png(np.zeros((4, 4, 2), np.uint16), 4))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"%PDF-1.7" + bytes(50), "not a PNG, JPEG, TIFF, BMP, WebP, GIF, DICOM, NIfTI or zipped DICOM"),
        (b"\x89PNG\r\n\x1a\n", "broken"),
        (encoded(Image.fromarray(RGB), "PNG")[:-30], "broken"),
        (encoded(Image.fromarray(RGB), "JPEG")[:200], "broken"),
        (tiff(DEEP)[:-40], "truncated"),
        (b"II*\x00" + bytes(4), "0 pages"),
        (png(np.zeros((1, 5), np.uint16), 0, size=(0, 5)), "no pixels"),
    ],
)
def test_broken_files_give_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(data)


@pytest.mark.filterwarnings("ignore:.*(Truncated|Tag data|EXIF|Metadata|Corrupt).*")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
def test_any_damage_decodes_or_is_a_value_error(form: str) -> None:
    whole = encoded(Image.fromarray(RGB), form) if form != "TIFF" else tiff(DEEP_RGB, photometric="rgb")

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=4))
    def damage(changes: list[tuple[int, int]]) -> None:
        data = bytearray(whole)
        for position, value in changes:
            data[position] = value
        try:
            image = decode(bytes(data), max_pixels=10_000)
        except ValueError:
            return
        assert image.dtype == np.uint8
        assert image.shape[2] == 3

    damage()


def test_a_decompression_bomb_is_refused_from_its_header() -> None:
    bomb = png(np.zeros((1, 1), np.uint16), 0, size=(50_000, 50_000))
    assert probe(bomb) == (50_000, 50_000, "I;16", 1)
    with pytest.raises(ValueError, match="more than the limit"):
        decode(bomb)
    with pytest.raises(ValueError, match="more than the limit of 76"):
        decode(encoded(Image.fromarray(GREY), "PNG"), max_pixels=76)
    assert decode(encoded(Image.fromarray(GREY), "PNG"), max_pixels=77).shape == (7, 11, 3)


@pytest.mark.parametrize(
    ("data", "mode"),
    [
        (encoded(Image.fromarray(GREY), "JPEG"), "L"),
        (encoded(Image.fromarray(RGB), "TIFF"), "RGB"),
        (tiff(DEEP), "1xuint16"),
        (tiff(DEEP_RGB, photometric="rgb"), "3xuint16"),
    ],
)
def test_probe_tells_size_and_mode(data: bytes, mode: str) -> None:
    assert probe(data) == (11, 7, mode, 1)


@pytest.mark.parametrize("shape", [(64, 64), (37, 90), (91, 30), (224, 225), (1, 5), (300, 64)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_preprocessing_equals_open_clip(shape: tuple[int, int], interpolation: str, mode: str) -> None:
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    transform = open_clip.image_transform(
        64, is_train=False, mean=mean, std=std, resize_mode=mode, interpolation=interpolation
    )
    ours = Preprocessing(64, mean, std, interpolation, mode).apply(image)
    assert ours.dtype == np.float32
    assert ours.shape == (3, 64, 64)
    assert np.array_equal(ours, transform(Image.fromarray(image)).numpy())


def test_preprocessing_survives_json_and_refuses_unknown_modes() -> None:
    one = Preprocessing(224, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), "bilinear", "squash")
    assert Preprocessing.from_dict(one.to_dict()) == one
    assert isinstance(one.to_dict()["mean"], list)
    with pytest.raises(ValueError, match="resize_mode"):
        Preprocessing(224, one.mean, one.std, "bicubic", "longest")
    with pytest.raises(ValueError, match="interpolation"):
        Preprocessing(224, one.mean, one.std, "nearest")


def test_the_code_stands_alone() -> None:
    """Served models carry it without the rest of the package."""
    import ast
    import sys

    import clinprompt
    from clinprompt.sources import closure, imported_modules

    modules = ["clinprompt.data.codecs", "clinprompt.data.preprocessing"]
    files = closure(modules, Path(clinprompt.__file__).parents[1])
    assert {Path(name).parts[1:-1] for name in files} == {(), ("data",), ("data", "codecs")}
    imported = {name.split(".")[0] for path in files.values() for name in imported_modules(ast.parse(path.read_text()))}
    assert imported <= {"clinprompt", "numpy", "PIL", "nibabel", "pydicom"} | set(sys.stdlib_module_names)
