"""The numbers of subjects' records, from the text of a manifest's columns. An absent one is NaN, and stays that."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinprompt.data.card import Card, Measure
from clinprompt.data.manifest import shown_id
from clinprompt.errors import DataRejected

Numbers = NDArray[np.float64]
_MALE = {"F": 0.0, "M": 1.0}


@dataclass(frozen=True)
class Subjects:
    """The subjects of n images.

    Attributes:
        labels: ids of the classes.
        measures: [n, m], in the order of the card's record.
        age: years [n].
        sex: as the manifest has it; None where it is not known.
    """

    labels: tuple[str, ...]
    measures: Numbers
    age: Numbers
    sex: tuple[str | None, ...]

    @classmethod
    def of(cls, card: Card, rows: pd.DataFrame) -> "Subjects":
        """The subjects of a manifest's rows, of a card that has a record.

        Raises:
            DataRejected: a cell holds something else than a number.
        """
        measures = [] if card.record is None else card.record.measures
        values = [column_of(rows, measure) for measure in measures]
        return cls(
            labels=tuple(rows["label"]),
            measures=np.stack(values, axis=1) if values else np.empty((len(rows), 0)),
            age=rows["age"].to_numpy(np.float64),
            sex=tuple(sex if isinstance(sex, str) else None for sex in rows["sex"]),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def male(self) -> Numbers:
        """1 for men and 0 for women [n]; NaN where the sex is another or not known."""
        return np.array([_MALE.get(sex or "", np.nan) for sex in self.sex])

    def take(self, chosen: Sequence[bool] | NDArray[np.bool_]) -> "Subjects":
        """Those at which `chosen` [n] holds."""
        at = np.flatnonzero(np.asarray(chosen))
        labels, sex = (tuple(values[i] for i in at) for values in (self.labels, self.sex))
        return Subjects(tuple(str(label) for label in labels), self.measures[at], self.age[at], sex)


def scores_of(card: Card, rows: pd.DataFrame) -> Numbers | None:
    """The score [n] of each row's subject in points, NaN where it is absent; None where the card's record has none.

    Raises:
        DataRejected: a cell holds something else than a number.
    """
    if card.record is None or card.record.score is None:
        return None
    return column_of(rows, card.record.score)


def column_of(rows: pd.DataFrame, measure: Measure) -> Numbers:
    """A measure [n] of the rows' subjects, NaN where its cell is empty.

    Raises:
        DataRejected: a cell holds something else than a finite number.
    """
    cells = rows[measure.column]
    values = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = cells.notna().to_numpy() & ~np.isfinite(values)
    if wrong.any():
        at = int(wrong.argmax())
        raise DataRejected(
            f"The manifest's column {measure.column!r} holds {cells.iloc[at]!r} for the image "
            f"{shown_id(rows['id'].iloc[at])}, where the card's record expects a number or an empty cell; mend the "
            "dataset's table and run ingest again."
        )
    return values
