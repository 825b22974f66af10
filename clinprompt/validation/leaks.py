"""The same image or the same patient in two splits: found, counted and, if the card says so, dropped."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

# A leak is taken out of the split that can best spare it: the later one in this order stays whole.
_BY_WORTH = ("train", "val", "test")


@dataclass(frozen=True)
class Cleaned:
    """The rows that remain, and those that were dropped: path, reason, twin_path; sorted by path."""

    manifest: pd.DataFrame
    dropped: pd.DataFrame


def twins_across_splits(manifest: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """For each row with an exact or near twin in another split: path, split, reason, twin_path, twin_split.

    One row per (path, other split); an exact twin is named rather than a near one, then the first by path.
    """
    rows = manifest[["id", "path", "split"]]
    firsts = rows.drop_duplicates(["id", "split"])
    links = _both_ways(near).assign(reason="near duplicate")
    itself = pd.DataFrame({"id": firsts["id"].unique(), "twin_id": firsts["id"].unique(), "reason": "exact duplicate"})
    twins = firsts.rename(columns={"id": "twin_id", "path": "twin_path", "split": "twin_split"})
    found = rows.merge(pd.concat([itself, links]), on="id").merge(twins, on="twin_id")
    return _first_per_split(found[found["split"] != found["twin_split"]])


def patients_across_splits(manifest: pd.DataFrame) -> pd.DataFrame:
    """As `twins_across_splits`, for the rows of patients who have images in more than one split."""
    rows = manifest.loc[manifest["patient"].notna(), ["patient", "path", "split"]]
    firsts = rows.drop_duplicates(["patient", "split"]).rename(columns={"path": "twin_path", "split": "twin_split"})
    found = rows.merge(firsts, on="patient").assign(reason="patient in two splits")
    return _first_per_split(found[found["split"] != found["twin_split"]])


def other_label_twins(manifest: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """For each row with an exact or near twin of another label: path, twin_path (the first by path)."""
    rows = manifest[["id", "path", "label"]]
    firsts = rows.drop_duplicates(["id", "label"])
    itself = pd.DataFrame({"id": firsts["id"].unique(), "twin_id": firsts["id"].unique()})
    twins = firsts.rename(columns={"id": "twin_id", "path": "twin_path", "label": "twin_label"})
    found = rows.merge(pd.concat([itself, _both_ways(near)]), on="id").merge(twins, on="twin_id")
    found = found[found["label"] != found["twin_label"]].sort_values(["path", "twin_path"])
    return found.drop_duplicates("path")[["path", "twin_path"]].reset_index(drop=True)


def drop(manifest: pd.DataFrame, near: pd.DataFrame) -> Cleaned:
    """Drop the rows whose twin or patient is also in a split of more worth: test first, then val; test stays whole."""
    kept, dropped = manifest, []
    for protected, sparing in _steps():
        for leaks in (twins_across_splits(kept, near), patients_across_splits(kept)):
            out = leaks[leaks["split"].isin(sparing) & (leaks["twin_split"] == protected)]
            dropped.append(out)
            kept = kept[~kept["path"].isin(out["path"])]
    everything = pd.concat(dropped).drop_duplicates("path").sort_values("path", ignore_index=True)
    return Cleaned(kept.reset_index(drop=True), everything[["path", "reason", "twin_path"]])


def counts(manifest: pd.DataFrame, near: pd.DataFrame) -> dict[str, Any]:
    """Groups of byte-identical files, near-duplicate pairs and patients, in all and across splits."""
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
        "images_with_a_twin_in_another_split": {split: int((twins["split"] == split).sum()) for split in _BY_WORTH},
        "images_with_a_twin_of_another_label": len(other_label_twins(manifest, near)),
        "patients": len(patients),
        "patients_in_two_splits": _across(patients),
    }


def _across(members: list[frozenset[str]]) -> dict[str, int]:
    """How many groups have members in more than one split, and in each pair of splits."""
    found = {"all": sum(len(splits) > 1 for splits in members)}
    for first, second in itertools.combinations(_BY_WORTH, 2):
        found[f"{first} and {second}"] = sum({first, second} <= splits for splits in members)
    return found


def _steps() -> Iterator[tuple[str, tuple[str, ...]]]:
    for position in range(len(_BY_WORTH) - 1, 0, -1):
        yield _BY_WORTH[position], _BY_WORTH[:position]


def _both_ways(near: pd.DataFrame) -> pd.DataFrame:
    forth = near[["id_a", "id_b"]].set_axis(["id", "twin_id"], axis=1)
    return pd.concat([forth, near[["id_b", "id_a"]].set_axis(["id", "twin_id"], axis=1)], ignore_index=True)


def _first_per_split(found: pd.DataFrame) -> pd.DataFrame:
    columns = ["path", "split", "reason", "twin_path", "twin_split"]
    ordered = found.sort_values(["path", "twin_split", "reason", "twin_path"])  # "exact" sorts before "near"
    return ordered.drop_duplicates(["path", "twin_split"])[columns].reset_index(drop=True)
