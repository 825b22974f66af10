"""cache: compute the frozen image features of a dataset, or those that are missing."""

from dataclasses import asdict
from typing import Any

from clinprompt.data.dataset import items
from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from clinprompt.params import BackboneParams, CacheParams
from components.runner import Job, run


def work(job: Job) -> dict[str, Any]:
    """Bring the feature store up to date with the manifest."""
    card = load_card(job.inputs["card"])
    manifest = read_manifest(job.inputs["manifest"])

    from clinprompt.backbones import load_backbone
    from clinprompt.backbones.device import choose_device
    from clinprompt.features.update import update_store

    choice, cache = job.params(BackboneParams), job.params(CacheParams)
    backbone = load_backbone(choice.name, choice.path, choose_device())
    update = update_store(
        job.outputs["features"],
        backbone,
        dict(items(manifest, job.inputs["images"])),
        intensity=card.intensity,
        batch_size=cache.batch_size,
        workers=cache.workers,
        precision=cache.precision,
    )
    return {"dataset": card.name, "backbone": backbone.name, "device": backbone.device.type, **asdict(update)}


if __name__ == "__main__":
    run(__file__, work)
