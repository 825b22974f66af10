"""What a DICOM file may begin with and hold beside its picture, at what cost, and sentences for what is missing."""

import io
import re
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from dicom_workspace import pictures
from drawn_dicom import picture, written
from drawn_volumes import drawn, nifti, slices, zipped
from ingest_workspace import Workspace, refused
from PIL import Image
from pydicom import Dataset, Sequence
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from clinprompt.data.codecs import decode_image, dicom_elements, dicom_frames, probe
from clinprompt.data.dicom_facts import header_facts

GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
_FIRST = b"\x08\0\x16\0"  # the tag of the dataset's first element
_SHAPE = b"\x28\0\x02\0"  # and of the first one that tells of the pixels


def _in(syntax: UID) -> bytes:
    dataset = picture(GREY)
    dataset.file_meta.TransferSyntaxUID = syntax
    return written(dataset)


def _without_meta(syntax: UID) -> bytes:
    data = _in(syntax)
    return data[data.index(b"\0\x08\0\x16" if syntax == ExplicitVRBigEndian else _FIRST) :]


def _without_length(data: bytes) -> bytes:
    """A file whose meta group does not tell its length."""
    return data[:132] + data[144:]


BEGINNINGS = {
    "no preamble": written(picture(GREY))[128:],
    "no mark": written(picture(GREY))[132:],
    "no preamble, big endian": _in(ExplicitVRBigEndian)[128:],
    "no length of the meta group": _without_length(written(picture(GREY))),
    "no mark, no length": _without_length(written(picture(GREY)))[132:],
    "explicit, no meta group": _without_meta(ExplicitVRLittleEndian),
    "implicit, no meta group": _without_meta(ImplicitVRLittleEndian),
    "big endian, no meta group": _without_meta(ExplicitVRBigEndian),
    "a mark, no meta group": b"DICM" + _without_meta(ImplicitVRLittleEndian),
    "deflated": _in(DeflatedExplicitVRLittleEndian),
    "deflated, no preamble": _in(DeflatedExplicitVRLittleEndian)[128:],
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_file_may_begin_in_many_ways(beginning: str, tmp_path: Path) -> None:
    data = BEGINNINGS[beginning]
    assert np.array_equal(decode_image(data).values[..., 0], GREY)
    assert probe(data)[:2] == (6, 4)
    file = tmp_path / "scan.dcm"
    file.write_bytes(data)
    assert header_facts(file, ["patient"])["patient"] == "MRN4711"


def test_ingest_takes_files_that_begin_in_many_ways(place: Workspace) -> None:
    pictures(place)
    for number, beginning in enumerate(BEGINNINGS):
        (place.data / "none" / f"{number}x.dcm").write_bytes(BEGINNINGS[beginning])
    assert place.ingest() == 0
    rows = place.manifest()
    assert len(rows) == 8 + len(BEGINNINGS)
    assert rows[rows["path"].str.endswith("x.dcm")]["id"].nunique() == 1  # each is the same picture


@pytest.mark.parametrize("text", [b"DICM is a mark, and this is a text", b"\0\x08\0\0pq", b"\x02\0\0\0??", b"\x08\0"])
def test_what_begins_alike_is_no_dicom_file(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a PNG, JPEG"):
        decode_image(text)


def test_a_transfer_syntax_that_a_comment_names_is_none() -> None:
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        dataset = picture(GREY, ImageComments=f"was {DeflatedExplicitVRLittleEndian}")
        dataset.file_meta.TransferSyntaxUID = syntax
        assert np.array_equal(decode_image(written(dataset)).values[..., 0], GREY)


def test_a_deflated_file_is_read_as_the_same_one_plain() -> None:
    deflated = Path(str(get_testdata_file("image_dfl.dcm", download=False))).read_bytes()
    length = struct.unpack("<L", deflated[140:144])[0]
    body = zlib.decompress(deflated[144 + length :], -zlib.MAX_WBITS)
    assert np.array_equal(decode_image(deflated).values, decode_image(body).values)


def test_a_deflated_bomb_is_unpacked_no_further_than_the_limit(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(place)
    monkeypatch.setattr(dicom_elements, "MAX_BYTES", 4 << 20)
    plain = _in(DeflatedExplicitVRLittleEndian)
    start = 144 + struct.unpack("<L", plain[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = zlib.decompress(plain[start:], -zlib.MAX_WBITS) + bytes(60 << 20)
    bomb = plain[:start] + packer.compress(body) + packer.flush()
    (place.data / "none" / "bomb.dcm").write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="the file unpacks to more than the limit of 4194304 bytes"):
            decode_image(bomb)
        assert header_facts(place.data / "none" / "bomb.dcm", ["patient"])["patient"] == "MRN4711"
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    refused(place, capsys, 65, "none/bomb.dcm: the file unpacks to more than the limit")


def _calls(data: bytes, of: Callable[..., object] | None = None) -> int:
    """How many Python functions run while an image is read; or how often one of them does."""
    counted = 0
    code = of.__code__ if of is not None else None

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal counted
        counted += event == "call" and code in (None, frame.f_code)

    sys.setprofile(count)
    try:
        decode_image(data)
    finally:
        sys.setprofile(None)
    return counted


def _encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, kind)
    return stream.getvalue()


FORMATS = {kind: _encoded(kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WebP")}
FORMATS |= {syntax.name: _in(syntax) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)}
FORMATS |= {"NIfTI": nifti(drawn((4, 5, 6)))}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("filler", [b"\0", b"\xff\xd9\x21\xfe"])
def test_bytes_behind_the_pixels_cost_no_work(kind: str, filler: bytes) -> None:
    data = FORMATS[kind]
    longer = data + filler * (1 << 20)
    assert np.array_equal(decode_image(longer).values, decode_image(data).values)
    assert _calls(longer) <= _calls(data) + 10


def test_bytes_behind_the_pixels_of_slices_cost_no_work() -> None:
    def longer(dataset: Dataset) -> Dataset:
        dataset.add_new(0xFFFCFFFC, "OB", bytes(1 << 10))  # data set trailing padding
        dataset.add_new(0xFFFEFFF0, "SQ", Sequence([Dataset() for _ in range(2000)]))
        return dataset

    volume = drawn((6, 7, 8))
    plain, padded = zipped(slices(volume)), zipped([longer(dataset) for dataset in slices(volume)])
    assert np.array_equal(decode_image(padded).values, decode_image(plain).values)
    assert _calls(padded) <= _calls(plain) + 100


def test_a_file_is_parsed_once() -> None:
    assert _calls(written(picture(GREY)), dicom_elements.parse) == 1


def test_each_slice_of_a_series_is_parsed_once() -> None:
    volume = drawn((6, 7, 8))
    assert _calls(zipped(slices(volume)), dicom_elements.parse) == len(slices(volume))


def _items(count: int, length: int) -> bytes:
    """A table of greys of so many empty items; a length of 2**32 - 1 is an unknown one."""
    content = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * count
    return struct.pack("<HH2sHL", 0x28, 0x3010, b"SQ", 0, length) + content


@pytest.mark.parametrize(
    ("many", "sentence"),
    [
        (bytes(8 * 2000), "holds more elements than an image has"),
        (_items(2000, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0), "holds more elements than an image has"),
        (_items(2000, 8 * 2000), "its element VOILUTSequence is broken, or larger than any image's"),
    ],
)
def test_elements_in_front_of_the_pixels_are_no_more_than_a_limit(
    many: bytes, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_elements, "_MOST_READS", 1500)
    monkeypatch.setattr(dicom_elements, "_MOST_ITEMS", 300)
    data = written(picture(GREY))
    place = data.index(_SHAPE)
    assert np.array_equal(decode_image(data).values[..., 0], GREY)
    with pytest.raises(ValueError, match=sentence):
        decode_image(data[:place] + many + data[place:])


def test_a_number_of_many_bytes_is_not_made_a_list_of() -> None:
    dataset = picture(GREY, WindowCenter=["1"] * 200_000, WindowWidth=1)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    with pytest.raises(ValueError, match=r"holds an element \(0028,1050\) of more than 262144 bytes"):
        decode_image(written(dataset))


def test_pixel_data_lies_in_no_more_pieces_than_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_frames, "_MOST_PIECES", 1000)
    pieces = picture(GREY, PixelData=struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 1010)
    data = written(pieces).replace(ExplicitVRLittleEndian.encode(), RLELossless.encode(), 1)
    with pytest.raises(ValueError, match="the pixel data lies in more pieces than that of 10000 frames"):
        decode_image(data)


def _long_runs(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = RLELossless
    runs = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0" * 100_000  # 128 zeros each
    dataset.PixelData = encapsulate([runs])
    dataset["PixelData"].VR = "OB"


def _without(tag: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, tag)


def _tagged(**fields: Any) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for name, value in fields.items():
            setattr(dataset, name, value)

    return change


BAD: list[tuple[Callable[[Dataset], object], str]] = [
    (
        _without("PixelRepresentation"),
        "PixelRepresentation is missing or no whole number; write it into the header .0 for",
    ),
    (
        _without("PlanarConfiguration"),
        "PlanarConfiguration is missing or no whole number; write it into the header .0 for",
    ),
    (_without("Rows"), "Rows is missing or no whole number; write it into the header, or export the file anew"),
    (_without("BitsStored"), "BitsStored is missing or no whole number; write it into the header"),
    (
        _without("PhotometricInterpretation"),
        "PhotometricInterpretation is missing; write it into the header .MONOCHROME2",
    ),
    (_tagged(PixelRepresentation=7), "PixelRepresentation is 7; write the right number into the header .0 for values"),
    (_tagged(PlanarConfiguration=2), "PlanarConfiguration is 2; write the right number into the header .0 for colours"),
    (_tagged(ModalityLUTSequence=Sequence([Dataset()])), "scales its values by a table .ModalityLUTSequence."),
    (_long_runs, "holds more run lengths than a picture of 6 x 4 pixels has"),
]


@pytest.mark.parametrize(("spoil", "sentence"), BAD, ids=[sentence[:40] for _, sentence in BAD])
def test_what_is_missing_is_named_with_what_to_do(
    place: Workspace, capsys: pytest.CaptureFixture[str], spoil: Callable[[Dataset], object], sentence: str
) -> None:
    pictures(place)
    dataset = picture(np.zeros((4, 6, 3), np.uint8))
    spoil(dataset)
    (place.data / "none" / "bad.dcm").write_bytes(written(dataset))
    assert place.ingest() == 65
    said = capsys.readouterr().out
    assert re.search(sentence, said)
    assert "Error" not in said
    with pytest.raises(ValueError, match=sentence) as why:
        decode_image(written(dataset))
    assert "Error" not in str(why.value)


@pytest.mark.parametrize(("spoil", "sentence"), BAD[:1] + BAD[2:4] + BAD[5:6] + BAD[7:8])
def test_slices_of_a_volume_are_held_to_the_same(spoil: Callable[[Dataset], object], sentence: str) -> None:
    datasets = slices(drawn((6, 7, 8)))
    spoil(datasets[2])
    with pytest.raises(ValueError, match=sentence):
        decode_image(zipped(datasets))


def test_bits_above_the_stored_ones_are_none_of_a_slice() -> None:
    volume = drawn((6, 7, 8))
    datasets = slices(volume)
    for dataset in datasets:
        values = np.frombuffer(dataset.PixelData, np.uint16)
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        dataset.PixelData = (values | 0xF000).tobytes()
    assert np.array_equal(decode_image(zipped(datasets)).values, decode_image(nifti(volume)).values)
