"""Cross-validation: folds are a true partition of the subjects, and the test split is in none."""

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinprompt.data.folds import folds
from clinprompt.errors import DataRejected
from clinprompt.experiments.protocols import Cell, LeftOut, cells, check_protocol

CLASSES = ("AD", "MCI", "NC")


def visits(subjects: int, per_subject: list[int]) -> pd.DataFrame:
    """Rows of subjects with several visits; every seventh visit has no patient, every sixth subject is a test one."""
    rows: list[dict[str, Any]] = []
    for subject in range(subjects):
        for visit in range(per_subject[subject % len(per_subject)]):
            number = len(rows)
            patient = None if number % 7 == 6 else f"p{subject}"
            row = {"path": f"{number:04}", "id": f"{number:064x}", "label": CLASSES[subject % 3], "patient": patient}
            rows.append(row | {"split": "test" if subject % 6 > 4 and patient else ("train", "val")[visit % 2]})
    return pd.DataFrame(rows)


@given(st.integers(36, 90), st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(2, 5), st.integers(0, 99))
def test_folds_are_a_partition_by_subject(subjects: int, per_subject: list[int], count: int, seed: int) -> None:
    frame = visits(subjects, per_subject)
    fold = folds(frame, CLASSES, count, seed)
    assert sorted(set(fold)) == list(range(count))
    known = frame["patient"].notna()
    assert (fold[known].groupby(frame["patient"][known]).nunique() == 1).all()
    units = frame["patient"].where(known, frame["id"])
    sizes = fold.groupby([frame["label"], units]).first().groupby(level=0).value_counts()
    assert (sizes.groupby(level=0).max() - sizes.groupby(level=0).min() <= 1).all()


def test_each_subject_validates_once_and_no_test_image_is_seen() -> None:
    frame = visits(60, [1, 3, 2])
    found = cells(check_protocol("cross_validation", {"folds": 5}), frame, CLASSES, [1, 2])
    made = [cell for cell in found if isinstance(cell, Cell)]
    assert [tuple(cell.key.values()) for cell in made] == [(fold, seed) for fold in range(5) for seed in (1, 2)]
    seen = frame[frame["split"] != "test"]
    for cell in made:
        assert not set(cell.train["patient"].dropna()) & set(cell.val["patient"].dropna())
        assert sorted([*cell.train["path"], *cell.val["path"]]) == sorted(seen["path"])
    validated = [path for cell in made[::2] for path in cell.val["path"]]
    assert sorted(validated) == sorted(seen["path"])
    assert [list(cell.val["path"]) for cell in made[::2]] == [list(cell.val["path"]) for cell in made[1::2]]


def test_too_few_subjects_for_the_folds_are_said() -> None:
    with pytest.raises(DataRejected, match="'AD' has 4 subjects in train and val, fewer than the 5 folds"):
        folds(visits(12, [1]).assign(patient=lambda frame: frame["id"]), CLASSES, 5)
    found = cells(check_protocol("cross_validation", {"folds": 9}), visits(12, [1]), CLASSES, [1])
    assert all(isinstance(cell, LeftOut) for cell in found)
