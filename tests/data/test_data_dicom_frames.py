"""DICOM files of several frames: which frame is the picture, one row for each frame, and headers that lie."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_workspace import SHARES, pictures
from drawn_dicom import film, picture, written
from ingest_workspace import Workspace, refused
from pydicom import Dataset, Sequence, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import JPEG2000, MPEG2MPML, UID, RLELossless

from clinprompt.data.card import DicomRules
from clinprompt.data.codecs import decode_image
from clinprompt.data.series import pack_frames, pack_picture

_START = b"\xff\x4f\xff\x51\0\0"  # of a picture in JPEG 2000
FRAMES = np.random.default_rng(5).integers(0, 250, (5, 8, 8), np.uint8)


def shown(copy: bytes) -> np.ndarray:
    return decode_image(copy).values[..., 0]


def test_the_cards_rule_chooses_the_frame_for_training_and_for_predictions(tmp_path: Path) -> None:
    file = tmp_path / "film.dcm"
    file.write_bytes(written(film(FRAMES)))
    for frames, number in (("first", 0), ("middle", 2)):
        copy = pack_picture(file, "film", DicomRules(frames=frames))
        assert np.array_equal(shown(copy), FRAMES[number])
        assert np.array_equal(decode_image(file.read_bytes(), frames=frames).values[..., 0], FRAMES[number])
    for frames in ("one", "each"):
        with pytest.raises(ValueError, match="holds 5 frames, where a picture is one"):
            decode_image(file.read_bytes(), frames=frames)


@pytest.mark.parametrize("name", ["examples_ybr_color.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit_2frame.dcm"])
def test_each_frame_of_a_compressed_file_is_as_pydicom_reads_it(name: str) -> None:
    file = Path(str(get_testdata_file(name, download=False)))
    sources = pack_frames(file, name, DicomRules(frames="each"))
    assert len(sources) == int(dcmread(file).NumberOfFrames)
    for number in (0, len(sources) - 1):
        seen = pixel_array(dcmread(file), index=number)
        alike = Dataset() if seen.dtype == np.uint8 else picture(seen)
        expected = seen if seen.dtype == np.uint8 else decode_image(written(alike)).values
        assert np.array_equal(decode_image(sources[number]()).values, expected)


def test_an_enhanced_file_has_its_scale_and_window_for_each_frame(tmp_path: Path) -> None:
    values = np.arange(2 * 24, dtype=np.int16).reshape(2, 4, 6) * 20
    dataset = film(values)
    shared, first, second = Dataset(), Dataset(), Dataset()
    windows = [Dataset(), Dataset()]
    windows[0].WindowCenter, windows[0].WindowWidth = 0.5, 401
    windows[1].WindowCenter, windows[1].WindowWidth = 500.5, 1001
    scale = Dataset()
    scale.RescaleSlope, scale.RescaleIntercept = 2, -1000
    shared.PixelValueTransformationSequence = Sequence([scale])
    first.FrameVOILUTSequence, second.FrameVOILUTSequence = Sequence([windows[0]]), Sequence([windows[1]])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([first, second])
    file = tmp_path / "enhanced.dcm"
    file.write_bytes(written(dataset))
    measured = values * 2.0 - 1000
    sources = pack_frames(file, "enhanced")
    for number, (low, high) in enumerate([(-200, 200), (0, 1000)]):
        expected = np.rint((measured[number].clip(low, high) - low) * (255 / (high - low)))
        assert np.array_equal(shown(sources[number]()), expected)
    assert np.array_equal(decode_image(file.read_bytes(), frames="middle").values[..., 0], shown(sources[1]()))


def test_each_frame_is_a_row_and_all_of_a_file_are_of_one_patient(place: Workspace) -> None:
    pictures(place)
    for number in (0, 1):
        values = np.random.default_rng(90 + number).integers(0, 250, (12, 8, 8), np.uint8)
        (place.data / "none" / f"film{number}").write_bytes(written(film(values)))
    place.card(split=SHARES, dicom={"frames": "each"})
    assert place.ingest() == 0
    rows = place.manifest().set_index("path")
    frames = rows[rows.index.str.startswith("none/film0#")]
    assert list(frames.index) == [f"none/film0#{number:02}" for number in range(1, 13)]
    assert frames["id"].nunique() == 12
    assert frames["split"].nunique() == frames["patient"].nunique() == 1
    assert rows.loc["none/film1#01", "patient"] != frames["patient"].iloc[0]
    assert rows.loc["none/2.dcm"].isna()[["patient", "study"]].all()
    values = np.random.default_rng(90).integers(0, 250, (12, 8, 8), np.uint8)
    copy = (place.folder / "out" / "images" / rows.loc["none/film0#12", "file"]).read_bytes()
    assert np.array_equal(shown(copy), values[11])


def _pieces(syntax: UID, pieces: list[bytes], told: int, has_bot: bool = False) -> Callable[[Dataset], None]:
    def spoil(dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID, dataset.NumberOfFrames = syntax, told
        dataset.PixelData = encapsulate(pieces, has_bot=has_bot)
        dataset["PixelData"].VR = "OB"

    return spoil


LIES: list[tuple[Callable[[Dataset], object], str]] = [
    (lambda d: setattr(d, "NumberOfFrames", 7), "the header tells 7 frames, and the pixel data is that of 5"),
    (lambda d: setattr(d, "NumberOfFrames", 3), "the header tells 3 frames, and the pixel data is that of 5"),
    (lambda d: setattr(d, "NumberOfFrames", 2**31 - 1), "holds 2147483647 frames, more than the limit of 10000"),
    (lambda d: setattr(d, "NumberOfFrames", -1), "holds -1 frames, where a picture is one"),
    (lambda d: setattr(d, "PixelData", d.PixelData[:40]), "the pixel data is truncated"),
    (_pieces(RLELossless, [bytes(64)] * 4, 5, has_bot=True), "tells 5 frames, and the pixel data is that of 4"),
    (_pieces(RLELossless, [bytes(64)] * 9, 5), "tells 5 frames, and the pixel data is that of 9"),
    # Two pictures, the first in two pieces.
    (_pieces(JPEG2000, [_START, b"\x12\x34", _START], 3), "tells 3 frames, and the pixel data is that of 2"),
    (_pieces(MPEG2MPML, [b"\0\0\1\xb3"], 5), "pixels in MPEG2 Main Profile / Main Level can't be decoded"),
]


@pytest.mark.parametrize("frames", ["middle", "each"])
@pytest.mark.parametrize(("spoil", "sentence"), LIES, ids=[sentence[:50] for _, sentence in LIES])
def test_a_frame_count_that_lies_stops_ingest(
    place: Workspace,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Dataset], object],
    sentence: str,
    frames: str,
) -> None:
    pictures(place)
    dataset = film(FRAMES)
    spoil(dataset)
    (place.data / "none" / "bad.dcm").write_bytes(written(dataset))
    place.card(split=SHARES, dicom={"frames": frames})
    refused(place, capsys, 65, "none/bad.dcm", sentence)
