"""Facts for the manifest out of the headers of DICOM files, where the card asks for them."""

import re
import zipfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clinprompt.data.formats import DICOM, holds_dicom, is_dicom, is_member, suffix_of
from clinprompt.data.layouts.base import ImageRecord
from clinprompt.data.series import first_file, is_series

if TYPE_CHECKING:
    from pydicom import Dataset

# A column of the manifest: the tag that it is filled from.
TAGS = {"patient": "PatientID", "site": "Manufacturer", "sex": "PatientSex", "age": "PatientAge"}
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
    return [replace(record, facts=header_facts(root / record.path, wanted) | record.facts) for record in records]


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


def _text(header: "Dataset", tag: str) -> str:
    try:
        return str(header.get(tag) or "").strip()
    except Exception:  # pydicom converts only now, and raises what it likes
        return ""


def _years(text: str) -> str:
    """An age as DICOM writes it, as 045Y or 006M, in years; "" where it is none."""
    found = _AGE.fullmatch(text)
    return f"{int(found[1]) / _IN_A_YEAR[found[2]]:.4g}" if found else ""


def _header(image: Path) -> "Dataset | None":
    import pydicom

    try:
        if is_series(image):
            image = first_file(image)
        if suffix_of(image) in DICOM.suffixes and holds_dicom(image):
            with zipfile.ZipFile(image) as archive:
                first = min((entry for entry in archive.infolist() if is_member(entry)), key=lambda e: e.filename)
                with archive.open(first) as stream:
                    return pydicom.dcmread(stream, stop_before_pixels=True, force=True)
        if is_dicom(image):
            return pydicom.dcmread(image, stop_before_pixels=True, force=True, specific_tags=list(TAGS.values()))
    except Exception:  # a broken file: taking it in tells what is wrong
        return None
    return None
