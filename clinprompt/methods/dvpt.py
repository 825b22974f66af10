"""DVPT: prompts that attend to the image in a narrow adapter (He et al., Neural Networks 185, 2025, 2307.09787)."""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from clinprompt.backbones.blocks import ReadRows, run
from clinprompt.limits import Limit
from clinprompt.methods import register
from clinprompt.prompting.base import Needs, Task
from clinprompt.prompting.batches import Batch
from clinprompt.prompting.initial import linear, normal
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.prompting.visual import PatchMethod
from clinprompt.schema import Section


class DVPTConfig(OptimiserSettings):
    """`variant`: "paper", or "release_vit", in which the released code computes the attention and drops it.

    `share_group` neighbouring blocks share an adapter of width `latent_dim`. `image_size`: the side of the images in
    pixels, whole patches; null takes the backbone's, the released trainer has 288. The other defaults are those of
    the released DVPT_vit_train.py, with the first value of its warm-up above zero.
    """

    LIMITS: ClassVar[tuple[Limit, ...]] = (Limit(knobs=["image_size"], kind="multiple_of", size="patch"),)

    variant: Literal["paper", "release_vit"] = "paper"
    n_prompts: PositiveInt = 50
    latent_dim: PositiveInt = 20
    share_group: PositiveInt = 3
    image_size: PositiveInt | None = None
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 0.0005
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0001
    warmup_epochs: NonNegativeInt = 5
    warmup_learning_rate: PositiveFloat = 0.0001
    batch_size: PositiveInt = 50
    epochs: PositiveInt = 60
    clip_norm: PositiveFloat | None = 1.0


class Adapter(nn.Module):
    """What is added beside the MLP of a block, for tokens x [..., n, w]: γ · Wu(…Wd…), with γ = 0 at first."""

    def __init__(self, width: int, latent: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = linear(width, latent, generator)
        self.up = linear(latent, width, generator)
        self.gate = nn.Parameter(torch.zeros(1))

    def bottleneck(self, x: Tensor) -> Tensor:
        """As released: γ · Wu act(Wd x + b) + …, token by token."""
        return self.gate * self.up(_quick_gelu(self.down(x)))

    def attend(self, x: Tensor, prompts: int) -> Tensor:
        """As in the paper, for x = [prompts | class token | patches]: the prompts query the patches in the bottleneck.

        u = Wd act(x); a = softmax(u_P u_Tᵀ / √latent) [prompts, patches]; γ · Wu [a u_T; u_CLS; u_T].
        """
        u = self.down(_quick_gelu(x))
        patches = u[..., prompts + 1 :, :]
        attended = F.scaled_dot_product_attention(u[..., :prompts, :], patches, patches)
        return self.gate * self.up(torch.cat([attended, u[..., prompts:, :]], dim=-2))


@register("dvpt")
class DVPT(PatchMethod):
    """Trains prompt tokens [1, p, w] with positions [p, w], adapters of groups of blocks, and a linear head [C, e].

    The prompts stand before the class token and are inserted once. Each block adds its adapter's output to its MLP's:
    x <- x + MLP(LN x) + A_k(x), both of the tokens after the attention. The mean of the normed prompts and class token
    is projected and goes to the head as it is. Cross-entropy; AdamW with the gradient's norm clipped to 1.

    It differs from the published trainer in using the backbone's own normalisation of pixels and this project's
    schedule (the released one has a rate of zero in its second epoch). The scale of the attention is latent^-1/2, that
    of the vectors compared.
    """

    Config: ClassVar[type[Section]] = DVPTConfig
    config: DVPTConfig

    def __init__(self, task: Task, config: DVPTConfig) -> None:
        super().__init__(task, config)
        backbone, width, n = task.backbone, self.vision.width, config.n_prompts
        generator = torch.Generator().manual_seed(task.seed)
        self.prompt_tokens = normal(1, n, width, std=1.0, generator=generator)
        self.prompt_positions = normal(n, width, std=width**-0.5, generator=generator)
        groups = math.ceil(len(self.vision.blocks) / config.share_group)
        self.adapters = nn.ModuleList(Adapter(width, config.latent_dim, generator) for _ in range(groups))
        self.head = linear(backbone.embed_dim, len(task.class_names), generator, bias=False)
        self.to(backbone.device)

    @classmethod
    def needs(cls, config: DVPTConfig) -> Needs:
        """Pixels, of the size that is asked for."""
        return Needs("pixels", image_size=config.image_size)

    @classmethod
    def class_axes(cls, config: DVPTConfig) -> Mapping[str, int]:
        """Those of the head."""
        return {"head.weight": 0}

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        logits: Tensor = self.head(self.image_features(batch))
        return logits

    def image_features(self, batch: Batch) -> Tensor:
        """Features of the images [B, e], projected and not normalised."""
        class_token, patches = batch.inputs[:1, :1], batch.inputs[:, 1:]
        read = torch.cat([self.prompt_tokens + self.prompt_positions, class_token], dim=1)
        if self.config.variant == "release_vit":
            return self.vision.encode([read, patches], read=ReadRows(0, slice(None)), adapter=self._bottleneck)
        # The prompts of the last block attend to its patches: nothing of it can be left out.
        tokens = torch.cat([read.expand(len(patches), -1, -1), patches], dim=1)
        [x] = run(self.vision.blocks, [self.vision.start(tokens)[:, None]], causal=False, adapter=self._attend)
        return self.vision.project_normed(self.vision.norm(x[:, 0, : read.shape[1]]).mean(1))

    def _bottleneck(self, layer: int, x: Tensor) -> Tensor:
        return self._adapter(layer).bottleneck(x)

    def _attend(self, layer: int, x: Tensor) -> Tensor:
        return self._adapter(layer).attend(x, self.config.n_prompts)

    def _adapter(self, layer: int) -> Adapter:
        adapter = self.adapters[layer // self.config.share_group]
        assert isinstance(adapter, Adapter)  # noqa: S101 - for the type checker
        return adapter


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)
