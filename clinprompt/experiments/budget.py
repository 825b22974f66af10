"""How long a cell's training is, and which learning rates it tries: from a budget, a preset, or the method's knobs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clinprompt.errors import BadParams
from clinprompt.experiments.protocols import Budget, Cell
from clinprompt.experiments.scores import rounded, scores
from clinprompt.prompting.optimisation import OptimiserSettings
from clinprompt.schema import Section

_SMALLEST = 1e-12  # of a probability, so that its logarithm is finite


@dataclass(frozen=True)
class Schedule:
    """What decides a cell's training beside its knobs.

    Attributes:
        budget: what every method gets alike; None: each method's own.
        steps_per_shot: of the preset, where it counts a training in steps for each image per class.
    """

    budget: Budget | None = None
    steps_per_shot: int | None = None

    def settings(self, config: Section, cell: Cell) -> list[Section]:
        """The configs that a cell is trained with, one for each learning rate that is tried; one without a search.

        Raises:
            BadParams: the budget ends within the first epoch: a training is whole epochs, so it would be exceeded.
        """
        if not isinstance(config, OptimiserSettings):
            return [config]
        if self.budget is None:
            return [config if self.steps_per_shot is None else self._lasting(config, cell, self._own_steps(cell))]
        size = {} if self.budget.batch_size is None else {"batch_size": self.budget.batch_size}
        sized = config.model_copy(update=size)
        epoch = steps_per_epoch(sized, len(cell.train))
        if self.budget.steps < epoch:
            raise BadParams(
                f"params.yaml: the budget of {self.budget.steps} steps ends within the first epoch of a cell "
                f"({len(cell.train)} images, {epoch} steps of {sized.batch_size}), and trainings are whole epochs; set "
                f"at least {epoch} steps, or larger batches."
            )
        budgeted = self._lasting(sized, cell, self.budget.steps)
        rates = [factor * config.learning_rate for factor in self.budget.rates]
        return [budgeted.model_copy(update={"learning_rate": rate}) for rate in rates]

    def _lasting(self, config: OptimiserSettings, cell: Cell, steps: int) -> OptimiserSettings:
        return config.model_copy(update={"epochs": max(1, round(steps / steps_per_epoch(config, len(cell.train))))})

    def _own_steps(self, cell: Cell) -> int:
        assert self.steps_per_shot is not None  # noqa: S101 - asked for where it is there
        shots = int(cell.key["shots"]) if "shots" in cell.key else math.ceil(len(cell.train) / len(cell.classes))
        return self.steps_per_shot * shots


def steps_per_epoch(config: OptimiserSettings, images: int) -> int:
    """Steps of an epoch over some images: an incomplete last batch is left out, unless it is the only one."""
    return max(images // config.batch_size, 1)


def training_facts(config: Section, images: int) -> dict[str, Any]:
    """What a cell's row tells of a training that descends a gradient: its steps, batch size and learning rate."""
    if not isinstance(config, OptimiserSettings):
        return {}
    return {
        "steps": config.epochs * steps_per_epoch(config, images),
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
    }


@dataclass(frozen=True)
class Trial:
    """A learning rate that was tried: the trained model's balanced accuracy and cross-entropy on validation.

    Attributes:
        failed: why it could not be trained; then there are no numbers.
    """

    learning_rate: float
    balanced_accuracy: float | None = None
    cross_entropy: float | None = None
    failed: str | None = None

    @classmethod
    def of(cls, learning_rate: float, labels: np.ndarray, probabilities: np.ndarray) -> "Trial":
        """The numbers of class indices [n] and probabilities [n, C]."""
        own = probabilities[np.arange(len(labels)), labels].clip(min=_SMALLEST)
        accuracy = scores(labels, probabilities)["balanced_accuracy"]
        return cls(learning_rate, accuracy, rounded(float(-np.log(own).mean())))

    def to_json(self) -> dict[str, Any]:
        """As a cell's row holds it."""
        numbers = {"val_balanced_accuracy": self.balanced_accuracy, "val_cross_entropy": self.cross_entropy}
        return {"learning_rate": self.learning_rate, **({"failed": self.failed} if self.failed else numbers)}


def best(trials: Sequence[Trial]) -> int | None:
    """The number of the best trial, the earlier of equal ones; None where all failed."""
    done = [(t.balanced_accuracy, t.cross_entropy, n) for n, t in enumerate(trials) if t.failed is None]
    ranked = sorted((-(accuracy or 0.0), math.inf if loss is None else loss, n) for accuracy, loss, n in done)
    return ranked[0][2] if ranked else None
