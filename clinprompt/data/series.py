"""DICOM files without who the patient is: a series as a zip of slices, a picture as one file.

Nothing is copied but named: each file is written anew from its pixels and the few tags below, with identifiers made
from the pixels. A zip's bytes depend on the series alone, not on the files' names, order or dates.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from clinprompt.data.card import DicomRules
from clinprompt.data.codecs import dicom, dicom_elements, dicom_file, dicom_frames, dicom_shown
from clinprompt.data.codecs.base import MAX_BYTES, read_file
from clinprompt.data.formats import is_dicom
from clinprompt.errors import DataRejected, InputCorrupt

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset
    from pydicom.dataelem import RawDataElement

_PIXELS = (
    "RescaleSlope", "RescaleIntercept", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
_OF_SLICES = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness", *_PIXELS)
_OF_PICTURES = ("WindowCenter", "WindowWidth", "VOILUTFunction", *_PIXELS)
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")  # a stored value: its type is that of the pixels
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_WRITER = "2.25.1"  # instead of pydicom's, which changes with its version
_MOST_FILES = 10_000
_JUNK = ("DICOMDIR", "THUMBS.DB")
_DEFAULT = DicomRules()


def is_series(folder: Path) -> bool:
    """Whether a folder holds DICOM files, and nothing else but hidden files and indices."""
    try:
        if not folder.is_dir():
            return False
        files = [entry for entry in os.scandir(folder) if not _is_junk(entry.name)]
        return bool(files) and all(entry.is_file() and is_dicom(entry.path) for entry in files)
    except OSError:
        return False


def first_file(folder: Path) -> Path:
    """The first file of a series' folder, by name."""
    return min(file for file in folder.iterdir() if not _is_junk(file.name))


def pack_folder(folder: Path, where: str, rules: DicomRules = _DEFAULT) -> bytes:
    """The series in a folder of DICOM files as a zip without the patient.

    Raises:
        DataRejected: the files are not the slices of one volume.
        InputCorrupt: one can't be read.
    """
    files = sorted(file for file in folder.iterdir() if not _is_junk(file.name))
    try:
        size = sum(file.stat().st_size for file in files)
        if len(files) > _MOST_FILES or size > MAX_BYTES:
            raise DataRejected(f"{where}: the series has {len(files)} files of {size} bytes, more than is read.")
        return _packed(((file.name, file.read_bytes()) for file in files), where, rules)
    except OSError as error:
        raise InputCorrupt(f"{where}: the series cannot be read: {error.strerror}.") from None


def pack_archive(file: Path, where: str, rules: DicomRules = _DEFAULT) -> bytes:
    """The series in a zip of DICOM files as a zip without the patient; raises as `pack_folder`."""
    try:
        members = dicom.archive_members(read_file(file))
    except OSError as error:
        raise InputCorrupt(f"{where}: the series cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DataRejected(f"{where}: {error}.") from None
    return _packed(members, where, rules)


def pack_picture(file: Path, where: str, rules: DicomRules = _DEFAULT) -> bytes:
    """The picture in a DICOM file as a DICOM file of pixels, their scale and the window.

    Raises:
        DataRejected: it holds no picture that is read, or a name may be written into its pixels.
        InputCorrupt: it can't be read.
    """
    return _packed_picture(_parsed(_read(file, where), where), where, rules, rules.frames)


def pack_frames(file: Path, where: str, rules: DicomRules = _DEFAULT) -> list[Callable[[], bytes]]:
    """What gives each frame of a DICOM file as `pack_picture` does a picture; [] where there is no more than one.

    Raises:
        DataRejected: the header tells another number of frames than there are.
        InputCorrupt: it can't be read.
    """
    header = _header(file, ["NumberOfFrames"])
    if header is None or str(header.get("NumberOfFrames", 1)) in ("1", "None"):
        return []
    dataset = _parsed(_read(file, where), where)
    try:
        told = dicom_file.whole_number(dataset, "NumberOfFrames", "the file", 1)
        dicom_file.check_picture(dataset, "the file", "first")
    except ValueError as error:
        raise _rejected(error, where) from None
    shared = _Shared(file, where, told)
    return [partial(shared.packed, frame, rules) for frame in range(told)]


class _Shared:
    """A file that many frames are taken from, by several threads: read once, and let go with the last of them."""

    def __init__(self, file: Path, where: str, frames: int) -> None:
        self._file, self._where, self._left = file, where, frames
        self._lock = Lock()
        self._dataset: Dataset | None = None
        self._plain: list[
            DataElement | RawDataElement
        ] = []  # of the tags that differ from frame to frame, what the header has itself

    def packed(self, frame: int, rules: DicomRules) -> bytes:
        """A frame as `pack_picture` gives a picture; raises the same."""
        with self._lock:  # each frame in turn has its own scale and window in the header
            if self._dataset is None:
                self._dataset = _parsed(_read(self._file, self._where), self._where)
                self._plain = [self._dataset.get_item(tag) for tag in dicom_frames.LIFTED if tag in self._dataset]
            for tag in dicom_frames.LIFTED:
                self._dataset.pop(tag, None)
            for element in self._plain:
                self._dataset[element.tag] = element
            packed = _packed_picture(self._dataset, f"{self._where} frame {frame + 1}", rules, frame)
            self._left -= 1
            if self._left <= 0:
                self._dataset = None
        return packed


def _read(file: Path, where: str) -> bytes:
    """A DICOM file's bytes; raises as `pack_picture`."""
    try:
        return read_file(file)
    except ValueError as error:
        raise DataRejected(f"{where}: {error}.") from None
    except OSError as error:
        raise InputCorrupt(f"{where}: the file cannot be read: {error.strerror}.") from None


def _parsed(data: bytes, where: str) -> "Dataset":
    try:
        return dicom_elements.parse(data, "the file")
    except ValueError as error:
        raise _rejected(error, where) from None


def _packed_picture(dataset: "Dataset", where: str, rules: DicomRules, frames: str | int) -> bytes:
    try:
        return _written(_bare_picture(dataset, rules, frames))
    except ValueError as error:
        raise _rejected(error, where) from None


def _rejected(error: ValueError, where: str) -> DataRejected:
    return DataRejected(f"{where}: {str(error).removeprefix('the file: ')}.")


def holds_pictures(folder: Path) -> bool:
    """Whether a folder's DICOM files are pictures of their own, not the slices of one series.

    They are where there is one file alone, where they are of several series, or where a file has no place in space.
    """
    files = sorted(file for file in folder.iterdir() if not _is_junk(file.name))
    series = set()
    for file in files:
        header = _header(file, ["SeriesInstanceUID", "ImagePositionPatient"])
        if header is None:
            return False  # packing the series tells what is wrong
        series.add(str(header.get("SeriesInstanceUID")))
        if len(series) > 1 or "ImagePositionPatient" not in header:
            return True
    return len(files) == 1


def _header(file: Path, tags: list[str]) -> "Dataset | None":
    """Some tags of a file's header; None where it is broken, or larger than is read."""
    try:
        return None if file.stat().st_size > MAX_BYTES else dicom_elements.read_header(file, tags)
    except Exception:  # pydicom raises whatever a broken file leads it to
        return None


def _packed(files: Iterable[tuple[str, bytes]], where: str, rules: DicomRules) -> bytes:
    """The slices, sorted in space, as a stored zip with fixed names and dates."""
    try:
        slices = [_bare(dicom_elements.parse(content, name), name, rules) for name, content in files]
        dicom.check_series(slices)
        order, _ = dicom.geometry(slices)
    except ValueError as error:
        raise DataRejected(f"{where}: {error}.") from None
    sorted_slices = [slices[number] for number in order]
    series = _uid(b"".join(str(one.SOPInstanceUID).encode() for one in sorted_slices))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for number, one in enumerate(sorted_slices, start=1):
            one.SeriesInstanceUID, one.InstanceNumber = series, number
            archive.writestr(zipfile.ZipInfo(f"{number:05}.dcm", _DATE), _written(one))
    return stream.getvalue()


def _bare(dataset: "Dataset", name: str, rules: DicomRules) -> "Dataset":
    """A slice with its pixels, unpacked, and the tags that place and scale them.

    Raises:
        ValueError: it is no slice of a volume, or a name may be written into its pixels.
    """
    dicom.check_image(dataset, name)
    _check_burned_in(dataset, name, rules)
    bare, stored = _copied(dataset, dicom.pixels(dataset, name), _OF_SLICES)
    bare.SeriesInstanceUID = dataset.get("SeriesInstanceUID")  # until all are known to be of one
    place = ",".join(str(float(v)) for v in bare.ImagePositionPatient)
    bare.SOPInstanceUID = _uid(place.encode() + stored)
    return bare


def _bare_picture(dataset: "Dataset", rules: DicomRules, frames: str | int) -> "Dataset":
    """A picture with its pixels, unpacked, colours as RGB, and the tags that scale and show them; raises as `_bare`."""
    from pydicom.tag import Tag

    frame = dicom_file.check_picture(dataset, "the file", frames)
    _check_burned_in(dataset, "the file", rules)
    if dataset.get("VOILUTFunction") not in _FUNCTIONS and "VOILUTFunction" in dataset:
        del dataset.VOILUTFunction  # whatever text it is
    values = dicom_file.picture_values(dataset, "the file", frame)
    bare, stored = _copied(dataset, values, _OF_PICTURES if values.ndim == 2 else _PIXELS)
    if values.ndim == 3:
        bits = 8 * values.dtype.itemsize
        bare.PhotometricInterpretation, bare.SamplesPerPixel, bare.PlanarConfiguration = "RGB", 3, 0
        bare.BitsAllocated, bare.PixelRepresentation = bits, 0
        bare.BitsStored = bits if dataset.SamplesPerPixel == 1 else dataset.BitsStored
        bare.HighBit = bare.BitsStored - 1
    else:
        bare.BitsAllocated, bare.PixelRepresentation = 8 * values.dtype.itemsize, int(values.dtype.kind == "i")
        table = dicom_shown.table_of(dataset, "the file")
        if table is not None:
            bare.add_new(dicom_shown.TABLES, "SQ", [dicom_shown.table_item(table)])
        for tag, number in zip(_PADDING, dicom_file.padding(dataset, values.dtype), strict=False):
            bare.add_new(Tag(tag), "SS" if values.dtype.kind == "i" else "US", number)
    bare.SOPInstanceUID = bare.SeriesInstanceUID = _uid(stored)
    return bare


def _check_burned_in(dataset: "Dataset", name: str, rules: DicomRules) -> None:
    if rules.burned_in == "refuse" and str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        raise ValueError(
            f"{name} says that text is burned into its pixels, which may tell who the patient is; leave it out, or say "
            "dicom: {burned_in: keep} in the card where the text tells no one"
        )


def _copied(dataset: "Dataset", values: np.ndarray, tags: Iterable[str]) -> tuple["Dataset", bytes]:
    """A new dataset with some tags of another, and pixels; and the bytes of these."""
    from pydicom.dataset import Dataset

    bare = Dataset()
    bare.SOPClassUID = _SECONDARY_CAPTURE
    for tag in tags:
        if dataset.get(tag) is not None:
            setattr(bare, tag, dataset[tag].value)
    stored = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
    bare.PixelData = stored + bytes(len(stored) % 2)
    bare["PixelData"].VR = "OW" if values.dtype.itemsize > 1 else "OB"
    return bare, stored


def _written(dataset: "Dataset") -> bytes:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(_WRITER)
    dataset.file_meta.ImplementationVersionName = "CLINPROMPT"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _uid(content: bytes) -> str:
    """A DICOM identifier that only the content decides."""
    return f"2.25.{int.from_bytes(hashlib.sha256(content).digest()[:16], 'big')}"


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.upper() in _JUNK
