"""Tuned models that predict with their method's own code, built again. Served models carry a copy of this file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clinprompt.errors import BadParams, InputCorrupt, InputMissing
from clinprompt.methods import method
from clinprompt.prompting.base import PromptMethod, Task
from clinprompt.prompting.batches import Batch
from clinprompt.schema import check

if TYPE_CHECKING:
    from clinprompt.backbones.load import Backbone


def restore(spec: dict[str, Any], tensors: Path, backbone: "Backbone") -> PromptMethod:
    """The method as it was when training ended, ready to predict.

    Args:
        spec: the model's record, which names the method, its config, the classes and the seed.
        tensors: the file with the method's `state()`.
        backbone: the one that it was tuned on.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: the file can't be read, or does not fit the record; or the record doesn't fit the backbone or
            this version's methods.
    """
    where = f"The record beside {tensors}"
    if spec["backbone"]["digest"] != backbone.digest:
        raise InputCorrupt(
            f"{where} says that the model was tuned on the backbone {spec['backbone']['digest'][:12]}, not on "
            f"{backbone.name} ({backbone.digest[:12]}); run the cache and tune stages again (dvc repro)."
        )
    state = _read(tensors)
    try:
        cls = method(spec["method"])
        config = check(cls.Config, spec["config"], where, "config")
    except BadParams as error:
        raise InputCorrupt(f"{str(error).rstrip('.')}. It is another version's: run the tune stage again.") from None
    task = Task(backbone, tuple(spec["class_names"]), spec["seed"], cls.knowledge_in(state))
    model = cls(task, config)
    model.load_state(state)
    return model.eval()


@torch.no_grad()
def logits(model: PromptMethod, inputs: Tensor) -> Tensor:
    """Logits [B, C] of a batch at the method's level: raw features [B, e], or what its `prepare` gave."""
    unknown = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    return model(Batch(inputs, unknown)).float()


@torch.no_grad()
def answers(model: PromptMethod, inputs: Tensor) -> Tensor:
    """Logits [B, C] of a batch at the method's level; with the estimate of a score [B, C + 1], where there is one."""
    unknown = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
    of_classes, estimate = model.predict(Batch(inputs, unknown))
    columns = [of_classes] if estimate is None else [of_classes, estimate[:, None]]
    return torch.cat([column.float() for column in columns], dim=1)


@torch.no_grad()
def answers_of_pixels(model: PromptMethod, backbone: "Backbone", pixels: Tensor) -> Tensor:
    """The same of preprocessed pixels [B, 3, S, S], or volumes [B, 1, D, H, W], on the backbone's device."""
    pixels = pixels.to(backbone.device, non_blocking=True)
    if model.needed.images == "pixels":
        return answers(model, model.prepare(pixels))
    return answers(model, backbone.encode_images(pixels))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputMissing(f"{path} does not exist; run the tune stage again (dvc repro).") from None
    except SafetensorError as error:
        raise InputCorrupt(f"{path} can't be read ({error}). Delete its folder and run tune again.") from None
