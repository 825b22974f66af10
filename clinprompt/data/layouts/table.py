"""A CSV or Parquet file with one row per image."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from clinprompt.data.card import Card, ColumnName, Metadata
from clinprompt.data.formats import SUFFIXES
from clinprompt.data.layouts.base import (
    ImageRecord,
    Layout,
    Listing,
    check_splits,
    check_text,
    inside,
    is_image,
    refuse_missing,
    source_of,
    unknown_columns,
)
from clinprompt.data.layouts.several import findings, one_finding
from clinprompt.data.layouts.words import Splits, listed, split_of, split_words
from clinprompt.data.names import composed, is_known, whole_number
from clinprompt.errors import DataRejected, InputCorrupt, InputMissing
from clinprompt.parquet import DAMAGED, checked_table
from clinprompt.schema import Section

if TYPE_CHECKING:
    import pandas as pd

_HEADER = 1 << 16  # bytes of it that are looked at
_SHOWN = 200  # characters of what a table says, in a message


class TableOptions(Section):
    """The table's file and its columns.

    `prefix` and `suffix` stand before and behind what the column `path` says, where that is an id without folder or
    extension; of several, the one is taken with which a file is there. `split: null` says that there is no such
    column; `splits` gives the splits' words, as {train: fold1, test: fold2}.
    """

    file: str = "manifest.csv"
    path: ColumnName = "path"
    prefix: str | list[str] = ""
    suffix: str | list[str] = ""
    label: ColumnName = "label"
    split: ColumnName | None = "split"
    splits: Splits | None = None

    _splits = field_validator("splits")(check_splits)


def read(root: Path, card: Card, options: TableOptions) -> Listing:
    """List the images of the table, in its order; paths are relative to `root`.

    Raises:
        BadParams: the table lacks a column that the card names.
        DataRejected: a row with an empty cell, an unknown split, a file that is no image or one of two that the row
            may mean, a path that leaves the root.
        InputMissing, InputCorrupt: the table, or images that it names, are not there; the table is not readable.
    """
    _, file = inside(root, options.file, card.name)
    frame = read_table(file)
    is_given = card.split.rule == "given"
    columns = [options.path, options.label, *card.metadata.columns()]
    if options.split is not None and is_given:
        columns.append(options.split)
    has_path, has_label = (column in frame for column in (options.path, options.label))
    hint = one_finding(findings(frame), "reader.label:") if has_path and not has_label else ""
    unknown_columns(columns, list(frame.columns), options.file, hint)
    facts = _fact_columns(card.metadata)
    records, missing = [], []
    for number, row in numbered_rows(frame):
        where = f"{options.file} row {number}"
        path, label = filled(row, options.path, where), _label(row, options.label, card, where)
        check_text(path, where)
        try:
            normal, image = find(root, path, options, where)
        except InputMissing:
            missing.append((f"row {number}", path))
            continue
        if not is_image(image):
            raise DataRejected(f"{where}: {normal!r} is no image file; {', '.join(SUFFIXES)} are read.")
        # A column of folds or of another split is nothing to a split by rule.
        split = _split(row.get(options.split or "", ""), options.splits, where) if is_given else None
        values = {name: whole_number(row[column]) for name, column in facts.items() if is_known(row[column])}
        records.append(ImageRecord(normal, source_of(image, where, card), label, where, split, values))
    hint = "Where the column holds ids without folder or extension, say reader.prefix and reader.suffix in the card."
    refuse_missing(missing, len(frame), options.file, root, hint)
    return Listing(records)


def find(root: Path, path: str, options: TableOptions, where: str) -> tuple[str, Path]:
    """The normalised path and the file of the image that a cell names, with one of the card's prefixes and suffixes.

    Raises:
        InputMissing: there is none.
        DataRejected: there are two; or what `inside` refuses.
    """
    found: dict[str, Path] = {}
    for name in dict.fromkeys((path, whole_number(path), forward(path))):
        for prefix in listed(options.prefix):
            for suffix in listed(options.suffix):
                try:
                    normal, image = inside(root, f"{prefix}{name}{suffix}", where)
                except InputMissing:
                    continue
                found[normal] = image
        if found:
            break
    if not found:
        raise InputMissing(f"{where}: the file {path!r} does not exist below {root}.")
    if len(found) > 1:
        raise DataRejected(f"{where}: {path!r} may be {' or '.join(found)}; name fewer prefixes or suffixes.")
    return next(iter(found.items()))


def forward(path: str) -> str:
    """A path as Windows writes it with forward slashes; any other as it is."""
    return path.replace("\\", "/")


LAYOUT = Layout(TableOptions, read, has_columns=True)


def read_table(file: Path) -> "pd.DataFrame":
    """A CSV or Parquet table with every cell as text; empty cells are "". A CSV's cells may be parted by semicolons or
    tabs: by what its header has most of.

    Raises:
        InputCorrupt: it is not readable, or its rows have more cells than its header.
    """
    import pandas as pd  # a card's layout is asked for by those, too, who read no table

    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            # Without the metadata that pandas leaves in its files, which may say what the columns don't hold.
            frame = checked_table(file).replace_schema_metadata(None).to_pandas().map(_as_text).astype(str)
        else:
            options: dict[str, Any] = {"dtype": str, "keep_default_na": False, "skipinitialspace": True}
            frame = pd.read_csv(file, sep=_separator(file), encoding="utf-8-sig", **options)
            _refuse_shifted(frame)
    except UnicodeDecodeError:
        raise InputCorrupt(f"{file} is not written in UTF-8; save it again as CSV in UTF-8.") from None
    except (*DAMAGED, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputCorrupt(f"{file} is not a readable table ({' '.join(str(error).split())}).") from None
    return frame.rename(columns=lambda column: composed(str(column)).strip())


def one_each(columns: Collection[str], frame: "pd.DataFrame", file: Path) -> None:
    """Refuse a table that lacks a column, or has it twice, so that nobody knows which is meant.

    Raises:
        DataRejected: names the first such column.
    """
    present = [str(column) for column in frame.columns]
    for column in columns:
        if column not in present:
            shown = shortened(", ".join(map(repr, present)))
            raise DataRejected(f"{file} has no column {column!r}; it has {shown}.")
        if present.count(column) > 1 or f"{column}.1" in present:  # as pandas calls the second one
            raise DataRejected(f"{file} has the column {column!r} twice; rename or remove one.")


def shortened(text: str) -> str:
    """The beginning of a text that may be of any length, for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _separator(file: Path) -> str:
    with file.open("rb") as opened:
        first = opened.readline(_HEADER)
    if b"\0" in first:  # UTF-16, or no text at all
        raise UnicodeDecodeError("utf-8", first, 0, 1, "a zero")
    header = first.decode("utf-8", "replace")
    return max((",", ";", "\t"), key=header.count)


def _refuse_shifted(frame: "pd.DataFrame") -> None:
    """pandas takes the first cells of rows that are longer than the header for the rows' names, and so shifts the
    others; that is right of names alone, as R writes them: 1, 2, 3 …"""
    import pandas as pd

    if isinstance(frame.index, pd.RangeIndex) or list(frame.index) == [str(i + 1) for i in range(len(frame))]:
        return
    raise pd.errors.ParserError(
        "row 2 has more cells than the header has columns; a cell that holds a separator must stand in quotes"
    )


def _as_text(value: Any) -> str:
    import pandas as pd

    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole numbers become floats in a column with empty cells
    return str(value)


def numbered_rows(frame: "pd.DataFrame") -> Iterator[tuple[int, dict[str, str]]]:
    """Row numbers as an editor shows them, the header being row 1, and the cells without surrounding blanks."""
    names = [str(column) for column in frame.columns]
    for number, cells in enumerate(frame.itertuples(index=False, name=None), start=2):
        yield number, {name: str(cell).strip() for name, cell in zip(names, cells, strict=True)}


def _fact_columns(metadata: Metadata) -> dict[str, str]:
    named = {name: getattr(metadata, name) for name in ("patient", "study", "site", "sex", "age")}
    return {name: column for name, column in named.items() if column} | {column: column for column in metadata.extra}


def filled(row: dict[str, str], column: str, where: str) -> str:
    """A row's cell that must say something.

    Raises:
        DataRejected: it says nothing.
    """
    if not is_known(row[column]):
        raise DataRejected(f"{where}: the cell in column {column!r} is empty{_as_written(row[column])}.")
    return row[column]


def _label(row: dict[str, str], column: str, card: Card, where: str) -> str:
    """The label's cell; a class may well be called "none"."""
    label = row[column] if card.class_of(row[column]) else whole_number(row[column])
    return label if card.class_of(label) else filled(row, column, where)


def _as_written(value: str) -> str:
    return f", it says {value!r}" if value else ""


def _split(value: str, splits: Splits | None, where: str) -> str | None:
    if not is_known(value):
        return None
    split = split_of(value, splits) or split_of(whole_number(value), splits)
    if split is None:
        known = ", ".join(split_words(splits))
        raise DataRejected(f"{where}: {value!r} is no split (known: {known}); name the words under reader.splits.")
    return split
