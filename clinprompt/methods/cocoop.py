"""CoCoOp: context that each image shifts (Zhou et al., CVPR 2022, arXiv 2203.05557)."""

from collections import OrderedDict
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from clinprompt.methods import register
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.context import ContextConfig, ContextTuning
from clinprompt.prompting.initial import linear
from clinprompt.schema import Section

_SQUEEZE = 16
_AT_ONCE = 64  # images, without gradients


class CoCoOpConfig(ContextConfig):
    """Batches and epochs of the paper, and the learning rate of BiomedCoOp's comparison; the paper's is 0.002."""

    learning_rate: PositiveFloat = 0.001
    batch_size: PositiveInt = 1
    epochs: PositiveInt = 10


@register("cocoop")
class CoCoOp(ContextTuning):
    """CoOp with ctx_m(v) = ctx_m + h(v), h the meta-net e -> e/16 -> d with a ReLU between, v of unit length.

    t_bc comes from class c's prompt with image b's context. All B·C prompts of a batch, cut to the longest, go
    through the text tower at once.
    """

    Config: ClassVar[type[Section]] = CoCoOpConfig
    config: CoCoOpConfig

    def __init__(self, task: Task, config: CoCoOpConfig) -> None:
        super().__init__(task, config)
        e, hidden = task.backbone.embed_dim, max(task.backbone.embed_dim // _SQUEEZE, 1)
        generator = torch.Generator().manual_seed(task.seed)
        layers = {
            "linear1": linear(e, hidden, generator),
            "relu": nn.ReLU(),
            "linear2": linear(hidden, self.tower.width, generator),
        }
        self.meta_net = nn.Sequential(OrderedDict(layers)).to(self.tower.device)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C] = s <v_b, t_bc>."""
        if len(batch) > _AT_ONCE and not torch.is_grad_enabled():
            parts = zip(batch.inputs.split(_AT_ONCE), batch.labels.split(_AT_ONCE), strict=True)
            return torch.cat([self.forward(Batch(*part)) for part in parts])
        v, t = self.features(batch)
        return self.scale * torch.einsum("be,bce->bc", v, t)

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit features of the images [B, e] and, for each image, of the classes' prompts [B, C, e]."""
        v = self.image_features(batch.inputs)
        prompts = self.prompts.fill(self.ctx + self.meta_net(v)[:, None, None])
        texts = self.tower.encode(prompts.flatten(0, 1), self.prompts.ids.repeat(len(v), 1))
        return v, F.normalize(texts.unflatten(0, prompts.shape[:2]), dim=-1)
