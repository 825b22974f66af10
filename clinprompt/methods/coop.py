"""CoOp: the words around the class's name become trainable vectors (Zhou et al., IJCV 2022, arXiv 2109.01134)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from clinprompt.methods import register
from clinprompt.methods.base import FeatureMethod, Head, Task
from clinprompt.methods.context import ContextPrompts, Position
from clinprompt.params import Section
from clinprompt.training.batches import Batch
from clinprompt.training.schedule import Descent

_INIT_STD = 0.02


class CoOpConfig(Descent):
    """`context_init: null` draws the context from N(0, 0.02²); else it is the phrase's token embeddings."""

    n_ctx: PositiveInt
    context_init: str | None = Field(min_length=1)
    class_specific: bool
    class_position: Position


@register("coop")
class CoOp(FeatureMethod):
    """Trains `ctx`, [n_ctx, d] shared by the classes (eq. 2) or [C, n_ctx, d], by cross-entropy (eq. 3).

    Both towers and the logit scale are frozen, dropout is off, and the parameters of the last epoch are the result,
    all as in the paper. It differs from the published trainer in one point: the image features are those of the
    unaugmented image, computed once.
    """

    Config: ClassVar[type[Section]] = CoOpConfig
    config: CoOpConfig

    def __init__(self, task: Task, config: CoOpConfig) -> None:
        super().__init__(task, config)
        self.tower = task.backbone.text
        self.scale = task.backbone.logit_scale
        self.prompts = ContextPrompts(
            task.backbone,
            task.class_names,
            n_ctx=config.n_ctx,
            phrase=config.context_init,
            position=config.class_position,
            where="params.yaml: methods.coop",
        )
        self.ctx = nn.Parameter(self._initial(len(task.class_names), task.seed))

    def head(self) -> Head:
        """The normalised features of the prompts, times the backbone's logit scale."""
        return Head(self.text_features(), self.scale)

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit features of the images [B, e] and of the classes' prompts [C, e]."""
        return F.normalize(batch.inputs, dim=-1), self.text_features()

    def text_features(self) -> Tensor:
        """Unit features of the classes' prompts [C, e]."""
        return F.normalize(self.tower.encode(self.prompts.fill(self.ctx), self.prompts.ids), dim=-1)

    def _initial(self, classes: int, seed: int) -> Tensor:
        shape: tuple[int, ...] = (self.config.n_ctx, self.tower.width)
        if self.config.class_specific:
            shape = (classes, *shape)
        if self.prompts.phrase is not None:
            return self.prompts.phrase.expand(shape).clone()
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(shape, generator=generator) * _INIT_STD).to(self.tower.device)
