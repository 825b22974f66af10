"""One training, alone or as one of the processes that share its batches."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from clinprompt.data.codecs.base import VOLUME
from clinprompt.data.columns import NOVEL
from clinprompt.data.dataset import Dataset
from clinprompt.data.support import support_digest, support_set
from clinprompt.errors import DataRejected
from clinprompt.files import sha256_bytes, to_json, write_json
from clinprompt.methods import method
from clinprompt.params import BackboneParams, TrainingParams
from clinprompt.tuned.artifact import write_model
from clinprompt.tuned.config import candidate_config
from clinprompt.tuned.record import ModelRecord
from components.runner import Job
from components.sources import method_digest

if TYPE_CHECKING:
    from clinprompt.prompting.base import PromptMethod
    from clinprompt.prompting.batches import Examples
    from clinprompt.training.checkpoint import Curves
    from clinprompt.training.loop import Run
    from clinprompt.tuned.session import TuningSession


def tune(job: Job) -> dict[str, Any]:
    """Fit the method, and write what it learned with the record of what it learned from.

    Raises:
        NotTrained: it can't be, with these knobs on this data.
    """
    candidate, seed = job.candidate(job.arguments["candidate"]), job.arguments["seed"]
    dataset = Dataset.open(job.inputs["card"], job.inputs["manifest"], job.inputs["images"])
    config = candidate_config(candidate, dataset.card)
    training = job.params(TrainingParams)
    support = support_set(dataset.rows, dataset.card.class_ids, training.shots, seed)
    validation = dataset.split("val")
    _check_splits(dataset, support, validation)

    from clinprompt.backbones.device import choose_device
    from clinprompt.training.checkpoint import Checkpoint
    from clinprompt.training.distributed import joined
    from clinprompt.training.fit import fit
    from clinprompt.tuned.session import TuningSession

    with joined(choose_device(training.device)) as ranks:
        final = job.final["model"]
        session = TuningSession.open(dataset, job.inputs, job.params(BackboneParams), training, final.parent)
        model = session.build(method(candidate.method), config, seed)
        train, val = session.examples(model, support, training.augmentation), session.examples(model, validation)
        run = session.run(config, seed, ranks=ranks)
        record = _record(job, session, model, run) | {"support": support_digest(support)}
        code = {"method": method_digest(candidate.method)}
        device = session.backbone.device.type
        identity = sha256_bytes(to_json([record, session.loader.store.identity, device, code]).encode())
        checkpoint = Checkpoint(checkpoint_file(job), training.checkpoint_every, identity)
        curves = fit(model, train, val, replace(run, checkpoint=checkpoint))
        if ranks.writes:
            _write(job.outputs["model"], model, record | _score(model, dataset, val), curves, support)
            # Not part of the model: what follows runs again when the code has changed and the tensors have not.
            write_json(job.outputs["model"] / "sources.json", code)
            checkpoint.delete()
    shown = {key: round(curves[-1][key], 4) for key in ("train_accuracy", "val_accuracy")}
    facts = {"dataset": dataset.card.name, "candidate": candidate.name, "seed": seed, "images": len(support), **shown}
    return facts | {"device": device, "micro_batches": run.micro_batches}


def checkpoint_file(job: Job) -> Path:
    """What an interrupted training goes on from; DVC passes it over."""
    final = job.final["model"]
    return final.with_name(f".{final.name}.checkpoint")


def _check_splits(dataset: Dataset, support: pd.DataFrame, validation: pd.DataFrame) -> None:
    card = dataset.card
    unknown = sorted(set(dataset.rows["label"][dataset.rows["split"] != NOVEL]) - set(card.class_ids))
    if unknown:
        raise DataRejected(f"The manifest's label {unknown[0]!r} is not a class of datasets/{card.name}.yaml; add it.")
    missing = sorted(set(card.class_ids) - set(support["label"]))
    if missing:
        raise DataRejected(f"The training split of {card.name} has no image of the class {missing[0]!r}; add some.")
    if validation.empty:
        raise DataRejected(f"The validation split of {card.name} is empty; give it images in the dataset's card.")


def _record(job: Job, session: "TuningSession", model: "PromptMethod", run: "Run") -> dict[str, Any]:
    """What `model.yaml` says: all that the model depends on, by digest where it is a file."""
    from clinprompt.training.inputs import preprocessing

    card, backbone = session.dataset.card, session.backbone
    facts = session.method_facts(type(model), model.config)
    return {
        **facts,
        "candidate": job.arguments["candidate"],
        "seed": run.seed,
        "class_names": [info.name for info in card.classes],
        "backbone": facts["backbone"] | {"embed_dim": backbone.embed_dim},
        "preprocessing": preprocessing(backbone, model.needed).to_dict(),
        "intensity": card.intensity,
        "images": model.needed.images,
        **({"dicom": True, "frames": card.dicom.frames} if session.dataset.has_dicom else {}),
        **_unusual(session, model, run),
    }


def _unusual(session: "TuningSession", model: "PromptMethod", run: "Run") -> dict[str, Any]:
    """How it was trained, as far as that is not what it always is."""
    facts: dict[str, Any] = {"micro_batches": run.micro_batches} if run.micro_batches > 1 else {}
    if run.ranks.size > 1:
        facts["processes"] = run.ranks.size
    if run.mixed:
        facts["precision"] = session.training.precision
    if session.backbone.device.type != "cpu":
        facts["device"] = session.backbone.device.type
    if model.needed.images == "pixels":
        facts["augmentation"] = session.training.augmentation
    return facts


def _score(model: "PromptMethod", dataset: Dataset, examples: "Examples") -> dict[str, Any]:
    """The column of the score that the trained model estimates, where it does."""
    import torch

    score = dataset.card.score
    if score is None:
        return {}
    with torch.no_grad():
        _, estimate = model.eval().predict(examples.batch(slice(0, 1)))
    return {} if estimate is None else {"score": score.column}


def _write(folder: Path, model: "PromptMethod", facts: dict[str, Any], curves: "Curves", support: pd.DataFrame) -> None:
    # A linear head is served without this library, which only pictures can be.
    head = None if facts["preprocessing"].get("kind") == VOLUME else model.export_head()
    write_model(
        folder,
        record=ModelRecord(
            **facts,
            predicts_with="method" if head is None else "head",
            trainable_parameters=model.trained_count(),
        ),
        state={key: tensor.numpy() for key, tensor in model.state().items()},
        head=None if head is None else {key: tensor.numpy() for key, tensor in head.items()},
        curves=curves,
        support={column: support[column].tolist() for column in ("path", "id", "label")},
    )
