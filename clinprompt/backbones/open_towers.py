"""What `open-towers` is made of: DINOv2 ViT-S/14 out of an ONNX file, all-MiniLM-L6-v2, and linear projections.

The image tower is open_clip's own vision transformer, not timm's `vit_small_patch14_dinov2`: open_clip builds that one
for images of 518 pixels and can't be told another size. The arithmetic is the same: layer scale, no norm in front of
the blocks, and what the convolution adds to each patch is part of the positions.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from clinprompt.backbones.onnx_graph import OnnxGraph
from clinprompt.errors import InputCorrupt
from clinprompt.files import read_regular

WIDTH, LAYERS, HEADS, MLP = 384, 12, 6, 4
PATCH, SIDE, PUBLISHED_SIDE = 14, 224, 518  # pixels
TOKENS = 256  # as the text model's own tokeniser is set
_CUBIC = -0.75  # the kernel's parameter in the graph's node `Resize`, and in torch


def model_config(embed_dim: int) -> dict[str, Any]:
    """open_clip's config of both towers."""
    vision = {
        "image_size": SIDE,
        "patch_size": PATCH,
        "width": WIDTH,
        "layers": LAYERS,
        "head_width": WIDTH // HEADS,
        "mlp_ratio": float(MLP),
        "ls_init_value": 1.0,
        "no_ln_pre": True,
        "norm_kwargs": {"eps": 1e-6},
    }
    text = {
        "hf_model_name": "sentence-transformers/all-MiniLM-L6-v2",
        "hf_tokenizer_name": "sentence-transformers/all-MiniLM-L6-v2",
        "hf_model_pretrained": False,
        "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear",
        "context_length": TOKENS,
    }
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text}


PREPROCESSING = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "size": [SIDE, SIDE],
}


class _Weights(Protocol):
    """DINOv2's weights by the names that its files share: those below `encoder.layer.N` come with slashes."""

    def tensor(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """What has a name of its own."""

    def linear(self, layer: int, part: str, shape: tuple[int, int]) -> NDArray[np.float32]:
        """The weight [out, in] of a linear layer of a block."""

    def positions(self, patches: int) -> NDArray[np.float32]:
        """Those of the class token and of the patches [1 + patches, w], as published."""


class _OfGraph:
    """In an ONNX file. The linear layers' weights have no names there, but the nodes that read them have.

    They are stored [in, out]; torch has them [out, in].
    """

    def __init__(self, data: bytes, where: str) -> None:
        self._graph = OnnxGraph(data, where)

    def tensor(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return self._graph.tensor(f"backbone.{name}", shape)

    def linear(self, layer: int, part: str, shape: tuple[int, int]) -> NDArray[np.float32]:
        return self._graph.weight_of(f"/backbone/encoder/layer.{layer}/{part}/MatMul", shape[::-1]).T

    def positions(self, patches: int) -> NDArray[np.float32]:
        first = self._graph.weight_of("/backbone/embeddings/Concat_6", (1, 1, WIDTH))[0]
        others = self._graph.weight_of("/backbone/embeddings/Reshape_1", (1, patches, WIDTH))[0]
        return np.concatenate([first, others])


class _OfTensors:
    """In a safetensors file, as `transformers` writes it."""

    def __init__(self, data: bytes, where: str) -> None:
        self._tensors, self._where = _read_tensors(data, where), where

    def tensor(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        found = self._tensors.get(name)
        if found is None or found.shape != shape:
            has = "no such tensor" if found is None else str(list(found.shape))
            raise InputCorrupt(f"{self._where}: expected {name} of shape {list(shape)}, found {has}.")
        values: NDArray[np.float32] = found.float().numpy()
        return values

    def linear(self, layer: int, part: str, shape: tuple[int, int]) -> NDArray[np.float32]:
        return self.tensor(f"encoder.layer.{layer}.{part.replace('/', '.')}.weight", shape)

    def positions(self, patches: int) -> NDArray[np.float32]:
        return self.tensor("embeddings.position_embeddings", (1, 1 + patches, WIDTH))[0]


def image_tower(data: bytes, where: str) -> dict[str, Tensor]:
    """DINOv2's weights in an ONNX file, by the names of open_clip's image tower, without a projection.

    Args:
        where: the file, for messages.

    Raises:
        InputCorrupt: it is no ONNX file, or one whose nodes or weights have other names or shapes.
    """
    return _image_tower(_OfGraph(data, where))


def published_image_tower(data: bytes, where: str) -> dict[str, Tensor]:
    """The same of the safetensors file that Meta published.

    Raises:
        InputCorrupt: it is no safetensors file, or its tensors have other names or shapes.
    """
    return _image_tower(_OfTensors(data, where))


def _image_tower(weights: _Weights) -> dict[str, Tensor]:
    w = WIDTH
    state = {
        "conv1.weight": weights.tensor("embeddings.patch_embeddings.projection.weight", (w, 3, PATCH, PATCH)),
        "class_embedding": weights.tensor("embeddings.cls_token", (1, 1, w))[0, 0],
        "positional_embedding": _positions(weights),
        "ln_post.weight": weights.tensor("layernorm.weight", (w,)),
        "ln_post.bias": weights.tensor("layernorm.bias", (w,)),
    }
    for layer in range(LAYERS):
        block = _block(weights, layer)
        state |= {f"transformer.resblocks.{layer}.{name}": values for name, values in block.items()}
    return {f"visual.{name}": torch.from_numpy(np.array(values)) for name, values in state.items()}


def text_tower(data: bytes, where: str) -> dict[str, Tensor]:
    """The text model's weights in a safetensors file, by the names of open_clip's text tower, without its pooler.

    Raises:
        InputCorrupt: it is no safetensors file.
    """
    return {
        f"text.transformer.{name}": tensor
        for name, tensor in _read_tensors(data, where).items()
        if not name.startswith("pooler.") and not name.endswith("position_ids")
    }


def projections(path: Path) -> dict[str, Tensor]:
    """Both towers' projections and the logit scale, in single precision, by their names in the model.

    Raises:
        InputMissing: there is no such file.
        InputCorrupt: it is no safetensors file, or the projections have another width than the towers.
    """
    state = _read_tensors(read_regular(path), str(path))
    image, text = state.get("visual.proj"), state.get("text.proj.weight")
    if image is None or text is None or state.keys() != {"visual.proj", "text.proj.weight", "logit_scale"}:
        raise InputCorrupt(f"{path}: expected visual.proj, text.proj.weight and logit_scale, found {', '.join(state)}.")
    if image.shape != (WIDTH, len(text)) or text.shape[1:] != (WIDTH,):
        raise InputCorrupt(
            f"{path}: the towers are {WIDTH} wide and share one space, so visual.proj must be [{WIDTH}, e] and "
            f"text.proj.weight [e, {WIDTH}]; found {list(image.shape)} and {list(text.shape)}."
        )
    return {name: tensor.float() for name, tensor in state.items()}


def _block(weights: _Weights, layer: int) -> dict[str, NDArray[np.float32]]:
    w, name = WIDTH, f"encoder.layer.{layer}"
    parts = [f"attention/attention/{part}" for part in ("query", "key", "value")]
    state = {
        "attn.in_proj_weight": np.concatenate([weights.linear(layer, part, (w, w)) for part in parts]),
        "attn.in_proj_bias": np.concatenate(
            [weights.tensor(f"{name}.{part.replace('/', '.')}.bias", (w,)) for part in parts]
        ),
        "attn.out_proj.weight": weights.linear(layer, "attention/output/dense", (w, w)),
        "attn.out_proj.bias": weights.tensor(f"{name}.attention.output.dense.bias", (w,)),
        "mlp.c_fc.weight": weights.linear(layer, "mlp/fc1", (MLP * w, w)),
        "mlp.c_fc.bias": weights.tensor(f"{name}.mlp.fc1.bias", (MLP * w,)),
        "mlp.c_proj.weight": weights.linear(layer, "mlp/fc2", (w, MLP * w)),
        "mlp.c_proj.bias": weights.tensor(f"{name}.mlp.fc2.bias", (w,)),
    }
    for number in (1, 2):
        state[f"ls_{number}.gamma"] = weights.tensor(f"{name}.layer_scale{number}.lambda1", (w,))
        for kind in ("weight", "bias"):
            state[f"ln_{number}.{kind}"] = weights.tensor(f"{name}.norm{number}.{kind}", (w,))
    return state


def _positions(weights: _Weights) -> NDArray[np.float32]:
    """The class token's position and the patches' [1 + 16 · 16, w], with what the convolution adds to each patch."""
    old, new = PUBLISHED_SIDE // PATCH, SIDE // PATCH
    published = weights.positions(old * old)
    patches = published[1:].reshape(old, old, WIDTH)
    bias = weights.tensor("embeddings.patch_embeddings.projection.bias", (WIDTH,))
    resized = _resized(_resized(patches.astype(np.float64), new).swapaxes(0, 1), new).swapaxes(0, 1)
    return np.concatenate([published[:1], (resized + bias).reshape(new * new, WIDTH).astype(np.float32)])


def _resized(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Values [m, ...] at n places of their first axis: bicubic, pixels' centres aligned, as the graph does it.

    Written out in sums of fixed order, so that every machine gets the same bytes, which the table pins.
    """
    m = len(values)
    places = (np.arange(n) + 0.5) * m / n - 0.5
    left = np.floor(places).astype(int)
    total = np.zeros((n, *values.shape[1:]))
    for tap in range(-1, 3):
        t = np.abs(places - left - tap)
        near = (_CUBIC + 2) * t**3 - (_CUBIC + 3) * t**2 + 1
        far = _CUBIC * (t**3 - 5 * t**2 + 8 * t - 4)
        weights = np.where(t <= 1, near, far).reshape(-1, *[1] * (values.ndim - 1))
        total = total + weights * values[np.clip(left + tap, 0, m - 1)]
    return total


def _read_tensors(data: bytes, where: str) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise InputCorrupt(f"{where} can't be read as safetensors ({error}).") from None
    return tensors
