"""Compute the frozen image features of a dataset, or those that are missing."""

from dataclasses import asdict
from typing import Any

from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from components.runner import Job, run


def work(job: Job) -> dict[str, Any]:
    """Bring the feature store up to date with the manifest."""
    card = load_card(job.inputs["card"])
    manifest = read_manifest(job.inputs["manifest"])

    import torch

    from clinprompt.backbones import load_backbone
    from clinprompt.features.update import update_store

    choice, cache = job.params("backbone"), job.params("cache")
    backbone = load_backbone(choice.name, choice.path, "cuda" if torch.cuda.is_available() else "cpu")
    update = update_store(
        job.outputs["features"],
        backbone,
        {i: job.inputs["images"] / file for i, file in zip(manifest["id"], manifest["file"], strict=True)},
        intensity=card.intensity,
        batch_size=cache.batch_size,
        workers=cache.workers,
        precision=cache.precision,
    )
    return {"dataset": card.name, "backbone": backbone.name, "device": backbone.device.type, **asdict(update)}


if __name__ == "__main__":
    run(__file__, work)
