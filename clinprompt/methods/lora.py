"""LoRA: low-rank changes of the attention's weights (Hu et al., ICLR 2022, arXiv 2106.09685)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from clinprompt.backbones.blocks import Block
from clinprompt.methods import register
from clinprompt.prompting.base import Head, Needs, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.prompting.sentences import Sentences
from clinprompt.prompting.teacher import Template, hand_written
from clinprompt.prompting.visual import PatchMethod
from clinprompt.schema import Section

Target = Literal["query", "key", "value"]


class LoRAConfig(OptimiserSettings):
    """`towers` says which are changed, `targets` which weights of their attention; `template` makes the sentences.

    `scaling` is what the change is divided by, the rank or its root; `dropout` is that of the tokens that the change
    reads. Query and value with rank 4 are the paper's choice (2106.09685, section 7.1). It tunes language models: the
    optimiser's defaults are ours.
    """

    towers: Literal["image", "text", "both"] = "image"
    targets: list[Target] = Field(["query", "value"], min_length=1)
    rank: PositiveInt = 4
    alpha: PositiveFloat = 4.0
    scaling: Literal["rank", "sqrt_rank"] = "rank"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    template: Template = "a photo of a {}."
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 0.0005
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0001


@dataclass(frozen=True)
class _DroppingBlock(Block):
    """A block whose changes read tokens with dropout: W x + s B A dropout(x).

    Attributes:
        changes: A [r, d] and s B [d, r] by target.
    """

    changes: Mapping[str, tuple[Tensor, Tensor]]
    dropout: float

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [b, c, n, d] of tokens [b, c, n, d]."""
        k, v = super().keys_values(x)
        return k + self._change("key", x), v + self._change("value", x)

    def queries(self, x: Tensor) -> Tensor:
        """Queries [b, c, n, d] of tokens [b, c, n, d]."""
        return super().queries(x) + self._change("query", x)

    def _change(self, target: Target, x: Tensor) -> Tensor | float:
        if target not in self.changes:
            return 0.0
        down, up = self.changes[target]
        return F.dropout(self._normed(x), self.dropout) @ down.T @ up.T


class LowRank(nn.Module):
    """W + (alpha / r) B A for each target's weight W [d, d] in each block of a tower (eq. 3).

    A (`down` [blocks, targets, r, d]) is drawn from U(±1/√d), B (`up` [blocks, targets, d, r]) is zero at first. The
    tower's own weights stay as they are. `scaling: sqrt_rank` has alpha / √r instead.
    """

    def __init__(self, blocks: list[Block], config: LoRAConfig, generator: torch.Generator) -> None:
        super().__init__()
        rank = config.rank if config.scaling == "rank" else math.sqrt(config.rank)
        self.frozen, self.targets, self.scale = blocks, sorted(set(config.targets)), config.alpha / rank
        self.dropout = config.dropout
        d = blocks[0].query[0].shape[1]
        shape = (len(blocks), len(self.targets), config.rank, d)
        self.down = nn.Parameter(nn.init.uniform_(torch.empty(shape), -(d**-0.5), d**-0.5, generator=generator))
        self.up = nn.Parameter(torch.zeros(*shape[:2], d, config.rank))

    def blocks(self) -> list[Block]:
        """The tower's blocks with the changed weights."""
        if self.training and self.dropout:
            up = self.scale * self.up
            return [self._dropping(*one) for one in zip(self.frozen, self.down, up, strict=True)]
        return [
            self._changed(block, deltas)
            for block, deltas in zip(self.frozen, self.scale * self.up @ self.down, strict=True)
        ]

    def _dropping(self, block: Block, down: Tensor, up: Tensor) -> Block:
        own = {field.name: getattr(block, field.name) for field in fields(Block)}
        pairs = zip(self.targets, zip(down, up, strict=True), strict=True)
        return _DroppingBlock(**own, changes=dict(pairs), dropout=self.dropout)

    def _changed(self, block: Block, deltas: Tensor) -> Block:
        by_target = dict(zip(self.targets, deltas, strict=True))
        zero = torch.zeros_like(deltas[0])
        query, key, value = (by_target.get(target, zero) for target in ("query", "key", "value"))
        return replace(
            block,
            query=(block.query[0] + query, block.query[1]),
            key_value=(block.key_value[0] + torch.cat([key, value]), block.key_value[1]),
        )


@register("lora")
class LoRA(PatchMethod):
    """Trains the low-rank changes of one or both towers' attention by cross-entropy on the towers' cosines.

    So it is done with CLIP by Zanella & Ben Ayed (CVPRW 2024, arXiv 2405.18541). The library peft gives
    the same numbers where it can be used, but can't change query and value alone in open_clip's and timm's attention,
    which keep them in one matrix with the key.
    """

    Config: ClassVar[type[Section]] = LoRAConfig
    config: LoRAConfig
    text: Tensor

    def __init__(self, task: Task, config: LoRAConfig) -> None:
        super().__init__(task, config)
        backbone, generator = task.backbone, torch.Generator().manual_seed(task.seed)
        self.scale = backbone.logit_scale
        if config.towers != "text":
            self.image_tower = LowRank(self.vision.blocks, config, generator)
        if config.towers != "image":
            self.sentences = Sentences(backbone, config.template, task.class_names, "params.yaml: methods.lora")
            self.text_tower = LowRank(backbone.text.blocks, config, generator)
        else:
            self.register_buffer("text", hand_written(task, config.template), persistent=False)
        self.to(backbone.device)

    @classmethod
    def needs(cls, config: LoRAConfig) -> Needs:
        """Pixels, unless the image tower is left alone."""
        return Needs("features" if config.towers == "text" else "pixels")

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        v, t = self.features(batch)
        return self.scale * v @ t.T

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit features of the images [B, e] and of the classes [C, e]."""
        return F.normalize(self.image_features(batch), dim=-1), self.text_features()

    def image_features(self, batch: Batch) -> Tensor:
        """Features of the images [B, e], projected and not normalised."""
        if self.config.towers == "text":
            return batch.inputs
        return self.vision.encode([batch.inputs], blocks=self.image_tower.blocks())

    def text_features(self) -> Tensor:
        """Unit features of the classes [C, e]."""
        if self.config.towers == "image":
            return self.text
        sentences, shared = self.sentences, self.sentences.shared
        start, own_part = sentences.embedded[:1, :shared], sentences.embedded[:, shared:]
        segments = [sentences.place(start, 0), sentences.place(own_part, shared)]
        return F.normalize(sentences.encode(segments, blocks=self.text_tower.blocks()), dim=-1)

    @torch.no_grad()
    def export_head(self) -> dict[str, Tensor] | None:
        """The text features as a head, where the image features are the plain ones."""
        return Head(self.text_features(), self.scale).tensors() if self.config.towers == "text" else None
