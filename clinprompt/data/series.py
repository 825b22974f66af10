"""A DICOM series as one image: a zip that holds what geometry and pixels need, and nothing of who the patient is.

Nothing is copied but named: each slice is written anew from its pixels and the few tags below, with identifiers made
from the pixels. The zip's bytes depend on the series alone, not on the files' names, order or dates.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clinprompt.data.codecs import dicom
from clinprompt.data.formats import is_dicom
from clinprompt.errors import DataRejected, InputCorrupt

if TYPE_CHECKING:
    from pydicom import Dataset

_KEPT = (
    "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness", "RescaleSlope",
    "RescaleIntercept", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_WRITER = "2.25.1"  # instead of pydicom's, which changes with its version
_MOST_FILES = 10_000
_JUNK = ("DICOMDIR", "THUMBS.DB")


def is_series(folder: Path) -> bool:
    """Whether a folder holds DICOM files, and nothing else but hidden files and indices."""
    try:
        if not folder.is_dir():
            return False
        files = [entry for entry in os.scandir(folder) if not _is_junk(entry.name)]
        return bool(files) and all(entry.is_file() and is_dicom(entry.path) for entry in files)
    except OSError:
        return False


def pack_folder(folder: Path, where: str) -> bytes:
    """The series in a folder of DICOM files as a zip without the patient.

    Raises:
        DataRejected: the files are not the slices of one volume.
        InputCorrupt: one can't be read.
    """
    files = sorted(file for file in folder.iterdir() if not _is_junk(file.name))
    try:
        size = sum(file.stat().st_size for file in files)
        if len(files) > _MOST_FILES or size > dicom.MOST_BYTES:
            raise DataRejected(f"{where}: the series has {len(files)} files of {size} bytes, more than is read.")
        return _packed(((file.name, file.read_bytes()) for file in files), where)
    except OSError as error:
        raise InputCorrupt(f"{where}: the series cannot be read: {error.strerror}.") from None


def pack_archive(file: Path, where: str) -> bytes:
    """The series in a zip of DICOM files as a zip without the patient; raises as `pack_folder`."""
    try:
        if file.stat().st_size > dicom.MOST_BYTES:
            raise DataRejected(f"{where}: the zip is larger than the limit of {dicom.MOST_BYTES} bytes.")
        members = dicom.archive_members(file.read_bytes())
    except OSError as error:
        raise InputCorrupt(f"{where}: the series cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DataRejected(f"{where}: {error}.") from None
    return _packed(members, where)


def _packed(files: Iterable[tuple[str, bytes]], where: str) -> bytes:
    """The slices, sorted in space, as a stored zip with fixed names and dates."""
    try:
        slices = [_bare(dicom.parse(content, name), name) for name, content in files]
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


def _bare(dataset: "Dataset", name: str) -> "Dataset":
    """A slice with its pixels, unpacked, and the tags that place and scale them.

    Raises:
        ValueError: it is no slice of a volume, or a name may be written into its pixels.
    """
    from pydicom.dataset import Dataset

    dicom.check_image(dataset, name)
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        raise ValueError(f"{name} says that text is burned into its pixels, which may tell who the patient is")
    values = dicom.pixels(dataset, name)
    bare = Dataset()
    bare.SOPClassUID = _SECONDARY_CAPTURE
    bare.SeriesInstanceUID = dataset.get("SeriesInstanceUID")  # until all are known to be of one
    for tag in _KEPT:
        if dataset.get(tag) is not None:
            setattr(bare, tag, dataset[tag].value)
    stored = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
    bare.PixelData = stored + bytes(len(stored) % 2)
    bare["PixelData"].VR = "OW" if values.dtype.itemsize > 1 else "OB"
    place = ",".join(str(float(v)) for v in bare.ImagePositionPatient)
    bare.SOPInstanceUID = _uid(place.encode() + stored)
    return bare


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
