"""Scans and exams of subjects in two tables: each scan gets the nearest exam within some days, each exam once."""

import logging
from collections import Counter, defaultdict
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from clinprompt.data.card import Card, ColumnName
from clinprompt.data.formats import SUFFIXES
from clinprompt.data.layouts import table
from clinprompt.data.layouts.base import (
    ImageRecord,
    Layout,
    Listing,
    check_text,
    inside,
    is_image,
    refuse_missing,
    source_of,
    unknown_columns,
)
from clinprompt.data.layouts.matching import match_exams
from clinprompt.data.names import is_known, whole_number
from clinprompt.errors import DataRejected, InputMissing
from clinprompt.schema import Section

log = logging.getLogger(__name__)

_DATES = ("%Y-%m-%d", "%m/%d/%Y", "%Y/%m/%d", "%Y%m%d")
_Row = tuple[int, dict[str, str]]


class VisitsOptions(Section):
    """The two tables and their columns.

    `path`, `prefix` and `suffix` tell the scans' files as in a table. `label` says whose diagnosis a scan gets:
    `baseline`, the subject's first known one, or `visit`, that of the scan's exam. The card's `metadata` names columns
    of the exams; the subject is the patient.
    """

    scans: str = "scans.csv"
    exams: str = "exams.csv"
    path: ColumnName = "path"
    prefix: str | list[str] = ""
    suffix: str | list[str] = ""
    scan_subject: ColumnName = "subject"
    scan_date: ColumnName = "date"
    exam_subject: ColumnName = "subject"
    exam_date: ColumnName = "date"
    diagnosis: ColumnName = "diagnosis"
    label: Literal["baseline", "visit"] = "baseline"
    within_days: Annotated[int, Field(ge=0, le=3650)] = 120


def read(root: Path, card: Card, options: VisitsOptions) -> Listing:
    """List the scans that have an exam and a diagnosis; the others are counted, and said in one sentence.

    A cell that says nothing is missing: no value is taken from another row.

    Raises:
        BadParams: a table lacks a column that the card names.
        DataRejected: a row without subject, path or date, a date that is none, a file that is no image.
        InputMissing, InputCorrupt: a table, or scans that it names, are not there; a table is not readable.
    """
    metadata = card.metadata
    named = {name: getattr(metadata, name) for name in ("site", "sex", "age")}
    facts = {name: column for name, column in named.items() if column} | {column: column for column in metadata.extra}
    scan_columns = [options.path, options.scan_subject, options.scan_date]
    exam_columns = [options.exam_subject, options.exam_date, options.diagnosis, *facts.values()]
    scans = _by_subject(root, options.scans, options.scan_subject, scan_columns, card)
    exams = _by_subject(root, options.exams, options.exam_subject, exam_columns, card)
    counts: Counter[str] = Counter(subjects=len(exams.keys() - scans.keys()))
    records: list[ImageRecord] = []
    missing: list[tuple[str, str]] = []
    for subject, own in scans.items():
        tested = exams.get(subject, [])
        scan_days = [_date(row, options.scan_date, f"{options.scans} row {number}") for number, row in own]
        exam_days = [_date(row, options.exam_date, f"{options.exams} row {number}") for number, row in tested]
        found = match_exams(scan_days, exam_days, options.within_days)
        counts.update(scans=len(own) - len(found.exam_of), exams=len(tested) - len(found.exam_of), ties=found.ties)
        for scan, exam in sorted(found.exam_of.items()):
            label = _diagnosis(tested, exam_days, exam, options)
            if label is None:
                counts["undiagnosed"] += 1
                continue
            values = {
                name: whole_number(tested[exam][1][c]) for name, c in facts.items() if is_known(tested[exam][1][c])
            }
            record = _record(
                root, own[scan], label, {"patient": whole_number(subject), **values}, card, options, missing
            )
            records += [record] if record else []
    refuse_missing(missing, sum(map(len, scans.values())), options.scans, root)
    _say(card.name, counts, options)
    return Listing(records, excluded=counts["scans"] + counts["undiagnosed"])


LAYOUT = Layout(VisitsOptions, read, has_columns=True)


def _by_subject(root: Path, name: str, column: str, columns: list[str], card: Card) -> dict[str, list[_Row]]:
    """The rows of each subject, with their numbers as an editor shows them."""
    _, file = inside(root, name, card.name)
    frame = table.read_table(file)
    unknown_columns(columns, list(frame.columns), name)
    rows: dict[str, list[_Row]] = defaultdict(list)
    for number, row in table.numbered_rows(frame):
        rows[table.filled(row, column, f"{name} row {number}")].append((number, row))
    return dict(rows)


def _date(row: dict[str, str], column: str, where: str) -> date:
    text = table.filled(row, column, where)
    for form in _DATES:
        try:
            return datetime.strptime(text.split(" ")[0], form).date()
        except ValueError:
            continue
    raise DataRejected(f"{where}: {text!r} in column {column!r} is no date; write it as 2024-05-31.")


def _diagnosis(tested: list[_Row], days: list[date], exam: int, options: VisitsOptions) -> str | None:
    """The diagnosis that the scan of an exam gets; None where there is none."""
    if options.label == "visit":
        told = tested[exam][1][options.diagnosis]
        return told if is_known(told) else None
    in_order = sorted(range(len(tested)), key=lambda place: (days[place], place))
    return next(
        (text for place in in_order if is_known(text := tested[place][1][options.diagnosis])),
        None,
    )


def _record(
    root: Path,
    scan: _Row,
    label: str,
    facts: dict[str, str],
    card: Card,
    options: VisitsOptions,
    missing: list[tuple[str, str]],
) -> ImageRecord | None:
    """The record of a scan; None, and an entry of `missing`, where its file is not there."""
    where = f"{options.scans} row {scan[0]}"
    path = table.filled(scan[1], options.path, where)
    check_text(path, where)
    names = table.TableOptions(prefix=options.prefix, suffix=options.suffix)
    try:
        normal, image = table.find(root, path, names, where)
    except InputMissing:
        missing.append((f"row {scan[0]}", path))
        return None
    if not is_image(image):
        raise DataRejected(f"{where}: {normal!r} is no image file; {', '.join(SUFFIXES)} are read.")
    return ImageRecord(normal, source_of(image, where, card), label, where, None, facts)


def _say(name: str, counts: Counter[str], options: VisitsOptions) -> None:
    told = {
        f"scans without an exam within {options.within_days} days": counts["scans"],
        "scans without a diagnosis": counts["undiagnosed"],
        "exams without a scan": counts["exams"],
        "subjects without a scan": counts["subjects"],
        "scans with two exams equally near, of which the earlier is taken": counts["ties"],
    }
    if any(told.values()):
        log.warning("%s: %s.", name, ", ".join(f"{what}: {n}" for what, n in told.items() if n))
