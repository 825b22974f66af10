"""The epoch whose parameters are kept, where a method's settings choose it on the validation images."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

_VALUE = "value"


@dataclass
class BestEpoch:
    """The parameters of the epoch with the highest value so far, the first of equal ones."""

    _value: float = -float("inf")
    _kept: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def offer(self, parameters: dict[str, nn.Parameter], value: float) -> None:
        """Take in the values at the end of an epoch, if they are better."""
        if value > self._value:
            self._value, self._kept = value, {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def put(self, parameters: dict[str, nn.Parameter]) -> None:
        """Replace the parameters by those that were kept."""
        for name, value in self._kept.items():
            parameters[name].copy_(value)

    def state(self) -> dict[str, Tensor]:
        """What is kept, for a checkpoint."""
        return {_VALUE: torch.tensor(self._value, dtype=torch.float64), **{f"of.{n}": t for n, t in self._kept.items()}}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self._value = float(state[_VALUE])
        self._kept = {name.removeprefix("of."): t for name, t in state.items() if name != _VALUE}


def quadratic_kappa(labels: Tensor, predicted: Tensor) -> float:
    """Cohen's kappa with quadratic weights of class indices [n] and predictions [n]; 0 where all are of one class."""
    actual, found = labels.double(), predicted.double()
    # The mean cost over all pairs of a label and a prediction: what chance alone would give.
    chance = float((actual**2).mean() + (found**2).mean() - 2 * actual.mean() * found.mean())
    return 1 - float(((actual - found) ** 2).mean()) / chance if chance > 0 else 0.0
