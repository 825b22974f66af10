"""Test the tuned candidates of one dataset on the test split of another."""

from typing import TYPE_CHECKING, Any

from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from clinprompt.features.store import FeatureStore
from clinprompt.files import sha256_file, write_json
from clinprompt.methods import method
from clinprompt.tuned.artifact import load_model
from components.runner import Job, run

if TYPE_CHECKING:
    from clinprompt.backbones import Backbone
    from clinprompt.data.card import Card
    from clinprompt.prompting.base import PromptMethod
    from clinprompt.tuned.artifact import TunedModel


def work(job: Job) -> dict[str, Any]:
    """Build every candidate for the target's classes, and measure it."""
    from clinprompt.experiments.protocol_runner import measured
    from clinprompt.experiments.results import Result
    from clinprompt.training.inputs import ExampleLoader, open_backbone
    from clinprompt.training.loop import choose_device

    source, target = job.arguments["source"], job.arguments["target"]
    card, choice = load_card(job.inputs["card"]), job.params("backbone")
    store = FeatureStore.open(job.inputs["features"])
    device = choose_device(job.params("training").device)
    backbone = open_backbone(choice.name, choice.path, device, store, job.inputs["features"])
    manifest = read_manifest(job.inputs["manifest"])
    test = manifest[manifest["split"] == "test"]
    rows: list[dict[str, Any]] = []
    for candidate in job.params("candidates").ids:
        folder = job.inputs["models"] / str(candidate)
        tuned = load_model(folder)
        row = {"candidate": candidate.name, "method": tuned.record.method, "seed": candidate.seed}
        row["model_digest"] = tuned.digest
        model, why = _built(job, folder.name, tuned, card, backbone)
        if model is None:
            rows.append(row | {"left_out": why})
            continue
        feeder = ExampleLoader(card, store, job.inputs["images"], job.final["result"].parent, backbone, model)
        rows.append(row | {"test": measured(model, feeder.examples(test))})
    facts = {
        "protocol": "transfer",
        "dataset": source,
        "target": target,
        "classes": card.class_ids,
        "backbone": {"name": backbone.name, "digest": backbone.digest},
        "manifest": sha256_file(job.inputs["manifest"]),
    }
    write_json(job.outputs["result"], Result(facts, rows).to_json())
    return {"source": source, "target": target, "candidates": len(rows)}


def _built(
    job: Job, folder: str, tuned: "TunedModel", card: "Card", backbone: "Backbone"
) -> "tuple[PromptMethod | None, str]":
    """The candidate for the target's classes, or why it can't be."""
    from clinprompt.experiments.transfer import LEFT_OUT, moved
    from clinprompt.prompting.base import Task
    from clinprompt.training.inputs import knowledge
    from clinprompt.tuned.artifact import PROMPTS
    from clinprompt.tuned.restore import restore

    cls, tensors = method(tuned.record.method), job.inputs["models"] / folder / PROMPTS
    original = restore(tuned.record.to_json(), tensors, backbone)
    if job.arguments["source"] == job.arguments["target"]:
        return original, ""
    config: Any = original.config
    if not cls.transfers(config):
        return None, LEFT_OUT
    known = knowledge(cls.needs(config), card.class_ids, job.inputs["descriptions"], job.inputs["hidden_states"])
    names = tuple(info.name for info in card.classes)
    return moved(cls(Task(backbone, names, tuned.record.seed, known), config), original.trainable_parameters()), ""


if __name__ == "__main__":
    run(__file__, work)
