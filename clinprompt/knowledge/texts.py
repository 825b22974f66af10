"""Sentences that somebody brings in a table, judged by the same checks as a language model's."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from clinprompt.data.card import Card
from clinprompt.data.layouts.table import numbered_rows, one_each, read_table, shortened
from clinprompt.data.names import matching_key
from clinprompt.errors import DataRejected, InputMissing
from clinprompt.knowledge.agreement.encoder import Encoder
from clinprompt.knowledge.agreement.nli import Nli
from clinprompt.knowledge.checks import CHECKS, judge
from clinprompt.knowledge.form import looks_whole
from clinprompt.knowledge.review.decisions import Decisions, inert
from clinprompt.knowledge.settle import SCORES, Sample, settle
from clinprompt.knowledge.statement import Assessment, Context, Statement
from clinprompt.progress import progress

CLASS, TEXT = "class", "text"
SCORED = (*(check.name for check in CHECKS), *SCORES)
VERDICT = ("accepted", "reason", "unjudged", "review", "reviewed", *(f"score_{name}" for name in SCORED))
GROUNDED = ("score_margin", "score_margin_z")
RESERVED = (*VERDICT, *GROUNDED)
_NUMBER = re.compile(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?")


def statement_of(class_id: str, text: str) -> Statement:
    """A text that nobody was asked for, as the checks take it."""
    text = text.strip()
    return Statement(class_id, "", text, looks_whole(text))


def read_texts(path: Path, card: Card, reserved: Collection[str] = RESERVED) -> tuple[pd.DataFrame, list[str]]:
    """A table of sentences, every cell as text, and of each row the id of its class.

    A class may be written as its id, an alias or its name, in any case of letters.

    Args:
        reserved: columns that the table may not have.

    Raises:
        InputMissing, InputCorrupt: there is no such file, or it is no table.
        DataRejected: it lacks a column or has no rows, a class is not the card's, or a column would be overwritten.
    """
    if not path.is_file():
        raise InputMissing(f"{path} is no file; expected a table (CSV) with the columns {CLASS} and {TEXT}.")
    frame = read_table(path)
    one_each((CLASS, TEXT), frame, path)
    if taken := [column for column in frame if column in reserved]:
        raise DataRejected(f"{path} has the column {taken[0]!r} already, which the checks write; rename or remove it.")
    if frame.empty:
        raise DataRejected(f"{path} has no rows below its header.")
    by_name = {matching_key(info.name): info.id for info in card.named}
    ids = []
    for number, row in numbered_rows(frame):
        found = card.class_of(row[CLASS]) or by_name.get(matching_key(row[CLASS]))
        if found is None:
            known = shortened(", ".join(card.named_ids))
            raise DataRejected(
                f"{path}, row {number}: class: {shortened(row[CLASS])!r} is none of the card's: {known}."
            )
        ids.append(found)
    return frame, ids


def judged(
    frame: pd.DataFrame,
    ids: list[str],
    card: Card,
    min_support: int = 1,
    encoder: Encoder | None = None,
    decisions: Decisions | None = None,
    ground: Callable[[Sequence[Sample]], list[Assessment]] | None = None,
    nli: Nli | None = None,
) -> pd.DataFrame:
    """A table of sentences with the columns `VERDICT` behind its own.

    Rows are judged in their order: of two that are nearly alike, the first is accepted.

    Args:
        ids: of each row the id of its class.
        min_support, encoder, decisions, nli: as in `settle`.
        ground: what holds settled samples against images; then the columns `GROUNDED` follow.
    """
    context = Context.of(card)
    samples = []
    texts = zip(ids, frame[TEXT], strict=True)
    for class_id, text in progress(texts, "Judging", len(ids), "sentence", nested=True):
        statement = statement_of(class_id, text)
        samples.append(Sample(class_id, statement.text, judge(statement, context)))
    verdicts = settle(samples, min_support, encoder, decisions, nli)
    if ground is not None:
        verdicts = ground([replace(one, verdict=verdict) for one, verdict in zip(samples, verdicts, strict=True)])
    rows = [
        {
            "accepted": verdict.accepted,
            "reason": verdict.reason,
            "unjudged": " ".join(verdict.unjudged),
            "review": verdict.review,
            "reviewed": verdict.reviewed,
            **{f"score_{name}": score for name, score in verdict.scores.items()},
        }
        for verdict in verdicts
    ]
    columns = [*VERDICT, *(GROUNDED if ground is not None else ())]
    return pd.concat([frame, pd.DataFrame(rows, columns=columns, index=frame.index)], axis="columns")


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """A table of texts from anywhere, as a spreadsheet may open it: no cell of it and no header is a formula."""
    shown = table.apply(lambda column: column if pd.api.types.is_numeric_dtype(column) else column.map(_inert))
    return shown.set_axis([_inert(name) for name in shown.columns], axis="columns")


def _inert(cell: Any) -> Any:
    """The cell; a number may begin with a sign."""
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell):
        return cell
    return inert(cell)
