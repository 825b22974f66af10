"""One training, alone or as one of the processes that share its batches."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from clinprompt import __version__
from clinprompt.data.card import Card
from clinprompt.data.load import load_card
from clinprompt.data.manifest import read_manifest
from clinprompt.data.support import support_digest, support_set
from clinprompt.errors import DataRejected
from clinprompt.features.store import FeatureStore
from clinprompt.files import sha256_bytes, sha256_file, to_json, write_json
from clinprompt.methods import method
from clinprompt.params import BackboneParams, TrainingParams
from clinprompt.tuned.artifact import write_model
from clinprompt.tuned.config import candidate_config
from clinprompt.tuned.record import ModelRecord
from components.runner import Job
from components.sources import method_digest

if TYPE_CHECKING:
    from clinprompt.backbones import Backbone
    from clinprompt.prompting.base import PromptMethod
    from clinprompt.training.checkpoint import Curves
    from clinprompt.training.distributed import Ranks

log = logging.getLogger(__name__)


def tune(job: Job) -> dict[str, Any]:
    """Fit the method, and write what it learned with the record of what it learned from."""
    candidate, seed = job.candidate(job.arguments["candidate"]), job.arguments["seed"]
    card = load_card(job.inputs["card"])
    manifest = read_manifest(job.inputs["manifest"])
    config = candidate_config(candidate, card)
    training = job.params(TrainingParams)
    support = support_set(manifest, card.class_ids, training.shots, seed)
    validation = manifest[manifest["split"] == "val"]
    _check_splits(manifest, support, validation, card)
    store = FeatureStore.open(job.inputs["features"])

    from clinprompt.backbones.device import choose_device
    from clinprompt.prompting.base import Task
    from clinprompt.prompting.optimisation import OptimiserSettings
    from clinprompt.training.checkpoint import Checkpoint
    from clinprompt.training.distributed import joined
    from clinprompt.training.fit import fit
    from clinprompt.training.inputs import ExampleLoader, knowledge, open_backbone
    from clinprompt.training.loop import Run, micro_batches

    device = choose_device(training.device)
    mixed = _mixed(training.precision, device)
    choice = job.params(BackboneParams)
    with joined(device) as ranks:
        backbone = open_backbone(choice.name, choice.path, device, store, job.inputs["features"])
        cls = method(candidate.method)
        files = (job.inputs.get(key) for key in ("descriptions", "hidden_states"))
        known = knowledge(cls.needs(config), card.class_ids, *files)
        model = cls(Task(backbone, tuple(c.name for c in card.classes), seed, known), config)
        feeder = ExampleLoader(card, store, job.inputs["images"], job.final["model"].parent, backbone, model)
        train, val = feeder.examples(support, training.augmentation), feeder.examples(validation)
        parts = micro_batches(config.batch_size) if isinstance(config, OptimiserSettings) else 1
        record = _record(job, card, backbone, model) | {"support": support_digest(support)}
        record |= _how(job, model, parts, mixed, ranks)
        code = {"method": method_digest(candidate.method)}
        identity = sha256_bytes(to_json([record, store.identity, device, code]).encode())
        path = job.final["model"].with_name(f".{job.final['model'].name}.checkpoint")
        checkpoint = Checkpoint(path, training.checkpoint_every, identity)
        curves = fit(model, train, val, Run(seed, checkpoint, parts, mixed, ranks))
        if ranks.writes:
            _write(job.outputs["model"], model, record, curves, support)
            # Not part of the model: what follows runs again when the code has changed and the tensors have not.
            write_json(job.outputs["model"] / "sources.json", code)
            checkpoint.delete()
    shown = {key: round(curves[-1][key], 4) for key in ("train_accuracy", "val_accuracy")}
    facts = {"dataset": card.name, "candidate": candidate.name, "seed": seed, "images": len(support), **shown}
    return facts | {"device": device, "micro_batches": parts}


def _check_splits(manifest: pd.DataFrame, support: pd.DataFrame, validation: pd.DataFrame, card: Card) -> None:
    unknown = sorted(set(manifest["label"]) - set(card.class_ids))
    if unknown:
        raise DataRejected(f"The manifest's label {unknown[0]!r} is not a class of datasets/{card.name}.yaml; add it.")
    missing = sorted(set(card.class_ids) - set(support["label"]))
    if missing:
        raise DataRejected(f"The training split of {card.name} has no image of the class {missing[0]!r}; add some.")
    if validation.empty:
        raise DataRejected(f"The validation split of {card.name} is empty; give it images in the dataset's card.")


def _mixed(precision: str, device: str) -> bool:
    if precision == "float32" or device == "cuda":
        return precision != "float32"
    log.warning("training.precision: %s needs a GPU; training in float32.", precision)
    return False


def _record(job: Job, card: Card, backbone: "Backbone", model: "PromptMethod") -> dict[str, Any]:
    """What `model.yaml` says: all that the model depends on, by digest where it is a file."""
    import torch

    from clinprompt.training.inputs import preprocessing

    needs = model.needed
    knowledge = {key: sha256_file(job.inputs[key]) for key in sorted(needs.knowledge)}
    return {
        "dataset": card.name,
        "candidate": job.arguments["candidate"],
        "method": model.name,
        "config": model.config.model_dump(mode="json"),
        "seed": job.arguments["seed"],
        "classes": card.class_ids,
        "class_names": [c.name for c in card.classes],
        "backbone": {"name": backbone.name, "digest": backbone.digest, "embed_dim": backbone.embed_dim},
        "preprocessing": preprocessing(backbone, needs).to_dict(),
        "intensity": card.intensity,
        "manifest": sha256_file(job.inputs["manifest"]),
        "images": needs.images,
        "knowledge": knowledge or None,
        "versions": {"torch": str(torch.__version__), "clinprompt": __version__},
    }


def _how(job: Job, model: "PromptMethod", parts: int, mixed: bool, ranks: "Ranks") -> dict[str, Any]:
    """How it was trained, as far as that is not what it always is."""
    found: dict[str, Any] = {"micro_batches": parts} if parts > 1 else {}
    if ranks.size > 1:
        found["processes"] = ranks.size
    if mixed:
        found["precision"] = job.params(TrainingParams).precision
    if model.needed.images == "pixels":
        found["augmentation"] = job.params(TrainingParams).augmentation
    return found


def _write(folder: Path, model: "PromptMethod", facts: dict[str, Any], curves: "Curves", support: pd.DataFrame) -> None:
    head = model.export_head()
    write_model(
        folder,
        record=ModelRecord(
            **facts,
            predicts_with="method" if head is None else "head",
            trainable_parameters=sum(p.numel() for p in model.trainable_parameters().values()),
        ),
        state={key: tensor.numpy() for key, tensor in model.state().items()},
        head=None if head is None else {key: tensor.numpy() for key, tensor in head.items()},
        curves=curves,
        support={column: support[column].tolist() for column in ("path", "id", "label")},
    )
