"""How DICOM pictures are shown: tables of greys and windows, colours and palettes, held against pydicom's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_dicom import film, picture, written
from pydicom import Dataset, Sequence, dcmread
from pydicom.data import get_palette_files, get_testdata_file
from pydicom.pixels import apply_color_lut, apply_rescale, apply_voi_lut, convert_color_space, pixel_array
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from clinprompt.data.card import DicomRules
from clinprompt.data.codecs import decode_image
from clinprompt.data.series import pack_frames, pack_picture

RAMP = np.arange(-1000, 1400, 100, dtype=np.int16).reshape(4, 6)
FILM = np.arange(0, 4800, 200, dtype=np.uint16).reshape(4, 6)
GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)


def shown(data: bytes, intensity: str | list[float] = "auto") -> np.ndarray:
    return decode_image(data, intensity).values[..., 0]


def table(entries: np.ndarray, first: int, bits: int, kind: str = "US") -> Dataset:
    """A table of greys as an item, with an explanation that names the patient."""
    item = Dataset()
    item.add_new("LUTDescriptor", kind, [len(entries) % 65536, first, bits])
    item.LUTExplanation = "for Doe^Jane"
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return item


def with_table(values: np.ndarray, item: Dataset, **fields: Any) -> Dataset:
    return picture(values, VOILUTSequence=Sequence([item]), **fields)


CURVE = (np.linspace(0, 1, 4096) ** 2 * 4095).astype(np.uint16)
TABLES = [
    with_table(FILM, table(4095 - np.arange(4096), 0, 12)),  # turns the contrast round
    with_table(FILM, table(CURVE[:3000], 500, 12)),  # with values on both sides of it
    with_table(FILM, table(np.arange(65536), 0, 16)),
    with_table(GREY, table(np.arange(256)[::-1], 0, 8)),
    with_table(RAMP, table(CURVE, -900, 12, "SS")),
    with_table(FILM, table(CURVE, -1000, 12, "SS"), RescaleSlope=1, RescaleIntercept=-1024),
    with_table(FILM, table(CURVE, 3, 12), RescaleSlope=0.37, RescaleIntercept=0),
    with_table(FILM, table(CURVE, 0, 12), WindowCenter=100, WindowWidth=50),  # the table goes first, as in pydicom
]


@pytest.mark.filterwarnings("ignore:Applying a VOI LUT on a float")
@pytest.mark.parametrize("dataset", TABLES)
def test_a_files_own_table_of_greys_is_applied_as_by_pydicom(dataset: Dataset, tmp_path: Path) -> None:
    values = apply_voi_lut(apply_rescale(pixel_array(dataset), dataset), dataset)
    bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
    expected = np.rint(values * (255 / (2**bits - 1)))
    file = tmp_path / "film.dcm"
    file.write_bytes(written(dataset))
    copy = pack_picture(file, "film")
    assert np.array_equal(shown(file.read_bytes()), expected)
    assert np.array_equal(shown(copy), expected)
    assert b"Doe" not in copy
    dataset.PhotometricInterpretation = "MONOCHROME1"
    assert np.array_equal(shown(written(dataset)), 255 - expected)


def test_a_cards_window_and_the_full_range_win_over_the_files_table() -> None:
    plain, tabled = picture(FILM, BitsStored=13), with_table(FILM, table(CURVE[::-1], 0, 12), BitsStored=13)
    for intensity in ("full", [1000.0, 3000.0]):
        assert np.array_equal(shown(written(tabled), intensity), shown(written(plain), intensity))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_table_is_read_in_any_encoding(syntax: Any) -> None:
    dataset = with_table(RAMP, table(CURVE, -900, 12, "SS"))
    expected = shown(written(dataset))
    if syntax == ExplicitVRBigEndian:
        dataset.VOILUTSequence[0]["LUTData"].value = CURVE.astype(">u2").tobytes()
        dataset.PixelData = RAMP.astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(shown(written(dataset)), expected)


def test_a_table_of_a_frame_is_that_frames(tmp_path: Path) -> None:
    dataset = film(np.stack([FILM, FILM]))
    frames = [Dataset(), Dataset()]
    for frame, entries in zip(frames, (np.arange(4096), np.arange(4096)[::-1]), strict=True):
        inner = Dataset()
        inner.VOILUTSequence = Sequence([table(entries, 0, 12)])
        frame.FrameVOILUTSequence = Sequence([inner])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    file = tmp_path / "enhanced.dcm"
    file.write_bytes(written(dataset))
    first, second = (shown(source()) for source in pack_frames(file, "enhanced", DicomRules(frames="each")))
    expected = np.rint(FILM.clip(0, 4095) * (255 / 4095))
    assert np.array_equal(first, expected)
    assert np.array_equal(second, 255 - expected)


def _broken() -> list[Dataset]:
    short, odd, bare = table(CURVE, 0, 12), table(CURVE, 0, 9), Dataset()
    short.LUTData = short.LUTData[:100]
    bare.LUTExplanation = "nothing"
    return [short, odd, bare]


@pytest.mark.parametrize("item", _broken())
def test_a_broken_table_is_refused_with_a_sentence(item: Dataset) -> None:
    with pytest.raises(
        ValueError, match=r"its table of greys \(VOILUTSequence\) is broken; leave it out of the header"
    ):
        shown(written(with_table(FILM, item)))


def test_a_cards_window_holds_for_8_bits_as_for_more() -> None:
    expected = np.rint((GREY.clip(20, 120).astype(float) - 20) * (255 / 100))
    assert np.array_equal(shown(written(picture(GREY)), [20, 120]), expected)
    deep = picture(GREY.astype(np.uint16), BitsStored=12)
    assert np.array_equal(shown(written(deep), [20, 120]), expected)
    scaled = picture(GREY, RescaleSlope=4, RescaleIntercept=-100)
    measured = GREY * 4.0 - 100
    assert np.array_equal(shown(written(scaled), [0, 400]), np.rint(measured.clip(0, 400) * (255 / 400)))


def _file(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def _palette_file(name: str) -> Path:
    return Path(str(get_palette_files(f"{name}.dcm")[0]))


def test_colours_of_16_bits_are_pydicoms() -> None:
    file = _file("SC_rgb_rle_16bit.dcm")
    expected = np.rint(pixel_array(dcmread(file)).astype(float) * (255 / 65535))
    assert np.array_equal(decode_image(file.read_bytes(), "full").values, expected)


def test_colours_plane_by_plane_and_with_the_high_byte_first_are_as_drawn() -> None:
    colours = np.random.default_rng(3).integers(0, 65536, (4, 6, 3), np.uint16)
    expected = np.rint(colours * (255 / 65535))
    planes = picture(colours, PlanarConfiguration=1, PixelData=colours.transpose(2, 0, 1).astype("<u2").tobytes())
    assert np.array_equal(decode_image(written(planes), "full").values, expected)
    swapped = picture(colours, PixelData=colours.astype(">u2").tobytes())
    swapped.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    assert np.array_equal(decode_image(written(swapped), "full").values, expected)


def test_the_full_range_of_colours_is_that_of_the_stored_bits(tmp_path: Path) -> None:
    colours = np.arange(0, 72 * 56, 56, dtype=np.uint16).reshape(4, 6, 3)
    file = tmp_path / "colours.dcm"
    file.write_bytes(written(picture(colours, BitsStored=12)))
    expected = np.rint(colours * (255 / 4095))
    for data in (file.read_bytes(), pack_picture(file, "colours")):
        assert np.abs(decode_image(data, "full").values - expected).max() <= 1


def _palette(bits: int, first: int, values: np.ndarray) -> Dataset:
    """A picture of a palette of 100 colours of 8 or 16 bits."""
    dataset = picture(values, PhotometricInterpretation="PALETTE COLOR")
    for number, colour in enumerate(("Red", "Green", "Blue")):
        entries = np.random.default_rng(number).integers(0, 2**bits, 100, f"<u{bits // 8}")
        kind = "SS" if first < 0 else "US"
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", kind, [100, first, bits])
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", entries.tobytes())
    return dataset


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("first", "values"), [(0, GREY), (150, GREY.astype(np.uint16)), (-50, RAMP // 10)])
def test_palettes_are_pydicoms(bits: int, first: int, values: np.ndarray) -> None:
    dataset = _palette(bits, first, values)
    expected = apply_color_lut(values, dataset)
    eight = expected >> 8 if bits == 16 else expected
    assert len(np.unique(eight)) > 10
    assert np.array_equal(decode_image(written(dataset)).values, eight)


def test_the_palette_of_a_file_is_pydicoms() -> None:
    dataset = dcmread(_file("examples_palette.dcm"))
    expected = apply_color_lut(pixel_array(dataset), dataset)
    eight = expected >> 8 if expected.dtype == np.uint16 else expected
    assert np.array_equal(decode_image(_file("examples_palette.dcm").read_bytes()).values, eight)


@pytest.mark.parametrize("name", ["spring", "winter"])
def test_palettes_in_segments_are_pydicoms(name: str) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    dataset, palette = picture(values, PhotometricInterpretation="PALETTE COLOR"), dcmread(_palette_file(name))
    for element in palette:
        if "Palette" in element.keyword:
            dataset.add(element)
    assert "SegmentedRedPaletteColorLookupTableData" in dataset
    assert np.array_equal(decode_image(written(dataset)).values, apply_color_lut(values, palette))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_palette_in_segments_that_makes_more_colours_than_any_is_refused(depth: int) -> None:
    dataset = picture(GREY, PhotometricInterpretation="PALETTE COLOR")
    numbers = [0, 1, 0] + [1, 255, 255, 1, 255, 0] * 300  # from black to white and back again
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, depth])
        data = np.array(numbers, f"<u{depth // 8}").tobytes()
        setattr(dataset, f"Segmented{colour}PaletteColorLookupTableData", data + bytes(len(data) % 2))
    with pytest.raises(ValueError, match="its palette .SegmentedRed.* is broken or larger than any; export it anew"):
        decode_image(written(dataset))


def _in_rgb(stored: np.ndarray) -> np.ndarray:
    """Brightness and differences of colour as RGB (ITU-T T.871, section 7)."""
    luma, blue, red = np.moveaxis(stored.astype(float) - [0, 128, 128], -1, 0)
    channels = luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue
    return np.stack(channels, axis=-1).clip(0, 255)


def test_brightness_and_differences_of_colour_become_rgb() -> None:
    colours = np.random.default_rng(4).integers(0, 256, (8, 8, 3), np.uint8)
    stored = convert_color_space(colours, "RGB", "YBR_FULL")
    seen = decode_image(written(picture(stored, PhotometricInterpretation="YBR_FULL"))).values
    assert np.array_equal(seen, convert_color_space(stored, "YBR_FULL", "RGB"))
    assert np.abs(seen - _in_rgb(stored)).max() <= 1
    assert np.abs(seen.astype(int) - colours).max() <= 2


def test_differences_of_colour_of_each_second_pixel_become_rgb() -> None:
    dataset = dcmread(_file("SC_ybr_full_422_uncompressed.dcm"))
    stored = pixel_array(dataset, raw=True)
    seen = decode_image(_file("SC_ybr_full_422_uncompressed.dcm").read_bytes()).values
    assert np.array_equal(seen, convert_color_space(stored, "YBR_FULL_422", "RGB"))
    packed = np.frombuffer(dataset.PixelData, np.uint8).reshape(100, 50, 4)  # two of brightness, then their differences
    by_hand = np.stack(
        [packed[..., :2].reshape(100, 100), *(packed[..., k].repeat(2, axis=1) for k in (2, 3))], axis=-1
    )
    assert np.abs(seen - _in_rgb(by_hand)).max() <= 1


def test_differences_of_colour_of_16_bits_are_refused() -> None:
    colours = np.zeros((4, 6, 3), np.uint16)
    with pytest.raises(ValueError, match="colours of 16 bits as YBR_FULL, which is not read; save them as RGB"):
        decode_image(written(picture(colours, PhotometricInterpretation="YBR_FULL")))
