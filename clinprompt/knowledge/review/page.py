"""The review list: descriptions that a person should look at, as a table (CSV) and as a page with accept and reject."""

import html
from pathlib import Path
from typing import Any

import pandas as pd

from clinprompt.data.card import Card
from clinprompt.errors import BadParams
from clinprompt.files import atomic, write_text
from clinprompt.knowledge.review.decisions import COLUMNS, inert
from clinprompt.knowledge.review.waiting import Waiting, waiting

LIST, PAGE = "review.csv", "review.html"
_HEAD = ("class", "digest", "decision", "by", "reason", "text", "why", "accepted", "rejected_for")
_TEMPLATE = Path(__file__).with_name("review.html")


def write_review(folder: Path, judged: pd.DataFrame, ids: list[str], card: Card) -> int:
    """Write `review.csv` and `review.html` into a folder; how many descriptions they ask about.

    The columns `decision`, `by` and `reason` of the table are empty, for the reviewer; the page fills them by a script
    of its own and needs no server. `python -m clinprompt.knowledge decide` takes either into the decisions.

    Args:
        judged: the table of descriptions, as `waiting` takes it.
        ids: of each row the id of its class.

    Raises:
        BadParams: the folder holds other files.
    """
    _refuse_other_files(folder)
    rows = waiting(judged, ids)
    table = pd.DataFrame([_cells(row) for row in rows], columns=list(_HEAD))
    with atomic(folder) as partial:
        partial.mkdir(parents=True)
        write_text(partial / LIST, table.to_csv(index=False, lineterminator="\n"))
        write_text(partial / PAGE, _page(rows, card))
    return len(rows)


def _refuse_other_files(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise BadParams(f"{folder} is no folder; name another.")
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise BadParams(f"{folder} is the folder that you are in, and would be replaced; name a new folder.")
    if folder.is_dir() and (others := sorted({path.name for path in folder.iterdir()} - {LIST, PAGE})):
        raise BadParams(f"{folder} holds {others[0]}, and would be replaced; name a new folder.")


def _cells(row: Waiting) -> dict[str, Any]:
    told = {"class": row.class_id, "digest": row.digest, "text": inert(row.text), "why": row.why}
    return {**dict.fromkeys(_HEAD, ""), **told, "accepted": row.accepted, "rejected_for": row.rejected_for}


def _page(rows: list[Waiting], card: Card) -> str:
    names = {info.id: info.name for info in card.named}
    blocks = []
    for i, row in enumerate(rows):
        choices = "".join(
            f'<label><input type="radio" name="choice-{i}" value="{choice}"> {label}</label>'
            for choice, label in (("accepted", "accept"), ("rejected", "reject"), ("", "later"))
        )
        blocks.append(
            f'<fieldset data-class="{html.escape(row.class_id)}" data-digest="{row.digest}">'
            f"<legend>{html.escape(names.get(row.class_id, row.class_id))}</legend>"
            f'<p class="text">{html.escape(row.text)}</p>'
            f'<p class="why">{html.escape(row.why)}; {html.escape(row.state)}</p>'
            f'<p>{choices} <input type="text" class="reason" placeholder="why" aria-label="why"></p></fieldset>'
        )
    page = _TEMPLATE.read_text(encoding="utf-8")
    filled = {"TITLE": html.escape(card.title), "COUNT": str(len(rows)), "COLUMNS": ",".join(COLUMNS)}
    for name, value in filled.items():
        page = page.replace(f"<!--{name}-->", value)
    return page.replace("<!--ROWS-->", "\n".join(blocks))
