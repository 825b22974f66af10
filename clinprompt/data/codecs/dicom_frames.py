"""DICOM files of several frames: how many there are, which one is the picture, and what the header says of each."""

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

MOST_FRAMES = 10_000
# Where an enhanced file keeps what others have in the header itself (DICOM PS3.3, C.7.6.16.2).
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_IN_GROUPS = {
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}
LIFTED = tuple(tag for tags in _IN_GROUPS.values() for tag in tags)
_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51")  # of a picture in JPEG or JPEG-LS, of one in JPEG 2000
_RLE = "1.2.840.10008.1.2.5"


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
    except Exception:  # a syntax that is not undone, or no items where they should be: decoding tells
        return
    if found < 1:
        raise ValueError(f"{name}: the pixel data is truncated")
    if found != told:
        frames = "one frame" if told == 1 else f"{told} frames"
        raise ValueError(f"{name}: the header tells {frames}, and the pixel data is that of {found}")


def lift(dataset: "Dataset", frame: int) -> None:
    """Put what an enhanced file says of a frame's scale and window where other files have it."""
    for group, place in zip(_GROUPS, (0, frame), strict=True):
        items = dataset.get(group) or []
        for sequence, tags in _IN_GROUPS.items():
            inner = (items[place].get(sequence) if len(items) > place else None) or [{}]
            for tag in tags:
                if tag in inner[0]:
                    dataset.add(inner[0][tag])


def _found(dataset: "Dataset", told: int) -> int:
    """How many frames the pixel data holds; where no table tells it of compressed data, by where pictures begin."""
    from pydicom.encaps import generate_fragments, parse_basic_offsets
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import get_expected_length

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return len(dataset.PixelData) * told // get_expected_length(dataset)
    get_decoder(syntax)  # raises where there is none, as of films
    if "ExtendedOffsetTable" in dataset:
        return len(dataset.ExtendedOffsetTable) // 8
    items = BytesIO(dataset.PixelData)
    offsets = parse_basic_offsets(items)
    if offsets:
        return len(offsets)
    fragments = [fragment[:4] for fragment in generate_fragments(items)]
    starts = sum(fragment.startswith(_STARTS) for fragment in fragments)
    return len(fragments) if syntax == _RLE else starts or min(told, len(fragments))
