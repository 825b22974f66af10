"""BiomedCoOp: context taught by descriptions, outliers among them left out (CVPR 2025, arXiv 2411.15232)."""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from clinprompt.methods import register
from clinprompt.prompting.base import FeatureMethod, Needs, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.context import ContextConfig, ContextTuning
from clinprompt.prompting.teacher import TeacherBank, kl, mse
from clinprompt.schema import Section

Weight = Annotated[float, Field(ge=0)]


class BiomedCoOpConfig(ContextConfig):
    """The weights of SCCM and KDSP, and `tau`, how many deviations from the mean score a description may be.

    The defaults are the published few-shot ones of the dataset BTMRI; each of the paper's datasets has its own, in
    its card.
    """

    sccm_weight: Weight = 0.5
    kdsp_weight: Weight = 0.25
    tau: PositiveFloat = 1.5
    learning_rate: PositiveFloat = 0.0025
    batch_size: PositiveInt = 4
    epochs: PositiveInt = 100


@register("biomedcoop")
class BiomedCoOp(ContextTuning, FeatureMethod):
    """CoOp with L = CE + λ_s SCCM + λ_k KDSP, taught by the unit features e_cj of each class's descriptions.

    SCCM is the mean squared error between t_c and norm(mean_j e_cj). KDSP is KL(q || p) / (B·C), q the softmax of the
    images' logits with norm(mean_j e_cj) over the places j that the statistics-based selection keeps on this batch
    (see `TeacherBank.select`), p that of the tuned logits. When a batch is split into micro-batches, each selects for
    itself.
    """

    Config: ClassVar[type[Section]] = BiomedCoOpConfig
    config: BiomedCoOpConfig
    bank: TeacherBank
    teacher: Tensor

    def __init__(self, task: Task, config: BiomedCoOpConfig) -> None:
        super().__init__(task, config)
        if task.knowledge is not None:
            self.bank = TeacherBank.of(task, self.name)
            self.teacher = self.bank.mean()

    @classmethod
    def needs(cls, config: BiomedCoOpConfig) -> Needs:
        """Cached features and descriptions."""
        return Needs(knowledge=frozenset({"descriptions"}))

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy, and the weighted SCCM and KDSP."""
        v, t = self.unit_features
        chosen = self.bank.mean(self.bank.select(v, self.scale, self.config.tau))
        ce = F.cross_entropy(logits, batch.labels)
        sccm = self.config.sccm_weight * mse(t, self.teacher)
        kdsp = self.config.kdsp_weight * kl(logits, self.scale * v @ chosen.T)
        return ce + sccm + kdsp, {"ce": ce, "sccm": sccm, "kdsp": kdsp}
