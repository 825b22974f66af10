"""Tip-Adapter: the support set's features as a cache that is asked (Zhang et al., ECCV 2022, arXiv 2111.03930)."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from clinprompt.methods import register
from clinprompt.prompting.base import PromptMethod, Task
from clinprompt.prompting.batches import Batch, Examples
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.prompting.teacher import Template, hand_written
from clinprompt.schema import Section

_LOWEST = 0.1


class TipAdapterConfig(OptimiserSettings):
    """`finetune: true` is Tip-Adapter-F; without it, nothing descends a gradient.

    While the keys are trained, α and β are `init_alpha` and `init_beta`. Both are then searched between 0.1 and
    `max_alpha` and `max_beta`, at `alpha_steps` times `beta_steps` places. The optimiser's defaults are those of the
    published code, except the decay, AdamW's own, and the cosine, which falls behind each epoch.
    """

    template: Template = "a photo of a {}."
    finetune: bool = False
    init_alpha: PositiveFloat = 1.0
    init_beta: PositiveFloat = 1.0
    max_alpha: PositiveFloat = 3.0
    max_beta: PositiveFloat = 7.0
    alpha_steps: PositiveInt = 20
    beta_steps: PositiveInt = 200
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 0.001
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_epochs: NonNegativeInt = 0
    batch_size: PositiveInt = 256
    epochs: PositiveInt = 20
    epsilon: PositiveFloat = 0.0001


@register("tip_adapter")
class TipAdapter(PromptMethod):
    """logits = s ⟨v, t_c⟩ + α Σ_i exp(-β (1 - ⟨v, k_i⟩)) y_ic (section 3.1), for unit image features v.

    t [C, e] are the frozen features of the classes' sentences, the keys k [n, e] the unit features of the n support
    images, the values y [n, C] their labels. Tip-Adapter-F trains the keys by cross-entropy (section 3.2). α and β are
    those with the best accuracy on the validation split, the smallest of equally good ones.

    It differs from the published trainer in that the keys are features of the unaugmented images, instead of the mean
    of ten augmented ones, and in that the last epoch's keys are kept, instead of those of the best epoch.
    """

    Config: ClassVar[type[Section]] = TipAdapterConfig
    config: TipAdapterConfig
    keys: Tensor
    values: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, task: Task, config: TipAdapterConfig) -> None:
        super().__init__(task, config)
        self.text = hand_written(task, config.template)
        self.scale, classes = task.backbone.logit_scale, len(task.class_names)
        self._fill(self.text.new_zeros(0, task.backbone.embed_dim), self.text.new_zeros(0, classes))
        self.register_buffer("alpha", self.text.new_tensor(config.init_alpha))
        self.register_buffer("beta", self.text.new_tensor(config.init_beta))

    @classmethod
    def class_axes(cls, config: TipAdapterConfig) -> Mapping[str, int]:
        """That of the values: the cache holds images of its classes."""
        return {"values": 1}

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        zero_shot, affinity = self._compare(batch.inputs)
        return zero_shot + self._ask(affinity, self.alpha, self.beta)

    @property
    def descends(self) -> bool:
        """Tip-Adapter-F alone."""
        return self.config.finetune

    def start(self, train: Examples, val: Examples) -> None:
        """Fill the cache."""
        self._fill(F.normalize(train.inputs, dim=-1), F.one_hot(train.labels, len(self.text)).to(self.text.dtype))

    @torch.no_grad()
    def finish(self, val: Examples) -> bool:
        """Search α and β."""
        zero_shot, affinity = self._compare(val.inputs)
        best = -1
        for beta in _grid(self.config.max_beta, self.config.beta_steps):
            cache_logits = self._ask(affinity, 1.0, beta)
            for alpha in _grid(self.config.max_alpha, self.config.alpha_steps):
                hits = int(((zero_shot + alpha * cache_logits).argmax(-1) == val.labels).sum())
                if hits > best:
                    best = hits
                    self.alpha, self.beta = self.alpha.new_tensor(alpha), self.beta.new_tensor(beta)
        return True

    def trained_count(self) -> int:
        """The keys where they are trained, and α and β; the cache's own are stored, not trained."""
        return super().trained_count() + 2

    def findings(self) -> dict[str, float]:
        """α and β."""
        return {"alpha": float(self.alpha), "beta": float(self.beta)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put a trained model back; the cache has as many keys as there were support images."""
        if "keys" in state and "values" in state:
            self._fill(*(state[name].to(self.text.device) for name in ("keys", "values")))
        super().load_state(state)

    def _fill(self, keys: Tensor, values: Tensor) -> None:
        if self.config.finetune:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)
        self.register_buffer("values", values)

    def _compare(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C] against the sentences, and cosines [B, n] with the keys."""
        v = F.normalize(inputs, dim=-1)
        return self.scale * v @ self.text.T, v @ self.keys.T

    def _ask(self, affinity: Tensor, alpha: Tensor | float, beta: Tensor | float) -> Tensor:
        """What the cache says [B, C]."""
        return alpha * torch.exp(beta * (affinity - 1)) @ self.values


def _grid(highest: float, steps: int) -> list[float]:
    return [_LOWEST + i * (highest - _LOWEST) / steps for i in range(steps)]
