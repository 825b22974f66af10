"""Biomed-DPT: a clinical prompt taught by descriptions, beside zeros among the patches (arXiv 2505.05189, v1)."""

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from clinprompt.limits import Limit
from clinprompt.methods import register
from clinprompt.prompting.base import Needs, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.context import ContextKnobs, ContextTuning
from clinprompt.prompting.teacher import TeacherBank, Template, kl, l1
from clinprompt.schema import Section

Visual = Literal["replace_patches", "insert_frozen", "insert_trainable", "none"]


class BiomedDPTConfig(ContextKnobs):
    """`template` is the clinical prompt, with {} where the class's name goes; its first `n_ctx` tokens are trained.

    `visual` says what the `n_visual` zero vectors do; see `BiomedDPT`. `l1_weight` and `kl_weight` are λ1 and λ2. The
    defaults are the published few-shot ones of the dataset BTMRI, with a general template; the paper's datasets have
    their own, in their cards.
    """

    LIMITS: ClassVar[tuple[Limit, ...]] = (
        *ContextKnobs.LIMITS,
        Limit(
            knobs=["n_visual"], kind="at_most", size="patches", plus=1, beside="one that stays",
            when={"visual": "replace_patches"},
        ),
    )  # fmt: skip

    template: Template = "a photo of a {}."
    visual: Visual = "replace_patches"
    n_visual: PositiveInt = 4
    l1_weight: Annotated[float, Field(ge=0)] = 12.5
    kl_weight: Annotated[float, Field(ge=0)] = 0.25
    learning_rate: PositiveFloat = 0.0025
    batch_size: PositiveInt = 4
    epochs: PositiveInt = 100

    def phrase_and_tail(self) -> tuple[str | None, str]:
        """The template's words before and behind the name."""
        phrase, _, tail = self.template.partition("{}")
        return phrase.strip() or None, tail


@register("biomed_dpt")
class BiomedDPT(ContextTuning):
    """CoOp with L = CE + λ1 mean|t_c - m_c| + λ2 KL(q || p) / (B·C), m_c the mean feature of class c's descriptions.

    q and p are the softmax of the images' logits with m and with t. In front of every image block, zeros stand among
    the tokens [class token | patches]:

    - `replace_patches`, as released: they overwrite the first patches. Nothing of them is trained.
    - `insert_frozen`: they stand between the class token and the patches.
    - `insert_trainable`, as the paper words it: `visual` [blocks, n_visual, w] stands there, zero at first, and is
      trained. A norm multiplies the gradient at a zero vector by 1 / sqrt(its epsilon).

    - `none`: there are no zeros, to tell what they do.

    But for `insert_trainable`, an image's feature is computed once.
    """

    Config: ClassVar[type[Section]] = BiomedDPTConfig
    config: BiomedDPTConfig
    teacher: Tensor

    def __init__(self, task: Task, config: BiomedDPTConfig) -> None:
        super().__init__(task, config)
        self.vision = task.backbone.vision
        zeros = torch.zeros(len(self.vision.blocks), config.n_visual, self.vision.width, device=task.backbone.device)
        self.visual: Tensor = nn.Parameter(zeros) if config.visual == "insert_trainable" else zeros
        if task.knowledge is not None:
            self.teacher = TeacherBank.of(task, self.name).mean()

    @classmethod
    def needs(cls, config: BiomedDPTConfig) -> Needs:
        """Pixels and descriptions."""
        return Needs("pixels", frozenset({"descriptions"}))

    def prepare(self, pixels: Tensor) -> Tensor:
        """Features [B, e], not normalised; of `insert_trainable`, tokens [B, 1 + patches, w]."""
        tokens = self.vision.embed(pixels)
        return tokens if self.visual.requires_grad else self._encode(tokens)

    def image_features(self, inputs: Tensor) -> Tensor:
        """Unit features [B, e] of what `prepare` gave."""
        return F.normalize(self._encode(inputs) if self.visual.requires_grad else inputs, dim=-1)

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy, and the weighted distances of features and of logits from the teacher's."""
        v, t = self.unit_features
        ce = F.cross_entropy(logits, batch.labels)
        l1_loss = self.config.l1_weight * l1(t, self.teacher)
        # The teacher carries no gradient, not even through trained image features.
        agree = self.config.kl_weight * kl(logits, self.scale * v.detach() @ self.teacher.T)
        return ce + l1_loss + agree, {"ce": ce, "l1": l1_loss, "kl": agree}

    def _encode(self, tokens: Tensor) -> Tensor:
        if self.config.visual == "none":
            return self.vision.encode([tokens])
        first = 1 + self.config.n_visual if self.config.visual == "replace_patches" else 1
        writes = {block: {1: prompts} for block, prompts in enumerate(self.visual)}
        return self.vision.encode([tokens[:, :1], self.visual[:1], tokens[:, first:]], writes)
