"""cache: compute the frozen image features of a dataset, or those that are missing."""

from dataclasses import asdict
from typing import Any

from clinprompt.data.dataset import Dataset
from clinprompt.params import BackboneParams, CacheParams
from components.runner import Job, run


def work(job: Job) -> dict[str, Any]:
    """Bring the feature store up to date with the manifest."""
    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])

    from clinprompt.backbones import load_backbone
    from clinprompt.backbones.device import choose_device
    from clinprompt.features.update import update_store

    choice, cache = job.params(BackboneParams), job.params(CacheParams)
    backbone = load_backbone(choice.name, choice.path, choose_device())
    update = update_store(
        job.outputs["features"],
        backbone,
        dict(dataset.items(dataset.rows)),
        intensity=dataset.card.intensity,
        batch_size=cache.batch_size,
        workers=cache.workers,
        precision=cache.precision,
    )
    return {"dataset": dataset.card.name, "backbone": backbone.name, "device": backbone.device.type, **asdict(update)}


if __name__ == "__main__":
    run(__file__, work)
