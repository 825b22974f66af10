"""Stochastic gradient descent as the prompt-tuning papers run it: a constant warm-up, then a cosine per epoch."""

import math
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from clinprompt.params import Section


class Descent(Section):
    """The knobs that every method trained by gradient descent has."""

    learning_rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_epochs: NonNegativeInt
    warmup_learning_rate: PositiveFloat
    batch_size: PositiveInt
    epochs: PositiveInt


def learning_rate(epoch: int, descent: Descent) -> float:
    """The rate of a 0-based epoch k among E: the warm-up's for k < w, then lr (1 + cos(pi (k - w) / E)) / 2."""
    if epoch < descent.warmup_epochs:
        return descent.warmup_learning_rate
    done = (epoch - descent.warmup_epochs) / descent.epochs
    return descent.learning_rate * (1 + math.cos(math.pi * done)) / 2
