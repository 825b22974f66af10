"""What the training loop needs of a method."""

from typing import Any, Protocol

from torch import Tensor, nn

from clinprompt.prompting.averaging import GaussianAverage
from clinprompt.prompting.base import GradientRule
from clinprompt.prompting.batches import Batch


class Trainable(Protocol):
    """What the loop needs of a method.

    The loss must be a mean over the batch's examples, plus terms that don't depend on them: then the weighted sum over
    micro-batches is the loss of the whole batch.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, batch: Batch) -> Tensor: ...

    def loss(self, batch: Batch, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]: ...

    def trainable_parameters(self) -> dict[str, nn.Parameter]: ...

    def averaging(self) -> GaussianAverage | None: ...

    def gradient_rule(self) -> GradientRule | None: ...

    def train(self) -> Any: ...
