"""DICOM pictures as files, for the tests of what reads them."""

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

PATIENT = "Doe^Jane"


def picture(values: np.ndarray, **fields: Any) -> Dataset:
    """A DICOM picture of integers [H, W] or [H, W, 3], with a patient's name in it; `fields` of its header."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = dataset.SeriesInstanceUID = "1.2.3.4711"
    dataset.PatientName, dataset.PatientID = PATIENT, "MRN4711"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    stored = values.astype(values.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = stored + bytes(len(stored) % 2)
    dataset["PixelData"].VR = "OW" if values.dtype.itemsize > 1 else "OB"
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    return dataset


def film(values: np.ndarray, **fields: Any) -> Dataset:
    """A DICOM file of several frames, of integers [F, H, W]."""
    dataset = picture(values[0], NumberOfFrames=len(values), **fields)
    dataset.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes()
    return dataset


def written(dataset: Dataset) -> bytes:
    """A dataset as a DICOM file."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
