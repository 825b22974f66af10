"""Synergy: prompts of both towers tuned together and taught by descriptions. Not published; an experiment of ours."""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from clinprompt.methods import register
from clinprompt.methods.maple import MaPLe, MaPLeConfig
from clinprompt.prompting.base import Needs, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.teacher import TeacherBank, kl, l1
from clinprompt.schema import Section


class SynergyConfig(MaPLeConfig):
    """`l1_weight` and `kl_weight` are λ1 and λ2, by default Biomed-DPT's; the rest is MaPLe's."""

    l1_weight: Annotated[float, Field(ge=0)] = 12.5
    kl_weight: Annotated[float, Field(ge=0)] = 0.25


@register("synergy")
class Synergy(MaPLe):
    """MaPLe's coupled prompts under Biomed-DPT's loss, L = CE + λ1 mean|t_c - m_c| + λ2 KL(q || p) / (B·C).

    Biomed-DPT tunes the text side and leaves zeros in the image tower; MaPLe tunes both and knows nothing but the
    labels. Here the visual prompts are made from the textual ones, so that what the descriptions (m_c, the mean
    feature of class c's accepted ones) teach the text side reaches the image tower through the same tensors.
    """

    Config: ClassVar[type[Section]] = SynergyConfig
    config: SynergyConfig
    teacher: Tensor

    def __init__(self, task: Task, config: SynergyConfig) -> None:
        super().__init__(task, config)
        if task.knowledge is not None:
            self.register_buffer("teacher", TeacherBank.of(task, self.name).mean(), persistent=False)

    @classmethod
    def needs(cls, config: SynergyConfig) -> Needs:
        """Pixels and descriptions."""
        return Needs("pixels", frozenset({"descriptions"}))

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        self.unit_features = v, t = self.features(batch)
        return self.scale * v @ t.T

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy, and the weighted distances of features and of logits from the teacher's."""
        v, t = self.unit_features
        parts = {
            "ce": F.cross_entropy(logits, batch.labels),
            "l1": self.config.l1_weight * l1(t, self.teacher),
            # The teacher carries no gradient, not even through trained image features.
            "kl": self.config.kl_weight * kl(logits, self.scale * v.detach() @ self.teacher.T),
        }
        return sum(parts.values(), start=logits.new_zeros(())), parts
