"""The same image or patient in two splits: who is dropped, and who stays."""

import pandas as pd

from clinprompt.validation import leaks

NO_NEAR = pd.DataFrame({"id_a": [], "id_b": [], "bits": [], "correlation": []}).astype({"id_a": "str", "id_b": "str"})


def manifest(*rows: tuple[str, str, str, str | None]) -> pd.DataFrame:
    """Rows (path, id, split, patient); the label is the path's first letter."""
    frame = pd.DataFrame(rows, columns=["path", "id", "split", "patient"]).sort_values("path", ignore_index=True)
    return frame.assign(label=frame["path"].str[0])


def near(*pairs: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame([(a, b, 2, 0.999) for a, b in pairs], columns=NO_NEAR.columns)


def dropped(frame: pd.DataFrame, pairs: pd.DataFrame = NO_NEAR) -> dict[str, tuple[str, str]]:
    """Path: (reason, twin) of what `drop` takes out."""
    rows = leaks.drop(frame, pairs).dropped.itertuples(index=False)
    return {row.path: (row.reason, row.twin_path) for row in rows}


def test_the_train_image_gives_way_to_val_and_test_and_val_to_test() -> None:
    frame = manifest(
        ("a1", "x", "train", None), ("a2", "x", "val", None), ("b1", "y", "val", None), ("b2", "y", "test", None)
    )
    assert dropped(frame) == {"a1": ("exact duplicate", "a2"), "b1": ("exact duplicate", "b2")}
    assert leaks.drop(frame, NO_NEAR).manifest["path"].tolist() == ["a2", "b2"]


def test_near_duplicates_are_followed_in_both_directions() -> None:
    frame = manifest(("a1", "x", "train", None), ("a2", "y", "test", None), ("a3", "z", "train", None))
    assert dropped(frame, near(("x", "y"))) == {"a1": ("near duplicate", "a2")}
    assert dropped(frame, near(("y", "x"))) == {"a1": ("near duplicate", "a2")}


def test_all_train_images_of_a_patient_who_is_tested_are_dropped() -> None:
    frame = manifest(
        ("a1", "1", "train", "p"), ("a2", "2", "train", "p"), ("a3", "3", "test", "p"), ("a4", "4", "train", "q")
    )
    assert dropped(frame) == {"a1": ("patient in two splits", "a3"), "a2": ("patient in two splits", "a3")}


def test_images_without_a_patient_are_not_one_patient() -> None:
    frame = manifest(("a1", "1", "train", None), ("a2", "2", "test", None))
    assert dropped(frame) == {}
    assert leaks.counts(frame, NO_NEAR)["patients"] == 0


def test_a_train_image_stays_when_its_twin_in_val_has_gone() -> None:
    # v is near both; once it has given way to the test image, nothing in val resembles a1.
    frame = manifest(("a1", "x", "train", None), ("a2", "v", "val", None), ("a3", "t", "test", None))
    assert dropped(frame, near(("x", "v"), ("v", "t"))) == {"a2": ("near duplicate", "a3")}


def test_duplicates_inside_a_split_stay() -> None:
    frame = manifest(("a1", "x", "train", None), ("a2", "x", "train", None))
    assert dropped(frame) == {}


def test_counts_tell_of_each_pair_of_splits() -> None:
    frame = manifest(
        ("a1", "x", "train", "p"), ("a2", "x", "test", "p"), ("b1", "x", "val", "q"), ("b2", "y", "test", "q")
    )
    found = leaks.counts(frame, near(("x", "y")))
    apart = {"all": 1, "train and val": 1, "train and test": 1, "val and test": 1}
    assert found["exact_groups"] == 1
    assert found["exact_groups_across_splits"] == apart
    assert found["near_pairs_across_splits"] == apart
    assert found["patients_in_two_splits"] == {"all": 2, "train and val": 0, "train and test": 1, "val and test": 1}
    assert found["images_with_a_twin_in_another_split"] == {"train": 1, "val": 1, "test": 2}
    assert found["images_with_a_twin_of_another_label"] == 4
