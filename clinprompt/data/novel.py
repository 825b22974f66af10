"""The images of a card's novel classes: kept to test names that no candidate was tuned for."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from clinprompt.data.columns import NOVEL
from clinprompt.data.regions import FOLDER


def set_apart(frame: pd.DataFrame, novel: Collection[str], images: Path) -> pd.DataFrame:
    """The rows that stay: of novel classes those that fell to the test split, which become the split `novel`.

    Their images in train and val are left out, copies and all: nothing may learn from them, and a patient who is
    trained on is no test of anything.

    Args:
        frame: columns id, file, label and the split as assigned.
        images: the folder of ingest's copies.
    """
    of_novel, tested = frame["label"].isin(list(novel)), frame["split"] == "test"
    kept = frame[~of_novel | tested].copy()
    kept.loc[of_novel & tested, "split"] = NOVEL
    for image, file in set(zip(frame["id"], frame["file"], strict=True)) - set(
        zip(kept["id"], kept["file"], strict=True)
    ):
        (images / file).unlink()
        (images / FOLDER / image).unlink(missing_ok=True)
    return kept
