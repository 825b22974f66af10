"""The descriptions of a table that wait for a person: where the checks are in doubt and nobody has decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clinprompt.data.card import Card
from clinprompt.knowledge.review.decisions import Key, text_digest
from clinprompt.parquet import read_frame

_COLUMNS = ("class", "text", "accepted", "reason", "review")


@dataclass(frozen=True)
class Waiting:
    """A text of a class, why a person should look at it, and what the checks have made of it."""

    class_id: str
    digest: str
    text: str
    why: str
    accepted: bool
    rejected_for: str

    @property
    def key(self) -> Key:
        """What a decision on it is found by."""
        return (self.class_id, self.digest)

    @property
    def state(self) -> str:
        """What holds as long as nobody decides."""
        return "accepted by the checks" if self.accepted else f"rejected by the checks ({self.rejected_for})"


def read_descriptions(path: Path, card: Card, *others: str) -> pd.DataFrame:
    """The descriptions of a card's classes as the stage describe has written them; `others` are further columns.

    Raises:
        InputMissing, InputCorrupt: there is no such file, or it is not that table.
    """
    frame = read_frame(path, [*_COLUMNS, *others], "describe")
    return frame[frame["class"].isin(card.named_ids)]


def waiting(judged: pd.DataFrame, ids: Sequence[str]) -> list[Waiting]:
    """Those of a table that wait, each text of a class once, by class, doubt and digest.

    Args:
        judged: rows with `text`, `accepted`, `reason` and `review`; those whose `review` is not empty wait.
        ids: of each row the id of its class.
    """
    rows: dict[Key, Waiting] = {}
    for class_id, row in zip(ids, judged.to_dict("records"), strict=True):
        if pd.isna(row["review"]) or not row["review"]:
            continue
        text = str(row["text"]).strip()
        reason = "" if pd.isna(row["reason"]) else str(row["reason"])
        one = Waiting(class_id, text_digest(text), text, str(row["review"]), bool(row["accepted"]), reason)
        rows.setdefault(one.key, one)
    return sorted(rows.values(), key=lambda row: (row.class_id, row.why, row.digest))
