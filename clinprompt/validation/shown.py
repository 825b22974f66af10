"""Images as the evidence names them: by the first digits of their id, since a file's name may tell who the patient is.

The manifest alone has the paths; `python -m clinprompt.data.lookup` tells the file behind an id.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clinprompt.data.manifest import shown_id

FILE_NAMES = ("path",)  # the manifest's columns whose values are not shown


def names_of(rows: pd.DataFrame) -> pd.Series:
    """Each row's image for people, as "image 0123456789ab in train", by its path.

    Args:
        rows: columns path, id, split.
    """
    texts = [f"image {shown_id(image)} in {split}" for image, split in zip(rows["id"], rows["split"], strict=True)]
    return pd.Series(texts, index=rows["path"].to_numpy(), dtype=object)


def speaks_of_files(kwargs: dict[str, Any]) -> bool:
    """Whether an expectation's arguments name a column whose values are not shown."""
    values = [entry for value in kwargs.values() for entry in (value if isinstance(value, list | tuple) else [value])]
    return any(value in FILE_NAMES for value in values if isinstance(value, str))


def dropped_images(dropped: pd.DataFrame, manifest: pd.DataFrame, near: pd.DataFrame) -> list[dict[str, Any]]:
    """What verdict.json tells of each dropped image and its twin, sorted by splits, reason and ids.

    Args:
        dropped: path, split, reason, twin_path, twin_split.
        manifest: all rows, the dropped ones too.
        near: pairs of near-duplicates: id_a, id_b, correlation.

    Returns:
        Of both the id, the file below ingest's images, the label and the split; the reason; and the similarity: 1 for
        the same bytes, the correlation of a near-duplicate, None for another image of the same patient.
    """
    facts: dict[Any, dict[Any, Any]] = manifest.set_index("path")[["id", "file", "label"]].to_dict("index")
    pairs = zip(near["id_a"], near["id_b"], near["correlation"], strict=True)
    similarity = {frozenset((a, b)): round(float(value), 4) for a, b, value in pairs}
    told: list[dict[str, Any]] = []
    for row in dropped.to_dict("records"):
        image, twin = facts[row["path"]], facts[row["twin_path"]]
        known = {"exact duplicate": 1.0, "near duplicate": similarity.get(frozenset((image["id"], twin["id"])))}
        about = {**image, "split": row["split"], "reason": row["reason"], "similarity": known.get(row["reason"])}
        told.append({**about, **{f"twin_{key}": twin[key] for key in twin}, "twin_split": row["twin_split"]})
    keys = ("split", "twin_split", "reason", "id", "twin_id")
    return sorted(told, key=lambda row: [str(row[key]) for key in keys])


def flagged_images(found: Iterable[tuple[str, Sequence[str]]], rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What verdict.json tells of each image that a check flags, by split and id: id, file, label, split, the checks.

    Args:
        found: a check's name, and the paths of the rows that it flags.
        rows: columns path, id, file, label, split.
    """
    checks: dict[str, list[str]] = {}
    for name, paths in found:
        for path in paths:
            checks.setdefault(path, []).append(name)
    flagged = rows.loc[rows["path"].isin(list(checks)), ["path", "id", "file", "label", "split"]]
    records = flagged.sort_values(["split", "id", "path"]).to_dict("records")
    return [{str(key): row[key] for key in row if key != "path"} | {"checks": checks[row["path"]]} for row in records]


def images_by_id(images: pd.DataFrame) -> pd.DataFrame:
    """The summary's rows, one per distinct image, by id and without paths."""
    return images.drop(columns="path").drop_duplicates("id").sort_values("id", ignore_index=True)


def pairs_by_id(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs of paths as pairs of ids, id_a up to id_b, sorted; each row still is a pair of files."""
    swap = (pairs["id_a"] > pairs["id_b"]).to_numpy()
    told = pairs.drop(columns=["path_a", "path_b"])
    for name in ("id", "split"):
        a, b = told[f"{name}_a"].copy(), told[f"{name}_b"].copy()
        told[f"{name}_a"], told[f"{name}_b"] = np.where(swap, b, a), np.where(swap, a, b)
    return told.sort_values([*told.columns], ignore_index=True)
