"""evaluate: measure one tuned model."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from clinprompt.data.dataset import Dataset, class_indices
from clinprompt.data.manifest import patients
from clinprompt.errors import InputCorrupt, NotTrained
from clinprompt.evaluation.plots import write_plots, write_score_plot
from clinprompt.evaluation.score import actual_scores
from clinprompt.evaluation.slices import age_bands
from clinprompt.evaluation.summary import measure_candidate
from clinprompt.evaluation.table import (
    About,
    evaluated_rows,
    novel_rows,
    patient_count,
    predictions_frame,
    split_of,
    write_predictions,
)
from clinprompt.evaluation.temperature import Temperature, fit_temperature
from clinprompt.features.store import FeatureStore
from clinprompt.files import write_json
from clinprompt.params import EvaluationParams
from clinprompt.tuned.artifact import TunedModel, load_model, softmax
from clinprompt.tuned.failure import failure_in
from components.evaluate.not_trained import pass_on
from components.runner import Job, run

HEADLINE = ("balanced_accuracy", "auroc", "macro_f1", "ece")

log = logging.getLogger(__name__)


def work(job: Job) -> dict[str, Any]:
    """Predict, then write the predictions, the metrics and the plots; of a candidate without a model, why."""
    params = job.params(EvaluationParams)
    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])
    failure = failure_in(job.inputs["model"])
    if failure is not None:
        return pass_on(job, dataset, failure, HEADLINE)
    card, classes = dataset.card, tuple(dataset.card.class_ids)
    store, model = FeatureStore.open(job.inputs["features"]), load_model(job.inputs["model"])
    _check_fits(job, model, store.backbone_digest, classes)
    rows = evaluated_rows(dataset.rows)
    rows["age_band"] = age_bands(rows["age"], params.age_bands)
    features = store.get(rows["id"].tolist())
    logits, estimates = _predicted(job, model, dataset, rows, features)
    if not all(np.isfinite(found).all() for found in (logits, estimates) if found is not None):
        raise InputCorrupt(f"{job.inputs['model']} gives predictions that are no numbers; run the tune stage again.")
    known = None if estimates is None or card.score is None else (actual_scores(rows, card.score), estimates)
    temperature = _temperature(rows, logits, classes, params)
    frame = predictions_frame(rows, softmax(logits / temperature.value), classes, known)
    about = About(card.name, job.arguments["candidate"], job.arguments["seed"], model.digest, temperature.value)
    if card.novel_classes:
        frame, about = _with_novel(job, model, dataset, frame, about)
    metrics = measure_candidate(frame, about, model.record.method, dataset, params)
    if metrics.not_sliced:
        why = "; ".join(f"{column}: {reason}" for column, reason in metrics.not_sliced.items())
        log.info("%s: no slices by %s.", card.name, why)
    write_predictions(frame, about, job.outputs["predictions"])
    metrics.write(job.outputs["metrics"])
    headline = {name: metrics.test[name].value for name in HEADLINE}
    if card.novel_classes:
        headline["harmonic_mean"] = None if metrics.novel is None else metrics.novel.harmonic_mean.value
    write_json(job.outputs["summary"], headline)
    tested = features[(rows["split"] == "test").to_numpy()]
    test = split_of(frame, "test", classes)
    title = f"{card.name}, test split: {about.candidate}, seed {about.seed}"
    names = [info.name for info in card.classes]
    write_plots(job.outputs["plots"], test, tested, names=names, title=title, bins=params.calibration_bins)
    if known is not None and card.score is not None:
        rows_of_test, score = frame[frame["split"] == "test"], card.score.name
        write_score_plot(job.outputs["plots"], rows_of_test, test, names=names, title=title, score=score)
    return {"dataset": card.name, "candidate": about.candidate, "seed": about.seed, "images": len(rows), **headline}


def _predicted(
    job: Job, model: TunedModel, dataset: Dataset, rows: pd.DataFrame, features: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits [n, C], and estimates [n] of the card's score where the model tells them."""
    if model.head is not None:
        return model.head.logits(features), None

    from components.evaluate.predict import predict

    return predict(job, model, dataset, rows, features)


def _with_novel(
    job: Job, model: TunedModel, dataset: Dataset, frame: pd.DataFrame, about: About
) -> tuple[pd.DataFrame, About]:
    """With the answers to the novel classes below the others, or with the reason why there are none."""
    from components.evaluate.predict import predict_novel

    card, rows = dataset.card, novel_rows(dataset.rows)
    if rows.empty:
        return frame, replace(about, not_novel="no novel class has a test image")
    rows["age_band"] = age_bands(rows["age"], job.params(EvaluationParams).age_bands)
    try:
        logits = predict_novel(job, model, dataset, rows)
    except NotTrained as error:
        reason = str(error).rstrip(".")
        log.info("%s, seed %d: no answers to the novel classes: %s.", about.candidate, about.seed, reason)
        return frame, replace(about, not_novel=reason)
    if not np.isfinite(logits).all():
        raise InputCorrupt(f"{job.inputs['model']} gives predictions that are no numbers; run the tune stage again.")
    answers = predictions_frame(rows, softmax(logits / about.temperature), tuple(card.novel_ids))
    return pd.concat([frame, answers], ignore_index=True), about


def _temperature(
    rows: pd.DataFrame, logits: np.ndarray, classes: tuple[str, ...], params: EvaluationParams
) -> Temperature:
    """That of the validation images; the served model divides its logits by it, and so do the predictions."""
    val = (rows["split"] == "val").to_numpy()
    labels = class_indices(rows["label"][val], classes)
    of, unit = patients(rows[val]).nunique(), patient_count(rows[val]).counted
    return fit_temperature(logits[val], labels, of, params.calibration.min_patients, unit)


def _check_fits(job: Job, model: TunedModel, backbone_digest: str, classes: tuple[str, ...]) -> None:
    trained = model.record.backbone.digest
    if trained != backbone_digest:
        raise InputCorrupt(
            f"{job.inputs['model']} was tuned on features of the backbone {trained[:12]}, but {job.inputs['features']} "
            f"holds those of {backbone_digest[:12]}; run the cache and tune stages again (dvc repro)."
        )
    if tuple(model.record.classes) != classes:
        raise InputCorrupt(
            f"{job.inputs['model']} knows the classes {model.record.classes}, the card {list(classes)}; "
            "run the tune stage again (dvc repro)."
        )


if __name__ == "__main__":
    run(__file__, work)
