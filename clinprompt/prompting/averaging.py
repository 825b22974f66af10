"""Weights averaged over the epochs, as PromptSRC and CILMP do it."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class GaussianAverage:
    """Gaussian-weighted prompt averaging (Khattak et al., ICCV 2023, eq. 8): the mean over the epochs' end values.

    Epoch k of E, from 1, has a weight proportional to exp(-(k - mean)² / (2 std²)); the weights sum to 1.

    Attributes:
        mean, std: in epochs.
        names: the parameters that are averaged; the others keep their last values.
    """

    mean: float
    std: float
    names: frozenset[str]
    _sums: dict[str, Tensor] = field(default_factory=dict)

    def weights(self, epochs: int) -> list[float]:
        """The weight of each epoch."""
        densities = [math.exp(-((k - self.mean) ** 2) / (2 * self.std**2)) for k in range(1, epochs + 1)]
        return [density / math.fsum(densities) for density in densities]

    @torch.no_grad()
    def add(self, parameters: dict[str, nn.Parameter], epoch: int, epochs: int) -> None:
        """Take in the values at the end of a 0-based epoch."""
        weight = self.weights(epochs)[epoch]
        for name in self.names:
            value = weight * parameters[name].detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    @torch.no_grad()
    def put(self, parameters: dict[str, nn.Parameter]) -> None:
        """Replace the parameters by their averages, when all epochs have been taken in."""
        for name, value in self._sums.items():
            parameters[name].copy_(value)

    def state(self) -> dict[str, Tensor]:
        """The sums so far, for a checkpoint."""
        return dict(self._sums)

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's sums."""
        self._sums = dict(state)
