"""A zip of one DICOM series, by pydicom: slices sorted in space, rescaled, turned to slices, rows, columns.

pydicom alone reads what is in memory: no file of a patient is laid on a disk for a reader that wants a folder (as
SimpleITK's and MONAI's do), and no second imaging stack comes with it. Turning goes through nibabel, as for NIfTI.
"""

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clinprompt.data import formats
from clinprompt.data.codecs.base import MAX_BYTES, Codec, DecodedImage
from clinprompt.data.codecs.dicom_elements import parse
from clinprompt.data.codecs.dicom_file import check_values, rescaled, stored_values, whole_number, without_spare_bits
from clinprompt.data.codecs.dicom_frames import check_frames
from clinprompt.data.codecs.volume_axes import check_spacing, turned

if TYPE_CHECKING:
    from pydicom import Dataset

_MOST_FILES = 10_000
_EQUAL = 0.05  # of a gap: slices further off are missing or shifted
_PARALLEL = 1e-3
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class _Plane:
    """One slice: its number in the archive's order, its place along the normal (mm), and its position in RAS."""

    number: int
    place: float
    position: NDArray[np.float64]


def archive_members(data: bytes) -> list[tuple[str, bytes]]:
    """Names and bytes of the DICOM files in a zip, by name; hidden files and the index DICOMDIR are left out.

    Raises:
        ValueError: it is no zip, or it would unpack to too much.
    """
    return [(entry.filename, content) for entry, content in _members(data)]


def check_image(dataset: "Dataset", name: str) -> None:
    """Refuse, before its pixels are read, a DICOM file that is not one grey slice with its place in space.

    Raises:
        ValueError: with the reason.
    """
    if "PixelData" not in dataset:
        raise ValueError(f"{name} holds no pixel data")
    if whole_number(dataset, "NumberOfFrames", name, 1) > 1:
        raise ValueError(f"{name} holds several frames; a file per slice is read")
    if whole_number(dataset, "SamplesPerPixel", name, 1) != 1 or not str(
        dataset.get("PhotometricInterpretation")
    ).startswith("MONOCHROME"):
        raise ValueError(f"{name} is in colour; grey slices are read")
    for tag, count in (("ImageOrientationPatient", 6), ("ImagePositionPatient", 3), ("PixelSpacing", 2)):
        values = dataset.get(tag)
        if values is None or len(values) != count or not np.isfinite([float(value) for value in values]).all():
            raise ValueError(f"{name} has no {tag}, so that its place is unknown")
    for tag in ("Rows", "Columns", "BitsAllocated"):
        whole_number(dataset, tag, name)
    check_values(dataset, name)
    check_frames(dataset, 1, name)


def check_series(datasets: Sequence["Dataset"]) -> None:
    """Refuse files that are not slices of one series.

    Raises:
        ValueError: with the reason.
    """
    if len(datasets) < 2:
        raise ValueError(f"the series holds {len(datasets)} slice{'s' * (len(datasets) != 1)}, at least 2 are needed")
    if len({str(dataset.get("SeriesInstanceUID")) for dataset in datasets}) > 1:
        raise ValueError("it holds slices of more than one series")
    if len({(int(dataset.Rows), int(dataset.Columns)) for dataset in datasets}) > 1:
        raise ValueError("its slices differ in rows or columns")
    for tag in ("ImageOrientationPatient", "PixelSpacing"):
        if np.ptp([[float(v) for v in dataset[tag].value] for dataset in datasets], axis=0).max() > _PARALLEL:
            raise ValueError(f"its slices differ in {tag}")


def pixels(dataset: "Dataset", name: str) -> np.ndarray:
    """The stored values [rows, columns] of a slice, before rescaling.

    Raises:
        ValueError: they are compressed in a way that can't be undone here, or broken.
    """
    values = stored_values(dataset, name)
    if values.shape != (int(dataset.Rows), int(dataset.Columns)):
        raise ValueError(f"{name}: pixels of shape {list(values.shape)} in a slice of another size")
    return without_spare_bits(values, dataset)


def _members(data: bytes) -> Iterator[tuple[zipfile.ZipInfo, bytes]]:
    """The files of a zip, unpacked one by one; what they unpack to is known before the first is."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = [entry for entry in archive.infolist() if formats.is_member(entry)]
        _check_entries(entries)
        for entry in sorted(entries, key=lambda entry: entry.filename):
            yield entry, archive.read(entry)  # at most what the entry declares
    except ValueError:
        raise
    except Exception:
        raise ValueError("the zip is truncated or broken; pack it anew") from None


def _check_entries(entries: Sequence[zipfile.ZipInfo]) -> None:
    if not entries:
        raise ValueError("the zip holds no file")
    if len(entries) > _MOST_FILES:
        raise ValueError(f"the zip holds {len(entries)} files, more than the limit of {_MOST_FILES}")
    size = sum(entry.file_size for entry in entries)
    if size > MAX_BYTES:
        raise ValueError(f"the zip unpacks to {size} bytes, more than the limit of {MAX_BYTES}")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise ValueError("the zip is packed in a way that is not read; deflate or store its files")
    if any(entry.flag_bits & 1 for entry in entries):
        raise ValueError("the zip is encrypted")


class _Series:
    """One file's reader: the slice that is unpacked and parsed for the header is not so again for the voxels."""

    def __init__(self) -> None:
        self._begun: tuple[Dataset, Iterator[tuple[zipfile.ZipInfo, bytes]]] | None = None

    def probe(self, data: bytes) -> tuple[int, int, str, int]:
        """Columns, rows, the type of the values and the number of slices."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                depth = sum(formats.is_member(entry) for entry in archive.infolist())
        except Exception:
            raise ValueError("the zip is truncated or broken; pack it anew") from None
        first, _ = self._begun = _begun(data)
        kind = "int" if int(first.get("PixelRepresentation", 0)) else "uint"
        return int(first.Columns), int(first.Rows), f"{kind}{int(first.BitsAllocated)}", depth

    def read(self, data: bytes) -> DecodedImage:
        """The voxels, of the file that was probed or of none before."""
        begun, self._begun = self._begun, None
        return _read(*(begun or _begun(data)))


def _begun(data: bytes) -> "tuple[Dataset, Iterator[tuple[zipfile.ZipInfo, bytes]]]":
    """The first slice, and the files that are left."""
    members = _members(data)
    _, content = next(members)
    first = parse(content, "the first file")
    check_image(first, "the first file")
    return first, members


def _read(first: "Dataset", others: Iterator[tuple[zipfile.ZipInfo, bytes]]) -> DecodedImage:
    """The voxels [slices, rows, columns, 1], from inferior, posterior and left on, with their spacing.

    Files are called by their number: names in an archive may tell who the patient is.
    """
    datasets: list[Dataset] = []
    planes: list[np.ndarray] = []
    for number, content in enumerate(chain([None], (content for _, content in others)), start=1):
        name, dataset = f"file {number} of the series", first
        if content is not None:
            dataset = parse(content, name)
            check_image(dataset, name)
        if datasets and (dataset.Rows, dataset.Columns) != (datasets[0].Rows, datasets[0].Columns):
            raise ValueError("its slices differ in rows or columns")
        planes.append(_rescaled(pixels(dataset, name), dataset))
        del dataset.PixelData  # and what pydicom has kept of it
        dataset._pixel_array = None
        datasets.append(dataset)
    check_series(datasets)
    order, affine = geometry(datasets)
    values = np.stack([planes[number] for number in order])
    return turned(values, affine)


def geometry(datasets: Sequence["Dataset"]) -> tuple[list[int], NDArray[np.float64]]:
    """The order of slices along their normal, and the affine [4,4] from (slice, row, column) to RAS in millimetres.

    Raises:
        ValueError: slices are missing, lie on each other, or are not laid along their normal.
    """
    across, down = np.array([float(v) for v in datasets[0].ImageOrientationPatient]).reshape(2, 3)
    if abs(across @ down) > _PARALLEL or abs(across @ across - 1) > _PARALLEL or abs(down @ down - 1) > _PARALLEL:
        raise ValueError("ImageOrientationPatient holds no two directions at a right angle")
    normal = np.cross(across, down)
    positions = [np.array([float(v) for v in dataset.ImagePositionPatient]) for dataset in datasets]
    planes = sorted(
        (_Plane(number, float(normal @ position), position) for number, position in enumerate(positions)),
        key=lambda plane: plane.place,
    )
    gaps = np.diff([plane.place for plane in planes])
    gap = float(np.median(gaps))
    if gaps.min() < _PARALLEL:
        raise ValueError("two slices lie at the same place: a series over time, or a slice that is there twice")
    if np.abs(gaps - gap).max() > _EQUAL * gap:
        raise ValueError(f"slices are missing or unequally apart (from {gaps.min():g} to {gaps.max():g} mm)")
    shift = planes[-1].position - planes[0].position
    if np.linalg.norm(shift - normal * (normal @ shift)) > _EQUAL * gap * len(planes):
        raise ValueError("the slices are shifted against each other (a tilted gantry), which is not read")
    rows, columns = check_spacing([float(v) for v in datasets[0].PixelSpacing])
    step = (planes[-1].place - planes[0].place) / (len(planes) - 1)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([normal * step, down * rows, across * columns], axis=1) * _LPS_TO_RAS[:, None]
    affine[:3, 3] = planes[0].position * _LPS_TO_RAS
    return [plane.number for plane in planes], affine


def _rescaled(values: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """Stored values as the quantity that they stand for, dark low."""
    scaled = rescaled(values, dataset)
    return -scaled if dataset.PhotometricInterpretation == "MONOCHROME1" else scaled


def codec() -> Codec:
    """The codec of DICOM series, for one file."""
    series = _Series()
    return Codec(formats.DICOM, series.probe, series.read)
