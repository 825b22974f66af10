"""CLIP-Adapter: a small network behind the frozen image feature (Gao et al., IJCV 2024, arXiv 2110.04544)."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from clinprompt.methods import register
from clinprompt.prompting.base import PromptMethod, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.initial import linear
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.prompting.teacher import Template, hand_written
from clinprompt.schema import Fraction, Section


class ClipAdapterConfig(OptimiserSettings):
    """The adapter is `reduction` times narrower than the feature, and `mix` (the paper's α) is its share.

    The defaults are those of BiomedCoOp's comparison (2411.15232).
    """

    template: Template = "a photo of a {}."
    reduction: PositiveInt = 4
    mix: Fraction = 0.5
    learning_rate: PositiveFloat = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    epochs: PositiveInt = 20


@register("clip_adapter")
class ClipAdapter(PromptMethod):
    """Trains W1 [e / reduction, e] and W2 [e, e / reduction] by cross-entropy.

    A(f) = ReLU(W2 ReLU(W1 f)), f' = α A(f) + (1 - α) f and logits s cos(f', t_c) (section 3.2; the outer ReLU is the
    published code's), for unit image features f and the frozen features t [C, e] of the classes' sentences. The text
    side has no adapter, which is the paper's best variant. BiomedCoOp's version of the code leaves f' as long as it
    comes out; here it gets unit length, as in the original.
    """

    Config: ClassVar[type[Section]] = ClipAdapterConfig
    config: ClipAdapterConfig

    def __init__(self, task: Task, config: ClipAdapterConfig) -> None:
        super().__init__(task, config)
        width, generator = task.backbone.embed_dim, torch.Generator().manual_seed(task.seed)
        hidden_width = max(1, width // config.reduction)
        self.adapter = nn.Sequential(
            linear(width, hidden_width, generator, bias=False),
            nn.ReLU(),
            linear(hidden_width, width, generator, bias=False),
            nn.ReLU(),
        ).to(task.backbone.device)
        self.text = hand_written(task, config.template)
        self.scale = task.backbone.logit_scale

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        v, t = self.features(batch)
        return self.scale * v @ t.T

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit features of the images [B, e], adapted, and of the classes' sentences [C, e]."""
        f = F.normalize(batch.inputs, dim=-1)
        adapted = self.config.mix * self.adapter(f) + (1 - self.config.mix) * f
        return F.normalize(adapted, dim=-1), self.text
