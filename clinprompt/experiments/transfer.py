"""Trained tensors put into the same method for other classes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from clinprompt.errors import BadParams
from clinprompt.prompting.base import PromptMethod

LEFT_OUT = "what it trains belongs to the classes that it has seen"


@torch.no_grad()
def moved(model: PromptMethod, trained: Mapping[str, Tensor]) -> PromptMethod:
    """`model`, built for new classes, with the tensors that were trained on others; ready to predict.

    Args:
        trained: tensors by name; those that `model` does not train are passed over.

    Raises:
        BadParams: a tensor is missing or has another shape, so that the method can't serve other classes.
    """
    for name, parameter in model.trainable_parameters().items():
        found = trained.get(name)
        if found is None or found.shape != parameter.shape:
            shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
            raise BadParams(
                f"{model.name} can't be moved to other classes with these knobs: its {name} is {shape}, and must be of "
                f"shape {tuple(parameter.shape)}."
            )
        parameter.copy_(found)
    return model.eval()
