"""Tables that give an image several labels, by a column for each finding or by several words in a cell.

One class per image is what all later stages train and measure; so several labels are refused, with what to do.
"""

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from clinprompt.data.names import is_known, whole_number

if TYPE_CHECKING:
    import pandas as pd

_PARTED = re.compile(r"[|;,]")
_AROUND = " []()'\""
_ANSWERS = {"0", "1", "-1", "true", "false"}  # -1: not certain
_YES = {"1", "true"}
_SHOWN = 4  # columns in a message


def findings(frame: "pd.DataFrame") -> list[str]:
    """The columns that say yes or no, where there are at least two: findings that an image may have several of."""
    found = []
    for column in frame.columns:
        cells = {whole_number(str(cell).strip()).casefold() for cell in frame[column].unique() if is_known(str(cell))}
        if cells <= _ANSWERS and cells & _YES:
            found.append(str(column))
    return found if len(found) > 1 else []


def one_finding(columns: Sequence[str], how: str) -> str:
    """What to do where a table has a column for each finding, as the end of a question; "" where it has none.

    Args:
        how: what names the one column that is asked for, as "--label".
    """
    if not columns:
        return ""
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return (
        f" {', '.join(columns[:_SHOWN])}{more} say yes or no each: where they are findings, of which an image may have "
        f"several, there is no one class to read, and {how} {columns[0]} takes that finding (1) against the rest (0)."
    )


def labels_of(cell: str) -> list[str]:
    """The labels that a cell holds, one or several: "a|b", "a;b", "a, b" and "['a', 'b']" hold two."""
    parts = (part.strip(_AROUND) for part in _PARTED.split(cell.strip(_AROUND)))
    return [part for part in parts if part]


def holds_several(cell: str, known: Collection[str]) -> bool:
    """Whether a cell holds several labels, some of which are `known` by themselves: all, where commas part them."""
    labels = labels_of(cell)
    if len(labels) < 2:
        return False
    are_known = [label in known for label in labels]
    return all(are_known) or (any(are_known) and re.search(r"[|;]", cell) is not None)
