"""Where torch computes."""

import torch

from clinprompt.errors import BadParams


def choose_device(requested: str = "auto") -> str:
    """The torch device for a value of `training.device`: "auto" is a GPU where torch finds one, else the CPU.

    Raises:
        BadParams: a GPU is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise BadParams(
            "params.yaml: training.device: cuda is asked for, but torch finds no GPU here; set auto or cpu."
        )
    return "cuda" if available and requested != "cpu" else "cpu"
