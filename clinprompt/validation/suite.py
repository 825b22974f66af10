"""What is expected of a dataset: the table that is validated, and the suite of expectations as plain data."""

import pandas as pd

from clinprompt.data.card import Card
from clinprompt.data.columns import COLUMNS, NOVEL, SPLITS
from clinprompt.errors import BadParams
from clinprompt.params import ValidationParams
from clinprompt.validation import leaks
from clinprompt.validation.expectation import TableExpectation
from clinprompt.validation.headers import header_expectations
from clinprompt.validation.shown import names_of
from clinprompt.validation.summary import Summary
from clinprompt.validation.volumes import (
    MEASURED,
    measure_expectations,
    volume_columns,
    volume_expectations,
)

DAMAGE = ("zero bytes", "undecodable", "truncated", "empty")
DERIVED = ("side", "pixels", "voxel_longest", "voxel_shortest", "twin", "other_label_twin", "patient_elsewhere")
IMAGE_LEAKS, PATIENT_LEAKS = LEAKS = ("leak: images", "leak: patients")  # checks
COUNT = "count "  # begins the names of the checks on the images of a class in a split
SEXES = ("F", "M", "O")
MAX_AGE = 120
_MEASURED = ("width", "height", "mode", "mean", "std", "min", "max", "phash", "problem", "reason", *MEASURED)


def build_table(manifest: pd.DataFrame, summary: Summary, near: pd.DataFrame) -> pd.DataFrame:
    """The manifest joined with the summary and, per row, with its twins and its patient in other splits, by their ids.

    Raises:
        BadParams: an extra column of the card has the name of a computed one.
    """
    clash = sorted(set(manifest.columns) & {*_MEASURED, *DERIVED})
    if clash:
        raise BadParams(f"metadata.extra: {clash[0]!r} is the name of a column that is computed; rename yours.")
    table = manifest.merge(summary.images.drop(columns="id"), on="path", how="left")
    for column in ("width", "height", "volume_depth", "min", "max"):
        table[column] = table[column].astype("float64")
    intact = ~table["problem"].isin(DAMAGE)
    sides = table[["width", "height", "volume_depth"]]  # of a volume, the shortest, often the slices, may be short
    shortest = sides.median(axis=1).where(table["volume_depth"].notna(), sides.min(axis=1))
    table["side"] = shortest.where(intact)
    table["pixels"] = (table["width"] * table["height"] * table["volume_depth"].fillna(1)).where(intact)
    table = volume_columns(table)
    names = names_of(manifest)
    twins = leaks.twins_across_splits(manifest, near).drop_duplicates("path")
    table["twin"] = _notes(table, twins["path"], twins["reason"] + " of " + twins["twin_path"].map(names))
    label_conflicts = leaks.other_label_twins(manifest, near)
    table["other_label_twin"] = _notes(table, label_conflicts["path"], label_conflicts["twin_path"].map(names))
    patients = leaks.patients_across_splits(manifest).drop_duplicates("path")
    table["patient_elsewhere"] = _notes(table, patients["path"], "as " + patients["twin_path"].map(names))
    return table


def build_suite(
    card: Card, card_file: str, limits: ValidationParams, table: pd.DataFrame, *, patients_known: bool
) -> list[TableExpectation]:
    """The expectations on every dataset, on volumes and DICOM headers where there are any, then the card's own.

    Where no patient is known there is none on patients: it would hold, and nothing would have been checked.
    """
    return [
        *_schema_expectations(card),
        *_count_expectations(card, limits),
        *_image_expectations(limits),
        *(volume_expectations() if table["volume_depth"].notna().any() else []),
        *header_expectations(table),
        *measure_expectations(card),
        *(e for e in _leak_expectations() if patients_known or e.name != PATIENT_LEAKS),
        *_demographic_expectations(),
        *_card_expectations(card, card_file),
    ]


def _notes(table: pd.DataFrame, paths: pd.Series, notes: pd.Series) -> pd.Series:
    """A column for the table: each row's note by its path, empty where there is none."""
    return table["path"].map(dict(zip(paths, notes, strict=True))).astype("str")


def _schema_expectations(card: Card) -> list[TableExpectation]:
    columns = {"column_set": list(COLUMNS), "exact_match": False}
    expectations = [
        TableExpectation("columns", "ExpectTableColumnsToMatchSet", "the manifest has all its columns", kwargs=columns)
    ]
    for column in ("path", "id", "file", "label", "split", "modality"):
        about = f"every image has a value in the column {column!r}"
        expectations.append(
            TableExpectation(f"{column} present", "ExpectColumnValuesToNotBeNull", about, kwargs={"column": column})
        )
    known = [*SPLITS, *([NOVEL] if card.novel_classes else [])]
    labels = {"column": "label", "value_set": card.named_ids}
    splits = {"column": "split", "value_set": known}
    named = f"{', '.join(known[:-1])} or {known[-1]}"
    digest = {"column": "id", "regex": "^[0-9a-f]{64}$"}
    return [
        *expectations,
        TableExpectation(
            "path unique", "ExpectColumnValuesToBeUnique", "every path stands in one row", kwargs={"column": "path"}
        ),
        TableExpectation("id", "ExpectColumnValuesToMatchRegex", "every id is a SHA-256 in hex", kwargs=digest),
        TableExpectation("labels", "ExpectColumnValuesToBeInSet", "every label is a class of the card", kwargs=labels),
        TableExpectation("splits", "ExpectColumnValuesToBeInSet", f"every split is {named}", kwargs=splits),
    ]


def _count_expectations(card: Card, limits: ValidationParams) -> list[TableExpectation]:
    minimum = limits.min_images_per_class
    wanted = [(split, label) for split in SPLITS for label in card.class_ids]
    wanted += [(NOVEL, label) for label in card.novel_ids]
    rows = minimum * len(wanted)
    kind = "ExpectTableRowCountToBeBetween"
    expectations = [TableExpectation("rows", kind, f"there are at least {rows} images", kwargs={"min_value": rows})]
    for split, label in wanted:
        about = f"the class {label} has at least {minimum} images in {split}"
        where = {"split": split, "label": label}
        expectations.append(
            TableExpectation(f"{COUNT}{split}/{label}", kind, about, kwargs={"min_value": minimum}, where=where)
        )
    return expectations


def _image_expectations(limits: ValidationParams) -> list[TableExpectation]:
    side, pixels = limits.min_side, limits.max_pixels
    between = "ExpectColumnValuesToBeBetween"
    return [
        TableExpectation(
            "readable",
            "ExpectColumnValuesToNotBeInSet",
            "every image file can be read to its end",
            kwargs={"column": "problem", "value_set": list(DAMAGE)},
            shows="reason",
        ),
        TableExpectation(
            "largest size",
            between,
            f"no image has more than {pixels} pixels",
            kwargs={"column": "pixels", "max_value": pixels},
            shows="reason",
        ),
        TableExpectation(
            "smallest size",
            between,
            f"every image is at least {side} pixels wide and high",
            kwargs={"column": "side", "min_value": side},
            shows="reason",
        ),
        TableExpectation(
            "not constant",
            between,
            "no image is of one grey level",
            kwargs={"column": "std", "min_value": 0, "strict_min": True},
            shows="reason",
        ),
        TableExpectation(
            "brightness",
            between,
            "no image is nearly black or nearly white (mean grey level 1 to 254)",
            severity="warning",
            kwargs={"column": "mean", "min_value": 1, "max_value": 254},
        ),
    ]


def _leak_expectations() -> list[TableExpectation]:
    kind = "ExpectColumnValuesToBeNull"
    twin = {"column": "other_label_twin"}
    unique = {"column_list": ["id", "split"]}
    return [
        TableExpectation(IMAGE_LEAKS, kind, "no image has a twin in another split", kwargs={"column": "twin"}),
        TableExpectation(PATIENT_LEAKS, kind, "no patient is in two splits", kwargs={"column": "patient_elsewhere"}),
        TableExpectation("labels agree", kind, "no image has a twin of another class", severity="warning", kwargs=twin),
        TableExpectation(
            "repeated files",
            "ExpectCompoundColumnsToBeUnique",
            "no file is twice in a split",
            severity="warning",
            kwargs=unique,
        ),
    ]


def _demographic_expectations() -> list[TableExpectation]:
    age = {"column": "age", "min_value": 0, "max_value": MAX_AGE}
    sex = {"column": "sex", "value_set": list(SEXES)}
    return [
        TableExpectation(
            "age", "ExpectColumnValuesToBeBetween", f"ages are 0 to {MAX_AGE} years", severity="warning", kwargs=age
        ),
        TableExpectation(
            "sex", "ExpectColumnValuesToBeInSet", f"sex is {', '.join(SEXES)} or empty", "warning", kwargs=sex
        ),
    ]


def _card_expectations(card: Card, card_file: str) -> list[TableExpectation]:
    expectations = []
    for position, entry in enumerate(card.expectations):
        about = f"the card's {entry.type} holds ({', '.join(f'{k}: {v}' for k, v in sorted(entry.kwargs.items()))})"
        key = f"{card_file}: expectations.{position}"
        expectations.append(
            TableExpectation(
                f"card {position}: {entry.type}", entry.type, about, entry.severity, dict(entry.kwargs), key=key
            )
        )
    return expectations
