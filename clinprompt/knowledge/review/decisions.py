"""People's decisions on descriptions, in a table (CSV) beside the card; they override all checks, for ever after.

A decision holds for one text of one class, by the SHA-256 of the text, whoever wrote it and whatever scores it gets.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from clinprompt.data.card import Card
from clinprompt.data.layouts.table import numbered_rows, one_each, read_table, shortened
from clinprompt.errors import DataRejected, InputMissing
from clinprompt.files import sha256_bytes

log = logging.getLogger(__name__)

Choice = Literal["accepted", "rejected"]
COLUMNS = ("class", "digest", "decision", "by", "reason", "text")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute

Key = tuple[str, str]  # class id, digest of the text


@dataclass(frozen=True)
class Decision:
    """What a person has decided on a text of a class, and why."""

    class_id: str
    digest: str
    choice: Choice
    by: str
    reason: str
    text: str

    @property
    def told(self) -> str:
        """In a few words, for tables."""
        return f"{self.choice} by {self.by}: {self.reason}"


Decisions = Mapping[Key, Decision]


def text_digest(text: str) -> str:
    """SHA-256, in hex, of a description as decisions name it: without blanks around it."""
    return sha256_bytes(text.strip().encode())


def decisions_path(card: Card, card_file: Path) -> Path | None:
    """Where the decisions on a card's descriptions lie; None where the card names no such file."""
    return None if card.knowledge.decisions is None else card_file.parent / card.knowledge.decisions


def decisions_of(card: Card, card_file: Path) -> Decisions:
    """The decisions on a card's descriptions; empty where the card names none.

    Those on a class that the card has no more are among them, with a warning: they decide nothing and are not lost.

    Raises:
        InputMissing, InputCorrupt, DataRejected: as `read_decisions`.
    """
    path = decisions_path(card, card_file)
    if path is None:
        return {}
    if not path.is_file():
        raise InputMissing(
            f"{card_file}: knowledge.decisions: there is no file {path}; write it, or leave the key out."
        )
    return read_decisions(path, card, former=True)


def read_decisions(path: Path, card: Card, former: bool = False) -> dict[Key, Decision]:
    """Read a table of decisions; rows whose `decision` is empty say nothing. Without a `digest`, `text` is the text.

    Args:
        former: keep decisions on classes that the card has no more, with a warning, instead of refusing them.

    Raises:
        InputMissing, InputCorrupt: there is no such file, or it is no table.
        DataRejected: it lacks a column, or a row is not as it should be.
    """
    if not path.is_file():
        raise InputMissing(f"{path} is no file; expected a table (CSV) with the columns {', '.join(COLUMNS)}.")
    frame = read_table(path)
    one_each(COLUMNS, frame, path)
    decisions: dict[Key, Decision] = {}
    for number, row in numbered_rows(frame):
        values = {column: row[column].strip() for column in COLUMNS}
        if not values["decision"]:
            continue
        gone = former and values["class"] not in ("", *card.named_ids)
        if wrong := _problem(values) if gone else problem(values, card):
            raise DataRejected(f"{path}, row {number}: {wrong}.")
        digest = values["digest"] or text_digest(values["text"])
        key = (values["class"], digest)
        choice = cast(Choice, values["decision"])
        if key in decisions and decisions[key].choice != choice:
            raise DataRejected(f"{path}, row {number}: decision: this text was {decisions[key].choice} in a row above.")
        decisions[key] = Decision(*key, choice, values["by"], values["reason"], values["text"])
    if others := sorted({class_id for class_id, _ in decisions} - set(card.named_ids)):
        count = sum(class_id in others for class_id, _ in decisions)
        log.warning(
            "%s: %d decisions are on classes that the card does not have (%s); they are kept and decide nothing.",
            path,
            count,
            ", ".join(others),
        )
    return decisions


def decisions_text(decisions: Iterable[Decision]) -> str:
    """A table of decisions as CSV, in the order of classes and digests."""
    import pandas as pd

    rows = sorted(decisions, key=lambda one: (one.class_id, one.digest))
    cells = [(d.class_id, d.digest, d.choice, inert(d.by), inert(d.reason), inert(d.text)) for d in rows]
    return pd.DataFrame(cells, columns=list(COLUMNS)).to_csv(index=False, lineterminator="\n")


def inert(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: what would be one gets an apostrophe in front."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def problem(values: Mapping[str, str], card: Card) -> str | None:
    """What is wrong with a decision, given as the cells of its row; None where it is one."""
    if values["class"] not in card.named_ids:
        known = shortened(", ".join(card.named_ids))
        return f"class: {shortened(values['class'])!r} is none of the card's: {known}"
    return _problem(values)


def _problem(values: Mapping[str, str]) -> str | None:
    """What is wrong with a decision, but for its class."""
    digest, text = values["digest"], values["text"]
    if values["decision"] not in get_args(Choice):
        return f"decision: expected accepted, rejected or nothing, found {shortened(values['decision'])!r}"
    if digest and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
        return f"digest: expected the text's SHA-256 in hex, or nothing, found {shortened(digest)!r}"
    if not digest and not text:
        return "expected a digest or a text"
    if digest and text and digest not in (text_digest(text), text_digest(text.removeprefix("'"))):  # as `inert` adds it
        return "digest: it is not that of the text, which was changed; a new text is decided on with an empty digest"
    return next((f"{key}: expected who decided and why" for key in ("by", "reason") if not values[key]), None)
