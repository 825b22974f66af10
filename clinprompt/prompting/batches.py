"""Labelled examples at the level that a method reads, and the order in which an epoch visits them."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_REPORTS = 1  # keeps what is drawn for reports apart from the order of an epoch


@dataclass(frozen=True)
class Batch:
    """Some examples.

    Attributes:
        inputs: [B, ...] at the method's level (features [B, e], raw from the image tower, or what its `prepare` makes
            of pixels).
        labels: class indices [B].
        reports: token ids [B, T] of the subjects' reports; None where predictions are made.
        scores: of the subjects' records, in points [B], NaN where one is absent; None as above, and where none are.
    """

    inputs: Tensor
    labels: Tensor
    reports: Tensor | None = None
    scores: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ReportIds:
    """Reports of n examples, in several words each.

    Attributes:
        ids: token ids [n, v, T].
        shares: how often each of the v is drawn [v].
        drawn: the seed and the epoch that decide which; None: the first.
    """

    ids: Tensor
    shares: tuple[float, ...] = (1.0,)
    drawn: tuple[int, int] | None = None

    def at(self, seed: int, epoch: int) -> "ReportIds":
        """As an epoch reads them: which words, depends on the seed, the epoch and the example's row alone."""
        return replace(self, drawn=(seed, epoch))

    def rows(self, at: Tensor | slice) -> Tensor:
        """Token ids [B, T] of some examples."""
        ids, chosen = self.ids[at], self._chosen[at]
        return ids[torch.arange(len(ids)), chosen]

    @cached_property
    def _chosen(self) -> Tensor:
        n, v = self.ids.shape[:2]
        if self.drawn is None:
            return torch.zeros(n, dtype=torch.int64)
        rng = np.random.default_rng([*self.drawn, _REPORTS])
        return torch.from_numpy(rng.choice(v, size=n, p=np.array(self.shares) / sum(self.shares)))


@dataclass(frozen=True)
class Examples:
    """All examples of a split: `inputs` float32 [n, ...] at the method's level, `labels` int64 [n].

    The labels' device is where batches go; inputs that are too large for it may lie elsewhere, or in a mapped file.
    `reports` and `scores` [n] are there for methods that learn from the subjects' records; see `Batch`.
    """

    inputs: Tensor
    labels: Tensor
    reports: ReportIds | None = field(default=None, kw_only=True)
    scores: Tensor | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, inputs: np.ndarray, labels: np.ndarray, device: str | torch.device = "cpu") -> "Examples":
        """Copy arrays to a device."""
        x = torch.tensor(np.ascontiguousarray(inputs, dtype=np.float32), device=device)
        return cls(x, torch.tensor(labels, dtype=torch.int64, device=device))

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, seed: int, epoch: int) -> "Examples":
        """The examples as an epoch sees them: the same images, unless they are augmented, and the reports it draws."""
        return self if self.reports is None else replace(self, reports=self.reports.at(seed, epoch))

    def batch(self, rows: np.ndarray | slice) -> Batch:
        """The examples at the given rows."""
        at = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        return self.with_records(self.inputs[at].to(self.labels.device), at)

    def with_records(self, inputs: Tensor, at: Tensor | slice) -> Batch:
        """A batch of these inputs with the labels, reports and scores of the examples at some rows."""
        device = self.labels.device
        reports = None if self.reports is None else self.reports.rows(at).to(device)
        scores = None if self.scores is None else self.scores[at].to(device)
        return Batch(inputs, self.labels[at], reports, scores)


def epoch_rows(n: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of each batch of an epoch, shuffled; they depend on the seed and the epoch only.

    An incomplete last batch is left out, as in the published trainers, unless it is the only one.
    """
    order = np.random.default_rng([seed, epoch]).permutation(n)
    steps = max(n // batch_size, 1)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(steps)]
