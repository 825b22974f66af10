"""People's decisions on descriptions that a scheduler has asked for: kept in the store, and pinned by a run's plan.

Each answer is an object of its own that never changes, `decisions/DATASET/TIME-DIGEST.json`, so that two at once lose
nothing; the later one on a text holds. The card's own file of decisions, which is in git, wins over all of them. A plan
pins the table that comes of both as `decided/DATASET/SHA256.json`: every task of the run finds it in the place of the
card's file, and an answer that comes later is for the next run.
"""

import logging
from dataclasses import asdict, dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from clinprompt.data.card import Card
from clinprompt.data.load import load_card
from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.files import sha256_bytes, to_json, write_text
from clinprompt.knowledge.review.decisions import (
    COLUMNS,
    Decision,
    Decisions,
    Key,
    decisions_of,
    decisions_path,
    decisions_text,
    problem,
    text_digest,
)
from workspace.project import card_file, project_root
from workspace.store import Store
from workspace.task import AnsweredTask, Plan

log = logging.getLogger(__name__)

_ANSWERS = "decisions/"
_TABLES = "decided/"


@dataclass(frozen=True)
class _Answer:
    """What a person has decided at once. `rows` have the columns of a table of decisions."""

    answered: str  # UTC, ISO 8601
    rows: list[dict[str, str]]
    airflow: dict[str, Any]


@dataclass(frozen=True)
class _Table:
    """A table of decisions (CSV)."""

    table: str


def keep(task: AnsweredTask, store: Store) -> dict[str, Any]:
    """Keep an answer; the same one twice is kept once.

    Raises:
        BadParams: no such dataset, its card names no file of decisions, or one of them is none.
    """
    card, _ = reviewed_card(project_root(), task.dataset)
    rows = [decision.model_dump(by_alias=True) for decision in task.decisions]
    for row in rows:
        wrong = problem(row, card)
        if wrong is None and row["digest"] != text_digest(row["text"]):
            wrong = "digest: it is not that of the text"
        if wrong is not None:
            raise BadParams(f"A decision on {task.dataset}: {wrong}.")
    if not rows:
        raise BadParams(f"An answer on {task.dataset} has no decision; there is nothing to keep.")
    answered = task.answered.astimezone(UTC)
    digest = sha256_bytes(to_json(rows).encode())
    key = f"{_ANSWERS}{task.dataset}/{answered:%Y%m%dT%H%M%S%fZ}-{digest[:16]}.json"
    store.write(key, asdict(_Answer(answered.isoformat(), rows, task.airflow)))
    return {"kept": len(rows), "answer": key}


def decided(store: Store, card: Card, file: Path) -> Decisions:
    """What people have decided on a card's descriptions: in the card's own file, and besides when they were asked."""
    return {**_answered(store, card, file.stem), **decisions_of(card, file)}


def pin(store: Store, root: Path, dataset: str) -> str | None:
    """Keep the table of what holds now; its SHA-256. None where the card's own file has it all, or names none."""
    file = card_file(root, dataset)
    card = load_card(file)
    if card.knowledge.decisions is None:
        return None
    holds = decided(store, card, file)
    if not holds.keys() - decisions_of(card, file).keys():
        return None
    text = decisions_text(holds.values())
    digest = sha256_bytes(text.encode())
    store.write(f"{_TABLES}{dataset}/{digest}.json", asdict(_Table(text)))
    return digest


def put_pinned(plan: Plan, store: Store, folder: Path) -> None:
    """Write what a plan has pinned in the place of the card's own file, in a copy of the project.

    Raises:
        InputMissing, InputCorrupt: the store has lost or changed it.
    """
    if plan.decisions is None:
        return
    key = f"{_TABLES}{plan.dataset}/{plan.decisions}.json"
    kept = store.read_as(_Table, key)
    if kept is None:
        raise InputMissing(f"{store.url}/{key}, the decisions of the run, is not there any more; start a new run.")
    if sha256_bytes(kept.table.encode()) != plan.decisions:
        raise InputCorrupt(f"{store.url}/{key} is not what its name says; remove it and start a new run.")
    file = card_file(folder, plan.dataset)
    path = decisions_path(load_card(file), file)
    if path is None:
        raise BadParams(f"{file}: knowledge.decisions: the run has decisions, and the card names no file for them.")
    write_text(path, kept.table)


def export(store: Store, dataset: str, path: Path) -> dict[str, Any]:
    """Write what the card's own file lacks, for `python -m clinprompt.knowledge decide`, which takes it there."""
    card, file = reviewed_card(project_root(), dataset)
    own = decisions_of(card, file)
    others = [one for key, one in decided(store, card, file).items() if key not in own]
    write_text(path, decisions_text(others))
    return {"dataset": dataset, "decisions": len(others), "file": str(path)}


def reviewed_card(root: Path, dataset: str) -> tuple[Card, Path]:
    """A card whose descriptions people may be asked about, and its file.

    Raises:
        BadParams: there is no such card, or it names no file of decisions.
    """
    file = card_file(root, dataset)
    card = load_card(file)
    if card.knowledge.decisions is None:
        raise BadParams(
            f"datasets/{dataset}.yaml: knowledge.decisions: name the file beside the card that keeps decisions, for "
            f"example {dataset}.decisions.csv, with the line {','.join(COLUMNS)}; answers would have no place."
        )
    return card, file


def _answered(store: Store, card: Card, dataset: str) -> dict[Key, Decision]:
    """The answers in the order in which they were given; those on a class that the card no longer has are left out."""
    found: dict[Key, Decision] = {}
    for key in store.keys(f"{_ANSWERS}{dataset}/"):
        answer = store.read_as(_Answer, key)
        for row in answer.rows if answer else ():
            cells = {column: str(row.get(column, "")) for column in COLUMNS}
            if wrong := problem(cells, card):
                log.warning("%s/%s: a decision is left out: %s.", store.url, key, wrong)
                continue
            one = Decision(*(cells[column] for column in COLUMNS))  # type: ignore[arg-type] # problem() has looked
            found[(one.class_id, one.digest)] = one
    return found
