"""VPT: learned tokens among the patches (Jia et al., ECCV 2022, arXiv 2203.12119)."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from clinprompt.limits import Limit
from clinprompt.methods import register
from clinprompt.prompting.base import Needs, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.initial import linear
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.prompting.teacher import Template, hand_written
from clinprompt.prompting.visual import CosineHead, PatchMethod
from clinprompt.schema import Section


class VPTConfig(OptimiserSettings):
    """`depth`: how many blocks get prompts of their own; 1 is VPT-shallow, null (all blocks) VPT-deep.

    `image_size`: the side of the images in pixels, whole patches; null takes the backbone's.
    `head`: "cosine" compares with the classes' sentences, made from `template`; "linear" is trained from scratch. The
    paper searches length and learning rate for each dataset; the defaults are those of its peers here.
    """

    LIMITS: ClassVar[tuple[Limit, ...]] = (
        Limit(knobs=["depth"], kind="at_most", size="image_blocks"),
        Limit(knobs=["image_size"], kind="multiple_of", size="patch"),
    )

    n_prompts: PositiveInt = 10
    depth: PositiveInt | None = None
    image_size: PositiveInt | None = None
    head: Literal["cosine", "linear"] = "cosine"
    template: Template = "a photo of a {}."
    learning_rate: PositiveFloat = 0.0025
    epochs: PositiveInt = 100


@register("vpt")
class VPT(PatchMethod):
    """Trains `prompts` [depth, p, w], and the linear head where there is one, by cross-entropy.

    The prompts stand between the class token and the patches, which all stay: [x_0, P_0, E_0] goes into the first
    block (eq. 4). With prompts of their own (VPT-deep, eq. 6), the later blocks drop what became of the earlier prompts
    and take theirs instead; behind the last block that has some, they are tokens like the others (eq. 5). The class
    token is read out (eq. 7 in VPT-deep). Initial values from U(±√(6 / (3 · patch² + w))), as published; no dropout.
    """

    Config: ClassVar[type[Section]] = VPTConfig
    config: VPTConfig

    def __init__(self, task: Task, config: VPTConfig) -> None:
        super().__init__(task, config)
        backbone, tower = task.backbone, self.vision
        layers = config.depth or len(tower.blocks)
        generator = torch.Generator().manual_seed(task.seed)
        bound = math.sqrt(6 / (tower.patch_values + tower.width))
        shape = (layers, config.n_prompts, tower.width)
        self.prompts = nn.Parameter(nn.init.uniform_(torch.empty(shape), -bound, bound, generator=generator))
        self.head: nn.Module
        if config.head == "linear":
            self.head = linear(backbone.embed_dim, len(task.class_names), generator)
        else:
            self.head = CosineHead(hand_written(task, config.template), backbone.logit_scale)
        self.to(backbone.device)

    @classmethod
    def needs(cls, config: VPTConfig) -> Needs:
        """Pixels, of the size that is asked for."""
        return Needs("pixels", image_size=config.image_size)

    @classmethod
    def class_axes(cls, config: VPTConfig) -> Mapping[str, int]:
        """Those of a linear head."""
        return {"head.weight": 0, "head.bias": 0} if config.head == "linear" else {}

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        logits: Tensor = self.head(self.image_features(batch))
        return logits

    def image_features(self, batch: Batch) -> Tensor:
        """Features of the images [B, e], projected and not normalised."""
        class_token, patches = batch.inputs[:1, :1], batch.inputs[:, 1:]
        writes = {layer: {1: self.prompts[layer]} for layer in range(1, len(self.prompts))}
        return self.vision.encode([class_token, self.prompts[:1], patches], writes)
