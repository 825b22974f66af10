"""A CSV or Parquet file with one row per image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import field_validator

from clinprompt.data.card import Card, Metadata
from clinprompt.data.formats import SUFFIXES, image_suffix
from clinprompt.data.layouts.base import (
    ImageRecord,
    Layout,
    Listing,
    check_splits,
    check_text,
    inside,
    split_words,
    unknown_columns,
)
from clinprompt.errors import DataRejected, InputCorrupt
from clinprompt.parquet import DAMAGED, checked_table
from clinprompt.schema import Section


class TableOptions(Section):
    """The table's file and its columns.

    `split: null` says that there is no such column; `splits` gives the splits' words, as {train: fold1, test: fold2}.
    """

    file: str = "manifest.csv"
    path: str = "path"
    label: str = "label"
    split: str | None = "split"
    splits: dict[str, str] | None = None

    _splits = field_validator("splits")(check_splits)


def read(root: Path, card: Card, options: TableOptions) -> Listing:
    """List the images of the table, in its order; paths are relative to `root`.

    Raises:
        BadParams: the table lacks a column that the card names.
        DataRejected: a row with an empty cell, an unknown split, a file that is no image, a path that leaves the root.
        InputMissing, InputCorrupt: the table, or an image that it names, is not there; the table is not readable.
    """
    _, file = inside(root, options.file, card.name)
    frame = _read_text(file)
    columns = [options.path, options.label, *card.metadata.columns()]
    if options.split is not None and card.split.rule == "given":
        columns.append(options.split)
    unknown_columns(columns, list(frame.columns), options.file)
    facts = _fact_columns(card.metadata)
    split_by_word = split_words(options.splits)
    records = []
    for number, row in _rows(frame):
        where = f"{options.file} row {number}"
        path, label = (_filled(row, column, where) for column in (options.path, options.label))
        check_text(path, where)
        normal, image = inside(root, path, where)
        if image_suffix(image) is None:
            raise DataRejected(f"{where}: {normal!r} is no image file; {', '.join(SUFFIXES)} are read.")
        split = _split(row.get(options.split or "", ""), split_by_word, where)
        values = {name: row[column] for name, column in facts.items() if row[column]}
        records.append(ImageRecord(normal, image, label, where, split, values))
    return Listing(records)


LAYOUT = Layout(TableOptions, read, has_columns=True)


def _read_text(file: Path) -> pd.DataFrame:
    """The table with every cell as text; empty cells are ""."""
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            return checked_table(file).to_pandas().map(_as_text).astype(str)
        return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (*DAMAGED, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputCorrupt(f"{file} is not a readable table ({' '.join(str(error).split())}).") from None


def _as_text(value: Any) -> str:
    if value is None or value is pd.NA or value != value:  # noqa: PLR0124 - NaN is the value that differs from itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole numbers become floats in a column with empty cells
    return str(value)


def _rows(frame: pd.DataFrame) -> Iterator[tuple[int, dict[str, str]]]:
    """Row numbers as an editor shows them, the header being row 1, and the cells without surrounding blanks."""
    names = [str(column) for column in frame.columns]
    for number, cells in enumerate(frame.itertuples(index=False, name=None), start=2):
        yield number, {name: str(cell).strip() for name, cell in zip(names, cells, strict=True)}


def _fact_columns(metadata: Metadata) -> dict[str, str]:
    named = {name: getattr(metadata, name) for name in ("patient", "site", "sex", "age")}
    return {name: column for name, column in named.items() if column} | {column: column for column in metadata.extra}


def _filled(row: dict[str, str], column: str, where: str) -> str:
    if not row[column]:
        raise DataRejected(f"{where}: the cell in column {column!r} is empty.")
    return row[column]


def _split(value: str, split_by_word: dict[str, str], where: str) -> str | None:
    if not value:
        return None
    split = split_by_word.get(value.casefold())
    if split is None:
        raise DataRejected(
            f"{where}: {value!r} is no split (known: {', '.join(split_by_word)}); name the words under reader.splits."
        )
    return split
