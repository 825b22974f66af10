"""validate: check the images, and decide whether they are fit for training."""

from typing import Any

from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from clinprompt.errors import DataRejected
from clinprompt.params import ValidationParams
from clinprompt.validation.verdict import rejection, validate, write
from components.runner import Job, log, run


def work(job: Job) -> dict[str, Any]:
    """Validate, write the evidence, and reject the data if a critical check failed."""
    card = load_card(job.inputs["card"])
    manifest = read_manifest(job.inputs["manifest"])
    limits = job.params(ValidationParams)
    verdict = validate(card, str(job.inputs["card"]), manifest, job.inputs["images"], limits)
    write(verdict, job.outputs["accepted"], job.outputs["classes"], job.outputs["evidence"])
    for warning in verdict.warnings:
        log.warning("validate: %s", warning)
    if not verdict.is_accepted:
        raise DataRejected(rejection(verdict, job.final["evidence"]), publish=True)
    return {
        "dataset": card.name,
        "verdict": verdict.record["verdict"],
        "images": len(verdict.accepted),
        "dropped": len(verdict.record["dropped"]),
        "warnings": len(verdict.warnings),
    }


if __name__ == "__main__":
    run(__file__, work)
