"""What a method is: a few trainable tensors around a frozen backbone, and the logits that they give."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinprompt.errors import InputCorrupt
from clinprompt.prompting.averaging import GaussianAverage
from clinprompt.prompting.batches import Batch, Examples
from clinprompt.prompting.fit import check_fit
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.schema import Section

if TYPE_CHECKING:
    from clinprompt.backbones.load import Backbone
    from clinprompt.backbones.vision import VisionTower
    from clinprompt.prompting.intervention import BentRows
    from clinprompt.reports.style import ReportStyle


# What to descend for a parameter, given the gradients of the loss's parts at it by name.
GradientRule = Callable[[dict[str, Tensor]], Tensor]

KnowledgeFile = Literal["descriptions", "hidden_states", "paraphrases"]


def file_of(knowledge: KnowledgeFile) -> str:
    """The input of a stage that holds it: paraphrases stand in the table of the descriptions."""
    return "descriptions" if knowledge == "paraphrases" else knowledge


@dataclass(frozen=True)
class Needs:
    """What a method must be fed: frozen image features from the cache, or pixels; and which knowledge.

    `image_size`: the side of the images in pixels; None: the backbone's.
    `reports`: how the reports of the subjects are written, of a method that learns from the card's record; its batches
    hold them, and the scores, in training. None: it reads no records.
    """

    images: Literal["features", "pixels"] = "features"
    knowledge: frozenset[KnowledgeFile] = frozenset()
    image_size: int | None = None
    reports: "ReportStyle | None" = None


@dataclass(frozen=True)
class Knowledge:
    """What a language model says of the classes, in their order; empty where a method doesn't need it.

    Attributes:
        descriptions: each class's accepted sentences.
        hidden_states: each class's rows [L, D], float32.
    """

    descriptions: tuple[tuple[str, ...], ...] = ()
    hidden_states: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Task:
    """What a method is built for: a frozen backbone, the classes' clinical names in order, a seed, and knowledge.

    `knowledge` is None where a trained model is read back: then only what predictions need may be computed.
    """

    backbone: "Backbone"
    class_names: tuple[str, ...]
    seed: int
    knowledge: Knowledge | None = None


@dataclass(frozen=True)
class OwnTower:
    """An image tower that a method runs instead of the backbone's, and the logits [B, C] of its features [B, e]."""

    tower: "VisionTower"
    classify: Callable[[Tensor], Tensor]


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
        parts = {"weight": self.weight, "scale": torch.tensor(self.scale), "bias": self.bias}
        return {k: t.detach().to("cpu", torch.float32).contiguous() for k, t in parts.items() if t is not None}


class PromptMethod(nn.Module, ABC):
    """Base of all methods. The backbone is not a sub-module: what `named_parameters` lists is what is trained.

    A trained model is its parameters and persistent buffers. Buffers hold what predictions need beside what was
    trained; what only the loss needs is registered with `persistent=False`, or kept as a plain attribute.

    Args:
        task: what the method is built for.
        config: its knobs, an instance of its `Config`.

    Raises:
        BadParams: the knobs break a limit that the config declares (`LIMITS`).
    """

    name: ClassVar[str]
    Config: ClassVar[type[Section]]

    def __init__(self, task: Task, config: Any) -> None:
        super().__init__()
        states = task.knowledge.hidden_states if task.knowledge else ()
        check_fit(self.name, config, task.backbone, [len(rows) for rows in states])
        self.config = config

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """What the method must be fed with these knobs."""
        return Needs()

    @property
    def needed(self) -> Needs:
        """What this model must be fed with."""
        return self.needs(self.config)

    @classmethod
    def transfers(cls, config: Any) -> bool:
        """Whether what is trained serves other classes too: nothing of it belongs to a certain class."""
        return not cls.class_axes(config)

    @classmethod
    def class_axes(cls, config: Any) -> Mapping[str, int]:
        """The axis over the classes of each tensor in `state` that training sets for them, by the tensor's name."""
        return {}

    @classmethod
    def reordered(cls, state: dict[str, Tensor], order: Sequence[int], config: Any) -> dict[str, Tensor]:
        """A trained model's `state` for its classes in another order, which names them by their old places.

        Raises:
            InputCorrupt: a tensor has another number of classes.
        """
        axes, places = cls.class_axes(config), torch.tensor(order)
        for name, axis in axes.items():
            if name not in state or state[name].dim() <= axis or state[name].shape[axis] != len(order):
                shape = f"has the shape {tuple(state[name].shape)}" if name in state else "is missing"
                raise InputCorrupt(
                    f"The tuned {cls.name} model's {name} {shape}; its axis {axis} must have {len(order)} classes."
                )
        return {
            name: tensor.index_select(axes[name], places) if name in axes else tensor for name, tensor in state.items()
        }

    @classmethod
    def knowledge_in(cls, state: dict[str, Tensor]) -> Knowledge | None:
        """The knowledge that a trained model carries in its `state`, for building the method again."""
        return None

    def prepare(self, pixels: Tensor) -> Tensor:
        """What a batch holds, of preprocessed pixels [B, 3, S, S]: all that comes before the first trained tensor.

        It is computed once per image, without gradients. Only for methods that need pixels.
        """
        return pixels

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""

    def estimate(self, batch: Batch) -> Tensor | None:
        """The score of the subject's record that is predicted beside the class, as points [B]; None where none is.

        Of the MMSE: 0 to 30. Only `batch.inputs` are read, and what a model was not trained to tell it does not.
        """
        return None

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits [B, C] and the estimate [B], of one pass through the towers where a method can do that."""
        return self(batch), self.estimate(batch)

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to descend and its weighted parts by name: here the mean cross-entropy."""
        ce = F.cross_entropy(logits, batch.labels)
        return ce, {"ce": ce}

    @property
    def descends(self) -> bool:
        """Whether training descends a gradient, with the optimiser's settings among the knobs."""
        return isinstance(self.config, OptimiserSettings)

    def start(self, train: Examples, val: Examples) -> None:
        """Take in, before any descent, what is computed from the support set in closed form."""

    def finish(self, val: Examples) -> bool:
        """Search, after the descent, what is chosen on the validation split; whether predictions have changed."""
        return False

    def findings(self) -> dict[str, float]:
        """Numbers of the method's own, as they are now, that the curves show beside loss and accuracy."""
        return {}

    def averaging(self) -> GaussianAverage | None:
        """How parameters are averaged over the epochs; None: the last epoch's stay."""
        return None

    def gradient_rule(self) -> GradientRule | None:
        """How the gradients of the loss's parts give the one to descend; None: that of the loss is descended."""
        return None

    def own_tower(self) -> OwnTower | None:
        """The image tower in parts, for those who look into a model; None where it is the backbone's."""
        return None

    def bent_rows(self) -> "BentRows | None":
        """The rows of a language model's states that the model intervenes on, and how; None where it does not."""
        return None

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """The tensors that are trained, by name; nothing else is."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trained_count(self) -> int:
        """How many numbers training sets: those of the trained tensors, and those computed or searched otherwise."""
        return sum(p.numel() for p in self.trainable_parameters().values())

    def state(self) -> dict[str, Tensor]:
        """The trained model, float32 on the CPU: what is trained, and the persistent buffers."""
        frozen = {name for name, p in self.named_parameters() if not p.requires_grad}
        saved = {name: t for name, t in self.state_dict().items() if name not in frozen}
        return {name: t.detach().to("cpu", torch.float32).contiguous() for name, t in saved.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put a trained model's tensors back; buffers take the saved shape.

        Raises:
            InputCorrupt: a tensor is missing, unknown or of another shape than the config says.
        """
        expected = self.state()
        if set(expected) != set(state):
            mismatched = sorted(set(expected) ^ set(state))[0]
            raise InputCorrupt(
                f"The tuned {self.name} model's tensors don't fit its config ({mismatched}); run tune again."
            )
        for key, tensor in state.items():
            owner = self.get_submodule(key.rpartition(".")[0])
            old = getattr(owner, key.rpartition(".")[2])
            if isinstance(old, nn.Parameter) and old.shape != tensor.shape:
                raise InputCorrupt(
                    f"The tuned {self.name} model's {key} has the shape {tuple(tensor.shape)}, its config says "
                    f"{tuple(old.shape)}; run tune again."
                )
            if isinstance(old, nn.Parameter):
                old.data.copy_(tensor)
            else:
                owner.register_buffer(key.rpartition(".")[2], tensor.to(old.device))

    def export_head(self) -> dict[str, Tensor] | None:
        """What turns frozen image features into logits without the method's code (see `Head`); None where that
        isn't all."""
        return None


class FeatureMethod(PromptMethod):
    """A method whose logits are a linear head on the normalised frozen features; the head is its whole result."""

    @abstractmethod
    def head(self) -> Head:
        """The head for the current parameters, differentiable."""

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C]."""
        return self.head().logits(batch.inputs)

    @torch.no_grad()
    def export_head(self) -> dict[str, Tensor]:
        """The head's tensors: weight [C, e], scale [], and bias [C] where there is one."""
        return self.head().tensors()
