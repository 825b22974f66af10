"""The questions of a review: which descriptions of a run wait for a person, and which of them nobody was asked about.

Each review notes the sentences that it asks about in an object of its own, `asked/DATASET/DIGEST.json`. A run announces
those that are in none, whether it has made them or an earlier run has, which may have come to no end.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clinprompt.contract.tasks import PartitionKey
from clinprompt.data.card import Card
from clinprompt.data.load import load_card
from clinprompt.errors import BadParams, InputMissing
from clinprompt.files import sha256_bytes, to_json
from clinprompt.knowledge.review.decisions import Key
from clinprompt.knowledge.review.waiting import Waiting, read_descriptions, waiting
from workspace.decisions import decided, reviewed_card
from workspace.project import card_file, project_root
from workspace.records import entries_of, latest_record, read_record
from workspace.repo import Workspace
from workspace.store import Store
from workspace.task import LockEntry, ReviewTask, UnaskedTask

log = logging.getLogger(__name__)

_ASKED = "asked/"
_TOGETHER = 10  # sentences of a class that are asked about at once: what fits a form
_MOST = 100  # sentences of a review; a scheduler keeps them all in its database


@dataclass(frozen=True)
class _Asked:
    """What one review has asked about: class ids and digests of texts."""

    sentences: list[Key]
    airflow: dict[str, Any]


def unasked(task: UnaskedTask, store: Store) -> dict[str, Any]:
    """How many of a run's descriptions wait for a person and were in no review, and which descriptions these are.

    Raises:
        BadParams: the entry is not one of `describe`.
    """
    dataset = task.plan.dataset
    file = card_file(project_root(), dataset)
    card = load_card(file)
    path, digest = _descriptions(task.entries, dataset)
    if digest is None:
        raise BadParams(f"The entries have no {path}: they are not those of the stage describe.")
    about = {"dataset": dataset, "release": task.plan.release, "descriptions": digest}
    if card.knowledge.decisions is None:
        return {**about, "unasked": 0, "why": f"the card of {dataset} names no file of decisions"}
    _, rows = _undecided(store, card, file, digest)
    known = _asked(store, dataset, besides=None)
    count = sum(row.key not in known for row in rows)
    why = f"of {len(rows)} descriptions that wait for a person, {count} were in no review"
    return {**about, "unasked": count, "why": why}


def review(task: ReviewTask, store: Store) -> dict[str, Any]:
    """What to ask about descriptions: of the last recorded run of a release or of the dataset, or announced ones.

    Of announced ones those are left out that a review has asked about before; of a recorded run's they come last.
    A question is about sentences of one class: `dataset`, `release`, `class`, its `name`, `part` and `parts`, and
    `sentences` with `digest`, `text`, `why` and `state`. Nothing in it is of a patient. `waiting` counts all sentences
    that wait, also those beyond the first hundred.

    Raises:
        BadParams: no such dataset, or its card has no place for answers.
        InputMissing: the release has no recorded run, or one without descriptions.
    """
    card, file = reviewed_card(project_root(), task.dataset)
    release, digest = (task.release, task.descriptions) if task.descriptions else _recorded(task, store)
    descriptions, rows = _undecided(store, card, file, digest)
    known = _asked(store, task.dataset, besides=task)
    if task.descriptions:
        rows = [row for row in rows if row.key not in known]
    chosen = sorted(rows, key=lambda row: row.key in known)[:_MOST]
    if len(rows) > len(chosen):
        log.info("review: %d descriptions wait; this review asks about %d, the next about more.", len(rows), _MOST)
    if chosen:
        store.write(_note(task), asdict(_Asked([row.key for row in chosen], task.airflow)))
    names = {info.id: info.name for info in card.named}
    about = {"dataset": task.dataset, "release": str(release)}
    questions = [about | {"name": names[part["class"]]} | part for part in _parts(sorted(chosen, key=rows.index))]
    return {**about, "descriptions": descriptions, "waiting": len(rows), "questions": questions}


def _recorded(task: ReviewTask, store: Store) -> tuple[str, str]:
    """The release of the recorded run, and the digest of its descriptions."""
    key = latest_record(store, task.dataset, task.release)
    if key is None:
        run = str(PartitionKey(task.dataset, task.release)) if task.release else task.dataset
        raise InputMissing(f"No run of {run} is recorded; trigger the DAG retrain first.")
    recorded = read_record(store, key)
    path, digest = _descriptions(entries_of(recorded), task.dataset)
    if digest is None:
        raise InputMissing(f"{store.url}/{key} has no {path}; run the release again.")
    return str(recorded.plan["release"]), digest


def _descriptions(entries: list[LockEntry], dataset: str) -> tuple[str, str | None]:
    """Where a run's descriptions lie, and their md5; None where no entry has them."""
    path = f"runs/{dataset}/describe/descriptions.parquet"
    outs = [entry.outs for entry in entries if entry.stage == f"describe@{dataset}"]
    return path, next((str(out[path][0]) for out in outs if path in out), None)


def _undecided(store: Store, card: Card, file: Path, digest: str) -> tuple[int, list[Waiting]]:
    """How many descriptions there are, and those that wait as nobody has decided."""
    with Workspace.empty(store) as workspace:
        workspace.download(digest, Path("descriptions.parquet"))
        frame = read_descriptions(Path("descriptions.parquet"), card)
    known = decided(store, card, file)
    return len(frame), [row for row in waiting(frame, frame["class"].tolist()) if row.key not in known]


def _asked(store: Store, dataset: str, besides: ReviewTask | None) -> set[Key]:
    """What reviews have asked about; one that is tried again has asked nobody yet."""
    own = besides and _note(besides)
    notes = [store.read_as(_Asked, key) for key in store.keys(f"{_ASKED}{dataset}/") if key != own]
    return {(class_id, digest) for note in notes if note for class_id, digest in note.sentences}


def _note(task: ReviewTask) -> str:
    """The key of a review's note: the same for all tries of a run of the DAG."""
    run = {name: task.airflow.get(name) for name in ("dag_id", "run_id")}
    return f"{_ASKED}{task.dataset}/{sha256_bytes(to_json(run).encode())[:16]}.json"


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
