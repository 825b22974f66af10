"""What evaluate writes of a candidate that could not be trained: the reason, in place of each of its results."""

import logging
from typing import Any

import numpy as np

from clinprompt.data.dataset import Dataset
from clinprompt.evaluation.table import About, evaluated_rows, predictions_frame, write_predictions
from clinprompt.files import write_json
from clinprompt.tuned.failure import TrainingFailure
from components.runner import Job

log = logging.getLogger(__name__)


def pass_on(job: Job, dataset: Dataset, failure: TrainingFailure, headline: tuple[str, ...]) -> dict[str, Any]:
    """Write predictions of no image, no number of the headline, and the failure where the metrics would be."""
    rows, classes = evaluated_rows(dataset.rows)[:0].assign(age_band=None), tuple(dataset.card.class_ids)
    about = About(dataset.card.name, failure.candidate, failure.seed, "")
    write_predictions(predictions_frame(rows, np.empty((0, len(classes))), classes), about, job.outputs["predictions"])
    failure.write(job.outputs["metrics"])
    novel = ("harmonic_mean",) if dataset.card.novel_classes else ()
    write_json(job.outputs["summary"], dict.fromkeys((*headline, *novel)))
    job.outputs["plots"].mkdir()
    write_json(job.outputs["plots"] / "not_trained.json", [{"candidate": about.candidate, "reason": failure.reason}])
    log.warning("evaluate: %s, seed %d: nothing to measure: it was not trained.", about.candidate, about.seed)
    return {"dataset": about.dataset, "candidate": about.candidate, "seed": about.seed, "not_trained": failure.reason}
