"""The knobs of gradient descent, as the prompt-tuning papers run it."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from clinprompt.schema import Section


class OptimiserSettings(Section):
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
