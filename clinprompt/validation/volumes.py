"""What is expected of volumes, and of the numbers in a subject's record."""

import math

import pandas as pd

from clinprompt.data.card import Card, Measure
from clinprompt.validation.expectation import TableExpectation

VOXEL = (0.1, 10.0)  # mm
ANISOTROPY = 5.0  # the longest side of a voxel to its shortest
VIEW = 80.0  # mm along the shortest side
UNKNOWN = "unknown"  # orientation
MEASURED = (
    "volume_depth", "spacing_slices", "spacing_rows", "spacing_columns", "volume_view", "volume_anisotropy",
    "volume_orientation", "header_text",
)  # fmt: skip
_BETWEEN, _NULL = "ExpectColumnValuesToBeBetween", "ExpectColumnValuesToBeNull"


def volume_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the longest and the shortest side of each volume's voxels, in mm."""
    sides = table[["spacing_slices", "spacing_rows", "spacing_columns"]]
    return table.assign(voxel_longest=sides.max(axis=1), voxel_shortest=sides.min(axis=1))


def volume_expectations() -> list[TableExpectation]:
    """What every volume should keep to; a warning each, as unusual scans are read and used."""
    low, high = VOXEL
    return [
        _warning("voxel size", _BETWEEN, f"no voxel is longer than {high:g} mm", "voxel_longest", max_value=high),
        _warning("finest voxels", _BETWEEN, f"no voxel is shorter than {low:g} mm", "voxel_shortest", min_value=low),
        _warning(
            "voxel shape",
            _BETWEEN,
            f"no voxel is more than {ANISOTROPY:g} times as long as wide",
            "volume_anisotropy",
            max_value=ANISOTROPY,
        ),
        _warning("field of view", _BETWEEN, f"every volume shows at least {VIEW:g} mm", "volume_view", min_value=VIEW),
        _warning(
            "orientation known",
            "ExpectColumnValuesToNotBeInSet",
            "every volume tells its orientation (others are taken as stored)",
            "volume_orientation",
            value_set=[UNKNOWN],
        ),
        _warning("text in headers", _NULL, "no header of a volume holds free text, as of a patient", "header_text"),
    ]


def measure_columns(table: pd.DataFrame, card: Card) -> pd.DataFrame:
    """The table with a column for each number of the card's record: what is wrong with a cell, empty where nothing."""
    added = {
        _column(measure): table[measure.column].map(lambda cell, m=measure: _problem(cell, m)).astype("str")
        for measure in _measures(card)
    }
    return table.assign(**added)


def measure_expectations(card: Card) -> list[TableExpectation]:
    """The numbers of the record are numbers, and within the card's bounds."""
    return [
        TableExpectation(
            f"record {measure.column}",
            _NULL,
            f"{measure.name} is a number{_bounds(measure)}, or empty",
            kwargs={"column": _column(measure)},
        )
        for measure in _measures(card)
    ]


def _measures(card: Card) -> list[Measure]:
    return card.record.all_measures() if card.record else []


def _column(measure: Measure) -> str:
    return f"wrong {measure.column}"


def _bounds(measure: Measure) -> str:
    parts = [f"from {measure.low:g}"] if measure.low is not None else []
    parts += [f"to {measure.high:g}"] if measure.high is not None else []
    return f" {' '.join(parts)}" if parts else ""


def _problem(cell: object, measure: Measure) -> str | None:
    if not isinstance(cell, str):
        return None
    try:
        number = float(cell)
    except ValueError:
        return f"{cell!r} is no number"
    if not math.isfinite(number):
        return f"{cell!r} is no number"
    if measure.low is not None and number < measure.low:
        return f"{number:g} is below {measure.low:g}"
    if measure.high is not None and number > measure.high:
        return f"{number:g} is above {measure.high:g}"
    return None


def _warning(name: str, kind: str, about: str, column: str, **kwargs: object) -> TableExpectation:
    return TableExpectation(name, kind, about, severity="warning", kwargs={"column": column, **kwargs})
