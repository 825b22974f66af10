"""Images prepared once, and shared by all cells that train or test on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clinprompt.data.dataset import class_indices
from clinprompt.prompting.batches import Batch, Examples


@dataclass(frozen=True)
class Picked(Examples):
    """Some rows of other examples, under labels of their own; nothing is copied."""

    base: Examples
    rows: np.ndarray

    def at(self, seed: int, epoch: int) -> Examples:
        """The same rows as an epoch sees them."""
        return replace(self, base=self.base.at(seed, epoch))

    def batch(self, rows: np.ndarray | slice) -> Batch:
        """The examples at the given rows."""
        at = np.arange(len(self))[rows]
        return replace(self.base.batch(self.rows[at]), labels=self.labels[torch.from_numpy(at)])


@dataclass(frozen=True)
class Pool:
    """The examples of a manifest's rows.

    Attributes:
        places: the row of each image, by its id; two rows with one id hold the same.
    """

    examples: Examples
    places: Mapping[str, int]

    @classmethod
    def of(cls, examples: Examples, rows: pd.DataFrame) -> "Pool":
        """The pool of examples that were made of these rows."""
        return cls(examples, {image: place for place, image in enumerate(rows["id"])})

    def pick(self, rows: pd.DataFrame, classes: Sequence[str]) -> Examples:
        """The examples of some rows of the manifest, labelled by their classes' places in `classes`."""
        at = np.array([self.places[image] for image in rows["id"]], dtype=np.int64)
        device = self.examples.labels.device
        labels = torch.tensor(class_indices(rows["label"], classes), device=device)
        whole = type(self.examples) is Examples and self.examples.reports is None
        if whole and self.examples.inputs.dim() == 2:  # features: small, and read as a whole
            return Examples(self.examples.inputs[_on(at, self.examples.inputs)], labels)
        scores = None if self.examples.scores is None else self.examples.scores[_on(at, self.examples.scores)]
        return Picked(self.examples.inputs, labels, self.examples, at, scores=scores)


def _on(at: np.ndarray, inputs: Tensor) -> Tensor:
    return torch.from_numpy(at).to(inputs.device)
