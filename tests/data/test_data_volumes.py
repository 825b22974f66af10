"""Volumes from NIfTI files and zips of DICOM series: the same voxels from each, and a sentence for bad ones."""

import gzip
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drawn_volumes import PATIENT, drawn, nifti, slices, zipped
from pydicom import Dataset

from clinprompt.data.codecs import decode_image, probe
from clinprompt.data.codecs.nifti import text_fields
from clinprompt.data.volumes import VolumePreprocessing

HEAD = drawn()


def test_nifti_compressed_or_not_and_dicom_give_the_same_voxels() -> None:
    plain = decode_image(nifti(HEAD))
    series = decode_image(zipped(slices(HEAD)[::-1]))
    assert plain.shape == (24, 20, 16)
    assert np.array_equal(plain.values, decode_image(gzip.compress(nifti(HEAD))).values)
    assert np.array_equal(plain.values, series.values)
    assert plain.spacing == series.spacing == (1, 1, 1)
    assert probe(zipped(slices(HEAD))) == (16, 20, "int16", 24)


def test_axes_in_any_order_and_direction_are_turned() -> None:
    upright = decode_image(nifti(HEAD, np.diag([1.0, 2, 3, 1])))
    turned = np.array([[0, -1.0, 0, 0], [0, 0, 2, 0], [3, 0, 0, 0], [0, 0, 0, 1]])  # superior, left, anterior
    stored = np.ascontiguousarray(HEAD[::-1].transpose(2, 0, 1))
    image = decode_image(nifti(stored, turned))
    assert np.array_equal(image.values, upright.values)
    assert image.spacing == upright.spacing == (3, 2, 1)
    assert (upright.orientation, image.orientation) == ("RAS", "SLA")


def test_an_anisotropic_series_keeps_its_spacing() -> None:
    assert decode_image(zipped(slices(HEAD, (1, 1, 8)))).spacing == (8, 1, 1)
    assert decode_image(nifti(HEAD, np.diag([1.0, 1, 8, 1]))).spacing == (8, 1, 1)


def test_an_unknown_orientation_is_taken_as_stored_and_said() -> None:
    image = decode_image(nifti(HEAD, np.diag([1.0, 1, 2, 1]), code=0))
    assert image.orientation is None
    assert np.array_equal(image.values, decode_image(nifti(HEAD)).values)
    assert image.spacing == (2, 1, 1)


def test_a_series_is_rescaled() -> None:
    datasets = slices(HEAD)
    for dataset in datasets:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, -100
    scaled = nifti((HEAD * 0.5 - 100).astype(np.float32))
    window = [-100.0, 200.0]
    assert np.array_equal(decode_image(zipped(datasets), window).values, decode_image(scaled, window).values)


def changed(number: int | None = None, **values: Any) -> Callable[[list[Dataset]], list[Dataset]]:
    """A series of which one slice, or all, have other values."""

    def change(datasets: list[Dataset]) -> list[Dataset]:
        for place, dataset in enumerate(datasets):
            if number in (None, place):
                for name, value in values.items():
                    setattr(dataset, name, value)
        return datasets

    return change


def without(tag: str) -> Callable[[list[Dataset]], list[Dataset]]:
    def change(datasets: list[Dataset]) -> list[Dataset]:
        del datasets[3][tag]
        return datasets

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda datasets: datasets[:10] + datasets[11:], "slices are missing or unequally apart"),
        (lambda datasets: datasets[:1], "at least 2 are needed"),
        (lambda datasets: [*datasets, datasets[4]], "at the same place: a series over time"),
        (changed(2, SeriesInstanceUID="1.2.4"), "more than one series"),
        (changed(2, ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "differ in ImageOrientationPatient"),
        (changed(2, PixelData=bytes(10)), "the pixel data is truncated"),
        (changed(None, NumberOfFrames=3), "holds several frames"),
        (changed(None, SamplesPerPixel=3, PhotometricInterpretation="RGB"), "in colour"),
        (changed(None, PixelSpacing=[0, 1]), "millimetres"),
        (changed(None, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "right angle"),
        (without("PixelData"), "no pixel data"),
        (without("ImagePositionPatient"), "no ImagePositionPatient"),
    ],
)
def test_a_series_that_is_no_volume_is_refused(change: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        decode_image(zipped(change(slices(HEAD))))
    assert "Doe" not in str(refused.value)


def test_a_compression_that_can_not_be_undone_is_named() -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGLSLossless

    datasets = slices(HEAD)
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset.PixelData = encapsulate([b"\xff\xd8nothing"])
        dataset["PixelData"].VR = "OB"
    with pytest.raises(ValueError, match=r"JPEG-LS .* can't be decoded; save them uncompressed"):
        decode_image(zipped(datasets))


def bomb(files: int, size: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(files):
            archive.writestr(f"{number}", bytes(size))
    return stream.getvalue()


def declaring(data: bytes, size: int) -> bytes:
    """A zip whose directory says that its first file unpacks to so many bytes."""
    place = data.index(b"PK\x01\x02") + 24
    return data[:place] + struct.pack("<I", size) + data[place + 4 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bomb(10_001, 0), "10001 files, more than the limit"),
        (declaring(bomb(2, 1000), 2**32 - 2), "unpacks to 4294968294 bytes"),
        (bomb(2, 1000), "no DICOM file"),
        (zipped(slices(HEAD))[:2000], "truncated or broken"),
        (zipped(slices(HEAD), zipfile.ZIP_LZMA), "packed in a way that is not read"),
    ],
)
def test_a_zip_that_asks_for_much_or_is_none_is_refused(data: bytes, reason: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=reason):
            decode_image(data)
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


def patched(place: int, code: str, *values: Any) -> bytes:
    """A NIfTI file with other bytes in its header."""
    data = bytearray(nifti(HEAD))
    struct.pack_into(f"<{code}", data, place, *values)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (nifti(HEAD)[:400], "truncated"),
        (gzip.compress(nifti(HEAD), mtime=0)[:300], "truncated"),
        (gzip.compress(b"no volume at all" * 100, mtime=0), "holds no NIfTI volume"),
        (nifti(np.zeros((4, 4, 4, 3), np.int16)), "4 axes .4 x 4 x 4 x 3.; three are read"),
        (nifti(np.zeros((4, 4), np.int16)), "2 axes"),
        (patched(40, "4h", 3, 0, 20, 24), "no voxels .0 x 20 x 24."),
        (patched(40, "4h", 3, -5, 20, 24), "no voxels"),
        (patched(40, "4h", 3, 1024, 1024, 1024), "1024 x 1024 x 1024 voxels, more than the limit"),
        (gzip.compress(patched(40, "4h", 3, 1024, 1024, 1024), mtime=0), "more than the limit"),
        (patched(70, "h", 128) + bytes(HEAD.size), "voxels of type"),
        (nifti(np.where(HEAD > 300, np.nan, HEAD).astype(np.float32)), "not finite"),
        (nifti(np.where(HEAD > 300, np.inf, HEAD).astype(np.float32)), "not finite"),
        (patched(280, "4f", 0, 0, 0, 0), "leaves out an axis|millimetres"),
    ],
)
def test_a_bad_nifti_file_is_refused_with_a_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        decode_image(data)
    assert "\n" not in str(refused.value)


def test_a_compressed_bomb_is_read_no_further_than_its_header_says() -> None:
    data = gzip.compress(nifti(HEAD) + bytes(200 << 20), 1)
    tracemalloc.start()
    try:
        assert decode_image(data).shape == (24, 20, 16)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_text_in_a_header_is_named_and_not_shown() -> None:
    assert text_fields(nifti(HEAD)) == []
    assert text_fields(nifti(HEAD, descrip=PATIENT.encode(), db_name=b"x")) == ["descrip", "db_name"]
    data = bytearray(nifti(HEAD))
    data[348] = 1
    assert text_fields(bytes(data)) == ["extension"]


def test_a_volume_is_prepared_without_a_wide_copy_of_it() -> None:
    values = np.zeros((128, 128, 128), np.int16)
    values[8:120, 8:120, 8:120] = 100 + np.arange(112)
    image = decode_image(nifti(values))
    tracemalloc.start()
    try:
        prepared = VolumePreprocessing((8, 16, 16)).apply(image)
        assert tracemalloc.get_traced_memory()[1] < 3 * image.values.size
    finally:
        tracemalloc.stop()
    assert prepared.shape == (1, 8, 16, 16)
