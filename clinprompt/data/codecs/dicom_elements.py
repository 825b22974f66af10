"""From a DICOM file's bytes to those elements that a picture or a volume depends on, with bounded work.

pydicom makes objects of whatever it is given: zeros behind the pixels cost seconds a megabyte, empty items of a
sequence a hundred times their bytes, and a deflated file is unpacked to any size. So it is shown the tags below alone,
no byte behind the pixels, and no more elements than an image has.
"""

import io
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from clinprompt.data import formats
from clinprompt.data.codecs.base import MAX_BYTES

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset
    from pydicom.uid import UID

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")  # of enhanced files
_SEQUENCES = (*GROUPS, "ModalityLUTSequence", "VOILUTSequence")
_COLOURS = ("Red", "Green", "Blue")
SEGMENTED = tuple(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS)
_PLAIN = (
    "BurnedInAnnotation", "PixelPresentation", "SeriesInstanceUID", "SliceThickness", "ImageOrientationPatient",
    "ImagePositionPatient", "PixelSpacing", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth",
    "VOILUTFunction", *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS), *SEGMENTED,
)  # fmt: skip
_OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, _PIXEL_DATA)
# The pixels, the places of frames among them, and sequences, which are read item by item.
_ANY_LENGTH = (_PIXEL_DATA, 0x7FE00001, 0x7FE00002, 0x52009229, 0x52009230, 0x00283000, 0x00283010)
# An enhanced file of 10,000 frames asks for most of these.
_MOST_READS, _MOST_ITEMS = 2_000_000, 200_000
_ITEM = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # what one begins with
_LONGEST = 1 << 18  # bytes of an element: a palette of 65,536 colours has half of them
_LONGEST_HEADER = 1 << 24  # bytes in front of the pixels of a deflated file


class _Counted:
    """A stream that is read a limited number of times: pydicom reads each element once or more."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek, self.tell = stream.seek, stream.tell
        self._read, self._reads, self._items = stream.read, _MOST_READS, _MOST_ITEMS

    @property
    def is_spent(self) -> bool:
        """Whether more was asked for: pydicom makes an error of its own of the one that is raised here."""
        return min(self._reads, self._items) < 0

    def read(self, size: int = -1) -> bytes:
        data = self._read(size)
        self._reads -= 1
        self._items -= size == 8 and data[:4] in _ITEM  # an object each, of a hundred times its bytes
        if self.is_spent:
            raise ValueError("more elements than an image has")
        return data


def read_header(file: Path | IO[bytes], tags: Iterable[str]) -> "Dataset":
    """Some tags of a DICOM file, without its pixels; raises whatever pydicom does of a broken one."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            return _read(_Counted(stream), tags, pixels=False)
    return _read(_Counted(file), tags, pixels=False)


def parse(data: bytes, name: str) -> "Dataset":
    """One DICOM file, with or without its preamble and meta group.

    Raises:
        ValueError: it is none, is broken, or is made to cost much.
    """
    if not formats.is_dicom_file(data):
        raise ValueError(f"{name} is no DICOM file")
    stream = _Counted(io.BytesIO(data))
    try:
        dataset = _read(stream, (*_PLAIN, *_SEQUENCES, *_OFFSETS, "PixelData"), pixels=True)
    except _RefusedError as error:
        raise ValueError(f"{name} {error}") from None
    except Exception:  # pydicom raises whatever a broken file leads it to
        if stream.is_spent:
            raise ValueError(f"{name} holds more elements than an image has") from None
        raise ValueError(f"{name} is a broken DICOM file; export it anew") from None
    for tag in _SEQUENCES:
        if tag in dataset:
            dataset.add_new(tag, "SQ", items(dataset, tag, name))
    for tag in _PLAIN:
        if tag in dataset:
            converted(dataset, tag, name)
    return dataset


def converted(dataset: "Dataset", tag: str, name: str) -> "DataElement":
    """An element that is there, as numbers or text.

    Raises:
        ValueError: it is broken, or longer than any that is read.
    """
    try:
        if _is_long(dataset.get_item(tag)):
            raise ValueError("too long")
        return dataset[tag]  # pydicom converts only now, and raises what it likes
    except Exception:
        raise ValueError(f"{name}: its element {tag} is broken; export the file anew") from None


def items(dataset: "Dataset", tag: str, name: str) -> "list[Dataset]":
    """The items of a sequence; none where it is not there.

    Raises:
        ValueError: it is broken, or made to cost much.
    """
    from pydicom.dataelem import RawDataElement
    from pydicom.filereader import read_sequence

    if tag not in dataset:
        return []
    element: Any = dataset.get_item(tag)
    try:
        if not isinstance(element, RawDataElement):  # it was read item by item
            return [*(element.value or [])]
        content = element.value or b""
        implicit, little = element.is_implicit_VR or element.VR == "UN", element.is_little_endian
        stream: Any = _Counted(io.BytesIO(content))
        return [*read_sequence(stream, implicit, little, len(content), "iso8859")]
    except Exception:  # as in `parse`
        raise ValueError(f"{name}: its element {tag} is broken, or larger than any image's") from None


def content(dataset: "Dataset", tag: str) -> bytes:
    """The bytes of an element of an item as they lie in the file; none where it is not there."""
    element: Any = dataset.get_item(tag) if tag in dataset else None
    return element.value if element is not None and isinstance(element.value, bytes) else b""


class _RefusedError(ValueError):
    """What follows the file's name in a sentence."""


def _read(stream: _Counted, tags: Iterable[str], *, pixels: bool) -> "Dataset":
    """Some tags of a DICOM file, with what its meta group tells of its encoding or its first bytes let guess."""
    import pydicom
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # its warnings would show values
    stream.seek(formats.dicom_start(stream.read(formats.PREAMBLE)))
    fp: Any = stream
    told: list[Any] = [Tag("TransferSyntaxUID")]
    meta = FileMetaDataset(read_dataset(fp, False, True, stop_when=_outside(2), specific_tags=told))
    read_dataset(fp, True, True, stop_when=_outside(0), specific_tags=told)  # commands of the network, if any
    syntax = meta.get("TransferSyntaxUID")
    if syntax is None:
        meta.TransferSyntaxUID = syntax = _guessed(fp)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        fp = _Counted(io.BytesIO(_inflated(fp.read(), pixels=pixels)))
    wanted: list[Any] = [Tag(tag) for tag in tags]
    dataset = read_dataset(
        fp,
        syntax == uid.ImplicitVRLittleEndian,
        syntax != uid.ExplicitVRBigEndian,
        stop_when=_behind_pixels() if pixels else lambda tag, vr, length: tag in _PIXEL_TAGS,
        specific_tags=wanted,
    )
    for tag in wanted:
        if tag in dataset and tag not in _ANY_LENGTH and _is_long(dataset.get_item(tag)):
            raise _RefusedError(f"holds an element {tag} of more than {_LONGEST} bytes, which no image has")
    dataset.file_meta = meta
    return dataset


def _is_long(element: Any) -> bool:
    return isinstance(element.value, bytes) and len(element.value) > _LONGEST


def _outside(group: int) -> Callable[[Any, str | None, int], bool]:
    """Stops reading behind a group's elements."""
    return lambda tag, vr, length: tag >> 16 != group


def _behind_pixels() -> Callable[[Any, str | None, int], bool]:
    """Stops reading at the first element behind the pixels."""
    seen = False

    def stop(tag: Any, vr: str | None, length: int) -> bool:
        nonlocal seen
        behind, seen = seen, seen or tag == _PIXEL_DATA
        return behind

    return stop


def _guessed(stream: Any) -> "UID":
    """The transfer syntax of a dataset that none is told of, by its first element; the stream stays where it is."""
    from pydicom import uid

    start = stream.tell()
    first = stream.read(6)
    stream.seek(start)
    if not first[4:6].isalpha() or not first[4:6].isupper():
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRBigEndian if first[0] == 0 and first[1] else uid.ExplicitVRLittleEndian


def _inflated(data: bytes, *, pixels: bool) -> bytes:
    """A deflated dataset (DICOM PS3.5, A.5) unpacked, without its pixels the first bytes of it."""
    if not pixels:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _LONGEST_HEADER)
    plain = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_BYTES + 1)
    if len(plain) > MAX_BYTES:
        raise _RefusedError(f"unpacks to more than the limit of {MAX_BYTES} bytes")
    return plain
