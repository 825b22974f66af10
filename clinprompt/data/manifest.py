"""`manifest.parquet`: one row per image, the table that all stages after ingest work from."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from clinprompt.data.columns import COLUMNS, NOVEL, NUMBERS, SPLITS
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.files import atomic
from clinprompt.parquet import DAMAGED, checked_table

if TYPE_CHECKING:
    import pandas as pd

_NEVER_NULL = ("path", "id", "file", "label", "split", "modality")
_ID = r"[0-9a-f]{64}"
_SHOWN = 12  # digits of an id
_KEY = "patient_key_fingerprint"  # in the file's metadata


def write_manifest(frame: "pd.DataFrame", path: Path, *, key_fingerprint: str | None = None) -> None:
    """Write rows sorted by path, the fixed columns first; equal rows give equal bytes.

    Args:
        key_fingerprint: of the key that the patients' ids are made with; goes into the file's metadata.
    """
    columns = [*COLUMNS, *(c for c in frame.columns if c not in COLUMNS)]
    schema = pa.schema([(c, pa.float64() if c in NUMBERS else pa.string()) for c in columns])
    rows = frame[columns].sort_values("path", kind="stable")
    # Without pandas' own metadata, which names library versions: they would change the bytes.
    about = {_KEY: key_fingerprint} if key_fingerprint else None
    table = pa.Table.from_pandas(rows, schema=schema, preserve_index=False).replace_schema_metadata(about)
    with atomic(path) as partial:
        pq.write_table(table, partial)


def read_manifest(path: Path) -> "pd.DataFrame":
    """Read a manifest: columns `COLUMNS` and then the card's extra ones, one row per image, sorted by path.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: it is not Parquet, or a column is missing, of the wrong type or holds what it must not.
    """
    try:
        table = checked_table(path)
        problem = _schema_problem(table.schema)
        frame = None if problem else table.to_pandas()
    except FileNotFoundError:
        raise InputMissing(f"{path} does not exist; run the stage that makes it (dvc repro).") from None
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise InputCorrupt(f"{path} is not a readable Parquet file ({reason}). Delete it and run again.") from None
    if frame is not None:
        problem = _content_problem(frame)
    if frame is None or problem:
        raise InputCorrupt(f"{path}: {problem}. Delete it and run again.")
    return frame


def key_fingerprint_of(path: Path) -> str | None:
    """The fingerprint of the key that a manifest's patient ids are made with; None where there is none."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, *DAMAGED):
        return None
    fingerprint = metadata.get(_KEY.encode())
    return None if fingerprint is None else fingerprint.decode("ascii", "replace")


def shown_id(image: str) -> str:
    """The first digits of an image's id, by which people are told of it: a file's name may tell who the patient is."""
    return image[:_SHOWN]


def patients(frame: "pd.DataFrame") -> "pd.Series":
    """The unit of clustering of each row: the patient, or the image's id where the patient is unknown."""
    return frame["patient"].where(frame["patient"].notna(), frame["id"])


def _schema_problem(schema: pa.Schema) -> str | None:
    if tuple(schema.names[: len(COLUMNS)]) != COLUMNS:
        return f"the columns must begin with {', '.join(COLUMNS)}, found {', '.join(schema.names)}"
    for field in schema:
        numeric = field.name in NUMBERS
        if not (pa.types.is_floating(field.type) if numeric else _is_text(field.type)):
            return f"column {field.name!r} must hold {'numbers' if numeric else 'text'}, found {field.type}"
    return None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _content_problem(frame: "pd.DataFrame") -> str | None:
    for column in _NEVER_NULL:
        if frame[column].isna().any():
            return f"column {column!r} has an empty cell in row {int(frame[column].isna().argmax())}"
    if not frame["path"].is_unique:
        return f"the path in row {int(frame['path'].duplicated().argmax())} stands in another row, too"
    if not frame["path"].is_monotonic_increasing:
        return "the rows are not sorted by path"
    unknown = sorted(set(frame["split"]) - {*SPLITS, NOVEL})
    if unknown:
        return f"the split {unknown[0]!r} is none of {', '.join((*SPLITS, NOVEL))}"
    bad = ~frame["id"].astype(str).str.fullmatch(_ID)
    if bad.any():
        return f"the id in row {int(bad.argmax())} is not a SHA-256 in hex"
    return None
