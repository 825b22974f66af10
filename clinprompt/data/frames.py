"""An image of each frame, where the card asks for that of DICOM files with several."""

from dataclasses import replace
from pathlib import Path

from clinprompt.data.card import DicomRules
from clinprompt.data.formats import is_dicom
from clinprompt.data.layouts.base import ImageRecord
from clinprompt.data.series import pack_frames

MARK = "#"  # between a file's path and the frame's number, from 1


def with_frames(records: list[ImageRecord], root: Path, rules: DicomRules) -> list[ImageRecord]:
    """The records with one for each frame of a DICOM file that holds several, under the rule `each`.

    Frames of one file are of one study: of one patient, that is, where the patient is unknown.

    Raises:
        DataRejected, InputCorrupt: see `pack_frames`.
    """
    if rules.frames != "each":
        return records
    return [one for record in records for one in _frames(record, root, rules)]


def _frames(record: ImageRecord, root: Path, rules: DicomRules) -> list[ImageRecord]:
    file = root / record.path
    sources = pack_frames(file, record.where, rules) if file.is_file() and is_dicom(file) else []
    width = len(str(len(sources)))
    facts = {"study": record.path} | record.facts
    return [
        replace(record, path=f"{record.path}{MARK}{number:0{width}}", source=source, facts=facts)
        for number, source in enumerate(sources, start=1)
    ] or [record]
