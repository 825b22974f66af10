"""Labelled examples at the level that a method reads, and the order in which an epoch visits them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some examples: `inputs` [B, ...] at the method's level (features [B, e], raw from the image tower, or what its
    `prepare` makes of pixels), `labels` [B] class indices."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Examples:
    """All examples of a split: `inputs` float32 [n, ...] at the method's level, `labels` int64 [n].

    The labels' device is where batches go; inputs that are too large for it may lie elsewhere, or in a mapped file.
    """

    inputs: Tensor
    labels: Tensor

    @classmethod
    def of(cls, inputs: np.ndarray, labels: np.ndarray, device: str | torch.device = "cpu") -> "Examples":
        """Copy arrays to a device."""
        x = torch.tensor(np.ascontiguousarray(inputs, dtype=np.float32), device=device)
        return cls(x, torch.tensor(labels, dtype=torch.int64, device=device))

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, seed: int, epoch: int) -> "Examples":
        """The examples as an epoch sees them: these, unless they are augmented."""
        return self

    def batch(self, rows: np.ndarray | slice) -> Batch:
        """The examples at the given rows."""
        at = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        return Batch(self.inputs[at].to(self.labels.device), self.labels[at])


def epoch_rows(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of each batch of an epoch, shuffled; they depend on the seed and the epoch only.

    An incomplete last batch is left out, as in the published trainers, unless it is the only one.
    """
    order = np.random.default_rng([seed, epoch]).permutation(n)
    steps = max(n // batch_size, 1)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(steps)]
