"""cache: compute the frozen image features of a dataset, or those that are missing."""

from dataclasses import asdict
from typing import Any

from clinprompt.data.dataset import Dataset
from clinprompt.data.support import check_shots
from clinprompt.params import BackboneParams, CacheParams
from components.runner import Job, run


def work(job: Job) -> dict[str, Any]:
    """Look whether there are images enough and classes that can be told apart, then bring the feature store up to date
    with the manifest."""
    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])

    # Here, before the slow part, and not in each training: what all of them would refuse.
    check_shots(dataset.rows, dataset.card.class_ids, job.params("training.shots"))

    from clinprompt.backbones.device import choose_device
    from clinprompt.backbones.load import load_backbone
    from clinprompt.features.update import update_store
    from clinprompt.prompting.class_prompts import class_prompt_ids

    choice, cache = job.params(BackboneParams), job.params(CacheParams)
    backbone = load_backbone(choice.name, choice.path, choose_device())
    names = [info.name for info in dataset.card.named]
    class_prompt_ids(backbone, [f"{name}." for name in names], names, str(job.inputs["card"]))
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
