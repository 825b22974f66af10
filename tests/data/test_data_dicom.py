"""Pictures in DICOM files: their values and windows, taken in without the patient, and a sentence for bad ones."""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom.data
import pytest
from dicom_workspace import SHARES, pictures
from drawn_dicom import PATIENT, picture, written
from ingest_workspace import Workspace, refused
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from clinprompt.data.card import DicomRules
from clinprompt.data.codecs import MAX_BYTES, decode_image, probe
from clinprompt.data.formats import is_dicom
from clinprompt.data.series import pack_picture
from clinprompt.errors import DataRejected

RAMP = np.arange(-1000, 1400, 100, dtype=np.int16).reshape(4, 6)
GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)


def shown(dataset: Dataset, intensity: str | list[float] = "auto") -> np.ndarray:
    return decode_image(written(dataset), intensity).values[..., 0]


def test_the_headers_window_is_applied_to_rescaled_values_and_the_cards_wins() -> None:
    dataset = picture(RAMP, RescaleSlope=2, RescaleIntercept=-24, WindowCenter=[40.5, 9], WindowWidth=[401, 9])
    measured = RAMP.astype(float) * 2 - 24
    windowed = np.rint((np.clip(measured, -160, 240) + 160) * 255 / 400)
    assert np.array_equal(shown(dataset), windowed)
    assert np.array_equal(shown(dataset, [-1024, 976]), np.rint((np.clip(measured, -1024, 976) + 1024) * 255 / 2000))
    dataset.VOILUTFunction, dataset.WindowCenter, dataset.WindowWidth = "LINEAR_EXACT", 40, 400
    assert np.array_equal(shown(dataset), windowed)


def test_without_a_window_12_bits_are_scaled_by_percentiles_or_by_their_own_range() -> None:
    values = np.arange(0, 4800, 200, dtype=np.uint16).reshape(4, 6).clip(0, 4095)
    dataset = picture(values, BitsStored=12)
    low, high = np.percentile(values, (0.5, 99.5))
    assert np.array_equal(shown(dataset), np.rint((values.clip(low, high) - low) * 255 / (high - low)))
    assert np.array_equal(shown(dataset, "full"), np.rint(values * (255 / 4095)))
    overlay = picture(values | np.uint16(0x8000), BitsStored=12)  # the bits above the stored ones
    assert np.array_equal(shown(overlay), shown(dataset))


def test_monochrome1_is_turned_round_after_the_window() -> None:
    for intensity in ("auto", "full", [0.0, 300.0]):
        dark_low = shown(picture(RAMP, WindowCenter=0, WindowWidth=901), intensity)
        dark_high = picture(RAMP, WindowCenter=0, WindowWidth=901, PhotometricInterpretation="MONOCHROME1")
        assert np.array_equal(shown(dark_high, intensity), 255 - dark_low)


def test_8_bits_keep_their_values_but_for_the_headers_window() -> None:
    assert np.array_equal(shown(picture(GREY)), GREY)
    assert np.array_equal(shown(picture(GREY), "full"), GREY)
    assert shown(picture(GREY, WindowCenter=100.5, WindowWidth=101))[0, :6].tolist() == [0, 0, 0, 0, 0, 0]


def test_padding_decides_no_percentile_and_is_black() -> None:
    padded = RAMP.copy()
    padded[:, 0] = -32768
    seen = shown(picture(padded, PixelPaddingValue=-32768))
    assert (seen[:, 0] == 0).all()
    known = padded[:, 1:]
    low, high = np.percentile(known, (0.5, 99.5))
    assert np.array_equal(seen[:, 1:], np.rint((known.clip(low, high) - low) * (255 / (high - low))))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("CT_small.dcm", (128, 128, 1)),  # its preamble makes a TIFF of it
        ("MR_small_RLE.dcm", (64, 64, 1)),
        ("MR_small_bigendian.dcm", (64, 64, 1)),
        ("693_J2KI.dcm", (512, 512, 1)),
        ("examples_palette.dcm", (350, 800, 3)),
        ("SC_ybr_full_422_uncompressed.dcm", (100, 100, 3)),
        ("SC_rgb_rle_16bit.dcm", (100, 100, 3)),
        ("SC_rgb_jpeg_dcmtk.dcm", (100, 100, 3)),
        ("SC_rgb_jpeg_gdcm.dcm", (100, 100, 3)),  # lossless JPEG
        ("SC_rgb_jls_lossy_sample.dcm", (100, 100, 3)),
        ("JPGExtended.dcm", (1024, 256, 1)),  # JPEG of 12 bits
    ],
)
def test_a_copy_without_the_patient_shows_the_same(name: str, shape: tuple[int, ...]) -> None:
    file = Path(str(get_testdata_file(name, download=False)))
    copy = pack_picture(file, name)
    before = decode_image(file.read_bytes()).values
    assert before.shape == shape
    assert np.array_equal(decode_image(copy).values, before)
    assert pack_picture(file, name) == copy


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm"])
def test_what_was_compressed_without_loss_is_read_without_loss(name: str) -> None:
    compressed, plain = (Path(str(get_testdata_file(n, download=False))).read_bytes() for n in (name, "MR_small.dcm"))
    assert np.array_equal(decode_image(compressed, "full").values, decode_image(plain, "full").values)


def test_colours_are_as_drawn_and_preamble_and_meta_may_be_missing() -> None:
    colours = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    data = written(picture(colours))
    assert np.array_equal(decode_image(data).values, colours)
    assert np.array_equal(decode_image(data[132:]).values, colours)
    dataset = data[data.index(b"\x08\0\x16\0UI") :]
    assert np.array_equal(decode_image(dataset).values, colours)
    assert probe(dataset)[:3] == (6, 4, "3xuint8")


def test_a_class_folder_of_dicom_files_holds_pictures_taken_in_without_the_patient(place: Workspace) -> None:
    pictures(place)
    assert place.ingest() == 0
    rows = place.manifest()
    assert list(rows["path"])[:2] == ["glioma/1.dcm", "glioma/3.dcm"]
    for path, file in zip(rows["path"], rows["file"], strict=True):
        copy = (place.folder / "out" / "images" / file).read_bytes()
        for word in (PATIENT, "4711", "1.2.3.", "pydicom", "PYDICOM"):
            assert word.encode() not in copy
        original = (place.data / path).read_bytes()
        assert np.array_equal(decode_image(copy).values, decode_image(original).values)


def test_a_tables_facts_win_over_the_headers_where_it_knows_them(place: Workspace) -> None:
    pictures(place)
    lines = ["path,label,sex"]
    for number, file in enumerate(sorted(place.data.glob("*/*.dcm"))):
        dataset = dcmread(file)
        dataset.PatientSex = "F"
        file.write_bytes(written(dataset))
        lines.append(f"{file.relative_to(place.data)},{file.parent.name},{'NA' if number % 2 else 'male'}")
    place.table("\n".join(lines))
    place.card(split=SHARES, reader={"kind": "table"}, metadata={"sex": "sex", "dicom": ["sex"]})
    assert place.ingest() == 0
    assert place.manifest()["sex"].tolist() == ["M", "F"] * 4


def test_header_fields_that_name_the_patient_are_told_by_name_alone(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(place)
    bare = picture(np.random.default_rng(9).integers(0, 4096, (8, 8), np.uint16), BitsStored=12)
    bare.PatientName = bare.PatientID = ""
    (place.data / "none" / "bare.dcm").write_bytes(written(bare))
    assert place.ingest() == 0
    said = capsys.readouterr()
    sentence = "The headers of 8 of the 9 images tell who the patient is (PatientName, PatientID); nothing of that is"
    assert sentence in said.out
    assert PATIENT not in said.out + said.err
    assert "MRN4711" not in said.out + said.err


def test_the_headers_facts_are_columns_where_the_card_asks_for_them(place: Workspace) -> None:
    pictures(place)
    for number, file in enumerate(sorted(place.data.glob("*/*.dcm"))):
        dataset = dcmread(file)
        dataset.PatientID, dataset.PatientSex, dataset.Manufacturer = f"MRN{number % 4}", "F", "Acme"
        dataset.PatientAge = ["045Y", "006M", "", "old"][number % 4]
        file.write_bytes(written(dataset))
    assert place.ingest() == 0
    columns = ["patient", "site", "sex", "age"]
    assert place.manifest()[columns].isna().all(axis=None)
    place.card(split=SHARES, metadata={"dicom": columns})
    assert place.ingest() == 0
    rows = place.manifest()
    assert rows["patient"].nunique() == 4
    assert not rows["patient"].str.contains("MRN").any()
    assert (rows.groupby("patient")["split"].nunique() == 1).all()
    assert set(rows["site"]) == {"Acme"}
    assert set(rows["sex"]) == {"F"}
    assert rows["age"].dropna().tolist() == [45, 0.5, 45, 0.5]


def _compressed(dataset: Dataset, frames: int = 1, syntax: UID = JPEGLSLossless, header: bytes = b"") -> None:
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([b"\xff\xd8" + header + b"\xff\xd9"] * frames)
    dataset["PixelData"].VR = "OB"


def _bomb(marker: int) -> Callable[[Dataset], object]:
    """A comment, then a frame header that asks for 65535 x 65535 pixels."""
    header = b"\xff\xfe\0\4hi\xff" + bytes([marker]) + b"\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0" + b"\0" * 40
    return lambda d: _compressed(d, syntax=JPEGLSLossless if marker == 0xF7 else JPEGLosslessSV1, header=header)


def _wide_jpeg_2000(dataset: Dataset) -> None:
    size = b"\xff\x4f\xff\x51" + struct.pack(">HH8IH", 41, 0, 60000, 8, 0, 0, 60000, 8, 0, 0, 1) + b"\7\1\1"
    _compressed(dataset, syntax=JPEG2000Lossless)
    dataset.PixelData = encapsulate([size + b"\0" * 40])


def _huge(dataset: Dataset) -> None:
    dataset.Rows = dataset.Columns = 65535


BAD: list[tuple[Callable[[Dataset], object], str]] = [
    (lambda d: delattr(d, "PixelData"), "holds no pixel data"),
    (_compressed, "pixels in JPEG-LS Lossless Image Compression can't be decoded; save them uncompressed"),
    (_bomb(0xF7), "holds a picture of 65535 x 65535 pixels in 1 channels, where the header tells 8 x 8"),
    (_bomb(0xC3), "holds a picture of 65535 x 65535 pixels"),
    (_wide_jpeg_2000, "holds a picture of 60000 x 8 pixels"),
    (lambda d: _compressed(d, 3), "the header tells one frame, and the pixel data is that of 3"),
    (lambda d: setattr(d, "PixelData", d.PixelData * 3), "the header tells one frame, and the pixel data is that of 3"),
    (lambda d: setattr(d, "NumberOfFrames", 30), "holds 30 frames, where a picture is one"),
    (lambda d: setattr(d, "NumberOfFrames", 0), "holds 0 frames, where a picture is one"),
    (lambda d: setattr(d, "PixelData", d.PixelData[:20]), "the pixel data is truncated"),
    (_huge, "the image has 65535 x 65535 pixels, more than the limit"),
    (lambda d: setattr(d, "Rows", 0), "the image has no pixels (8 x 0)"),
    (lambda d: setattr(d, "RescaleSlope", "1e999"), "RescaleSlope is inf"),
    (lambda d: d.add_new("WindowCenter", "LO", "Doe"), "WindowCenter is no number"),
    (lambda d: setattr(d, "BurnedInAnnotation", "YES"), "text is burned into its pixels"),
]


@pytest.mark.parametrize(("spoil", "sentence"), BAD, ids=[sentence[:40] for _, sentence in BAD])
def test_a_bad_file_stops_ingest_with_a_sentence(
    place: Workspace, capsys: pytest.CaptureFixture[str], spoil: Callable[[Dataset], object], sentence: str
) -> None:
    pictures(place)
    dataset = picture(np.zeros((8, 8), np.uint16))
    spoil(dataset)
    (place.data / "none" / "bad.dcm").write_bytes(written(dataset))
    refused(place, capsys, 65, "none/bad.dcm: ", sentence)
    if "burned" not in sentence:
        with pytest.raises(ValueError, match=r"\w"):
            decode_image(written(dataset))


def test_an_unknown_transfer_syntax_is_named(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(place)
    data = written(picture(GREY)).replace(ExplicitVRLittleEndian.encode(), b"1.2.840.10008.9.9.9", 1)
    (place.data / "none" / "bad.dcm").write_bytes(data)
    refused(place, capsys, 65, "none/bad.dcm: the transfer syntax '1.2.840.10008.9.9.9' is unknown.")


def test_a_broken_element_is_no_crash(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(place)
    data = written(picture(GREY)).replace(b"\x28\0\x04\0CS", b"\x28\0\x04\0CX")
    (place.data / "none" / "bad.dcm").write_bytes(data)
    refused(
        place,
        capsys,
        65,
        "none/bad.dcm: its element PhotometricInterpretation is broken; export the file anew.",
    )


def test_a_file_of_4_gb_is_not_read(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(place)
    with (place.data / "none" / "bad.dcm").open("wb") as file:
        file.write(written(picture(GREY)))
        file.truncate(1 << 32)  # takes no room on the disk
    refused(place, capsys, 65, "none/bad.dcm: the file has 4294967296 bytes, more than the limit of 800000000")


def test_no_image_of_4_gb_is_copied(place: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    place.published()
    with place.image("train/none/bad.png").open("ab") as file:
        file.truncate(1 << 32)
    refused(place, capsys, 65, "'train/none/bad.png': the file has 4294967296 bytes, more than the limit of 800000000")


def test_bytes_beyond_the_limit_are_not_looked_at() -> None:
    with pytest.raises(ValueError, match="the file has 800000001 bytes, more than the limit of 800000000"):
        decode_image(bytes(MAX_BYTES + 1))  # which take no memory until they are read


def test_each_of_pydicoms_own_files_is_read_or_refused_with_a_sentence() -> None:
    files = sorted(file for file in Path(pydicom.data.__file__).parent.rglob("*") if is_dicom(file))
    read, sentences = [], []
    for file in files:
        try:
            read.append(decode_image(pack_picture(file, "it", DicomRules(frames="middle", burned_in="keep"))))
        except DataRejected as error:
            sentences.append(str(error))
    assert len(files) > 150
    assert len(read) > 80
    assert [text for text in sentences if not re.fullmatch(r"it: [^\n]{10,}\.", text)] == []
