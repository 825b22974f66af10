"""A classifier before and after tuning, opened as far as the pictures need it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from clinprompt.backbones.vision import VisionTower
from clinprompt.prompting.base import Head, PromptMethod
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.teacher import encode_sentences
from clinprompt.tuned.artifact import HEAD, PROMPTS, TunedModel
from clinprompt.tuned.restore import restore

if TYPE_CHECKING:
    from clinprompt.backbones.load import Backbone

_UNIT = 1e-3  # how far from 1 the length of a text feature may be

# Unit features of images [B, e] and of the classes' texts: [C, e], or [B, C, e] where they depend on the image; None
# where the model has none in the images' space.
Features = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class InspectedModel:
    """A classifier on a backbone, in parts.

    Attributes:
        prepare: of preprocessed pixels [B, 3, S, S], what a batch holds; differentiable.
        logits: [B, C] of what a batch holds, differentiable.
        features: of what a batch holds.
        frozen: whether a batch holds the backbone's own raw features [B, e].
        tower: opens the image tower that is run; BadParams where it can't be opened.
        method: what it was restored to; None where a linear head is all there is.
    """

    prepare: Callable[[Tensor], Tensor]
    logits: Callable[[Tensor], Tensor]
    features: Callable[[Tensor], Features]
    frozen: bool
    tower: Callable[[], VisionTower]
    method: PromptMethod | None = None


def zero_shot(backbone: "Backbone", names: Sequence[str], template: str) -> InspectedModel:
    """The frozen backbone with one sentence per class: what there is before tuning."""
    texts = encode_sentences(backbone, [template.replace("{}", name) for name in names])
    return with_head(backbone, Head(texts, backbone.logit_scale))


def tuned(folder: Path, model: TunedModel, backbone: "Backbone") -> InspectedModel:
    """What a tuned model's folder holds.

    Raises:
        InputMissing, InputCorrupt: a file is not there, can't be read, or does not fit the backbone.
    """
    if model.head is None:
        return with_method(backbone, restore(model.record.to_json(), folder / PROMPTS, backbone))
    saved = {name: tensor.to(backbone.device) for name, tensor in load_file(folder / HEAD).items()}
    return with_head(backbone, Head(saved["weight"], float(saved["scale"]), saved.get("bias")))


def with_head(backbone: "Backbone", head: Head) -> InspectedModel:
    """A linear head on the frozen features; rows of unit length without a bias are text features."""
    are_texts = head.bias is None and bool(((head.weight.norm(dim=-1) - 1).abs() < _UNIT).all())
    texts = head.weight if are_texts else None
    return InspectedModel(
        prepare=lambda pixels: _encode(backbone.vision, pixels),
        logits=head.logits,
        features=lambda inputs: (F.normalize(inputs, dim=-1), texts),
        frozen=True,
        tower=lambda: backbone.vision,
    )


def with_method(backbone: "Backbone", method: PromptMethod) -> InspectedModel:
    """A method that predicts with its own code."""
    if (own := method.own_tower()) is not None:
        tower = own.tower
        return InspectedModel(
            prepare=lambda pixels: pixels,
            logits=lambda inputs: own.classify(_encode(tower, inputs)),
            features=lambda inputs: (F.normalize(_encode(tower, inputs), dim=-1), None),
            frozen=False,
            tower=lambda: tower,
            method=method,
        )
    pixels = method.needed.images == "pixels"
    return InspectedModel(
        prepare=method.prepare if pixels else lambda pixels: _encode(backbone.vision, pixels),
        logits=lambda inputs: method(_batch(inputs)),
        features=lambda inputs: _features(method, inputs),
        frozen=not pixels,
        tower=lambda: backbone.vision,
        method=method,
    )


def _features(method: Any, inputs: Tensor) -> Features:
    if hasattr(method, "features"):
        images, texts = method.features(_batch(inputs))
        return images, texts
    if hasattr(method, "image_features"):
        return F.normalize(method.image_features(_batch(inputs)), dim=-1), None
    return F.normalize(inputs, dim=-1), None


def _encode(tower: VisionTower, pixels: Tensor) -> Tensor:
    return tower.encode([tower.embed(pixels)])


def _batch(inputs: Tensor) -> Batch:
    return Batch(inputs, torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device))
