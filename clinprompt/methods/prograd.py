"""ProGrad: only gradients that don't forget the zero-shot model (Zhu et al., ICCV 2023, arXiv 2205.14865)."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from clinprompt.methods import register
from clinprompt.prompting.base import FeatureMethod, GradientRule, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.context import ContextConfig, ContextTuning
from clinprompt.prompting.teacher import Template, hand_written, kl
from clinprompt.schema import Section


class ProGradConfig(ContextConfig):
    """`template` makes the zero-shot teacher, with {} where the class's name goes.

    `temperature` divides both models' logits in the divergence; `strength` is the paper's λ. The defaults are those
    of BiomedCoOp's comparison (2411.15232), which sets the temperature by dataset: that is for the dataset's card.
    """

    template: Template = "a photo of a {}."
    temperature: PositiveFloat = 1.0
    strength: Annotated[float, Field(ge=0)] = 1.0
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 100


@register("prograd")
class ProGrad(ContextTuning, FeatureMethod):
    """CoOp whose step follows G_d, the gradient of the cross-entropy, without the part of it that is against G_g.

    G_g is the gradient of KL(zero-shot || tuned). Where <G_d, G_g> < 0, the step is along
    G_d - λ <G_d, G_g> / ||G_g||² G_g, else along G_d. The teacher is the frozen backbone with the template,
    not the tuned model as in one of the published trainers. The curves show the cross-entropy as the loss, and both
    parts; the divergence is never descended by itself.
    """

    Config: ClassVar[type[Section]] = ProGradConfig
    config: ProGradConfig

    def __init__(self, task: Task, config: ProGradConfig) -> None:
        super().__init__(task, config)
        self.teacher = hand_written(task, config.template)

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross-entropy, and beside it the divergence from the zero-shot model."""
        t, zero_shot = self.config.temperature, self.scale * self.unit_features.images @ self.teacher.T
        ce = F.cross_entropy(logits, batch.labels)
        return ce, {"ce": ce, "kl": t**2 * logits.shape[1] * kl(logits / t, zero_shot / t)}

    def gradient_rule(self) -> GradientRule:
        """Project the cross-entropy's gradient."""

        def project(parts: dict[str, Tensor]) -> Tensor:
            domain, general = parts["ce"], parts["kl"]
            against = (domain * general).sum().clamp(max=0)
            length = general.square().sum().clamp(min=torch.finfo(general.dtype).tiny)
            return domain - self.config.strength * against / length * general

        return project
