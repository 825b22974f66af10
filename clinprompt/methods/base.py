"""What a method is: a few trainable tensors around a frozen backbone, and the logits that they give."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.params import Section
from clinprompt.training.batches import Batch, Examples
from clinprompt.training.checkpoint import Curves
from clinprompt.training.loop import Run, accuracy

if TYPE_CHECKING:
    from clinprompt.backbones import Backbone


@dataclass(frozen=True)
class Needs:
    """What a method must be fed: the cheapest level of the images that it allows, and which knowledge files."""

    images: Literal["features"] = "features"
    knowledge: frozenset[Literal["descriptions", "hidden_states"]] = frozenset()


@dataclass(frozen=True)
class Task:
    """What a method is built for: a frozen backbone, the classes' clinical names in order, and a seed."""

    backbone: "Backbone"
    class_names: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class Head:
    """logits = scale · normalise(v) @ weightᵀ + bias, with `weight` [C, e] and `bias` [C]."""

    weight: Tensor
    scale: float
    bias: Tensor | None = None

    def logits(self, features: Tensor) -> Tensor:
        """Logits [B, C] of raw features [B, e]."""
        logits = self.scale * F.normalize(features, dim=-1) @ self.weight.T
        return logits if self.bias is None else logits + self.bias

    def tensors(self) -> dict[str, Tensor]:
        """What is saved, in float32 on the CPU."""
        found = {"weight": self.weight, "scale": torch.tensor(self.scale), "bias": self.bias}
        return {k: t.detach().to("cpu", torch.float32).contiguous() for k, t in found.items() if t is not None}


class PromptMethod(nn.Module, ABC):
    """Base of all methods. The backbone is not a sub-module: what `named_parameters` lists is what is trained.

    Args:
        task: what the method is built for.
        config: its knobs, an instance of its `Config`.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs]
    Config: ClassVar[type[Section]]

    def __init__(self, task: Task, config: Section) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""

    @abstractmethod
    def export_head(self) -> dict[str, Tensor]:
        """What turns image features into logits without the method's code, float32 on the CPU: see `Head`."""

    @abstractmethod
    def fit(self, train: Examples, val: Examples, run: Run) -> Curves:
        """Train in place; returns a row of numbers per epoch."""

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to descend and its weighted parts by name: here the mean cross-entropy."""
        ce = F.cross_entropy(logits, batch.labels)
        return ce, {"ce": ce}

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The tensors that are trained and saved, by name; nothing else is."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


class FeatureMethod(PromptMethod):
    """A method whose logits are a linear head on the normalised frozen features; the head is its whole result."""

    needs: ClassVar[Needs] = Needs(images="features")

    @abstractmethod
    def head(self) -> Head:
        """The head for the current parameters, differentiable."""

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        return self.head().logits(batch.features)

    @torch.no_grad()
    def export_head(self) -> dict[str, Tensor]:
        """The head's tensors: weight [C, e], scale [], and bias [C] where there is one."""
        return self.head().tensors()

    def scores(self, train: Examples, val: Examples) -> dict[str, float]:
        """The accuracies that the curves of a method without epochs show."""
        return {"train_accuracy": accuracy(self, train), "val_accuracy": accuracy(self, val)}
