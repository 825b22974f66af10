"""Where a language model computes and in which precision, and what has to be there for it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from clinprompt.errors import BadParams

if TYPE_CHECKING:
    from clinprompt.knowledge_params import KnowledgeParams  # other params are not behind a sample's key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compute:
    """`device`: cpu, cuda, or all_gpus, over which the layers are spread; `quantization`: of the weights, 8bit, 4bit
    or None."""

    device: str = "cpu"
    precision: str = "float32"
    quantization: str | None = None

    @classmethod
    def of(cls, params: "KnowledgeParams") -> "Compute":
        """What the params come to here: `auto` is a GPU where there is one, and bfloat16 is float32 where the device
        has no instructions for it, with a warning.

        Raises:
            BadParams: they ask for a GPU or a package that is not here.
        """
        import torch

        from clinprompt.backbones.device import choose_device, computes_bfloat16

        spread = params.device == "all_gpus"
        device = choose_device("cuda" if spread else params.device, "knowledge.device")
        if params.quantization is not None:
            key = f"knowledge.quantization: {params.quantization}"
            if device != "cuda":
                raise BadParams(f"params.yaml: {key} needs a GPU, and torch finds none here or may use none; set null.")
            _need(key, "bitsandbytes", "accelerate")
        if spread:
            _need("knowledge.device: all_gpus", "accelerate")
        precision = params.precision
        if precision != "float32" and not computes_bfloat16(torch.device(device)):
            log.warning(
                "knowledge.precision: %s needs a GPU, or a CPU with instructions for it; float32 it is.", precision
            )
            precision = "float32"
        return cls("all_gpus" if spread else device, precision, params.quantization)

    @property
    def dtype(self) -> Any:
        """The torch type of what is computed."""
        import torch

        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    @property
    def needs_folder(self) -> Sequence[str]:
        """The keys of `knowledge` that only a model in transformers' format can follow, not a GGUF file."""
        keys = {"quantization": self.quantization is not None, "device: all_gpus": self.device == "all_gpus"}
        return [key for key, is_set in keys.items() if is_set]

    @property
    def placing(self) -> dict[str, Any]:
        """What `from_pretrained` needs to place the weights; empty where the loaded model is moved instead."""
        options: dict[str, Any] = {}
        if self.device == "all_gpus":
            options["device_map"] = "auto"
        elif self.quantization is not None:
            options["device_map"] = {"": 0}
        if self.quantization is not None:
            from transformers import BitsAndBytesConfig

            bits = {"8bit": {"load_in_8bit": True}, "4bit": {"load_in_4bit": True}}[self.quantization]
            options["quantization_config"] = BitsAndBytesConfig(**bits, bnb_4bit_compute_dtype=self.dtype)
        return options


def _need(key: str, *packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise BadParams(
                f"params.yaml: {key} needs the package {package}, which is not installed here; install it, or set "
                "another value."
            )
