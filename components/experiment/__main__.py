"""Train and test every cell of a protocol with one method on one dataset."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinprompt import __version__
from clinprompt.data.card import Card
from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from clinprompt.experiments.protocols import Cell, Protocol, cells, check_protocol
from clinprompt.experiments.results import Result, left_out_row
from clinprompt.features.store import FeatureStore
from clinprompt.files import sha256_bytes, sha256_file, to_json, write_json
from clinprompt.methods import method
from clinprompt.schema import Section
from clinprompt.tuned.config import method_config
from components.runner import Job, run

if TYPE_CHECKING:
    from clinprompt.backbones import Backbone
    from clinprompt.experiments.protocol_runner import ProtocolRunner
    from clinprompt.prompting.base import Knowledge, PromptMethod
    from clinprompt.training.checkpoint import Checkpoint
    from clinprompt.training.inputs import ExampleLoader

log = logging.getLogger(__name__)


def work(job: Job) -> dict[str, Any]:
    """Run the cells, write their metrics, and beside them the seconds."""
    name, protocol = job.arguments["method"], job.arguments["protocol"]
    knobs = check_protocol(protocol, job.params(f"protocols.{protocol}"))
    card = load_card(job.inputs["card"])
    config = method_config(name, job.params("methods").get(name, {}), card, protocol, knobs.methods.get(name))
    told = {"dataset": card.name, "protocol": protocol, "method": name}

    from clinprompt.experiments.journal import Journal
    from clinprompt.experiments.transfer import LEFT_OUT
    from clinprompt.training.inputs import open_backbone
    from clinprompt.training.loop import choose_device, with_smaller_batches

    device = choose_device(job.params("training").device)
    store = FeatureStore.open(job.inputs["features"])
    choice = job.params("backbone")
    backbone = open_backbone(choice.name, choice.path, device, store, job.inputs["features"])
    facts = _facts(job, card, backbone, config, knobs)
    if knobs.transfers and not method(name).transfers(config):
        write_json(job.outputs["result"], Result(facts, [], LEFT_OUT).to_json())
        return told | {"cells": 0, "left_out": LEFT_OUT}
    manifest = read_manifest(job.inputs["manifest"])
    planned = cells(knobs, manifest, tuple(card.class_ids), job.params("protocols.seeds"))
    identity = sha256_bytes(to_json([facts, [cell.key for cell in planned], job.params("protocols.stack")]).encode())
    journal = Journal(_beside(job, "cells"), identity)
    todo = [cell for cell in planned if isinstance(cell, Cell)]
    rows = iter(with_smaller_batches(lambda: _bench(job, card, backbone, config, store, identity).run(todo, journal)))
    found = [next(rows) if isinstance(cell, Cell) else left_out_row(cell) for cell in planned]
    write_json(job.outputs["result"], Result(facts, found).to_json())
    final = job.final["result"]
    write_json(final.parent / "seconds" / final.name, journal.seconds)
    journal.delete()
    return told | {"cells": len(journal.rows), "left_out": None, "device": device}


def _bench(
    job: Job, card: Card, backbone: "Backbone", config: Section, store: FeatureStore, identity: str
) -> "ProtocolRunner":
    from clinprompt.experiments.protocol_runner import ProtocolRunner
    from clinprompt.prompting.optimisation import OptimiserSettings
    from clinprompt.training.checkpoint import Checkpoint
    from clinprompt.training.inputs import ExampleLoader, knowledge
    from clinprompt.training.loop import micro_batches

    name, training = job.arguments["method"], job.params("training")
    needs = method(name).needs(config)
    mixed = training.precision != "float32" and backbone.device.type == "cuda"
    if training.precision != "float32" and not mixed:
        log.warning("training.precision: %s needs a GPU; training in float32.", training.precision)

    def feed(model: "PromptMethod") -> "ExampleLoader":
        return ExampleLoader(card, store, job.inputs["images"], job.final["result"].parent, backbone, model)

    def know(classes: Sequence[str]) -> "Knowledge":
        return knowledge(needs, classes, job.inputs["descriptions"], job.inputs["hidden_states"])

    def checkpoint(cell: str) -> "Checkpoint":
        return Checkpoint(_beside(job, "training"), training.checkpoint_every, f"{identity} {cell}")

    return ProtocolRunner(
        card, read_manifest(job.inputs["manifest"]), backbone, name, config, feed, know, checkpoint,
        augmentation=training.augmentation,
        micro_batches=micro_batches(config.batch_size) if isinstance(config, OptimiserSettings) else 1,
        mixed=mixed,
        stack=job.params("protocols.stack"),
    )  # fmt: skip


def _facts(job: Job, card: Card, backbone: "Backbone", config: Section, knobs: Protocol) -> dict[str, Any]:
    """What the numbers depend on, by digest where it is a file."""
    import torch

    training, needs = job.params("training"), method(job.arguments["method"]).needs(config)
    return {
        "dataset": card.name,
        "protocol": job.arguments["protocol"],
        "method": job.arguments["method"],
        "config": config.model_dump(mode="json"),
        "knobs": knobs.model_dump(mode="json", exclude={"methods"}),
        "stack": job.params("protocols.stack"),
        "training": {"precision": training.precision, "augmentation": training.augmentation},
        "backbone": {"name": backbone.name, "digest": backbone.digest},
        "classes": card.class_ids,
        "manifest": sha256_file(job.inputs["manifest"]),
        "knowledge": {key: sha256_file(job.inputs[key]) for key in sorted(needs.knowledge)} or None,
        "versions": {"torch": str(torch.__version__), "clinprompt": __version__},
    }


def _beside(job: Job, what: str) -> Path:
    """A hidden file beside the result, for what an interrupted run leaves to the next; DVC passes it over."""
    return job.final["result"].with_name(f".{job.final['result'].stem}.{what}.checkpoint")


if __name__ == "__main__":
    run(__file__, work)
