"""Gradients of a loss's parts, for methods that don't simply descend their sum."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from clinprompt.prompting.base import GradientRule


class PartGradients:
    """The gradient of each part of a loss, summed over micro-batches before a rule combines them."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self._sums: dict[str, Sequence[Tensor]] = {}

    def add(self, parts: dict[str, Tensor], share: float) -> None:
        """Take in a micro-batch that is this share of the batch."""
        for name, part in parts.items():
            gradients: Sequence[Tensor] = torch.autograd.grad(
                share * part, self.parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            before = self._sums.get(name)
            self._sums[name] = gradients if before is None else [a + b for a, b in zip(before, gradients, strict=True)]

    def tensors(self) -> list[Tensor]:
        """All the sums."""
        return [gradient for sums in self._sums.values() for gradient in sums]

    def at(self, index: int) -> dict[str, Tensor]:
        """The gradients of the parts at one of the parameters."""
        return {name: sums[index] for name, sums in self._sums.items()}

    def combine(self, rule: GradientRule) -> None:
        """Give each parameter the gradient that the rule makes of its parts'."""
        for index, parameter in enumerate(self.parameters):
            parameter.grad = rule(self.at(index))
