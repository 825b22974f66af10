"""One DICOM file, by pydicom: checked by its header, then decoded and rescaled; and as a picture.

What is measured is kept in its units (Hounsfield's, say) up to the window. Colours become RGB.
"""

import io
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from clinprompt.data import formats
from clinprompt.data.codecs.base import Codec, Measured, check_size
from clinprompt.data.codecs.dicom_frames import check_encoded_size, check_frames, choose_frame, lift

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = b"1.2.840.10008.1.2.1.99"  # this transfer syntax unpacks to any size
_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
_USED = (
    "PhotometricInterpretation", "VOILUTFunction", "BurnedInAnnotation", "SeriesInstanceUID", "Rows", "Columns",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *_PADDING,
)  # fmt: skip
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def read_header(file: Path | IO[bytes], tags: Iterable[str]) -> "Dataset":
    """Some tags of a DICOM file, without its pixels; raises whatever pydicom does of a broken one."""
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings would show values
    return pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=[*tags])


def parse(data: bytes, name: str) -> "Dataset":
    """One DICOM file, with or without its preamble and meta group.

    Raises:
        ValueError: it is none, or is compressed as a whole.
    """
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # as in `read_header`
    if _DEFLATED in data:
        raise ValueError(f"{name}: deflated DICOM files are not read")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=formats.is_dicom_file(data))
        if not getattr(dataset, "file_meta", None):
            dataset.file_meta = FileMetaDataset()
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        for tag in _USED:
            dataset.get(tag)  # which converts it
        return dataset
    except InvalidDicomError:
        raise ValueError(f"{name} is no DICOM file") from None
    except Exception as error:  # pydicom raises whatever a broken file leads it to
        raise ValueError(f"{name} is a broken DICOM file ({type(error).__name__})") from None


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
    except Exception as error:
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_transfer_syntax or syntax.is_private:
            raise ValueError(f"{name}: the transfer syntax {str(syntax)[:64]!r} is unknown") from None
        if syntax.is_compressed:
            raise ValueError(f"{name}: pixels in {syntax.name} can't be decoded; save them uncompressed") from None
        raise ValueError(f"{name}: the pixel data is truncated or broken ({type(error).__name__})") from None


def rescaled(values: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Stored values as the quantity that they stand for; whole numbers stay whole.

    Raises:
        ValueError: the slope or the intercept is not finite.
    """
    slope, intercept = _rescale(dataset)
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
    try:
        lift(dataset, frame)
    except Exception as error:  # pydicom converts only now, and raises what it likes
        raise ValueError(f"{name} is a broken DICOM file ({type(error).__name__})") from None
    kind, samples = str(dataset.get("PhotometricInterpretation")), whole_number(dataset, "SamplesPerPixel", name, 1)
    if (samples, kind) not in [(1, grey) for grey in (*_GREY, _PALETTE)] + [(3, colour) for colour in _COLOURS]:
        raise ValueError(
            f"{name} has {samples} values per pixel as {kind[:16]}, which is not read; grey and colours are"
        )
    allocated, stored = whole_number(dataset, "BitsAllocated", name), whole_number(dataset, "BitsStored", name)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or (kind in _COLOURS and allocated == 32):
        raise ValueError(f"{name} has {stored} of {allocated} bits per value, which is not read; 8 and 16 are")
    if whole_number(dataset, "HighBit", name, stored - 1) != stored - 1:
        raise ValueError(f"{name} has values that do not begin at their lowest bit, which is not read")
    if "ModalityLUTSequence" in dataset:
        raise ValueError(f"{name} scales its values by a table (ModalityLUTSequence), which is not read")
    _rescale(dataset)
    _window(dataset)
    check_size(whole_number(dataset, "Columns", name), whole_number(dataset, "Rows", name))
    if not isinstance(frames, int):
        check_frames(dataset, told, name)
    return frame if told > 1 else None


def whole_number(dataset: "Dataset", tag: str, name: str, default: int | None = None) -> int:
    """A number of the header.

    Raises:
        ValueError: it is missing, or is no whole number.
    """
    try:
        value: Any = dataset.get(tag)
        if value in (None, "") and default is not None:
            return default
        return int(value)
    except Exception:  # pydicom converts only now, and raises what it likes
        raise ValueError(f"{name}: {tag} is missing or no whole number") from None


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
    # Bits above the stored ones may hold anything, as overlays did.
    spare = values.dtype.itemsize * 8 - int(dataset.BitsStored)
    native = values.astype(values.dtype.newbyteorder("="))
    return (native << spare) >> spare if spare > 0 else native


def _coloured(values: np.ndarray, dataset: "Dataset", name: str) -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    try:
        colours = apply_color_lut(values, dataset)[..., :3]
    except Exception as error:
        raise ValueError(f"{name}: its palette is broken ({type(error).__name__})") from None
    return (colours >> 8).astype(np.uint8) if colours.dtype.itemsize > 1 else colours


def _measured(values: np.ndarray, dataset: "Dataset") -> Measured:
    bits, signed = int(dataset.BitsStored), values.dtype.kind == "i"
    slope, intercept = _rescale(dataset)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    low, high = sorted(end * slope + intercept for end in ends)
    return Measured(
        rescaled(values, dataset),
        (low, high),
        _known(values, dataset),
        _window(dataset),
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


def _window(dataset: "Dataset") -> tuple[float, float] | None:
    """The lowest and the highest value of the header's first window (DICOM PS3.3, C.11.2.1.2)."""
    centre, width = (_number(dataset, tag) for tag in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    if dataset.get("VOILUTFunction") in (None, "", "LINEAR"):
        centre, width = centre - 0.5, width - 1
    return (centre - width / 2, centre + width / 2) if width > 0 else None


def _rescale(dataset: "Dataset") -> tuple[float, float]:
    slope, intercept = (_number(dataset, tag) for tag in ("RescaleSlope", "RescaleIntercept"))
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _number(dataset: "Dataset", tag: str) -> float | None:
    """A number of the header, the first of several; None where it is not there.

    Raises:
        ValueError: it is no finite number.
    """
    try:
        value: Any = dataset.get(tag)
        number = None if value in (None, "") or not np.size(value) else float(np.ravel(value)[0])
    except Exception:  # pydicom converts only now; what it says may hold the value
        raise ValueError(f"{tag} is no number") from None
    if number is not None and not np.isfinite(number):
        raise ValueError(f"{tag} is {number}")
    return number


def _probe(data: bytes) -> tuple[int, int, str]:
    dataset = parse(data, "the file")
    if "PixelData" not in dataset:
        raise ValueError("the file holds no pixel data")
    width, height = (whole_number(dataset, tag, "the file") for tag in ("Columns", "Rows"))
    kind = "int" if whole_number(dataset, "PixelRepresentation", "the file", 0) else "uint"
    samples, bits = (whole_number(dataset, tag, "the file", 1) for tag in ("SamplesPerPixel", "BitsStored"))
    return width, height, f"{samples}x{kind}{bits}"


def _read(data: bytes, frames: str = "one") -> np.ndarray | Measured:
    dataset = parse(data, "the file")
    frame = check_picture(dataset, "the file", frames)
    values = picture_values(dataset, "the file", frame)
    return _measured(values, dataset) if values.ndim == 2 else values


def codec(frames: str = "one") -> Codec:
    """The codec of DICOM pictures, under a card's rule for files of several frames."""
    return Codec(formats.DICOM_FILE, _probe, partial(_read, frames=frames))
