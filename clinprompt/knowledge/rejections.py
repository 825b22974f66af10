"""How many descriptions of a table the checks and people have rejected, beside those of an earlier release."""

from pathlib import Path

import pandas as pd

from clinprompt.errors import DataRejected
from clinprompt.parquet import read_frame
from clinprompt.reports.frame import OF_NO_CLASS

ALL = "(all)"  # the row of all classes together


def rejected(path: Path) -> pd.DataFrame:
    """Of each class, sorted, and of all together: `descriptions`, `rejected` and the `share` of the rejected ones.

    Args:
        path: a table of descriptions, as the stage `describe` writes it and a registered version keeps it. Paraphrases
            in it, which are of no class, do not count.

    Raises:
        InputMissing, InputCorrupt: there is no such file, or it is no such table.
        DataRejected: it holds no descriptions.
    """
    table = read_frame(path, ["class", "accepted"], "describe")
    table = table[table["class"] != OF_NO_CLASS]
    if table.empty:
        raise DataRejected(f"{path} holds no descriptions: nothing was asked for when it was made.")
    failed = ~table["accepted"].astype(bool)
    groups = {**{str(name): of for name, of in failed.groupby(table["class"])}, ALL: failed}
    rows = [(len(of), int(of.sum()), round(float(of.mean()), 4)) for of in groups.values()]
    index = pd.Index(list(groups), name="class")
    return pd.DataFrame(rows, columns=["descriptions", "rejected", "share"], index=index)


def of_all(found: pd.DataFrame, column: str) -> float:
    """A value of all classes together, of a table that `rejected` or `with_before` gives."""
    return float(found[column].to_numpy()[-1])


def rejected_share(path: Path) -> float | None:
    """The share of all classes together, as a card's `knowledge.rejected_share` has it; None of no descriptions.

    Raises:
        InputMissing, InputCorrupt: as `rejected`.
    """
    try:
        return of_all(rejected(path), "share")
    except DataRejected:
        return None


def with_before(now: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """A table of `rejected` with that of an earlier release: its `share_before`, and the `rise` since; none of a class
    that it did not have."""
    joined = now.join(before["share"].rename("share_before"))
    return joined.assign(rise=(joined["share"] - joined["share_before"]).round(4))
