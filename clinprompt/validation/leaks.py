"""Leaks, the same image or patient in two splits: detect, count and, if the card asks for it, drop them."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from clinprompt.data.columns import NOVEL

DROPPED = ("path", "split", "reason", "twin_path", "twin_split")  # what is told of a dropped row
# Of two splits that share an image or a patient, the earlier one in this order loses its rows.
_SPLITS_BY_WORTH = ("train", "val", "test")


@dataclass(frozen=True)
class Cleaned:
    """A manifest without leaks.

    Attributes:
        manifest: the rows that remain.
        dropped: path, split, reason, twin_path and twin_split of the others, sorted by path.
    """

    manifest: pd.DataFrame
    dropped: pd.DataFrame


def twins_across_splits(manifest: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """For each row with an exact or near twin in another split: path, split, reason, twin_path, twin_split.

    One row per (path, other split); an exact twin is named rather than a near one, then the first by path.
    """
    rows = _of_three_splits(manifest)[["id", "path", "split"]]
    firsts = rows.drop_duplicates(["id", "split"])
    similar = _both_directions(near).assign(reason="near duplicate")
    exact = pd.DataFrame({"id": firsts["id"].unique(), "twin_id": firsts["id"].unique(), "reason": "exact duplicate"})
    twins = firsts.rename(columns={"id": "twin_id", "path": "twin_path", "split": "twin_split"})
    pairs = rows.merge(pd.concat([exact, similar]), on="id").merge(twins, on="twin_id")
    return _first_per_split(pairs[pairs["split"] != pairs["twin_split"]])


def patients_across_splits(manifest: pd.DataFrame) -> pd.DataFrame:
    """As `twins_across_splits`, for the rows of patients who have images in more than one split."""
    rows = _of_three_splits(manifest).loc[manifest["patient"].notna(), ["patient", "path", "split"]]
    firsts = rows.drop_duplicates(["patient", "split"]).rename(columns={"path": "twin_path", "split": "twin_split"})
    pairs = rows.merge(firsts, on="patient").assign(reason="patient in two splits")
    return _first_per_split(pairs[pairs["split"] != pairs["twin_split"]])


def other_label_twins(manifest: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """For each row with an exact or near twin of another label: path, twin_path (the first by path)."""
    rows = manifest[["id", "path", "label"]]
    firsts = rows.drop_duplicates(["id", "label"])
    exact = pd.DataFrame({"id": firsts["id"].unique(), "twin_id": firsts["id"].unique()})
    twins = firsts.rename(columns={"id": "twin_id", "path": "twin_path", "label": "twin_label"})
    pairs = rows.merge(pd.concat([exact, _both_directions(near)]), on="id").merge(twins, on="twin_id")
    pairs = pairs[pairs["label"] != pairs["twin_label"]].sort_values(["path", "twin_path"])
    return pairs.drop_duplicates("path")[["path", "twin_path"]].reset_index(drop=True)


def drop(manifest: pd.DataFrame, near: pd.DataFrame) -> Cleaned:
    """Drop the rows whose twin or patient is also in a later split of train, val, test; test stays whole."""
    remaining, dropped = manifest, []
    for protected, giving in _steps():
        for leaks in (twins_across_splits(remaining, near), patients_across_splits(remaining)):
            leaking = leaks[leaks["split"].isin(giving) & (leaks["twin_split"] == protected)]
            dropped.append(leaking)
            remaining = remaining[~remaining["path"].isin(leaking["path"])]
    all_dropped = pd.concat(dropped).drop_duplicates("path").sort_values("path", ignore_index=True)
    return Cleaned(remaining.reset_index(drop=True), all_dropped[list(DROPPED)])


def counts(manifest: pd.DataFrame, near: pd.DataFrame) -> dict[str, Any]:
    """Groups of byte-identical files, near-duplicate pairs and patients, in all and across splits.

    `patients_in_two_splits` is None where no patient is known.
    """
    manifest = _of_three_splits(manifest)
    groups = manifest.groupby("id").agg(files=("path", "size"), splits=("split", frozenset))
    exact = groups.loc[groups["files"] > 1, "splits"].tolist()
    pairs = [groups["splits"][a] | groups["splits"][b] for a, b in zip(near["id_a"], near["id_b"], strict=True)]
    twins = twins_across_splits(manifest, near).drop_duplicates("path")
    patients = manifest.groupby("patient")["split"].agg(frozenset).tolist()
    return {
        "exact_groups": len(exact),
        "exact_groups_across_splits": _across(exact),
        "near_pairs": len(pairs),
        "near_pairs_across_splits": _across(pairs),
        "images_with_a_twin_in_another_split": {
            split: int((twins["split"] == split).sum()) for split in _SPLITS_BY_WORTH
        },
        "images_with_a_twin_of_another_label": len(other_label_twins(manifest, near)),
        "patients": len(patients),
        "images_without_a_patient": int(manifest["patient"].isna().sum()),
        "patients_in_two_splits": _across(patients) if patients else None,
    }


def _of_three_splits(manifest: pd.DataFrame) -> pd.DataFrame:
    """With images of novel classes in the test split, which they are from: they leak as its others do."""
    return manifest.assign(split=manifest["split"].replace(NOVEL, "test"))


def _across(groups: list[frozenset[str]]) -> dict[str, int]:
    """How many groups have members in more than one split, and in each pair of splits."""
    counts = {"all": sum(len(splits) > 1 for splits in groups)}
    for first, second in itertools.combinations(_SPLITS_BY_WORTH, 2):
        counts[f"{first} and {second}"] = sum({first, second} <= splits for splits in groups)
    return counts


def _steps() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(protected split, splits that lose rows to it), test first."""
    for position in range(len(_SPLITS_BY_WORTH) - 1, 0, -1):
        yield _SPLITS_BY_WORTH[position], _SPLITS_BY_WORTH[:position]


def _both_directions(near: pd.DataFrame) -> pd.DataFrame:
    """Each pair as two rows, id and twin_id."""
    forward = near[["id_a", "id_b"]].set_axis(["id", "twin_id"], axis=1)
    return pd.concat([forward, near[["id_b", "id_a"]].set_axis(["id", "twin_id"], axis=1)], ignore_index=True)


def _first_per_split(pairs: pd.DataFrame) -> pd.DataFrame:
    ordered = pairs.sort_values(["path", "twin_split", "reason", "twin_path"])  # "exact" sorts before "near"
    return ordered.drop_duplicates(["path", "twin_split"])[list(DROPPED)].reset_index(drop=True)
