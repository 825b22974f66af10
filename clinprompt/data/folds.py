"""Folds for cross-validation: a true partition of subjects, each class shared out evenly."""

import hashlib
from collections.abc import Sequence

import pandas as pd

from clinprompt.data.groups import group_names
from clinprompt.errors import DataRejected


def folds(
    frame: pd.DataFrame, classes: Sequence[str], count: int, seed: int = 0, near: pd.DataFrame | None = None
) -> pd.Series:
    """The fold, 0 to `count` - 1, of each row: a patient's rows, and rows of the same bytes, are in one fold.

    A group counts for the class that it has most rows of; the groups of a class are dealt out in an order that the seed
    gives, the next class going on where the last one stopped, so that folds and classes differ by one group at most.

    Args:
        frame: columns id, label, patient (null: unknown).
        near: pairs of near-duplicates, columns id_a and id_b, which are in one fold too.

    Raises:
        DataRejected: a class has fewer groups than there are folds.
    """
    groups = group_names(frame, near)
    counts = pd.crosstab(groups, frame["label"]).reindex(columns=list(classes), fill_value=0)
    main = counts.idxmax(axis=1)
    fold_of: dict[str, int] = {}
    for label in classes:
        members = sorted((str(group) for group in main.index[main == label]), key=lambda group: _place(seed, group))
        if len(members) < count:
            raise DataRejected(
                f"The class {label!r} has {len(members)} subjects in train and val, fewer than the {count} folds."
            )
        start = len(fold_of)
        fold_of |= {group: (start + number) % count for number, group in enumerate(members)}
    return groups.map(fold_of).astype("int64")


def _place(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()
