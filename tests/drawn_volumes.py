"""Small volumes as NIfTI and DICOM files, for the tests of volumes."""

import io
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

PATIENT = "Doe^Jane"


def drawn(shape: tuple[int, int, int] = (16, 20, 24), seed: int = 0) -> np.ndarray:
    """A head of sorts as int16, axes right, anterior, superior: an ellipsoid with a few blobs of its own."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    values = 400.0 * ((grid**2).sum(axis=0) < 0.8)
    for _ in range(6):
        centre, width = rng.uniform(-0.5, 0.5, 3), rng.uniform(0.15, 0.3)
        far = ((grid - centre[:, None, None, None]) ** 2).sum(axis=0)
        values += rng.choice([-200, 300]) * np.exp(-far / width**2)
    return (values * (values > 0)).astype(np.int16)


def nifti(values: np.ndarray, affine: np.ndarray | None = None, *, code: int = 1, **fields: Any) -> bytes:
    """The bytes of a plain NIfTI-1 file; `fields` of its header."""
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    image.set_sform(image.affine, code)
    image.set_qform(image.affine if code else None, code)
    for name, value in fields.items():
        image.header[name] = value
    return bytes(image.to_bytes())


def slices(values: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1), series: str = "1.2.3") -> list[Dataset]:
    """An axial series of a volume in right, anterior, superior: a dataset per slice, with a patient's name in it."""
    datasets = []
    for number in range(values.shape[2]):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        dataset.SOPInstanceUID = f"1.2.3.{number + 1}"
        dataset.SeriesInstanceUID = series
        dataset.PatientName, dataset.PatientID = PATIENT, "4711"
        dataset.Modality = "MR"
        plane = np.ascontiguousarray(values[::-1, ::-1, number].T)  # columns to the left, rows to the back
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-10, -12, number * spacing[2]]
        dataset.PixelSpacing = [spacing[1], spacing[0]]
        dataset.PixelData = plane.astype("<i2").tobytes()
        datasets.append(dataset)
    return datasets


def dicom(dataset: Dataset) -> bytes:
    """A dataset as a DICOM file."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def zipped(datasets: list[Dataset], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Datasets as a zip of DICOM files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for number, dataset in enumerate(datasets):
            archive.writestr(f"IM{number:04}", dicom(dataset))
    return stream.getvalue()


def write_series(datasets: list[Dataset], folder: Path) -> Path:
    """Datasets as a folder of DICOM files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(datasets):
        (folder / f"{number:03}.dcm").write_bytes(dicom(dataset))
    return folder
