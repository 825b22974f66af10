"""One DICOM file, by pydicom: checked by its header, then decoded and rescaled; and as a picture.

What is measured is kept in its units (Hounsfield's, say) up to the window. Colours become RGB.
"""

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from clinprompt.data import formats
from clinprompt.data.codecs.base import Codec, Measured, check_size
from clinprompt.data.codecs.dicom_elements import parse
from clinprompt.data.codecs.dicom_frames import check_encoded_size, check_frames, choose_frame, lift
from clinprompt.data.codecs.dicom_palette import check_palette
from clinprompt.data.codecs.dicom_shown import rescale, table_of, window

if TYPE_CHECKING:
    from pydicom import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_DIFFERENCES = ("YBR_FULL", "YBR_FULL_422")  # turned to RGB here, where the other two are by their decoder
_MEANT_BY_KIND = "MONOCHROME2 where high values are bright, MONOCHROME1 where they are dark, RGB for colours"
_MEANT = {
    "PixelRepresentation": "0 for values without a sign, 1 for values with one",
    "PlanarConfiguration": "0 for colours pixel by pixel, 1 for colours plane by plane",
}


def stored_values(dataset: "Dataset", name: str, frame: int | None = None) -> np.ndarray:
    """The stored values [rows, columns], of colours [rows, columns, 3] in RGB, before rescaling.

    Args:
        frame: of several, the number of the one that is meant, from 0.

    Raises:
        ValueError: they are compressed in a way that can't be undone, of another size than the header tells, or broken.
    """
    from pydicom.pixels import pixel_array

    check_encoded_size(dataset, frame, name)
    try:
        return np.asarray(pixel_array(dataset, index=frame))
    except Exception:
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_transfer_syntax or syntax.is_private:
            raise ValueError(f"{name}: the transfer syntax {str(syntax)[:64]!r} is unknown") from None
        if syntax.is_compressed:
            raise ValueError(f"{name}: pixels in {syntax.name} can't be decoded; save them uncompressed") from None
        raise ValueError(f"{name}: the pixel data is truncated or broken; export the file anew") from None


def rescaled(values: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Stored values as the quantity that they stand for; whole numbers stay whole.

    Raises:
        ValueError: the slope or the intercept is not finite.
    """
    slope, intercept = rescale(dataset)
    whole = values.dtype.kind in "ui" and values.dtype.itemsize <= 2 and slope == 1 and intercept.is_integer()
    return values.astype(np.int32) + int(intercept) if whole else (values * slope + intercept).astype(np.float32)


def check_picture(dataset: "Dataset", name: str, frames: str | int = "one") -> int | None:
    """Refuse, before its pixels are read, a DICOM file that is not one picture of a size that is read.

    Of an enhanced file, the scale and the window of the frame that is the picture are moved to the header.

    Args:
        frames: which frame is the picture where there are several: see `choose_frame`. A number is of a file whose
            frames were counted before.

    Returns:
        The frame's number, from 0; None where there is but one.

    Raises:
        ValueError: with the reason.
    """
    if "PixelData" not in dataset:
        raise ValueError(f"{name} holds no pixel data")
    told = whole_number(dataset, "NumberOfFrames", name, 1)
    frame = choose_frame(told, frames, name)
    lift(dataset, frame, name)
    if not dataset.get("PhotometricInterpretation"):
        raise ValueError(f"{name}: PhotometricInterpretation is missing; write it into the header ({_MEANT_BY_KIND})")
    kind, samples = str(dataset.PhotometricInterpretation), whole_number(dataset, "SamplesPerPixel", name, 1)
    if (samples, kind) not in [(1, grey) for grey in (*_GREY, _PALETTE)] + [(3, colour) for colour in _COLOURS]:
        raise ValueError(
            f"{name} has {samples} values per pixel as {kind[:16]}, which is not read; grey and colours are"
        )
    allocated, stored = whole_number(dataset, "BitsAllocated", name), whole_number(dataset, "BitsStored", name)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or (kind in _COLOURS and allocated == 32):
        raise ValueError(f"{name} has {stored} of {allocated} bits per value, which is not read; 8 and 16 are")
    if kind in _DIFFERENCES and allocated != 8:
        raise ValueError(f"{name} has colours of {allocated} bits as {kind}, which is not read; save them as RGB")
    if kind == _PALETTE:
        check_palette(dataset, name)
    check_values(dataset, name)
    window(dataset)
    table_of(dataset, name)
    check_size(whole_number(dataset, "Columns", name), whole_number(dataset, "Rows", name))
    if not isinstance(frames, int):
        check_frames(dataset, told, name)
    return frame if told > 1 else None


def check_values(dataset: "Dataset", name: str) -> None:
    """Refuse values that are packed or scaled in a way that is not read, or of which the header does not tell enough.

    Raises:
        ValueError: with the reason.
    """
    for tag in ("PixelRepresentation", *(["PlanarConfiguration"] if dataset.get("SamplesPerPixel") == 3 else [])):
        meant = _MEANT[tag]
        if (told := whole_number(dataset, tag, name, meant=f" ({meant})")) not in (0, 1):
            raise ValueError(f"{name}: {tag} is {told}; write the right number into the header ({meant})")
    stored = whole_number(dataset, "BitsStored", name)
    if whole_number(dataset, "HighBit", name, stored - 1) != stored - 1:
        raise ValueError(f"{name} has values that do not begin at their lowest bit, which is not read")
    if dataset.get("ModalityLUTSequence"):
        raise ValueError(f"{name} scales its values by a table (ModalityLUTSequence), which is not read")
    rescale(dataset)


def whole_number(dataset: "Dataset", tag: str, name: str, default: int | None = None, meant: str = "") -> int:
    """A number of the header.

    Args:
        default: for one that is missing; None: it may not be.
        meant: what the numbers mean, for the sentence.

    Raises:
        ValueError: it is missing, or is no whole number.
    """
    try:
        value: Any = dataset.get(tag)
        if value in (None, "") and default is not None:
            return default
        return int(value)
    except Exception:  # pydicom converts only now, and raises what it likes
        fix = f"write it into the header{meant}, or export the file anew"
        raise ValueError(f"{name}: {tag} is missing or no whole number; {fix}") from None


def picture_values(dataset: "Dataset", name: str, frame: int | None) -> np.ndarray:
    """The stored values of a picture that `check_picture` accepts: [H, W] of grey, [H, W, 3] in RGB of colours.

    Args:
        frame: what `check_picture` gave.

    Raises:
        ValueError: see `stored_values`.
    """
    values = stored_values(dataset, name, frame)
    shape = (int(dataset.Rows), int(dataset.Columns))
    if values.shape not in (shape, (*shape, 3)):
        raise ValueError(f"{name}: pixels of shape {list(values.shape)} in a picture of another size")
    if dataset.PhotometricInterpretation == _PALETTE:
        return _coloured(values, dataset, name)
    return without_spare_bits(values, dataset)


def without_spare_bits(values: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Stored values in this machine's order; bits above the stored ones may hold anything, as overlays did."""
    spare = values.dtype.itemsize * 8 - int(dataset.BitsStored)
    native = values.astype(values.dtype.newbyteorder("="))
    return (native << spare) >> spare if spare > 0 else native


def _coloured(values: np.ndarray, dataset: "Dataset", name: str) -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    try:
        colours = apply_color_lut(values, dataset)[..., :3]
    except Exception:
        raise ValueError(f"{name}: its palette is broken; export the file anew, in RGB") from None
    return (colours >> 8).astype(np.uint8) if colours.dtype.itemsize > 1 else colours


def _measured(values: np.ndarray, dataset: "Dataset") -> Measured:
    bits, signed = int(dataset.BitsStored), values.dtype.kind == "i"
    slope, intercept = rescale(dataset)
    table = table_of(dataset, "the file")
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    low, high = sorted(end * slope + intercept for end in ends)
    return Measured(
        rescaled(values, dataset),
        (low, high),
        _known(values, dataset),
        window(dataset),
        table.shown if table else None,
        is_8_bit=bits <= 8,
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
    )


def _known(values: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Where the pixels are no padding: that is one stored value, or all from it to another."""
    ends = padding(dataset, values.dtype)
    return ~((values >= min(ends)) & (values <= max(ends))) if ends else np.ones(values.shape, bool)


def padding(dataset: "Dataset", kind: np.dtype) -> list[int]:
    """The stored values of type `kind` that pixels without a measurement have: none, one, or both ends of a range.

    Raises:
        ValueError: one is no number.
    """
    numbers = [whole_number(dataset, tag, "the file") for tag in _PADDING if dataset.get(tag) not in (None, "")]
    bits = kind.itemsize * 8  # a header may write a value with the other sign
    if kind.kind == "i":
        return [number - 2**bits if number >= 2 ** (bits - 1) else number for number in numbers]
    return [number % 2**bits for number in numbers]


def _probe(dataset: "Dataset") -> tuple[int, int, str]:
    if "PixelData" not in dataset:
        raise ValueError("the file holds no pixel data")
    width, height = (whole_number(dataset, tag, "the file") for tag in ("Columns", "Rows"))
    kind = "int" if whole_number(dataset, "PixelRepresentation", "the file", 0) else "uint"
    samples, bits = (whole_number(dataset, tag, "the file", 1) for tag in ("SamplesPerPixel", "BitsStored"))
    return width, height, f"{samples}x{kind}{bits}"


def _read(dataset: "Dataset", frames: str) -> np.ndarray | Measured:
    frame = check_picture(dataset, "the file", frames)
    values = picture_values(dataset, "the file", frame)
    if values.ndim == 2:
        return _measured(values, dataset)
    # As grey's, the range of the stored bits becomes the type's.
    return values << (16 - int(dataset.BitsStored)) if values.dtype.itemsize == 2 else values


def codec(frames: str = "one") -> Codec:
    """The codec of DICOM pictures, for one file, under a card's rule for files of several frames."""
    parsed = cache(partial(parse, name="the file"))  # once for its header and its pixels
    return Codec(formats.DICOM_FILE, lambda data: _probe(parsed(data)), lambda data: _read(parsed(data), frames))
