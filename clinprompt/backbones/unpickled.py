"""Weights that were published as pickled tensors, without the pickle."""

import pickle
from pathlib import Path

import torch
from safetensors.torch import save

from clinprompt.errors import InputCorrupt


def as_safetensors(weights: Path) -> bytes:
    """The tensors of a `.bin` file as the bytes of a safetensors file: equal tensors give equal bytes.

    torch reads the file with `weights_only`, which makes tensors and runs nothing. What trainers wrap weights in
    (`state_dict`, the prefix `module.`) is taken off, as open_clip does.

    Raises:
        InputCorrupt: it holds something else than tensors by name.
    """
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        # A tensor of its own for each name: the format refuses those that share memory.
        tensors = {name.removeprefix("module."): value.clone().contiguous() for name, value in state.items()}
        return save(dict(sorted(tensors.items())))
    except (RuntimeError, ValueError, KeyError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split()).rstrip(".")[:300]
        raise InputCorrupt(f"{weights} holds no weights, which are tensors by name: {reason}.") from None
