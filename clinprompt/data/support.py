"""Support sets: a few images per class, drawn from the training split."""

import hashlib
from collections.abc import Sequence

import pandas as pd

from clinprompt.errors import DataRejected
from clinprompt.files import sha256_bytes


def support_set(frame: pd.DataFrame, classes: Sequence[str], shots: int | None, seed: int) -> pd.DataFrame:
    """Draw `shots` different images of each class from the manifest's training rows; None: all training rows.

    The set for K is part of the set for K + 1 with the same seed, and adding images to the manifest changes few of
    its members. Of byte-identical images with one label only the first is drawn.

    Returns:
        The chosen rows, sorted by path.

    Raises:
        DataRejected: a class has fewer than `shots` different training images.
    """
    train = frame[frame["split"] == "train"].sort_values("path", kind="stable")
    if shots is None:
        return train.reset_index(drop=True)
    check_shots(frame, classes, shots)
    chosen = []
    for label in classes:
        images = train[train["label"] == label].drop_duplicates("id")
        chosen.append(in_drawing_order(images, seed)[:shots])
    return pd.concat(chosen).sort_values("path", kind="stable").reset_index(drop=True)


def check_shots(frame: pd.DataFrame, classes: Sequence[str], shots: int | None) -> None:
    """Whether each class of the manifest has as many different training images as `shots` asks for.

    Raises:
        DataRejected: some have fewer; all of them are named.
    """
    train = frame[frame["split"] == "train"].drop_duplicates(["label", "id"])
    counts = {label: int((train["label"] == label).sum()) for label in classes}
    few = [f"{label!r} has {count}" for label, count in counts.items() if count < (shots or 0)]
    if few:
        raise DataRejected(
            f"training.shots asks for {shots} different training images of each class, but the class "
            f"{', the class '.join(few)}; lower it or add images."
        )


def in_drawing_order(images: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows in the order in which a seed draws them: that of a hash of the seed and the image's id."""
    order = images["id"].map(lambda image: hashlib.sha256(f"{seed}:{image}".encode()).hexdigest())
    return images.loc[order.sort_values(kind="stable").index]


def support_digest(rows: pd.DataFrame) -> str:
    """SHA-256 over path, id and label of the training images."""
    lines = rows["path"] + "\t" + rows["id"] + "\t" + rows["label"] + "\n"
    return sha256_bytes("".join(lines).encode())
