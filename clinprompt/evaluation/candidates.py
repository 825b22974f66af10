"""The listed candidates as the gate sees them: predictions checked against the manifest and the tuned models."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from clinprompt.contract.candidates import CandidateId
from clinprompt.data.columns import NOVEL
from clinprompt.data.dataset import Dataset
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.evaluation.contenders import Candidate
from clinprompt.evaluation.table import About, evaluated_rows, novel_rows, read_predictions, split_of

_SAME = ["path", "id", "label", "split"]


@dataclass(frozen=True)
class Listed:
    """A candidate that `params.yaml` lists, with the digest of its tuned model's folder (None: there is no model), and
    why it could not be trained, where that is so."""

    id: CandidateId
    method: str
    model_digest: str | None
    not_trained: str | None = None


def load_candidate(listed: Listed, evaluations: Path, dataset: Dataset) -> Candidate:
    """Read a candidate's predictions; whatever is wrong with them becomes its `problem`."""
    if listed.not_trained is not None:
        return Candidate(listed.id, None, None, None, not_trained=listed.not_trained, method=listed.method)
    path, card = evaluations / str(listed.id) / "predictions.parquet", dataset.card
    classes, novel = tuple(card.class_ids), tuple(card.novel_ids)
    try:
        if listed.model_digest is None:
            raise InputMissing("there is no tuned model; run the tune stage (dvc repro)")
        frame, about = read_predictions(path, classes, novel)
        _check_owner(about, About(card.name, listed.id.name, listed.id.seed, listed.model_digest), path)
        _check_rows(frame, _expected(dataset, about), path)
    except (InputMissing, InputCorrupt) as error:
        return Candidate(listed.id, listed.model_digest, None, None, str(error).rstrip("."), method=listed.method)
    val, test = (split_of(frame, split, classes) for split in ("val", "test"))
    return Candidate(
        listed.id,
        listed.model_digest,
        val,
        test,
        method=listed.method,
        novel=split_of(frame, NOVEL, novel) if novel and about.not_novel is None else None,
        not_novel=about.not_novel if novel else None,
    )


def _expected(dataset: Dataset, about: About) -> pd.DataFrame:
    """The rows of the manifest that the candidate must have answers to."""
    rows = evaluated_rows(dataset.rows)
    if not dataset.card.novel_classes or about.not_novel is not None:
        return rows
    return pd.concat([rows, novel_rows(dataset.rows)], ignore_index=True)


def _check_owner(about: About, expected: About, path: Path) -> None:
    if about != replace(expected, temperature=about.temperature, not_novel=about.not_novel):
        raise InputCorrupt(
            f"{path} holds the predictions of {about.dataset} {about.id} "
            f"(model {about.model_digest[:12]}), not of {expected.dataset} {expected.id} "
            f"(model {expected.model_digest[:12]}); run the evaluate stage again (dvc repro)"
        )


def _check_rows(frame: pd.DataFrame, expected: pd.DataFrame, path: Path) -> None:
    if len(frame) != len(expected):
        splits = "val, test and novel" if (expected["split"] == NOVEL).any() else "val and test"
        raise InputCorrupt(f"{path} holds {len(frame)} images, the manifest's {splits} splits {len(expected)}")
    for column in _SAME:
        same = frame[column].to_numpy() == expected[column].to_numpy()
        if not same.all():
            row = int(same.argmin())
            found, wanted = frame[column][row], expected[column][row]
            raise InputCorrupt(f"{path}: {column} of row {row} is {found!r}, in the manifest it is {wanted!r}")
