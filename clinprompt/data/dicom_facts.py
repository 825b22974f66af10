"""What DICOM headers tell: facts for the manifest, where the card asks for them, and whether they name the patient."""

import re
import zipfile
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from clinprompt.data.formats import DICOM, holds_dicom, is_dicom, is_member, suffix_of
from clinprompt.data.layouts.base import ImageRecord
from clinprompt.data.names import is_known
from clinprompt.data.series import first_file, is_series

if TYPE_CHECKING:
    from pydicom import Dataset

# A column of the manifest: the tag that it is filled from.
TAGS = {"patient": "PatientID", "site": "Manufacturer", "sex": "PatientSex", "age": "PatientAge"}
# What tells who the patient is (DICOM PS3.15, E.1, has more); only whether it is there is told.
_IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "OtherPatientNames", "PatientAddress",
    "PatientTelephoneNumbers", "AccessionNumber", "InstitutionName", "ReferringPhysicianName",
)  # fmt: skip
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_IN_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}


def with_header_facts(records: list[ImageRecord], root: Path, wanted: Collection[str]) -> list[ImageRecord]:
    """The records with the facts that their DICOM headers tell; what the layout tells wins.

    Args:
        root: the folder that the records' paths start from.
        wanted: names among `TAGS`.
    """
    if not wanted:
        return records
    return [
        replace(record, facts=_joined(header_facts(root / record.path, wanted), record.facts)) for record in records
    ]


def _joined(header: dict[str, str], told: dict[str, str]) -> dict[str, str]:
    return header | {name: value for name, value in told.items() if name not in header or is_known(value)}


def header_facts(image: Path, wanted: Collection[str]) -> dict[str, str]:
    """Facts of a DICOM file, of a series in a folder or a zip by its first file; {} of other images.

    A tag that is missing, empty or broken is no fact; an age is in years.
    """
    header = _header(image)
    facts: dict[str, str] = {}
    if header is None:
        return facts
    for name in wanted:
        text = _text(header, TAGS[name])
        text = _years(text) if name == "age" else text
        if text:
            facts[name] = text
    return facts


def identified(records: list[ImageRecord], root: Path) -> list[str]:
    """A sentence on the header fields of DICOM files that tell who the patient is, by name; [] where none does."""
    found: Counter[str] = Counter()
    images = 0
    for record in records:
        header = _header(root / record.path)
        fields = [tag for tag in _IDENTIFYING if header is not None and _text(header, tag)]
        found.update(fields)
        images += bool(fields)
    if not images:
        return []
    return [
        f"The headers of {images} of the {len(records)} images tell who the patient is "
        f"({', '.join(tag for tag in _IDENTIFYING if found[tag])}); nothing of that is copied."
    ]


def _text(header: "Dataset", tag: str) -> str:
    try:
        return str(header.get(tag) or "").strip(" ^")
    except Exception:  # pydicom converts only now, and raises what it likes
        return ""


def _years(text: str) -> str:
    """An age as DICOM writes it, as 045Y or 006M, in years; "" where it is none."""
    found = _AGE.fullmatch(text)
    return f"{int(found[1]) / _IN_A_YEAR[found[2]]:.4g}" if found else ""


def _header(image: Path) -> "Dataset | None":
    """The header of a DICOM file, of a series its first file's; None of other images and of broken files."""
    try:
        if is_series(image):
            image = first_file(image)
        if suffix_of(image) in DICOM.suffixes and holds_dicom(image):
            with zipfile.ZipFile(image) as archive:
                first = min((entry for entry in archive.infolist() if is_member(entry)), key=lambda e: e.filename)
                with archive.open(first) as stream:
                    return _read(stream)
        return _read(image) if is_dicom(image) else None
    except Exception:  # taking it in tells what is wrong
        return None


def _read(file: "Path | IO[bytes]") -> "Dataset":
    import pydicom

    return pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=[*TAGS.values(), *_IDENTIFYING])
