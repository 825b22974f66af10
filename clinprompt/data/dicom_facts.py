"""What DICOM headers tell: facts for the manifest, where the card asks, and which fields tell who the patient is."""

import re
import zipfile
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clinprompt.data.codecs.base import MAX_BYTES
from clinprompt.data.codecs.dicom_elements import items, read_header
from clinprompt.data.formats import DICOM, holds_dicom, is_dicom, is_member, suffix_of
from clinprompt.data.layouts.base import ImageRecord
from clinprompt.data.names import is_known
from clinprompt.data.series import first_file, is_series

if TYPE_CHECKING:
    from pydicom import Dataset

# A fact, most of them columns of the manifest: the tag that tells it.
TAGS = {
    "patient": "PatientID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "site": "Manufacturer",
    "sex": "PatientSex",
    "age": "PatientAge",
    "pixel_spacing": "PixelSpacing",
    "frames": "NumberOfFrames",
}
# What tells who the patient is (DICOM PS3.15, E.1, has more); only whether it is there is told.
_IDENTIFYING = (
    "PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "OtherPatientNames", "PatientAddress",
    "PatientTelephoneNumbers", "AccessionNumber", "InstitutionName", "ReferringPhysicianName",
)  # fmt: skip
_SHARED = "SharedFunctionalGroupsSequence"  # of enhanced files
_BURNED_IN = "BurnedInAnnotation"
_READ = (*TAGS.values(), *_IDENTIFYING, _BURNED_IN, "ImagerPixelSpacing", _SHARED)
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_IN_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}


def with_header_facts(records: list[ImageRecord], root: Path, wanted: Collection[str]) -> list[ImageRecord]:
    """The records with the facts that their DICOM headers tell; what the layout tells wins.

    Args:
        root: the folder that the records' paths start from.
        wanted: names among `TAGS`.
    """
    return [
        replace(record, facts=_joined(header_facts(root / record.path, wanted), record.facts)) for record in records
    ]


def _joined(header: dict[str, str], told: dict[str, str]) -> dict[str, str]:
    return header | {name: value for name, value in told.items() if name not in header or is_known(value)}


def header_facts(image: Path, wanted: Collection[str]) -> dict[str, str]:
    """Facts of a DICOM file, of a series in a folder or a zip by its first file; {} of other images.

    A tag that is missing, empty or broken is no fact; an age is in years, a pixel spacing in millimetres. Beside what
    is wanted there are `burned_in_annotation` (YES, NO or "not told") and `identifying_fields`, the names of the fields
    that tell who the patient is, if any.
    """
    header = _header(image)
    facts: dict[str, str] = {}
    if header is None:
        return facts
    for name in wanted:
        text = _spacing(header) if name == "pixel_spacing" else _text(header, TAGS[name])
        text = _years(text) if name == "age" else text
        if text:
            facts[name] = text
    fields = [tag for tag in _IDENTIFYING if _text(header, tag)]
    if fields:
        facts["identifying_fields"] = ", ".join(fields)
    flag = _text(header, _BURNED_IN).upper()
    return facts | {"burned_in_annotation": flag if flag in ("YES", "NO") else "not told"}


def identified(records: list[ImageRecord]) -> list[str]:
    """A sentence on the header fields of DICOM files that tell who the patient is, by name; [] where none does."""
    fields = [told.split(", ") for record in records if (told := record.facts.get("identifying_fields"))]
    if not fields:
        return []
    found = Counter(tag for tags in fields for tag in tags)
    return [
        f"The headers of {len(fields)} of the {len(records)} images tell who the patient is "
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


def _spacing(header: "Dataset") -> str:
    """Millimetres from pixel to pixel in the patient or, where that is not told, on the detector; the larger of two."""
    try:
        shared = items(header, _SHARED, "the file")
        measures = items(shared[0], "PixelMeasuresSequence", "the file") if shared else []
        of_patient = header.get("PixelSpacing") or (measures[0].get("PixelSpacing") if measures else None)
        sides = [float(side) for side in of_patient or header.get("ImagerPixelSpacing") or []]
    except Exception:  # as in `_text`
        return ""
    return f"{max(sides):.6g}" if len(sides) == 2 and min(sides) > 0 and max(sides) < float("inf") else ""


def _header(image: Path) -> "Dataset | None":
    """The header of a DICOM file, of a series its first file's; None of other images and of broken or huge files."""
    try:
        if is_series(image):
            image = first_file(image)
        if suffix_of(image) in DICOM.suffixes and holds_dicom(image):
            with zipfile.ZipFile(image) as archive:
                first = min((entry for entry in archive.infolist() if is_member(entry)), key=lambda e: e.filename)
                if first.file_size > MAX_BYTES:
                    return None
                with archive.open(first) as stream:
                    return read_header(stream, _READ)
        return read_header(image, _READ) if is_dicom(image) and image.stat().st_size <= MAX_BYTES else None
    except Exception:  # taking it in tells what is wrong
        return None
