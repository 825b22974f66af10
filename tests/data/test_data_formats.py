"""Which files are images, and the formats beside PNG, JPEG and TIFF."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingest_workspace import Workspace
from PIL import Image, ImageOps

from clinprompt.data.codecs import decode, decode_image, probe
from clinprompt.data.formats import image_suffix

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 11, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (7, 11), dtype=np.uint8)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("form", ["BMP", "GIF", "WEBP"])
def test_bmp_gif_and_webp_decode_as_pillow_does(form: str, mode: str) -> None:
    data = encoded(Image.fromarray(RGB).convert(mode), form, lossless=True)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert probe(data)[:2] == (11, 7)


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_of_an_animation_the_first_frame_is_read(form: str) -> None:
    frames = [Image.fromarray(values) for values in (GREY, 255 - GREY)]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True, disposal=2, comment=b"x")
    assert np.array_equal(decode(data)[:, :, 0], GREY)


def test_transparent_pixels_of_webp_and_gif_are_laid_over_black() -> None:
    alpha = np.full((7, 11, 1), 255, np.uint8)
    alpha[0] = 0
    webp = encoded(Image.fromarray(np.concatenate([RGB, alpha], axis=2)), "WEBP", lossless=True, exact=True)
    assert probe(webp)[2] == "RGBA"
    assert not decode(webp)[0].any()
    assert np.array_equal(decode(webp)[1:], RGB[1:])
    gif = encoded(Image.fromarray(np.maximum(GREY, 9)).convert("P"), "GIF", transparency=int(GREY.max()))
    assert not decode(gif)[GREY.max() == GREY].any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_webp_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), "WEBP", exif=exif, lossless=True)
    assert np.array_equal(decode(data), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))


def test_a_decoded_image_carries_shape_and_spacing_and_as_few_channels_as_it_has() -> None:
    image = decode_image(encoded(Image.fromarray(RGB), "PNG"))
    assert image.shape == (7, 11)
    assert image.spacing is None
    assert image.values.shape == (7, 11, 3)
    assert image.picture().shape == (7, 11, 3)


@pytest.mark.parametrize(
    ("name", "content", "suffix"),
    [
        ("a.JFIF", b"", ".jpg"),
        ("a.webp", b"", ".webp"),
        ("a.txt", encoded(Image.fromarray(RGB), "PNG"), None),
        ("IM0001", encoded(Image.fromarray(RGB), "JPEG"), ".jpg"),
        ("1.2.840.113619.2", encoded(Image.fromarray(RGB), "TIFF"), ".tif"),
        ("1.2.840.113619.3", encoded(Image.fromarray(RGB), "BMP"), ".bmp"),
        ("LICENSE", b"BMJ Open, all rights reserved, and much more text", None),
        ("empty", b"", None),
    ],
)
def test_a_file_is_an_image_by_its_suffix_or_without_one_by_its_bytes(
    tmp_path: Path, name: str, content: bytes, suffix: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    assert image_suffix(tmp_path / name) == suffix


def test_a_pipe_and_a_missing_file_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert image_suffix(tmp_path / "pipe") is None
    assert image_suffix(tmp_path / "none") is None


def test_folders_with_all_formats_are_ingested(place: Workspace) -> None:
    names = ["a.bmp", "b.webp", "c.gif", "d.jfif", "e", "f.tif"]
    place.card(split={"rule": "stratified"})
    for label in ("glioma", "none"):
        for number, name in enumerate(names):
            values = np.random.default_rng([number, len(label)]).integers(0, 256, (16, 16), dtype=np.uint8)
            form = {"jfif": "JPEG", "e": "PNG", "tif": "TIFF"}.get(name.split(".")[-1], name.split(".")[-1].upper())
            file = place.data / label / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(Image.fromarray(values), form))
        (place.data / label / "notes").write_text("no image")
    assert place.ingest() == 0
    frame = place.manifest()
    assert len(frame) == 12
    suffixes = {Path(path).name: Path(file).suffix for path, file in zip(frame["path"], frame["file"], strict=True)}
    assert suffixes == {
        "a.bmp": ".bmp",
        "b.webp": ".webp",
        "c.gif": ".gif",
        "d.jfif": ".jpg",
        "e": ".png",
        "f.tif": ".tif",
    }
