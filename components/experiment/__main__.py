"""Train and test every cell of a protocol with one method on one dataset."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinprompt.data.dataset import Dataset
from clinprompt.errors import NotTrained
from clinprompt.experiments.protocols import Cell, Protocol, cells, check_protocol
from clinprompt.experiments.results import Result, left_out_row
from clinprompt.experiments.tables.presets import preset_augmentation, preset_method
from clinprompt.files import sha256_bytes, to_json, write_json
from clinprompt.methods import method
from clinprompt.params import BackboneParams, CandidateSpec, TrainingParams
from clinprompt.schema import Section
from clinprompt.tuned.config import method_config
from components.runner import Job, run

if TYPE_CHECKING:
    from clinprompt.experiments.protocol_runner import ProtocolRunner
    from clinprompt.prompting.base import PromptMethod
    from clinprompt.training.checkpoint import Checkpoint
    from clinprompt.tuned.session import TuningSession


def work(job: Job) -> dict[str, Any]:
    """Run the cells, write their metrics, and beside them the seconds."""
    spec, protocol = job.candidate(job.arguments["method"]), job.arguments["protocol"]
    name, cls = spec.method, method(spec.method)
    knobs = check_protocol(protocol, job.params(f"protocols.{protocol}"))
    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])
    card, training, final = dataset.card, job.params(TrainingParams), job.final["result"]
    published = preset_method(knobs.preset, protocol, name)
    config = method_config(
        name, spec.knobs, card, protocol, knobs.methods.get(name), spec.variant, published.knobs if published else None
    )
    augmentation = knobs.augmentation or preset_augmentation(knobs.preset, protocol, name)
    if augmentation is not None:
        training = training.model_copy(update={"augmentation": augmentation})
    summary = {"dataset": card.name, "protocol": protocol, "method": spec.name}

    from clinprompt.experiments.budget import Schedule
    from clinprompt.experiments.journal import Journal
    from clinprompt.training.loop import with_smaller_batches
    from clinprompt.tuned.session import TuningSession
    from clinprompt.tuned.transfer import LEFT_OUT

    session = TuningSession.open(dataset, job.inputs, job.params(BackboneParams), training, final.parent)
    facts = _facts(job, session, spec, config, knobs)
    if knobs.transfers and not cls.transfers(config):
        write_json(job.outputs["result"], Result(facts, [], LEFT_OUT).to_json())
        return summary | {"cells": 0, "left_out": LEFT_OUT}
    planned = cells(knobs, dataset.rows, tuple(card.class_ids), job.params("protocols.seeds"))
    identity = sha256_bytes(to_json([facts, [cell.key for cell in planned], job.params("protocols.stack")]).encode())
    journal = Journal(_beside(job, "cells"), identity)
    to_train = [cell for cell in planned if isinstance(cell, Cell)]
    schedule = Schedule(knobs.budget, published.steps_per_shot if published else None)
    runner = replace(_runner(job, session, cls, config, identity), schedule=schedule)
    try:
        trained = iter(with_smaller_batches(lambda: runner.run(to_train, journal)))
    except NotTrained as error:
        journal.delete()
        write_json(job.outputs["result"], Result(facts, [], str(error)).to_json())
        return summary | {"cells": 0, "left_out": str(error)}
    rows = [next(trained) if isinstance(cell, Cell) else left_out_row(cell) for cell in planned]
    write_json(job.outputs["result"], Result(facts, rows).to_json())
    write_json(final.parent / "seconds" / final.name, journal.seconds)
    journal.delete()
    return summary | {"cells": len(journal.rows), "left_out": None, "device": session.backbone.device.type}


def _runner(
    job: Job, session: "TuningSession", cls: "type[PromptMethod]", config: Section, identity: str
) -> "ProtocolRunner":
    from clinprompt.experiments.protocol_runner import ProtocolRunner
    from clinprompt.training.checkpoint import Checkpoint

    def checkpoint(cell: str) -> "Checkpoint":
        return Checkpoint(_beside(job, "training"), session.training.checkpoint_every, f"{identity} {cell}")

    return ProtocolRunner(session, cls, config, checkpoint, job.params("protocols.stack"))


def _facts(job: Job, session: "TuningSession", spec: CandidateSpec, config: Section, knobs: Protocol) -> dict[str, Any]:
    """What the numbers depend on, by digest where it is a file. A variant stands under its own name."""
    return {
        **session.method_facts(method(spec.method), config),
        "method": spec.name,
        "protocol": job.arguments["protocol"],
        "knobs": knobs.model_dump(mode="json", exclude={"methods"}),
        "stack": job.params("protocols.stack"),
        "training": session.training.model_dump(mode="json", include={"precision", "augmentation"}),
    }


def _beside(job: Job, what: str) -> Path:
    """A hidden file beside the result, for what an interrupted run leaves to the next; DVC passes it over."""
    return job.final["result"].with_name(f".{job.final['result'].stem}.{what}.checkpoint")


if __name__ == "__main__":
    run(__file__, work)
