"""What is expected of the headers that DICOM files had: nothing of them is copied, but that it was there is told."""

import pandas as pd

from clinprompt.validation.expectation import TableExpectation

BURNED_IN = "burned-in text"  # a check
IDENTIFYING = "identifying_fields"  # a column that is empty where nothing is wrong
_FLAG = "burned_in_annotation"


def header_expectations(table: pd.DataFrame) -> list[TableExpectation]:
    """What the headers of DICOM files should keep to, where there are any; a warning each.

    They flag no image: who is named in one header of an export is named in all.
    """
    if _FLAG not in table:
        return []
    return [
        TableExpectation(
            "identifying headers",
            "ExpectColumnValuesToBeNull",
            "no DICOM header tells who the patient is (nothing of that is copied)",
            severity="warning",
            kwargs={"column": IDENTIFYING},
            flags=False,
        ),
        TableExpectation(
            BURNED_IN,
            "ExpectColumnValuesToNotBeInSet",
            "no DICOM header says that text is burned into the pixels, which the copies and the report's pictures show",
            severity="warning",
            kwargs={"column": _FLAG, "value_set": ["YES"]},
        ),
    ]


def not_told(table: pd.DataFrame) -> str:
    """How many DICOM files don't tell whether text is burned in; "" where all do."""
    flags = table[_FLAG].dropna()
    silent = int((flags == "not told").sum())
    return f" {silent} of {len(flags)} DICOM headers do not tell." if silent else ""
