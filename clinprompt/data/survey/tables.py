"""What a table beside images is taken for: which of its columns is what."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from clinprompt.data.layouts.table import read_table
from clinprompt.data.layouts.tree import Tree, scan
from clinprompt.data.layouts.words import are_splits, split_of
from clinprompt.data.names import composed, is_known, matching_key, whole_number
from clinprompt.data.survey.base import Answers, Finding
from clinprompt.errors import BadParams, DataRejected, InputCorrupt, InputMissing

_SUFFIXES = (".csv", ".parquet", ".pq")
_MOST_CLASSES = 50
# Without separators and case; the first that a table has is taken.
_LABELS = ("label", "class", "classname", "diagnosis", "dx", "target", "finding", "category", "pathology")
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
    """The column that names the images, and how: what stands before and behind its cells."""

    column: str
    prefixes: list[str]
    suffixes: list[str]
    found: int


def candidates(root: Path) -> list[str]:
    """The tables that lie in a folder itself."""
    return sorted(entry.name for entry in root.iterdir() if entry.suffix.lower() in _SUFFIXES and entry.is_file())


def names_images(root: Path, table: str) -> bool:
    """Whether most images below the root stand in a table that has a column of labels, too."""
    tree = scan(root)
    try:
        frame = read_table(root / table)
    except InputCorrupt:
        return False
    paths = _paths(root, frame, tree)
    return paths is not None and paths.found >= 0.5 * len(tree.images) and _named(frame, _LABELS) is not None


def look(root: Path, table: str, answers: Answers) -> Finding:
    """Say what a table's columns are taken for.

    Raises:
        InputMissing, InputCorrupt: there is no such table, or it is not readable.
        DataRejected: no column names images.
        BadParams: the column of the labels is not clear; the message lists those that it could be.
    """
    if not (root / table).is_file():
        raise InputMissing(f"{root / table} does not exist; --table names a CSV or Parquet file below {root}.")
    frame = read_table(root / table)
    tree = scan(root, answers.exclude)
    paths = _paths(root, frame, tree)
    if paths is None:
        raise DataRejected(f"{root / table}: no column names images below {root}; expected paths, file names or ids.")
    label = _label(table, frame, answers)
    values = sorted({whole_number(value) for value in frame[label].map(_text) if is_known(value)})
    reader: dict[str, Any] = {"kind": "table", "file": table, "path": paths.column, "label": label}
    reader |= {key: text for key, text in (("prefix", _one(paths.prefixes)), ("suffix", _one(paths.suffixes))) if text}
    split = _named(frame, _SPLITS)
    splits = {word for word in frame[split].map(_text) if is_known(word)} if split else set()
    said = [f"{root / table} is taken for a table of images: {paths.column} names them, {label} is the class."]
    is_split = bool(splits) and are_splits(splits) and all(split_of(word, None) for word in splits)
    if split is not None and is_split:
        reader["split"] = split
        said.append(f"The split is taken from the column {split}.")
    metadata = _facts(table, frame, answers)
    said += [f"The {fact} is taken from the column {column}." for fact, column in metadata.items()]
    if _plain(metadata.get("patient", "")) in _CASES:
        said.append(f"{metadata['patient']} may be less than a person; two of one person count as two patients.")
    if "patient" not in metadata:
        said.append("No patient is known: images of one patient may lie in several splits, and nothing can check it.")
    said.append(f"{paths.found} of the {len(tree.images)} images below {root} stand in the table.")
    return Finding(
        reader, values, {split_of(word, None) or "" for word in splits} if is_split else set(), said, metadata
    )


def _text(cell: str) -> str:
    return str(cell).strip()


def _one(parts: Sequence[str]) -> str | list[str]:
    return parts[0] if len(parts) == 1 else list(parts)


def _paths(root: Path, frame: pd.DataFrame, tree: Tree) -> _Paths | None:
    """The column most of whose cells name an image, by its path, its path's end, or these without the suffix."""
    by_end: dict[str, str] = {}
    for path in tree.images:
        parts = path.split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            by_end.setdefault(matching_key(end), path)
            by_end.setdefault(matching_key(end.removesuffix(PurePosixPath(end).suffix)), path)
    best: _Paths | None = None
    for column in frame.columns:
        cells = [whole_number(_text(cell)).removeprefix(f"{root.resolve()}/") for cell in frame[column]]
        found = {cell: by_end[matching_key(cell)] for cell in cells if matching_key(cell) in by_end}
        if len(found) >= 0.5 * len(frame) and (best is None or len(found) > best.found):
            around = [_around(cell, path) for cell, path in found.items()]
            prefixes, suffixes = (sorted(Counter(part[i] for part in around)) for i in (0, 1))
            best = _Paths(str(column), prefixes, suffixes, len(found))
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
    if column is None or column not in kinds:
        asked = f"there is no column {column!r}" if column else "which column is the class?"
        raise BadParams(f"{table}: {asked} It could be {choices or 'none'}; say --label COLUMN.")
    if not 2 <= kinds[column] <= _MOST_CLASSES:
        raise BadParams(
            f"{table}: the column {column!r} has {kinds[column]} values, and not 2 to {_MOST_CLASSES} classes; "
            f"it could be {choices or 'none'}; say --label COLUMN."
        )
    return column


def _facts(table: str, frame: pd.DataFrame, answers: Answers) -> dict[str, str]:
    found = {fact: _named(frame, names) for fact, names in _FACTS.items()}
    patient = composed(answers.patient)
    if patient:
        if patient != "none" and patient not in frame.columns:
            columns = ", ".join(map(str, frame.columns))
            raise BadParams(f"{table}: --patient: there is no column {patient!r}; the columns are {columns}.")
        found["patient"] = None if patient == "none" else patient
    if found["age"] is not None:
        ages = [cell for cell in frame[found["age"]].map(_text) if is_known(cell)]
        if pd.to_numeric(pd.Series(ages, dtype=object), errors="coerce").isna().any():
            found["age"] = None
    return {fact: column for fact, column in found.items() if column is not None}
