"""MaPLe: deep prompts in both towers, the visual ones made from the textual (Khattak et al., CVPR 2023, 2210.03117)."""

from copy import deepcopy
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from clinprompt.errors import BadParams
from clinprompt.limits import Limit
from clinprompt.methods import register
from clinprompt.prompting.base import Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.initial import linear, normal
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.prompting.sentences import Sentences
from clinprompt.prompting.teacher import Template
from clinprompt.prompting.visual import PatchMethod
from clinprompt.schema import Section

_WHERE = "params.yaml: methods.maple"
_PUBLISHED_DEPTH = 9
_INIT_STD = 0.02


class MaPLeConfig(OptimiserSettings):
    """`depth`: in how many blocks of each tower; null takes the published 9, or as many as both towers have.

    The first `n_ctx` words of `template` become trainable. The defaults are those of the published config.
    """

    LIMITS: ClassVar[tuple[Limit, ...]] = (
        Limit(knobs=["depth"], kind="at_most", size="text_blocks"),
        Limit(knobs=["depth"], kind="at_most", size="image_blocks"),
    )

    n_ctx: PositiveInt = 2
    depth: PositiveInt | None = None
    template: Template = "a photo of a {}."
    learning_rate: PositiveFloat = 0.0035
    batch_size: PositiveInt = 4
    epochs: PositiveInt = 5


@register("maple")
class MaPLe(PatchMethod):
    """Trains text prompts P_0 (`ctx` [n, d]) and P_1…P_{J-1} (`text_prompts` [J - 1, n, d]), and F_0…F_{J-1}.

    Text side (section 3.2): the prompts stand behind the start token, [P_0, W_0] in the first block, and each of the
    next J - 1 blocks takes its own instead of what became of the last ones. Image side: the prompts F_k(P_k), with a
    linear layer F_k: d -> w for each block (`couplings`), stand behind the patches and are replaced alike. As released,
    F_1…F_{J-1} start as copies of one layer. The logits are the cosines of both towers' outputs, times the backbone's
    scale; cross-entropy.

    In a causal text tower, keys and values of the start token and of the prompts are the same for all classes and are
    computed once.
    """

    Config: ClassVar[type[Section]] = MaPLeConfig
    config: MaPLeConfig

    def __init__(self, task: Task, config: MaPLeConfig) -> None:
        super().__init__(task, config)
        backbone, tower, n = task.backbone, task.backbone.text, config.n_ctx
        layers = config.depth or min(len(tower.blocks), len(self.vision.blocks), _PUBLISHED_DEPTH)
        self.scale = backbone.logit_scale
        self.sentences = Sentences(backbone, config.template, task.class_names, _WHERE)
        if n >= self.sentences.shared:
            raise BadParams(
                f"{_WHERE}.n_ctx: must be at most {self.sentences.shared - 1}, the number of tokens that the template "
                f"has before the class's name, found {n}."
            )
        generator = torch.Generator().manual_seed(task.seed)
        self.ctx = nn.Parameter(self.sentences.embedded[0, 1 : 1 + n].clone())
        self.text_prompts = normal(layers - 1, n, tower.width, std=_INIT_STD, generator=generator)
        first, deeper = (linear(tower.width, self.vision.width, generator) for _ in range(2))
        self.couplings = nn.ModuleList([first, *(deepcopy(deeper) for _ in range(layers - 1))])
        self.to(backbone.device)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        v, t = self.features(batch)
        return self.scale * v @ t.T

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit features of the images [B, e] and of the classes [C, e]."""
        return F.normalize(self.image_features(batch), dim=-1), F.normalize(self.text_features(), dim=-1)

    def image_features(self, batch: Batch) -> Tensor:
        """Features of the images [B, e], projected and not normalised."""
        first, *deeper = [couple(p) for couple, p in zip(self.couplings, self._text_prompts(), strict=True)]
        writes = {layer: {1: prompts} for layer, prompts in enumerate(deeper, 1)}
        return self.vision.encode([batch.inputs, first[None]], writes)

    def text_features(self) -> Tensor:
        """Features of the classes [C, e], projected and not normalised."""
        n, place, embedded = self.config.n_ctx, self.sentences.place, self.sentences.embedded
        first, *deeper = self._text_prompts()
        segments = [place(embedded[:1, :1], 0), place(first[None], 1), place(embedded[:, 1 + n :], 1 + n)]
        return self.sentences.encode(segments, {k: {1: p[None, None]} for k, p in enumerate(deeper, 1)})

    def _text_prompts(self) -> list[Tensor]:
        return [self.ctx, *self.text_prompts]
