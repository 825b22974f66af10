"""DICOM files of several frames: how many there are, which one is the picture, and what the header says of each.

And how large a compressed frame says itself that it is: decoders take its word, and memory for it.
"""

import struct
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING

from clinprompt.data.codecs.dicom_elements import GROUPS, converted, items

if TYPE_CHECKING:
    from pydicom import Dataset

MOST_FRAMES = 10_000
_MOST_PIECES = 1_000_000  # of compressed pixel data
# Where an enhanced file keeps what others have in the header itself (DICOM PS3.3, C.7.6.16.2).
_IN_GROUPS = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
}
LIFTED = tuple(tag for tags in _IN_GROUPS.values() for tag in tags)
_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51")  # of a picture in JPEG or JPEG-LS, of one in JPEG 2000
_RLE = "1.2.840.10008.1.2.5"
_RLE_HEADER, _RLE_SLACK = 64, 1024  # bytes
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, and that of JPEG-LS


class _TooManyPiecesError(ValueError):
    """So many that looking at each takes long."""


def choose_frame(told: int, frames: str | int, name: str) -> int:
    """The number, from 0, of the one frame that is the picture, of `told` in the header.

    Args:
        frames: "one", "first", "middle" or "each", as a card says; or the frame's number itself.

    Raises:
        ValueError: the header tells none, or several and nothing says which one is meant.
    """
    if told < 1:
        raise ValueError(f"{name} holds {told} frames, where a picture is one")
    if isinstance(frames, int):
        return frames
    if told > 1 and frames not in ("first", "middle"):
        raise ValueError(
            f"{name} holds {told} frames, where a picture is one; say dicom: {{frames: first}}, middle or each in the "
            "card, or save the one that is meant as a file"
        )
    return told // 2 if frames == "middle" else 0


def check_frames(dataset: "Dataset", told: int, name: str) -> None:
    """Hold the number of frames in the header against the pixel data.

    Raises:
        ValueError: the data is that of more frames, or of fewer; or they are too many.
    """
    if told > MOST_FRAMES:
        raise ValueError(f"{name} holds {told} frames, more than the limit of {MOST_FRAMES}")
    try:
        found = _found(dataset, told)
    except _TooManyPiecesError:
        raise ValueError(f"{name}: the pixel data lies in more pieces than that of {MOST_FRAMES} frames") from None
    except Exception:  # a syntax that is not undone, or no items where they should be: decoding tells
        return
    if found < 1:
        raise ValueError(f"{name}: the pixel data is truncated")
    if found != told:
        frames = "one frame" if told == 1 else f"{told} frames"
        raise ValueError(f"{name}: the header tells {frames}, and the pixel data is that of {found}")


def lift(dataset: "Dataset", frame: int, name: str) -> None:
    """Put what an enhanced file says of a frame's scale, window and table where other files have it.

    Raises:
        ValueError: it is broken.
    """
    for group, place in zip(GROUPS, (0, frame), strict=True):
        groups = items(dataset, group, name)
        for sequence, tags in _IN_GROUPS.items():
            inner = items(groups[place], sequence, name) if len(groups) > place else []
            for tag in tags:
                if not inner or tag not in inner[0]:
                    continue
                if tag.endswith("Sequence"):
                    dataset.add_new(tag, "SQ", items(inner[0], tag, name))
                else:
                    dataset.add(converted(inner[0], tag, name))


def check_encoded_size(dataset: "Dataset", frame: int | None, name: str) -> None:
    """Hold the size in the header against that in a compressed frame, before it is unpacked.

    Raises:
        ValueError: the frame is of another size.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        if not syntax.is_compressed:
            return
        data = _frame(dataset, frame or 0)
    except Exception:  # an unknown syntax, or broken in another way: decoding tells
        return
    told = (int(dataset.Columns), int(dataset.Rows), int(dataset.get("SamplesPerPixel", 1)))
    if syntax == _RLE:  # run lengths have no size of their own; at worst they are as long again as what they are of
        if len(data) > _RLE_HEADER + 2 * told[0] * told[1] * told[2] * int(dataset.BitsAllocated) // 8 + _RLE_SLACK:
            raise ValueError(f"{name} holds more run lengths than a picture of {told[0]} x {told[1]} pixels has")
        return
    found = _jpeg_2000_size(data) or _jpeg_size(data)
    if found not in (None, told):
        ours, theirs = ("{} x {} pixels in {} channels".format(*size) for size in (found or told, told))
        raise ValueError(f"{name} holds a picture of {ours}, where the header tells {theirs}")


def _frame(dataset: "Dataset", frame: int) -> bytes:
    from pydicom.encaps import get_frame

    frames, offsets = int(dataset.get("NumberOfFrames") or 1), None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    return get_frame(dataset.PixelData, frame, number_of_frames=frames, extended_offsets=offsets)


def _jpeg_2000_size(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels in the segment SIZ (ISO/IEC 15444-1, A.5.1); None where there is none."""
    start = data.find(_STARTS[1])
    if start < 0 or len(data) < start + 42:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    return right - left, bottom - top, struct.unpack_from(">H", data, start + 40)[0]


def _jpeg_size(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels in the frame header of a JPEG (ISO/IEC 10918-1, B.2.2) or JPEG-LS, or None."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # filled up
            at += 1
            continue
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack_from(">2H", data, at + 5)
            return width, height, data[at + 9]
        at += 2 + length
    return None


def _found(dataset: "Dataset", told: int) -> int:
    """How many frames the pixel data holds; where no table tells it of compressed data, by where pictures begin."""
    from pydicom.encaps import generate_fragments, parse_basic_offsets
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import get_expected_length

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return len(dataset.PixelData) * told // get_expected_length(dataset)
    get_decoder(syntax)  # raises where there is none, as of films
    pixels = dataset.PixelData
    pieces = BytesIO(pixels)
    if len(pixels) > 8 and int.from_bytes(pixels[4:8], "little") > 4 * MOST_FRAMES:
        raise _TooManyPiecesError
    offsets = parse_basic_offsets(pieces)
    fragments = [fragment[:4] for fragment in islice(generate_fragments(pieces), _MOST_PIECES + 1)]
    if len(fragments) > _MOST_PIECES:
        raise _TooManyPiecesError
    if "ExtendedOffsetTable" in dataset:
        return len(dataset.ExtendedOffsetTable) // 8
    if offsets:
        return len(offsets)
    starts = sum(fragment.startswith(_STARTS) for fragment in fragments)
    return len(fragments) if syntax == _RLE else starts or min(told, len(fragments))
