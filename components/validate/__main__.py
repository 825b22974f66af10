"""validate: check the images, and decide whether they are fit for training."""

from typing import Any

from clinprompt.data.dataset import Dataset
from clinprompt.errors import DataRejected
from clinprompt.params import ValidationParams
from clinprompt.validation.verdict import rejection, validate, write
from components.runner import Job, log, run


def work(job: Job) -> dict[str, Any]:
    """Validate, write the evidence, and reject the data if a critical check failed."""
    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])
    limits = job.params(ValidationParams)
    verdict = validate(dataset.card, str(job.inputs["card"]), dataset.rows, dataset.images, limits)
    write(verdict, job.outputs["accepted"], job.outputs["classes"], job.outputs["evidence"])
    for warning in verdict.warnings:
        log.warning("validate: %s", warning)
    if verdict.record["dropped"]:
        log.info("validate: %s", verdict.record["dropped_sentence"])
    if not verdict.is_accepted:
        raise DataRejected(rejection(verdict, job.final["evidence"]), publish=True)
    return {
        "dataset": dataset.card.name,
        "verdict": verdict.record["verdict"],
        "images": len(verdict.accepted),
        "dropped": len(verdict.record["dropped"]),
        "warnings": len(verdict.warnings),
    }


if __name__ == "__main__":
    run(__file__, work)
