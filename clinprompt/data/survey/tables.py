"""What a table beside images is taken for: which of its columns is what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from clinprompt.data.layouts.several import findings, holds_several, labels_of, one_finding
from clinprompt.data.layouts.table import forward, read_table
from clinprompt.data.layouts.tree import Tree, scan
from clinprompt.data.layouts.words import Splits, are_splits, split_of
from clinprompt.data.names import composed, is_known, matching_key, whole_number
from clinprompt.data.survey.base import BY_STUDY, NO_PATIENT, Answers, Finding
from clinprompt.data.survey.headers import facts_told, read_headers, series_folders
from clinprompt.data.survey.patients import prefix_of
from clinprompt.errors import BadParams, DataRejected, InputCorrupt, InputMissing

_SUFFIXES = (".csv", ".parquet", ".pq")
_MOST_CLASSES = 50
_SHOWN = 4  # words in a message
# Without separators and case; the first that a table has is taken.
_LABELS = ("label", "class", "classname", "diagnosis", "dx", "target", "finding", "category", "pathology", "labels",
    "findings", "findinglabels",
)  # fmt: skip
_SPLITS = ("split", "set", "subset", "partition", "phase", "usage")
_CASES = ("lesion", "lesionid", "case", "caseid")
_FACTS = {
    "patient": ("patient", "patientid", "pid", "mrn", "subject", "subjectid", "person", "personid", *_CASES),
    "site": ("site", "hospital", "center", "centre", "institution"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "age": ("age", "patientage", "ageapprox"),
}


@dataclass(frozen=True)
class _Paths:
    """The column that names the images, and how: what stands before and behind its cells.

    Attributes:
        images: those that it names.
        unclear: a cell that may name several images, and these; None where there is none.
    """

    column: str
    prefixes: list[str]
    suffixes: list[str]
    images: list[str]
    unclear: tuple[str, list[str]] | None


def candidates(root: Path) -> list[str]:
    """The tables that lie in a folder itself."""
    return sorted(entry.name for entry in root.iterdir() if entry.suffix.lower() in _SUFFIXES and entry.is_file())


def listed_images(root: Path, exclude: Sequence[str]) -> dict[str, set[str]]:
    """The images that each table in a folder names, of the tables that have a column of labels, too."""
    listed = {}
    trees: list[Tree] = []
    for table in candidates(root):
        try:
            frame = read_table(root / table)
        except InputCorrupt:
            continue
        if _named(frame, _LABELS) is None:
            continue
        trees = trees or _trees(root, exclude)
        paths = next((found for tree in trees if (found := _paths(root, frame, tree))), None)
        if paths is not None:
            listed[table] = set(paths.images)
    return listed


def _trees(root: Path, exclude: Sequence[str]) -> list[Tree]:
    """The images below a folder and, where folders hold a DICOM series, those with its files for images."""
    tree = scan(root, exclude)
    return [tree, scan(root, exclude, slices=True)] if series_folders(root, tree) else [tree]


def look(root: Path, table: str, answers: Answers) -> Finding:
    """Say what a table's columns are taken for.

    Raises:
        InputMissing, InputCorrupt: there is no such table, or it is not readable.
        DataRejected: no column names images.
        BadParams: the column of the labels, which image a cell names, the split or the patient is not clear; the
            message names what decides.
    """
    if not (root / table).is_file():
        raise InputMissing(f"{root / table} does not exist; --table names a CSV or Parquet file below {root}.")
    frame = read_table(root / table)
    trees = _trees(root, answers.exclude)
    paths, tree = next(((found, tree) for tree in trees if (found := _paths(root, frame, tree))), (None, trees[0]))
    if paths is None:
        example = f", as {tree.images[0]!r}" if tree.images else ""
        raise DataRejected(
            f"{root / table}: no column names images below {root}; expected their paths from there{example}, file "
            f"names or ids in most rows of one. The columns are {', '.join(map(str, frame.columns))}."
        )
    if paths.unclear is not None:
        cell, images = paths.unclear
        raise BadParams(
            f"{root / table}: {cell!r} in the column {paths.column!r} may be {' or '.join(images)}; leave the others "
            "out with --exclude, as --exclude FOLDER."
        )
    label = _label(table, frame, answers)
    values = sorted({whole_number(value) for value in frame[label].map(_text) if is_known(value)})
    reader: dict[str, Any] = {"kind": "table", "file": table, "path": paths.column, "label": label}
    reader |= {key: text for key, text in (("prefix", _one(paths.prefixes)), ("suffix", _one(paths.suffixes))) if text}
    said = [f"{root / table} is taken for a table of images: {paths.column} names them, {label} is the class."]
    told, splits, of_split = _splits(table, frame, answers)
    reader |= told
    said += of_split
    metadata, left_out = _facts(table, frame, answers)
    without = [*metadata, *(("patient", "study") if answers.patient else ())]
    by_header, of_headers = facts_told(read_headers(root, paths.images), without)
    if "patient" not in (*metadata, *by_header) and not answers.patient:
        _ask_for_patients(table, paths)
    said += left_out
    said += [f"The {fact} is taken from the column {column}." for fact, column in metadata.items()]
    if _plain(metadata.get("patient", "")) in _CASES:
        said.append(f"{metadata['patient']} may be less than a person; two of one person count as two patients.")
    if "patient" not in (*metadata, *by_header):
        said.append(BY_STUDY if "study" in by_header else NO_PATIENT)
    said += of_headers
    said.append(f"{len(paths.images)} of the {len(tree.images)} images below {root} stand in the table.")
    return Finding(reader, values, splits, said, metadata | ({"dicom": by_header} if by_header else {}))


def _splits(table: str, frame: pd.DataFrame, answers: Answers) -> tuple[dict[str, Any], set[str], list[str]]:
    """The card's keys on the split, the splits that the table tells, and what is said of it."""
    named: Splits | None = dict(answers.splits) or None
    column = _named(frame, _SPLITS)
    if column is None:
        if named is not None:
            raise BadParams(f"{table}: no column tells the split; it is looked for under {', '.join(_SPLITS)}.")
        return {}, set(), []
    words = sorted({word for word in frame[column].map(_text) if is_known(word)})
    stray = [word for word in words if split_of(word, named) is None]
    if are_splits(words, named) and stray:
        raise BadParams(
            f"{table}: the column {column!r} tells splits, but {', '.join(stray[:_SHOWN])} is none of them; say which "
            "is which with --train, --val and --test, as --test WORD."
        )
    if stray or not are_splits(words, named):
        shown = ", ".join(words[:_SHOWN])
        return {}, set(), [f"The column {column} ({shown}) is not used: --train, --val and --test say what it means."]
    keys: dict[str, Any] = {"split": column}
    if named is not None:
        keys["splits"] = {split: one if len(one) > 1 else one[0] for split, one in answers.splits.items()}
    return keys, {split_of(word, named) or "" for word in words}, [f"The split is taken from the column {column}."]


def _ask_for_patients(table: str, paths: _Paths) -> None:
    seen = prefix_of(paths.images)
    if seen is not None:
        raise BadParams(
            f"{table}: the images' names begin with {seen.ids} ids that repeat, as {seen.example!r}. Are they the "
            "patients? Write them into a column of the table and say --patient COLUMN, or say --patient none."
        )


def _text(cell: str) -> str:
    return str(cell).strip()


def _one(parts: Sequence[str]) -> str | list[str]:
    return parts[0] if len(parts) == 1 else list(parts)


def _paths(root: Path, frame: pd.DataFrame, tree: Tree) -> _Paths | None:
    """The column most of whose cells name an image, by its path, its path's end, or these without the suffix."""
    by_end: dict[str, dict[str, None]] = {}
    for path in tree.images:
        parts = path.split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for name in (end, end.removesuffix(PurePosixPath(end).suffix)):
                by_end.setdefault(matching_key(name), {})[path] = None
    best: _Paths | None = None
    for column in frame.columns:
        cells = [forward(whole_number(_text(cell))).removeprefix(f"{root.resolve()}/") for cell in frame[column]]
        ends = {cell: list(by_end[matching_key(cell)]) for cell in cells if matching_key(cell) in by_end}
        found = {cell: cell if cell in paths else paths[0] for cell, paths in ends.items()}
        if len(found) >= 0.5 * len(frame) and (best is None or len(found) > len(best.images)):
            around = [_around(cell, path) for cell, path in found.items()]
            prefixes, suffixes = (sorted(Counter(part[i] for part in around)) for i in (0, 1))
            unclear = next(
                ((cell, paths) for cell, paths in ends.items() if len(paths) > 1 and cell not in paths), None
            )
            best = _Paths(str(column), prefixes, suffixes, list(found.values()), unclear)
    return best


def _around(cell: str, path: str) -> tuple[str, str]:
    """What stands before and behind a cell in the path that it names."""
    whole = matching_key(cell).endswith(matching_key(PurePosixPath(path).suffix)) and bool(PurePosixPath(cell).suffix)
    suffix = "" if whole else PurePosixPath(path).suffix
    levels = cell.count("/") + 1
    before = path.split("/")[:-levels]
    return "".join(f"{part}/" for part in before), suffix


def _named(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The column with the first of these names that a table has."""
    columns = {_plain(column): str(column) for column in frame.columns}
    return next((columns[name] for name in names if name in columns), None)


def _plain(column: object) -> str:
    """A column's name without separators and case."""
    return "".join(c for c in str(column).casefold() if c.isalnum())


def _label(table: str, frame: pd.DataFrame, answers: Answers) -> str:
    column = composed(answers.label) or _named(frame, _LABELS)
    kinds = {str(c): len({v for v in frame[c].map(_text) if is_known(v)}) for c in frame.columns}
    choices = ", ".join(f"{name} ({n} values)" for name, n in kinds.items() if 2 <= n <= _MOST_CLASSES)
    if column in kinds:
        _refuse_several(table, frame[column], column)
    if column is None or column not in kinds:
        asked = f"there is no column {column!r}" if column else "which column is the class?"
        hint = one_finding(findings(frame), "--label")
        raise BadParams(f"{table}: {asked} It could be {choices or 'none'}; say --label COLUMN.{hint}")
    if not 2 <= kinds[column] <= _MOST_CLASSES:
        raise BadParams(
            f"{table}: the column {column!r} has {kinds[column]} values, and not 2 to {_MOST_CLASSES} classes; "
            f"it could be {choices or 'none'}; say --label COLUMN."
        )
    return column


def _refuse_several(table: str, cells: pd.Series, column: str) -> None:
    labels = cells.map(_text)
    known = {label for cell in labels.unique() for label in labels_of(cell) if len(labels_of(cell)) == 1}
    several = [cell for cell in labels if holds_several(cell, known)]
    if several:
        raise BadParams(
            f"{table}: the column {column!r} holds several labels in {len(several)} of {len(labels)} rows, as "
            f"{several[0]!r}, and an image has one class here; leave those rows out, or write a column that says yes "
            "or no to the one finding that is asked for, and say --label COLUMN."
        )


def _facts(table: str, frame: pd.DataFrame, answers: Answers) -> tuple[dict[str, str], list[str]]:
    """The card's metadata, and what is said of a column that is left out."""
    found, said = {fact: _named(frame, names) for fact, names in _FACTS.items()}, list[str]()
    patient = composed(answers.patient)
    if patient:
        if patient != "none" and patient not in frame.columns:
            columns = ", ".join(map(str, frame.columns))
            raise BadParams(f"{table}: --patient: there is no column {patient!r}; the columns are {columns}.")
        found["patient"] = None if patient == "none" else patient
    if found["age"] is not None:
        ages = [cell for cell in frame[found["age"]].map(_text) if is_known(cell)]
        numbers = pd.to_numeric(pd.Series(ages, dtype=object), errors="coerce")
        if numbers.isna().any():
            odd = ages[int(numbers.isna().argmax())]
            said = [f"The column {found['age']} is left out: {odd!r} is no number of years."]
            found["age"] = None
    return {fact: column for fact, column in found.items() if column is not None}, said
