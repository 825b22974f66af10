"""Full fine-tuning: all weights of the image tower and a linear head, the baseline that prompts are compared with."""

from collections.abc import Mapping
from copy import deepcopy
from types import SimpleNamespace
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from clinprompt.backbones.vision import VisionTower
from clinprompt.limits import Limit
from clinprompt.methods import register
from clinprompt.prompting.base import Needs, OwnTower, PromptMethod, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.initial import linear
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.schema import Section


class FullFinetuningConfig(OptimiserSettings):
    """AdamW with the gradient's norm clipped to 1; a baseline without a paper, its defaults are ours.

    `image_size`: the side of the images in pixels, whole patches; null takes the backbone's.
    """

    LIMITS: ClassVar[tuple[Limit, ...]] = (Limit(knobs=["image_size"], kind="multiple_of", size="patch"),)

    image_size: PositiveInt | None = None
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 0.00001
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0001
    warmup_learning_rate: PositiveFloat = 0.000001
    clip_norm: PositiveFloat | None = 1.0


@register("full_finetuning")
class FullFinetuning(PromptMethod):
    """Trains a copy of the image tower and a linear head [C, e] on its projected features, by cross-entropy.

    The tower stays in evaluation state: no dropout. The backbone itself is left alone.
    """

    Config: ClassVar[type[Section]] = FullFinetuningConfig
    config: FullFinetuningConfig

    def __init__(self, task: Task, config: FullFinetuningConfig) -> None:
        super().__init__(task, config)
        self.tower = deepcopy(task.backbone.model.visual).requires_grad_(True)
        generator = torch.Generator().manual_seed(task.seed)
        self.head = linear(task.backbone.embed_dim, len(task.class_names), generator)
        self.to(task.backbone.device)

    @classmethod
    def needs(cls, config: FullFinetuningConfig) -> Needs:
        """Pixels, of the size that is asked for."""
        return Needs("pixels", image_size=config.image_size)

    @classmethod
    def class_axes(cls, config: FullFinetuningConfig) -> Mapping[str, int]:
        """Those of the head."""
        return {"head.weight": 0, "head.bias": 0}

    def train(self, mode: bool = True) -> Self:
        """As everywhere, but for the tower."""
        super().train(mode)
        self.tower.eval()
        return self

    def own_tower(self) -> OwnTower:
        """The copy."""
        return OwnTower(self._opened(), self.head)

    def _opened(self) -> VisionTower:
        """The copy, opened up: it shares the weights."""
        return VisionTower(SimpleNamespace(visual=self.tower))

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        logits: Tensor = self.head(self.image_features(batch))
        return logits

    def image_features(self, batch: Batch) -> Tensor:
        """Features of the images [B, e], projected and not normalised."""
        if self.config.image_size is not None:  # open_clip's towers take images of their own size alone
            tower = self._opened()
            return tower.encode([tower.embed(batch.inputs)])
        features: Tensor = self.tower(batch.inputs)
        return features
