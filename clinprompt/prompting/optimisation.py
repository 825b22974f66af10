"""The knobs of gradient descent, as the prompt-tuning papers run it."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from clinprompt.schema import Section


class OptimiserSettings(Section):
    """The knobs that every method trained by gradient descent has.

    `momentum` is SGD's alone, `epsilon` AdamW's; `clip_norm` bounds the norm of the whole gradient, null leaves it
    alone. `schedule`: the cosine falls behind each epoch, or behind each step. `warmup`: at `warmup_learning_rate`, or
    rising from 0 to the rate. `keep`: the last epoch's parameters, or those of the epoch with the best quadratic kappa
    on validation. The defaults are CoOp's for a ViT-B/16 (2109.01134;
    momentum and decay are those of Dassl, its trainer), which most papers keep; a method's own class sets what its
    paper or code has instead.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat = 0.002
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0005
    schedule: Literal["epoch", "step"] = "epoch"
    warmup: Literal["constant", "linear"] = "constant"
    warmup_epochs: NonNegativeInt = 1
    warmup_learning_rate: PositiveFloat = 0.00001
    batch_size: PositiveInt = 32
    epochs: PositiveInt = 50
    keep: Literal["last", "kappa"] = "last"
    clip_norm: PositiveFloat | None = None
    epsilon: PositiveFloat = 1e-8
