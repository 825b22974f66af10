"""`predictions.parquet`: one row per image of the validation and test splits, with the model's probabilities.

Where the card has novel classes and the model can answer to them, the rows of their images follow, each with
probabilities among the novel classes alone; of the classes of the other half a row has none.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinprompt.contract.candidates import CandidateId
from clinprompt.data.columns import NOVEL
from clinprompt.data.dataset import class_indices
from clinprompt.data.manifest import patients
from clinprompt.errors import InputCorrupt, InputMissing
from clinprompt.evaluation.metrics import Floats
from clinprompt.evaluation.patients import PatientCount
from clinprompt.evaluation.predictions import Predictions
from clinprompt.parquet import DAMAGED, checked_table

SPLITS = ("val", "test")
SCORES = ["score", "score_estimate"]  # columns of a model that estimates one
FACTS = ["path", "id", "label", "split", "patient", "site", "sex", "age", "age_band"]
_ABOUT = "clinprompt"
_TOLERANCE = 1e-6  # of the rows' sums


@dataclass(frozen=True)
class About:
    """Whose predictions these are; stands in the file's schema, so that they can't be taken for another model's.

    Attributes:
        candidate: its name in params.yaml: a method, or a method with knobs of its own.
        temperature: by which the logits were divided, as the served model does.
        not_novel: why the model has no answers to the card's novel classes; None: it has, or the card names none.
    """

    dataset: str
    candidate: str
    seed: int
    model_digest: str
    temperature: float = 1.0
    format: int = 1
    not_novel: str | None = None

    def to_json(self) -> str:
        """As it stands in the file; a reason only where there is one."""
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None}, sort_keys=True)

    @property
    def id(self) -> CandidateId:
        """Which candidate's."""
        return CandidateId(self.candidate, self.seed)


def evaluated_rows(manifest: pd.DataFrame) -> pd.DataFrame:
    """The manifest's rows that models are measured on, sorted by path."""
    return manifest[manifest["split"].isin(SPLITS)].sort_values("path", ignore_index=True)


def novel_rows(manifest: pd.DataFrame) -> pd.DataFrame:
    """The manifest's rows of novel classes, sorted by path."""
    return manifest[manifest["split"] == NOVEL].sort_values("path", ignore_index=True)


def predictions_frame(
    rows: pd.DataFrame,
    probabilities: Floats,
    classes: tuple[str, ...],
    scores: tuple[Floats, Floats] | None = None,
) -> pd.DataFrame:
    """Join the rows' facts (with `age_band`) with the probabilities [n, C] and the class that they predict.

    Args:
        scores: of a model that estimates one, the actual score and the estimated one, [n] each.
    """
    frame = rows[FACTS].reset_index(drop=True)
    frame["predicted"] = pd.Series([classes[i] for i in probabilities.argmax(axis=1)], dtype="str")
    for c, class_id in enumerate(classes):
        frame[f"p_{class_id}"] = probabilities[:, c]
    if scores is not None:
        frame = frame.assign(**dict(zip(SCORES, scores, strict=True)))
    return frame


def write_predictions(frame: pd.DataFrame, about: About, path: Path) -> None:
    """Write the frame with what it is about."""
    table = pa.Table.from_pandas(frame, schema=_schema(list(frame.columns)), preserve_index=False)
    # pandas' own metadata names library versions, which would change the bytes.
    pq.write_table(table.replace_schema_metadata({_ABOUT: about.to_json()}), path)


def read_predictions(path: Path, classes: tuple[str, ...], novel: tuple[str, ...] = ()) -> tuple[pd.DataFrame, About]:
    """Read and check the predictions of one candidate: the rows of validation and test, then those of novel classes.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: not such a table, other classes, or probabilities that are none.
    """
    try:
        table = checked_table(path)
        about = About(**json.loads((table.schema.metadata or {})[_ABOUT.encode()]))
    except FileNotFoundError:
        raise InputMissing(f"{path} does not exist; run the evaluate stage (dvc repro).") from None
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputCorrupt(f"{path} is not a predictions file ({reason}); delete it and run again.") from None
    columns = [*FACTS, "predicted", *(f"p_{class_id}" for class_id in classes)]
    columns += SCORES if SCORES[0] in table.schema.names else []
    answered = novel if about.not_novel is None else ()
    expected = _schema([*columns, *(f"p_{class_id}" for class_id in answered)])
    if table.schema.remove_metadata() != expected:
        found = ", ".join(f"{field.name} {field.type}" for field in table.schema)
        wanted = ", ".join(f"{field.name} {field.type}" for field in expected)
        raise InputCorrupt(f"{path}: its columns are {found}; expected {wanted}.")
    frame = table.to_pandas()
    is_novel = frame["split"] == NOVEL
    if not is_novel.is_monotonic_increasing:
        raise InputCorrupt(f"{path}: images of novel classes stand among the others.")
    _check_probabilities(frame[~is_novel], classes, answered, path)
    _check_probabilities(frame[is_novel], answered, classes, path)
    if SCORES[1] in frame and not np.isfinite(frame[SCORES[1]][~is_novel].to_numpy(np.float64)).all():
        raise InputCorrupt(f"{path}: an image has no estimate of the score.")
    return frame, about


def _schema(columns: list[str]) -> pa.Schema:
    numeric = {column for column in columns if column in ("age", *SCORES) or column.startswith("p_")}
    return pa.schema([(column, pa.float64() if column in numeric else pa.string()) for column in columns])


def _check_probabilities(frame: pd.DataFrame, classes: tuple[str, ...], others: tuple[str, ...], path: Path) -> None:
    """Of rows that must hold probabilities of `classes`, and of the `others` none."""
    values, empty = (frame[[f"p_{class_id}" for class_id in named]].to_numpy(np.float64) for named in (classes, others))
    good = np.isfinite(values).all(axis=1) & np.isnan(empty).all(axis=1)
    good[good] = (values[good] >= 0).all(axis=1) & (np.abs(values[good].sum(axis=1) - 1) <= _TOLERANCE)
    if not good.all():
        raise InputCorrupt(
            f"{path}: the row of the image {frame['id'].iloc[int(np.argmin(good))]} holds no probabilities."
        )
    unknown = sorted(set(frame["label"]) - set(classes))
    if unknown:
        raise InputCorrupt(f"{path}: the label {unknown[0]!r} is no class of the card.")


def split_of(frame: pd.DataFrame, split: str, classes: tuple[str, ...]) -> Predictions:
    """The arrays of one split; an image without a patient is its own cluster."""
    rows = frame[frame["split"] == split]
    return Predictions(
        labels=class_indices(rows["label"], classes),
        probabilities=rows[[f"p_{class_id}" for class_id in classes]].to_numpy(np.float64),
        patients=patients(rows).to_numpy(dtype=str),
        classes=classes,
        known=rows["patient"].notna().to_numpy(dtype=bool),
    )


def patient_count(rows: pd.DataFrame) -> PatientCount:
    """What is known of the patients of a manifest's rows."""
    known = rows["patient"].notna()
    return PatientCount(images=len(rows), patients=int(rows["patient"].nunique()), without=int(len(rows) - known.sum()))
