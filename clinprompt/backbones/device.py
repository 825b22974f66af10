"""Where torch computes."""

import torch

from clinprompt.errors import BadParams


def choose_device(requested: str = "auto", key: str = "training.device") -> str:
    """The torch device for a value of `key` in params.yaml: "auto" is a GPU where torch finds one, else the CPU.

    Raises:
        BadParams: a GPU is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise BadParams(f"params.yaml: {key}: a GPU is asked for, but torch finds none here; set auto or cpu.")
    return "cuda" if available and requested != "cpu" else "cpu"


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16, and is faster with it: a GPU, and newer CPUs."""
    found = torch.cpu.get_capabilities()
    return device.type == "cuda" or bool(found.get("amx_bf16") or found.get("avx512_bf16"))
