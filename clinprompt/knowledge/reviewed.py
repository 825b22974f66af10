"""Descriptions that a clinician wrote or approved, from a file beside the dataset's card, in place of a language model.

They run through the same checks. One that is rejected stays rejected unless its row says `accepted: yes` and why.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from clinprompt.data.card import Card
from clinprompt.data.layouts.table import numbered_rows
from clinprompt.errors import DataRejected
from clinprompt.files import sha256_file
from clinprompt.knowledge.checks import judge
from clinprompt.knowledge.description import Description, Origin, Prompt
from clinprompt.knowledge.review.decisions import Decision, Decisions, text_digest
from clinprompt.knowledge.statement import Assessment, Context
from clinprompt.knowledge.texts import CLASS, TEXT, read_texts, statement_of
from clinprompt.knowledge.word_sets import WordSets

ASPECT, AUTHOR, DATE, ACCEPTED, REASON = "aspect", "author", "date", "accepted", "reason"
COLUMNS = (CLASS, TEXT, ASPECT, AUTHOR, DATE, ACCEPTED, REASON)
_ANY = "reviewed"  # the aspect of a sentence that names none


@dataclass(frozen=True)
class Sentence:
    """A row of the file. `overrule` is the reason to accept it whatever the checks say; "" where they decide."""

    row: int
    class_id: str
    text: str
    aspect: str
    author: str
    written: str
    overrule: str


@dataclass(frozen=True)
class Reviewed:
    """A file's sentences, in its order, and where they come from."""

    origin: Origin
    sentences: tuple[Sentence, ...]


def read_reviewed(path: Path, card: Card) -> Reviewed:
    """Read a file of reviewed descriptions: a CSV with the columns `class` and `text`.

    It may have `aspect`, `author` (a role or a source), `date` (YYYY-MM-DD), and `accepted` with `reason`.

    Raises:
        InputMissing, InputCorrupt: there is no such file, or it is no table.
        DataRejected: a column is missing or unknown, or a row is not as expected; it is named by its number, the header
            being row 1.
    """
    frame, ids = read_texts(path, card, reserved=())
    if unknown := [str(column) for column in frame if column not in COLUMNS]:
        raise DataRejected(f"{path} has the column {unknown[0]!r}; known are {', '.join(COLUMNS)}.")
    sentences = tuple(
        _sentence(row, number, class_id, f"{path}, row {number}")
        for (number, row), class_id in zip(numbered_rows(frame), ids, strict=True)
    )
    return Reviewed(Origin("reviewed", path.name, "", sha256_file(path)), sentences)


def judge_reviewed(reviewed: Reviewed, card: Card, class_ids: Collection[str]) -> list[Description]:
    """Judge the sentences of some classes, in the file's order: of two that are nearly alike, the first is accepted."""
    context = Context.of(card)
    return [_judge(s, reviewed.origin, context) for s in reviewed.sentences if s.class_id in class_ids]


def overrules(reviewed: Reviewed) -> Decisions:
    """The rows that say `accepted: yes`, as decisions of who wrote them."""
    made = [s for s in reviewed.sentences if s.overrule]
    return {
        (s.class_id, digest): Decision(s.class_id, digest, "accepted", s.author or "its author", s.overrule, s.text)
        for s in made
        for digest in (text_digest(s.text),)
    }


def _sentence(row: Mapping[str, str], number: int, class_id: str, where: str) -> Sentence:
    if not row[TEXT]:
        raise DataRejected(f"{where}: the cell in column {TEXT!r} is empty; write a sentence or remove the row.")
    accepted, reason, written = (row.get(column, "") for column in (ACCEPTED, REASON, DATE))
    if accepted.casefold() not in ("", "yes"):
        raise DataRejected(f"{where}: {ACCEPTED}: expected yes or nothing, found {accepted!r}.")
    if accepted and not reason:
        raise DataRejected(f"{where}: {ACCEPTED}: yes overrules the checks; say why in the column {REASON!r}.")
    if written and not _is_date(written):
        raise DataRejected(f"{where}: {DATE}: expected YYYY-MM-DD, found {written!r}.")
    aspect = row.get(ASPECT) or _ANY
    return Sentence(number, class_id, row[TEXT], aspect, row.get(AUTHOR, ""), written, reason if accepted else "")


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _judge(sentence: Sentence, origin: Origin, context: Context) -> Description:
    statement = statement_of(sentence.class_id, sentence.text)
    verdict, override = judge(statement, context), ""
    if sentence.overrule and not verdict.accepted:
        override = f"{verdict.reason}: {sentence.overrule}"
        verdict = Assessment(True, None, verdict.scores)
        context.accepted.setdefault(sentence.class_id, WordSets()).add(statement.compared)
    judged = Description(
        Prompt(sentence.class_id, sentence.aspect), sentence.row, 0, sentence.text, statement.text, verdict, origin
    )
    return replace(judged, author=sentence.author, written=sentence.written, override=override)
