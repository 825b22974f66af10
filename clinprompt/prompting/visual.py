"""What methods with trained tensors in the image tower share: their inputs and their heads."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.prompting.base import Needs, PromptMethod, Task
from clinprompt.prompting.batches import Batch

if TYPE_CHECKING:
    from clinprompt.backbones.vision import VisionTower


class PatchMethod(PromptMethod):
    """A method that puts trained tensors behind the patch embedding: a batch holds tokens [B, 1 + patches, w]."""

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__(task, config)
        self._backbone = task.backbone

    @property
    def vision(self) -> "VisionTower":
        """The image tower, opened up."""
        return self._backbone.vision

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """Pixels."""
        return Needs("pixels")

    def prepare(self, pixels: Tensor) -> Tensor:
        """The class token and the patches, with their positions [B, 1 + patches, w]."""
        return self.vision.embed(pixels)

    @abstractmethod
    def image_features(self, batch: Batch) -> Tensor:
        """Features of the images [B, e], projected and not normalised."""


class CosineHead(nn.Module):
    """logits = scale · cos(v, t), with the frozen unit text features t [C, e] of the classes' sentences."""

    text: Tensor

    def __init__(self, text: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("text", text, persistent=False)
        self.scale = scale

    def forward(self, v: Tensor) -> Tensor:
        """Logits [B, C] of raw features [B, e]."""
        return self.scale * F.normalize(v, dim=-1) @ self.text.T
