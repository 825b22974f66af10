"""TIFFs of 16 and more bits: compressions, predictors, tiles, planes; and those that are refused with a sentence."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from clinprompt.data.codecs import decode, probe
from clinprompt.data.codecs.tags import SHORT, whole_numbers, with_directory

RNG = np.random.default_rng(0)
DEEP = np.sort(RNG.integers(0, 65536, (37, 53), dtype=np.uint16), axis=1)
DEEP_RGB = RNG.integers(0, 65536, (37, 53, 3), dtype=np.uint16)
REAL = RNG.normal(size=(37, 53)).astype(np.float32)


def tiff(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def pillow(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "TIFF", **options)
    return stream.getvalue()


def full(values: np.ndarray) -> np.ndarray:
    return np.rint(values.astype(float) / 65535 * 255).astype(np.uint8)


def written(order: str, piece: bytes, **numbers: int | tuple[int, ...]) -> bytes:
    """A TIFF by hand: one strip, and tags by number, as `t256=11`."""
    start = 8
    values = {int(name[1:]): value if isinstance(value, tuple) else (value,) for name, value in numbers.items()}
    values |= {273: (start,), 279: (len(piece),)}
    entries = {tag: whole_numbers(order, value) for tag, value in values.items()}
    return with_directory(bytes(start) + piece, order, entries)


@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"])
def test_16_bits_of_any_lossless_compression_are_read(compression: str, predictor: int) -> None:
    options: dict[str, Any] = {"compression": compression}
    if predictor == 2 and compression != "packbits":
        options["tiffinfo"] = {317: 2}
    data = pillow(Image.fromarray(DEEP), **options)
    assert np.array_equal(decode(data, "full")[:, :, 0], full(DEEP))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("values", [DEEP[:, :, None], DEEP_RGB], ids=["grey", "rgb"])
def test_horizontal_differences_of_16_bits_are_undone(order: str, values: np.ndarray) -> None:
    differences = np.diff(values, axis=1, prepend=np.zeros((37, 1, values.shape[2]), np.uint16))
    piece = zlib.compress(differences.astype(f"{order}u2").tobytes())
    channels = values.shape[2]
    data = written(
        order, piece, t256=53, t257=37, t258=(16,) * channels, t259=8, t262=2 if channels == 3 else 1, t277=channels,
        t278=37, t317=2,
    )  # fmt: skip
    assert np.array_equal(decode(data, "full"), np.broadcast_to(full(values), (37, 53, 3)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floating_point_differences_are_undone(dtype: str) -> None:
    values = np.stack([REAL, REAL * 2, REAL - 1], axis=2).astype(dtype)
    planes = np.moveaxis(
        values.astype(f">{dtype[0]}{values.itemsize}").view(np.uint8).reshape(37, -1, values.itemsize), 2, 1
    )
    rows = planes.reshape(37, -1, 3)
    piece = zlib.compress(np.diff(rows, axis=1, prepend=np.zeros((37, 1, 3), np.uint8)).tobytes())
    bits = values.itemsize * 8
    data = written(
        "<", piece, t256=53, t257=37, t258=(bits,) * 3, t259=8, t262=2, t277=3, t278=37, t317=3, t339=(3, 3, 3)
    )
    assert np.array_equal(decode(data, [-4, 4]), decode(tiff(values, photometric="rgb"), [-4, 4]))


def test_floating_point_differences_as_libtiff_writes_them_are_undone() -> None:
    data = pillow(Image.fromarray(REAL), compression="tiff_lzw", tiffinfo={317: 3})
    assert np.array_equal(decode(data, [-3, 3]), decode(tiff(REAL), [-3, 3]))


@pytest.mark.parametrize(
    "options",
    [{"tile": (16, 16)}, {"tile": (32, 16), "compression": "zlib"}, {"rowsperstrip": 5}, {"bigtiff": True}],
)
def test_tiles_strips_and_bigtiff(options: dict[str, Any]) -> None:
    assert np.array_equal(decode(tiff(DEEP, **options), "full")[:, :, 0], full(DEEP))
    planar = tiff(DEEP_RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", **options)
    assert np.array_equal(decode(planar, "full"), full(DEEP_RGB))


def test_12_and_14_packed_bits_and_lossy_compressions_are_refused_by_name() -> None:
    packed = written("<", bytes(4000), t256=53, t257=37, t258=14, t259=1, t262=1, t278=37)
    with pytest.raises(ValueError, match="14 bits, packed, which is not read; save it with 16 bits"):
        decode(packed)
    for number, name in ((34712, "JPEG 2000"), (7, "JPEG"), (9999, "9999")):
        data = written("<", bytes(4000), t256=53, t257=37, t258=16, t259=number, t262=1, t278=37)
        with pytest.raises(ValueError, match=f"compression {name}, .* save it with LZW"):
            decode(data)


def test_a_thumbnail_beside_the_image_is_passed_over() -> None:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(DEEP)
        writer.write(DEEP[:8, :8], subfiletype=1)
    assert probe(stream.getvalue()) == (53, 37, "1xuint16", 1)


def test_tags_that_no_pixel_depends_on_may_be_broken() -> None:
    data = bytearray(pillow(Image.fromarray(DEEP), tiffinfo={270: "a description that is long"}))
    place = data.index(struct.pack("<H", 270))
    data[place + 8 : place + 12] = b"\xff\xff\xff\x7f"
    assert np.array_equal(decode(bytes(data), "full")[:, :, 0], full(DEEP))


def test_short_numbers_are_written_as_given() -> None:
    assert whole_numbers(">", (1, 2), SHORT).raw == b"\0\1\0\2"
