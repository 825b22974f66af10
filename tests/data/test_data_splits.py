"""Splits keep groups whole, meet their fractions and hardly move when images are added; support sets nest."""

import hashlib
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinprompt.data.split_rule import Fractions, SplitRule
from clinprompt.data.splits import assign_splits, check_splits, group_names, uncovered, with_splits
from clinprompt.data.support import support_set
from clinprompt.errors import DataRejected

CLASSES = ["a", "b", "c"]
STRATIFIED = SplitRule(rule="stratified", fractions=Fractions(train=0.7, val=0.15, test=0.15), seed=3)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def images(n: int, per_patient: int = 1, start: int = 0) -> pd.DataFrame:
    numbers = range(start, start + n)
    patient = [sha(f"patient {i // per_patient}")[:16] if per_patient > 1 else None for i in numbers]
    return pd.DataFrame(
        {
            "path": [f"{i:06d}.png" for i in numbers],
            "id": [sha(f"image {i}") for i in numbers],
            "label": [CLASSES[(i // per_patient) % 3] for i in numbers],
            "patient": pd.Series(patient, dtype=object),
            "split": pd.Series([None] * n, dtype=object),
        }
    )


def moved(before: pd.DataFrame, after: pd.DataFrame, rule: SplitRule = STRATIFIED) -> int:
    """How many images that are in both have another split."""
    one, two = (pd.Series(assign_splits(f, rule, CLASSES).to_numpy(), f["path"]) for f in (before, after))
    common = one.index.intersection(two.index)
    return int((one[common] != two[common]).sum())


@pytest.mark.parametrize("per_patient", [1, 3])
@pytest.mark.parametrize("n", [60, 300, 3000])
def test_each_class_meets_its_fractions(n: int, per_patient: int) -> None:
    frame = images(n, per_patient)
    split = assign_splits(frame, STRATIFIED, CLASSES)
    shares = pd.crosstab(frame["label"], split, normalize="index")
    tolerance = 0.015 + per_patient * 3 / n
    assert (shares["train"] - 0.7).abs().max() <= 2 * tolerance
    assert (shares[["val", "test"]] - 0.15).abs().max().max() <= tolerance


def test_no_patient_and_no_copy_is_in_two_splits() -> None:
    frame = images(600, per_patient=4)
    frame.loc[[7, 300, 444], "id"] = frame["id"][0]  # the same file filed under four patients
    frame.loc[500:, "patient"] = None
    frame.loc[[510, 599], "id"] = frame["id"][505]
    split = assign_splits(frame, STRATIFIED, CLASSES)
    assert split.groupby(frame["patient"]).nunique().max() == 1
    assert split.groupby(frame["id"]).nunique().max() == 1
    assert group_names(frame)[[0, 7, 300, 444]].nunique() == 1


def test_the_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    frame = images(300)
    shuffled = frame.sample(frac=1, random_state=0)
    assert assign_splits(shuffled, STRATIFIED, CLASSES).sort_index().equals(assign_splits(frame, STRATIFIED, CLASSES))
    other = STRATIFIED.model_copy(update={"seed": 4})
    assert not assign_splits(frame, other, CLASSES).equals(assign_splits(frame, STRATIFIED, CLASSES))


@pytest.mark.parametrize(("n", "added"), [(60, 3), (300, 10), (3000, 300), (3000, 3000)])
def test_adding_images_moves_hardly_any_other(n: int, added: int) -> None:
    assert moved(images(n), images(n + added)) <= max(3, 0.1 * added)
    assert moved(images(n, 3), images(n + added, 3)) <= max(9, 0.1 * added)


def test_a_new_image_of_a_known_patient_joins_the_others() -> None:
    before, after = images(300, 3), images(300, 3)
    extra = after.iloc[:50].assign(path=lambda f: "x" + f["path"], id=lambda f: f["path"].map(sha))
    after = pd.concat([after, extra], ignore_index=True)
    assert moved(before, after) <= 30
    split = assign_splits(after, STRATIFIED, CLASSES)
    assert split.groupby(after["patient"]).nunique().max() == 1


def test_a_group_of_most_of_a_class_is_in_train_and_the_rest_fills_the_other_splits() -> None:
    frame = images(400)
    for seed in range(5):
        alike = frame["id"][frame["label"] == CLASSES[0]].iloc[: len(frame) // 6]
        near = pd.DataFrame({"id_a": alike.iloc[:-1].to_numpy(), "id_b": alike.iloc[1:].to_numpy()})
        split = assign_splits(frame, STRATIFIED.model_copy(update={"seed": seed}), CLASSES, near)
        assert split[alike.index].unique().tolist() == ["train"]
        sizes = split[frame["label"] == CLASSES[0]].value_counts()
        assert sizes["val"] > 0.1 * sizes.sum()
        assert sizes["test"] > 0.1 * sizes.sum()


def test_val_from_train_leaves_test_alone() -> None:
    frame = images(900)
    frame["split"] = np.where(np.arange(900) % 5 == 0, "test", "train")
    rule = SplitRule(rule="given", val_from_train=0.2)
    split = assign_splits(frame, rule, CLASSES)
    assert (split[frame["split"] == "test"] == "test").all()
    shares = pd.crosstab(frame["label"], split)
    assert ((shares["val"] / (shares["val"] + shares["train"])) - 0.2).abs().max() <= 0.025
    frame.loc[0, "split"] = "val"
    with pytest.raises(DataRejected, match="has a val split of its own"):
        assign_splits(frame, rule, CLASSES)


@pytest.mark.parametrize("rule", ["given", "stratified"])
def test_folds_partition_the_patients_outside_the_test_split_and_the_rule_says_which_validates(rule: str) -> None:
    frame = images(240, per_patient=2)
    frame["split"] = np.where(frame["patient"].map(lambda p: int(p, 16) % 5 == 0), "test", "train")
    alone = SplitRule.model_validate({"rule": rule, "seed": 3})
    test = assign_splits(frame, alone, CLASSES) == "test"
    validated = pd.Series(0, index=frame.index)
    for fold in range(5):
        made = with_splits(frame, alone.model_copy(update={"folds": 5, "fold": fold}), CLASSES)
        assert (made["split"][test] == "test").all()
        assert made["fold"][test].isna().all()
        assert set(made["fold"][~test]) == set("01234")
        assert made.groupby("patient")["split"].nunique().max() == 1
        assert ((made["split"] == "val") == (made["fold"] == str(fold))).all()
        validated += made["split"] == "val"
    assert (validated == ~test).all()
    assert "fold" not in with_splits(frame, alone, CLASSES)


def test_folds_keep_near_duplicates_together_and_need_a_patient_of_each_class() -> None:
    frame = images(60).assign(split="train")
    near = pd.DataFrame({"id_a": frame["id"].iloc[0:1].to_numpy(), "id_b": frame["id"].iloc[3:4].to_numpy()})
    for seed in range(8):
        made = with_splits(frame, SplitRule(folds=10, seed=seed), CLASSES, near)
        assert made["fold"].iloc[0] == made["fold"].iloc[3]
    with pytest.raises(DataRejected, match="'a' has 20 subjects in train and val, fewer than the 21 folds"):
        with_splits(frame, SplitRule(folds=21), CLASSES)


def test_given_without_splits_and_an_empty_split_are_refused() -> None:
    frame = images(9)
    with pytest.raises(DataRejected, match="000000.png: the dataset does not tell this image's split"):
        assign_splits(frame, SplitRule(rule="given"), CLASSES)
    frame["split"] = ["train", "test", "train"] * 3
    with pytest.raises(DataRejected, match=r"The val split holds no image; set split.val_from_train"):
        check_splits(frame.assign(split=assign_splits(frame, SplitRule(rule="given"), CLASSES)))


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(4, 40), min_size=3, max_size=3),
    fraction=st.sampled_from([0.1, 0.15, 0.25]),
    seed=st.integers(0, 1000),
)
def test_small_classes_get_an_image_in_every_split(counts: list[int], fraction: float, seed: int) -> None:
    labels = [c for c, n in zip(CLASSES, counts, strict=True) for _ in range(n)]
    frame = images(sum(counts)).assign(label=labels)
    rule = SplitRule(rule="stratified", fractions=Fractions(train=1 - 2 * fraction, val=fraction, test=fraction))
    table = pd.crosstab(frame["label"], assign_splits(frame, rule.model_copy(update={"seed": seed}), CLASSES))
    for label, n in zip(CLASSES, counts, strict=True):
        if n * fraction > 0.5:
            assert (table.reindex(columns=["train", "val", "test"], fill_value=0).loc[label] > 0).all()


@settings(max_examples=50, deadline=None)
@given(n=st.integers(12, 80), k=st.integers(1, 4), seed=st.integers(0, 2**31), duplicates=st.integers(0, 6))
def test_support_sets_are_balanced_nested_and_stable(n: int, k: int, seed: int, duplicates: int) -> None:
    frame = images(n).assign(split="train")
    frame = pd.concat([frame, frame.iloc[:duplicates].assign(path=lambda f: "copy" + f["path"])], ignore_index=True)
    sets = [support_set(frame, CLASSES, shots, seed) for shots in range(1, k + 1)]
    for shots, chosen in enumerate(sets, start=1):
        assert chosen["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, shots)
        assert chosen["id"].is_unique
        assert chosen["path"].is_monotonic_increasing
    for small, large in itertools.pairwise(sets):
        assert set(small["path"]) < set(large["path"])
    assert support_set(frame.sample(frac=1, random_state=1), CLASSES, k, seed).equals(sets[-1])
    more = pd.concat([frame, images(3, start=1000).assign(split="train")], ignore_index=True)
    assert len(set(support_set(more, CLASSES, k, seed)["path"]) - set(sets[-1]["path"])) <= 3


def test_support_comes_from_train_alone_and_differs_between_seeds() -> None:
    frame = images(300).assign(split=["train", "val", "test"] * 100)
    frame["label"] = [CLASSES[i % 7 % 3] for i in range(300)]
    chosen = support_set(frame, CLASSES, 8, 0)
    assert set(chosen["split"]) == {"train"}
    assert not chosen.equals(support_set(frame, CLASSES, 8, 1))
    assert len(support_set(frame, CLASSES, None, 0)) == 100


def test_too_few_images_for_the_shots_are_refused() -> None:
    frame = images(9).assign(split="train")
    frame.loc[3, "id"] = frame["id"][0]
    with pytest.raises(
        DataRejected, match=r"asks for 3 different training images of each class, but the class 'a' has 2"
    ):
        support_set(frame, CLASSES, 3, 0)
    with pytest.raises(DataRejected, match="the class 'd' has 0;"):
        support_set(frame, [*CLASSES, "d"], 1, 0)


def coverage(frame: pd.DataFrame, split: pd.Series) -> pd.DataFrame:
    table = pd.crosstab(frame["label"], split)
    return table.reindex(index=CLASSES, columns=["train", "val", "test"], fill_value=0) > 0


@settings(max_examples=60, deadline=None)
@given(
    patients=st.lists(st.lists(st.integers(1, 12), min_size=3, max_size=6), min_size=3, max_size=3),
    fraction=st.sampled_from([0.05, 0.1, 0.15, 0.3]),
    seed=st.integers(0, 1000),
)
def test_a_class_with_as_many_patients_as_splits_is_in_each_of_them(
    patients: list[list[int]], fraction: float, seed: int
) -> None:
    rows = [
        (c, f"{c}{p}")
        for c, sizes in zip(CLASSES, patients, strict=True)
        for p, n in enumerate(sizes)
        for _ in range(n)
    ]
    frame = images(len(rows)).assign(label=[c for c, _ in rows], patient=[sha(p)[:16] for _, p in rows])
    fractions = Fractions(train=1 - 2 * fraction, val=fraction, test=fraction)
    rule = SplitRule(rule="stratified", fractions=fractions, seed=seed)
    split = assign_splits(frame, rule, CLASSES)
    assert coverage(frame, split).all().all()
    assert split.groupby(frame["patient"]).nunique().max() == 1
    assert uncovered(frame.assign(split=split), rule, CLASSES) == []
    shuffled = frame.sample(frac=1, random_state=seed)
    assert assign_splits(shuffled, rule, CLASSES).sort_index().equals(split)


def test_a_class_that_its_patients_share_with_a_larger_one_is_in_every_split_too() -> None:
    frame = images(300, 3)
    frame["label"] = ["a" if i % 3 else "b" for i in range(300)]  # every patient has more images of a
    frame.loc[frame.index >= 9, "label"] = "a"  # and b has three patients
    split = assign_splits(frame, STRATIFIED, ["a", "b"])
    assert coverage(frame, split).loc[["a", "b"]].all().all()


def test_a_class_with_fewer_patients_than_splits_is_told_in_one_sentence() -> None:
    frame = images(300, 3)
    frame.loc[frame["label"] == "c", "label"] = "b"
    frame.loc[frame.index < 6, "label"] = "c"
    frame["split"] = assign_splits(frame, STRATIFIED, CLASSES)
    [sentence] = uncovered(frame, STRATIFIED, CLASSES)
    assert sentence.startswith("The class 'c' has no image in ")
    assert sentence.endswith("; its patients are 2, fewer than the 3 splits.")
    assert uncovered(frame, SplitRule(rule="given"), CLASSES) == []


def test_val_from_train_has_every_class_that_train_can_spare() -> None:
    frame = images(60).assign(split="train")
    frame["label"] = ["a"] * 57 + ["b", "b", "b"]
    rule = SplitRule(rule="given", val_from_train=0.05)
    assert pd.crosstab(frame["label"], assign_splits(frame, rule, ["a", "b"])).loc["b"].to_dict() == {
        "train": 2,
        "val": 1,
    }
