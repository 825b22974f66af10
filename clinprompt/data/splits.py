"""Train, val and test: the publisher's, or a stratified share-out that keeps groups whole and hardly ever moves one.

A group is a patient, together with everything that shares an image's bytes or picture with it; an image without a
patient is a group with its copies and near-duplicates. Each group has a fixed place in [0, 1), the hash of the seed and
its name, and goes to test, val or train by where that place lies. So a group keeps its split when others come or go.
Chance would leave small classes with unlucky shares, hence a class's share may miss its fraction by a tenth (or half an
image) at most; only groups at that boundary can ever move. A group that alone is twice a split's share or more is
passed over there, as look-alikes by the hundred are. A class with as many groups as splits has an image in each of
them: where its share would leave one empty, a group moves there from a split that holds several of the class.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clinprompt.data.columns import FOLD, SPLITS
from clinprompt.data.folds import folds
from clinprompt.data.groups import group_names
from clinprompt.data.split_rule import SplitRule
from clinprompt.errors import DataRejected

SLACK = 0.1
_TOO_LARGE = 2.0  # times a split's share of a class: without such a group the split is nearer to it


def with_splits(
    frame: pd.DataFrame, rule: SplitRule, classes: Sequence[str], near: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The rows with their split and, where the rule makes folds, with their fold (null in the test split).

    Args, raises: as of `assign_splits`; DataRejected also where a class has fewer groups than there are folds.
    """
    shared = frame.assign(split=assign_splits(frame, rule, classes, near))
    if rule.folds is None:
        return shared
    number = folds(shared[shared["split"] != "test"], classes, rule.folds, rule.seed, near)
    shared[FOLD] = number.map(str).reindex(shared.index)
    shared.loc[number.index, "split"] = np.where(number == rule.fold, "val", "train")
    return shared


def assign_splits(
    frame: pd.DataFrame, rule: SplitRule, classes: Sequence[str], near: pd.DataFrame | None = None
) -> pd.Series:
    """The split of each row.

    Args:
        frame: columns path, id, label, patient (null: unknown), split (null: the dataset does not tell).
        near: pairs of near-duplicates, columns id_a and id_b.

    Raises:
        DataRejected: the rule is given, and an image has no split, or both publisher and card make a val split.
    """
    if rule.rule == "stratified":
        fractions = {"test": rule.fractions.test, "val": rule.fractions.val}
        return stratified(frame, fractions, rule.seed, classes, near)
    missing = frame["split"].isna()
    if missing.any():
        path = frame["path"][missing].iloc[0]
        raise DataRejected(
            f"{path}: the dataset does not tell this image's split (nor that of {int(missing.sum()) - 1} others), "
            "but the card says split.rule: given; set it to stratified."
        )
    splits = frame["split"].astype(object).copy()
    if rule.val_from_train is not None:
        if (splits == "val").any():
            raise DataRejected("The dataset has a val split of its own; remove split.val_from_train from the card.")
        train = frame[splits == "train"]
        splits[train.index] = stratified(train, {"val": rule.val_from_train}, rule.seed, classes, near)
    return splits


def stratified(
    frame: pd.DataFrame,
    fractions: dict[str, float],
    seed: int,
    classes: Sequence[str],
    near: pd.DataFrame | None = None,
) -> pd.Series:
    """Share the rows out by class, groups whole: `fractions` to the named splits in this order, the rest to train.

    A group with images of several classes counts for the one that it has most of.
    """
    groups = group_names(frame, near)
    label = frame["label"].map({c: i for i, c in enumerate(classes)})
    counts = pd.crosstab(groups, label)
    stratum = counts.idxmax(axis=1)
    split_of: dict[str, str] = {}
    for _, members in stratum.groupby(stratum):
        order = sorted(_Group(_hash_position(seed, str(g)), str(g), int(counts.loc[g].sum())) for g in members.index)
        split_of |= _share_out(order, fractions)
    images = counts.sum(axis=1).to_dict()
    _cover(counts > 0, split_of, [*fractions, "train"], lambda group: (images[group], group))
    return groups.map(split_of).astype(object)


def uncovered(
    frame: pd.DataFrame, rule: SplitRule, classes: Sequence[str], near: pd.DataFrame | None = None
) -> list[str]:
    """A sentence for each class that has no image in a split that the rule has made, with the reason.

    Args:
        frame: columns id, label, patient and the split as assigned.
        near: pairs of near-duplicates, columns id_a and id_b.
    """
    splits = list(SPLITS) if rule.rule == "stratified" else ["train", "val"] if rule.shares_out else []
    made = frame[frame["split"].isin(splits)]
    groups = group_names(made, near)
    sentences = []
    for label in classes:
        rows = made["label"] == label
        empty = [split for split in splits if not (made["split"][rows] == split).any()]
        if empty:
            n, unit = int(groups[rows].nunique()), "patients"
            if made["patient"][rows].isna().any():
                unit = "groups of images that stay together"
            why = f"fewer than the {len(splits)} splits" if n < len(splits) else "which hold other classes too"
            where = " and ".join(empty)
            sentences.append(f"The class {label!r} has no image in {where}; its {unit} are {n}, {why}.")
    return sentences


def check_splits(frame: pd.DataFrame, rule: SplitRule | None = None, near: pd.DataFrame | None = None) -> None:
    """Refuse a manifest in which one of the three splits is empty.

    Raises:
        DataRejected: names the split and what to write in the card, or why a rule could not fill it.
    """
    for split in SPLITS:
        if (frame["split"] == split).any():
            continue
        if rule is not None and rule.rule == "stratified":
            groups = group_names(frame, near).nunique()
            raise DataRejected(
                f"The {split} split holds no image: the {len(frame)} images are {groups} group{'s' * (groups != 1)} "
                "that no split may part (a patient's images, or those of patients who share a file, as a blank slice), "
                "and each split needs one."
            )
        hint = "set split.val_from_train in the card (0.15, say), or " if split == "val" else ""
        raise DataRejected(f"The {split} split holds no image; {hint}give it images or use split.rule: stratified.")


def _hash_position(seed: int, group: str) -> float:
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True, order=True)
class _Group:
    place: float
    name: str
    images: int


def _share_out(order: list[_Group], fractions: dict[str, float]) -> dict[str, str]:
    """Cut the groups, sorted by place, into consecutive runs; those too large for a split are passed over."""
    split_of = {group.name: "train" for group in order}
    total = sum(group.images for group in order)
    left, edge = order, 0.0
    for split, fraction in fractions.items():
        edge += fraction
        target = fraction * total
        fitting = [group for group in left if group.images < _TOO_LARGE * target]
        run = {group.name for group in fitting[: _run_length(fitting, edge, target)]}
        split_of |= dict.fromkeys(run, split)
        left = [group for group in left if group.name not in run]
    return split_of


def _cover(
    holds: pd.DataFrame, split_of: dict[str, str], splits: Sequence[str], order: Callable[[str], tuple[int, str]]
) -> None:
    """Move groups so that each class is in every split, where it has as many groups as splits.

    No move takes a class from a split; of the groups that may move, the first by `order` does.

    Args:
        holds: groups x classes, whether a group has images of a class.
        split_of: group -> split, changed in place.
    """
    groups_of = {label: sorted(holds.index[holds[label]], key=order) for label in holds.columns}
    present = Counter((label, split_of[group]) for label, groups in groups_of.items() for group in groups)
    for label, groups in groups_of.items():
        for split in splits:
            if present[label, split] or len(groups) < len(splits):
                continue
            movable = (g for g in groups if all(present[c, split_of[g]] > 1 for c in holds.columns[holds.loc[g]]))
            moved = next(movable, None)
            if moved is None:
                continue
            for other in holds.columns[holds.loc[moved]]:
                present[other, split_of[moved]] -= 1
                present[other, split] += 1
            split_of[moved] = split


def _run_length(order: list[_Group], edge: float, target: float) -> int:
    """How many groups lie below `edge`, moved as little as brings their images within the slack of `target`."""
    natural = sum(group.place < edge for group in order)
    images = np.cumsum([0, *(group.images for group in order)])
    slack = max(SLACK * target, 0.5)
    fitting = np.flatnonzero(np.abs(images - target) <= slack)
    if not len(fitting):
        return int(np.abs(images - target).argmin())
    return int(np.clip(natural, fitting[0], fitting[-1]))
