"""The questions of a review: which descriptions of a recorded run wait for a person."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clinprompt.contract.tasks import PartitionKey
from clinprompt.errors import InputMissing
from clinprompt.knowledge.review.waiting import Waiting, read_descriptions, waiting
from workspace.decisions import decided, reviewed_card
from workspace.project import project_root
from workspace.records import latest_record, read_record
from workspace.repo import Workspace
from workspace.store import Store
from workspace.task import ReviewTask

log = logging.getLogger(__name__)

_TOGETHER = 10  # sentences of a class that are asked about at once: what fits a form
_MOST = 100  # sentences of a review; a scheduler keeps them all in its database


def review(task: ReviewTask, store: Store) -> dict[str, Any]:
    """What to ask about the descriptions of the last recorded run of a release, or of the dataset.

    A question is about sentences of one class: `dataset`, `release`, `class`, its `name`, `part` and `parts`, and
    `sentences` with `digest`, `text`, `why` and `state`. Nothing in it is of a patient. `waiting` counts all sentences
    that wait, also those beyond the first hundred.

    Raises:
        BadParams: no such dataset, or its card has no place for answers.
        InputMissing: the release has no recorded run, or one without descriptions.
    """
    card, file = reviewed_card(project_root(), task.dataset)
    key = latest_record(store, task.dataset, task.release)
    if key is None:
        run = str(PartitionKey(task.dataset, task.release)) if task.release else task.dataset
        raise InputMissing(f"No run of {run} is recorded; trigger the DAG retrain first.")
    recorded = read_record(store, key)
    path = f"runs/{task.dataset}/describe/descriptions.parquet"
    outs = recorded.lock["stages"].get(f"describe@{task.dataset}", {}).get("outs", [])
    digest = next((out["md5"] for out in outs if out["path"] == path), None)
    if digest is None:
        raise InputMissing(f"{store.url}/{key} has no {path}; run the release again.")
    with Workspace.empty(store) as workspace:
        workspace.download(digest, Path("descriptions.parquet"))
        frame = read_descriptions(Path("descriptions.parquet"), card)
    known = decided(store, card, file)
    rows = [row for row in waiting(frame, frame["class"].tolist()) if row.key not in known]
    if len(rows) > _MOST:
        log.info("review: %d descriptions wait; this review asks about %d, the next about more.", len(rows), _MOST)
    names = {info.id: info.name for info in card.named}
    about = {"dataset": task.dataset, "release": str(recorded.plan["release"])}
    questions = [about | {"name": names[part["class"]]} | part for part in _parts(rows[:_MOST])]
    return {**about, "descriptions": len(frame), "waiting": len(rows), "questions": questions}


def _parts(rows: list[Waiting]) -> list[dict[str, Any]]:
    """The sentences by class, and of each class as many together as a form can hold."""
    parts = []
    for class_id in dict.fromkeys(row.class_id for row in rows):
        own = [_sentence(row) for row in rows if row.class_id == class_id]
        chunks = [own[start : start + _TOGETHER] for start in range(0, len(own), _TOGETHER)]
        parts += [
            {"class": class_id, "part": number, "parts": len(chunks), "sentences": chunk}
            for number, chunk in enumerate(chunks, start=1)
        ]
    return parts


def _sentence(row: Waiting) -> dict[str, str]:
    fields = asdict(row) | {"state": row.state}
    return {name: fields[name] for name in ("digest", "text", "why", "state")}
