"""Images that occur twice: byte-identical files, and files that show the same picture."""

from dataclasses import dataclass

import pandas as pd

from clinprompt.data.near_duplicates.pairs import near_pairs
from clinprompt.validation.summary import Summary

_PAIR_COLUMNS = ["path_a", "path_b", "id_a", "id_b", "split_a", "split_b", "kind", "bits", "correlation", "same_label"]


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of a dataset.

    Attributes:
        near: one row per pair of different files that look the same: id_a, id_b (id_a < id_b), bits, correlation.
        pairs: near-duplicates and byte-identical files as pairs of paths, with their ids. To keep it
            short, a file is paired with the first file of each split among its twins, not with every one of them.
    """

    near: pd.DataFrame
    pairs: pd.DataFrame


def find_duplicates(manifest: pd.DataFrame, summary: Summary, bits: int, correlation: float) -> Duplicates:
    """Find the exact and the near-duplicates among the manifest's rows."""
    near = near_pairs(summary.prints, bits, correlation)
    return Duplicates(near, path_pairs(manifest, near))


def path_pairs(manifest: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """Exact and near pairs as paths, with splits and whether the labels agree; sorted by the two paths."""
    rows = manifest[["id", "path", "split", "label"]]
    firsts = rows.drop_duplicates(["id", "split"])
    exact = rows.merge(firsts, on="id", suffixes=("_a", "_b"))
    exact = exact[exact["path_a"] != exact["path_b"]].assign(kind="exact", bits=0, correlation=1.0)
    exact = exact.assign(id_a=exact["id"], id_b=exact["id"])
    similar = (
        near.merge(firsts.add_suffix("_a"), on="id_a").merge(firsts.add_suffix("_b"), on="id_b").assign(kind="near")
    )
    pairs = pd.concat([_ordered(exact), _ordered(similar)], ignore_index=True)
    pairs = pairs.assign(same_label=pairs["label_a"] == pairs["label_b"]).drop_duplicates(["path_a", "path_b"])
    return pairs.sort_values(["path_a", "path_b"], ignore_index=True)[_PAIR_COLUMNS]


def _ordered(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with a and b exchanged where path_a comes after path_b."""
    swap = pairs["path_a"] > pairs["path_b"]
    ordered = pairs.copy()
    for column in ("path", "id", "split", "label"):
        a, b = pairs[f"{column}_a"], pairs[f"{column}_b"]
        ordered[f"{column}_a"], ordered[f"{column}_b"] = a.where(~swap, b), b.where(~swap, a)
    return ordered
