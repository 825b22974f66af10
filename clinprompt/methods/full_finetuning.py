"""Full fine-tuning: all weights of the image tower and a linear head, the baseline that prompts are compared with."""

from copy import deepcopy
from types import SimpleNamespace
from typing import ClassVar, Self

import torch
from torch import Tensor

from clinprompt.backbones.vision import VisionTower
from clinprompt.methods import register
from clinprompt.prompting.base import Needs, OwnTower, PromptMethod, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.initial import linear
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.schema import Section


@register("full_finetuning")
class FullFinetuning(PromptMethod):
    """Trains a copy of the image tower and a linear head [C, e] on its projected features, by cross-entropy.

    The tower stays in evaluation state: no dropout. The backbone itself is left alone.
    """

    Config: ClassVar[type[Section]] = OptimiserSettings
    config: OptimiserSettings

    def __init__(self, task: Task, config: OptimiserSettings) -> None:
        super().__init__(task, config)
        self.tower = deepcopy(task.backbone.model.visual).requires_grad_(True)
        generator = torch.Generator().manual_seed(task.seed)
        self.head = linear(task.backbone.embed_dim, len(task.class_names), generator)
        self.to(task.backbone.device)

    @classmethod
    def needs(cls, config: OptimiserSettings) -> Needs:
        """Pixels."""
        return Needs("pixels")

    @classmethod
    def transfers(cls, config: OptimiserSettings) -> bool:
        """The head belongs to its classes."""
        return False

    def train(self, mode: bool = True) -> Self:
        """As everywhere, but for the tower."""
        super().train(mode)
        self.tower.eval()
        return self

    def own_tower(self) -> OwnTower:
        """The copy."""
        return OwnTower(VisionTower(SimpleNamespace(visual=self.tower)), self.head)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        logits: Tensor = self.head(self.image_features(batch))
        return logits

    def image_features(self, batch: Batch) -> Tensor:
        """Features of the images [B, e], projected and not normalised."""
        features: Tensor = self.tower(batch.inputs)
        return features
