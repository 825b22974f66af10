"""Gradient descent as the prompt-tuning papers run it: a constant warm-up, then a cosine per epoch."""

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from clinprompt.params import Section


class Descent(Section):
    """The knobs that every method trained by gradient descent has.

    `momentum` is SGD's alone, `epsilon` AdamW's; `clip_norm` bounds the norm of the whole gradient, null leaves it
    alone.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_epochs: NonNegativeInt
    warmup_learning_rate: PositiveFloat
    batch_size: PositiveInt
    epochs: PositiveInt
    clip_norm: PositiveFloat | None = None
    epsilon: PositiveFloat = 1e-8


def make_optimizer(parameters: Iterable[torch.nn.Parameter], descent: Descent) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW with torch's betas."""
    if descent.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=descent.learning_rate, eps=descent.epsilon, weight_decay=descent.weight_decay
        )
    return torch.optim.SGD(
        parameters, lr=descent.learning_rate, momentum=descent.momentum, weight_decay=descent.weight_decay
    )


def learning_rate(epoch: int, descent: Descent) -> float:
    """The rate of a 0-based epoch k among E: the warm-up's for k < w, then lr (1 + cos(pi (k - w) / E)) / 2."""
    if epoch < descent.warmup_epochs:
        return descent.warmup_learning_rate
    done = (epoch - descent.warmup_epochs) / descent.epochs
    return descent.learning_rate * (1 + math.cos(math.pi * done)) / 2
